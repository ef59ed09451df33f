//! What bad input gets: the whole message, for every kind of mistake in `vcbuild.toml` and on the command
//! line; and what variables, profiles, matrices and targets mean.

use snapbox::data::Inline;
use snapbox::str;

use crate::support::Project;

/// Holds a configuration to be refused with exactly these words.
#[track_caller]
fn refused(config: &str, words: Inline) {
    Project::new().config(config).call("list").failure(2).stderr(words);
}

/// A compile that needs nothing.
const MAKE: &str = "inputs = ['vcbuild.toml']\nrun = [['touch', 'o']]\noutputs = ['o']\n";

fn compile(name: &str, more: &str) -> String {
    format!("[compile.{name}]\n{MAKE}{more}\n")
}

#[test]
fn broken_toml() {
    refused(
        "[vars\nx = 1\n",
        str![[r#"
error: unclosed table, expected `]`
 --> vcbuild.toml:3:6
  |
3 | [vars
  |      ^

error: unknown table `x`
 --> vcbuild.toml:4:1
  |
4 | x = 1
  | ^
hint: tables are project, vars, profile, host, hosts, cluster, and the kinds clone, patch, compile, image, save, fetch, upload, import, deploy

error: 2 mistakes in `vcbuild.toml`

"#]],
    );
    refused(
        "[vars]\nx = \"open\ny = 2\n",
        str![[r#"
error: invalid basic string, expected `"`
 --> vcbuild.toml:4:10
  |
4 | x = "open
  |          ^

error: 1 mistake in `vcbuild.toml`

"#]],
    );
    refused(
        "[vars]\nx = 1\nx = 2\n",
        str![[r#"
error: duplicate key
 --> vcbuild.toml:5:1
  |
5 | x = 2
  | ^

error: 1 mistake in `vcbuild.toml`

"#]],
    );
}

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
hint: go to a project, or name one with `--dir DIR`

error: 1 mistake

"#]]);
    Project::new().call("list --dir nowhere").failure(2).stderr(str![[r#"
error: there is no `vcbuild.toml` in `[ROOT]/nowhere`

error: 1 mistake

"#]]);
}

#[test]
fn no_project_table() {
    let project = Project::new().file("vcbuild.toml", "");
    project.call("list").failure(2).stderr(str![[r#"
error: there is no `[project]` table
 --> vcbuild.toml:1:1
  |
1 |
  | ^
hint: begin with `[project]` and `name = "…"`

error: 1 mistake in `vcbuild.toml`

"#]]);
    project.write("vcbuild.toml", "[project]\n");
    project.call("list").failure(2).stderr(str![[r#"
error: `project` needs `name`
 --> vcbuild.toml:1:2
  |
1 | [project]
  |  ^^^^^^^

error: 1 mistake in `vcbuild.toml`

"#]]);
}

#[test]
fn unknown_tables_and_keys() {
    refused(
        "[compil.bin]\nrun = []\n",
        str![[r#"
error: unknown table `compil`
 --> vcbuild.toml:3:2
  |
3 | [compil.bin]
  |  ^^^^^^
hint: did you mean `compile`?

error: 1 mistake in `vcbuild.toml`

"#]],
    );
    refused(
        "[frobnicate]\n",
        str![[r#"
error: unknown table `frobnicate`
 --> vcbuild.toml:3:2
  |
3 | [frobnicate]
  |  ^^^^^^^^^^
hint: tables are project, vars, profile, host, hosts, cluster, and the kinds clone, patch, compile, image, save, fetch, upload, import, deploy

error: 1 mistake in `vcbuild.toml`

"#]],
    );
    refused(
        &compile("bin", "inpts = ['a']"),
        str![[r#"
error: unknown key `inpts` in `compile.bin`
 --> vcbuild.toml:7:1
  |
7 | inpts = ['a']
  | ^^^^^
hint: did you mean `inputs`?

error: 1 mistake in `vcbuild.toml`

"#]],
    );
    refused(
        &compile("bin", "zzz = 1"),
        str![[r#"
error: unknown key `zzz` in `compile.bin`
 --> vcbuild.toml:7:1
  |
7 | zzz = 1
  | ^^^
hint: known here: `dir`, `env`, `files`, `incremental`, `inputs`, `keep`, `locate_env`, `outputs`, `packages`, `pass_env`, `reads`, `run`, `timeout`, `tools`, `tree`, `version`

error: 1 mistake in `vcbuild.toml`

"#]],
    );
    refused(
        "[host.n]\nlocal = 'n'\nssh = 'root@n'\n",
        str![[r#"
error: unknown key `ssh` in `host.n`
 --> vcbuild.toml:5:1
  |
5 | ssh = 'root@n'
  | ^^^
hint: known here: `local`

error: 1 mistake in `vcbuild.toml`

"#]],
    );
    refused(
        "[cluster.c]\ndir = 'c'\nkubeconfig = 'k'\n",
        str![[r#"
error: unknown key `kubeconfig` in `cluster.c`
 --> vcbuild.toml:5:1
  |
5 | kubeconfig = 'k'
  | ^^^^^^^^^^
hint: known here: `dir`

error: 1 mistake in `vcbuild.toml`

"#]],
    );
}

#[test]
fn wrong_types() {
    refused(
        "[compile]\nbin = 1\n",
        str![[r#"
error: `compile.bin` must be a table, found a whole number
 --> vcbuild.toml:4:1
  |
4 | bin = 1
  | ^^^
hint: write `[compile.NAME]`

error: 1 mistake in `vcbuild.toml`

"#]],
    );
    refused(
        "[compile.bin]\ninputs = 'a'\nrun = ['cc']\noutputs = [1]\nenv = { A = 1 }\ntimeout = 5\n",
        str![[r#"
error: `inputs`: expected a list, found a string
 --> vcbuild.toml:4:10
  |
4 | inputs = 'a'
  |          ^^^

error: `run`: expected a list, found a string
 --> vcbuild.toml:5:8
  |
5 | run = ['cc']
  |        ^^^^

error: `outputs`: expected a string, found a whole number
 --> vcbuild.toml:6:12
  |
6 | outputs = [1]
  |            ^

error: `env`: expected a string, found a whole number
 --> vcbuild.toml:7:13
  |
7 | env = { A = 1 }
  |             ^

error: `timeout`: expected a string, found a whole number
 --> vcbuild.toml:8:11
  |
8 | timeout = 5
  |           ^

error: 5 mistakes in `vcbuild.toml`

"#]],
    );
    refused(
        "[project]\nname = 'x'\npools = { cc = -1 }\n",
        str![[r#"
error: `pools`: expected a whole number that is not negative and not too large, found `-1`
 --> vcbuild.toml:3:16
  |
3 | pools = { cc = -1 }
  |                ^^

error: 1 mistake in `vcbuild.toml`

"#]],
    );
    refused(
        "[save.a]\nimages = []\nformat = 'zip'\n",
        str![[r#"
error: `zip` is not one of `docker-archive`, `oci-archive`, `oci-layout`
 --> vcbuild.toml:5:10
  |
5 | format = 'zip'
  |          ^^^^^
hint: known here: `docker-archive`, `oci-archive`, `oci-layout`

error: 1 mistake in `vcbuild.toml`

"#]],
    );
    refused(
        &compile("bin", "timeout = '5 minutes'"),
        str![[r#"
error: `5 minutes` is not a time
 --> vcbuild.toml:7:11
  |
7 | timeout = '5 minutes'
  |           ^^^^^^^^^^^
hint: for example `90s`, `30m` or `2h`

error: 1 mistake in `vcbuild.toml`

"#]],
    );
}

#[test]
fn missing_keys() {
    refused(
        "[compile.bin]\n",
        str![[r#"
error: `compile.bin` needs `run`
 --> vcbuild.toml:3:10
  |
3 | [compile.bin]
  |          ^^^

error: `compile.bin` needs `outputs`
 --> vcbuild.toml:3:10
  |
3 | [compile.bin]
  |          ^^^

error: 2 mistakes in `vcbuild.toml`

"#]],
    );
    refused(
        "[clone.a]\nurl = 'x'\n[patch.b]\n[upload.c]\n",
        str![[r#"
error: `clone.a` needs `rev`
 --> vcbuild.toml:3:8
  |
3 | [clone.a]
  |        ^

error: `patch.b` needs `tree`
 --> vcbuild.toml:5:8
  |
5 | [patch.b]
  |        ^

error: `patch.b` needs `files`
 --> vcbuild.toml:5:8
  |
5 | [patch.b]
  |        ^

error: `upload.c` needs `from`
 --> vcbuild.toml:6:9
  |
6 | [upload.c]
  |         ^

error: `upload.c` needs `hosts`
 --> vcbuild.toml:6:9
  |
6 | [upload.c]
  |         ^

error: 5 mistakes in `vcbuild.toml`

"#]],
    );
}

#[test]
fn undeclared_references() {
    refused(
        "[clone.source]\nurl = 'u'\nrev = 'r'\n[patch.p]\ntree = 'clone.sorce'\nfiles = ['p']\n",
        str![[r#"
error: `patch.p` reads `clone.sorce`, which is not declared
 --> vcbuild.toml:7:8
  |
7 | tree = 'clone.sorce'
  |        ^^^^^^^^^^^^^
hint: did you mean `clone.source`?

error: 1 mistake in `vcbuild.toml`

"#]],
    );
    refused(
        "[import.i]\nimages = ['image.none']\nhosts = 'nodes'\n",
        str![[r#"
error: `import.i` reads `image.none`, which is not declared
 --> vcbuild.toml:4:11
  |
4 | images = ['image.none']
  |           ^^^^^^^^^^^^

error: there is no host or group `nodes`
 --> vcbuild.toml:5:9
  |
5 | hosts = 'nodes'
  |         ^^^^^^^

error: 2 mistakes in `vcbuild.toml`

"#]],
    );
    refused(
        &compile("a", "after = ['compile.zebra']"),
        str![[r#"
error: `compile.a` reads `compile.zebra`, which is not declared
 --> vcbuild.toml:7:10
  |
7 | after = ['compile.zebra']
  |          ^^^^^^^^^^^^^^^
hint: did you mean `compile.a`?

error: 1 mistake in `vcbuild.toml`

"#]],
    );
    refused(
        &compile("a", "pool = 'go'"),
        str![[r#"
error: there is no pool `go`
 --> vcbuild.toml:7:8
  |
7 | pool = 'go'
  |        ^^^^
hint: declare it: `[project] pools = { go = 1 }`

error: 1 mistake in `vcbuild.toml`

"#]],
    );
    refused(
        "[deploy.d]\ncluster = 'here'\nmanifests = ['m']\n",
        str![[r#"
error: there is no cluster `here`
 --> vcbuild.toml:4:11
  |
4 | cluster = 'here'
  |           ^^^^^^

error: 1 mistake in `vcbuild.toml`

"#]],
    );
    refused(
        "[host.a]\nlocal = 'a'\n[hosts.g]\nlist = ['a', 'b']\n[upload.u]\nfrom = 'f'\nhosts = ['g', 'a']\ndir = '/d'\n",
        str![[r#"
error: there is no host or group `b`
 --> vcbuild.toml:6:14
  |
6 | list = ['a', 'b']
  |              ^^^
hint: did you mean `a`?

error: 1 mistake in `vcbuild.toml`

"#]],
    );
}

#[test]
fn a_bare_name_is_not_a_reference() {
    refused(
        &format!(
            "{}[import.i]\nimages = ['bin']\nhosts = 'h'\n[host.h]\nlocal = 'h'\n[image.bin]\nbase = 'scratch'\n",
            compile("bin", "")
        ),
        str![[r#"
error: `bin` is not a task
 --> vcbuild.toml:9:11
  |
9 | images = ['bin']
  |           ^^^^^
hint: did you mean `compile.bin`?

error: 1 mistake in `vcbuild.toml`

"#]],
    );
}

#[test]
fn cycles_are_shown_as_a_path() {
    let project = Project::new().config(
        "[compile.a]\ntree = 'compile.c'\nrun = [['x']]\noutputs = ['o']\n\
         [compile.b]\ntree = 'compile.a'\nrun = [['x']]\noutputs = ['o']\n\
         [compile.c]\ntree = 'compile.b'\nrun = [['x']]\noutputs = ['o']\n\
         [compile.d]\ntree = 'compile.d'\nrun = [['x']]\noutputs = ['o']\n",
    );
    project.call("run").failure(2).stderr(str![[r#"
error: tasks wait for each other: compile.a -> compile.c -> compile.b -> compile.a
 --> vcbuild.toml:3:10
  |
3 | [compile.a]
  |          ^

error: tasks wait for each other: compile.d -> compile.d
  --> vcbuild.toml:15:10
   |
15 | [compile.d]
   |          ^

error: 2 mistakes in `vcbuild.toml`

"#]]);
    refused(
        &format!("{}{}", compile("a", "after = ['compile.b']"), compile("b", "after = ['compile.a']")),
        str![[r#"
error: tasks wait for each other: compile.a -> compile.b -> compile.a
 --> vcbuild.toml:3:10
  |
3 | [compile.a]
  |          ^

error: 1 mistake in `vcbuild.toml`

"#]],
    );
}

#[test]
fn the_same_thing_declared_twice() {
    let image = |name: &str, tag: &str| format!("[image.{name}]\nbase = 'scratch'\ntags = ['{tag}']\n");
    refused(
        &(image("a", "example.com/x:1") + &image("b", "example.com/x:1")),
        str![[r#"
error: the tag `example.com/x:1` is declared twice: by `image.a` and by `image.b`
 --> vcbuild.toml:8:9
  |
8 | tags = ['example.com/x:1']
  |         ^^^^^^^^^^^^^^^^^

error: 1 mistake in `vcbuild.toml`

"#]],
    );
    refused(
        "[vars]\nx = ['1', '2']\n[image.m]\nmatrix = { x = '{{ x }}' }\nbase = 'scratch'\ntags = ['example.com/m:1']\n",
        str![[r#"
error: the tag `example.com/m:1` is declared twice: by `image.m[1]` and by `image.m[2]`
 --> vcbuild.toml:8:9
  |
8 | tags = ['example.com/m:1']
  |         ^^^^^^^^^^^^^^^^^
hint: instances must differ: put an axis into it

error: 1 mistake in `vcbuild.toml`

"#]],
    );
    refused(
        "[compile.c]\ninputs = ['a']\nrun = [['x']]\noutputs = ['o', './o']\n",
        str![[r#"
error: the output `o` is declared twice: it is, or lies in, `o`
 --> vcbuild.toml:6:17
  |
6 | outputs = ['o', './o']
  |                 ^^^^^

error: 1 mistake in `vcbuild.toml`

"#]],
    );
    refused(
        "[compile.c]\ninputs = ['a']\nrun = [['x']]\noutputs = ['o', 'o/p']\n",
        str![[r#"
error: the output `o/p` is declared twice: it is, or lies in, `o`
 --> vcbuild.toml:6:17
  |
6 | outputs = ['o', 'o/p']
  |                 ^^^^^

error: 1 mistake in `vcbuild.toml`

"#]],
    );
    refused(
        &(compile("a", "") + &compile("a", "")),
        str![[r#"
error: duplicate key
 --> vcbuild.toml:8:10
  |
8 | [compile.a]
  |          ^

error: duplicate key
 --> vcbuild.toml:9:1
  |
9 | inputs = ['vcbuild.toml']
  | ^^^^^^

error: duplicate key
  --> vcbuild.toml:10:1
   |
10 | run = [['touch', 'o']]
   | ^^^

error: duplicate key
  --> vcbuild.toml:11:1
   |
11 | outputs = ['o']
   | ^^^^^^^

error: 4 mistakes in `vcbuild.toml`

"#]],
    );
    let upload =
        |name: &str| format!("[upload.{name}]\nfrom = './vcbuild.toml'\nhosts = 'h'\nto = '/etc/x'\n");
    refused(
        &("[host.h]\nlocal = 'h'\n".to_string() + &upload("a") + &upload("b")),
        str![[r#"
error: the file `/etc/x` on `h` is declared twice: by `upload.a` and by `upload.b`
  --> vcbuild.toml:12:6
   |
12 | to = '/etc/x'
   |      ^^^^^^^^

error: 1 mistake in `vcbuild.toml`

"#]],
    );
}

#[test]
fn a_path_that_leaves_the_project() {
    refused(
        "[patch.p]\ntree = '../x'\nfiles = ['/etc/p.patch', 'a/../../b']\n",
        str![[r#"
error: the path `../x` leaves the project
 --> vcbuild.toml:4:8
  |
4 | tree = '../x'
  |        ^^^^^^
hint: paths are relative, without `..`

error: the path `/etc/p.patch` leaves the project
 --> vcbuild.toml:5:10
  |
5 | files = ['/etc/p.patch', 'a/../../b']
  |          ^^^^^^^^^^^^^^
hint: paths are relative, without `..`

error: `/etc/p.patch` is not a glob
 --> vcbuild.toml:5:10
  |
5 | files = ['/etc/p.patch', 'a/../../b']
  |          ^^^^^^^^^^^^^^

error: the path `a/../../b` leaves the project
 --> vcbuild.toml:5:26
  |
5 | files = ['/etc/p.patch', 'a/../../b']
  |                          ^^^^^^^^^^^
hint: paths are relative, without `..`

error: 4 mistakes in `vcbuild.toml`

"#]],
    );
    refused(
        "[compile.c]\ninputs = ['../a/**']\nrun = [['x']]\noutputs = ['/o']\ndir = '..'\n",
        str![[r#"
error: `../a/**` leaves the folder
 --> vcbuild.toml:4:11
  |
4 | inputs = ['../a/**']
  |           ^^^^^^^^^

error: the path `/o` leaves the project
 --> vcbuild.toml:6:12
  |
6 | outputs = ['/o']
  |            ^^^^
hint: paths are relative, without `..`

error: the path `..` leaves the project
 --> vcbuild.toml:7:7
  |
7 | dir = '..'
  |       ^^^^
hint: paths are relative, without `..`

error: 3 mistakes in `vcbuild.toml`

"#]],
    );
    refused(
        "[image.i]\nbase = 'scratch'\nfiles = [{ from = '/etc/passwd', to = '/x' }, { from = 'a', to = '/../x' }]\n",
        str![[r#"
error: the path `/etc/passwd` leaves the project
 --> vcbuild.toml:5:19
  |
5 | files = [{ from = '/etc/passwd', to = '/x' }, { from = 'a', to = '/../x' }]
  |                   ^^^^^^^^^^^^^
hint: paths are relative, without `..`

error: `/../x` is not a place for a file
 --> vcbuild.toml:5:66
  |
5 | files = [{ from = '/etc/passwd', to = '/x' }, { from = 'a', to = '/../x' }]
  |                                                                  ^^^^^^^

error: 2 mistakes in `vcbuild.toml`

"#]],
    );
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
error: `patch.p` failed: `patches/a.patch` does not exist
error: 1 task failed:
    `patch.p`: `patches/a.patch` does not exist
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
1 error in 1 task

"#]]);
}

#[test]
fn several_mistakes_at_once() {
    refused(
        "colour = 'red'\n\
         [vars]\nprograms = ['a', 'b c']\n\
         [clone.source]\nurl = 1\nrev = 'main'\n\
         [patch.p]\ntree = 'clone.surce'\nfiles = 'p'\nfuz = 1\n\
         [compile.c]\nmatrix = { program = '{{ programs }}' }\ntree = 'patch.p'\nrun = [['{{ progam }}']]\noutputs = ['../o']\n",
        str![[r#"
error: unknown key `colour` in `project`
 --> vcbuild.toml:3:1
  |
3 | colour = 'red'
  | ^^^^^^
hint: known here: `default`, `name`, `pools`

error: `url`: expected a string, found a whole number
 --> vcbuild.toml:7:7
  |
7 | url = 1
  |       ^

error: `files`: expected a list, found a string
  --> vcbuild.toml:11:9
   |
11 | files = 'p'
   |         ^^^

error: unknown key `fuz` in `patch.p`
  --> vcbuild.toml:12:1
   |
12 | fuz = 1
   | ^^^
hint: did you mean `fuzz`?

error: `b c` cannot be the value of an axis
  --> vcbuild.toml:14:22
   |
14 | matrix = { program = '{{ programs }}' }
   |                      ^^^^^^^^^^^^^^^^
hint: letters, digits and `.` `_` `+` `-`

error: `progam` is undefined, did you mean `program`?
  --> vcbuild.toml:16:9
   |
16 | run = [['{{ progam }}']]
   |         ^^^^^^^^^^^^^^

error: 6 mistakes in `vcbuild.toml`

"#]],
    );
}

#[test]
fn references_to_instances() {
    let matrix = "[vars]\nall = ['one', 'two']\n[compile.m]\nmatrix = { x = '{{ all }}' }\ninputs = ['vcbuild.toml']\nrun = [['touch', '{{ x }}']]\noutputs = ['{{ x }}']\n";
    let reader =
        |text: &str| format!("{matrix}[compile.r]\ntree = '{text}'\nrun = [['ls']]\noutputs = ['o']\n");
    refused(
        &reader("compile.m"),
        str![[r#"
error: `compile.m` has 2 instances, and one is wanted
  --> vcbuild.toml:11:8
   |
11 | tree = 'compile.m'
   |        ^^^^^^^^^^^
hint: name one, for example `compile.m[one]`

error: 1 mistake in `vcbuild.toml`

"#]],
    );
    refused(
        &reader("compile.m[*]"),
        str![[r#"
error: `compile.m[*]` is a list, and one is wanted
  --> vcbuild.toml:11:8
   |
11 | tree = 'compile.m[*]'
   |        ^^^^^^^^^^^^^^
hint: name one, for example `compile.m[one]`

error: 1 mistake in `vcbuild.toml`

"#]],
    );
    refused(
        &reader("compile.m[tow]"),
        str![[r#"
error: `compile.m` has no instance `[tow]`
  --> vcbuild.toml:11:8
   |
11 | tree = 'compile.m[tow]'
   |        ^^^^^^^^^^^^^^^^
hint: did you mean `compile.m[two]`?

error: 1 mistake in `vcbuild.toml`

"#]],
    );
    refused(
        &reader("compile.m[one"),
        str![[r#"
error: `compile.m[one` has no closing `]`
  --> vcbuild.toml:11:8
   |
11 | tree = 'compile.m[one'
   |        ^^^^^^^^^^^^^^^

error: 1 mistake in `vcbuild.toml`

"#]],
    );
    refused(
        &format!(
            "{}[compile.s]\ntree = 'compile.r[x]'\nrun = [['ls']]\noutputs = ['o']\n",
            reader("compile.m[one]")
        ),
        str![[r#"
error: `compile.r` has no matrix
  --> vcbuild.toml:15:8
   |
15 | tree = 'compile.r[x]'
   |        ^^^^^^^^^^^^^^
hint: write `compile.r`

error: 1 mistake in `vcbuild.toml`

"#]],
    );
}

#[test]
fn matrices() {
    let matrix = |text: &str| {
        format!(
            "[compile.m]\nmatrix = {text}\ninputs = ['vcbuild.toml']\nrun = [['touch', 'o']]\noutputs = ['o']\n"
        )
    };
    let project = Project::new().config(&matrix(
        "{ os = ['linux', 'bsd'], arch = ['arm64', 'amd64'], exclude = [{ os = 'bsd', arch = 'arm64' }], include = [{ os = 'plan9', arch = '386' }] }",
    ));
    project.call("list").success().stdout(str![[r#"
compile.m[arch=arm64,os=linux]  never run
compile.m[arch=amd64,os=linux]  never run
compile.m[arch=amd64,os=bsd]    never run
compile.m[arch=386,os=plan9]    never run

"#]]);
    project.run("compile.m[arch=386,os=plan9]").success().did(&["compile.m[arch=386,os=plan9]"]);
    project.run("compile.m[os=linux,arch=arm64]").success().did(&["compile.m[arch=arm64,os=linux]"]);
    refused(&matrix("{ x = [] }"), str![""]);
    refused(&matrix("{ x = ['a', 'a'] }"), str![""]);
    refused(&matrix("{ x = ['a/b', ''] }"), str![""]);
    refused(&matrix("{ x = 'a' }"), str![""]);
    refused(&matrix("{ x = ['a'], include = [{ y = 'b' }] }"), str![""]);
}

const VARS: &str = "[vars]\nname = 'manager'\ncount = 2\nlist = ['a']\ndebug = false\nimage = 'example.com/{{ name }}'\n\
    [profile.staging.vars]\nname = 'stage'\ncount = 3\n";

#[test]
fn variables_and_where_they_come_from() {
    let project = Project::new()
        .config(VARS)
        .file("more.yaml", "count: 4\nlist: [b, c]\n")
        .file("more.toml", "debug = true\n");
    project.call("vars").success().stdout(str![[r#"
name  = "manager"  # vcbuild.toml:4
count = 2  # vcbuild.toml:5
list  = ["a"]  # vcbuild.toml:6
debug = false  # vcbuild.toml:7
image = "example.com/manager"  # vcbuild.toml:8

"#]]);
    project.call("vars --profile staging").success().stdout(str![[r#"
name  = "stage"  # profile staging, vcbuild.toml:10
count = 3  # profile staging, vcbuild.toml:11
list  = ["a"]  # vcbuild.toml:6
debug = false  # vcbuild.toml:7
image = "example.com/stage"  # vcbuild.toml:8

"#]]);
    project
        .call("vars --profile staging --vars more.yaml --vars more.toml --set name=boss --set count=5")
        .success()
        .stdout(str![[r#"
name  = "boss"  # --set
count = 5  # --set
list  = ["b","c"]  # [ROOT]/more.yaml
debug = true  # [ROOT]/more.toml
image = "example.com/boss"  # vcbuild.toml:8

"#]]);
}

#[test]
fn variables_keep_their_type() {
    let project = Project::new()
        .config(VARS)
        .file("wrong.yaml", "count: many\nzebra: 1\n")
        .file("broken.yaml", "a: [\n");
    project.call("vars --set count=many").failure(2).stderr(str![[r#"
error: `--set count=many`: expected a whole number, written as in TOML

error: 1 mistake

"#]]);
    project.call("vars --set debug=1 --set list=b --set nmae=x").failure(2).stderr(str![[r#"
error: the variable `nmae` is not in `[vars]` (from `--set`)
hint: did you mean `name`?

error: `--set list=b`: expected a list, written as in TOML

error: `--set debug=1`: expected a boolean, found a whole number

error: 3 mistakes

"#]]);
    project.call("vars --set count").failure(2).stderr(str![[r#"
error: `--set count` is not `NAME=VALUE`

error: 1 mistake

"#]]);
    project.call("vars --profile stagng").failure(2).stderr(str![[r#"
error: there is no `[profile.stagng]`
hint: did you mean `staging`?

error: 1 mistake

"#]]);
    project.call("vars --vars wrong.yaml").failure(2).stderr(str![[r#"
error: the variable `zebra` is not in `[vars]` (in `[ROOT]/wrong.yaml`)

error: the variable `count` is a whole number, and cannot become a string, in `[ROOT]/wrong.yaml`

error: 2 mistakes

"#]]);
    project.call("vars --vars broken.yaml").failure(2).stderr(str![[r#"
error: the file of variables `[ROOT]/broken.yaml`: line 1 column 4: unclosed bracket '['

error: 1 mistake

"#]]);
    project.call("vars --vars none.yaml").failure(2).stderr(str![[r#"
error: the file of variables `[ROOT]/none.yaml` does not exist

error: 1 mistake

"#]]);
    refused(
        "[vars]\na = 1\n[profile.p.vars]\na = 'x'\nb = 1\n[profile.q]\nvrs = 1\n",
        str![[r#"
error: unknown key `vrs` in `profile.q`
 --> vcbuild.toml:9:1
  |
9 | vrs = 1
  | ^^^
hint: a profile holds `vars`

error: 1 mistake in `vcbuild.toml`

"#]],
    );
    refused(
        "[vars]\na-b = 1\nc = '{{ d }}'\nd = 1\n",
        str![[r#"
error: `a-b` cannot name a variable
 --> vcbuild.toml:4:1
  |
4 | a-b = 1
  | ^^^
hint: letters, digits and `_`, not a digit first: it must be usable in `{{ }}`

error: `d` is undefined
 --> vcbuild.toml:5:5
  |
5 | c = '{{ d }}'
  |     ^^^^^^^^^

error: 2 mistakes in `vcbuild.toml`

"#]],
    );
}

#[test]
fn an_override_runs_what_reads_it() {
    let project = Project::new()
        .config(
            "[vars]\na = 'x'\nb = 'y'\n\
         [compile.a]\ninputs = ['in']\nenv = { A = '{{ a }}' }\nrun = [['touch', 'o']]\noutputs = ['o']\n\
         [compile.b]\ninputs = ['in']\nenv = { B = '{{ b }}' }\nrun = [['touch', 'o']]\noutputs = ['o']\n",
        )
        .file("in", "");
    project.run("").success().did(&["compile.a", "compile.b"]);
    project.run("--set a=z").success().did(&["compile.a"]);
    project.run("").success().did(&[]);
    project.run("--set b=z").success().did(&["compile.b"]);
}

#[test]
fn expressions() {
    refused(
        &compile("c", "env = { A = '{{ nothing }}' }"),
        str![[r#"
error: `nothing` is undefined
 --> vcbuild.toml:7:13
  |
7 | env = { A = '{{ nothing }}' }
  |             ^^^^^^^^^^^^^^^

error: 1 mistake in `vcbuild.toml`

"#]],
    );
    refused(
        &compile("c", "env = { A = '{{ 1 +' }"),
        str![[r#"
error: syntax error: unexpected end of input, expected expression
 --> vcbuild.toml:7:13
  |
7 | env = { A = '{{ 1 +' }
  |             ^^^^^^^^

error: 1 mistake in `vcbuild.toml`

"#]],
    );
    let project = Project::new().config(&format!("[vars]\ntime = '5m'\nlist = ['a', 'b']\n{}", compile("c", "timeout = '{{ time }}'\nenv = { A = '{% raw %}{{ x }}{% endraw %}', B = '{{ list | join(\",\") }}' }")));
    let shown = project.call("show compile.c").success().text();
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(
        shown["action"]["what"]["env"],
        serde_json::json!({ "A": "{{ x }}", "B": "a,b" }),
        "{shown}"
    );
}

#[test]
fn targets() {
    let project = Project::new().config(&format!(
        "{}{}{}[image.b]\nbase = 'scratch'\nfiles = [{{ from = 'compile.b', to = '/' }}]\n",
        compile("a", ""),
        compile("b", "env = { B = '' }"),
        compile("c", "env = { C = '' }\nafter = ['compile.a']"),
    ));
    // What nothing depends on.
    project.run("").success().did(&["compile.a", "compile.b", "compile.c", "image.b"]);
    assert_eq!(project.run("compile").success().outcomes().len(), 3);
    assert_eq!(project.run("compile.a").success().outcomes().len(), 1);
    assert_eq!(project.run("c").success().outcomes().len(), 2);
    project.run("b").failure(2).stderr(str![[r#"
error: `b` is the name of several tasks
hint: write `compile.b` or `image.b`

error: 1 mistake

"#]]);
    project.run("compile.d").failure(2).stderr(str![[r#"
error: there is no task `compile.d`
hint: did you mean `compile.a`?

error: 1 mistake

"#]]);
    project.run("zebra compile.bb").failure(2).stderr(str![[r#"
error: there is no task `zebra`
hint: `vcbuild list` shows all tasks

error: there is no task `compile.bb`
hint: did you mean `compile.b`?

error: 2 mistakes

"#]]);
    project.call("run --frob").failure(2).stderr(str![[r#"
error: unexpected argument '--frob' found

  tip: to pass '--frob' as a value, use '-- --frob'

Usage: vcbuild run [OPTIONS] [TARGETS]...

For more information, try '--help'.

"#]]);
}

#[test]
fn the_default_may_be_wrong_too() {
    let project = Project::new()
        .config(&format!("[project]\nname = 'p'\ndefault = ['nothing']\n{}", compile("a", "")));
    project.run("").failure(2).stderr(str![[r#"
error: there is no task `nothing`
hint: `vcbuild list` shows all tasks

error: 1 mistake

"#]]);
}

#[test]
fn a_lock_that_cannot_be_read() {
    let project = Project::new().config(&compile("a", "")).file("vcbuild.lock", "version = 99\n");
    project.run("").failure(1).stderr(str![[r#"
error: `vcbuild.lock` has version 99, which is not known
hint: it was written by a newer vcbuild: use that one

"#]]);
    project.write("vcbuild.lock", "version = \n");
    project.run("").failure(1).stderr(str![[r#"
error: read `vcbuild.lock`: string values must be quoted, expected literal string

"#]]);
}
