//! Editing patches: each story runs the real `vcbuild patch` in a small project, and what it writes is also
//! given to git and GNU patch.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use snapbox::str;

use crate::support::{Project, folder};

/// Twenty-six lines with some replaced.
fn letters(changes: &[(char, &str)]) -> String {
    let line = |letter: char| {
        let change = changes.iter().find(|(known, _)| *known == letter);
        change.map_or(format!("{letter}\n"), |(_, text)| text.to_string())
    };
    ('a'..='z').map(line).collect()
}

const FIRST: &str = "From: somebody\nSubject: the first\n\nWhy it is.\n---\n src/f | 2 +-\n\ndiff --git a/f b/f\nindex 123..456 100644\n--- a/f\n+++ b/f\n@@ -1,6 +1,6 @@ a heading\n a\n b\n-c\n+C\n d\n e\n f\n-- \n2.30\n";
const SECOND: &str = "--- a/f\n+++ b/f\n@@ -19,7 +19,7 @@\n s\n t\n u\n-v\n+V\n w\n x\n y\n";

/// A folder with two patches over it.
fn project() -> Project {
    Project::new()
        .config("[patch.p]\ntree = 'src'\nfiles = ['patches/*.patch']\n")
        .file("src/f", &letters(&[]))
        .file("src/g", "g\n")
        .file("patches/1-first.patch", FIRST)
        .file("patches/2-second.patch", SECOND)
}

/// Everything that the task makes, as git and GNU patch make it of the same files.
#[track_caller]
fn others_agree(project: &Project, patches: &[&str]) {
    project.call("get p -o ../made --force").success();
    for tool in ["git", "patch"] {
        let work = project.beside(tool);
        let _ = fs::remove_dir_all(&work);
        folder::copy(&project.path("src"), &work);
        for name in patches {
            let mut command = Command::new(tool);
            match tool {
                "git" => command.args(["apply", "--whitespace=nowarn"]).arg(project.path(name)),
                _ => command
                    .args(["-p1", "-f", "-s", "-E", "--no-backup-if-mismatch", "-i"])
                    .arg(project.path(name)),
            };
            let output = command
                .current_dir(&work)
                .env("GIT_CEILING_DIRECTORIES", project.beside(""))
                .output()
                .unwrap();
            assert!(output.status.success(), "{tool} {name}: {output:?}\n{}", project.read(name));
        }
        folder::assert_same(&project.beside("made"), &work);
    }
}

const BOTH: &[&str] = &["patches/1-first.patch", "patches/2-second.patch"];

/// Runs `vcbuild patch edit NAME -- sh -c SCRIPT`.
macro_rules! edit {
    ($project:expr, $name:expr, $script:expr) => {
        $project.call_list(&["patch", "edit", $name, "--", "sh", "-c", $script])
    };
}

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
fn the_work_tree_is_one_of_git_with_the_patch_as_its_difference() {
    let project = project().file("src/.gitattributes", "* text eol=crlf\n").file("src/crlf", "a\r\nb\r\n");
    let script = "(git diff | tail -n +3; git log --format=%s; git status --short) > ../../../../../said";
    edit!(project, "2-second", script).success();
    let said = SECOND.replace(" v\n", "").to_string() + "the tree before patches/2-second.patch\n M f\n";
    assert_eq!(project.read("said").replace("@@ r\n", "@@\n"), said);
}

#[test]
fn what_fails_is_kept_and_goes_on() {
    let project = project();
    let done = edit!(project, "1-first", "sed -i 's/^C$/kept/' f; exit 3").failure(1);
    assert!(
        done.stderr.starts_with(
            "error: `sh`: exit status 3; nothing was written\nhint: all changes are kept in `"
        ),
        "{}",
        done.stderr
    );
    assert_eq!(project.read("patches/1-first.patch"), FIRST);
    // Again: what was changed is still there.
    edit!(project, "1-first", "grep -q kept f && sed -i 's/^kept$/better/' f && false").failure(1);
    project.call("patch refresh 1-first").success().stderr(str![[r#"
wrote `patches/1-first.patch`: 1 file

"#]]);
    assert!(project.read("patches/1-first.patch").contains("+better\n"));
    others_agree(&project, BOTH);
    edit!(project, "1-first", "rm f; false").failure(1);
    project.call("patch edit 1-first --discard").success();
    project.call("patch edit 1-first --discard").failure(1);
    edit!(project, "1-first", "true").success();
}

#[test]
fn a_kill_loses_nothing() {
    let project = project();
    let mut child = project
        .command(&[
            "patch",
            "edit",
            "2-second",
            "--",
            "sh",
            "-c",
            "sed -i 's/^V$/edited/' f; echo now; sleep 60",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = [0; 4];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
    // While it lives nobody else gets in.
    project.call("patch edit 2-second --discard").failure(1).stderr(str![[r#"
error: `patches/2-second.patch` is being edited by another vcbuild

"#]]);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(project.read("patches/2-second.patch"), SECOND);
    project.call("patch refresh 2-second --keep").success();
    assert_eq!(
        project.read("patches/2-second.patch"),
        SECOND.replace("+V\n", "+edited\n").replace("@@\n s", "@@ r\n s")
    );
    edit!(project, "2-second", "sed -i 's/^edited$/V/' f").success();
    others_agree(&project, BOTH);
}

#[test]
fn somebody_else_changed_the_file_meanwhile() {
    let project = project();
    let done = edit!(
        project,
        "2-second",
        "sed -i 's/^V$/W/' f; echo '# more' >> ../../../../../patches/2-second.patch"
    )
    .failure(1);
    assert!(
        done.stderr.starts_with(
            "error: `patches/2-second.patch` was changed by somebody else while it was edited\n"
        ),
        "{}",
        done.stderr
    );
    let done = edit!(project, "2-second", "true").failure(1);
    assert!(
        done.stderr
            .starts_with("error: `patches/2-second.patch` has changed since its work tree was made\n")
    );
    project.write("patches/2-second.patch", SECOND);
    project.call("patch refresh 2-second").success();
    assert!(project.read("patches/2-second.patch").contains("+W\n"));
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
    project.call("patch new 4 -- true").failure(1);
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
fn what_git_ignores_is_left_out() {
    let project = project().file("src/.gitignore", "*.o\n");
    edit!(project, "1-first", "echo x > f.o; echo y > added.c").success();
    let text = project.read("patches/1-first.patch");
    assert!(text.contains("added.c") && !text.contains("f.o"), "{text}");
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
fn a_work_tree_for_an_ide() {
    let project = project();
    let place = project.call("patch edit 1-first --open").success().text();
    let place = std::path::PathBuf::from(place.trim_end());
    fs::write(place.join("g"), "from the ide\n").unwrap();
    project.call("patch refresh 1-first --keep").success();
    assert!(project.read("patches/1-first.patch").contains("+from the ide\n"));
    fs::write(place.join("g"), "again\n").unwrap();
    project.call("patch refresh 1-first").success();
    assert!(project.read("patches/1-first.patch").contains("+again\n"));
    assert!(!place.exists());
    // In a folder of one's own, which stays.
    let mine = project.beside("mine");
    project.call("patch new 3 --open --at ../mine").success();
    project.call("patch edit 3 --at ../other -- true").failure(1);
    fs::write(mine.join("g"), "mine\n").unwrap();
    fs::create_dir(project.path("sub")).unwrap();
    project.call("patch refresh 3").success();
    assert!(mine.join(".git").is_dir());
    let done = project.call("patch edit 3 --open --at ../mine").failure(1);
    assert!(done.stderr.contains("is not empty\nhint: name a new folder with `--at`\n"), "{}", done.stderr);
    others_agree(&project, &[BOTH, &["patches/3.patch"]].concat());
}

/// Runs `vcbuild` in a terminal and types.
fn in_a_terminal(project: &Project, arguments: &str, env: &[(&str, &str)], typed: &str) -> (i32, String) {
    let line = format!("{} {arguments}", env!("CARGO_BIN_EXE_vcbuild"));
    let mut command = Command::new("script");
    command.args(["-qec", &line, "/dev/null"]).current_dir(project.root());
    project.clean(&mut command);
    command.env("SHELL", "/bin/sh").env("TERM", "dumb").envs(env.iter().copied());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A terminal that is asked for input before anybody reads keeps it.
    std::thread::sleep(std::time::Duration::from_millis(1500));
    for piece in typed.split_inclusive(['\n', '\x03']) {
        std::io::Write::write_all(&mut stdin, piece.as_bytes()).unwrap();
        // Ctrl-C makes a terminal forget what was not read yet.
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn in_a_terminal_there_is_an_editor_or_a_shell() {
    let project = project().program("editor", "#!/bin/sh\ntest -t 0 && test -t 1 || exit 9\necho \"$@\" > ../../../../../said\nsed -i 's/^C$/seen/' \"$2\"\n");
    let editor = format!("{} --wait", project.path("editor").display());
    let (code, said) =
        in_a_terminal(&project, "patch edit 1-first", &[("VISUAL", &editor), ("EDITOR", "false")], "");
    assert_eq!(code, 0, "{said}");
    assert_eq!(project.read("said"), "--wait f\n");
    assert!(project.read("patches/1-first.patch").contains("+seen\n"));
    let (code, said) = in_a_terminal(&project, "patch new 3", &[], "sed -i s/^g$/typed/ g\nexit\n");
    assert_eq!(code, 0, "{said}");
    assert!(project.read("patches/3.patch").contains("+typed\n"));
    // Ctrl-C ends what runs in the shell, then the shell says that nothing is to be written.
    let (code, said) =
        in_a_terminal(&project, "patch edit 3", &[], "echo lost > g; sleep 60\n\x03exit 1\n");
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("nothing was written"), "{said}");
    // Ctrl-C to a command: it ends, we do not.
    let (code, said) = in_a_terminal(&project, "patch edit 3 -- sleep 60", &[], "\x03");
    assert_eq!(code, 130, "{said}");
    assert!(said.contains("`sleep` was interrupted; nothing was written"), "{said}");
    project.call("patch refresh 3").success();
    assert!(project.read("patches/3.patch").contains("+lost\n"), "{}", project.read("patches/3.patch"));
}

#[test]
fn a_folder_that_cannot_be_written() {
    let project = project();
    fs::set_permissions(project.path("patches"), fs::Permissions::from_mode(0o555)).unwrap();
    let edit = ["patch", "edit", "1-first", "--", "sed", "-i", "s/^C$/D/", "f"];
    let mut command = project.command(&edit);
    if rustix::process::getuid().is_root() {
        // Without this even root has to keep to permissions.
        let mut without = Command::new("setpriv");
        without
            .arg("--bounding-set=-dac_override,-dac_read_search")
            .arg(env!("CARGO_BIN_EXE_vcbuild"))
            .args(edit);
        without.current_dir(project.root()).stdin(Stdio::null());
        project.clean(&mut without);
        command = without;
    }
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("permission denied\nhint: all changes are kept in `"), "{said}");
    fs::set_permissions(project.path("patches"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(project.read("patches/1-first.patch"), FIRST);
    project.call("patch refresh 1-first").success();
    assert!(project.read("patches/1-first.patch").contains("+D\n"));
}

#[test]
fn a_patch_that_is_listed_and_not_there_yet() {
    let project = project()
        .config("[patch.p]\ntree = 'src'\nfiles = ['patches/1-first.patch', 'patches/mine.patch']\n");
    project.call("patch rebase").failure(1);
    project.call("patch new mine -- sed -i s/^g$/G/ g").success();
    others_agree(&project, &["patches/1-first.patch", "patches/mine.patch"]);
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
    assert!(project.call("check").failure(1).text().contains("`f` has this change already"));
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
