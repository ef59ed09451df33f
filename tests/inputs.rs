//! What is missing or cannot be read when a run needs it: the whole message.

use snapbox::str;

use crate::support::Project;
use crate::support::config::compile;

#[test]
fn not_text() {
    let project = Project::new();
    std::fs::write(project.path("vcbuild.toml"), b"[project]\nname = \"\xff\"\n").unwrap();
    project.call("list").failure(2).stderr(str![[r#"
error: `vcbuild.toml` is not UTF-8: invalid utf-8 sequence of 1 bytes from index 18

error: 1 mistake

"#]]);
}

#[test]
fn no_project_here() {
    Project::new().call("list").failure(2).stderr(str![[r#"
error: there is no `vcbuild.toml` here or above
hint: go to a project, name one with `--dir DIR`, or start one with `vcbuild init`

error: 1 mistake

"#]]);
    Project::new().call("list --dir nowhere").failure(2).stderr(str![[r#"
error: there is no `vcbuild.toml` in `[ROOT]/nowhere`

error: 1 mistake

"#]]);
}

#[test]
fn a_link_out_of_the_project_is_not_followed() {
    let project = Project::new()
        .config("[patch.p]\ntree = 'src'\nfiles = ['patches/a.patch']\n[compile.c]\ninputs = ['src/**']\nrun = [['cp', 'src/secret', 'o']]\noutputs = ['o']\n");
    std::fs::create_dir_all(project.path("src")).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", project.path("src/secret")).unwrap();
    std::os::unix::fs::symlink("/etc", project.path("patches")).unwrap();
    project.run("p").failure(1).stderr(str![[r#"
  failed patch.p  [TIME]
error: `patch.p` failed: `patches/a.patch` goes through the link `patches`
error: 1 task failed:
    `patch.p`: `patches/a.patch` goes through the link `patches`
failed: 1 failed ([TIME])

"#]]);
}

#[test]
fn a_missing_input() {
    let project = Project::new()
        .config("[compile.c]\ninputs = ['src/a.c', 'vcbuild.toml']\nrun = [['true']]\noutputs = ['o']\n");
    project.run("").failure(1).stderr(str![[r#"
  failed compile.c  [TIME]
error: `compile.c` failed: the input `src/a.c` does not exist in the project
error: 1 task failed:
    `compile.c`: the input `src/a.c` does not exist in the project
failed: 1 failed ([TIME])

"#]]);
    let project =
        Project::new().config("[compile.c]\ninputs = ['src/*.c']\nrun = [['true']]\noutputs = ['o']\n");
    project.run("").failure(1).stderr(str![[r#"
  failed compile.c  [TIME]
error: `compile.c` failed: `inputs` takes no file
error: 1 task failed:
    `compile.c`: `inputs` takes no file
failed: 1 failed ([TIME])

"#]]);
    let project = Project::new()
        .config("[patch.p]\ntree = 'src'\nfiles = ['patches/*.patch']\n")
        .file("src/a", "1\n");
    project.run("").failure(1).stderr(str![[r#"
  failed patch.p  [TIME]
error: `patch.p` failed: `patches/*.patch` matches no file
error: 1 task failed:
    `patch.p`: `patches/*.patch` matches no file
failed: 1 failed ([TIME])

"#]]);
    let project = Project::new().config("[patch.p]\ntree = 'src'\nfiles = ['patches/a.patch']\n");
    project.run("").failure(1).stderr(str![[r#"
  failed patch.p  [TIME]
error: `patch.p` failed: `patches/a.patch` does not exist
error: 1 task failed:
    `patch.p`: `patches/a.patch` does not exist
failed: 1 failed ([TIME])

"#]]);
    let project = Project::new().config("[clone.c]\nurl = 'none.bundle'\nrev = 'main'\n");
    project.run("").failure(1).stderr(str![[r#"
  failed clone.c  [TIME]
error: `clone.c` failed: git could not ask `[ROOT]/none.bundle`: exit status 128
    fatal: '[ROOT]/none.bundle' does not appear to be a git repository
    fatal: Could not read from remote repository.
    
    Please make sure you have the correct access rights
    and the repository exists.
error: 1 task failed:
    `clone.c`: git could not ask `[ROOT]/none.bundle`: exit status 128
failed: 1 failed ([TIME])

"#]]);
    let project = Project::new().config(&compile("c", "tools = ['no-such-tool']"));
    project.run("").failure(1).stderr(str![[r#"
  failed compile.c  [TIME]
error: `compile.c` failed: the tool `no-such-tool` is not there
hint: install it, or put it in PATH: `command -v no-such-tool` must find it
error: 1 task failed:
    `compile.c`: the tool `no-such-tool` is not there
failed: 1 failed ([TIME])

"#]]);
    let project =
        Project::new().config("[host.h]\nlocal = 'h'\n[fetch.f]\nhost = 'h'\npath = '/etc/none'\n");
    project.run("").failure(1).stderr(str![[r#"
  failed fetch.f  [TIME]
error: `fetch.f` failed: there is no `/etc/none` on `h`
error: 1 task failed:
    `fetch.f`: there is no `/etc/none` on `h`
failed: 1 failed ([TIME])

"#]]);
}

#[test]
fn a_patch_that_does_not_apply() {
    let project = Project::new()
        .config("[patch.p]\ntree = 'src'\nfiles = ['a.patch']\n")
        .file("src/a.txt", "one\ntwo\nthree\nfour\n")
        .file("a.patch", "--- a/a.txt\n+++ b/a.txt\n@@ -1,3 +1,3 @@\n one\n-zwei\n+2\n three\n");
    project.run("").failure(1).stderr(str![[r#"
  failed patch.p  [TIME]
error: `patch.p` failed: `a.patch` line 3: hunk 1 of `a.txt` does not fit
      expected                                     | there, from line 1
      one                                          | one
    - zwei                                         |
    +                                              | two  (line 2)
      three                                        | three
    not there: `zwei`
hint: the file changed since the patch was made: write the patch again for it
hint: `vcbuild patch rebase` merges patches with a tree that has changed
error: 1 task failed:
    `patch.p`: `a.patch` line 3: hunk 1 of `a.txt` does not fit
failed: 1 failed ([TIME])

"#]]);
    project.call("check").failure(1).stdout(str![[r#"
patch.p: error: `a.patch` line 3: hunk 1 of `a.txt` does not fit
      expected                                     | there, from line 1
      one                                          | one
    - zwei                                         |
    +                                              | two  (line 2)
      three                                        | three
    not there: `zwei`
    hint: the file changed since the patch was made: write the patch again for it
    hint: `vcbuild patch rebase` merges patches with a tree that has changed
1 error in 1 task

"#]]);
}

#[test]
fn a_path_through_a_link_is_refused() {
    let project = Project::new()
        .config("[compile.c]\ninputs = ['in']\nfiles = [{ from = 'link/hosts', to = 'hosts' }]\nrun = [['cp', 'in', 'out']]\noutputs = ['out']\n")
        .file("in", "1");
    std::os::unix::fs::symlink("/etc", project.path("link")).unwrap();
    let done = project.run("").failure(1);
    assert!(done.stderr.contains("`link/hosts` goes through the link `link`"), "{}", done.stderr);
}
