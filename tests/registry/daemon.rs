//! Imports into Docker's daemon and into Podman's service in its place, which are asked and read by docker and podman.

use super::{insecure, says};
use crate::support::Project;
use crate::support::daemons::{dockerd, podman_service};
use crate::support::registry::{Door, Registry, layout};

#[test]
fn a_daemon_gets_what_it_lacks() {
    let place = Project::new();
    let registry = Registry::start(&place.beside("registry"), Door::Open);
    let (_made, base) = layout("base", 200_000);
    registry.put(&base, "team/base:1", &["--dest-compress"]);
    let daemon = podman_service(&place.beside("podman"));
    let host = registry.host();
    let text = format!(
        r#"{}
[host.daemon]
docker = "{}"
[image.app]
base = "{host}/team/base:1"
files = [{{ from = "app", to = "/app" }}]
entrypoint = ["/app"]
tags = ["docker.io/team/app:1", "docker.io/team/app:latest"]
[image.other]
base = "image.app"
cmd = ["x"]
[import.all]
images = ["image.app", "image.other"]
hosts = "daemon"
"#,
        insecure(&[&host]),
        daemon.address()
    );
    let project = Project::new().config(&text).file("app", "the app\n");
    let done = project.run("").success();
    assert!(done.sent("import.all")["daemon"] > 200_000);
    let inspect = |name: &str, format: &str| {
        daemon.podman(&["image", "inspect", "--format", format, name]).trim().to_string()
    };
    let id = inspect("docker.io/team/app:1", "{{.Id}}");
    assert_eq!(inspect("docker.io/team/app:latest", "{{.Id}}"), id);
    assert_eq!(inspect("docker.io/team/app:1", "{{.Config.Entrypoint}}"), "[/app]");
    assert_ne!(daemon.podman(&["images", "-q"]).lines().count(), 0);
    let names = daemon.podman(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    assert!(
        names.contains("docker.io/team/app:vc-") && names.contains("vcbuild.local/test/other:vc-"),
        "{names}"
    );
    // What is in it comes out again.
    let mounted = daemon.podman(&["image", "mount", "docker.io/team/app:1"]);
    assert_eq!(std::fs::read_to_string(format!("{}/app", mounted.trim())).unwrap(), "the app\n");
    daemon.podman(&["image", "unmount", "docker.io/team/app:1"]);
    project.run("").nothing();
    // Only a name is gone; then an image.
    daemon.podman(&["untag", "docker.io/team/app:1", "docker.io/team/app:latest"]);
    let done = project.run("").success().did(&["import.all"]);
    assert_eq!(done.sent("import.all")["daemon"], 0);
    assert_eq!(inspect("docker.io/team/app:latest", "{{.Id}}"), id);
    daemon.podman(&["rmi", "-f", &id]);
    let done = project.run("").success().did(&["import.all"]);
    assert!(done.sent("import.all")["daemon"] > 200_000);
    assert_eq!(inspect("docker.io/team/app:1", "{{.Id}}"), id);
    drop(daemon);
    let done = project.run("").failure(3);
    says(&done, &["daemon deferred: `", "podman/socket`: "]);
}

#[test]
fn docker_loads_and_runs_what_is_saved_and_what_is_imported() {
    let place = Project::new();
    let daemon = dockerd(&place.beside("docker"));
    let runs = |name: &str| daemon.docker(&["run", "--rm", "--network", "none", name]);
    let greeting = "Hello, world, from a patched upstream.\n";
    let project = Project::hello();
    let archive = project.beside("images.tar");
    project.call(&format!("get save.docker -o {}", archive.display())).success();
    let said = daemon.docker(&["load", "-i", archive.to_str().unwrap()]);
    assert!(said.contains("Loaded image: example.com/hello/greet:1.0\n"), "{said}");
    assert_eq!(runs("example.com/hello/greet:1.0"), greeting);
    let id = daemon.docker(&["images", "-q", "--no-trunc", "example.com/hello/greet:1.0"]);
    daemon.docker(&["rmi", "-f", "example.com/hello/greet:1.0", "example.com/hello/clock:1.0"]);
    assert_eq!(daemon.docker(&["images", "-q"]), "");

    project.edit("vcbuild.toml", |text| {
        let import = "[import.daemon]\nimages = ['image.hello[*]']\nhosts = 'daemon'\n";
        format!("{text}\n[host.daemon]\ndocker = '{}'\n{import}", daemon.address())
    });
    project.run("import.daemon").success();
    assert_eq!(runs("example.com/hello/greet:1.0"), greeting);
    // Both ways it is the same image.
    assert_eq!(daemon.docker(&["images", "-q", "--no-trunc", "example.com/hello/greet:1.0"]), id);
    project.run("import.daemon").nothing();
}

#[test]
fn daemons_are_declared_with_a_socket() {
    for (host, words) in [
        ("docker = \"tcp://127.0.0.1:1\"", "`tcp://127.0.0.1:1` is not a socket"),
        ("docker = \"unix:///x\"\nlocal = \"x\"", "`docker`, `local` and `ssh` exclude each other"),
        ("docker = \"unix:///x\"\nsudo = true", "`sudo` is for machines, and `d` is a daemon here"),
    ] {
        let project = Project::new().config(&format!("[host.d]\n{host}\n"));
        says(&project.call("check").failure(2), &[words]);
    }
    let text =
        "[host.d]\ndocker = \"unix:///gone\"\n[upload.x]\nfrom = \"f\"\nhosts = \"d\"\nto = \"/f\"\n";
    let project = Project::new().config(text).file("f", "x");
    says(&project.run("").failure(1), &["`d` is a daemon, and has no files"]);
}
