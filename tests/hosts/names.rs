//! `hosts --images`: which names hosts have of our images, and which of them nobody wants any more.

use std::fs;

use super::IMAGES;
use crate::rig::{self, Kind, Node};
use crate::support::Project;

/// The rows of the table, without what differs from run to run.
fn rows(text: &str) -> Vec<Vec<String>> {
    text.lines()
        .skip(1)
        .map(|line| {
            line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_string).collect()
        })
        .collect()
}

#[test]
fn names_are_wanted_or_old() {
    let (one, mut two) = (Node::new("one", Kind::Containerd), Node::new("two", Kind::Containerd2));
    let project = Project::new().config(&format!("{}{IMAGES}", rig::hosts(&[&one, &two], "")));
    rig::introduce(&project, &[&one, &two], "root");
    fs::write(project.path("data"), "one").unwrap();
    let before = project.call("hosts --images").success().text();
    assert!(before.contains("note: what `import.nodes` wants is not known before it has run"), "{before}");
    project.run("import").success();
    fs::write(project.path("data"), "two").unwrap();
    project.run("import").success();
    // Somebody else's: a content tag of another project, and what nobody looks at.
    one.sh("n=$(ctr -n k8s.io images ls -q | grep app:vc- | head -n 1); \
            ctr -n k8s.io images tag $n registry.example/other/app:vc-0123456789abcdef >/dev/null; \
            ctr -n k8s.io images tag $n registry.example/other/app:latest >/dev/null");
    let text = project.call("hosts --images").success().text();
    let found = rows(&text);
    let states = |host: &str| {
        let mut states: Vec<(String, String, String)> = found
            .iter()
            .filter(|row| row[0] == host)
            .map(|row| (row[1].split(':').next().unwrap().to_string(), row[3].clone(), row[4].clone()))
            .collect();
        states.sort();
        states
    };
    let row = |name: &str, pin: &str, state: &str| (name.to_string(), pin.to_string(), state.to_string());
    let ours = "registry.example/team/app";
    let mine = [row(ours, "-", "wanted"), row(ours, "pinned", "old"), row(ours, "pinned", "wanted")];
    assert_eq!(states("two"), mine, "{text}");
    let theirs = states("one").into_iter().find(|row| row.0.contains("/other/")).unwrap();
    assert_eq!(theirs.2, "not of this project", "{text}");
    assert_eq!(states("one").len(), 4, "{text}");
    assert!(text.contains(" KiB") && text.contains("2 old names that nobody here wants"), "{text}");
    // A foreign image under our declared name, and a content tag that is gone.
    one.sh("n=$(ctr -n k8s.io images ls -q | grep team/app:vc- ); \
            for i in $n; do ctr -n k8s.io images tag --force $i registry.example/team/app:1.0 >/dev/null; done");
    two.kill();
    let done = project.call("hosts --images --json").failure(3);
    let events: Vec<serde_json::Value> =
        done.text().lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert_eq!(events.len(), 2, "{}", done.text());
    let of = |host: &str| events.iter().find(|event| event["host"] == host).unwrap();
    assert_eq!(
        (of("two")["outcome"].as_str(), of("one")["outcome"].as_str()),
        (Some("deferred"), Some("ok"))
    );
    assert!(of("two")["error"].as_str().unwrap().contains("onnection refused"), "{}", of("two"));
    let images = of("one")["images"].as_array().unwrap();
    assert!(images.iter().any(|image| image["state"] == "old" && image["pinned"] == true), "{images:?}");
    let wanted = images
        .iter()
        .find(|image| image["state"] == "wanted" && image["name"].as_str().unwrap().contains(":vc-"))
        .unwrap();
    one.sh(&format!("ctr -n k8s.io images rm {} >/dev/null", wanted["name"].as_str().unwrap()));
    let text = project.call("hosts --images").failure(3).text();
    assert!(text.contains("missing") && text.contains("two"), "{text}");
    let lines = text.lines().count();
    // Looking changes nothing.
    assert_eq!(project.call("hosts --images").failure(3).text().lines().count(), lines);
    one.quiet();
}
