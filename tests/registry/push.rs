//! Pushes: only what is missing, whatever happens on the way, and names last.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{insecure, layers, manifest, pinned, says};
use crate::support::registry::{Door, Make, Registry, layout};
use crate::support::repository::noise;
use crate::support::web::{Answer, Request, Web, ask};
use crate::support::{Done, Project};

/// A project with an image of two layers, `size` bytes of it noise, pushed as `HOST/team/app`.
pub fn project(host: &str, size: usize) -> Project {
    let text = format!(
        r#"{}
[image.app]
base = "scratch"
files = [{{ from = "noise", to = "/data/" }}, {{ from = "app", to = "/app" }}]
entrypoint = ["/app"]
tags = ["{host}/team/app:1", "{host}/team/app:latest"]
[push.all]
images = ["image.app"]
"#,
        insecure(&[host])
    );
    let project = Project::new().config(&text).file("app", "the app\n");
    std::fs::write(project.path("noise"), noise(size)).unwrap();
    project
}

fn start() -> (Project, Registry) {
    start_of(Make::Debian)
}

pub fn start_of(make: Make) -> (Project, Registry) {
    let place = Project::new();
    let registry = Registry::of(make, &place.beside("registry"));
    (place, registry)
}

/// Other people's program reads all of it.
#[track_caller]
pub fn holds(registry: &Registry, name: &str) -> serde_json::Value {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new("skopeo")
        .args(["copy", "-q", "--insecure-policy", "--src-tls-verify=false"])
        .arg(format!("docker://{}/{name}", registry.host()))
        .arg(format!("dir:{}", folder.path().display()))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&std::fs::read(folder.path().join("manifest.json")).unwrap()).unwrap()
}

pub fn sent(done: &Done<'_>, host: &str) -> u64 {
    done.sent("push.all")[host]
}

/// The content tag in a repository.
fn content_tag(registry: &Registry, path: &str) -> Vec<String> {
    let answer = ask(registry.port(), &Request::new("GET", &format!("/v2/{path}/tags/list")));
    let list: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    let tags = list["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap().to_string());
    tags.filter(|tag| tag.starts_with("vc-")).collect()
}

/// Two images on a base that the registry has, pushed to other repositories of it.
pub fn on_a_base(host: &str) -> Project {
    let text = format!(
        r#"{}
[image.a]
base = "{host}/team/base:1"
files = [{{ from = "app", to = "/app" }}]
tags = ["{host}/team/a:1"]
[image.b]
base = "image.a"
files = [{{ from = "app", to = "/b" }}]
tags = ["{host}/other/b:1"]
[push.all]
images = ["image.a", "image.b"]
"#,
        insecure(&[host])
    );
    Project::new().config(&text).file("app", "the app\n")
}

#[test]
fn only_what_is_missing_is_sent() {
    let (_place, registry) = start();
    let port = registry.port();
    let web = Web::new(move |request| ask(port, request));
    let host = format!("127.0.0.1:{}", web.port);
    let project = project(&host, 6_000_000);
    let plan = project.call("plan").success().text();
    assert!(plan.contains("3 blobs, 6.0 MB") && plan.contains("name team/app:latest"), "{plan}");
    assert_eq!(web.asked("POST"), 0, "a plan changes nothing");
    let done = project.run("").success().did(&["push.all"]);
    assert!((6_000_000..6_100_000).contains(&sent(&done, &host)));
    for tag in ["1", "latest"] {
        assert_eq!(holds(&registry, &format!("team/app:{tag}"))["layers"].as_array().unwrap().len(), 2);
    }
    let digest = registry.document("team/app", "1").2;
    assert_eq!(content_tag(&registry, "team/app"), [format!("vc-{}", &digest[7..23])]);
    // The image's own tag comes before those that move.
    let puts: Vec<String> = web
        .log()
        .iter()
        .filter(|request| request.method == "PUT" && request.path.contains("manifests"))
        .map(|request| request.path.rsplit('/').next().unwrap().to_string())
        .collect();
    assert_eq!(puts, [&format!("vc-{}", &digest[7..23]), "1", "latest"]);
    web.forget();
    project.run("").nothing();
    assert_eq!(web.log().iter().filter(|request| request.method != "HEAD").count(), 0);
    assert_eq!(web.log().len(), 3, "one look at each name");
    // An edit: its layer and the config.
    project.edit("app", |text| text.replace("the", "another"));
    let done = project.run("").success();
    assert!(sent(&done, &host) < 10_000, "{}", sent(&done, &host));
    assert_ne!(registry.document("team/app", "latest").2, digest);
    // Somebody moves a name: only that is put right.
    let (document, media_type, _) = registry.document("team/app", &digest);
    drop(document);
    let request =
        Request::new("GET", &format!("/v2/team/app/manifests/{digest}")).with("accept", &media_type);
    registry.put_document("team/app", "1", &media_type, &ask(port, &request).body);
    let done = project.run("").success().did(&["push.all"]);
    assert_eq!(sent(&done, &host), 0);
    assert_ne!(registry.document("team/app", "1").2, digest);
    // The cache may be gone.
    std::fs::remove_dir_all(project.cache("cas")).unwrap();
    project.run("").nothing();
}

#[test]
fn what_the_registry_has_elsewhere_is_taken_over() {
    let (_place, registry) = start();
    let (_made, base) = layout("base", 300_000);
    registry.put(&base, "team/base:1", &["--dest-compress"]);
    let port = registry.port();
    let web = Web::new(move |request| ask(port, request));
    let host = format!("127.0.0.1:{}", web.port);
    let project = on_a_base(&host);
    let done = project.run("").success();
    assert!(sent(&done, &host) < 10_000, "the base is not sent: {}", sent(&done, &host));
    let base = layers(&manifest(&registry, "team/base", "1"));
    for name in ["team/a", "other/b"] {
        let image = holds(&registry, &format!("{name}:1"));
        assert_eq!(layers(&image)[..2], base);
    }
    // Its layers never came to this machine.
    assert_eq!(web.asked("GET /v2/team/base/blobs"), 1);
    assert!(web.asked("POST /v2/team/a/blobs/uploads/?mount=sha256%3A") >= 2);
    assert!(pinned(&project).starts_with("sha256:"));
    project.run("").nothing();
}

#[test]
fn another_registry_gets_the_images() {
    let (_place, registry) = start();
    let host = registry.host();
    let project = project(&host, 1000);
    project.edit("vcbuild.toml", |text| {
        let text = text.replace(&format!("{host}/team/app:1"), "docker.io/team/app:1");
        text.replace(&format!(", \"{host}/team/app:latest\""), "") + &format!("to = \"{host}/mirror\"\n")
    });
    project.run("").success();
    holds(&registry, "mirror/team/app:1");
    project.edit("vcbuild.toml", |text| text.replace("tags = [\"docker.io/team/app:1\"]\n", ""));
    project.run("").success();
    assert_eq!(content_tag(&registry, "mirror/test/app").len(), 1);
    project.edit("vcbuild.toml", |text| text.replace(&format!("to = \"{host}/mirror\"\n"), ""));
    says(&project.run("").failure(1), &["`image.app` has no tags: nobody says where it goes"]);
    project.edit("vcbuild.toml", |text| text.to_string() + "to = \"https://r.example\"\n");
    says(&project.run("").failure(2), &["`https://r.example` is not a registry"]);
}

#[test]
fn who_is_not_there_is_deferred() {
    let (_place, registry) = start();
    let host = registry.host();
    let project = project(&host, 1000);
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let gone = format!("127.0.0.1:{gone}");
    project.edit("vcbuild.toml", |text| {
        insecure(&[&gone])
            + &text.replace(&format!("{host}/team/app:latest"), &format!("{gone}/team/app:1"))
    });
    let done = project.run("").failure(3);
    let event = done.event("push.all")["destinations"].to_string();
    assert!(event.contains("\"deferred\"") && event.contains("\"applied\""), "{event}");
    holds(&registry, "team/app:1");
    says(&project.run("--offline").failure(1), &["`--offline` forbids it"]);
}

#[test]
fn passwords_for_a_push() {
    let place = Project::new();
    let registry = Registry::start(&place.beside("registry"), Door::Password);
    let host = registry.host();
    let project = project(&host, 1000);
    let done = project.run("").failure(1);
    says(&done, &["it wants to know who asks"]);
    let config = project.beside("docker/config.json");
    std::fs::create_dir_all(config.parent().unwrap()).unwrap();
    std::fs::write(&config, format!(r#"{{"auths":{{"{host}":{{"auth":"dXNlcjp3b3Jk"}}}}}}"#)).unwrap();
    let project = project.env("DOCKER_CONFIG", config.parent().unwrap().to_str().unwrap());
    project.run("").success();
    project.run("").nothing();
}

/// A push of `size` bytes through a line that `spoil`s answers and cuts bodies as `cut` says; what went
/// through it.
fn through(
    size: usize,
    spoil: impl Fn(&Request, u16) -> Answer + Send + Sync + 'static,
    cut: impl Fn(&Request) -> Option<usize> + Send + Sync + 'static,
) -> Web {
    through_to(Make::Debian, size, spoil, cut)
}

/// As `through`, to a registry of this make.
pub fn through_to(
    make: Make,
    size: usize,
    spoil: impl Fn(&Request, u16) -> Answer + Send + Sync + 'static,
    cut: impl Fn(&Request) -> Option<usize> + Send + Sync + 'static,
) -> Web {
    let (_place, registry) = start_of(make);
    let port = registry.port();
    let web = Web::cutting(move |request| spoil(request, port), move |request| Some((port, cut(request)?)));
    let project = project(&format!("127.0.0.1:{}", web.port), size);
    project.run("").success();
    holds(&registry, "team/app:latest");
    project.run("").nothing();
    web
}

#[test]
fn an_upload_that_is_cut_comes_whole() {
    // This registry begins anew after a piece that was cut: pieces before it are kept by others only.
    let count = AtomicUsize::new(0);
    through(
        12_000_000,
        |request, port| ask(port, request),
        move |request| {
            let cuts = request.method == "PATCH" && count.fetch_add(1, Ordering::SeqCst) < 2;
            cuts.then_some(3_000_000)
        },
    );
}

#[test]
fn an_upload_goes_on_where_it_ended() {
    let (_place, registry) = start();
    let port = registry.port();
    // A registry that keeps what it got of a piece, as the specification has it.
    let (kept, begun) = (Mutex::new(BTreeMap::<String, Vec<u8>>::new()), AtomicUsize::new(0));
    let web = Web::new(move |request| {
        // Blobs come side by side, each in an upload of its own.
        let upload = request.path.split("session=").nth(1).unwrap_or_default();
        let mut kept = kept.lock().unwrap();
        let bytes = kept.entry(upload.split('&').next().unwrap().to_string()).or_default();
        let range = |bytes: &[u8]| format!("0-{}", bytes.len().saturating_sub(1));
        if !request.path.starts_with("/v2/team/app/blobs/uploads/kept") {
            let answer = ask(port, request);
            return match request.method.as_str() {
                "POST" => {
                    let session = begun.fetch_add(1, Ordering::SeqCst);
                    answer.with("location", &format!("/v2/team/app/blobs/uploads/kept?session={session}"))
                }
                _ => answer,
            };
        }
        match request.method.as_str() {
            "PATCH" => {
                let start: usize =
                    request.header("content-range").unwrap().split('-').next().unwrap().parse().unwrap();
                assert_eq!(start, bytes.len(), "it goes on where it ended");
                let part = request.body.len().min(5_000_000);
                bytes.extend_from_slice(&request.body[..part]);
                Answer::new(500, "")
            }
            "GET" => Answer::new(204, "").with("range", &range(bytes)),
            "PUT" => {
                // The whole goes on to the real one.
                let whole = [std::mem::take(bytes), request.body.clone()].concat();
                let begun = ask(port, &Request::new("POST", "/v2/team/app/blobs/uploads/"));
                let url = begun.header("location").unwrap().splitn(4, '/').nth(3).unwrap().to_string();
                let digest = request.path.split("digest=").nth(1).unwrap();
                let mut put = Request::new("PUT", &format!("/{url}&digest={digest}"));
                put.body = whole;
                ask(port, &put)
            }
            other => panic!("{other}"),
        }
    });
    let project = project(&format!("127.0.0.1:{}", web.port), 12_000_000);
    project.run("").success();
    holds(&registry, "team/app:1");
    assert_eq!(web.asked("PATCH"), 3);
}

#[test]
fn small_pieces_for_who_takes_no_others() {
    let web = through(
        12_000_000,
        |request, port| match request.body.len() > 1_500_000 {
            true => Answer::new(413, "too much"),
            false => ask(port, request),
        },
        |_| None,
    );
    assert!(web.asked("PATCH") >= 12);
}

#[test]
fn who_cuts_what_is_too_large_gets_small_pieces() {
    through(
        12_000_000,
        |request, port| ask(port, request),
        |request| {
            let length: usize = request.header("content-length")?.parse().unwrap();
            (length > 5_000_000).then_some(0)
        },
    );
}

#[test]
fn a_busy_registry_is_waited_for() {
    let counts = std::sync::Mutex::new(std::collections::BTreeMap::new());
    through(
        5_000_000,
        move |request, port| {
            let key = (request.method.clone(), request.path.split('?').next().unwrap().to_string());
            let count = {
                let mut counts = counts.lock().unwrap();
                let count: &mut usize = counts.entry(key).or_default();
                *count += 1;
                *count
            };
            match count {
                1 if request.method != "HEAD" => Answer::new(429, "").with("retry-after", "0"),
                2 if request.method == "PATCH" || request.method == "PUT" => Answer::new(503, ""),
                _ => ask(port, request),
            }
        },
        |_| None,
    );
}

#[test]
fn a_token_may_end_within_an_upload() {
    let (given, left) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let web = through(
        9_000_000,
        move |request, port| {
            if request.path.starts_with("/token?") {
                let both = "scope=repository%3Ateam%2Fapp%3Apull%2Cpush";
                assert!(request.path.contains(both), "{}", request.path);
                left.store(3, Ordering::SeqCst);
                let number = given.fetch_add(1, Ordering::SeqCst) + 1;
                return Answer::new(200, format!(r#"{{"access_token":"t{number}"}}"#));
            }
            let wanted = format!("Bearer t{}", given.load(Ordering::SeqCst));
            let known = request.header("authorization") == Some(&wanted);
            let use_up =
                || left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
            if !known || use_up().is_err() {
                let realm = format!("http://{}/token", request.header("host").unwrap());
                return Answer::new(401, "").with("www-authenticate", &format!("Bearer realm=\"{realm}\""));
            }
            ask(port, request)
        },
        |_| None,
    );
    assert!(web.asked("GET /token") > 3);
}

#[test]
fn a_registry_may_be_started_anew_within_an_upload() {
    restarted(Make::Debian);
}

/// Another process takes over in the middle of an upload.
pub fn restarted(make: Make) {
    let (place, registry) = start_of(make);
    let port = Arc::new(AtomicUsize::new(usize::from(registry.port())));
    let (first, slow) = (port.clone(), port.clone());
    let web = Web::cutting(
        move |request| ask(u16::try_from(slow.load(Ordering::SeqCst)).unwrap(), request),
        move |request| {
            let port = first.load(Ordering::SeqCst);
            // The first large piece hangs until the first registry is gone.
            (request.method == "PATCH" && port == usize::from(registry.port())).then(|| {
                std::thread::sleep(Duration::from_millis(10));
                (registry.port(), 2_000_000)
            })
        },
    );
    let project = project(&format!("127.0.0.1:{}", web.port), 9_000_000);
    // Another process of the registry takes over the same storage.
    let second = Registry::of(make, &place.beside("registry"));
    let second_port = usize::from(second.port());
    let watch = port.clone();
    let asked = std::thread::spawn(move || {
        while web.asked("PATCH") < 1 {
            std::thread::sleep(Duration::from_millis(5));
        }
        watch.store(second_port, Ordering::SeqCst);
        web
    });
    project.run("").success();
    drop(asked.join().unwrap());
    holds(&second, "team/app:1");
}

#[test]
fn a_registry_that_takes_something_else_is_not_believed() {
    let (_place, registry) = start();
    let port = registry.port();
    let zero = format!("sha256:{}", "0".repeat(64));
    for at in ["blobs", "manifests"] {
        let zero = zero.clone();
        let web = Web::new(move |request| {
            let answer = ask(port, request);
            match request.method == "PUT" && request.path.contains(at) {
                true => answer.with("docker-content-digest", &zero),
                false => answer,
            }
        });
        let project = project(&format!("127.0.0.1:{}", web.port), 1000 + at.len());
        says(&project.run("").failure(1), &["it took `sha256:0000"]);
    }
    // One that forgets a name at once.
    let web = Web::new(move |request| match request.method.as_str() {
        "HEAD" if request.path.contains("manifests") => Answer::new(404, ""),
        _ => ask(port, request),
    });
    let project = project(&format!("127.0.0.1:{}", web.port), 3000);
    says(&project.run("").failure(1), &["was sent, but it is not there as it was sent"]);
    let web = Web::new(move |request| match request.method.as_str() {
        "PATCH" => Answer::new(202, "").with("location", "/v2/x").with("range", "0-5"),
        _ => ask(port, request),
    });
    let project = self::project(&format!("127.0.0.1:{}", web.port), 9_000_000);
    project.run("").failure(1);
}
