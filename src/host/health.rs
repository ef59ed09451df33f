//! What a host is and has, asked at once. Changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::node::{At, Image, Spec, Trouble, Watch};
use super::ssh::{Links, Remote};
use super::{ctr, findings, fs, machine};
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
  eval "$1 namespaces ls -q" 2>/dev/null | grep -qx k8s.io && say namespace there
  say content "$(eval "$1 content ls -q" 2>/dev/null)"
  say labelled "$(eval "$1 images ls 'name~=\":vc-[0-9a-f]{16}\$\"'" 2>/dev/null | awk '/io.cri-containerd.pinned=pinned/ { print $1 }')"
  if command -v crictl >/dev/null; then
    cri=$(crictl --timeout 10s --image-endpoint "unix://$2" --runtime-endpoint "unix://$2" images -o json 2>/dev/null) && say cri "$cri"
  fi
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
say full "$(df -kP "$d" | awk 'NR == 2 { sub("%", "", $5); print $5 }')"
k=/var/lib/kubelet/config.yaml
if [ -r $k ]; then
  say config there
  for n in imageGCHighThresholdPercent imageGCLowThresholdPercent imageMaximumGCAge; do
    say $n "$(sed -n "s/^$n: *//p" $k | tr -d "\"'")"
  done
fi
exit 0
"#;

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
        Ok(Self::from_facts(facts, there - middle / 1_000_000_000))
    }

    /// What is known of a host.
    pub fn from_facts(facts: BTreeMap<String, String>, clock: i64) -> Self {
        Self { facts, clock, local: false }
    }

    /// Its clock less ours, in seconds.
    pub fn clock(&self) -> i64 {
        self.clock
    }

    /// A fact.
    pub fn fact(&self, name: &str) -> Option<&str> {
        self.facts.get(name).map(String::as_str)
    }

    /// A fact that is a number.
    pub fn number(&self, name: &str) -> Option<u64> {
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

    /// How much room the layers of images take that it lacks, packed and unpacked, in bytes.
    pub fn needs(&self, images: &[Image]) -> u64 {
        // Who throws layers away has them unpacked, which is not asked.
        if self.fact("server").is_none() || self.fact("discard") == Some("true") {
            return 0;
        }
        let platform = machine::named(self.fact("machine").unwrap_or_default());
        let mut held: BTreeSet<String> =
            self.fact("content").unwrap_or_default().split_whitespace().map(str::to_string).collect();
        let variants = images.iter().flat_map(|image| image.variant(&platform));
        let layers = variants.flat_map(|variant| &variant.layers).map(|layer| layer.blob);
        layers.filter(|blob| held.insert(blob.digest.to_string())).map(|blob| 2 * blob.size).sum()
    }

    /// What is worth a word of a host that is to have these images.
    pub fn findings(&self, spec: &Spec, images: &[Image]) -> Vec<Said> {
        match &spec.at {
            At::Ssh(address) => findings::of(self, address, self.needs(images)),
            At::Local(_) | At::Docker(_) => Vec::new(),
        }
    }
}
