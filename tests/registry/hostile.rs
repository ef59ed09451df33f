//! Registries that lie: a clear message, bounded memory, and nothing of it is kept.

use super::{insecure, on, says};
use crate::support::Project;
use crate::support::web::{Answer, Web};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
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
