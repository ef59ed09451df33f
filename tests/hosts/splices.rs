//! Layers of which a node has an older one: only what is new in them goes, and what comes out is held to its digest.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::IMAGES;
use crate::rig::{self, Kind, Node};
use crate::support::Project;
use crate::support::servers::Line;

const NAME: &str = "registry.example/team/app:1.0";
const SIZE: usize = 6_000_000;

/// Bytes that nothing compresses, with a word in their midst.
fn data(project: &Project, word: &str) {
    let mut state = 7_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    let mut bytes: Vec<u8> = (0..SIZE).map(|_| next()).collect();
    // What follows moves with the length of the word.
    bytes.splice(SIZE / 2..SIZE / 2, word.bytes());
    fs::write(project.path("data"), bytes).unwrap();
}

/// Holds the node to have what the project has.
#[track_caller]
fn assert_same(project: &Project, node: &Node) {
    let check = node.sh(&format!("ctr -n k8s.io images check name=={NAME}"));
    assert!(check.contains(" complete ") && check.trim_end().ends_with("true"), "{check}");
    node.sh(&format!(
        "mkdir -p /srv/look; ctr -n k8s.io images mount --snapshotter overlayfs {NAME} /srv/look"
    ));
    let wanted = fs::read(project.path("data")).unwrap();
    node.sh("cp /srv/look/data /srv/data; umount /srv/look; ctr -n k8s.io snapshots rm /srv/look; cp /srv/data /home/data");
    assert!(fs::read(node.path("home/data")).unwrap() == wanted, "another file is in the image");
    let names = node.sh("ctr -n k8s.io images ls -q");
    assert!(!names.contains("/staging"), "{names}");
    node.quiet();
}

fn sent(project: &Project) -> u64 {
    project.run("import").success().sent("import.nodes")["n"]
}

/// A node that has what the project has.
#[track_caller]
fn delivered(kind: Kind) -> (Node, Project) {
    let node = Node::new("n", kind);
    let project = Project::new().config(&format!("{}{IMAGES}", rig::hosts(&[&node], "")));
    rig::introduce(&project, &[&node], "root");
    data(&project, "one");
    sent(&project);
    (node, project)
}

fn planned(project: &Project) -> u64 {
    let events = project.beside("events.json");
    let plan = project.call_list(&["plan", "--events", events.to_str().unwrap(), "import"]).success();
    let plan = plan.events().iter().find(|event| event["event"] == "plan").unwrap().clone();
    plan["destinations"][0]["bytes_to_send"].as_u64().unwrap()
}

fn only_what_is_new_goes(kind: Kind) {
    let node = Node::new("n", kind);
    let project = Project::new().config(&format!("{}{IMAGES}", rig::hosts(&[&node], "")));
    let line = Line::to(node.port);
    rig::introduce_by(&project, &[&node], "root", &[line.port]);
    data(&project, "one");
    assert!(sent(&project) > SIZE as u64);
    // A word that is longer: of the layer some pieces go, and just as many bytes as were planned.
    data(&project, "two or three");
    let planned = planned(&project);
    assert!(planned < 200_000, "{planned}");
    line.upward();
    assert_eq!(sent(&project), planned);
    let wire = line.upward() as u64;
    assert!((planned..planned + 60_000).contains(&wire), "{wire} bytes went for {planned}");
    assert_same(&project, &node);
    project.run("import").nothing();
    // Another cache knows no older layer.
    fs::remove_dir_all(project.path("cache/v1/actions")).unwrap();
    data(&project, "four");
    assert!(sent(&project) > SIZE as u64);
    assert_same(&project, &node);
}

fn an_older_layer_that_is_damaged_or_gone_costs_only_time(kind: Kind) {
    let (node, project) = delivered(kind);
    let blobs = "/var/lib/containerd/io.containerd.content.v1.content/blobs/sha256";
    let layer = node.sh(&format!("ls -S {blobs} | head -n 1"));
    let layer = layer.trim();
    // Its size is right, its bytes are not.
    node.sh(&format!("printf XXXX | dd of={blobs}/{layer} bs=1 seek=100000 conv=notrunc 2>/dev/null"));
    data(&project, "two");
    assert!(sent(&project) > SIZE as u64);
    assert_same(&project, &node);
    // It is shorter than it was, so that what comes of it is cut off.
    let layers = node.sh(&format!("ls -S {blobs} | head -n 2"));
    node.sh(&format!("for n in $(ls -S {blobs} | head -n 2); do truncate -s 60000 {blobs}/$n; done"));
    data(&project, "a third one");
    assert!(sent(&project) > SIZE as u64);
    assert_same(&project, &node);
    assert_eq!(node.sh("ctr -n k8s.io content active | tail -n +2"), "");
    for name in layers.split_whitespace() {
        node.sh(&format!("ctr -n k8s.io content rm sha256:{name}"));
    }
    // It was thrown away once it was unpacked.
    node.sh(&format!("for n in $(ls -S {blobs} | head -n 2); do ctr -n k8s.io content rm sha256:$n; done"));
    data(&project, "three");
    assert!(sent(&project) > SIZE as u64);
    assert_same(&project, &node);
    project.run("import").nothing();
}

fn what_is_collected_meanwhile_is_not_ours(kind: Kind) {
    let (node, project) = delivered(kind);
    // Containerd collects all the time.
    let storm = "while [ -e /srv/storm ]; do ctr -n k8s.io leases create --id x; ctr -n k8s.io leases rm --sync x; done";
    node.sh(&format!("touch /srv/storm; ({storm}) >/dev/null 2>&1 </dev/null &"));
    for word in ["two", "three", "a fourth one", "five", "the sixth"] {
        data(&project, word);
        let sent = sent(&project);
        assert!(sent < 200_000, "{sent} bytes went for `{word}`");
    }
    node.sh("rm /srv/storm; while pgrep ctr >/dev/null; do sleep 0.05; done");
    assert_same(&project, &node);
    project.run("import").nothing();
}

fn what_was_begun_and_left_is_cleared_away(kind: Kind) {
    let (node, project) = delivered(kind);
    let active = || node.sh("ctr -n k8s.io content active | tail -n +2 | wc -l");
    let (one, two) = ("1".repeat(64), "2".repeat(64));
    begin(&node, &one);
    begin(&node, &two);
    // What others have begun is theirs.
    node.sh("ctr -n k8s.io content ingest --expected-size 5 other </dev/null || true");
    assert_eq!(active().trim(), "3");
    project.run("import").nothing();
    assert_eq!(active().trim(), "1");
    data(&project, "two");
    assert!(sent(&project) < 200_000);
    assert_same(&project, &node);
    assert_eq!(active().trim(), "1");
}

/// A node by whose programs nothing is safely placed is not asked to: all of it goes, as the plan says.
#[track_caller]
fn all_of_it_goes(spoil: &str) {
    let node = Node::new("n", Kind::Containerd);
    let project = Project::new().config(&format!("{}{IMAGES}", rig::hosts(&[&node], "")));
    rig::introduce(&project, &[&node], "root");
    node.sh(spoil);
    data(&project, "one");
    sent(&project);
    data(&project, "two");
    let (planned, sent) = (planned(&project), sent(&project));
    assert!(planned == sent && sent > SIZE as u64, "{sent} bytes went for {planned}");
    assert_same(&project, &node);
}

#[test]
fn where_two_could_place_at_once_nobody_does() {
    all_of_it_goes("mount --bind /dev/null /usr/bin/flock");
}

#[test]
fn where_head_takes_more_than_it_gives_nothing_is_placed() {
    // As that of busybox does.
    all_of_it_goes(
        r#"echo '#!/usr/bin/perl
           while ($ARGV[1] > 0) { last if !read STDIN, $b, $ARGV[1] < 9999 ? $ARGV[1] : 9999; print $b; $ARGV[1] -= length $b }' >/home/head
           chmod 755 /home/head; mount --bind /home/head /usr/bin/head"#,
    );
}

/// Begins an upload of ours and leaves it, with some bytes.
fn begin(node: &Node, digits: &str) {
    let name = format!("vcbuild.local/placing:{digits}");
    let ingests = "/var/lib/containerd/io.containerd.content.v1.content/ingest";
    node.sh(&format!(
        "ctr -n k8s.io content ingest --expected-digest sha256:{digits} --expected-size 9000000 {name} </dev/null || true
        file=$(grep -l {name} {ingests}/*/ref); head -c 70000 /dev/zero >${{file%ref}}data"
    ));
}

#[test]
fn who_may_not_write_there_is_not_stopped_by_what_was_left() {
    let node = Node::new("n", Kind::Containerd);
    let hosts = rig::hosts(&[&node], "ctr = ['sudo', 'ctr']");
    let project = Project::new().config(&format!("{hosts}{IMAGES}"));
    rig::introduce(&project, &[&node], "ops");
    data(&project, "one");
    sent(&project);
    // As older containerds make it.
    node.sh("chmod 711 /var/lib/containerd");
    begin(&node, &"1".repeat(64));
    data(&project, "two");
    assert!(sent(&project) > SIZE as u64);
    assert_same(&project, &node);
    // What is to be locked cannot be opened.
    node.sh("chmod 711 /run/containerd");
    data(&project, "three");
    assert!(sent(&project) > SIZE as u64);
    assert_same(&project, &node);
}

fn containerd_that_dies_meanwhile_is_said(kind: Kind) {
    let node = Node::new("n", kind);
    let project = Project::new().config(&format!("{}{IMAGES}", rig::hosts(&[&node], "")));
    let line = Line::to(node.port);
    rig::introduce_by(&project, &[&node], "root", &[line.port]);
    data(&project, "one");
    sent(&project);
    data(&project, &"x".repeat(1_000_000));
    line.hold_upward(500_000);
    let child = project.command(&["run", "import"]).stderr(Stdio::piped()).spawn().unwrap();
    line.wait();
    node.stop_containerd();
    let began = Instant::now();
    line.release();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("containerd on `n` does not answer at `/run/containerd/containerd.sock`"),
        "{said}"
    );
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    node.quiet();
    node.start_containerd();
    assert!(sent(&project) > 1_000_000);
    assert_same(&project, &node);
    assert_eq!(node.sh("ctr -n k8s.io content active | tail -n +2"), "");
}

#[test]
fn a_ctr_that_talks_takes_no_image_away() {
    let node = Node::new("n", Kind::Containerd);
    let project =
        Project::new().config(&format!("{}{IMAGES}", rig::hosts(&[&node], "ctr = ['/srv/talks']")));
    rig::introduce(&project, &[&node], "root");
    let talks = format!("#!/bin/sh\\necho I am looking after {NAME}\\nexec ctr \"$@\"\\n");
    node.sh(&format!("printf '{talks}' >/srv/talks; chmod 755 /srv/talks"));
    data(&project, "one");
    sent(&project);
    // What was cut off is cleared away; the image that is spoken of stays.
    node.sh(&format!("ctr -n k8s.io images tag {NAME} vcbuild.local/staging:left"));
    project.call("plan import").success();
    assert_same(&project, &node);
}

fn another_root_of_containerd_costs_only_time(kind: Kind) {
    let (node, project) = delivered(kind);
    // Its disk was too small: what is in the old place is of yesterday.
    node.stop_containerd();
    let config = node.path("containerd.toml").display().to_string();
    node.sh(&format!("cp -a /var/lib/containerd /home/root; sed -i '1i root = \"/home/root\"' {config}"));
    node.start_containerd();
    data(&project, "two");
    assert!(sent(&project) > SIZE as u64);
    assert_same(&project, &node);
    assert_eq!(node.sh("ctr -n k8s.io content active | tail -n +2"), "");
}

with_both! {
    what_is_collected_meanwhile_is_not_ours
    what_was_begun_and_left_is_cleared_away
    another_root_of_containerd_costs_only_time
    containerd_that_dies_meanwhile_is_said
    only_what_is_new_goes
    an_older_layer_that_is_damaged_or_gone_costs_only_time
}
