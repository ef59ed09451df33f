//! A full disk: the cache on a file system of a few MB. The message says so, nothing half-written stays,
//! and with more space the next run continues. Mounting needs root.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Project, folder};

/// A file system in memory, unmounted when dropped.
struct Small(PathBuf);

impl Small {
    fn mount(path: PathBuf, size: &str) -> Self {
        std::fs::create_dir_all(&path).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(&path);
        let done = mount.output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "a small disk needs a tmpfs, and that needs root: {said}");
        Self(path)
    }

    fn grow(&self, size: &str) {
        let done = Command::new("mount")
            .args(["-o", &format!("remount,size={size}")])
            .arg(&self.0)
            .status()
            .unwrap();
        assert!(done.success());
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // A detached child may still be syncing it.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Whatever of a cache has a name is whole.
fn assert_whole(project: &Project, cache: &Path) {
    project.call(&format!("cache verify --cache {}", cache.display())).success();
    assert_eq!(folder::files(&cache.join("v1/tmp")), Vec::<PathBuf>::new(), "something temporary was left");
}

#[test]
fn a_full_cache_is_said_and_the_next_run_continues() {
    let (project, clean) = (Project::hello(), Project::hello());
    let small = Small::mount(project.beside("small"), "2m");
    clean.run("").success();
    let project = project.options(&format!("--cache {}", small.0.display()));
    let done = project.run("").failure(1);
    assert!(done.stderr.to_lowercase().contains("no space left on device"), "{}", done.stderr);
    assert!(!done.stderr.contains("panicked"), "{}", done.stderr);
    small.grow("64m");
    assert_whole(&project, &small.0);
    project.run("").success();
    for place in ["nodes", "out"] {
        folder::assert_same(&project.path(place), &clean.path(place));
    }
    project.run("").nothing();
}

#[test]
fn a_cache_without_any_space() {
    let project = Project::hello();
    let small = Small::mount(project.beside("small"), "4k");
    let project = project.options(&format!("--cache {}", small.0.display()));
    let done = project.run("").failure(1);
    assert!(done.stderr.to_lowercase().contains("no space left on device"), "{}", done.stderr);
    small.grow("64m");
    project.run("").success();
}

#[test]
fn a_full_node_fails_alone_and_the_next_run_continues() {
    let (project, clean) = (Project::hello(), Project::hello());
    let small = Small::mount(project.path("nodes/node1"), "1m");
    clean.run("").success();
    let done = project.run("").failure(1);
    assert!(done.stderr.to_lowercase().contains("no space left on device"), "{}", done.stderr);
    let outcomes = done.event("import.nodes")["destinations"].as_array().unwrap().clone();
    assert_eq!((&outcomes[0]["outcome"], &outcomes[1]["outcome"]), (&"failed".into(), &"applied".into()));
    let index = project.path("nodes/node1/images/index.json");
    assert!(
        !index.exists() || !std::fs::read_to_string(index).unwrap().contains("vc-"),
        "a name without its content"
    );
    small.grow("64m");
    let again = project.run("").success();
    assert_eq!(again.sent("import.nodes")["node2"], 0);
    for place in ["nodes", "out"] {
        folder::assert_same(&project.path(place), &clean.path(place));
    }
}
