//! Variables: where their values come from, their types, and expressions that use them.

use snapbox::str;

use crate::support::Project;
use crate::support::config::{compile, refused};

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
fn variables_may_stand_on_both_sides_of_the_verb() {
    let project =
        Project::new().config(VARS).file("more.yaml", "count: 4\n").file("later.yaml", "list: [b]\n");
    project
        .call("--set name=one --set debug=true --vars more.yaml vars --set name=two --vars later.yaml")
        .success()
        .stdout(str![[r#"
name  = "two"  # --set
count = 4  # [ROOT]/more.yaml
list  = ["b"]  # [ROOT]/later.yaml
debug = true  # --set
image = "example.com/two"  # vcbuild.toml:8

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
error: the variable `a` is a whole number, and cannot become a string
 --> vcbuild.toml:6:5
  |
6 | a = 'x'
  |     ^^^

error: the variable `b` is not in `[vars]`
 --> vcbuild.toml:7:1
  |
7 | b = 1
  | ^
hint: did you mean `a`?

error: unknown key `vrs` in `profile.q`
 --> vcbuild.toml:9:1
  |
9 | vrs = 1
  | ^^^
hint: a profile holds `vars`

error: 3 mistakes in `vcbuild.toml`

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
