//! Bases out of containerd on a machine: pinned, read once and only when somebody needs the bytes.

use std::fs;
use std::process::Command;

use crate::rig::{self, Kind, Node};
use crate::support::Project;
use crate::support::registry::layout;
use crate::support::servers::Line;

const NAME: &str = "registry.example/team/base:1";

/// A node that has an image of 3 MB, its layers packed, under `NAME`.
fn node(kind: Kind) -> Node {
    let node = Node::new("n1", kind);
    give(&node, "first");
    node
}

/// Makes an image and gives it the name on a node.
fn give(node: &Node, which: &str) {
    let (_made, layout) = layout(which, 3_000_000);
    let archive = node.path("base.tar");
    let _ = fs::remove_file(&archive);
    let to = format!("oci-archive:{}:{NAME}", archive.display());
    let copy = Command::new("skopeo")
        .args(["copy", "-q", "--insecure-policy", "--dest-compress"])
        .args([format!("oci:{}", layout.display()), to])
        .output()
        .unwrap();
    assert!(copy.status.success(), "{}", String::from_utf8_lossy(&copy.stderr));
    node.sh(&format!("ctr -n k8s.io images import --no-unpack {} >/dev/null", archive.display()));
}

/// A project with an image on it.
fn project(node: &Node, base: &str, files: &str) -> Project {
    let text = format!(
        "{}[image.app]\nbase = '{base}'\nfiles = [{{ from = 'app', to = '{files}' }}]\nentrypoint = ['/app']\n",
        rig::hosts(&[node], "")
    );
    let project = Project::new().config(&text).file("app", "the app\n");
    rig::introduce(&project, &[node], "root");
    project
}

fn layers(project: &Project) -> Vec<String> {
    let _ = fs::remove_dir_all(project.path("got"));
    project.call("get image.app -o got").success();
    let from = format!("oci:{}", project.path("got").display());
    let inspect = Command::new("skopeo").args(["inspect", "--raw", &from]).output().unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&inspect.stdout).unwrap();
    // A copy reads and verifies every blob.
    let copy = Command::new("skopeo")
        .args(["copy", "-q", "--insecure-policy", &from])
        .arg(format!("dir:{}", project.beside("copy").display()))
        .output()
        .unwrap();
    assert!(copy.status.success(), "{}", String::from_utf8_lossy(&copy.stderr));
    let all = manifest["layers"].as_array().unwrap();
    all.iter().map(|layer| layer["mediaType"].as_str().unwrap().to_string()).collect()
}

with_both! {
    a_base_is_read_when_it_is_needed
    what_is_not_there_is_said
}

fn a_base_is_read_when_it_is_needed(kind: Kind) {
    let node = node(kind);
    let project = project(&node, &format!("containerd:{NAME}@n1"), "/app");
    let line = Line::to(node.port);
    rig::introduce_by(&project, &[&node], "root", &[line.port]);
    project.run("").success().did(&["image.app"]);
    assert!(line.downward() < 100_000, "only documents were read");
    let lock = project.read("vcbuild.lock");
    assert!(lock.contains(&format!("containerd:{NAME}@n1")) && lock.contains("sha256:"), "{lock}");
    let packed = "application/vnd.oci.image.layer.v1.tar+gzip";
    let all = layers(&project);
    assert_eq!(all, [packed, packed, "application/vnd.oci.image.layer.v1.tar"]);
    assert!(line.downward() > 3_000_000, "the layers were needed");
    // It is here now: nobody is asked.
    let calls = line.calls();
    layers(&project);
    project.run("").nothing();
    project.edit("app", |text| text.replace("the", "another"));
    project.run("").success().did(&["image.app"]);
    layers(&project);
    assert_eq!(line.calls(), calls);
    // What is lost is read again, and not what the name means now.
    fs::remove_dir_all(project.cache("cas/sha256")).unwrap();
    let before = project.read("vcbuild.lock");
    give(&node, "second");
    assert_eq!(layers(&project).len(), 3);
    assert_eq!(project.read("vcbuild.lock"), before);
    assert!(project.call("update").success().text().contains(" -> sha256:"));
    assert_ne!(project.read("vcbuild.lock"), before);
    assert_eq!(layers(&project).len(), 3);
    // Cut in the middle of a layer, it is read once more.
    fs::remove_dir_all(project.cache("cas/sha256")).unwrap();
    line.cut_once(1_000_000);
    assert_eq!(layers(&project).len(), 3);
    node.quiet();
}

fn what_is_not_there_is_said(kind: Kind) {
    let node = node(kind);
    let says = |base: &str, code: i32, words: &[&str]| {
        let done = project(&node, base, "/app");
        let done = done.run("").failure(code);
        for word in words {
            assert!(done.stderr.contains(word), "not `{word}` in:\n{}", done.stderr);
        }
    };
    says("containerd:registry.example/none:1@n1", 1, &["`n1` has no image `registry.example/none:1`"]);
    says(&format!("containerd:{NAME}@nowhere"), 2, &["nowhere"]);
    says(&format!("containerd:{NAME}@"), 2, &[]);
    let offline = project(&node, &format!("containerd:{NAME}@n1"), "/app");
    let done = offline.run("--offline").failure(1);
    assert!(done.stderr.contains("the network may not be used"), "{}", done.stderr);
    // A blob that is not what its name says.
    let broken = project(&node, &format!("containerd:{NAME}@n1"), "/app");
    broken.run("").success();
    let manifest = node.sh("ctr -n k8s.io images ls | awk '/team.base/ { print $3 }'");
    let layer = node.sh(&format!(
        "ctr -n k8s.io content get {} | tr , '\\n' | grep -o 'sha256:[0-9a-f]*' | tail -n 1",
        manifest.trim()
    ));
    let blob = format!(
        "/var/lib/containerd/io.containerd.content.v1.content/blobs/sha256/{}",
        layer.trim().trim_start_matches("sha256:")
    );
    node.sh(&format!("chmod u+w {blob}; printf x | dd of={blob} bs=1 seek=30 conv=notrunc status=none"));
    let done = broken.call("get image.app -o got").failure(1);
    assert!(done.stderr.contains(&format!("bytes for `{}`", layer.trim())), "{}", done.stderr);
    node.sh(&format!("ctr -n k8s.io content rm {} >/dev/null", layer.trim()));
    let done = broken.call("get image.app -o got").failure(1);
    assert!(done.stderr.contains("does not have `sha256:"), "{}", done.stderr);
}

#[test]
fn an_embedded_node_gives_a_base() {
    let text = r#"
[host.laptop]
local = "laptop"
[image.base]
base = "scratch"
files = [{ from = "app", to = "/base" }]
tags = ["registry.example/team/base:1"]
[import.laptop]
images = ["image.base"]
hosts = "laptop"
[image.app]
base = "containerd:registry.example/team/base:1@laptop"
files = [{ from = "app", to = "/app" }]
"#;
    let project = Project::new().config(text).file("app", "the app\n");
    project.run("import.laptop").success();
    project.run("image.app --offline").success();
    assert_eq!(layers(&project).len(), 2);
    project.edit("vcbuild.toml", |text| text.replace("base:1@laptop", "none:1@laptop"));
    let done = project.run("image.app").failure(1);
    assert!(
        done.stderr.contains("`laptop` has no image `registry.example/team/none:1`"),
        "{}",
        done.stderr
    );
}
