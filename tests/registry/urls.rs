//! Files of images that come from an address, by TLS from a server whose authority is the user's own.

use std::fs;

use sha2::{Digest, Sha256};

use super::says;
use crate::support::Project;
use crate::support::registry::{Door, Registry, layout};
use crate::support::servers::Line;

/// A server with a file of some megabytes: where in its paths that is, and its SHA-256.
fn server(place: &Project) -> (Registry, String, String) {
    let registry = Registry::start(&place.beside("registry"), Door::Tls);
    let (_made, path) = layout("file", 3_000_000);
    registry.put(&path, "team/file:1", &["--preserve-digests"]);
    let blobs = fs::read_dir(path.join("blobs/sha256")).unwrap().map(|entry| entry.unwrap().path());
    let largest = blobs.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let sha256 = largest.file_name().unwrap().to_str().unwrap().to_string();
    (registry, format!("v2/team/file/blobs/sha256:{sha256}"), sha256)
}

fn project(url: &str, sha256: &str) -> Project {
    let text = format!(
        "[image.i]\nbase = \"scratch\"\nfiles = [{{ url = \"{url}\", sha256 = \"{sha256}\", to = \"/file\" }}]\n"
    );
    Project::new().config(&text)
}

#[test]
fn an_authority_of_ones_own() {
    let place = Project::new();
    let (registry, path, sha256) = server(&place);
    let url = format!("https://{}/{path}", registry.host());
    let done = project(&url, &sha256);
    let words = ["its certificate is not trusted: nobody whom we trust has signed it", "`SSL_CERT_FILE`"];
    says(&done.run("").failure(1), &words);
    let authority = registry.authority();
    let authority = authority.to_str().unwrap();
    let good = project(&url, &sha256).env("SSL_CERT_FILE", authority);
    good.run("").success().did(&["image.i"]);
    good.run("").nothing();
    good.call("get image.i -o got").success();
    // The file is in its layer as it was served.
    let served = fs::read(registry_blob(&place, &sha256)).unwrap();
    assert_eq!(hex(&served), sha256);
    let blobs = fs::read_dir(good.path("got/blobs/sha256")).unwrap();
    let holds = |bytes: Vec<u8>| bytes.len() > 512 && bytes[512..].starts_with(&served);
    assert!(blobs.map(|entry| fs::read(entry.unwrap().path()).unwrap()).any(holds));
    // The certificate is for 127.0.0.1.
    let named = project(&url.replace("127.0.0.1", "localhost"), &sha256).env("SSL_CERT_FILE", authority);
    says(&named.run("").failure(1), &["its certificate is not trusted: it is for another name"]);
    let plain = project(&url.replace("https", "http"), &sha256).env("SSL_CERT_FILE", authority);
    says(&plain.run("").failure(1), &["the server answers 400"]);
    let other = project(&url, &"0".repeat(64)).env("SSL_CERT_FILE", authority);
    says(
        &other.run("").failure(1),
        &["gives another file than its `sha256` says", &format!("got    {sha256}")],
    );
}

#[test]
fn a_line_that_is_cut_within_tls() {
    let place = Project::new();
    let (registry, path, sha256) = server(&place);
    let line = Line::to(registry.port());
    line.cut_once(1_000_000);
    let url = format!("https://127.0.0.1:{}/{path}", line.port);
    let project = project(&url, &sha256).env("SSL_CERT_FILE", registry.authority().to_str().unwrap());
    project.run("").success().did(&["image.i"]);
    assert_eq!(line.calls(), 2);
    // What came before the cut did not come again.
    assert!(line.downward() < 3_500_000, "{}", line.downward());
}

fn registry_blob(place: &Project, sha256: &str) -> std::path::PathBuf {
    place
        .beside("registry")
        .join(format!("data/docker/registry/v2/blobs/sha256/{}/{sha256}/data", &sha256[..2]))
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
