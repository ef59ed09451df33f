//! `examples/hello`, as a new user meets it: the whole chain, then again, then one thing changed or lost
//! at a time. What stands on nodes and cluster is compared byte for byte with a clean build.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use snapbox::str;

use crate::support::{Project, folder};

/// Every task of the example.
const ALL: [&str; 12] = [
    "clone.source",
    "patch.patched",
    "compile.bin[clock]",
    "compile.bin[greet]",
    "fetch.settings",
    "image.hello[clock]",
    "image.hello[greet]",
    "save.docker",
    "save.oci",
    "upload.archives",
    "import.nodes",
    "deploy.hello",
];

/// The first patch with another greeting.
fn greet_otherwise(patch: &str) -> String {
    patch.replace("Hello, %s, from a patched upstream.", "Welcome, %s.")
}

/// The first patch with a comment more in the C source.
fn comment(patch: &str) -> String {
    let patch = patch.replace("@@ -27,6 +27,6 @@", "@@ -27,6 +27,7 @@");
    patch.replace("-\tprintf", "+\t/* Users asked for this. */\n-\tprintf")
}

/// Holds everything that left vcbuild to be the same in two projects.
#[track_caller]
fn assert_same_places(one: &Project, other: &Project) {
    for place in ["nodes", "out"] {
        folder::assert_same(&one.path(place), &other.path(place));
    }
}

/// The blobs of a node, by name.
fn blobs(project: &Project, node: &str) -> BTreeSet<PathBuf> {
    folder::files(&project.path("nodes").join(node).join("images/blobs")).into_iter().collect()
}

#[test]
fn the_whole_chain() {
    let project = Project::hello();
    let lock = project.read("vcbuild.lock");
    let done = project.run("deploy").success().did(&ALL);
    assert_eq!(project.read("vcbuild.lock"), lock, "the pin was there");
    assert_eq!(done.sent("import.nodes")["node1"], done.sent("import.nodes")["node2"]);
    folder::assert_same(&project.path("nodes/node1"), &project.path("nodes/node2"));
    let layout =
        format!("oci:{}:example.com/hello/greet:1.0", project.path("nodes/node1/images").display());
    let copied = project.beside("greet.tar");
    let to = format!("docker-archive:{}", copied.display());
    let mut skopeo = Command::new("skopeo");
    let output = skopeo.args(["--insecure-policy", "copy", &layout, &to]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    project.call("get compile.bin[greet] -o greet").success();
    let said = Command::new(project.path("greet")).stdin(std::process::Stdio::null()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&said.stdout), "Hello, nobody, from a patched upstream.\n");
}

#[test]
fn again_nothing_runs_and_one_line_says_so() {
    let project = Project::hello();
    let first = project.call("run deploy").success();
    for _ in 0..3 {
        first
            .again()
            .success()
            .stderr(str![[r#"
nothing to do: 12 tasks up to date ([TIME])

"#]])
            .stdout(str![""]);
    }
}

#[test]
fn the_same_without_a_target_and_by_the_name_of_the_task() {
    let project = Project::hello();
    project.run("").success().did(&ALL);
    project.run("deploy.hello").success().did(&[]).nothing();
    project.run("hello").failure(2);
}

#[test]
fn a_comment_runs_patch_and_compile_and_touches_no_destination() {
    let project = Project::hello();
    project.run("deploy").success();
    let before = (folder::contents(&project.path("nodes")), folder::contents(&project.path("out")));
    project.edit("patches/0001-greeting.patch", comment);
    let done =
        project.run("deploy").success().did(&["patch.patched", "compile.bin[greet]"]).stderr(str![[r#"
     ran patch.patched  [TIME]  `patches/0001-greeting.patch` changed
     ran compile.bin[greet]  [TIME]  `src/greet.c` changed in `tree`; same output: nothing after it has to run
done: 2 ran, 10 up to date ([TIME])

"#]]);
    assert_eq!(done.event("compile.bin[greet]")["cut_off"], true);
    assert_eq!(done.event("import.nodes")["outcome"], "unchanged");
    let after = (folder::contents(&project.path("nodes")), folder::contents(&project.path("out")));
    assert!(before == after, "a destination was touched");
    project.run("deploy").nothing();
}

#[test]
fn the_text_of_a_patch_runs_patch_alone() {
    let project = Project::hello();
    project.run("deploy").success();
    project.edit("patches/0001-greeting.patch", |patch| format!("Said better.\n{patch}"));
    let done = project.run("deploy").success().did(&["patch.patched"]);
    assert_eq!(done.event("patch.patched")["cut_off"], true);
    assert_eq!(done.event("patch.patched")["why"], "`patches/0001-greeting.patch` changed");
}

#[test]
fn one_program_changed_ships_its_layer_config_and_manifest() {
    let project = Project::hello();
    project.run("deploy").success();
    let before = blobs(&project, "node1");
    let objects = folder::contents(&project.path("out/cluster/objects"));
    project.edit("patches/0001-greeting.patch", greet_otherwise);
    let done = project.run("deploy").success().did(&[
        "patch.patched",
        "compile.bin[greet]",
        "image.hello[greet]",
        "save.docker",
        "save.oci",
        "upload.archives",
        "import.nodes",
        "deploy.hello",
    ]);
    for node in ["node1", "node2"] {
        let now = blobs(&project, node);
        let new: Vec<_> = now.difference(&before).collect();
        assert_eq!(new.len(), 3, "a layer, a config and a manifest: {new:?}");
        let blobs = project.path("nodes").join(node).join("images/blobs");
        let size: u64 = new.iter().map(|name| blobs.join(name).metadata().unwrap().len()).sum();
        assert_eq!(done.sent("import.nodes")[node], size);
        assert!(done.stderr.contains(&format!("{node} ")), "{}", done.stderr);
    }
    let now = folder::contents(&project.path("out/cluster/objects"));
    let changed: Vec<_> =
        now.iter().filter(|(name, content)| objects.get(*name) != Some(content)).collect();
    let names: Vec<_> = changed.iter().map(|(name, _)| name.display().to_string()).collect();
    assert_eq!(names, ["hello/Deployment.apps/greet.yaml"]);
    assert_eq!(now.len(), objects.len());
    let clean = Project::hello();
    clean.edit("patches/0001-greeting.patch", greet_otherwise);
    clean.run("deploy").success();
    folder::assert_same(&project.path("out/cluster/objects"), &clean.path("out/cluster/objects"));
    folder::assert_same(&project.path("nodes/node1/files"), &clean.path("nodes/node1/files"));
}

#[test]
fn one_node_deleted_is_filled_again_and_no_other() {
    let project = Project::hello();
    project.run("deploy").success();
    let before = folder::contents(&project.path("nodes"));
    project.remove("nodes/node1");
    let done = project.run("deploy").success().did(&["import.nodes", "upload.archives"]);
    for task in ["import.nodes", "upload.archives"] {
        assert!(done.sent(task)["node1"] > 0);
        assert_eq!(done.sent(task)["node2"], 0);
        let outcomes: Vec<_> = done.event(task)["destinations"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| &one["outcome"])
            .collect();
        assert_eq!(outcomes, ["applied", "unchanged"]);
    }
    assert!(folder::contents(&project.path("nodes")) == before);
}

#[test]
fn one_object_deleted_is_applied_again() {
    let project = Project::hello();
    project.run("deploy").success();
    let before = folder::contents(&project.path("out/cluster/objects"));
    project.remove("out/cluster/objects/hello/Service/greet.yaml");
    project.run("deploy").success().did(&["deploy.hello"]);
    assert!(folder::contents(&project.path("out/cluster/objects")) == before);
}

#[test]
fn an_object_gone_from_the_templates_is_pruned() {
    let project = Project::hello();
    project.run("deploy").success();
    project.remove("templates/30-service.yaml");
    project.run("deploy").success().did(&["deploy.hello"]);
    assert!(!project.path("out/cluster/objects/hello/Service/greet.yaml").exists());
    assert!(project.path("out/cluster/objects/hello/Deployment.apps/greet.yaml").exists());
}

/// Damages every file of the cache, one at a time. Each time a run that needs no bytes stays a no-op
/// (the stamps and the memo may be what was damaged: then it looks again, and still does nothing), and a
/// run that needs them gives a node exactly what a clean build gives it.
fn damaged_everywhere(damage: folder::Damage) {
    let (project, clean) = (Project::hello(), Project::hello());
    clean.run("deploy").success();
    project.run("deploy").success();
    project.run("deploy").nothing();
    let mut looked_at = 0;
    for name in folder::files(&project.path("cache")) {
        let path = project.path("cache").join(&name);
        if !path.is_file() {
            continue;
        }
        looked_at += 1;
        folder::damage(&path, damage);
        let idle = project.run("deploy").success();
        // Without the memo keys are made anew, from tree nodes that were damaged before.
        let looks = ["v1/memo", "v1/actions"].iter().any(|part| name.starts_with(part));
        assert!(looks || idle.stderr.starts_with("nothing to do"), "{name:?}: {}", idle.stderr);
        assert!(!idle.stderr.contains("applied"), "{name:?}: {}", idle.stderr);
        project.remove("nodes/node1");
        let done = project.run("deploy");
        assert!(done.stderr.contains("applied import.nodes"), "{name:?}: {}", done.stderr);
        done.success();
        assert_same_places(&project, &clean);
    }
    assert!(looked_at > 50, "only {looked_at} files in the cache");
    // And all sources, compiled again from what is left.
    for one in [&project, &clean] {
        one.edit("patches/0001-greeting.patch", greet_otherwise);
        one.run("deploy").success();
    }
    folder::assert_same(&project.path("nodes/node1/files"), &clean.path("nodes/node1/files"));
}

#[test]
fn each_file_of_the_cache_deleted() {
    damaged_everywhere(folder::Damage::Deleted);
}

#[test]
fn each_file_of_the_cache_with_one_bit_flipped() {
    damaged_everywhere(folder::Damage::Flipped);
}

#[test]
fn each_part_of_the_cache_deleted() {
    let (project, clean) = (Project::hello(), Project::hello());
    clean.run("deploy").success();
    project.run("deploy").success();
    for part in ["cas", "stamps", "runs", "git", "work", "memo", "actions", "", "cas"] {
        let _ = std::fs::remove_dir_all(project.cache(part));
        let idle = project.run("deploy").success();
        if !["memo", "actions", ""].contains(&part) {
            idle.nothing();
        }
        project.remove("nodes/node1");
        project.run("deploy").success();
        assert_same_places(&project, &clean);
    }
}

#[test]
fn all_content_torn_and_then_a_source_edited() {
    let (project, clean) = (Project::hello(), Project::hello());
    project.run("deploy").success();
    for name in folder::files(&project.cache("cas")) {
        folder::damage(&project.cache("cas").join(name), folder::Damage::Torn);
    }
    project.run("deploy").nothing();
    for one in [&project, &clean] {
        one.edit("patches/0001-greeting.patch", greet_otherwise);
        one.run("deploy").success();
    }
    folder::assert_same(&project.path("nodes/node1/files"), &clean.path("nodes/node1/files"));
    folder::assert_same(&project.path("out/cluster/objects"), &clean.path("out/cluster/objects"));
}

#[test]
fn a_cache_that_moved_is_all_hits() {
    let project = Project::hello();
    project.run("deploy").success();
    std::fs::rename(project.path("cache"), project.beside("elsewhere")).unwrap();
    let project = project.options("--cache ../elsewhere");
    project.run("deploy").success().did(&[]).nothing();
    project.remove("nodes/node2");
    project.run("deploy").success().did(&["import.nodes", "upload.archives"]);
}

#[test]
fn a_project_copied_elsewhere_hits_in_the_same_cache() {
    let project = Project::hello();
    project.run("deploy").success();
    let copy = Project::hello();
    let cache = project.path("cache");
    let copy = copy.options(&format!("--cache {}", Path::new(&cache).display()));
    copy.run("deploy").success().did(&["import.nodes", "upload.archives", "deploy.hello"]);
    assert_same_places(&project, &copy);
    copy.run("deploy").nothing();
}

#[test]
fn a_project_copied_whole_with_its_cache_has_nothing_to_do() {
    let (project, copy) = (Project::hello(), Project::new());
    project.run("deploy").success();
    folder::copy(&project.root(), &copy.root());
    drop(project);
    copy.run("deploy").success().did(&[]).nothing();
    copy.edit("patches/0001-greeting.patch", comment);
    copy.run("deploy").success().did(&["patch.patched", "compile.bin[greet]"]);
}
