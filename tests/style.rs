//! Rules of the source that no lint knows: short files that say what they do, nothing left to do, and a
//! README whose commands exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{Project, folder};

/// The longest file, in lines of code; tests in it do not count.
const LONGEST: usize = 460;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

fn files(folder: &str) -> Vec<(String, String)> {
    let all = folder::files(&root().join(folder));
    let names = all.into_iter().filter(|name| name.extension().is_some_and(|e| e == "rs"));
    names
        .map(|name| (format!("{folder}/{}", name.display()), root().join(folder).join(name)))
        .map(|(name, path)| (name, fs::read_to_string(path).unwrap()))
        .collect()
}

#[test]
fn files_are_short_and_open_with_what_they_do() {
    let mut wrong = Vec::new();
    for (name, text) in files("src") {
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap().lines().count();
        let is_test =
            ["_tests.rs", "/tests.rs", "/stories.rs", "/world.rs"].iter().any(|end| name.ends_with(end));
        if code > LONGEST && !is_test {
            wrong.push(format!("{name} has {code} lines"));
        }
        if !text.starts_with("//! ") {
            wrong.push(format!("{name} does not say what it does"));
        }
        let head = text.lines().take_while(|line| line.starts_with("//!"));
        let head = head.filter(|line| !line.starts_with("//! |")).count();
        if head > 8 && name != "src/lib.rs" {
            wrong.push(format!("{name} says it in {head} lines"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_file_belongs_to_the_crate() {
    let (all, mut orphans) = (files("src"), Vec::new());
    for (name, _) in &all {
        let (folder, file) = name.rsplit_once('/').unwrap();
        let stem = file.trim_end_matches(".rs");
        let (stem, above) = match stem {
            "lib" | "main" => continue,
            "mod" => (folder.rsplit('/').next().unwrap(), folder.rsplit_once('/').unwrap().0),
            _ => (stem, folder),
        };
        let declares =
            |text: &str| text.contains(&format!("mod {stem};")) || text.contains(&format!("\"{file}\"]"));
        let found =
            all.iter().any(|(other, text)| other.rsplit_once('/').unwrap().0 == above && declares(text));
        if !found {
            orphans.push(name);
        }
    }
    assert_eq!(orphans, Vec::<&String>::new(), "these files are never compiled");
}

#[test]
fn nothing_is_left_to_do() {
    let mut wrong = Vec::new();
    for (name, text) in files("src").into_iter().chain(files("benches")) {
        for (number, line) in text.lines().enumerate() {
            let left = [
                concat!("TO", "DO"),
                concat!("FIX", "ME"),
                concat!("XX", "X:"),
                "todo!(",
                "unimplemented!(",
            ];
            if left.iter().any(|word| line.contains(word)) {
                wrong.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_crate_forbids_unsafe_code() {
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    assert!(lib.contains("#![forbid(unsafe_code)]"));
    for (name, text) in files("src") {
        assert!(!text.contains("unsafe {") && !text.contains("unsafe fn"), "{name}");
    }
}

#[test]
fn the_commands_of_the_readme_exist() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let project = Project::new();
    let help = project.call("--help").success().text();
    let verbs: BTreeSet<&str> =
        help.lines().filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next()).collect();
    let mut looked_at = 0;
    for found in regex::Regex::new(r"vcbuild ([a-z]+)\b").unwrap().captures_iter(&readme) {
        let (before, verb) = (&readme[..found.get(0).unwrap().start()], &found[1]);
        if before.ends_with('`') {
            looked_at += 1;
            assert!(verbs.contains(verb), "`vcbuild {verb}` is not a verb");
        }
    }
    assert!(looked_at > 0, "the README names no verb");
    // The first block is what a new user types.
    let block = readme.split("```").nth(1).unwrap();
    assert!(block.contains("cargo run --release -- --dir examples/hello run deploy"), "{block}");
    for path in ["tests/run", ".ci/run", "LICENSE", "src/lib.rs", "examples/hello/vcbuild.toml"] {
        assert!(root().join(path).exists(), "{path}");
    }
    for found in regex::Regex::new(r"`((?:src|tests|docs|examples|benches)/[A-Za-z0-9_./-]*)`")
        .unwrap()
        .captures_iter(&readme)
    {
        assert!(root().join(&found[1]).exists(), "the README names `{}`", &found[1]);
    }
}
