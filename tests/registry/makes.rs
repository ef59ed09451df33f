//! The same with registries of other makes: distribution 3, also with tokens, and the one within crane.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::push::{holds, on_a_base, project, restarted, sent, start_of, through_to};
use super::{insecure, layers, manifest, on, pinned, read_layout};
use crate::support::Project;
use crate::support::registry::{Make, Registry, Tokens, layout};
use crate::support::web::{Answer, Web, ask};

macro_rules! with_both {
    ($($name:ident)*) => {$(
        mod $name {
            use crate::support::registry::Make;

            #[test]
            fn distribution3() {
                super::$name(Make::Distribution3);
            }

            #[test]
            fn crane() {
                super::$name(Make::Crane);
            }
        }
    )*};
}

with_both! {
    what_is_pushed_is_read
    a_base_is_pulled
    a_base_is_taken_over
    a_cut_upload_comes_whole
    small_pieces
    started_anew_within_an_upload
}

fn what_is_pushed_is_read(make: Make) {
    let (_place, registry) = start_of(make);
    let host = registry.host();
    let project = project(&host, 6_000_000);
    let done = project.run("").success();
    assert!((6_000_000..6_100_000).contains(&sent(&done, &host)));
    for tag in ["1", "latest"] {
        assert_eq!(holds(&registry, &format!("team/app:{tag}"))["layers"].as_array().unwrap().len(), 2);
    }
    project.run("").nothing();
    project.edit("app", |text| text.replace("the", "another"));
    let done = project.run("").success();
    assert!(sent(&done, &host) < 10_000, "{}", sent(&done, &host));
    holds(&registry, "team/app:latest");
    project.run("").nothing();
}

fn a_base_is_pulled(make: Make) {
    let (_place, registry) = start_of(make);
    let (_made, base) = layout("base", 300_000);
    registry.put(&base, "team/base:1", &["--dest-compress"]);
    let host = registry.host();
    let project = on(&format!("{host}/team/base:1"), &insecure(&[&host]));
    project.run("").success();
    let got = read_layout(&project, "image.app");
    assert_eq!(layers(&got)[..2], layers(&manifest(&registry, "team/base", "1")));
    assert_eq!(pinned(&project), registry.document("team/base", "1").2);
}

fn a_base_is_taken_over(make: Make) {
    let (_place, registry) = start_of(make);
    let (_made, base) = layout("base", 300_000);
    registry.put(&base, "team/base:1", &["--dest-compress"]);
    let host = registry.host();
    let project = on_a_base(&host);
    let done = project.run("").success();
    assert!(sent(&done, &host) < 10_000, "the base is not sent: {}", sent(&done, &host));
    let base = layers(&manifest(&registry, "team/base", "1"));
    for name in ["team/a", "other/b"] {
        assert_eq!(layers(&holds(&registry, &format!("{name}:1")))[..2], base);
    }
    project.run("").nothing();
}

fn a_cut_upload_comes_whole(make: Make) {
    let count = AtomicUsize::new(0);
    through_to(
        make,
        12_000_000,
        |request, port| ask(port, request),
        move |request| {
            let cuts = request.method == "PATCH" && count.fetch_add(1, Ordering::SeqCst) < 2;
            cuts.then_some(3_000_000)
        },
    );
}

fn small_pieces(make: Make) {
    let web = through_to(
        make,
        12_000_000,
        |request, port| match request.body.len() > 1_500_000 {
            true => Answer::new(413, "too much"),
            false => ask(port, request),
        },
        |_| None,
    );
    assert!(web.asked("PATCH") >= 12);
}

fn started_anew_within_an_upload(make: Make) {
    restarted(make);
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[test]
fn tokens_that_end_within_an_upload() {
    let place = Project::new();
    let tokens = Arc::new(Tokens::new(&place.beside("tokens")));
    let port = Arc::new(AtomicUsize::new(0));
    let (behind, signing, slow) = (port.clone(), tokens.clone(), AtomicUsize::new(0));
    let web = Web::new(move |request| {
        if request.path.starts_with("/token?") {
            // A registry takes tokens for a minute more than it says: these live for three seconds.
            return Answer::new(200, signing.give(request, now() - 57));
        }
        if request.method == "PATCH" && slow.fetch_add(1, Ordering::SeqCst) == 0 {
            std::thread::sleep(Duration::from_secs(5));
        }
        ask(u16::try_from(behind.load(Ordering::SeqCst)).unwrap(), request)
    });
    let host = format!("127.0.0.1:{}", web.port);
    let registry =
        Registry::with_tokens(&place.beside("registry"), &tokens, &format!("http://{host}/token"));
    port.store(usize::from(registry.port()), Ordering::SeqCst);
    let project = project(&host, 9_000_000);
    let done = project.run("").success();
    assert!((9_000_000..9_100_000).contains(&sent(&done, &host)));
    assert!(web.asked("PATCH") >= 2, "the first was refused");
    assert!(web.asked("GET /token") >= 2);
    project.run("").nothing();
    // Reading it asks for a token of its own.
    let reader = on(&format!("{host}/team/app:1"), &insecure(&[&host]));
    reader.run("").success();
    assert_eq!(read_layout(&reader, "image.app")["layers"].as_array().unwrap().len(), 3);
}
