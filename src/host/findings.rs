//! What of a host would stop or spoil a delivery, or lose it again, and what to do about it. Asks nothing.

use std::collections::BTreeMap;

use serde_json::Value;

use super::health::{Health, Said};
use super::ssh::Address;

/// Space below which a delivery is likely to fail, in bytes.
const LITTLE: u64 = 2 << 30;
/// A clock that is off by more than this makes logs and certificates lie, in seconds.
const OFF: i64 = 30;
/// From how full a disk on kubelet collects images, in percent, unless it is told otherwise.
const HIGH: u64 = 85;
/// How little room kubelet may leave for images without a word about it, in percent.
const EARLY: u64 = 70;

/// What is worth a word of a host whose images need so many more bytes.
pub fn of(health: &Health, address: &Address, needs: u64) -> Vec<Said> {
    let mut all = Vec::new();
    containerd(health, address, &mut all);
    pins(health, &mut all);
    kubelet(health, &mut all);
    room(health, needs, &mut all);
    machine(health, &mut all);
    all
}

fn note(message: impl Into<String>, hint: &str) -> Said {
    Said { bad: false, message: message.into(), hint: (!hint.is_empty()).then(|| hint.to_string()) }
}

fn wrong(message: impl Into<String>, hint: &str) -> Said {
    Said { bad: true, ..note(message, hint) }
}

fn containerd(health: &Health, address: &Address, all: &mut Vec<Said>) {
    let socket = &address.containerd;
    let root = health.fact("id") == Some("0");
    match (health.fact("ctr"), health.fact("server"), health.fact("refused")) {
        (None, ..) => all.push(note(
            format!("there is no `{}`: images cannot be imported", address.ctr.join(" ")),
            "install containerd, or say where it is: `ctr = [\"/path/to/ctr\"]`",
        )),
        (Some(ctr), Some(server), _) => {
            if numbers(ctr).first() != numbers(server).first() {
                all.push(note(
                    format!("`ctr` is of version {ctr}, containerd is {server}"),
                    "name the one that came with it: `ctr = [\"/path/to/ctr\"]`",
                ));
            }
            if health.fact("kubelet").is_some() && health.fact("namespace").is_none() {
                all.push(note(
                    format!("containerd at `{socket}` has no namespace `k8s.io`: kubelet may use another"),
                    "see what kubelet is told as `containerRuntimeEndpoint`, and say it: `containerd = \"…\"`",
                ));
            }
        }
        (Some(_), None, Some(why))
            if !root && (why.contains("permission denied") || health.fact("socket").is_none()) =>
        {
            all.push(wrong(
                format!("containerd at `{socket}` is for root only"),
                "become root: `sudo = true`",
            ));
        }
        (Some(_), None, _) => all.push(wrong(
            format!("containerd does not answer at `{socket}`"),
            "look at it there: `systemctl status containerd`; if it listens elsewhere: `containerd = \"…\"`",
        )),
    }
    if health.fact("discard") == Some("true") {
        all.push(note(
            "containerd throws layers away once they are unpacked: only what is unpacked is kept",
            "",
        ));
    }
}

fn pins(health: &Health, all: &mut Vec<Said>) {
    let Some(server) = health.fact("server") else { return };
    let again = "the next run sends what is gone";
    match health.fact("cri").and_then(|cri| unpinned(cri, health.fact("labelled").unwrap_or_default())) {
        // What CRI itself says counts more than what is known of versions.
        Some(0) => {}
        Some(count) => {
            let images = if count == 1 { "image" } else { "images" };
            all.push(note(
                format!("CRI does not report {count} {images} of ours as pinned: kubelet may collect what no pod uses"),
                again,
            ));
        }
        None if pins_are_ignored(server) => all.push(note(
            format!("containerd {server} tells kubelet of no pins: it may collect images that no pod uses"),
            &format!("{again}; containerd 1.6.25, 1.7.10 and 2 honour pins"),
        )),
        None => {}
    }
    if let Some(kubelet) = health.fact("kubelet").filter(|kubelet| collects_pinned(kubelet)) {
        all.push(note(
            format!("kubelet {kubelet} collects pinned images, too"),
            &format!(
                "{again}; kubelet 1.25.14, 1.26.9, 1.27.6, 1.28.2 and all later ones leave them alone"
            ),
        ));
    }
}

fn kubelet(health: &Health, all: &mut Vec<Said>) {
    if health.fact("kubelet").is_some() && health.fact("config").is_none() {
        all.push(note(
            "`/var/lib/kubelet/config.yaml` cannot be read: when kubelet collects images is not known",
            if health.fact("id") == Some("0") { "" } else { "become root: `sudo = true`" },
        ));
    }
    if health.fact("config").is_some() {
        let high = health.number("imageGCHighThresholdPercent").unwrap_or(HIGH);
        match health.number("full") {
            Some(full) if full >= high => all.push(note(
                format!("the disk is {full} % full, and from {high} % on kubelet collects images that no pod uses"),
                "make room on the disk of `/var/lib/containerd`, or raise `imageGCHighThresholdPercent`",
            )),
            _ if high < EARLY => {
                all.push(note(format!("kubelet collects images when the disk is {high} % full"), ""));
            }
            _ => {}
        }
    }
    if let Some(age) = health.fact("imageMaximumGCAge").filter(|age| *age != "0s") {
        all.push(note(format!("kubelet collects images that no pod has used for {age}"), ""));
    }
}

fn room(health: &Health, needs: u64, all: &mut Vec<Said>) {
    let room = "make room on the disk of `/var/lib/containerd`";
    let shown = |bytes: u64| match bytes {
        1_000_000_000.. => format!("{:.1} GB", bytes as f64 / 1e9),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    };
    match health.number("free") {
        Some(free) if free < needs => all.push(wrong(
            format!("{} are free, and the images that it lacks take {}", shown(free), shown(needs)),
            room,
        )),
        Some(free) if free < LITTLE => {
            all.push(wrong(format!("only {} are free for images", shown(free)), room));
        }
        _ => {}
    }
    if health.number("inodes").is_some_and(|inodes| inodes < 10_000 && inodes > 0) {
        all.push(wrong("almost no inodes are left for images", room));
    }
}

fn machine(health: &Health, all: &mut Vec<Said>) {
    if health.fact("flock").is_none() {
        all.push(note("there is no `flock`: two runs at once are not kept apart", "install util-linux"));
    }
    if health.fact("zstd").is_none() {
        all.push(note("there is no `zstd`: files are sent as they are", "install zstd"));
    }
    if health.clock().abs() > OFF {
        all.push(note(
            format!("its clock is off by {} s", health.clock()),
            "let it take the time from somewhere: chrony, systemd-timesyncd",
        ));
    }
}

/// How many of these names CRI lists, but not as pinned; `None` if it lists none of them.
fn unpinned(cri: &str, labelled: &str) -> Option<usize> {
    let said: Value = serde_json::from_str(cri).ok()?;
    let mut pinned: BTreeMap<&str, bool> = BTreeMap::new();
    for image in said.get("images")?.as_array()? {
        let is = image.get("pinned").and_then(Value::as_bool).unwrap_or(false);
        for tag in image["repoTags"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            pinned.insert(tag, is);
        }
    }
    let listed: Vec<bool> =
        labelled.split_whitespace().filter_map(|name| pinned.get(name).copied()).collect();
    (!listed.is_empty()).then(|| listed.iter().filter(|pinned| !**pinned).count())
}

/// The numbers of a version: `v1.6.20~ds1` is 1, 6 and 20.
fn numbers(version: &str) -> Vec<u32> {
    let digits =
        |part: &str| part.chars().take_while(char::is_ascii_digit).collect::<String>().parse::<u32>().ok();
    version.trim_start_matches('v').split('.').map_while(digits).collect()
}

/// Whether CRI in this containerd does not honour pins.
fn pins_are_ignored(version: &str) -> bool {
    match numbers(version).as_slice() {
        [1, 6, patch, ..] => *patch < 25,
        [1, 7, patch, ..] => *patch < 10,
        [1, minor, ..] => *minor < 6,
        _ => false,
    }
}

/// Whether this kubelet does not know what CRI says of pins.
fn collects_pinned(version: &str) -> bool {
    match numbers(version).as_slice() {
        [1, 25, patch, ..] => *patch < 14,
        [1, 26, patch, ..] => *patch < 9,
        [1, 27, patch, ..] => *patch < 6,
        [1, 28, patch, ..] => *patch < 2,
        [1, minor, ..] => *minor < 25,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What images take in these tests.
    const NEEDS: u64 = 1_500_000_000;

    /// What is said of a healthy host with other facts.
    fn said(facts: &[(&str, &str)]) -> Vec<String> {
        let usual = [
            ("id", "0"),
            ("socket", "there"),
            ("ctr", "v2.1.9"),
            ("server", "v2.1.9"),
            ("namespace", "there"),
            ("free", "99000000000"),
            ("full", "40"),
            ("flock", "there"),
            ("zstd", "there"),
        ];
        let all = usual.iter().chain(facts).map(|(name, value)| (name.to_string(), value.to_string()));
        let mut all: BTreeMap<String, String> = all.collect();
        all.retain(|_, value| !value.is_empty());
        let health = Health::from_facts(all, 0);
        let address = Address {
            target: "h".into(),
            config: None,
            key: crate::host::ssh::Key::Strict,
            sudo: false,
            containerd: "/run/c.sock".into(),
            ctr: vec!["ctr".into()],
            limit: None,
        };
        of(&health, &address, NEEDS).into_iter().map(|said| said.message).collect()
    }

    #[test]
    fn room_is_held_against_what_is_needed() {
        let told = |free: u64| said(&[("free", &free.to_string())]);
        assert_eq!(told(LITTLE), Vec::<String>::new());
        assert_eq!(told(NEEDS), ["only 1.5 GB are free for images"]);
        assert_eq!(told(1_400_000_000), ["1.4 GB are free, and the images that it lacks take 1.5 GB"]);
    }

    #[test]
    fn a_healthy_host_needs_no_word() {
        assert_eq!(said(&[]), Vec::<String>::new());
        assert_eq!(said(&[("kubelet", "1.34.4"), ("config", "there")]), Vec::<String>::new());
    }

    #[test]
    fn a_pin_counts_when_cri_reports_it() {
        let cri = |pinned: &str| {
            format!(
                r#"{{"images":[{{"repoTags":["a.b/c:vc-1","a.b/c:1"],{pinned}"id":"x"}},{{"repoTags":[],"id":"y"}}]}}"#
            )
        };
        let told = |version: &str, cri: &str| {
            said(&[
                ("ctr", version),
                ("server", version),
                ("labelled", "a.b/c:vc-1 a.b/d:vc-2"),
                ("cri", cri),
            ])
        };
        assert_eq!(told("2.1.9", &cri(r#""pinned":true,"#)), Vec::<String>::new());
        assert_eq!(told("1.6.20", &cri(r#""pinned":true,"#)), Vec::<String>::new());
        for not in ["", r#""pinned":false,"#] {
            let said = told("2.1.9", &cri(not));
            assert!(said[0].starts_with("CRI does not report 1 image of ours as pinned"), "{said:?}");
        }
        // Without an answer about one of ours the version decides.
        for cri in ["", "no JSON", r#"{"images":[]}"#] {
            assert_eq!(told("2.1.9", cri), Vec::<String>::new());
            assert!(
                told("1.6.20~ds1", cri)[0].starts_with("containerd 1.6.20~ds1 tells kubelet of no pins")
            );
        }
    }

    #[test]
    fn kubelet_says_when_it_collects() {
        let told = |facts: &[(&str, &str)]| said(&[&[("kubelet", "1.34.4")], facts].concat());
        assert!(told(&[])[0].starts_with("`/var/lib/kubelet/config.yaml` cannot be read"));
        let config = ("config", "there");
        assert_eq!(told(&[config, ("full", "84")]), Vec::<String>::new());
        assert!(told(&[config, ("full", "85")])[0].starts_with("the disk is 85 % full, and from 85 % on"));
        let high = ("imageGCHighThresholdPercent", "60");
        assert_eq!(told(&[config, high]), ["kubelet collects images when the disk is 60 % full"]);
        assert!(
            told(&[config, high, ("full", "61")])[0].starts_with("the disk is 61 % full, and from 60 %")
        );
        assert_eq!(told(&[config, ("imageMaximumGCAge", "0s")]), Vec::<String>::new());
        let said = told(&[config, ("imageMaximumGCAge", "24h")]);
        assert_eq!(said, ["kubelet collects images that no pod has used for 24h"]);
        let said = told(&[config, ("namespace", "")]);
        assert!(said[0].contains("has no namespace `k8s.io`"), "{said:?}");
    }

    #[test]
    fn other_findings() {
        for (fact, words) in [
            (("ctr", "1.6.20"), "`ctr` is of version 1.6.20, containerd is v2.1.9"),
            (("ctr", ""), "there is no `ctr`"),
            (("inodes", "12"), "almost no inodes"),
            (("zstd", ""), "there is no `zstd`"),
            (("flock", ""), "there is no `flock`"),
            (("discard", "true"), "containerd throws layers away"),
            (("server", ""), "containerd does not answer at `/run/c.sock`"),
        ] {
            let said = said(&[fact]);
            assert!(said.len() == 1 && said[0].contains(words), "{fact:?}: {said:?}");
        }
    }

    #[test]
    fn pins_count_from_some_version_on() {
        for (version, ignored) in [
            ("1.6.20~ds1", true),
            ("1.6.25", false),
            ("v1.7.9", true),
            ("1.7.27", false),
            ("v2.1.9", false),
            ("1.5.1", true),
            ("?", false),
        ] {
            assert_eq!(pins_are_ignored(version), ignored, "{version}");
        }
        for (version, collects) in [
            ("1.24.9", true),
            ("1.25.13", true),
            ("1.25.14", false),
            ("1.26.8", true),
            ("1.27.6", false),
            ("1.28.1", true),
            ("1.28.2", false),
            ("1.29.0", false),
            ("?", false),
        ] {
            assert_eq!(collects_pinned(version), collects, "{version}");
        }
    }
}
