//! Patches over a new tree: merged, in conflict, given up, interrupted.

use std::fs;
use std::process::{Command, Stdio};

use snapbox::str;

use super::{BOTH, FIRST, SECOND, letters, others_agree, project};
use crate::support::{Project, folder};

/// A repository, cloned and patched, whose upstream moves.
struct Upstream {
    project: Project,
}

impl Upstream {
    fn new() -> Self {
        let project = project()
            .config("[clone.c]\nurl = 'up'\nrev = 'main'\n[patch.p]\ntree = 'clone.c'\nfiles = ['patches/*.patch']\nfuzz = 0\n");
        fs::rename(project.path("src"), project.path("up")).unwrap();
        let upstream = Self { project };
        upstream.git("init -q -b main");
        upstream.commit();
        upstream
    }

    fn git(&self, arguments: &str) {
        let mut command = Command::new("git");
        self.project.clean(&mut command);
        command.env("GIT_CONFIG_GLOBAL", "/dev/null");
        command.args(["-c", "user.name=a", "-c", "user.email=a@example.com"]).args(arguments.split(' '));
        let output = command.current_dir(self.project.path("up")).output().unwrap();
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn project_git(&self, arguments: &str) {
        let arguments = format!("-C .. {arguments}");
        self.git(&arguments);
    }

    fn head(&self, rev: &str) -> String {
        let mut git = Command::new("git");
        let output = git.args(["rev-parse", rev]).current_dir(self.project.path("up")).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().into()
    }

    fn commit(&self) {
        self.git("add -A");
        self.git("commit -qm x");
    }

    /// A run, then another upstream, and its pin.
    fn moves(&self, change: impl FnOnce(&Project)) {
        self.project.run("").success();
        change(&self.project);
        self.commit();
        self.project.call("update").success();
    }

    /// What the patches make, as git makes it of upstream's files.
    #[track_caller]
    fn agrees(&self, patches: &[&str]) {
        let src = self.project.path("src");
        let _ = fs::remove_dir_all(&src);
        folder::copy(&self.project.path("up"), &src);
        fs::remove_dir_all(src.join(".git")).unwrap();
        others_agree(&self.project, patches);
    }
}

/// The path in a message.
fn work_tree(said: &str) -> std::path::PathBuf {
    let line = said.lines().find(|line| line.starts_with("hint: change the files in `")).unwrap();
    line.split('`').nth(1).unwrap().into()
}

#[test]
fn a_rebase_renews_merges_and_leaves_alone() {
    let upstream = Upstream::new();
    let project = &upstream.project;
    project.write("patches/3.patch", "--- a/g\n+++ b/g\n@@ -1 +1 @@\n-g\n+G\n");
    // The first needs a merge, the second gets another place, the third stays.
    upstream.moves(|project| {
        project.write("up/f", &letters(&[('a', "A\n"), ('e', "e changed\n"), ('k', "k\nmore\n")]));
    });
    project.run("").failure(1);
    let done = project.call("patch rebase").success();
    assert_eq!(
        done.stderr,
        "`patches/1-first.patch`: merged\n`patches/2-second.patch`: places renewed\n1 file as before\n"
    );
    project.call("check").success();
    assert!(project.read("patches/1-first.patch").starts_with("From: somebody\nSubject: the first\n\nWhy it is.\n---\n src/f | 2 +-\n\ndiff --git a/f b/f\n--- a/f\n"));
    assert!(project.read("patches/1-first.patch").ends_with("\n-- \n2.30\n"));
    assert_eq!(project.read("patches/2-second.patch"), SECOND.replace("-19,7 +19,7", "-20,7 +20,7"));
    upstream.agrees(&["patches/1-first.patch", "patches/2-second.patch", "patches/3.patch"]);
    project.call("patch rebase").success().stderr(str![[r#"
all patches apply as they are

"#]]);
}

#[test]
fn a_conflict_is_resolved() {
    let upstream = Upstream::new();
    let project = &upstream.project;
    upstream.moves(|project| project.write("up/f", &letters(&[('c', "sea\n"), ('v', "vee\n"), ('n', "")])));
    let done = project.call("patch rebase").failure(1);
    assert!(done.stderr.contains("error: `patches/1-first.patch` does not go together with what is below it now\n  `f`: both change the same lines, which are marked\n"), "{}", done.stderr);
    let folder = work_tree(&done.stderr);
    let marked = fs::read_to_string(folder.join("f")).unwrap();
    assert!(
        marked.contains("<<<<<<< the new tree\nsea\n=======\nC\n>>>>>>> patches/1-first.patch\n"),
        "{marked}"
    );
    // Not yet resolved; and no second one.
    assert!(
        project
            .call("patch rebase --continue")
            .failure(1)
            .stderr
            .contains("still has the marks of a conflict")
    );
    assert!(
        project
            .call("patch rebase")
            .failure(1)
            .stderr
            .contains("is not finished: `patches/1-first.patch` is in conflict")
    );
    let resolve = |folder: &std::path::Path, by: &str| {
        let text = fs::read_to_string(folder.join("f")).unwrap();
        let (head, rest) = text.split_once("<<<<<<<").unwrap();
        let tail = rest.split_once(">>>>>>> ").unwrap().1.split_once('\n').unwrap().1;
        fs::write(folder.join("f"), format!("{head}{by}{tail}")).unwrap();
    };
    resolve(&folder, "SEA\n");
    // The second patch is in conflict too. Nothing is written before all are done.
    let done = project.call("patch rebase --continue").failure(1);
    assert_eq!(project.read("patches/1-first.patch"), FIRST);
    resolve(&work_tree(&done.stderr), "VEE\n");
    project.call("patch rebase --continue").success().stderr(str![[r#"
`patches/1-first.patch`: as decided
`patches/2-second.patch`: as decided

"#]]);
    assert!(project.read("patches/1-first.patch").contains("-sea\n+SEA\n"));
    assert!(project.read("patches/2-second.patch").contains("-vee\n+VEE\n"));
    upstream.agrees(BOTH);
    project.call("patch rebase --continue").failure(2);
}

#[test]
fn a_rebase_is_given_up() {
    let upstream = Upstream::new();
    let project = &upstream.project;
    upstream.moves(|project| project.write("up/f", &letters(&[('a', "x\n"), ('v', "vee\n")])));
    let done = project.call("patch rebase").failure(1);
    assert!(
        done.stderr.contains("error: `patches/2-second.patch` does not go together"),
        "{}",
        done.stderr
    );
    project.call("patch rebase --abort").success();
    assert_eq!(
        (project.read("patches/1-first.patch"), project.read("patches/2-second.patch")),
        (FIRST.into(), SECOND.into())
    );
    project.call("patch rebase --abort").failure(2);
}

#[test]
fn an_interrupted_writing_is_finished_or_taken_back() {
    let upstream = Upstream::new();
    let project = &upstream.project;
    upstream.moves(|project| project.write("up/f", &format!("0\n{}", letters(&[('v', "vee\n")]))));
    let done = project.call("patch rebase").failure(1);
    let folder = work_tree(&done.stderr);
    let text = fs::read_to_string(folder.join("f")).unwrap();
    fs::write(
        folder.join("f"),
        text.replace("<<<<<<< the new tree\nvee\n=======\n", "")
            .replace(">>>>>>> patches/2-second.patch\n", ""),
    )
    .unwrap();
    // The second file cannot be written: something stands in the way of its folder's temporary file.
    for end in ["--continue", "--abort"] {
        let state = project.cache("edit");
        let saved = project.beside("saved");
        folder::copy(&state, &saved);
        project.call("patch rebase --continue").success();
        // As if it had been killed after the first file: the state is still there, the second is old.
        let new = project.read("patches/2-second.patch");
        fs::remove_dir_all(&state).unwrap();
        folder::copy(&saved, &state);
        let home = fs::read_dir(&state)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| path.is_dir())
            .unwrap();
        let file = home.join("rebase.json");
        let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        json["open"] = serde_json::Value::Null;
        let done = json["done"].as_array_mut().unwrap();
        done.push(serde_json::json!({ "name": "patches/2-second.patch", "came": "Decided" }));
        fs::write(&file, json.to_string()).unwrap();
        fs::write(home.join("was/1"), SECOND).unwrap();
        fs::write(home.join("now/1"), &new).unwrap();
        project.write("patches/2-second.patch", SECOND);
        assert!(project.call("patch rebase").failure(1).stderr.contains("its files are not all written"));
        project.call_list(&["patch", "rebase", end]).success();
        let is_new = project.read("patches/2-second.patch") == new;
        assert_eq!(
            (is_new, project.read("patches/1-first.patch") != FIRST),
            (end == "--continue", end == "--continue")
        );
        project.write("patches/1-first.patch", FIRST);
        project.write("patches/2-second.patch", SECOND);
        let _ = fs::remove_dir_all(&state);
        folder::copy(&saved, &state);
        fs::remove_dir_all(&saved).unwrap();
    }
}

#[test]
fn upstream_has_it_now() {
    let upstream = Upstream::new();
    let project = &upstream.project;
    upstream.moves(|project| project.write("up/f", &letters(&[('c', "C\n"), ('y', "y changed\n")])));
    let done = project.call("patch rebase").success();
    let expected = "warning: `patches/1-first.patch`: the tree has all of it now\n\
         hint: remove the file, and its line in vcbuild.toml if it has one\n\
         `patches/2-second.patch`: merged\n";
    assert!(done.stderr.ends_with(expected), "{}", done.stderr);
    project.remove("patches/1-first.patch");
    upstream.agrees(&["patches/2-second.patch"]);
}

#[test]
fn upstream_moved_or_removed_the_file() {
    let upstream = Upstream::new();
    let project = &upstream.project;
    upstream.moves(|project| fs::rename(project.path("up/f"), project.path("up/elsewhere")).unwrap());
    project.call("patch rebase").success();
    assert!(project.read("patches/1-first.patch").contains("+++ b/elsewhere\n"));
    upstream.agrees(BOTH);
    upstream.moves(|project| project.remove("up/elsewhere"));
    let done = project.call("patch rebase").failure(1);
    assert!(
        done.stderr.contains("`elsewhere`: the file that the patch changes is not there any more"),
        "{}",
        done.stderr
    );
}

#[test]
fn the_old_tree_is_found_without_a_run() {
    let upstream = Upstream::new();
    let project = &upstream.project;
    upstream.moves(|project| project.write("up/f", &letters(&[('a', "x\n"), ('e', "y\n")])));
    // No run is remembered, and git knows nothing: the user has to say.
    project.remove("cache");
    let done = project.call("patch rebase").failure(1);
    assert!(
        done.stderr.contains(
            "`patches/1-first.patch` does not go into the tree, and what it was made for is not known"
        ),
        "{}",
        done.stderr
    );
    assert!(done.stderr.contains("hint: `--from REV` names the revision"));
    upstream.git("branch old HEAD~1");
    project.call("patch rebase --from old").success();
    upstream.agrees(BOTH);
    // What git has committed of the project says it too.
    project.write("patches/1-first.patch", FIRST);
    project.call("update").success();
    project.write(
        "vcbuild.lock",
        &project.read("vcbuild.lock").replace(&upstream.head("HEAD"), &upstream.head("HEAD~1")),
    );
    project.write(".gitignore", "cache\nup\n");
    upstream.project_git("init -q -b main");
    upstream.project_git("add -A");
    upstream.project_git("commit -qm x");
    project.remove("cache");
    project.call("update").success();
    project.call("patch rebase").success();
    upstream.agrees(BOTH);
    assert!(project.read("patches/1-first.patch").contains("-c\n+C\n d\n y\n"));
}

#[test]
fn an_earlier_patch_was_edited() {
    let project = project().config("[patch.p]\ntree = 'src'\nfiles = ['patches/*.patch']\nfuzz = 0\n");
    project.run("").success();
    edit!(project, "1-first", "sed -i 's/^x$/double/' f").success();
    project.call("check").failure(1);
    project.call("patch rebase").success();
    others_agree(&project, BOTH);
}

#[test]
fn a_cleared_cache_takes_no_edit_away() {
    let upstream = Upstream::new();
    let project = &upstream.project;
    edit!(project, "1-first", "sed -i 's/^C$/D/' f; false").failure(1);
    assert!(
        project
            .call("patch rebase")
            .failure(1)
            .stderr
            .contains("`patches/1-first.patch` has an open work tree")
    );
    project.call("cache clear").success();
    project.call("patch refresh 1-first").success();
    upstream.agrees(BOTH);
    // A conflict in the first patch is resolved; what the second was made for is lost with the cache.
    project.write("patches/1-first.patch", FIRST);
    upstream.moves(|project| project.write("up/f", &letters(&[('c', "sea\n"), ('s', "S\n")])));
    let done = project.call("patch rebase").failure(1);
    let file = work_tree(&done.stderr).join("f");
    let text = fs::read_to_string(&file).unwrap();
    let (start, end) = (text.find("<<<<").unwrap(), text.find("d\ne\n").unwrap());
    fs::write(&file, format!("{}SEA\n{}", &text[..start], &text[end..])).unwrap();
    project.call("cache clear").success();
    let done = project.call("patch rebase --continue").failure(1);
    assert!(
        done.stderr.contains(
            "`patches/2-second.patch` does not go into the tree, and what it was made for is not known"
        ),
        "{}",
        done.stderr
    );
    // With less to ask for it goes on: the decision was kept.
    project.edit("vcbuild.toml", |text| text.replace("fuzz = 0", "fuzz = 2"));
    project.call("patch rebase --continue").success();
    upstream.agrees(BOTH);
}

#[test]
fn killed_at_any_moment_a_rebase_goes_on_or_begins_again() {
    let upstream = Upstream::new();
    let project = &upstream.project;
    upstream.moves(|project| project.write("up/f", &format!("0\n{}", letters(&[('e', "E\n")]))));
    project.run("clone").success();
    let saved = [project.read("patches/1-first.patch"), project.read("patches/2-second.patch")];
    let read = || BOTH.iter().map(|name| project.read(name)).collect::<Vec<_>>();
    project.call("patch rebase").success();
    let new = read();
    assert!(new[0] != saved[0] && new[1] != saved[1]);
    for wait in 0..30 {
        for (name, text) in BOTH.iter().zip(&saved) {
            project.write(name, text);
        }
        let mut child = project.command(&["patch", "rebase"]).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_micros(wait * 1500));
        child.kill().unwrap();
        child.wait().unwrap();
        for (now, all) in read().iter().zip(saved.iter().zip(&new)) {
            assert!(now == all.0 || now == all.1);
        }
        let done = project.call("patch rebase");
        if done.stderr.contains("is not finished") {
            project.call("patch rebase --continue").success();
        } else {
            done.success();
        }
        assert_eq!(read(), new);
    }
}
