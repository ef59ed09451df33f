//! Bases that are archives, or that daemons give as such: written by skopeo, podman and containerd.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{layers, on, pinned, read_layout, says};
use crate::support::Project;
use crate::support::daemons::{containerd, podman_service};
use crate::support::registry::layout;

fn skopeo(from: &Path, to: &str, options: &[&str]) {
    let mut command = Command::new("skopeo");
    command.args(["copy", "-q", "--insecure-policy"]).args(options).arg(format!("oci:{}", from.display()));
    let output = command.arg(to).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn gzip(path: &Path, to: &Path) {
    let mut writer =
        flate2::write::GzEncoder::new(fs::File::create(to).unwrap(), flate2::Compression::fast());
    std::io::copy(&mut fs::File::open(path).unwrap(), &mut writer).unwrap();
    writer.finish().unwrap();
}

fn zstd(path: &Path, to: &Path) {
    zstd::stream::copy_encode(fs::File::open(path).unwrap(), fs::File::create(to).unwrap(), 1).unwrap();
}

#[test]
fn archives_of_every_form() {
    let (made, layout) = layout("base", 200_000);
    let diff_ids = layers(&read_layout(&made, "image.base"));
    for (form, options) in [
        ("docker-archive", &[][..]),
        ("oci-archive", &[]),
        ("oci-archive", &["--dest-compress"]),
        ("oci-archive", &["--dest-compress-format", "zstd", "--dest-compress"]),
    ] {
        let project = on("archive:base.tar", "");
        let name = if form == "docker-archive" { ":docker.io/team/base:1" } else { "" };
        let plain = project.path("plain.tar");
        skopeo(&layout, &format!("{form}:{}{name}", plain.display()), options);
        let mut pins = Vec::new();
        for outside in ["none", "gzip", "zstd"] {
            let base = project.path("base.tar");
            match outside {
                "none" => drop(fs::copy(&plain, &base).unwrap()),
                "gzip" => gzip(&plain, &base),
                _ => zstd(&plain, &base),
            }
            let _ = fs::remove_dir_all(project.root().join("cache"));
            let _ = fs::remove_file(project.path("vcbuild.lock"));
            project.run("").success().did(&["image.app"]);
            // Documents only: the layers are taken when they are needed.
            assert!(crate::support::folder::files(&project.cache("cas/sha256")).len() <= 2);
            pins.push(pinned(&project));
            let got = read_layout(&project, "image.app");
            assert_eq!(got["layers"].as_array().unwrap().len(), 3);
            if form == "docker-archive" {
                assert_eq!(layers(&got)[..2], diff_ids);
            }
            fs::remove_dir_all(project.cache("cas/sha256")).unwrap();
            read_layout(&project, "image.app");
        }
        pins.dedup();
        assert_eq!(pins.len(), 1, "what packs the whole is not in the image");
    }
}

#[test]
fn another_archive_needs_an_update() {
    let (_made, first) = layout("first", 1000);
    let (_made, second) = layout("second", 1000);
    let project = on("archive:base.tar", "");
    let to = format!("oci-archive:{}", project.path("base.tar").display());
    skopeo(&first, &to, &[]);
    project.run("").success();
    fs::remove_file(project.path("base.tar")).unwrap();
    skopeo(&second, &to, &[]);
    let done = project.call("get image.app -o got").failure(1);
    says(&done, &["base.tar` is not the pinned image any more", "`vcbuild update` moves the pin"]);
    let said = project.call("update").success().text();
    assert!(said.contains(" -> sha256:"), "{said}");
    project.run("").success().did(&["image.app"]);
    read_layout(&project, "image.app");
}

#[test]
fn what_is_no_archive() {
    let project = on("archive:base.tar", "");
    says(&project.run("").failure(1), &["base.tar`: no such file"]);
    fs::write(project.path("base.tar"), [0x1f, 0x8b, 8, 0, 1, 2, 3]).unwrap();
    says(&project.run("").failure(1), &["it cannot be unpacked"]);
    fs::write(project.path("base.tar"), vec![b'x'; 4096]).unwrap();
    says(&project.run("").failure(1), &["the tar is damaged"]);
    let tar = Command::new("tar").args(["-cf", "base.tar", "app"]).current_dir(project.root()).status();
    assert!(tar.unwrap().success());
    says(&project.run("").failure(1), &["it is no archive of images", "`docker save`"]);
    // Names that lead out of the archive lead nowhere.
    fs::write(project.path("manifest.json"), r#"[{"Config":"../../../etc/passwd","Layers":[]}]"#).unwrap();
    let tar =
        Command::new("tar").args(["-cf", "base.tar", "manifest.json"]).current_dir(project.root()).status();
    assert!(tar.unwrap().success());
    says(&project.run("").failure(1), &["the archive has no `../../../etc/passwd`"]);
}

#[test]
fn a_daemon_gives_a_base() {
    let (_made, layout) = layout("base", 100_000);
    let place = Project::new();
    let daemon = podman_service(&place.beside("podman"));
    let archive = place.path("base.tar");
    skopeo(&layout, &format!("docker-archive:{}:docker.io/team/base:1", archive.display()), &[]);
    daemon.podman(&["load", "-q", "-i", archive.to_str().unwrap()]);
    let project = on("docker-daemon:docker.io/team/base:1", "").env("DOCKER_HOST", daemon.address());
    project.run("").success().did(&["image.app"]);
    let got = read_layout(&project, "image.app");
    assert_eq!(got["layers"].as_array().unwrap().len(), 3);
    assert!(project.call("update").success().text().contains(": still sha256:"));
    fs::remove_dir_all(project.cache("cas/sha256")).unwrap();
    read_layout(&project, "image.app");
    let missing = on("docker-daemon:docker.io/team/none:1", "").env("DOCKER_HOST", daemon.address());
    says(&missing.run("").failure(1), &["save `docker.io/team/none:1`: it answers"]);
    let absent = missing.env("DOCKER_HOST", format!("unix://{}", place.beside("gone").display()));
    says(&absent.run("").failure(1), &["`the Docker daemon` does not answer: ", "no such file"]);
    let far = absent.env("DOCKER_HOST", "tcp://127.0.0.1:1");
    says(&far.run("").failure(1), &["`DOCKER_HOST` is not a socket of this machine"]);
}

#[test]
fn containerd_gives_a_base() {
    let (_made, layout) = layout("base", 100_000);
    let place = Project::new();
    let daemon = containerd(&place.beside("containerd"));
    let archive = place.path("base.tar");
    skopeo(
        &layout,
        &format!("oci-archive:{}:docker.io/team/base:1", archive.display()),
        &["--dest-compress"],
    );
    daemon.ctr(&["images", "import", "--no-unpack", archive.to_str().unwrap()]);
    let names = daemon.ctr(&["images", "list", "-q"]);
    let name = names.lines().next().unwrap();
    let project =
        on(&format!("containerd:{name}"), "").env("CONTAINERD_ADDRESS", daemon.socket().to_str().unwrap());
    project.run("").success().did(&["image.app"]);
    let got = read_layout(&project, "image.app");
    assert_eq!(got["layers"][0]["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
    let missing = on("containerd:docker.io/team/none:1", "")
        .env("CONTAINERD_ADDRESS", daemon.socket().to_str().unwrap());
    says(&missing.run("").failure(1), &["`ctr` does not export `docker.io/team/none:1`", "not found"]);
}
