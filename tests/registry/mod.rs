//! Images from and to real registries: Debian's docker-registry, open, with passwords, with TLS, and behind a
//! line that misbehaves in every way that lines and registries do; distribution 3, and the one within crane.

mod archives;
mod daemon;
mod hostile;
mod makes;
mod pull;
mod push;
mod referrers;
mod urls;

use std::process::Command;

use serde_json::Value;

use crate::support::registry::Registry;
use crate::support::{Done, Project};

/// A project with an image on a base, and this much about registries.
fn on(base: &str, registries: &str) -> Project {
    let text = format!(
        "{registries}\n[image.app]\nbase = \"{base}\"\nfiles = [{{ from = \"app\", to = \"/app\" }}]\n\
         entrypoint = [\"/app\"]\ntags = [\"r.example/app:1\"]\n"
    );
    Project::new().config(&text).file("app", "the app\n")
}

fn insecure(hosts: &[&str]) -> String {
    hosts.iter().map(|host| format!("[registry.\"{host}\"]\ninsecure = true\n")).collect()
}

#[track_caller]
fn says(done: &Done<'_>, words: &[&str]) {
    for words in words {
        assert!(done.stderr.contains(words), "not `{words}` in:\n{}", done.stderr);
    }
}

/// The manifest of an image in a layout, as skopeo reads it; all its blobs are checked.
fn read_layout(project: &Project, task: &str) -> Value {
    let _ = std::fs::remove_dir_all(project.path("got"));
    project.call_list(&["get", task, "-o", "got"]).success();
    let inspect = Command::new("skopeo")
        .args(["inspect", "--raw", &format!("oci:{}", project.path("got").display())])
        .output()
        .unwrap();
    assert!(inspect.status.success(), "{}", String::from_utf8_lossy(&inspect.stderr));
    // A copy reads and verifies every blob.
    let copy = Command::new("skopeo")
        .args(["copy", "-q", "--insecure-policy", &format!("oci:{}", project.path("got").display())])
        .arg(format!("dir:{}", project.beside("copy").display()))
        .output()
        .unwrap();
    assert!(copy.status.success(), "{}", String::from_utf8_lossy(&copy.stderr));
    serde_json::from_slice(&inspect.stdout).unwrap()
}

/// The digests of a manifest's layers.
fn layers(manifest: &Value) -> Vec<String> {
    let all = manifest["layers"].as_array().unwrap();
    all.iter().map(|layer| layer["digest"].as_str().unwrap().to_string()).collect()
}

/// The digest in the lock.
fn pinned(project: &Project) -> String {
    let lock = project.read("vcbuild.lock");
    let line = lock.lines().find(|line| line.starts_with("digest")).unwrap();
    line.split('"').nth(1).unwrap().to_string()
}

/// The manifest of a tag in a registry.
fn manifest(registry: &Registry, path: &str, tag: &str) -> Value {
    registry.document(path, tag).0
}
