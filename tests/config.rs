//! What bad configuration gets: the whole message, for every kind of mistake, all mistakes at once.

use snapbox::str;

use crate::support::Project;
use crate::support::config::{compile, refused};

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
hint: tables are project, vars, profile, host, hosts, cluster, registry, and the kinds clone, patch, compile, image, save, fetch, upload, import, push, deploy

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
hint: tables are project, vars, profile, host, hosts, cluster, registry, and the kinds clone, patch, compile, image, save, fetch, upload, import, push, deploy

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
hint: known here: `dir`, `env`, `files`, `host`, `incremental`, `inputs`, `keep`, `locate_env`, `outputs`, `packages`, `pass_env`, `reads`, `run`, `timeout`, `tools`, `tree`, `version`

error: 1 mistake in `vcbuild.toml`

"#]],
    );
    refused(
        "[host.n]\nlocal = 'n'\nssh = 'root@n'\n",
        str![[r#"
error: `local` and `ssh` exclude each other
 --> vcbuild.toml:5:7
  |
5 | ssh = 'root@n'
  |       ^^^^^^^^

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
error: `save.a` has no images
 --> vcbuild.toml:4:10
  |
4 | images = []
  |          ^^

error: `zip` is not one of `docker-archive`, `oci-archive`, `oci-layout`
 --> vcbuild.toml:5:10
  |
5 | format = 'zip'
  |          ^^^^^

error: 2 mistakes in `vcbuild.toml`

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
error: `patch.p` names `clone.sorce`, which is not declared
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
error: `import.i` names `image.none`, which is not declared
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
error: `compile.a` names `compile.zebra`, which is not declared
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
        "[host.a]\nlocal = 'a'\n[upload.u]\nfrom = 'vcbuild.toml'\nhosts = []\ndir = '/d'\n",
        str![[r#"
error: `upload.u` has no host
 --> vcbuild.toml:5:9
  |
5 | [upload.u]
  |         ^

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
error: the table `compile.a` is declared twice
 --> vcbuild.toml:8:1
  |
8 | [compile.a]
  | ^^^^^^^^^^^

error: 1 mistake in `vcbuild.toml`

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

error: the path `a/../../b` leaves the project
 --> vcbuild.toml:5:26
  |
5 | files = ['/etc/p.patch', 'a/../../b']
  |                          ^^^^^^^^^^^
hint: paths are relative, without `..`

error: 3 mistakes in `vcbuild.toml`

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
hint: known here: `default`, `limit`, `name`, `parallel_hosts`, `pools`

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
fn a_lock_that_cannot_be_read_is_a_mistake() {
    let words = |lock: &str, words: snapbox::data::Inline| {
        Project::new().config("").file("vcbuild.lock", lock).run("").failure(2).stderr(words);
    };
    words(
        "<<<<<<< ours\n",
        str![[r#"
error: key with no value, expected `=`
 --> vcbuild.lock:1:9
  |
1 | <<<<<<< ours
  |         ^
hint: `git checkout vcbuild.lock` brings it back; without the file, a run pins everything anew

error: 1 mistake in `vcbuild.lock`

"#]],
    );
    words(
        "version = \n",
        str![[r#"
error: string values must be quoted, expected literal string
 --> vcbuild.lock:1:11
  |
1 | version = 
  |           ^
hint: `git checkout vcbuild.lock` brings it back; without the file, a run pins everything anew

error: 1 mistake in `vcbuild.lock`

"#]],
    );
    words(
        "version = 1\n[[git]]\nurl = 'x'\nrev = 'm'\ncommit = 'zz'\n",
        str![[r#"
error: `zz` is not a commit
 --> vcbuild.lock:5:10
  |
5 | commit = 'zz'
  |          ^^^^
hint: `git checkout vcbuild.lock` brings it back; without the file, a run pins everything anew

error: 1 mistake in `vcbuild.lock`

"#]],
    );
    words(
        "version = 9\nnew = true\n",
        str![[r#"
error: `vcbuild.lock` has version 9, which is not known
 --> vcbuild.lock:1:11
  |
1 | version = 9
  |           ^
hint: it was written by a newer vcbuild: use that one

error: 1 mistake in `vcbuild.lock`

"#]],
    );
}

#[test]
fn a_table_that_is_there_twice_is_one_mistake() {
    refused(
        &format!("{}{}", compile("a", ""), compile("a", "")),
        str![[r#"
error: the table `compile.a` is declared twice
 --> vcbuild.toml:8:1
  |
8 | [compile.a]
  | ^^^^^^^^^^^

error: 1 mistake in `vcbuild.toml`

"#]],
    );
    refused(
        &format!("{}[[image.x]]\na = 1\na = 2\n", compile("a", "")),
        str![[r#"
error: `image.x` must be a table, found a list
 --> vcbuild.toml:8:9
  |
8 | [[image.x]]
  |         ^
hint: write `[image.NAME]`

error: duplicate key
  --> vcbuild.toml:10:1
   |
10 | a = 2
   | ^

error: 2 mistakes in `vcbuild.toml`

"#]],
    );
}

#[test]
fn a_variable_that_vcbuild_sets_is_shown_where_it_is() {
    refused(
        &compile("a", "env = { A = '1', HOME = '/' }"),
        str![[r#"
error: the variable `HOME` is set by vcbuild
 --> vcbuild.toml:7:25
  |
7 | env = { A = '1', HOME = '/' }
  |                         ^^^

error: 1 mistake in `vcbuild.toml`

"#]],
    );
    refused(
        "[compile.a]\ninputs = ['a']\nrun = []\noutputs = []\n",
        str![[r#"
error: `compile.a` has no command to run
 --> vcbuild.toml:3:10
  |
3 | [compile.a]
  |          ^

error: `compile.a` has no `outputs`
 --> vcbuild.toml:3:10
  |
3 | [compile.a]
  |          ^

error: 2 mistakes in `vcbuild.toml`

"#]],
    );
}
