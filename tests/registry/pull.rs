//! Bases: pinned, fetched when they are needed and once, by every road that is declared.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::{insecure, layers, manifest, on, pinned, read_layout, says};
use crate::support::registry::{Door, Registry, layout};
use crate::support::web::{Answer, Request, Web, ask};
use crate::support::{Done, Project};

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// A registry with an image `team/base:1`, its layers in gzip.
fn registry(project: &Project, door: Door) -> Registry {
    let registry = Registry::start(&project.beside("registry"), door);
    let (_made, layout) = layout("base", 300_000);
    registry.put(&layout, "team/base:1", &["--dest-compress"]);
    registry
}

#[track_caller]
fn holds(project: &Project, registry: &Registry) {
    let base = manifest(registry, "team/base", "1");
    let got = read_layout(project, "image.app");
    assert_eq!(layers(&got)[..2], layers(&base), "the layers are kept as they are");
    assert_eq!(got["layers"][0]["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
}

#[test]
fn a_base_is_pinned_and_comes_once_and_late() {
    let place = Project::new();
    let registry = registry(&place, Door::Open);
    let port = registry.port();
    let web = Web::new(move |request| ask(port, request));
    let host = format!("127.0.0.1:{}", web.port);
    let project = on(&format!("{host}/team/base:1"), &insecure(&[&host]));
    project.run("").success().did(&["image.app"]);
    assert_eq!(pinned(&project), registry.document("team/base", "1").2);
    // Manifest and config, and no layer.
    assert_eq!((web.asked("GET /v2/team/base/manifests"), web.asked("GET /v2/team/base/blobs")), (1, 1));
    project.run("").nothing();
    assert_eq!(web.log().len(), 2);
    holds(&project, &registry);
    assert_eq!(web.asked("GET /v2/team/base/blobs"), 3);
    // The tag moves, the image does not.
    let (_made, other) = layout("other", 1000);
    registry.put(&other, "team/base:1", &[]);
    project.edit("app", |text| text.replace("the", "another"));
    project.run("").success().did(&["image.app"]);
    read_layout(&project, "image.app");
    let asked = web.log().len();
    assert_eq!(asked, 4, "nothing more was asked");
    project.run("--offline").nothing();
    let before = pinned(&project);
    let said = project.call("update").success().text();
    assert!(said.contains(&format!("{before} -> sha256:")), "{said}");
    project.run("").success().did(&["image.app"]);
    holds(&project, &registry);
    assert!(project.call("update").success().text().contains(": still sha256:"));
}

#[test]
fn a_base_without_change_keeps_its_digest() {
    let place = Project::new();
    let registry = registry(&place, Door::Open);
    let (_made, layout) = layout("docker", 2000);
    registry.put(&layout, "team/docker:1", &["--format", "v2s2", "--dest-compress"]);
    for name in ["base", "docker"] {
        let host = registry.host();
        let text = format!("{}[image.same]\nbase = \"{host}/team/{name}:1\"\n", insecure(&[&host]));
        let project = Project::new().config(&text);
        project.run("").success();
        let (document, media_type, digest) = registry.document(&format!("team/{name}"), "1");
        assert_eq!(media_type.contains("docker"), name == "docker");
        assert_eq!(pinned(&project), digest);
        assert_eq!(read_layout(&project, "image.same"), document);
        let text = std::fs::read_to_string(project.path("got/index.json")).unwrap();
        assert!(text.contains(&digest), "{text}");
    }
}

#[test]
fn an_index_gives_the_platforms_image() {
    let place = Project::new();
    let registry = registry(&place, Door::Open);
    let (_, media_type, digest) = registry.document("team/base", "1");
    let (_made, other) = layout("other", 1000);
    registry.put(&other, "team/base:other", &["--format", "v2s2"]);
    let (_, other_type, other_digest) = registry.document("team/base", "other");
    let length = |digest: &str| {
        let request = Request::new("GET", &format!("/v2/team/base/manifests/{digest}"));
        ask(registry.port(), &request.with("accept", &format!("{media_type}, {other_type}"))).body.len()
    };
    let here = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    let one = |media_type: &str, digest: &str, architecture: &str| {
        format!(
            r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{},"platform":{{"os":"linux","architecture":"{architecture}"}}}}"#,
            length(digest)
        )
    };
    for (tag, list_type) in [("oci", OCI_INDEX), ("docker", DOCKER_LIST)] {
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"{list_type}","manifests":[{},{}]}}"#,
            one(&other_type, &other_digest, "riscv64"),
            one(&media_type, &digest, here)
        );
        let top = registry.put_document("team/base", tag, list_type, text.as_bytes());
        for reference in [format!(":{tag}"), format!("@{top}")] {
            let host = registry.host();
            let project = on(&format!("{host}/team/base{reference}"), &insecure(&[&host]));
            project.run("").success();
            assert_eq!(pinned(&project), digest);
            holds(&project, &registry);
        }
        let none = text.replace(here, "s390x");
        registry.put_document("team/base", "none", list_type, none.as_bytes());
        let host = registry.host();
        let project = on(&format!("{host}/team/base:none"), &insecure(&[&host]));
        let done = project.run("").failure(1);
        says(&done, &["there is no image for `linux/", "there is one for: `linux/riscv64`, `linux/s390x`"]);
    }
}

#[test]
fn what_is_lost_comes_again() {
    let place = Project::new();
    let registry = registry(&place, Door::Open);
    let host = registry.host();
    let project = on(&format!("{host}/team/base:1"), &insecure(&[&host]));
    project.run("").success();
    holds(&project, &registry);
    std::fs::remove_dir_all(project.cache("cas/sha256")).unwrap();
    project.run("").nothing();
    holds(&project, &registry);
    // Also with the records gone, and then damaged bytes.
    std::fs::remove_dir_all(project.root().join("cache")).unwrap();
    project.run("--locked").success();
    holds(&project, &registry);
    for file in crate::support::folder::files(&project.cache("cas/sha256")) {
        let path = project.cache("cas/sha256").join(file);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[0] ^= 1;
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, bytes).unwrap();
    }
    project.settle();
    holds(&project, &registry);
}

#[test]
fn offline_asks_nobody() {
    let place = Project::new();
    let registry = registry(&place, Door::Open);
    let host = registry.host();
    let project = on(&format!("{host}/team/base:1"), &insecure(&[&host]));
    let done = project.run("--offline").failure(1);
    says(&done, &["would have to be asked, and `--offline` forbids it"]);
    let done = project.run("--locked").failure(1);
    says(&done, &["is not pinned in `vcbuild.lock`"]);
    project.run("").success();
    let done = project.call("get image.app -o got --offline").failure(1);
    says(&done, &["`--offline` forbids it"]);
    holds(&project, &registry);
    project.edit("app", |text| text.replace("the", "another"));
    project.run("--offline").success().did(&["image.app"]);
    project.call("get image.app -o got --offline --force").success();
}

#[test]
fn http_is_spoken_only_when_that_is_said() {
    let place = Project::new();
    let registry = registry(&place, Door::Open);
    let host = registry.host();
    let project = on(&format!("{host}/team/base:1"), "");
    let done = project.run("").failure(1);
    says(&done, &["it does not speak TLS", &format!("`[registry.\"{host}\"] insecure = true`")]);
}

#[test]
fn tls_with_an_own_authority() {
    let place = Project::new();
    let registry = registry(&place, Door::Tls);
    let host = registry.host();
    let base = format!("{host}/team/base:1");
    let done = on(&base, "");
    let done = done.run("").failure(1);
    says(&done, &["its certificate is not trusted: nobody whom we trust has signed it", "ca = \"FILE\""]);
    let own = on(&base, &format!("[registry.\"{host}\"]\nca = \"own.pem\"\n"));
    let done = own.run("").failure(1);
    says(&done, &["own.pem` do not exist"]);
    std::fs::copy(registry.authority(), own.path("own.pem")).unwrap();
    own.run("").success();
    read_layout(&own, "image.app");
    let by_environment = on(&base, "").env("SSL_CERT_FILE", registry.authority().to_str().unwrap());
    by_environment.run("").success();
    assert_eq!(pinned(&by_environment), pinned(&own));
}

/// Nothing that vcbuild says or keeps holds a secret.
#[track_caller]
fn keeps_quiet(project: &Project, done: &Done<'_>, secrets: &[&str]) {
    let mut texts = vec![done.stderr.clone().into_bytes(), done.stdout.clone()];
    texts.push(std::fs::read(project.path("vcbuild.lock")).unwrap_or_default());
    for file in crate::support::folder::files(&project.root().join("cache")) {
        texts.push(std::fs::read(project.root().join("cache").join(file)).unwrap());
    }
    for secret in secrets {
        let found =
            texts.iter().any(|text| text.windows(secret.len()).any(|part| part == secret.as_bytes()));
        assert!(!found, "`{secret}` is somewhere");
    }
}

#[test]
fn passwords_are_those_of_docker_login() {
    let place = Project::new();
    let registry = registry(&place, Door::Password);
    let host = registry.host();
    let project = on(&format!("{host}/team/base:1"), &insecure(&[&host]));
    let done = project.run("").failure(1);
    says(&done, &["it wants to know who asks", &format!("`docker login {host}`")]);
    let config = project.beside("home/.docker/config.json");
    std::fs::create_dir_all(config.parent().unwrap()).unwrap();
    let login = |auth: &str| format!(r#"{{"auths":{{"{host}":{{"auth":"{auth}"}}}}}}"#);
    // user:wrong-secret
    std::fs::write(&config, login("dXNlcjp3cm9uZy1zZWNyZXQ=")).unwrap();
    let done = project.run("").failure(1);
    says(&done, &["it does not take what we show"]);
    keeps_quiet(&project, &done, &["wrong-secret", "dXNlcjp3cm9uZy1zZWNyZXQ="]);
    // user:word
    std::fs::write(&config, login("dXNlcjp3b3Jk")).unwrap();
    let done = project.run("").success();
    keeps_quiet(&project, &done, &["dXNlcjp3b3Jk", "user:word"]);
    read_layout(&project, "image.app");
}

/// A registry that wants tokens, by way of a token server: each token is good for one request.
fn with_tokens(port: u16) -> Web {
    let tokens = std::sync::Mutex::new(Vec::<bool>::new());
    Web::new(move |request| {
        let host = request.header("host").unwrap();
        let mut tokens = tokens.lock().unwrap();
        if request.path.starts_with("/token?") {
            let login = request.header("authorization").unwrap_or_default();
            // user:word
            if login != "Basic dXNlcjp3b3Jk" || !request.path.contains("service=test+registry") {
                return Answer::new(401, "{}");
            }
            assert!(request.path.contains("scope=repository%3Ateam%2Fbase%3Apull"), "{}", request.path);
            tokens.push(true);
            return Answer::new(200, format!(r#"{{"token":"secret-token-{}"}}"#, tokens.len()));
        }
        let shown =
            request.header("authorization").and_then(|text| text.strip_prefix("Bearer secret-token-"));
        let token = shown.and_then(|number| tokens.get_mut(number.parse::<usize>().ok()? - 1));
        if !token.is_some_and(std::mem::take) {
            let challenge = format!(
                r#"Bearer realm="http://{host}/token",service="test registry",scope="repository:team/base:pull""#
            );
            return Answer::new(401, "{}").with("www-authenticate", &challenge);
        }
        ask(port, request)
    })
}

#[test]
fn tokens_are_asked_for_and_renewed() {
    let place = Project::new();
    let registry = registry(&place, Door::Open);
    let web = with_tokens(registry.port());
    let host = format!("127.0.0.1:{}", web.port);
    let project = on(&format!("{host}/team/base:1"), &insecure(&[&host]));
    let done = project.run("").failure(1);
    says(&done, &["it wants to know who asks"]);
    let config = project.beside("home/.docker/config.json");
    std::fs::create_dir_all(config.parent().unwrap()).unwrap();
    let login = format!(r#"{{"auths":{{"http://{host}/v2/":{{"username":"user","password":"word"}}}}}}"#);
    std::fs::write(&config, login).unwrap();
    web.forget();
    let done = project.run("").success();
    // Each token is good for one request: the second request gets another.
    assert_eq!(web.asked("GET /token"), 2);
    holds(&project, &registry);
    keeps_quiet(&project, &done, &["secret-token", "dXNlcjp3b3Jk"]);
}

#[test]
fn a_token_server_without_tls_gets_no_password() {
    let place = Project::new();
    let registry = registry(&place, Door::Open);
    let web = Web::new(|_| {
        Answer::new(401, "").with("www-authenticate", r#"Bearer realm="ftp://127.0.0.1/token",service="x""#)
    });
    let host = format!("127.0.0.1:{}", web.port);
    let project = on(&format!("{host}/team/base:1"), &insecure(&[&host]));
    let done = project.run("").failure(1);
    says(&done, &["it sends us for a token to where no secret may go"]);
    drop(registry);
}

#[test]
fn mirrors_are_asked_first() {
    let place = Project::new();
    let registry = registry(&place, Door::Open);
    let port = registry.port();
    let origin = Web::new(move |request| ask(port, request));
    // One is not there, one has nothing, one lies, one has it under a path of its own.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let empty = Web::new(|_| Answer::new(404, r#"{"errors":[{"code":"NAME_UNKNOWN"}]}"#));
    let liar = Web::new(move |request| {
        let mut answer = ask(port, request);
        answer.body.push(b' ');
        answer
    });
    let good = Web::new(move |request| {
        let mut request = request.clone();
        request.path = request.path.replace("/v2/cache/origin/", "/v2/");
        ask(port, &request)
    });
    let hosts: Vec<String> = [gone, empty.port, liar.port, good.port, origin.port]
        .map(|port| format!("127.0.0.1:{port}"))
        .to_vec();
    let settings = format!(
        "{}[registry.\"{}\"]\ninsecure = true\nmirrors = [\"{}\", \"{}\", \"{}\", \"{}/cache/origin\"]\n",
        insecure(&[&hosts[0], &hosts[1], &hosts[2], &hosts[3]]),
        hosts[4],
        hosts[0],
        hosts[1],
        hosts[2],
        hosts[3]
    );
    let project = on(&format!("{}/team/base:1", hosts[4]), &settings);
    project.run("").success();
    holds(&project, &registry);
    assert_eq!(origin.log().len(), 0);
    assert!(empty.log().len() > 1 && liar.log().len() > 1 && good.log().len() > 3);
}

#[test]
fn proxies_of_the_environment_are_used() {
    let place = Project::new();
    let registry = registry(&place, Door::Open);
    let port = registry.port();
    let proxy = Web::new(move |request| {
        let mut request = request.clone();
        let path = request.path.strip_prefix("http://").expect("a whole address");
        request.path = path[path.find('/').unwrap()..].to_string();
        ask(port, &request)
    });
    let host = "registry.invalid:80";
    let project = on(&format!("{host}/team/base:1"), &insecure(&[host]))
        .env("HTTP_PROXY", format!("http://name:hidden@127.0.0.1:{}", proxy.port));
    let done = project.run("").success();
    assert_eq!(proxy.log().len(), 2);
    assert!(proxy.log()[0].header("proxy-authorization").is_some());
    keeps_quiet(&project, &done, &["hidden"]);
    let project = project.env("NO_PROXY", ".invalid");
    std::fs::remove_dir_all(project.root().join("cache")).unwrap();
    let done = project.run("").failure(1);
    says(&done, &["registry.invalid"]);
    assert_eq!(proxy.log().len(), 2);
}

/// The line of a registry with an image, spoiled by `spoil`, which sees how often a path was asked for.
fn spoiled(
    spoil: impl Fn(&Request, usize, Answer) -> Answer + Send + Sync + 'static,
) -> (Project, Registry, Web, Project) {
    let place = Project::new();
    let registry = registry(&place, Door::Open);
    let port = registry.port();
    let counts = std::sync::Mutex::new(std::collections::BTreeMap::new());
    let web = Web::new(move |request| {
        let count = {
            let mut counts = counts.lock().unwrap();
            let count: &mut usize = counts.entry(request.path.clone()).or_default();
            *count += 1;
            *count
        };
        spoil(request, count, ask(port, request))
    });
    let host = format!("127.0.0.1:{}", web.port);
    let project = on(&format!("{host}/team/base:1"), &insecure(&[&host]));
    (place, registry, web, project)
}

#[test]
fn a_line_that_is_cut_goes_on_where_it_was() {
    let (_place, registry, web, project) = spoiled(|request, _, mut answer| {
        // A part of each blob's rest, again and again.
        if request.path.contains("/blobs/") && answer.body.len() > 100_000 {
            answer.length = Some(answer.body.len());
            answer.cut = Some(90_000);
        }
        answer
    });
    project.run("").success();
    holds(&project, &registry);
    let ranges: Vec<String> =
        web.log().iter().filter_map(|request| Some(request.header("range")?.to_string())).collect();
    assert_eq!(ranges, ["bytes=90000-", "bytes=180000-", "bytes=270000-"][..ranges.len()]);
    assert!(ranges.len() >= 2);
}

#[test]
fn who_knows_no_ranges_sends_all_of_it_again() {
    let place = Project::new();
    let registry = registry(&place, Door::Open);
    let (port, calls) = (registry.port(), AtomicUsize::new(0));
    let web = Web::new(move |request| {
        let mut request = request.clone();
        request.headers.retain(|(name, _)| name != "range");
        let mut answer = ask(port, &request);
        if answer.body.len() > 100_000 {
            let call = calls.fetch_add(1, Ordering::SeqCst);
            answer.length = Some(answer.body.len());
            answer.cut = Some(70_000 + 120_000 * call);
        }
        answer
    });
    let host = format!("127.0.0.1:{}", web.port);
    let project = on(&format!("{host}/team/base:1"), &insecure(&[&host]));
    project.run("").success();
    holds(&project, &registry);
    assert!(web.log().iter().filter(|request| request.header("range").is_some()).count() >= 2);
}

#[test]
fn what_passes_is_waited_for() {
    for (status, after) in [(429, Some("1")), (503, None), (500, None)] {
        let (_place, registry, web, project) = spoiled(move |_, count, answer| match (count, after) {
            (1 | 2, None) => Answer::new(status, "busy"),
            (1, Some(after)) => Answer::new(status, "busy").with("retry-after", after),
            _ => answer,
        });
        let start = std::time::Instant::now();
        project.run("").success();
        assert!(web.log().len() >= 4);
        if after.is_some() {
            assert!(start.elapsed() >= std::time::Duration::from_secs(2), "two waits of a second");
        }
        holds(&project, &registry);
    }
}

#[test]
fn documents_that_are_cut_come_again() {
    let (_place, registry, web, project) = spoiled(|_, count, mut answer| {
        if count == 1 {
            answer.length = Some(answer.body.len());
            answer.cut = Some(answer.body.len() / 2);
        }
        answer
    });
    project.run("").success();
    assert_eq!(web.log().len(), 4);
    holds(&project, &registry);
}

#[test]
fn what_does_not_pass_ends() {
    let (_place, _registry, web, project) =
        spoiled(|_, _, _| Answer::new(429, "").with("retry-after", "86400"));
    let done = project.run("").failure(1);
    says(&done, &["it answers 429, and wants to be left alone for 86400 s"]);
    assert_eq!(web.log().len(), 1);
    let (_place, _registry, web, project) = spoiled(|_, _, _| Answer::new(503, ""));
    let done = project.run("").failure(1);
    says(&done, &["it answers 503 (6 times)"]);
    assert_eq!(web.log().len(), 6);
    let words = r#"{"errors":[{"code":"DENIED","message":"no such\u001b[31m user"}]}"#;
    let (_place, _registry, _web, project) = spoiled(move |_, _, _| Answer::new(403, words));
    let done = project.run("").failure(1);
    says(&done, &["read `team/base:1`: it answers 403 (no such[31m user)", "may not do that"]);
}

#[test]
fn slow_is_not_dead() {
    let (_place, registry, _web, project) = spoiled(|_, _, mut answer| {
        answer.slow = Some(20_000);
        answer
    });
    project.run("").success();
    holds(&project, &registry);
}

#[test]
fn a_registry_may_send_us_elsewhere_without_our_secrets() {
    let place = Project::new();
    let registry = registry(&place, Door::Password);
    let port = registry.port();
    // user:word
    let store = Web::new(move |request| {
        assert_eq!(request.header("authorization"), None, "a secret went elsewhere");
        assert!(request.path.ends_with("?signature=hidden"));
        let path = request.path.trim_end_matches("?signature=hidden");
        let request = Request::new("GET", path).with("authorization", "Basic dXNlcjp3b3Jk");
        ask(port, &request)
    });
    let store_port = store.port;
    let front = Web::new(move |request| {
        if request.path.contains("/blobs/") && request.header("authorization").is_some() {
            let to = format!("http://127.0.0.1:{store_port}{}?signature=hidden", request.path);
            return Answer::new(307, "").with("location", &to);
        }
        ask(port, request)
    });
    let host = format!("127.0.0.1:{}", front.port);
    let project = on(&format!("{host}/team/base:1"), &insecure(&[&host]));
    let config = project.beside("home/.docker/config.json");
    std::fs::create_dir_all(config.parent().unwrap()).unwrap();
    std::fs::write(&config, format!(r#"{{"auths":{{"{host}":{{"auth":"dXNlcjp3b3Jk"}}}}}}"#)).unwrap();
    project.run("").success();
    read_layout(&project, "image.app");
    assert!(store.log().len() >= 3);
    drop(store);
}
