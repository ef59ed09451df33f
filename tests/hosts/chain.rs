//! From a patch to what a container prints on a node, and 32 nodes at once.

use std::fs;

use super::images::runs;
use crate::rig::{self, Kind, Node};
use crate::support::{Project, memory};

const CHAIN: &str = r#"
[patch.patched]
tree  = "upstream"
files = ["greet.patch"]
[compile.bin]
tree    = "patch.patched"
tools   = ["cc"]
run     = [["cc", "-static", "-O1", "-o", "greet", "greet.c"]]
outputs = ["greet"]
[image.greet]
base       = "scratch"
files      = [{ from = "compile.bin", to = "/bin/" }]
entrypoint = ["/bin/greet"]
tags       = ["registry.example/team/greet:1.0"]
[import.nodes]
images = ["image.greet"]
hosts  = "nodes"
"#;

#[test]
fn a_container_prints_what_the_edited_patch_says() {
    let (one, two) = (Node::new("one", Kind::Containerd), Node::new("two", Kind::Containerd2));
    let project = Project::new().config(&format!("{}{CHAIN}", rig::hosts(&[&one, &two], "")));
    rig::introduce(&project, &[&one, &two], "root");
    fs::create_dir(project.path("upstream")).unwrap();
    project.write(
        "upstream/greet.c",
        "#include <stdio.h>\nint main(void) {\n\tputs(\"upstream\");\n\treturn 0;\n}\n",
    );
    let patch = "--- a/greet.c\n+++ b/greet.c\n@@ -2,4 +2,4 @@\n int main(void) {\n-\tputs(\"upstream\");\n\
                 +\tputs(\"patched once\");\n \treturn 0;\n }\n";
    project.write("greet.patch", patch);
    let prints = |words: &str| {
        for node in [&one, &two] {
            assert_eq!(runs(node, "registry.example/team/greet:1.0"), format!("{words}\n"));
        }
    };
    project.run("import").success();
    prints("patched once");
    project.edit("greet.patch", |text| text.replace("once", "again"));
    project.run("import").success().did(&["patch.patched", "compile.bin", "image.greet", "import.nodes"]);
    prints("patched again");
    project.run("import").nothing();
}

/// A base that is not small, and files.
const BOTH: &str = r#"
[image.app]
base  = "scratch"
files = [{ from = "data", to = "/data" }]
[import.nodes]
images = ["image.app"]
hosts  = "nodes"
[upload.machines]
from  = ["data"]
hosts = "machines"
dir   = "/srv"
"#;

#[test]
fn many_nodes_at_once_in_little_memory() {
    let nodes: Vec<Node> =
        (0..6).map(|number| Node::new(&format!("n{number}"), Kind::Containerd)).collect();
    let machines: Vec<Node> = (0..26).map(|number| Node::new(&format!("m{number}"), Kind::Plain)).collect();
    let peak = |nodes: &[&Node], machines: &[&Node]| {
        let names: Vec<String> = machines.iter().map(|node| format!("'{}'", node.name)).collect();
        let tables = rig::hosts(&[nodes, machines].concat(), "");
        let tables = tables.split("[hosts.nodes]").next().unwrap().to_string();
        let group: Vec<String> = nodes.iter().map(|node| format!("'{}'", node.name)).collect();
        let project = Project::new().config(&format!(
            "{tables}[hosts.nodes]\nlist = [{}]\n[hosts.machines]\nlist = [{}]\n{BOTH}",
            group.join(", "),
            names.join(", ")
        ));
        rig::introduce(&project, &[nodes, machines].concat(), "root");
        fs::write(project.path("data"), vec![nodes.len() as u8; 12 << 20]).unwrap();
        let mut child = project
            .command(&["run", "import", "upload"])
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let peak = memory::peak(&mut child);
        assert!(child.wait().unwrap().success());
        project.run("import upload").nothing();
        peak
    };
    let (all, others): (Vec<&Node>, Vec<&Node>) = (nodes.iter().collect(), machines.iter().collect());
    let (few, many) = (peak(&all[..1], &others[..1]), peak(&all, &others));
    // Buffers and a thread for each that is served at the same time, and nothing of the 12 MB that go to each.
    assert!(many < few + 30 * 2_000, "{few} kB for 2 hosts, {many} kB for 32");
}
