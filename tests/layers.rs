//! The layer table in `src/lib.rs` is true: each module uses only rows above its own, and its own row.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use regex::Regex;

use crate::support::folder;

/// The row of each module, from the table.
fn rows() -> BTreeMap<String, usize> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let table = text.split("# The layers").nth(1).unwrap().split("//! #").next().unwrap();
    let name = Regex::new("`([a-z_]+)`").unwrap();
    let mut rows = BTreeMap::new();
    let lines = table.lines().filter(|line| line.starts_with("//! |")).skip(2);
    for (row, line) in lines.enumerate() {
        let modules = line.split('|').nth(2).unwrap();
        for found in name.captures_iter(modules) {
            assert!(rows.insert(found[1].to_string(), row).is_none(), "`{}` has two rows", &found[1]);
        }
    }
    rows
}

/// A file without its tests and comments: those may use what they like.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod ").next().unwrap();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Whether a file is there for tests only: some `mod` line under `#[cfg(test)]` names it.
fn is_test(all: &BTreeMap<String, String>, name: &str) -> bool {
    let stem = name.rsplit('/').next().unwrap().trim_end_matches(".rs");
    let declared = Regex::new(&format!(
        r#"#\[cfg\(test\)\]\n(#\[[^\n]*\n)*(pub(\(crate\))? )?mod ({stem})\b|#\[path = "{stem}.rs"\]"#
    ))
    .unwrap();
    let beside = |other: &str| {
        other.rsplit_once('/').map(|(folder, _)| folder) == name.rsplit_once('/').map(|(folder, _)| folder)
    };
    all.iter().any(|(other, text)| beside(other) && declared.is_match(text))
}

/// The modules that a text uses by `crate::`, also in braces.
fn used(text: &str) -> Vec<String> {
    let one = Regex::new(r"\bcrate::([a-z_]+)").unwrap();
    let braces = Regex::new(r"\buse crate::\{([^;]*)\};").unwrap();
    let first = Regex::new(r"(?:^|,)\s*([a-z_]+)").unwrap();
    let mut found: Vec<String> = one.captures_iter(text).map(|found| found[1].to_string()).collect();
    for list in braces.captures_iter(text) {
        // Only names at the outermost level are modules of the crate.
        let mut depth = 0;
        let outer: String = list[1]
            .chars()
            .filter(|c| {
                depth += i32::from(*c == '{') - i32::from(*c == '}');
                depth == 0
            })
            .collect();
        found.extend(first.captures_iter(&outer).map(|found| found[1].to_string()));
    }
    found
}

fn sources() -> BTreeMap<String, String> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let names = folder::files(&src).into_iter().filter(|name| name.extension().is_some_and(|e| e == "rs"));
    names.map(|name| (name.display().to_string(), fs::read_to_string(src.join(name)).unwrap())).collect()
}

#[test]
fn modules_use_only_lower_layers() {
    let (rows, sources) = (rows(), sources());
    let declared = Regex::new(r"(?m)^(?:pub )?mod ([a-z_]+);").unwrap();
    for found in declared.captures_iter(&sources["lib.rs"]) {
        assert!(rows.contains_key(&found[1]), "the module `{}` has no row in the table", &found[1]);
    }
    let (mut wrong, mut looked_at) = (Vec::new(), 0);
    for (name, text) in &sources {
        let module = name.split('/').next().unwrap().trim_end_matches(".rs");
        if ["lib", "main"].contains(&module) || is_test(&sources, name) {
            continue;
        }
        for other in used(&code(text)) {
            looked_at += 1;
            match rows.get(&other) {
                Some(row) if *row > rows[module] => {
                    wrong.push(format!("{name}: `{module}` uses `{other}`, which is above it"))
                }
                Some(_) => {}
                None => wrong.push(format!("{name}: `crate::{other}` is no module of the table")),
            }
        }
    }
    assert!(looked_at > 300, "only {looked_at} uses were found: the test reads something else");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_rule_can_be_broken() {
    assert_eq!(used("use crate::{a::{b, c}, d};\nlet x = crate::e::f();"), ["e", "a", "d"]);
    assert_eq!(code("use a;\n// crate::x\n#[cfg(test)]\nmod tests { use crate::y; }"), "use a;");
    let rows = rows();
    assert!(rows["digest"] < rows["host"] && rows["host"] < rows["tasks"] && rows["tasks"] < rows["cli"]);
}
