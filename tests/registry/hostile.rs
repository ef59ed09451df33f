//! Registries that lie, and layers and archives that are made to be too much: a clear message, bounded memory,
//! and nothing of it is kept.

use std::io::Write;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::{insecure, on, says};
use crate::support::Project;
use crate::support::web::{Answer, Web};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const ZERO: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

/// A project on a base from a registry that answers so.
fn from(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> (Web, Project) {
    let web = Web::new(move |request| answer(&request.path));
    let host = format!("127.0.0.1:{}", web.port);
    let project = on(&format!("{host}/x/y:1"), &insecure(&[&host]));
    (web, project)
}

#[track_caller]
fn refused(answer: impl Fn(&str) -> Answer + Send + Sync + 'static, words: &[&str]) {
    let (_web, project) = from(answer);
    let done = project.run("").failure(1);
    says(&done, words);
    assert!(!project.path("vcbuild.lock").exists(), "nothing is pinned");
}

fn document(media_type: &str, text: impl Into<String>) -> Answer {
    Answer::new(200, text.into()).with("content-type", media_type)
}

#[test]
fn what_is_no_image() {
    let html = document("text/html; charset=utf-8", "<html>log in</html>");
    refused(move |_| html.clone(), &["answers with `text/html`, which is no image"]);
    refused(|_| document(MANIFEST, "{"), &["a manifest or index is not as it should be"]);
    refused(
        |_| {
            document(
                INDEX,
                format!("{{\"schemaVersion\":2,\"mediaType\":\"{MANIFEST}\",\"manifests\":[]}}"),
            )
        },
        &["a document is said to be"],
    );
    let schema1 = document(
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        r#"{"schemaVersion":1,"name":"x/y","tag":"1","fsLayers":[]}"#,
    );
    refused(
        move |_| schema1.clone(),
        &["the image is Docker schema 1, which is not read", "pull and push it"],
    );
    let helm = format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{{"mediaType":"application/vnd.cncf.helm.config.v1+json","digest":"{ZERO}","size":2}},"layers":[]}}"#
    );
    refused(
        move |_| document(MANIFEST, helm.clone()),
        &["`application/vnd.cncf.helm.config.v1+json` is no image"],
    );
    let foreign = format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{{"mediaType":"{CONFIG}","digest":"{ZERO}","size":2}},"layers":[{{"mediaType":"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip","digest":"{ZERO}","size":2}}]}}"#
    );
    refused(move |_| document(MANIFEST, foreign.clone()), &["a layer is foreign", "choose another base"]);
}

#[test]
fn what_is_too_much() {
    refused(|_| document(MANIFEST, " ".repeat(5 << 20)), &["`1` has more than 4194304 bytes"]);
    // Said to be 2 bytes, and without an end.
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{{"mediaType":"{CONFIG}","digest":"{ZERO}","size":2}},"layers":[]}}"#
    );
    let two = move |path: &str| match path.contains("manifests") {
        true => document(MANIFEST, manifest.clone()),
        false => Answer::new(200, "x".repeat(1 << 20)),
    };
    refused(two, &["has more than 2 bytes"]);
    let huge = format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{{"mediaType":"{CONFIG}","digest":"{ZERO}","size":1099511627776}},"layers":[]}}"#
    );
    refused(move |_| document(MANIFEST, huge.clone()), &["says that it has 1099511627776 bytes"]);
}

#[test]
fn what_is_another() {
    let config = r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{{"mediaType":"{CONFIG}","digest":"{ZERO}","size":{}}},"layers":[]}}"#,
        config.len()
    );
    let lie = manifest.clone();
    let other = move |path: &str| match path.contains("manifests") {
        true => document(MANIFEST, manifest.clone()),
        false => Answer::new(200, config),
    };
    refused(other, &["it sends `sha256:", &format!("for `{ZERO}`")]);
    refused(
        move |_| document(MANIFEST, lie.clone()).with("docker-content-digest", ZERO),
        &["it sends `sha256:", &format!("for `{ZERO}`")],
    );
}

#[test]
fn circles_end() {
    // An index cannot hold its own digest: the registry lies about what is behind one.
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{{"mediaType":"{INDEX}","digest":"{ZERO}","size":SIZE}}]}}"#
    );
    let size = index.len() - 1;
    let index = index.replace("SIZE", &size.to_string());
    refused(move |_| document(INDEX, index.clone()), &[&format!("for `{ZERO}`")]);
    let (web, project) = from(|path| Answer::new(307, "").with("location", path));
    says(&project.run("").failure(1), &["it redirects in circles"]);
    assert!(web.log().len() < 20);
    let (_web, project) = from(|_| Answer::new(307, "").with("location", "ftp://127.0.0.1/x"));
    says(&project.run("").failure(1), &["it sends us to where the line is not safe"]);
}

/// One header and the content that it has.
fn member(path: &str, content: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.set_path(path).unwrap();
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(content.len() as u64);
    header.set_cksum();
    let mut bytes = [header.as_bytes(), content].concat();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

/// A packed tar of ten million members, which unpacks to 5 GB: a piece of a hundred thousand, again and again.
fn ten_million(pack: fn(&[u8]) -> Vec<u8>, path: fn(usize) -> String) -> Vec<u8> {
    let piece: Vec<u8> = (0..100_000).flat_map(|number| member(&path(number), b"")).collect();
    pack(&piece).repeat(100)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(bytes, 3).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An oci-archive of an image with one layer, which unpacks to `tar`.
fn oci_archive(media_type: &str, layer: &[u8], tar: &[u8]) -> Vec<u8> {
    let digest = |bytes: &[u8]| hex(&Sha256::digest(bytes));
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["sha256:{}"]}}}}"#,
        digest(tar)
    );
    let place = |media_type: &str, bytes: &[u8]| {
        let (digest, size) = (digest(bytes), bytes.len());
        format!(r#"{{"mediaType":"{media_type}","digest":"sha256:{digest}","size":{size}}}"#)
    };
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{},"layers":[{}]}}"#,
        place(CONFIG, config.as_bytes()),
        place(media_type, layer)
    );
    let index = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, place(MANIFEST, manifest.as_bytes()));
    let mut all = member("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    all.extend(member("index.json", index.as_bytes()));
    for bytes in [config.as_bytes(), manifest.as_bytes(), layer] {
        all.extend(member(&format!("blobs/sha256/{}", digest(bytes)), bytes));
    }
    all.extend([0; 1024]);
    all
}

/// A base in an archive is refused with these words, within 90 s even when it is not optimised; how much memory that took, in kB.
#[track_caller]
fn refuses(archive: &[u8], words: &[&str]) -> u64 {
    let project = on("archive:base.tar", "");
    // A look at what the base has is needed.
    project.edit("vcbuild.toml", |text| text.replace("to = \"/app\"", "to = \"/usr/bin/app\""));
    std::fs::write(project.path("base.tar"), archive).unwrap();
    let began = Instant::now();
    let mut child =
        project.command(&["run"]).stderr(std::process::Stdio::piped()).spawn().expect("it can be started");
    let peak = crate::support::memory::peak(&mut child);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    for word in words {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert!(began.elapsed() < Duration::from_secs(90), "{:?}", began.elapsed());
    assert!(peak > 0);
    let tmp = std::fs::read_dir(project.cache("tmp")).map_or(0, Iterator::count);
    assert_eq!(tmp, 0, "nothing is left");
    peak
}

#[test]
fn ten_million_members() {
    let too_many = ["the layer `sha256:", "the tar has more than 2000000 members"];
    let gzipped = ten_million(gzip, |_| "a".to_string());
    let peak = refuses(&oci_archive(&format!("{LAYER}+gzip"), &gzipped, b""), &too_many);
    assert!(peak < 64_000, "{peak} kB");
    let different = ten_million(zstd, |number| format!("a/{number}"));
    let peak = refuses(&oci_archive(&format!("{LAYER}+zstd"), &different, b""), &too_many);
    assert!(peak < 64_000, "{peak} kB");
    // The archive itself.
    let peak = refuses(&gzipped, &["base.tar`", "the archive has more than 100000 members"]);
    assert!(peak < 64_000, "{peak} kB");
}

#[test]
fn more_paths_than_fit() {
    let zstd_layer = |tar: &[u8]| oci_archive(&format!("{LAYER}+zstd"), &zstd(tar), tar);
    let tar: Vec<u8> = (0..1_000_001).flat_map(|number| member(&format!("{number}"), b"")).collect();
    let peak = refuses(&zstd_layer(&tar), &["the image has more than 1000000 paths"]);
    assert!(peak < 400_000, "{peak} kB");
    // Few that are long, and each with all the folders above it.
    let deep = "a/".repeat(45);
    let tar: Vec<u8> = (0..500)
        .flat_map(|number| {
            let path = format!("{number}/{}", deep.repeat(45));
            let record = format!(" path={path}\n");
            let record = format!("{}{record}", record.len() + 4);
            let mut extra = member("pax", record.as_bytes());
            extra[156] = b'x';
            let mut header = tar::Header::new_ustar();
            header.as_mut_bytes().copy_from_slice(&extra[..512]);
            header.set_cksum();
            extra[..512].copy_from_slice(header.as_bytes());
            [extra, member("x", b"")].concat()
        })
        .collect();
    let peak = refuses(&zstd_layer(&tar), &["the image has more than 268435456 bytes of names"]);
    assert!(peak < 500_000, "{peak} kB");
}
