//! `doctor` about kubelet, its configuration and what CRI says of pins.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::rig::{self, Kind, Node};
use crate::support::Project;

/// Puts a program on a node, where its shells find it.
fn program(node: &Node, name: &str, script: &str) {
    let path = node.path(&format!("home/{name}"));
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    node.sh(&format!(
        "mkdir -p /run/bin; cp /home/{name} /run/bin/; mountpoint -q /usr/local/sbin || mount --bind /run/bin /usr/local/sbin"
    ));
}

#[test]
fn kubelet_and_cri_have_a_say() {
    let node = Node::new("n", Kind::Containerd2);
    let images = "[image.app]\nbase = 'scratch'\nfiles = [{ from = 'data', to = '/' }]\n\
                  [import.nodes]\nimages = ['image.app']\nhosts = 'nodes'\n";
    let project = Project::new().config(&format!("{}{images}", rig::hosts(&[&node], "")));
    rig::introduce(&project, &[&node], "root");
    fs::write(project.path("data"), "one").unwrap();
    let doctor = || project.call("doctor").success().text();
    let quiet = doctor();
    assert!(!quiet.contains("kubelet"), "{quiet}");
    project.run("import").success();
    // A kubelet that is too old, and whose configuration is not there.
    program(&node, "kubelet", "echo Kubernetes v1.27.3");
    let said = doctor();
    assert!(said.contains("kubelet 1.27.3 collects pinned images, too"), "{said}");
    assert!(said.contains("`/var/lib/kubelet/config.yaml` cannot be read"), "{said}");
    program(&node, "kubelet", "echo Kubernetes v1.34.4");
    node.sh("mkdir -p /run/kubelet /var/lib/kubelet; mount --bind /run/kubelet /var/lib/kubelet");
    node.sh("printf 'kind: KubeletConfiguration\\nimageGCHighThresholdPercent: 1\\nimageMaximumGCAge: \"24h\"\\n' >/var/lib/kubelet/config.yaml");
    let said = doctor();
    assert!(said.contains("from 1 % on kubelet collects images that no pod uses"), "{said}");
    assert!(said.contains("kubelet collects images that no pod has used for 24h"), "{said}");
    node.sh("printf 'imageMaximumGCAge: 0s\\n' >/var/lib/kubelet/config.yaml");
    assert!(!doctor().contains("kubelet"), "{}", doctor());
    // What CRI says counts.
    let tag = node.sh("ctr -n k8s.io images ls -q | grep ':vc-'");
    for (pinned, words) in [("false", true), ("true", false)] {
        let json = format!(
            "{{\"images\":[{{\"id\":\"x\",\"repoTags\":[\"{}\"],\"pinned\":{pinned}}}]}}",
            tag.trim()
        );
        program(&node, "crictl", &format!("[ \"$1\" = --timeout ] || exit 1\necho '{json}'"));
        let said = doctor();
        assert_eq!(
            said.contains("n: note: CRI does not report 1 image of ours as pinned"),
            words,
            "{said}"
        );
    }
    let table = project.call("hosts").success().text();
    assert!(table.contains("1.34.4"), "{table}");
    node.quiet();
}
