//! Every form in which an image is written, read and run by other people's programs, and what they make
//! of it read again.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::tools::{Containerd, Podman, crane, tool, tried};
use crate::support::{Project, folder};

const CONFIG: &str = r#"
[project]
name = "forms"
[compile.bin]
inputs = ["hello.c"]
run = [["gcc", "-static", "-o", "hello", "hello.c"]]
outputs = ["hello"]
[image.base]
base = "scratch"
files = [{ from = "data", to = "/data/", mode = "0640" }]
[image.app]
base = "image.base"
files = [{ from = "compile.bin", to = "/bin/" }, { from = "links", to = "/" }]
entrypoint = ["/bin/hello"]
env = { WHO = "inside" }
labels = { a = "b" }
tags = ["example.com/app:1", "example.com/app:2"]
sbom = true
[save.docker]
matrix = { c = ["none", "gzip"] }
images = ["image.app", "image.base"]
format = "docker-archive"
compression = "{{ c }}"
name = "docker-{{ c }}.tar"
[save.single]
matrix = { c = ["none", "gzip"] }
images = ["image.app"]
format = "docker-archive"
compression = "{{ c }}"
name = "single-{{ c }}.tar"
[save.oci]
matrix = { c = ["none", "gzip", "zstd"] }
images = ["image.app"]
format = "oci-archive"
compression = "{{ c }}"
name = "oci-{{ c }}.tar"
[save.layout]
matrix = { c = ["none", "gzip", "zstd"] }
images = ["image.app"]
format = "oci-layout"
compression = "{{ c }}"
name = "layout-{{ c }}"
[save.listed]
images = ["image.app"]
format = "oci-archive"
sbom = true
compression = "gzip"
name = "listed.tar"
"#;

const APP: &str = "example.com/app:1";

/// Everything written, below `written`.
fn written() -> Project {
    let project = Project::new()
        .config(CONFIG)
        .file("hello.c", "#include <stdio.h>\n#include <stdlib.h>\nint main(void) { printf(\"hello from %s\\n\", getenv(\"WHO\")); return 0; }\n");
    // Several blocks of the compressors, of which only some can be packed.
    let noise: Vec<u8> =
        (0..900_000_u64).flat_map(|n| (n * n).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).collect();
    fs::create_dir_all(project.path("data")).unwrap();
    fs::write(project.path("data/noise"), &noise).unwrap();
    fs::write(project.path("data/zeros"), vec![0; 3_000_000]).unwrap();
    fs::create_dir_all(project.path("links")).unwrap();
    std::os::unix::fs::symlink("bin", project.path("links/sbin")).unwrap();
    project.run("save").success();
    for task in [
        "docker[none]",
        "docker[gzip]",
        "single[none]",
        "single[gzip]",
        "oci[none]",
        "oci[gzip]",
        "oci[zstd]",
        "listed",
    ] {
        fs::create_dir_all(project.path("written")).unwrap();
        project.call(&format!("get save.{task} -o written")).success();
    }
    for packing in ["none", "gzip", "zstd"] {
        project.call(&format!("get save.layout[{packing}] -o layouts-{packing}")).success();
    }
    project
}

/// Mode and content of everything that umoci unpacks.
fn unpacked(folder: &Path, image: &str) -> BTreeMap<String, (u32, Vec<u8>)> {
    let _ = fs::remove_dir_all(folder.join("bundle"));
    tool(folder, &format!("umoci unpack --rootless --image {image} bundle"));
    let root = folder.join("bundle/rootfs");
    let names = tool(&root, "find . -mindepth 1");
    let entry = |name: &str| {
        let path = root.join(name);
        let found = fs::symlink_metadata(&path).unwrap();
        let content = match (found.is_file(), found.is_symlink()) {
            (true, _) => fs::read(&path).unwrap(),
            (_, true) => fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes(),
            _ => Vec::new(),
        };
        (name.to_string(), (found.permissions().mode(), content))
    };
    names.lines().map(entry).collect()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn skopeo_umoci_and_crane_read_every_form() {
    let project = written();
    let at = project.path("written");
    let shown = json(&project.call("show image.app --json").success().text());
    let config = shown["config"].to_string();
    tool(&at, &format!("skopeo copy -q oci-archive:oci-none.tar:{APP} oci:plain:x"));
    let expected = unpacked(&at, "plain:x");
    assert_eq!(expected["./data/zeros"], (0o100_640, vec![0; 3_000_000]));
    assert_eq!(expected["./sbin"].1, b"bin");
    let layouts =
        ["none", "gzip", "zstd"].map(|packing| format!("oci:../layouts-{packing}/layout-{packing}:{APP}"));
    let forms = [
        format!("docker-archive:docker-none.tar:{APP}"),
        format!("docker-archive:docker-gzip.tar:{APP}"),
        "docker-archive:docker-gzip.tar:example.com/app:2".to_string(),
        format!("oci-archive:oci-none.tar:{APP}"),
        format!("oci-archive:oci-gzip.tar:{APP}"),
        format!("oci-archive:oci-zstd.tar:{APP}"),
        format!("oci-archive:listed.tar:{APP}"),
    ];
    for (at_form, form) in forms.iter().chain(&layouts).enumerate() {
        let inspected = json(&tool(&at, &format!("skopeo inspect --config {form}")));
        assert_eq!(inspected["config"], shown["config"]["config"], "{form}");
        assert_eq!(inspected["rootfs"], shown["config"]["rootfs"], "{form}");
        assert_eq!(
            json(&tool(&at, &format!("skopeo inspect {form}")))["Layers"].as_array().unwrap().len(),
            3
        );
        // umoci reads gzip only: skopeo packs anew what is something else.
        tool(&at, &format!("skopeo copy -q {form} dir:dir{at_form}"));
        tool(
            &at,
            &format!(
                "skopeo copy -q --dest-compress-format gzip --dest-compress {form} oci:copy{at_form}:x"
            ),
        );
        let zstd = form.contains("zstd");
        if !zstd {
            assert!(unpacked(&at, &format!("copy{at_form}:x")) == expected, "{form}");
        }
        // What skopeo wrote is a base here: the same image comes out.
        project.write(
            "again/vcbuild.toml",
            &format!("[project]\nname = 'again'\n[image.again]\nbase = 'oci:../written/copy{at_form}'\n")
                .replace("../written/", ""),
        );
        fs::rename(at.join(format!("copy{at_form}")), project.path(format!("again/copy{at_form}")))
            .unwrap();
        let again = json(&project.call("--dir again show image.again --json").success().text());
        assert_eq!(again["config"].to_string(), config, "{form}");
        let index =
            json(&fs::read_to_string(project.path(format!("again/copy{at_form}/index.json"))).unwrap());
        assert_eq!(again["digest"], index["manifests"][0]["digest"], "{form}");
    }
    for packing in ["none", "gzip"] {
        let image = format!("../layouts-{packing}/layout-{packing}:{APP}");
        assert!(unpacked(&at, &image) == expected, "{image}");
        assert!(tool(&at, &format!("umoci stat --image {image}")).contains("LAYER"));
        let crane = crane();
        tool(&at, &format!("{} validate --tarball single-{packing}.tar", crane.display()));
    }
    // What is packed is smaller, and the same each time.
    let size = |name: &str| fs::metadata(at.join(name)).unwrap().len();
    assert!(size("oci-gzip.tar") + 3_000_000 < size("oci-none.tar"));
    assert!(size("oci-zstd.tar") + 3_000_000 < size("oci-none.tar"));
    let before = fs::read(at.join("oci-gzip.tar")).unwrap();
    project.remove("cache");
    project.call("get save.oci[gzip] -o again.tar").success();
    assert!(fs::read(project.path("again.tar")).unwrap() == before);
}

#[test]
fn containerd_and_podman_load_and_run_every_archive() {
    let project = written();
    let at = project.path("written");
    let containerd = Containerd::start();
    for name in ["docker-none", "docker-gzip", "oci-none", "oci-gzip", "oci-zstd", "listed"] {
        containerd.ctr(&at, &format!("images import --snapshotter native {name}.tar"));
        assert_eq!(containerd.run(APP), "hello from inside\n", "{name}");
        let names = containerd.ctr(&at, "images ls -q");
        assert!(names.contains(APP) && names.contains("example.com/app:2"), "{name}: {names}");
        containerd.ctr(&at, "images rm --sync example.com/app:1 example.com/app:2");
    }
    let podman = Podman::new();
    for name in ["docker-none", "docker-gzip"] {
        podman.call(&at, &format!("load -q -i {name}.tar"));
        assert_eq!(podman.run(APP), "hello from inside\n", "{name}");
        podman.call(&at, "rmi -af");
    }
    // podman takes an oci-archive with one entry: what has two names has two.
    project.edit("vcbuild.toml", |text| text.replace(", \"example.com/app:2\"", ""));
    for packing in ["none", "gzip", "zstd"] {
        project.call(&format!("get save.oci[{packing}] -o written")).success();
        podman.call(&at, &format!("load -q -i oci-{packing}.tar"));
        assert_eq!(podman.run(APP), "hello from inside\n", "{packing}");
        podman.call(&at, "rmi -af");
    }
}

#[test]
fn the_bytes_do_not_depend_on_where_they_are_made() {
    let project = written();
    let first = fs::read(project.path("written/oci-zstd.tar")).unwrap();
    let (threads, cache) = ("RAYON_NUM_THREADS", project.beside("other-cache"));
    for count in ["1", "5"] {
        let _ = fs::remove_dir_all(&cache);
        let status = project
            .command(&["get", "save.oci[zstd]", "-o", "one.tar"])
            .env(threads, count)
            .env("VCBUILD_CACHE", &cache)
            .env("LC_ALL", "C.UTF-8")
            .status();
        assert!(status.unwrap().success());
        assert!(fs::read(project.path("one.tar")).unwrap() == first, "{count}");
    }
}

#[test]
fn what_a_reader_would_not_take_is_a_mistake() {
    let project = Project::new()
        .config("[image.i]\nbase = 'scratch'\n[save.s]\nimages = ['image.i']\nformat = 'docker-archive'\ncompression = 'zstd'\nsbom = true\n");
    project.call("check").failure(2).stderr(snapbox::str![[r#"
error: not every reader of a `docker-archive` takes zstd
 --> vcbuild.toml:8:15
  |
8 | compression = 'zstd'
  |               ^^^^^^
hint: `gzip`, or take `oci-archive` or `oci-layout`

error: a `docker-archive` holds nothing but images
 --> vcbuild.toml:9:8
  |
9 | sbom = true
  |        ^^^^
hint: take `oci-archive` or `oci-layout`

error: 2 mistakes in `vcbuild.toml`

"#]]);
}

/// A layout around one layer, in `bad`.
fn layout_of(project: &Project, media_type: &str, blob: &[u8], tar: &[u8]) {
    use sha2::{Digest, Sha256};
    let put = |bytes: &[u8]| {
        let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        fs::create_dir_all(project.path("bad/blobs/sha256")).unwrap();
        fs::write(project.path(format!("bad/blobs/sha256/{hex}")), bytes).unwrap();
        format!(r#""digest":"sha256:{hex}","size":{}"#, bytes.len())
    };
    let diff: String = Sha256::digest(tar).iter().map(|byte| format!("{byte:02x}")).collect();
    let config = put(format!(r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["sha256:{diff}"]}}}}"#).as_bytes());
    let layer = put(blob);
    let manifest = put(format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.oci.image.config.v1+json",{config}}},"layers":[{{"mediaType":"{media_type}",{layer}}}]}}"#
    ).as_bytes());
    project.write("bad/oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
    project.write("bad/index.json", &format!(r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json",{manifest}}}]}}"#));
}

#[test]
fn hostile_layers_end_in_a_clear_error() {
    const PLAIN: &str = "application/vnd.oci.image.layer.v1.tar";
    let member = |path: &str, kind: u8, size: u64| {
        let mut header = tar::Header::new_ustar();
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(size);
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    let gzip = |bytes: &[u8]| {
        let project = Project::new();
        fs::write(project.path("x"), bytes).unwrap();
        tool(&project.root(), "gzip x");
        fs::read(project.path("x.gz")).unwrap()
    };
    let project = Project::new().config("[image.i]\nbase = 'oci:bad'\n");
    let up = member("../../etc/x", b'0', 0);
    let records = member("x", b'x', 1 << 40);
    let cases = [
        (PLAIN.to_string(), up.clone(), up.clone(), "goes up with `..`"),
        (PLAIN.to_string(), records.clone(), records, "at most 1048576 are read"),
        (PLAIN.to_string(), member("x", b'0', 1 << 40), member("x", b'0', 1 << 40), "it ends too early"),
        (format!("{PLAIN}+gzip"), gzip(&up), b"another".to_vec(), "goes up with `..`"),
        (format!("{PLAIN}+gzip"), gzip(&[0; 1024]), b"another".to_vec(), "and its config says"),
        (
            format!("{PLAIN}+gzip"),
            gzip(&[0; 1 << 20])[..700].to_vec(),
            vec![0; 1 << 20],
            "it cannot be unpacked",
        ),
        (
            format!("{PLAIN}+zstd"),
            b"\x28\xb5\x2f\xfdnothing of the kind".to_vec(),
            vec![0; 1024],
            "it cannot be unpacked",
        ),
    ];
    for (media_type, blob, tar, expected) in cases {
        let _ = fs::remove_file(project.path("vcbuild.lock"));
        layout_of(&project, &media_type, &blob, &tar);
        let said = project.call("show image.i --files").failure(1).stderr.clone();
        assert!(said.contains("the layer `sha256:") && said.contains(expected), "{said}");
        assert!(said.lines().count() < 4, "{said}");
    }
    // Archives of others: neither do they take memory, nor are they believed.
    let _ = fs::remove_file(project.path("vcbuild.lock"));
    layout_of(&project, PLAIN, &[0; 1024], &[0; 1024]);
    let bomb = member("index.json", b'0', 1 << 40);
    for (name, bytes) in [
        ("bomb.tar", bomb.clone()),
        ("text", b"just text, long enough to be looked at".repeat(20)),
        ("short.gz", gzip(&bomb)[..30].to_vec()),
    ] {
        fs::write(project.path(name), bytes).unwrap();
        let path = project.path(name);
        let said =
            project.call(&format!("show image.i --against {}", path.display())).failure(1).stderr.clone();
        assert!(said.contains("is no archive or layout"), "{name}: {said}");
    }
    let index = r#"{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"sha256:0000000000000000000000000000000000000000000000000000000000000000","size":7}]}"#;
    project.write("empty/index.json", index);
    let path = project.path("empty");
    let said = project.call(&format!("show image.i --against {}", path.display())).success().text();
    assert!(said.contains("present   0 B in 0 layers"), "{said}");
    assert!(folder::files(&project.root()).iter().all(|name| !name.ends_with("etc/x")));
}

#[test]
fn a_bomb_takes_neither_memory_nor_time() {
    // 8 GiB of zeros in a file of 37 MB.
    let project = Project::new().config("[image.i]\nbase = 'scratch'\n");
    let made = Command::new("sh")
        .args(["-c", "head -c 4194304 /dev/zero | gzip -1 > one; n=0; while [ $n -lt 11 ]; do cat one one > two; mv two one; n=$((n+1)); done; mv one bomb.gz"])
        .current_dir(project.root())
        .status();
    assert!(made.unwrap().success());
    let arguments = format!("{} show image.i --against bomb.gz", env!("CARGO_BIN_EXE_vcbuild"));
    let script = format!("ulimit -v 3000000; exec timeout 60 {arguments}");
    let mut command = Command::new("sh");
    command.args(["-c", &script]).current_dir(project.root());
    project.clean(&mut command);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("it unpacks to more than"), "{said}");
    assert!(!tried(&project.root(), "test -e cache/v1/tmp/x").status.success());
}
