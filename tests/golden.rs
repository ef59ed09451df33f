//! The bytes that each kind of action makes of the same inputs, beside its `REVISION`: a change of the
//! bytes needs another revision, or caches of before would serve what this vcbuild does not make.

use std::fmt::Write;

use sha2::{Digest, Sha256};
use snapbox::str;

use crate::support::Project;
use crate::support::folder::contents;

const CONFIG: &str = r#"
[host.depot]
local = "depot"
[clone.source]
url = "upstream.bundle"
rev = "main"
[patch.patched]
tree = "clone.source"
files = ["patches/*.patch"]
[compile.program]
tree = "patch.patched"
inputs = ["src/**"]
run = [["sh", "-c", "cat src/*.c > program; chmod 755 program; mkdir -p more/empty; ln -s ../program more/link"]]
outputs = ["program", "more"]
[fetch.settings]
host = "depot"
path = "/etc/hello/settings.conf"
[image.base]
base = "scratch"
files = [{ from = "fetch.settings", to = "/etc/" }, { from = "clone.source", to = "/src/" }]
tags = ["example.com/base:1"]
[image.app]
base = "image.base"
files = [
  { from = "compile.program", path = "program", to = "/bin/", mode = "0750", layer = "one" },
  { from = "compile.program", path = "more/**", to = "/more/" },
  { from = "fetch.settings", to = "/etc/hello/app.conf", layer = "one" },
]
entrypoint = ["/bin/program"]
env = { PROGRAM = "app", A = "1" }
labels = { "org.opencontainers.image.title" = "app" }
tags = ["example.com/app:1"]
[save.docker]
images = ["image.base", "image.app"]
format = "docker-archive"
[save.archive]
images = ["image.app"]
format = "oci-archive"
[save.layout]
images = ["image.app"]
format = "oci-layout"
"#;

/// The revision of a task's kind, as its preimage says, and a digest over all that `get` gives.
fn line(project: &Project, task: &str) -> String {
    let preimage = project.call(&format!("why {task} --key")).success().text();
    let revision = preimage.lines().find_map(|line| line.trim().strip_prefix("\"revision\": ")).unwrap();
    project.call(&format!("get {task} -o got/{task}")).success();
    let mut hasher = Sha256::new();
    let path = project.path(format!("got/{task}"));
    let files = match path.is_dir() {
        true => contents(&path),
        false => contents(path.parent().unwrap()).into_iter().filter(|(name, _)| *name == *task).collect(),
    };
    for (name, (mode, bytes)) in files {
        hasher.update(format!("{mode:o} {} {}\n", bytes.len(), name.display()));
        hasher.update(bytes);
    }
    let digest = hasher.finalize().iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    });
    format!("{task} {} {}\n", revision.trim_end_matches(','), &digest[..32])
}

#[test]
fn bytes_that_change_have_another_revision() {
    let project = Project::hello().config(CONFIG);
    project.run("save").success();
    let mut found = String::new();
    for task in ["clone.source", "patch.patched", "compile.program", "fetch.settings"] {
        found += &line(&project, task);
    }
    snapbox::assert_data_eq!(
        found,
        str![[r#"
clone.source 1 d6f5b612203ac26db44d2efea142506b
patch.patched 1 c2520d9df509e3b2ebc2c6e701674772
compile.program 1 4725189a0a55d3cdf2b8045b3f2a70d2
fetch.settings 1 87c7cc724949af8d3d464e2a839f8caf

"#]]
    );
    // The configuration of an image names its architecture.
    if cfg!(target_arch = "x86_64") {
        let mut found = String::new();
        for task in ["image.base", "image.app", "save.docker", "save.archive", "save.layout"] {
            found += &line(&project, task);
        }
        snapbox::assert_data_eq!(
            found,
            str![[r#"
image.base 2 466ab6f5b5e159fe8ff452c0236e9000
image.app 2 ebf21dab2b03bbc5dc416bbd6754279e
save.docker 1 9eb71fd365a72ea11c6b742176ebd859
save.archive 1 075fa11af07066353251f2d1f32dfae2
save.layout 1 b351c952d36d94533fc85dd334b799fa

"#]]
        );
    }
}
