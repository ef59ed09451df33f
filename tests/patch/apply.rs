//! What applies and where, as a run and `check` tell it.

use snapbox::str;

use super::{BOTH, FIRST, SECOND, letters, others_agree, project};
use crate::support::folder;

#[test]
fn check_tells_of_each_patch() {
    let project = project().file("src/other", "1\n2\n3\n").file("src/third", "one\n");
    project.write("patches/3-other.patch", "--- a/other\n+++ b/other\n@@ -1,3 +1,3 @@\n 1\n-2\n+two\n 3\n");
    project.write("patches/4-third.patch", "--- a/third\n+++ b/third\n@@ -1 +1 @@\n-eins\n+zwei\n");
    project.write("patches/5-after.patch", "--- a/third\n+++ b/third\n@@ -1 +1 @@\n-zwei\n+drei\n");
    project.edit("src/f", |text| text.replace("c\n", "sea\n").replace("g\n", "gee\n"));
    project.edit("src/other", |text| format!("0\n{text}"));
    let said = project.call("check").failure(1).text();
    let lines: Vec<&str> = said.lines().filter(|line| !line.starts_with(' ')).collect();
    assert_eq!(
        lines,
        [
            "patch.p: error: `patches/1-first.patch` line 12: hunk 1 of `f` does not fit",
            "patch.p: `patches/2-second.patch` applies without `patches/1-first.patch`",
            "patch.p: `patches/3-other.patch` applies without `patches/1-first.patch`",
            "patch.p: warning: `patches/3-other.patch`: hunk 1 of `other` went to line 2, offset +1 line",
            "patch.p: error: `patches/4-third.patch` line 3: hunk 1 of `third` does not fit",
            "patch.p: not checked: `patches/5-after.patch` changes files of `patches/4-third.patch`, which does not apply",
            "2 errors in 1 task",
        ]
    );
    assert!(project.call("log p").failure(1).stderr.contains("has not run"), "`check` ran it");
}

#[test]
fn offsets_are_renewed() {
    let project = project();
    project.edit("src/f", |text| format!("zero\n{text}"));
    project.call("check").success().stdout(str![[r#"
patch.p: `patches/1-first.patch` applies
patch.p: warning: `patches/1-first.patch`: hunk 1 of `f` went to line 2, offset +1 line, fuzz 1
patch.p: `patches/2-second.patch` applies
patch.p: warning: `patches/2-second.patch`: hunk 1 of `f` went to line 20, offset +1 line
ok: 1 task

"#]]);
    project.call("patch refresh 1-first").success().stderr(str![[r#"
wrote `patches/1-first.patch`: 1 place renewed

"#]]);
    project.call("patch refresh patches/2-second.patch").success();
    assert_eq!(
        project.read("patches/1-first.patch"),
        FIRST.replace("@@ -1,6 +1,6 @@", "@@ -2,6 +2,6 @@").replace("index 123..456 100644\n", "")
    );
    assert_eq!(project.read("patches/2-second.patch"), SECOND.replace("-19,7 +19,7", "-20,7 +20,7"));
    project.call("check").success().stdout(str![[r#"
patch.p: `patches/1-first.patch` applies
patch.p: `patches/2-second.patch` applies
ok: 1 task

"#]]);
    project.call("patch refresh 1-first").success().stderr(str![[r#"
`patches/1-first.patch` applies as it is

"#]]);
    others_agree(&project, BOTH);
}

#[test]
fn later_patches_are_told_of() {
    let project = project();
    let done = edit!(project, "1-first", "sed -i 's/^v$/other/' f").success();
    assert!(
        done.stderr.contains("warning: `patches/2-second.patch` does not apply any more: "),
        "{}",
        done.stderr
    );
    assert!(done.stderr.ends_with("hint: `vcbuild patch rebase` brings the later patches in line\n"));
}

#[test]
fn what_is_there_already_is_an_error_unless_it_may_be() {
    let project = project();
    project.write("src/f", &letters(&[('c', "C\n")]));
    let done = project.run("").failure(1);
    assert!(done.stderr.contains("`f` has this change already"), "{}", done.stderr);
    assert!(
        done.stderr
            .contains("hint: remove the patch if upstream has it now, or set `already_applied = \"skip\"`")
    );
    let said = project.call("check").failure(1).text();
    assert!(said.contains("`f` has this change already") && !said.contains("rebase"), "{said}");
    project.edit("vcbuild.toml", |text| format!("{text}already_applied = 'skip'\n"));
    let done = project.run("").success();
    assert!(
        done.stderr.contains("`patches/1-first.patch`: `f` has this change already"),
        "{}",
        done.stderr
    );
    project.write("src/f", &letters(&[('c', "other\n")]));
    let done = project.run("").failure(1);
    assert!(
        done.stderr.contains("expected")
            && done.stderr.contains("there, from line")
            && done.stderr.contains("not there: `c`"),
        "{}",
        done.stderr
    );
}

#[test]
fn a_patch_stores_what_it_touches_and_no_more() {
    let project = project();
    for folder in 0..40 {
        for file in 0..40 {
            project.write(&format!("src/d{folder}/f{file}"), &format!("{folder} {file}\n"));
        }
    }
    let nested = "--- a/d7/f7\n+++ b/d7/f7\n@@ -1 +1 @@\n-7 7\n+seven\n";
    project.run("").success();
    let before = folder::files(&project.cache("cas")).len();
    project.write("patches/3.patch", nested);
    project.run("").success();
    // The patch, the file, its folder, the root.
    assert_eq!(folder::files(&project.cache("cas")).len(), before + 4);
}
