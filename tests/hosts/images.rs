//! Images in containerd on machines: only what is missing goes, and no name ever points at less than all.

use std::fs;
use std::process::Stdio;

use crate::rig::{self, Kind, Node};
use crate::support::Project;
use crate::support::servers::Line;

/// Two images over one base, and a program in each.
const IMAGES: &str = r#"
[image.base]
base  = "scratch"
files = [{ from = "base", to = "/" }]
[image.app]
matrix     = { part = ["a", "b"] }
base       = "image.base"
files      = [{ from = "app-{{ part }}", to = "/bin/app", mode = "0755" }]
entrypoint = ["/bin/app"]
tags       = ["registry.example/team/{{ part }}:1.0"]
[import.nodes]
images = ["image.app[*]"]
hosts  = "nodes"
"#;

/// A project with a base of 6 MB, and programs that say a word.
pub fn project(nodes: &[&Node], more: &str) -> Project {
    let project = Project::new().config(&format!("{}{IMAGES}", rig::hosts(nodes, more)));
    rig::introduce(&project, nodes, "root");
    fs::create_dir_all(project.path("base/lib")).unwrap();
    let mut state = 1_u64;
    let noise: Vec<u8> = (0..6_000_000)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect();
    fs::write(project.path("base/lib/noise"), noise).unwrap();
    for part in ["a", "b"] {
        program(&project, part, "one");
    }
    project
}

/// Compiles a program that prints a word.
pub fn program(project: &Project, part: &str, word: &str) {
    let source = project.beside("app.c");
    fs::write(&source, format!("#include <stdio.h>\nint main() {{ puts(\"{part} {word}\"); }}\n")).unwrap();
    let mut command = std::process::Command::new("cc");
    command.args(["-static", "-O1", "-o"]).arg(project.path(format!("app-{part}"))).arg(source);
    assert!(command.status().unwrap().success());
}

/// The names of our images on a node, with what they are given to.
pub fn names(node: &Node) -> Vec<(String, String)> {
    let text = node.sh("ctr -n k8s.io images ls");
    let row = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        (fields[0].to_string(), fields[2].to_string())
    };
    text.lines().skip(1).map(row).filter(|(name, _)| !name.starts_with("sha256:")).collect()
}

/// Holds a node to have whole images under all names, and nothing left over.
#[track_caller]
pub fn assert_whole(node: &Node) {
    let check = node.sh("ctr -n k8s.io images check");
    for line in check.lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        assert!(fields[3] == "complete" && *fields.last().unwrap() == "true", "{line}");
    }
    let staged: Vec<_> = names(node).into_iter().filter(|(name, _)| name.contains("/staging")).collect();
    assert!(staged.is_empty(), "{staged:?}");
    assert_eq!(node.sh("ctr -n k8s.io content active | tail -n +2"), "");
    assert_eq!(node.sh("ctr -n k8s.io leases ls -q"), "");
}

with_both! {
    only_missing_blobs_go_and_the_plan_says_so
    what_others_did_is_repaired
    layers_that_were_thrown_away_once_unpacked_are_not_sent_again
    cut_anywhere_the_next_run_completes
    two_runs_at_once_do_not_mix
    containerd_that_dies_is_said
    a_bundle_brings_the_same_names
}

/// What the program in an image prints when it runs there.
pub fn runs(node: &Node, tag: &str) -> String {
    let script = format!("ctr -n k8s.io run --rm --snapshotter overlayfs {tag} t$$");
    let said = node.exec(&script);
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    String::from_utf8(said.stdout).unwrap()
}

pub fn app(part: &str) -> String {
    format!("registry.example/team/{part}:1.0")
}

fn only_missing_blobs_go_and_the_plan_says_so(kind: Kind) {
    let (a, b) = (Node::new("n1", kind), Node::new("n2", kind));
    let project = project(&[&a, &b], "");
    let line = Line::to(a.port);
    rig::introduce_by(&project, &[&a, &b], "root", &[line.port, b.port]);
    let planned = |project: &Project| {
        let done = project.call_list(&[
            "plan",
            "--events",
            project.beside("events.json").to_str().unwrap(),
            "import",
        ]);
        let done = done.success();
        let plan = done.events().iter().find(|event| event["event"] == "plan").unwrap().clone();
        plan["destinations"][0]["bytes_to_send"].as_u64().unwrap()
    };
    let plan = planned(&project);
    assert!(plan > 6_000_000);
    line.upward();
    let done = project.run("import").success();
    assert_eq!(done.sent("import.nodes"), [("n1".to_string(), plan), ("n2".to_string(), plan)].into());
    let wire = line.upward() as u64;
    assert!((plan..plan + plan / 50 + 60_000).contains(&wire), "{wire} bytes went for {plan}");
    for node in [&a, &b] {
        assert_whole(node);
        let names = names(node);
        assert_eq!(names.len(), 6, "{names:#?}");
        let content: Vec<_> = names.iter().filter(|(name, _)| name.contains(":vc-")).collect();
        assert_eq!(content.len(), 2);
        for (name, digest) in content {
            assert!(
                names.contains(&(name.replace(name.split(':').nth(1).unwrap(), "1.0"), digest.clone()))
            );
            assert!(
                names.contains(&(format!("{}@{digest}", name.split(':').next().unwrap()), digest.clone()))
            );
            let labels = node.sh(&format!("ctr -n k8s.io images ls name=={name}"));
            assert!(labels.contains("io.cri-containerd.pinned=pinned"), "{labels}");
        }
        assert_eq!(runs(node, &app("a")), "a one\n");
    }
    // Nothing to do: not a blob goes.
    let wire_of_nothing = {
        line.upward();
        project.run("import").nothing();
        line.upward()
    };
    assert!(wire_of_nothing < 20_000, "{wire_of_nothing} bytes for nothing");
    // Another program: its layer, config and manifest.
    program(&project, "b", "two");
    let size = fs::metadata(project.path("app-b")).unwrap().len();
    let plan = planned(&project);
    assert!((size..size + 20_000).contains(&plan), "{plan} bytes for a program of {size}");
    line.upward();
    let done = project.run("import").success();
    assert_eq!(done.sent("import.nodes")["n1"], plan);
    let wire = line.upward() as u64;
    assert!((plan..plan + plan / 50 + 60_000).contains(&wire), "{wire} bytes went for {plan}");
    for node in [&a, &b] {
        assert_whole(node);
        assert_eq!((runs(node, &app("a")), runs(node, &app("b"))), ("a one\n".into(), "b two\n".into()));
        assert_eq!(names(node).len(), 8);
    }
    a.quiet();
}

fn what_others_did_is_repaired(kind: Kind) {
    let node = Node::new("n", kind);
    let project = project(&[&node], "sudo = true");
    rig::introduce(&project, &[&node], "ops");
    project.run("import").success();
    let before = names(&node);
    // A foreign image under our declared tag.
    let (one, other) = (app("a"), app("b"));
    node.sh(&format!("ctr -n k8s.io images rm {one} && ctr -n k8s.io images tag {other} {one}"));
    let done = project.run("import").success();
    assert_eq!(done.sent("import.nodes")["n"], 0);
    assert_eq!(names(&node), before);
    // Collected: no name, so no content.
    let mine: Vec<&str> =
        before.iter().map(|(name, _)| name.as_str()).filter(|name| name.contains("/a")).collect();
    let remove = |names: &[&str]| {
        node.sh(&format!(
            "ctr -n k8s.io images rm $(ctr -n k8s.io images ls -q | grep -E '{}') >/dev/null; \
             ctr -n k8s.io leases create --id x >/dev/null; ctr -n k8s.io leases rm --sync x >/dev/null",
            names.join("|")
        ));
    };
    let config = node.sh("ctr -n k8s.io images ls -q | grep ^sha256: || true");
    remove(&[mine.join("|").as_str(), config.trim().replace('\n', "|").as_str()]);
    let sent = project.run("import").success().sent("import.nodes")["n"];
    let size = fs::metadata(project.path("app-a")).unwrap().len();
    assert!((size..size + 30_000).contains(&sent), "{sent}");
    assert_whole(&node);
    // All of it.
    remove(&["."]);
    assert_eq!(node.sh("ctr -n k8s.io content ls -q"), "");
    let sent = project.run("import").success().sent("import.nodes")["n"];
    assert!(sent > 6_000_000);
    assert_whole(&node);
    assert_eq!(runs(&node, &app("a")), "a one\n");
    // A pin that somebody took away.
    let tag = before.iter().map(|(name, _)| name).find(|name| name.contains("a:vc-")).unwrap();
    node.sh(&format!("ctr -n k8s.io images label {tag} io.cri-containerd.pinned="));
    assert_eq!(project.run("import").success().sent("import.nodes")["n"], 0);
    // A label of somebody else with what some shells take for an order to print no more.
    node.sh(&format!(r"ctr -n k8s.io images label {tag} 'a=b\c'"));
    project.run("import").nothing();
    node.quiet();
}

fn layers_that_were_thrown_away_once_unpacked_are_not_sent_again(kind: Kind) {
    let node = Node::new("n", kind);
    let project = project(&[&node], "");
    project.run("import").success();
    let layer =
        node.sh("ls -S /var/lib/containerd/io.containerd.content.v1.content/blobs/sha256 | head -n 1");
    let layer = format!("sha256:{}", layer.trim());
    node.sh(&format!("ctr -n k8s.io content rm {layer}"));
    project.run("import").nothing();
    program(&project, "a", "two");
    let sent = project.run("import").success().sent("import.nodes")["n"];
    assert!(sent < 2_000_000, "{sent}");
    assert_eq!(runs(&node, &app("a")), "a two\n");
}

#[test]
fn a_node_that_joined_later_gets_its_images() {
    let (a, b) = (Node::new("n1", Kind::Containerd), Node::new("n2", Kind::Containerd));
    let project = project(&[&a], "");
    project.run("import").success();
    let config = format!("[project]\nname = \"test\"\n{}{IMAGES}", rig::hosts(&[&a, &b], ""));
    project.write("vcbuild.toml", &config);
    rig::introduce(&project, &[&a, &b], "root");
    let sent = project.run("import").success().sent("import.nodes");
    assert!(sent["n1"] == 0 && sent["n2"] > 6_000_000, "{sent:?}");
    assert_whole(&b);
}

#[test]
fn what_is_missing_is_said() {
    let (plain, full) = (Node::new("plain", Kind::Plain), Node::new("full", Kind::Containerd));
    let project = project(&[&plain, &full], "");
    // No containerd behind the socket on one, the other gets all of it.
    let done = project.run("import").failure(1);
    assert!(
        done.stderr.contains("containerd on `plain` does not answer at `/run/containerd/containerd.sock`"),
        "{}",
        done.stderr
    );
    assert!(done.stderr.contains("systemctl status containerd"), "{}", done.stderr);
    assert!(done.sent("import.nodes")["full"] > 6_000_000);
    // The declared tags wait for all.
    assert!(!names(&full).iter().any(|(name, _)| name.ends_with(":1.0")));
    project
        .edit("vcbuild.toml", |text| text.replacen("ssh_config", "ctr = ['no-such-ctr']\nssh_config", 1));
    let said = project.run("import").failure(1).stderr;
    assert!(said.contains("`plain` has no `no-such-ctr`"), "{said}");
    // Who is not root may not.
    rig::introduce(&project, &[&plain, &full], "ops");
    let said = project.run("import").failure(1).stderr;
    assert!(said.contains("containerd on `full` lets us not in") || said.contains("and 1 more"), "{said}");
    let table = project.call("hosts").failure(1).text();
    assert!(table.contains("full") && table.contains("x86_64"), "{table}");
    let doctor = project.call("doctor").failure(1).text();
    assert!(
        doctor.contains("full: wrong: containerd at `/run/containerd/containerd.sock` is for root only"),
        "{doctor}"
    );
    rig::introduce(&project, &[&plain, &full], "root");
    let doctor = project.call("doctor").success().text();
    assert!(doctor.contains("plain: note: there is no `no-such-ctr`"), "{doctor}");
    assert!(doctor.contains("full: note: containerd 1.6.20~ds1 tells kubelet of no pins"), "{doctor}");
    let table = project.call("hosts").success().text();
    assert!(table.contains("1.6.20~ds1") && table.contains("overlayfs"), "{table}");
    full.quiet();
}

fn cut_anywhere_the_next_run_completes(kind: Kind) {
    let mut node = Node::new("n", kind);
    let project = project(&[&node], "");
    let line = Line::to(node.port);
    rig::introduce_by(&project, &[&node], "root", &[line.port]);
    for (round, limit) in [9_000, 12_000, 400_000, 3_000_000, 6_300_000, 7_700_000].into_iter().enumerate()
    {
        program(&project, "a", &format!("round {round}"));
        node.sh(
            "for n in $(ctr -n k8s.io images ls -q); do ctr -n k8s.io images rm --sync $n >/dev/null; done",
        );
        line.hold_upward(limit);
        let mut child = project.command(&["run", "import"]).stderr(Stdio::null()).spawn().unwrap();
        let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while line.held() == 0 && child.try_wait().unwrap().is_none() && std::time::Instant::now() < end {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        // Whatever there is now has no name but a staging one, or is whole.
        match round % 3 {
            0 => {
                child.kill().unwrap();
                line.mend();
            }
            1 => {
                rustix::process::kill_process(
                    rustix::process::Pid::from_child(&child),
                    rustix::process::Signal::INT,
                )
                .unwrap();
                line.mend();
            }
            _ => {
                node.kill();
                line.mend();
                node.start();
            }
        }
        child.wait().unwrap();
        node.quiet();
        for (name, _) in names(&node) {
            assert!(
                name.contains("/staging")
                    || name.contains("vc-")
                    || name.contains('@')
                    || name.ends_with(":1.0"),
                "{name}"
            );
        }
        let check = node.sh("ctr -n k8s.io images check");
        for line in check.lines().skip(1).filter(|line| line.contains("registry.example/team/a")) {
            assert!(line.contains("complete"), "{line}");
        }
        project.run("import").success();
        let round = format!("a round {round}\n");
        assert_eq!(runs(&node, &app("a")), round);
        let staged: Vec<_> =
            names(&node).into_iter().filter(|(name, _)| name.contains("/staging")).collect();
        assert!(staged.is_empty(), "{staged:?}");
        project.run("import").nothing();
    }
}

fn two_runs_at_once_do_not_mix(kind: Kind) {
    let node = Node::new("n", kind);
    let (one, two) = (project(&[&node], ""), project(&[&node], ""));
    program(&two, "b", "other");
    let start =
        |project: &Project| project.command(&["run", "import"]).stderr(Stdio::piped()).spawn().unwrap();
    let (first, second) = (start(&one), start(&two));
    for child in [first, second] {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_whole(&node);
    // Both have their content; the declared tag is of who was last.
    assert_eq!(names(&node).iter().filter(|(name, _)| name.contains(":vc-")).count(), 3);
    assert!(["b one\n", "b other\n"].contains(&runs(&node, &app("b")).as_str()));
}

fn containerd_that_dies_is_said(kind: Kind) {
    let node = Node::new("n", kind);
    let project = project(&[&node], "");
    let line = Line::to(node.port);
    rig::introduce_by(&project, &[&node], "root", &[line.port]);
    line.hold_upward(3_000_000);
    let child = project.command(&["run", "import"]).stderr(Stdio::piped()).spawn().unwrap();
    line.wait();
    node.stop_containerd();
    line.release();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("containerd on `n` "), "{said}");
    let said = project.run("import").failure(1).stderr;
    assert!(
        said.contains("containerd on `n` does not answer at `/run/containerd/containerd.sock`"),
        "{said}"
    );
    node.quiet();
    node.start_containerd();
    assert!(names(&node).iter().all(|(name, _)| name.contains("/staging")), "{:?}", names(&node));
    project.run("import").success();
    assert_eq!(runs(&node, &app("a")), "a one\n");
    assert!(!names(&node).iter().any(|(name, _)| name.contains("/staging")));
    project.run("import").nothing();
}

#[test]
fn a_disk_without_space_is_said_before_it_is_full() {
    let node = Node::new("n", Kind::SmallContainerd);
    let project = project(&[&node], "");
    fs::write(project.path("base/lib/more"), vec![7; 12_000_000]).unwrap();
    let said = project.run("import").failure(1).stderr;
    assert!(said.contains(" MB free for images, and 39."), "{said}");
    assert_eq!(names(&node), []);
    let doctor = project.call("doctor").failure(1).text();
    assert!(doctor.contains(" MB are free, and the images that it lacks take 39."), "{doctor}");
    let table = project.call("hosts").failure(1).text();
    assert!(table.contains("findings: `vcbuild doctor`"), "{table}");
    fs::remove_file(project.path("base/lib/more")).unwrap();
    project.run("import").success();
    assert_eq!(runs(&node, &app("a")), "a one\n");
    assert_whole(&node);
    let doctor = project.call("doctor").failure(1).text();
    assert!(doctor.contains("n: wrong: only ") && doctor.contains(" MB are free for images"), "{doctor}");
}

fn a_bundle_brings_the_same_names(kind: Kind) {
    let node = Node::new("n", kind);
    let project = project(&[&node], "");
    project.call("bundle import -o images.sh").success();
    let target = node.path("home/images.sh");
    fs::copy(project.path("images.sh"), &target).unwrap();
    // Twice at once, as two who are in a hurry would: they take turns.
    node.sh("sh /home/images.sh & first=$!; sh /home/images.sh; wait $first");
    assert_whole(&node);
    assert_eq!(runs(&node, &app("b")), "b one\n");
    // An import finds all of it there.
    assert_eq!(project.run("import").success().did(&[]).sent("import.nodes")["n"], 0);
    // A file that is damaged is refused, and imports nothing.
    let mut bytes = fs::read(&target).unwrap();
    let last = bytes.len() - 1_000_000;
    bytes[last] ^= 1;
    fs::write(&target, bytes).unwrap();
    let said = node.exec("sh /home/images.sh ctr --address /run/containerd/containerd.sock");
    assert!(String::from_utf8_lossy(&said.stderr).contains("it is damaged"), "{said:?}");
    project.call("bundle image.base -o x").failure(1);
}
