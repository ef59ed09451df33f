//! New and changed patches: what is written back, and which patch is meant.

use std::fs;
use std::process::Command;

use snapbox::str;

use super::{BOTH, FIRST, SECOND, letters, others_agree, project};
use crate::support::folder;

#[test]
fn an_edit_changes_its_hunk_and_nothing_else() {
    let project = project();
    edit!(project, "1-first", "sed -i 's/^C$/CC/' f").success().stderr(str![[r#"
wrote `patches/1-first.patch`: 1 file

"#]]);
    let expected =
        FIRST.replace("+C\n", "+CC\n").replace("index 123..456 100644\n", "").replace("@@ a heading", "@@");
    assert_eq!(project.read("patches/1-first.patch"), expected);
    assert_eq!(project.read("patches/2-second.patch"), SECOND);
    others_agree(&project, BOTH);
    assert!(fs::read_dir(project.cache("edit")).unwrap().all(|entry| !entry.unwrap().path().is_dir()));
}

#[test]
fn without_a_change_not_a_byte_changes() {
    let project = project();
    for name in ["1-first.patch", "patches/2-second.patch", "2-second"] {
        edit!(project, name, "true").success();
    }
    assert_eq!(project.read("patches/1-first.patch"), FIRST);
    assert_eq!(project.read("patches/2-second.patch"), SECOND);
    // Also not if they go in with an offset or fuzz.
    project.edit("src/f", |text| format!("zero\n{}", text.replace("e\n", "E\n")));
    for name in ["1-first", "2-second"] {
        edit!(project, name, "true").success();
    }
    assert_eq!(project.read("patches/1-first.patch"), FIRST);
    assert_eq!(project.read("patches/2-second.patch"), SECOND);
}

#[test]
fn a_new_patch() {
    let project = project();
    project
        .call_list(&[
            "patch",
            "new",
            "3-third",
            "-m",
            "Adds a file.",
            "--",
            "sh",
            "-c",
            "echo x > new; echo G >> g",
        ])
        .success()
        .stderr(str![[r#"
wrote `patches/3-third.patch`: 2 files

"#]]);
    assert_eq!(
        project.read("patches/3-third.patch"),
        "Adds a file.\n\ndiff --git a/g b/g\n--- a/g\n+++ b/g\n@@ -1 +1,2 @@\n g\n+G\ndiff --git a/new b/new\nnew file mode 100644\n--- /dev/null\n+++ b/new\n@@ -0,0 +1 @@\n+x\n"
    );
    others_agree(&project, &[BOTH, &["patches/3-third.patch"]].concat());
    project.call("patch new 3-third -- true").failure(2);
    // Nothing changed: no patch, and the work tree can be dropped.
    let done = project.call("patch new 4 -- true").failure(1);
    assert!(
        done.stderr
            .contains("\nhint: `vcbuild patch edit patches/4.patch --discard` drops the work tree\n")
    );
    assert!(!project.path("patches/4.patch").exists());
    project.call("patch edit 4 --discard").success();
    // In between, and in the way of what comes later.
    let done =
        project.call_list(&["patch", "new", "1-second", "--", "sed", "-i", "s/^v$/other/", "f"]).failure(1);
    assert!(done.stderr.starts_with("warning: `patches/1-second.patch` comes before `patches/2-second.patch`, which has to apply on top of it\nerror: `patches/2-second.patch`, which comes after it, would not apply any more; nothing was written\n"), "{}", done.stderr);
    assert!(!project.path("patches/1-second.patch").exists());
    project
        .call_list(&["patch", "edit", "1-second", "--", "sed", "-i", "s/^other$/v/; s/^m$/M/", "f"])
        .success();
    others_agree(
        &project,
        &[
            "patches/1-first.patch",
            "patches/1-second.patch",
            "patches/2-second.patch",
            "patches/3-third.patch",
        ],
    );
}

#[test]
fn a_list_without_a_glob_gets_the_new_name() {
    for (list, added) in [
        ("['patches/1-first.patch']", "['patches/1-first.patch', 'patches/new.patch']"),
        (
            "[\n  \"patches/1-first.patch\",\n]",
            "[\n  \"patches/1-first.patch\",\n  \"patches/new.patch\",\n]",
        ),
    ] {
        let project = project().config(&format!("[patch.p]\ntree = 'src'\nfiles = {list}\n"));
        project.call("patch new new -- sed -i s/^g$/G/ g").success();
        assert!(
            project.read("vcbuild.toml").ends_with(&format!("files = {added}\n")),
            "{}",
            project.read("vcbuild.toml")
        );
        others_agree(&project, &["patches/1-first.patch", "patches/new.patch"]);
    }
    let project = project().config(
        "[vars]\nlast = '1-first'\n[patch.p]\ntree = 'src'\nfiles = ['patches/{{ last }}.patch']\n",
    );
    project.call("patch new new -- sed -i s/^g$/G/ g").success().stderr(str![[r#"
wrote `patches/new.patch`: 1 file
warning: no line of `vcbuild.toml` takes it: add `"patches/new.patch"` to `files` of `patch.p`

"#]]);
}

#[test]
fn the_first_patch_of_all() {
    let project = project();
    project.remove("patches");
    project.call("patch new first -- sed -i s/^g$/G/ g").success();
    others_agree(&project, &["patches/first.patch"]);
}

#[test]
fn names_that_mean_nothing_or_too_much() {
    let project = project().file("patches/sub/x", "").config("[patch.p]\ntree = 'src'\nfiles = ['patches/*.patch']\n[patch.q]\ntree = 'src'\nfiles = ['patches/1-*.patch']\n");
    project.call("patch edit third -- true").failure(2);
    project.call("patch edit 2-secnd -- true").failure(2).stderr(str![[r#"
error: no patch task has a patch `2-secnd`
hint: did you mean `2-second`?

error: 1 mistake

"#]]);
    assert!(
        project.call("patch edit 2 -- true").failure(2).stderr.contains("did you mean `2-second.patch`?")
    );
    project.call("patch edit 1-first -- true").failure(2).stderr(str![[r#"
error: several tasks have `patches/1-first.patch`
hint: say which: `--task patch.p` or `--task patch.q`

error: 1 mistake

"#]]);
    project.call("patch edit 1-first --task q -- sed -i s/^C$/D/ f").success().stderr(str![[r#"
wrote `patches/1-first.patch`: 1 file
warning: it is also a patch of `patch.p`
hint: `vcbuild check` says whether it applies there

"#]]);
    for name in ["../out", "/tmp/out", "patches/../../out", "a*b", ""] {
        let done = project
            .call_list(&["patch", "new", name, "--task", "p", "--", "sed", "-i", "s/^g$/G/", "g"])
            .failure(2);
        assert!(done.stderr.contains("is not a file of the project"), "{}", done.stderr);
    }
    std::os::unix::fs::symlink(project.beside("home"), project.path("link")).unwrap();
    project.call("patch new link/x.patch --task p -- true").failure(2);
    project.call("patch edit 1-first --task p").failure(2).stderr(str![[r#"
error: there is no terminal to edit in
hint: give a command after `--`, or `--open` to make the work tree only

error: 1 mistake

"#]]);
}

#[test]
fn every_kind_of_change() {
    let project = project()
        .program("src/tool", "#!/bin/sh\n")
        .file("src/crlf", "a\r\nb\r\nc\r\n")
        .file("src/open", "no end");
    fs::write(project.path("src/data"), [0, 1, 2, 255]).unwrap();
    std::os::unix::fs::symlink("f", project.path("src/link")).unwrap();
    let script = "chmod +x g; chmod -x tool; printf '\\000new' > data; ln -sfn g link; ln -s data more; \
        sed -i 's/^b/B/' crlf; printf 'still none' > open; mkdir -p d/e; mv f d/e/f; printf 'a b' > 'two words'; : > empty";
    project.call_list(&["patch", "new", "3", "--", "sh", "-c", script]).success();
    let text = project.read("patches/3.patch");
    for part in [
        "rename from f\nrename to d/e/f\n",
        "old mode 100644\nnew mode 100755\n",
        "GIT binary patch\n",
        "new file mode 120000\n",
        "-b\r\n+B\r\n",
        "\\ No newline at end of file\n",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    project.call("get p -o ../made --force").success();
    let work = project.beside("git");
    folder::copy(&project.path("src"), &work);
    for name in [BOTH, &["patches/3.patch"]].concat() {
        let mut git = Command::new("git");
        git.args(["apply", "--whitespace=nowarn"]).arg(project.path(name)).current_dir(&work);
        assert!(git.env("GIT_CEILING_DIRECTORIES", project.beside("")).status().unwrap().success());
    }
    folder::assert_same(&project.beside("made"), &work);
    // Nothing changes: not a byte.
    edit!(project, "3", "true").success();
    assert_eq!(project.read("patches/3.patch"), text);
    // One thing less: only that goes.
    edit!(project, "3", "printf 'no end' > open").success();
    let less = project.read("patches/3.patch");
    assert!(less.len() < text.len() && !less.contains("a/open"));
    assert!(less.split("diff --git ").all(|section| text.contains(section)));
}

#[test]
fn a_matrix_of_patch_tasks() {
    let project = project()
        .config("[patch.p]\nmatrix = { side = ['l', 'r'] }\ntree = 'src-{{ side }}'\nfiles = ['patches/{{ side }}/*.patch', 'patches/*.patch']\n")
        .file("src-l/f", &letters(&[]))
        .file("src-r/f", &format!("0\n{}", letters(&[])))
        .file("patches/l/own.patch", "--- a/f\n+++ b/f\n@@ -9,7 +9,7 @@\n i\n j\n k\n-l\n+L\n m\n n\n o\n");
    project.write("patches/r/x.patch", "--- a/f\n+++ b/f\n@@ -1,4 +1,4 @@\n-0\n+zero\n a\n b\n c\n");
    edit!(project, "own", "sed -i 's/^L$/LL/' f").success();
    assert!(project.read("patches/l/own.patch").contains("+LL\n"));
    assert!(
        edit!(project, "1-first", "true").failure(2).stderr.contains("`--task patch.p[l]`"),
        "axes are named"
    );
}

#[test]
fn a_patch_that_is_listed_and_not_there_yet() {
    let project = project()
        .config("[patch.p]\ntree = 'src'\nfiles = ['patches/1-first.patch', 'patches/mine.patch']\n");
    project.call("patch rebase").failure(1);
    project.call("patch new mine -- sed -i s/^g$/G/ g").success();
    others_agree(&project, &["patches/1-first.patch", "patches/mine.patch"]);
}
