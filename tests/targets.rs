//! Matrices, references to their instances, and what targets mean.

use snapbox::str;

use crate::support::Project;
use crate::support::config::{compile, refused};

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
    let other = project.run("compile.m[os=linux,arch=arm64]").success();
    // Nothing of what it does depends on the axes: it is a hit.
    assert_eq!(other.event("compile.m[arch=arm64,os=linux]")["outcome"], "hit");
    refused(
        &matrix("{ x = [] }"),
        str![[r#"
error: `compile.m` has no instance: its matrix is empty
 --> vcbuild.toml:4:10
  |
4 | matrix = { x = [] }
  |          ^^^^^^^^^^

error: 1 mistake in `vcbuild.toml`

"#]],
    );
    refused(
        &matrix("{ x = ['a', 'a'] }"),
        str![[r#"
error: the instance `compile.m[a]` comes twice
 --> vcbuild.toml:4:10
  |
4 | matrix = { x = ['a', 'a'] }
  |          ^^^^^^^^^^^^^^^^^^

error: 1 mistake in `vcbuild.toml`

"#]],
    );
    refused(
        &matrix("{ x = ['a/b', ''] }"),
        str![[r#"
error: `a/b` cannot be the value of an axis
 --> vcbuild.toml:4:17
  |
4 | matrix = { x = ['a/b', ''] }
  |                 ^^^^^
hint: letters, digits and `.` `_` `+` `-`

error: `` cannot be the value of an axis
 --> vcbuild.toml:4:24
  |
4 | matrix = { x = ['a/b', ''] }
  |                        ^^
hint: letters, digits and `.` `_` `+` `-`

error: 2 mistakes in `vcbuild.toml`

"#]],
    );
    refused(
        &matrix("{ x = 'a' }"),
        str![[r#"
error: the axis `x` must be a list, found a string
 --> vcbuild.toml:4:16
  |
4 | matrix = { x = 'a' }
  |                ^^^

error: 1 mistake in `vcbuild.toml`

"#]],
    );
    refused(
        &matrix("{ x = ['a'], include = [{ y = 'b' }] }"),
        str![[r#"
error: each `include` of `compile.m` must have the axes x
 --> vcbuild.toml:4:10
  |
4 | matrix = { x = ['a'], include = [{ y = 'b' }] }
  |          ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^

error: 1 mistake in `vcbuild.toml`

"#]],
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
