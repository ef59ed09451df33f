//! What a host is and has, asked at once, and what of it would stop or spoil a delivery. Changes nothing.

use std::collections::BTreeMap;
use std::path::Path;

use super::node::{At, Spec, Trouble, Watch};
use super::ssh::{Links, Remote};
use super::{ctr, fs};
use crate::error::Failure;

/// Prints `name value` lines. Arguments: the command `ctr` quoted for `sh`, and the socket.
const SCRIPT: &str = r#"
c() { eval "$1"; }
say() { [ -z "$2" ] || printf "%s %s\n" "$1" "$(printf %s "$2" | tr "\n" " ")"; }
say machine "$(uname -m)"
say time "$(date +%s)"
say id "$(id -u)"
if [ -S "$2" ]; then say socket there; fi
v=$(eval "$1 --version" 2>/dev/null) && say ctr "${v##* }"
if out=$(eval "$1 version" 2>&1); then
  say server "$(printf "%s\n" "$out" | sed -n "/^Server/,\$p" | sed -n "s/^ *Version: *//p" | head -n 1)"
else
  say refused "$out"
fi
f=/etc/containerd/config.toml
say snapshotter "$(sed -n 's/^ *snapshotter *= *"\(.*\)".*/\1/p' $f 2>/dev/null | tail -n 1)"
say discard "$(sed -n 's/^ *discard_unpacked_layers *= *\([a-z]*\).*/\1/p' $f 2>/dev/null | tail -n 1)"
d=/var/lib/containerd; [ -d "$d" ] || d=/
say free "$(df -kP "$d" | awk 'NR == 2 { print $4 * 1024 }')"
say inodes "$(df -iP "$d" | awk 'NR == 2 { print $4 }')"
command -v zstd >/dev/null && say zstd there
command -v flock >/dev/null && say flock there
command -v kubelet >/dev/null && say kubelet "$(kubelet --version 2>/dev/null | sed 's/.* v//')"
k=/var/lib/kubelet/config.yaml
say gchigh "$(sed -n 's/^imageGCHighThresholdPercent: *//p' $k 2>/dev/null)"
say gcage "$(sed -n 's/^imageMaximumGCAge: *//p' $k 2>/dev/null)"
exit 0
"#;

/// Space below which a delivery is likely to fail, in bytes.
const LITTLE: u64 = 2 << 30;
/// A clock that is off by more than this makes logs and certificates lie, in seconds.
const OFF: i64 = 30;

/// What a host is and has.
pub struct Health {
    facts: BTreeMap<String, String>,
    /// Its clock less ours, in seconds.
    clock: i64,
    local: bool,
}

/// Something to say about a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Whether a delivery fails by it.
    pub bad: bool,
    /// What it is.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Health {
    /// Asks a host.
    pub fn ask(spec: &Spec, root: &Path, links: &Links, watch: &dyn Watch) -> Result<Self, Trouble> {
        let address = match &spec.at {
            At::Local(_) | At::Docker(_) => {
                return Ok(Self { facts: BTreeMap::new(), clock: 0, local: true });
            }
            At::Ssh(address) => address,
        };
        let node = Remote::open(&spec.name, address, root, links, watch)?;
        let command = ctr::command(address, "5s");
        let before = fs::now();
        let (text, status) = node.run(SCRIPT, &[&command, &address.containerd])?;
        let middle = before / 2 + fs::now() / 2;
        if status != 0 {
            return Err(Failure::new(format!("`{}` did not say what it has", spec.name)).into());
        }
        let pair = |line: &str| {
            line.split_once(' ').map(|(name, value)| (name.to_string(), value.trim().to_string()))
        };
        let facts: BTreeMap<String, String> = text.lines().filter_map(pair).collect();
        let there: i64 =
            facts.get("time").and_then(|time| time.parse().ok()).unwrap_or(middle / 1_000_000_000);
        Ok(Self { facts, clock: there - middle / 1_000_000_000, local: false })
    }

    fn fact(&self, name: &str) -> Option<&str> {
        self.facts.get(name).map(String::as_str)
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.fact(name)?.parse().ok()
    }

    /// Platform, containerd, snapshotter, free space, kubelet.
    pub fn cells(&self) -> [String; 5] {
        if self.local {
            return ["here", "-", "-", "-", "-"].map(str::to_string);
        }
        let or = |name: &str| self.fact(name).unwrap_or("-").to_string();
        let free =
            self.number("free").map_or("-".to_string(), |free| format!("{:.1} GB", free as f64 / 1e9));
        let snapshotter = self.fact("snapshotter").unwrap_or("overlayfs").to_string();
        [
            or("machine"),
            self.fact("server").map_or("-".into(), str::to_string),
            snapshotter,
            free,
            or("kubelet"),
        ]
    }

    /// What is worth a word.
    pub fn findings(&self, spec: &Spec) -> Vec<Said> {
        let At::Ssh(address) = &spec.at else { return Vec::new() };
        let mut all = Vec::new();
        let mut say = |bad: bool, message: String, hint: &str| {
            all.push(Said { bad, message, hint: (!hint.is_empty()).then(|| hint.to_string()) });
        };
        let socket = &address.containerd;
        let root = self.fact("id") == Some("0");
        match (self.fact("ctr"), self.fact("server"), self.fact("refused")) {
            (None, ..) => say(
                false,
                format!("there is no `{}`: images cannot be imported", address.ctr.join(" ")),
                "install containerd, or say where it is: `ctr = [\"/path/to/ctr\"]`",
            ),
            (Some(_), Some(version), _) => {
                if pins_are_ignored(version) {
                    say(
                        false,
                        format!(
                            "containerd {version} tells kubelet of no pins: it may collect images that no pod uses"
                        ),
                        "the next run sends what is gone; containerd 1.6.25, 1.7.10 and 2 honour pins",
                    );
                }
            }
            (Some(_), None, Some(why))
                if !root && (why.contains("permission denied") || self.fact("socket").is_none()) =>
            {
                say(
                    true,
                    format!("containerd at `{socket}` is for root only"),
                    "become root: `sudo = true`",
                );
            }
            (Some(_), None, _) => say(
                true,
                format!("containerd does not answer at `{socket}`"),
                "look at it there: `systemctl status containerd`; if it listens elsewhere: `containerd = \"…\"`",
            ),
        }
        if let Some(free) = self.number("free").filter(|free| *free < LITTLE) {
            say(
                true,
                format!("only {:.1} GB are free for images", free as f64 / 1e9),
                "make room on the disk of `/var/lib/containerd`",
            );
        }
        if self.number("inodes").is_some_and(|inodes| inodes < 10_000 && inodes > 0) {
            say(
                true,
                "almost no inodes are left for images".into(),
                "make room on the disk of `/var/lib/containerd`",
            );
        }
        if self.fact("discard") == Some("true") {
            say(
                false,
                "containerd throws layers away once they are unpacked: only what is unpacked is kept"
                    .into(),
                "",
            );
        }
        if self.fact("flock").is_none() {
            say(
                false,
                "there is no `flock`: two runs at once are not kept apart".into(),
                "install util-linux",
            );
        }
        if self.clock.abs() > OFF {
            say(
                false,
                format!("its clock is off by {} s", self.clock),
                "let it take the time from somewhere: chrony, systemd-timesyncd",
            );
        }
        if let Some(high) = self.number("gchigh").filter(|high| *high < 70) {
            say(false, format!("kubelet collects images when the disk is {high} % full"), "");
        }
        if let Some(age) = self.fact("gcage").filter(|age| !["", "0s"].contains(age)) {
            say(false, format!("kubelet collects images that no pod has used for {age}"), "");
        }
        all
    }
}

/// Whether CRI in this containerd does not honour pins.
fn pins_are_ignored(version: &str) -> bool {
    let digits =
        |part: &str| part.chars().take_while(char::is_ascii_digit).collect::<String>().parse::<u32>().ok();
    let parts: Vec<u32> = version.trim_start_matches('v').split('.').map_while(digits).collect();
    match parts.as_slice() {
        [1, 6, patch, ..] => *patch < 25,
        [1, 7, patch, ..] => *patch < 10,
        [1, minor, ..] => *minor < 6,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    }
}
