//! The verbs beside `run`: what they print, what they write, and that those that should change nothing do
//! not.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::Value;
use snapbox::str;

use crate::support::config::compile;
use crate::support::{Project, folder};

/// Two compiles, an image, and an import to a node.
fn project() -> Project {
    Project::new()
        .config(
            "[project]\nname = 'test'\ndefault = ['import']\n[host.n]\nlocal = 'n'\n\
             [patch.p]\ntree = 'src'\nfiles = ['patches/*.patch']\n\
             [compile.a]\ntree = 'patch.p'\nrun = [['sh', '-c', 'echo making a; cp a out']]\noutputs = ['out']\n\
             [compile.b]\ninputs = ['b']\nrun = [['sh', '-c', 'mkdir o; cp b o/x; cp b o/y']]\noutputs = ['o']\n\
             [image.i]\nbase = 'scratch'\nfiles = [{ from = 'compile.a', to = '/a' }, { from = 'compile.b', to = '/' }]\ntags = ['example.com/i:1']\n\
             [import.n]\nimages = ['image.i']\nhosts = 'n'\nafter = ['compile.b']\n",
        )
        .file("src/a", "one\ntwo\n")
        .file("patches/1.patch", "--- a/a\n+++ b/a\n@@ -1,2 +1,2 @@\n-one\n+1\n two\n")
        .file("b", "b\n")
}

#[test]
fn list() {
    let project = project();
    project.call("list").success().stdout(str![[r#"
patch.p    never run
compile.a  never run
compile.b  never run
image.i    never run
import.n   never run

"#]]);
    project.run("compile").success();
    project.call("list").success().stdout(str![[r#"
patch.p    ran  [TIME] ago
compile.a  ran  [TIME] ago
compile.b  ran  [TIME] ago
image.i    never run
import.n   never run

"#]]);
    project.call("list compile").success();
    project.call("list compil").failure(2).stderr(str![[r#"
error: there is no kind `compil`
hint: did you mean `compile`?

error: 1 mistake

"#]]);
}

#[test]
fn graph_in_four_formats() {
    let project = project();
    project.call("graph").success().stdout(str![[r#"
import.n  unknown
├─ image.i  unknown
│  ├─ compile.a  unknown
│  │  └─ patch.p  runs
│  └─ compile.b  runs
└─ compile.b  runs

"#]]);
    project.run("compile.b").success();
    project.run("patch").success();
    project.call("graph").success().stdout(str![[r#"
import.n  unknown
├─ image.i  unknown
│  ├─ compile.a  runs
│  │  └─ patch.p  hit
│  └─ compile.b  hit
└─ compile.b  hit

"#]]);
    project.call("graph image --format dot").success().stdout(str![[r#"
digraph vcbuild {
  rankdir = LR
  node [shape = box, style = filled]
  "patch.p" [fillcolor = palegreen, tooltip = "hit"]
  "compile.a" [fillcolor = gold, tooltip = "runs"]
  "compile.b" [fillcolor = palegreen, tooltip = "hit"]
  "image.i" [fillcolor = lightyellow, tooltip = "unknown"]
  "patch.p" -> "compile.a"
  "compile.a" -> "image.i"
  "compile.b" -> "image.i"
}

"#]]);
    project.call("graph compile.a --format mermaid").success().stdout(str![[r#"
graph LR
  t0["patch.p"]:::hit
  t1["compile.a"]:::runs
  t0 --> t1
  classDef hit fill:#b8f0b8
  classDef runs fill:#ffd75e
  classDef unknown fill:#fff6cc
  classDef asks fill:#fff6cc
  classDef blocked fill:#ffa59e

"#]]);
    project.call("graph compile --format json").success().stdout(str![[r#"
{
  "tasks": [
    {
      "after": [],
      "key": "[DIGEST]",
      "kind": "patch",
      "reads": [],
      "state": "hit",
      "task": "patch.p"
    },
    {
      "after": [],
      "key": "[DIGEST]",
      "kind": "compile",
      "reads": [
        "patch.p"
      ],
      "state": "runs",
      "task": "compile.a"
    },
    {
      "after": [],
      "key": "[DIGEST]",
      "kind": "compile",
      "reads": [],
      "state": "hit",
      "task": "compile.b"
    }
  ]
}

"#]]);
    project.call("graph --format gif").failure(2);
}

#[test]
fn graph_runs_nothing() {
    let project = project();
    project.call("graph").success();
    project.call("check").success();
    project.call("run -n").success();
    assert!(!project.path("n").exists());
    assert!(!project.path("vcbuild.lock").exists());
    assert_eq!(folder::files(&project.cache("actions")).len(), 0);
}

#[test]
fn dry_run() {
    let project = project();
    project.call("run -n").success().stdout(str![[r#"
patch.p: would run
compile.a: depends on what `patch.p` gives
compile.b: would run
image.i: depends on what `compile.a` gives
import.n: depends on what `image.i` gives

"#]]);
    project.run("").success();
    project.call("run -n").success().stdout(str![[r#"
import.n: would ask its destinations

"#]]);
    project.write("b", "B\n");
    project.call("run -n").success().stdout(str![[r#"
compile.b: would run
image.i: depends on what `compile.b` gives
import.n: depends on what `image.i` gives

"#]]);
}

#[test]
fn why_descends_to_the_file_and_names_the_patch() {
    let project = Project::hello();
    project.call("why deploy.hello").success().stdout(str![[r#"
deploy.hello: what it reads would be made anew
  image.hello[greet]: what it reads would be made anew
    compile.bin[greet]: what it reads would be made anew
      patch.patched: what it reads would be made anew
        clone.source: it has not run before
    fetch.settings: it has not run before
  image.hello[clock]: what it reads would be made anew
    compile.bin[clock]: what it reads would be made anew
      patch.patched: what it reads would be made anew
        clone.source: it has not run before
    fetch.settings: it has not run before

"#]]);
    project.run("").success();
    project.call("why deploy.hello").success().stdout(str![[r#"
deploy.hello: nothing has changed since it first ran

"#]]);
    project.edit("patches/0001-greeting.patch", |text| text.replace("Hello, %s", "Welcome, %s"));
    project.call("why image.hello[greet]").success().stdout(str![[r#"
image.hello[greet]: what it reads would be made anew
  compile.bin[greet]: what it reads would be made anew
    patch.patched: would run:
      `patches/0001-greeting.patch` changed

"#]]);
    project.run("").success();
    project.call("why compile.bin[greet]").success().stdout(str![[r#"
compile.bin[greet]: last ran:
  `src/greet.c` changed in `tree`
  patch.patched: last ran:
    `patches/0001-greeting.patch` changed

"#]]);
    project.call("why image.hello[greet]").success().stdout(str![[r#"
image.hello[greet]: last ran:
  `greet` changed in `layers.0.0.tree`
  compile.bin[greet]: last ran:
    `src/greet.c` changed in `tree`
    patch.patched: last ran:
      `patches/0001-greeting.patch` changed

"#]]);
    project.call("why import.nodes").success().stdout(str![[r#"
import.nodes: last ran:
  `images.1.blobs.0.digest` changed
  `images.1.blobs.2.digest` changed
  `images.1.blobs.3.digest` changed
  `images.1.content_tags.0` changed
  `images.1.descriptor.digest` changed
  `images.1.variants.0.config.digest` changed
  `images.1.variants.0.descriptor.digest` changed
  `images.1.variants.0.layers.0.becomes` changed
  `images.1.variants.0.layers.0.digest` changed
  `images.1.variants.0.layers.1.becomes` changed
  image.hello[greet]: last ran:
    `greet` changed in `layers.0.0.tree`
    compile.bin[greet]: last ran:
      `src/greet.c` changed in `tree`
      patch.patched: last ran:
        `patches/0001-greeting.patch` changed

"#]]);
    project.call("why compile.bin[clock]").success().stdout(str![[r#"
compile.bin[clock]: nothing has changed since it first ran

"#]]);
}

#[test]
fn why_names_variables_tools_and_files() {
    let project = Project::new()
        .config("[compile.c]\ninputs = ['in/**']\ntools = ['mytool']\npass_env = ['P']\nenv = { E = '1' }\nrun = [['mytool', '-1']]\noutputs = ['out']\n")
        .file("in/deep/a", "a\n")
        .program("tools/mytool", "#!/bin/sh\ntouch out\n");
    let path = format!("{}:/usr/bin:/bin", project.path("tools").display());
    let project = project.env("PATH", path).env("P", "p");
    project.run("").success();
    project.write("in/deep/a", "b\n");
    project.call("why c").success().stdout(str![[r#"
compile.c: would run:
  `in/deep/a` changed in `tree`

"#]]);
    project.run("").success();
    project.write("in/new", "");
    project.run("").success();
    project.call("why c").success().stdout(str![[r#"
compile.c: last ran:
  `in/new` is new in `tree`

"#]]);
    let project = project.env("P", "q");
    project.run("").success();
    project.call("why c").success().stdout(str![[r#"
compile.c: last ran:
  the variable `P` of the environment changed

"#]]);
    project.edit("tools/mytool", |text| format!("{text}# more\n"));
    project.run("").success();
    project.call("why c").success().stdout(str![[r#"
compile.c: last ran:
  the tool `mytool` changed

"#]]);
    project.edit("vcbuild.toml", |text| text.replace("E = '1'", "E = '2'").replace("'-1'", "'-2'"));
    project.run("").success();
    project.call("why c").success().stdout(str![[r#"
compile.c: last ran:
  `env.E` was "1" and is "2"
  `run.0.1` was "-1" and is "-2"

"#]]);
}

#[test]
fn why_key_is_the_preimage() {
    let project = project();
    project.run("compile.b").success();
    let done = project.run("compile.b").success();
    let text = project.call("why compile.b --key").success().text();
    let (key, preimage) = text.split_once('\n').unwrap();
    assert_eq!(done.event("compile.b")["key"], key);
    let preimage: Value = serde_json::from_str(preimage).unwrap();
    assert_eq!(preimage["kind"], "compile");
    assert!(!text.contains(project.root().to_str().unwrap()), "a key knows no absolute path");
    assert!(!text.contains("compile.b"), "a key knows no name of a task");
}

#[test]
fn show() {
    let project = project();
    let shown: Value = serde_json::from_str(&project.call("show compile.b").success().text()).unwrap();
    assert_eq!(shown["action"]["what"]["outputs"], serde_json::json!(["o"]));
    let image = project.call("show image.i").success().text();
    for part in ["digest    sha256:", "name      example.com/i:1\n", "layer     sha256:", "\"rootfs\""] {
        assert!(image.contains(part), "no {part:?} in {image}");
    }
    let wants: Value = serde_json::from_str(&project.call("show import.n").success().text()).unwrap();
    assert!(wants.to_string().contains("example.com/i:vc-"), "{wants}");
    let hello = Project::hello();
    let manifests = hello.call("show deploy.hello").success().text();
    assert!(manifests.contains("kind: Deployment"), "{manifests}");
    assert!(manifests.contains("example.com/hello/greet:vc-"), "{manifests}");
    assert!(manifests.contains("imagePullPolicy: Never"), "{manifests}");
    assert!(!hello.path("out").exists() && !hello.path("nodes").exists(), "show changes nothing");
}

#[test]
fn show_an_image() {
    let project = Project::new()
        .config(
            "[image.base]\nbase = 'scratch'\nfiles = [{ from = 'etc', to = '/etc/', mode = '0640' }]\ntags = ['example.com/base:1']\n\
             [image.app]\nbase = 'image.base'\nentrypoint = ['/bin/app']\n\
             files = [{ from = 'app', to = '/bin/', mode = '0755', layer = 'bin' }, { from = 'lib', to = '/lib/' }, { from = 'tool', to = '/bin/', layer = 'bin' }]\n\
             tags = ['example.com/app:1', 'example.com/app:2']\n\
             [save.old]\nimages = ['image.base']\nformat = 'docker-archive'\n\
             [save.layout]\nimages = ['image.app']\nformat = 'oci-layout'\ncompression = 'zstd'\n",
        )
        .file("etc/conf", "a = 1\n")
        .file("app", "app\n")
        .file("tool", "tool\n")
        .file("lib/a/b", "b\n");
    std::os::unix::fs::symlink("a/b", project.path("lib/link")).unwrap();
    let app = project.call("show image.app").success().text();
    let (head, config) = app.split_once("{\n").unwrap();
    snapbox::assert_data_eq!(
        head.to_string(),
        str![[r#"
digest    sha256:[..]
name      example.com/app:1
name      example.com/app:2
platform  linux/amd64
size      9.7 kB in 3 layers
layer     sha256:[..]  2.6 kB  plain  from image.base
layer     sha256:[..]  3.6 kB  plain  from app, tool as `bin`
layer     sha256:[..]  3.6 kB  plain  from lib

"#]]
    );
    assert!(config.contains("\"rootfs\""), "{config}");
    snapbox::assert_data_eq!(
        project.call("show app --files").success().text(),
        str![[r#"
digest    sha256:[..]
name      example.com/app:1
name      example.com/app:2
platform  linux/amd64
size      9.7 kB in 3 layers
layer     sha256:[..]  2.6 kB  plain  from image.base
  drwxr-xr-x       0:0               /etc/
  -rw-r-----       0:0             6 /etc/conf
layer     sha256:[..]  3.6 kB  plain  from app, tool as `bin`
  drwxr-xr-x       0:0               /bin/
  -rwxr-xr-x       0:0             4 /bin/app
  -rw-r--r--       0:0             5 /bin/tool
layer     sha256:[..]  3.6 kB  plain  from lib
  drwxr-xr-x       0:0               /lib/
  drwxr-xr-x       0:0               /lib/a/
  -rw-r--r--       0:0             2 /lib/a/b
  lrwxrwxrwx       0:0               /lib/link -> a/b

"#]]
    );
    for (other, expected) in [
        (
            "image.base",
            str![[r#"
digest    sha256:[..]
name      example.com/app:1
name      example.com/app:2
platform  linux/amd64
size      9.7 kB in 3 layers
against   image.base
present   2.6 kB in 1 layer
to fetch  7.2 kB in 2 layers, and 1.6 kB of manifest and config
layer     sha256:[..]  2.6 kB  plain  from image.base  present
layer     sha256:[..]  3.6 kB  plain  from app, tool as `bin`  to fetch
layer     sha256:[..]  3.6 kB  plain  from lib  to fetch

"#]],
        ),
        (
            "example.com/base:1",
            str![[r#"
digest    sha256:[..]
name      example.com/app:1
name      example.com/app:2
platform  linux/amd64
size      9.7 kB in 3 layers
against   image.base
present   2.6 kB in 1 layer
to fetch  7.2 kB in 2 layers, and 1.6 kB of manifest and config
layer     sha256:[..]  2.6 kB  plain  from image.base  present
layer     sha256:[..]  3.6 kB  plain  from app, tool as `bin`  to fetch
layer     sha256:[..]  3.6 kB  plain  from lib  to fetch

"#]],
        ),
        (
            "example.com/app:2",
            str![[r#"
digest    sha256:[..]
name      example.com/app:1
name      example.com/app:2
platform  linux/amd64
size      9.7 kB in 3 layers
against   image.app
present   9.7 kB in 3 layers
to fetch  0 B in 0 layers, and 0 B of manifest and config
layer     sha256:[..]  2.6 kB  plain  from image.base  present
layer     sha256:[..]  3.6 kB  plain  from app, tool as `bin`  present
layer     sha256:[..]  3.6 kB  plain  from lib  present

"#]],
        ),
    ] {
        snapbox::assert_data_eq!(
            project.call(&format!("show app --against {other}")).success().text(),
            expected
        );
    }
    project.call("get save.old -o old.tar").success();
    Command::new("gzip").arg("-k").arg(project.path("old.tar")).status().unwrap();
    project.call("get save.layout -o layout").success();
    let other = |path: &str| {
        let path = project.path(path);
        let text = project.call(&format!("show app --against {}", path.display())).success().text();
        text.lines()
            .filter(|line| line.starts_with("present") || line.starts_with("to fetch"))
            .collect::<String>()
    };
    assert_eq!(
        other("old.tar"),
        "present   2.6 kB in 1 layerto fetch  7.2 kB in 2 layers, and 1.6 kB of manifest and config"
    );
    assert_eq!(other("old.tar.gz"), other("old.tar"));
    assert_eq!(
        other("layout/images.tar"),
        "present   9.7 kB in 3 layersto fetch  0 B in 0 layers, and 697 B of manifest and config"
    );
    let data: Value =
        serde_json::from_str(&project.call("show app --files --json").success().text()).unwrap();
    assert_eq!(data["layers"][2]["files"][3]["target"], "a/b");
    assert_eq!(data["layers"][0]["origin"], "image.base");
    assert_eq!(data["config"]["config"]["Entrypoint"][0], "/bin/app");
    project.call("show app --against nothing").failure(2).stderr(str![[r#"
error: `nothing` is no image that is known here
hint: name an image task, a tag of one, an archive, or the folder of an OCI layout

error: 1 mistake

"#]]);
    project.call(&format!("show app --against {}", project.path("app").display())).failure(1);
    project.call("show save.old --files").failure(2).stderr(str![[r#"
error: `save.old` is no image: `--files`, `--against`, `--platform` and `--json` are for images

error: 1 mistake

"#]]);
}

#[test]
fn log() {
    let project = project();
    project.call("log compile.a").failure(1).stderr(str![[r#"
error: `compile.a` has not run yet

"#]]);
    project.run("compile.a").success();
    project.call("log compile.a").success().stdout(str![[r#"
making a

"#]]);
    project.call("log a").success();
    project.call("log compile").failure(2).stderr(str![[r#"
error: `compile` is 2 tasks, and one is wanted
hint: one of `compile.a`, `compile.b`

error: 1 mistake

"#]]);
    project.write("cache/keep-the-log-of-a-hit", "");
    project.run("compile.a").nothing();
    project.call("log compile.a").success().stdout(str![[r#"
making a

"#]]);
}

#[test]
fn get_one_file() {
    let project = project();
    project.call("get compile.a -o here").success();
    assert_eq!(project.read("here"), "1\ntwo\n");
    fs::create_dir(project.path("folder")).unwrap();
    project.call("get compile.a -o folder").success();
    assert_eq!(project.read("folder/out"), "1\ntwo\n");
    project.write("here", "something else");
    project.call("get compile.a -o here").success();
    assert_eq!(project.read("here"), "1\ntwo\n");
}

#[test]
fn get_replaces_no_device_and_no_pipe() {
    let project = project();
    let made = std::process::Command::new("mkfifo").arg(project.path("pipe")).status().unwrap();
    assert!(made.success());
    project.call("get compile.a -o pipe").failure(1).stderr(str![[r#"
error: `[ROOT]/pipe` is no file that could be replaced
hint: name a file or a folder

"#]]);
    let kind = fs::symlink_metadata(project.path("pipe")).unwrap().file_type();
    assert!(std::os::unix::fs::FileTypeExt::is_fifo(&kind));
}

#[test]
fn get_a_folder() {
    let project = project();
    project.call("get compile.b -o tree").success();
    assert_eq!(folder::files(&project.path("tree")).len(), 2);
    project.write("tree/mine", "");
    // The folder is `get`'s own: exactly the tree is there again.
    project.call("get compile.b -o tree").success();
    assert_eq!(folder::files(&project.path("tree")).len(), 2);
    project.write("precious/file", "");
    project.call("get compile.b -o precious").failure(1).stderr(str![[r#"
error: `[ROOT]/precious` is not empty, and `get` did not make it
hint: `--force` replaces all that is in it

"#]]);
    assert!(project.path("precious/file").exists());
    project.call("get compile.b -o precious --force").success();
    assert_eq!(folder::files(&project.path("precious")).len(), 2);
    fs::create_dir(project.path("empty")).unwrap();
    project.call("get compile.b -o empty").success();
    project.call("get compile.b -o b").failure(1).stderr(str![[r#"
error: `[ROOT]/b` is a file, and there are several to write
hint: name a folder

"#]]);
    assert_eq!(project.read("b"), "b\n");
}

#[test]
fn get_an_image_is_a_layout_that_others_read() {
    let project = project();
    project.call("get image.i -o layout").success();
    let inspect = Command::new("skopeo")
        .args(["inspect", "--config", &format!("oci:{}", project.path("layout").display())])
        .output()
        .unwrap();
    assert!(inspect.status.success(), "{}", String::from_utf8_lossy(&inspect.stderr));
    project.call("get import.n -o x").failure(1).stderr(str![[r#"
error: `import.n` changes destinations and has no outputs

"#]]);
    project.call("get compile -o x").failure(2);
}

#[test]
fn check() {
    let project = project();
    project.call("check -q").success().stdout(str![[r#"
ok: 5 tasks

"#]]);
    project.call("check").success().stdout(str![[r#"
patch.p: `patches/1.patch` applies
ok: 5 tasks

"#]]);
    let hello = Project::hello();
    hello.call("check").success().stdout(str![[r#"
patch.patched: not checked: not fetched
ok as far as known: 12 tasks, 1 not checked

"#]]);
    hello.run("").success();
    hello.call("check").success().stdout(str![[r#"
patch.patched: `patches/0001-greeting.patch` applies
patch.patched: `patches/0002-clock-utc.patch` applies
ok: 12 tasks

"#]]);
    hello.edit("patches/0002-clock-utc.patch", |text| {
        text.replace("%H:%M:%S\", localtime", "%H.%M.%S\", localtime")
    });
    hello.call("check").failure(1).stdout(str![[r#"
patch.patched: `patches/0001-greeting.patch` applies
patch.patched: error: `patches/0002-clock-utc.patch` line 7: hunk 1 of `src/clock.c` does not fit
      expected                                     | there, from line 11
              char text[64];                       |         char text[64];
              time_t now = time(NULL);             |         time_t now = time(NULL);
                                                   | 
    -         strftime(text, sizeof text, "%H.%M.… |
    +                                              |         strftime(text, sizeof text, "%H:%M:…  (line 14)
              printf("%s\n", text);                |         printf("%s\n", text);
              fflush(stdout);                      |         fflush(stdout);
              sleep(1);                            |         sleep(1);
    not there: `        strftime(text, sizeof text, "%H.%M.…`
    hint: the file changed since the patch was made: write the patch again for it
    hint: `vcbuild patch rebase` merges patches with a tree that has changed
1 error in 12 tasks

"#]]);
}

#[test]
fn plan_changes_no_destination() {
    let project = project();
    project.call("plan").success().stdout(str![[r#"
import.n
    n: 6.8 kB to send, 2 changes
        i:vc-[DIGEST] 4 blobs, 6.7 kB
        name example.com/i:1
plan: 6.8 kB and 2 changes on 1 destination

"#]]);
    assert!(!project.path("n").exists());
    project.run("").success();
    project.call("plan").success().stdout(str![[r#"
import.n
    n: up to date
plan: nothing would change, 1 up to date

"#]]);
}

/// A repository with one commit; returns the commit.
fn commit(project: &Project, text: &str) -> String {
    project.write("repo/file", text);
    let git = |arguments: &str| {
        let mut command = Command::new("git");
        project.clean(&mut command);
        command.env("GIT_CONFIG_GLOBAL", "/dev/null").args([
            "-c",
            "user.name=a",
            "-c",
            "user.email=a@example.com",
            "-c",
            "init.defaultBranch=main",
        ]);
        let output = command.args(arguments.split(' ')).current_dir(project.path("repo")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_string()
    };
    git("init -q");
    git("add file");
    git("commit -q -m words");
    git("rev-parse HEAD")
}

#[test]
fn pins_are_added_by_a_run_and_moved_by_update() {
    let project = Project::new().config("[clone.c]\nurl = 'repo'\nrev = 'main'\n");
    let first = commit(&project, "one\n");
    project.run("--locked").failure(1).stderr(str![[r#"
  failed clone.c  [TIME]
error: `clone.c` failed: `main` of `repo` is not pinned in `vcbuild.lock`
hint: run once without `--locked` to add the pin
error: 1 task failed:
    `clone.c`: `main` of `repo` is not pinned in `vcbuild.lock`
failed: 1 failed ([TIME])

"#]]);
    assert!(!project.path("vcbuild.lock").exists());
    project.run("").success().stderr(str![[r#"
note: `clone.c`: pinned `main` of `repo` to `[DIGEST]`
     ran clone.c  [TIME]  it has not run before
done: 1 ran ([TIME])

"#]]);
    let lock = project.read("vcbuild.lock");
    assert!(lock.contains(&first), "{lock}");
    project.settle();
    let second = commit(&project, "two\n");
    project.run("--locked").nothing();
    assert_eq!(project.read("vcbuild.lock"), lock);
    let said = project.call("update").success().text();
    assert!(said.contains(&first) && said.contains(&format!("-> {second}")), "{said}");
    project.run("--locked").success().did(&["clone.c"]);
    project.call("get clone.c -o got").success();
    assert_eq!(project.read("got"), "two\n");
    project.call("update").success().stdout(str![[r#"
`main` of `repo`: still [DIGEST]

"#]]);
    project.call("update nothing").failure(2);
}

#[test]
fn offline() {
    let project = Project::new().config("[clone.c]\nurl = 'https://git.invalid/x'\nrev = 'main'\n");
    project.run("--offline").failure(1).stderr(str![[r#"
  failed clone.c  [TIME]
error: `clone.c` failed: `https://git.invalid/x` would have to be asked, and `--offline` forbids it
error: 1 task failed:
    `clone.c`: `https://git.invalid/x` would have to be asked, and `--offline` forbids it
failed: 1 failed ([TIME])

"#]]);
}

#[test]
fn the_schema_knows_every_key_of_the_example_and_refuses_others() {
    let project = Project::hello();
    let schema: Value = serde_json::from_str(&project.call("schema").success().text()).unwrap();
    assert!(schema["$schema"].as_str().unwrap().starts_with("https://json-schema.org/"));
    // Each key of each table of the example is a property somewhere in the schema.
    fn properties(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => {
                if let Some(Value::Object(inner)) = map.get("properties") {
                    found.extend(inner.keys().cloned());
                }
                map.values().for_each(|value| properties(value, found));
            }
            Value::Array(list) => list.iter().for_each(|value| properties(value, found)),
            _ => {}
        }
    }
    let mut known = BTreeSet::new();
    properties(&schema, &mut known);
    let example: toml::Table = toml::from_str(&project.read("vcbuild.toml")).unwrap();
    for (kind, tables) in &example {
        assert!(known.contains(kind), "the table `{kind}`");
        if kind == "vars" {
            continue;
        }
        let tables = tables.as_table().unwrap();
        let tables = if kind == "project" {
            vec![tables]
        } else {
            tables.values().map(|table| table.as_table().unwrap()).collect()
        };
        for key in tables.iter().flat_map(|table| table.keys()) {
            assert!(known.contains(key), "the key `{key}` of `{kind}`");
        }
    }
    assert!(!known.contains("kubeconfig"), "what does not work yet is not in the schema");
}

#[test]
fn completions_are_scripts_that_the_shell_takes() {
    let project = Project::new();
    let script = project.call("completions bash").success().text();
    project.write("script", &script);
    let status = Command::new("bash").arg("-n").arg(project.path("script")).status().unwrap();
    assert!(status.success());
    for verb in [
        "run", "plan", "list", "graph", "why", "show", "log", "get", "check", "vars", "update", "cache",
        "schema",
    ] {
        assert!(script.contains(verb), "{verb}");
    }
    for shell in ["zsh", "fish"] {
        assert!(!project.call(&format!("completions {shell}")).success().stdout.is_empty());
    }
}

#[test]
fn events_end_each_task_and_the_run() {
    let project = project();
    let done = project.run("").success();
    let last = done.events().last().unwrap();
    assert_eq!((&last["event"], &last["outcome"]), (&"end".into(), &"ok".into()));
    assert_eq!(last["counts"], serde_json::json!({ "ran": 4, "applied": 1 }));
    for (task, outcome) in done.outcomes() {
        let event = done.event(&task);
        assert_eq!(event["key"].is_null(), outcome == "applied", "{event}");
        assert!(event["seconds"].is_number());
    }
    let again = done.again().success();
    assert_eq!(again.events().last().unwrap()["counts"], serde_json::json!({ "hit": 4, "unchanged": 1 }));
    assert_eq!(again.outcomes().len(), 5);
    for task in ["patch.p", "image.i"] {
        assert_eq!(again.event(task)["key"], done.event(task)["key"]);
    }
    assert_eq!(again.event("import.n")["destinations"][0]["outcome"], "unchanged");
}

#[test]
fn quiet_verbose_and_colours() {
    let project = project();
    project.settle();
    project.call("run -q").success().stderr(str![""]);
    project.settle();
    project.call("run -v").success().stderr(str![[r#"
      hit compile.a  [TIME]  key [DIGEST]
      hit compile.b  [TIME]  key [DIGEST]
      hit image.i  [TIME]  key [DIGEST]
unchanged import.n  [TIME]
      hit patch.p  [TIME]  key [DIGEST]
nothing to do: 5 tasks up to date ([TIME])

"#]]);
    project.write("src/a", "one\ntwo\nthree\n");
    let coloured = project.call("run --color always").success();
    assert!(coloured.stderr.contains("\x1b["));
    project.remove("n");
    let project = project.env("NO_COLOR", "1");
    let plain = project.call("run").success();
    assert!(!plain.stderr.contains('\x1b'));
}

#[test]
fn a_node_that_cannot_be_reached_is_deferred() {
    let project = project().file("elsewhere", "");
    project.remove("elsewhere");
    std::os::unix::fs::symlink("elsewhere", project.path("n")).unwrap();
    let done = project.run("-j 1").failure(3).stderr(str![[r#"
     ran patch.p  [TIME]  it has not run before
     ran compile.a  [TIME]  it has not run before
     ran compile.b  [TIME]  it has not run before
     ran image.i  [TIME]  it has not run before
deferred import.n  [TIME]
          n deferred: `[ROOT]/n` is a link that leads nowhere
warning: 1 task deferred; the next run does what is left:
    `import.n`: n: `[ROOT]/n` is a link that leads nowhere
deferred: 1 deferred, 4 ran ([TIME])

"#]]);
    assert_eq!(done.event("import.n")["destinations"][0]["outcome"], "deferred");
    fs::create_dir(project.path("elsewhere")).unwrap();
    project.run("").success().did(&["import.n"]);
}

#[test]
fn get_that_cannot_write_says_just_that() {
    let project = Project::new().config(&compile("a", "")).file("file", "");
    project.run("").success();
    project.call("get compile.a -o file/o").failure(1).stderr(str![[r#"
error: make a file in `[ROOT]/file`: not a directory

"#]]);
    let project = Project::new()
        .config("[compile.a]\ninputs = ['vcbuild.toml']\nrun = [['false']]\noutputs = ['o']\n");
    project.call("get compile.a -o o").failure(1).stderr(str![[r#"
  failed compile.a  [TIME]
error: `compile.a` failed: `false` failed: exit status 1
error: 1 task failed:
    `compile.a`: `false` failed: exit status 1
failed: 1 failed ([TIME])

"#]]);
}
