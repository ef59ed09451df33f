//! Other people's programs read what is written here, and what they write is read here.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::oci::archive;
use crate::oci::descriptor::Packing;
use crate::oci::document::DOCKER_MANIFEST;
use crate::oci::find::{Files, find};
use crate::oci::image::Image;
use crate::oci::layout::{self, Named};
use crate::oci::samples::{Memory, amd64, folder_of, new_layer, plain_image, tool};
use crate::oci::settings::Settings;

/// A layout on disk.
struct OnDisk(PathBuf);

impl Files for OnDisk {
    fn read(&self, path: &str, most: u64) -> Result<Vec<u8>> {
        let path = self.0.join(path);
        match std::fs::metadata(&path) {
            Ok(data) if data.len() <= most => Ok(std::fs::read(path).unwrap()),
            _ => Err(Error::failed(format!("cannot read {}", path.display()))),
        }
    }
}

fn named(image: &Image, tag: &str) -> Named {
    Named { image: image.clone(), others: vec![], tags: vec![tag.parse().unwrap()] }
}

/// Writes a layout into a new folder `made`.
fn on_disk(memory: &Memory, images: &[Named]) -> tempfile::TempDir {
    let files: Vec<(String, Vec<u8>)> = layout::files(images)
        .unwrap()
        .into_iter()
        .map(|(path, part)| (format!("made/{path}"), memory.part(&part)))
        .collect();
    let files: Vec<(&str, &Vec<u8>)> = files.iter().map(|(path, bytes)| (path.as_str(), bytes)).collect();
    folder_of(&files)
}

/// What umoci unpacks: mode and content of every file below the root.
fn unpacked(folder: &Path, image: &str) -> BTreeMap<String, (u32, Vec<u8>)> {
    tool(folder, &["rm", "-rf", "bundle"]);
    tool(folder, &["umoci", "unpack", "--rootless", "--image", image, "bundle"]);
    let root = folder.join("bundle/rootfs");
    let listing = tool(&root, &["find", ".", "-type", "f"]);
    let files = listing.lines().map(|path| {
        let mode = std::fs::metadata(root.join(path)).unwrap().permissions().mode() & 0o7777;
        (path.trim_start_matches("./").to_string(), (mode, std::fs::read(root.join(path)).unwrap()))
    });
    files.collect()
}

fn plain_files() -> BTreeMap<String, (u32, Vec<u8>)> {
    [
        ("usr/local/bin/manager", b"\x7fELF manager".to_vec()),
        ("etc/manager.conf", b"a = 1\n".to_vec()),
        ("usr/local/bin/helper", b"#!/bin/sh\n".to_vec()),
    ]
    .map(|(path, bytes)| (path.to_string(), (0o755, bytes)))
    .into()
}

/// A field of what `skopeo inspect` prints.
fn inspected(folder: &Path, image: &str, field: &str) -> serde_json::Value {
    let text = tool(folder, &["skopeo", "inspect", image]);
    serde_json::from_str::<serde_json::Value>(&text).unwrap()[field].clone()
}

#[test]
fn skopeo_and_umoci_read_a_layout() {
    let mut memory = Memory::default();
    let image = plain_image(&mut memory);
    let folder = on_disk(&memory, &[named(&image, "r.example/app:2")]);
    let digest = image.descriptor().digest.to_string();
    assert_eq!(inspected(folder.path(), "oci:made:r.example/app:2", "Digest"), digest);
    assert_eq!(inspected(folder.path(), "oci:made:r.example/app:2", "Architecture"), "amd64");
    assert_eq!(unpacked(folder.path(), "made:r.example/app:2"), plain_files());
    let config = std::fs::read_to_string(folder.path().join("bundle/config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["process"]["args"], serde_json::json!(["/usr/local/bin/manager", "-v"]));
    assert_eq!(config["process"]["user"]["uid"], 65532);
    assert!(config["process"]["env"].to_string().contains("PATH=/usr/local/sbin:"));
    tool(folder.path(), &["umoci", "stat", "--image", "made:r.example/app:2"]);
}

#[test]
fn skopeo_reads_archives() {
    let mut memory = Memory::default();
    let image = plain_image(&mut memory);
    let images = [named(&image, "r.example/app:2")];
    let docker = memory.bytes(&archive::docker(&images).unwrap());
    let oci = memory.bytes(&archive::oci(&images).unwrap());
    let folder = folder_of(&[("docker.tar", &docker), ("oci.tar", &oci)]);
    let digest = image.descriptor().digest.to_string();
    assert_eq!(inspected(folder.path(), "oci-archive:oci.tar:r.example/app:2", "Digest"), digest);
    tool(
        folder.path(),
        &["skopeo", "copy", "-q", "docker-archive:docker.tar:r.example/app:2", "oci:copy:x"],
    );
    assert_eq!(unpacked(folder.path(), "copy:x"), plain_files());
    let found = find(&OnDisk(folder.path().join("copy")), &amd64(), Some("x")).unwrap();
    assert_eq!(found.names, ["x"]);
    assert_eq!(found.image.config().config, image.config().config);
    assert_eq!(found.image.config().rootfs, image.config().rootfs);
}

#[test]
fn a_base_of_umoci_keeps_its_layers() {
    let mut memory = Memory::default();
    let folder = folder_of(&[("file", &b"from the base".to_vec())]);
    let run = |command: &str| tool(folder.path(), &command.split(' ').collect::<Vec<_>>());
    run("umoci init --layout base");
    run("umoci new --image base:b");
    run("umoci insert --rootless --image base:b file /data/file");
    run("umoci config --image base:b --config.env A=1 --config.cmd sh --architecture amd64 --os linux");
    let base = find(&OnDisk(folder.path().join("base")), &amd64(), Some("b")).unwrap().image;
    assert!(!base.layers().is_empty());
    for layer in base.layers() {
        assert_eq!(Packing::of(&layer.descriptor.media_type).unwrap(), Packing::Gzip);
        memory.add(
            &std::fs::read(folder.path().join("base").join(layout::blob_path(&layer.descriptor.digest)))
                .unwrap(),
        );
    }
    crate::oci::samples::verify(&base, &memory).unwrap();
    let layer = new_layer(&mut memory, &[("usr/bin/app", b"app")]);
    let settings = Settings { env: [("B".into(), "2".into())].into(), ..Settings::default() };
    let app = Image::build(Some(&base), &amd64(), &[layer], &settings).unwrap();
    let images = [named(&app, "x:1"), named(&base, "y:1")];
    let made = on_disk(&memory, &images);
    let files = unpacked(made.path(), "made:docker.io/library/x:1");
    assert_eq!(files["data/file"].1, b"from the base");
    assert_eq!(files["usr/bin/app"], (0o755, b"app".to_vec()));
    assert_eq!(
        inspected(made.path(), "oci:made:docker.io/library/y:1", "Digest"),
        base.descriptor().digest.to_string()
    );

    let docker = folder_of(&[("docker.tar", &memory.bytes(&archive::docker(&images).unwrap()))]);
    tool(
        docker.path(),
        &["skopeo", "copy", "-q", "docker-archive:docker.tar:docker.io/library/x:1", "oci:copy:x"],
    );
    assert_eq!(unpacked(docker.path(), "copy:x"), files);
}

#[test]
fn a_schema_2_image_of_skopeo_is_a_base() {
    let mut memory = Memory::default();
    let image = plain_image(&mut memory);
    let folder = on_disk(&memory, &[named(&image, "x:1")]);
    tool(
        folder.path(),
        &["skopeo", "copy", "-q", "--format", "v2s2", "oci:made:docker.io/library/x:1", "dir:docker"],
    );
    let file = |name: &str| std::fs::read(folder.path().join("docker").join(name)).unwrap();
    let manifest = file("manifest.json");
    let text = String::from_utf8(manifest.clone()).unwrap();
    let config = text.split("sha256:").nth(1).unwrap()[..64].to_string();
    let base = Image::new(Some(DOCKER_MANIFEST), manifest, file(&config)).unwrap();
    assert_eq!(base.descriptor().media_type, DOCKER_MANIFEST);
    for layer in base.layers() {
        memory.add(&file(&layer.descriptor.digest.hex()));
    }
    crate::oci::samples::verify(&base, &memory).unwrap();
    let layer = new_layer(&mut memory, &[("app", b"app")]);
    let app = Image::build(Some(&base), &amd64(), &[layer], &Settings::default()).unwrap();
    let made = on_disk(&memory, &[named(&app, "x:2"), named(&base, "x:1")]);
    let mut expected = plain_files();
    expected.insert("app".to_string(), (0o755, b"app".to_vec()));
    assert_eq!(unpacked(made.path(), "made:docker.io/library/x:2"), expected);
    // skopeo looks for no Docker manifest in a layout; the base keeps its digest all the same.
    assert_eq!(find(&OnDisk(made.path().join("made")), &amd64(), Some("x:1")).unwrap().image, base);
}
