//! Imports that are stopped, or whose node breaks down: the right message, no name that points at less than all,
//! nothing left over, and the next run completes.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use super::images::{app, assert_whole, names, program, project, runs};
use crate::rig::{self, Kind, Node};
use crate::support::servers::Line;

fn interrupt(child: &Child) {
    let id = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
}

/// Holds every name but staging ones to be of something whole.
#[track_caller]
fn no_name_is_wrong(node: &Node) {
    let check = node.sh("ctr -n k8s.io images check");
    for line in check.lines().skip(1).filter(|line| line.contains("registry.example/team/")) {
        assert!(line.contains(" complete "), "{line}");
    }
}

/// A run is stopped when the host has said so much: while it connects, asks, sends, waits, names and ends.
fn ctrl_c_at_every_phase(kind: Kind) {
    let node = Node::new("n", kind);
    let project = project(&[&node], "");
    let line = Line::to(node.port);
    rig::introduce_by(&project, &[&node], "root", &[line.port]);
    project.run("import").success();
    program(&project, "a", "before");
    line.downward();
    project.run("import").success();
    let whole = line.downward();
    for phase in 0..12 {
        program(&project, "a", &format!("phase {phase}"));
        line.hold(whole * phase / 12 + 1);
        let mut child = project.command(&["run", "import"]).stderr(Stdio::null()).spawn().unwrap();
        line.wait();
        interrupt(&child);
        let began = Instant::now();
        let code = child.wait().unwrap().code();
        assert_eq!(code, Some(130), "phase {phase}");
        assert!(began.elapsed() < Duration::from_secs(10), "phase {phase}: {:?}", began.elapsed());
        line.mend();
        node.quiet();
        no_name_is_wrong(&node);
        project.run("import").success();
        assert_eq!(runs(&node, &app("a")), format!("a phase {phase}\n"));
        assert_whole(&node);
        project.run("import").nothing();
    }
    // Also while it only looks whether there is anything to do.
    line.downward();
    project.run("import").nothing();
    let whole = line.downward();
    for phase in 0..4 {
        line.hold(whole * phase / 4 + 1);
        let mut child = project.command(&["run", "import"]).stderr(Stdio::null()).spawn().unwrap();
        line.wait();
        interrupt(&child);
        assert_eq!(child.wait().unwrap().code(), Some(130), "nothing to do, phase {phase}");
        line.mend();
        node.quiet();
        let ours = format!("vcbuild-ssh-{}-", child.id());
        let left = std::fs::read_dir("/tmp").unwrap().map(|entry| entry.unwrap().file_name());
        assert!(!left.into_iter().any(|name| name.to_string_lossy().starts_with(&ours)));
    }
}

fn sshd_that_is_killed_is_gone_on_with(kind: Kind) {
    let node = Node::new("n", kind);
    let project = project(&[&node], "");
    let line = Line::to(node.port);
    rig::introduce_by(&project, &[&node], "root", &[line.port]);
    line.hold_upward(3_000_000);
    let child = project.command(&["run", "import"]).stderr(Stdio::piped()).spawn().unwrap();
    line.wait();
    node.sh("kill -KILL $(pgrep -f '^sshd: root@')");
    line.mend();
    // It is asked again, and gets the rest.
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    node.quiet();
    assert_whole(&node);
    assert_eq!(runs(&node, &app("a")), "a one\n");
    project.run("import").nothing();
}

#[test]
fn a_disk_that_fills_up_meanwhile_leaves_nothing() {
    let node = Node::new("n", Kind::SmallContainerd);
    let project = project(&[&node], "");
    let line = Line::to(node.port);
    rig::introduce_by(&project, &[&node], "root", &[line.port]);
    line.hold_upward(3_000_000);
    let child = project.command(&["run", "import"]).stderr(Stdio::piped()).spawn().unwrap();
    line.wait();
    node.exec("dd if=/dev/zero of=/var/lib/containerd/filler bs=64k 2>/dev/null");
    line.release();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("`n` has no space left for images") || said.contains("free for images, and"),
        "{said}"
    );
    node.quiet();
    no_name_is_wrong(&node);
    node.sh("rm /var/lib/containerd/filler");
    project.run("import").success();
    assert_whole(&node);
    assert_eq!(names(&node).iter().filter(|(name, _)| name.contains(":vc-")).count(), 2);
    project.run("import").nothing();
}

with_both! {
    ctrl_c_at_every_phase
    sshd_that_is_killed_is_gone_on_with
}
