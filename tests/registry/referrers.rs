//! Images for several platforms and the lists of what they are made of, in registries that list referrers
//! themselves and in one that knows nothing of them; read by other people's programs.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::{insecure, says};
use crate::support::Project;
use crate::support::registry::{Door, Registry};
use crate::support::servers::Server;
use crate::support::web::{Answer, Request, Web, ask};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const SPDX: &str = "application/spdx+json";

/// What a program of `target/tools` says.
#[track_caller]
fn tool(command: &str) -> String {
    let (program, arguments) = command.split_once(' ').unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools").join(program);
    let output = Command::new(&path).args(arguments.split(' ')).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}: see `tests/run`", path.display()));
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// A project with an image for two platforms, pushed as `HOST/team/app`.
fn project(host: &str) -> Project {
    let text = format!(
        r#"{}
[image.app]
base = "scratch"
platforms = ["linux/amd64", "linux/arm64"]
files = [
  {{ from = "root", to = "/" }},
  {{ from = "arm", to = "/arm", platform = "linux/arm64" }},
]
tags = ["{host}/team/app:1"]
sbom = true
[push.all]
images = ["image.app"]
"#,
        insecure(&[host])
    );
    Project::new()
        .config(&text)
        .file("root/lib/apk/db/installed", "P:musl\nV:1.2.4\nA:x86_64\nL:MIT\n")
        .file("arm", "arm\n")
}

/// The subjects of documents and their digests, as somebody else's program lists them.
#[track_caller]
fn listed(host: &str) -> BTreeSet<(String, String)> {
    let lines = tool(&format!("referrers list {host}/team/app:1"));
    let words = lines.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let lists = words.filter(|words| words[1] == SPDX);
    lists.map(|words| (words[0].to_string(), words[2].to_string())).collect()
}

/// What was pushed is whole, and each platform has its list.
#[track_caller]
fn complete(project: &Project, host: &str) {
    let name = format!("{host}/team/app:1");
    let index = json_of(&tool(&format!("crane manifest {name}")));
    assert_eq!(index["mediaType"], INDEX);
    let manifests = index["manifests"].as_array().unwrap();
    let subjects: Vec<&str> = manifests.iter().map(|entry| entry["digest"].as_str().unwrap()).collect();
    assert_eq!(subjects.len(), 2);
    for (architecture, layers) in [("amd64", 1), ("arm64", 2)] {
        // Its digests of layers are of what gzip has packed, which these are not.
        tool(&format!("crane validate --fast --platform linux/{architecture} --remote {name}"));
        let output = Command::new("skopeo")
            .args(["inspect", "--tls-verify=false", "--override-arch", architecture])
            .arg(format!("docker://{name}"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let found = json_of(&String::from_utf8(output.stdout).unwrap());
        assert_eq!(found["Layers"].as_array().unwrap().len(), layers);
    }
    let whole = tempfile::tempdir().unwrap();
    tool(&format!("crane pull --format=oci {name} {}", whole.path().display()));
    project.call("get image.app --sbom -o lists").success();
    let list = |architecture: &str| project.read(format!("lists/linux-{architecture}.spdx.json"));
    let expected: BTreeSet<String> = ["amd64", "arm64"].map(list).into();
    assert_eq!(expected.len(), 2);
    let about = listed(host);
    assert_eq!(about.iter().map(|(subject, _)| subject.as_str()).collect::<BTreeSet<_>>(), {
        subjects.into_iter().collect()
    });
    let found = about.iter().map(|(_, digest)| tool(&format!("crane blob {host}/team/app@{digest}")));
    assert_eq!(found.collect::<BTreeSet<_>>(), expected);
}

fn tags(host: &str) -> Vec<String> {
    tool(&format!("crane ls {host}/team/app")).lines().map(str::to_string).collect()
}

/// The registry of tests, which knows no referrers.
fn start() -> (Project, Registry) {
    let place = Project::new();
    let registry = Registry::start(&place.beside("registry"), Door::Open);
    (place, registry)
}

#[test]
fn tags_list_what_the_registry_does_not() {
    let (_place, registry) = start();
    let host = registry.host();
    let project = project(&host);
    let plan = project.call("plan").success().text();
    assert!(plan.contains("blobs") && plan.contains("name team/app:1"), "{plan}");
    project.run("").success().did(&["push.all"]);
    complete(&project, &host);
    let own = listed(&host);
    let mut lists: Vec<String> = tags(&host).into_iter().filter(|tag| tag.starts_with("sha256-")).collect();
    lists.sort();
    let subjects: Vec<String> = own.iter().map(|(subject, _)| subject.replace(':', "-")).collect();
    assert_eq!(lists, subjects);
    project.run("").nothing();
    // Somebody else lists something of his own in our place: both are there afterwards.
    let mut other = registry.document("team/app", "1").0["manifests"][0].clone();
    other.as_object_mut().unwrap().remove("platform");
    other["artifactType"] = "application/x".into();
    other["annotations"] = json!({ "a": "b" });
    let list = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [other] }).to_string();
    registry.put_document("team/app", &lists[0], INDEX, list.as_bytes());
    let plan = project.call("plan").success().text();
    assert!(plan.contains("attach to team/app:vc-"), "{plan}");
    let done = project.run("").success().did(&["push.all"]);
    assert_eq!(done.sent("push.all")[&host], 0);
    let list = registry.document("team/app", &lists[0]).0;
    assert_eq!(list["manifests"][0], other);
    assert_eq!(list["manifests"].as_array().unwrap().len(), 2);
    assert_eq!(list["manifests"][1]["artifactType"], SPDX);
    project.run("").nothing();
    // With nothing left of the cache it is seen that all is there.
    std::fs::remove_dir_all(project.cache("cas")).unwrap();
    project.run("").nothing();
}

#[test]
fn registries_list_referrers_themselves() {
    let place = Project::new();
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/referrers");
    let server = Server::start(&program, &place.beside("log"), |port| {
        vec!["serve".into(), format!("127.0.0.1:{port}")]
    });
    let host = format!("127.0.0.1:{}", server.port);
    let project = project(&host);
    project.run("").success().did(&["image.app", "push.all"]);
    complete(&project, &host);
    assert!(tags(&host).iter().all(|tag| !tag.starts_with("sha256-")), "{:?}", tags(&host));
    project.run("").nothing();
    // Another image's list, of which a layer is the same.
    project.edit("arm", |_| "another\n".into());
    project.run("").success();
    complete(&project, &host);
}

#[test]
fn what_is_listed_in_parts_is_read_to_its_end() {
    let (_place, registry) = start();
    let port = registry.port();
    // A registry that lists one document in each part, and says so for every subject.
    let lists = Arc::new(AtomicBool::new(true));
    let now = lists.clone();
    let web = Web::new(move |request: &Request| {
        let asked = request.path.split_once("/referrers/").filter(|_| now.load(Ordering::SeqCst));
        let Some((_, rest)) = asked else { return ask(port, request) };
        let (subject, part) = rest.split_once("?part=").unwrap_or((rest, "0"));
        let tag = subject.replace(':', "-");
        let mut look = Request::new("GET", &format!("/v2/team/app/manifests/{tag}")).with("accept", INDEX);
        look.body.clear();
        let own = ask(port, &look);
        let entries = match own.status {
            200 => serde_json::from_slice::<Value>(&own.body).unwrap()["manifests"].clone(),
            _ => json!([]),
        };
        let (entries, next) = match part {
            "2" => (entries, None),
            part => (json!([]), Some(part.parse::<u32>().unwrap() + 1)),
        };
        let text = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries }).to_string();
        let answer = Answer::new(200, text).with("content-type", INDEX);
        match next {
            Some(next) => answer
                .with("link", &format!("</v2/team/app/referrers/{subject}?part={next}>; rel=\"next\"")),
            None => answer,
        }
    });
    let host = format!("127.0.0.1:{}", web.port);
    let project = project(&host);
    // It lists nothing that nobody has put there: what was sent would not be found.
    says(&project.run("").failure(1), &["it does not list `sha256:", "it may take its time: run again"]);
    lists.store(false, Ordering::SeqCst);
    project.run("").success();
    complete(&project, &host);
    lists.store(true, Ordering::SeqCst);
    web.forget();
    project.run("").nothing();
    assert_eq!(web.asked("GET /v2/team/app/referrers/sha256:"), 6);
}

#[test]
fn nodes_get_images_that_have_lists() {
    let project = project("r.example");
    project.edit("vcbuild.toml", |text| {
        let (head, _) = text.split_once("[push.all]").unwrap();
        format!("{head}[host.n]\nlocal = \"n\"\n[import.n]\nimages = [\"image.app\"]\nhosts = \"n\"\n")
    });
    project.run("").success().did(&["image.app", "import.n"]);
    project.run("").nothing();
}
