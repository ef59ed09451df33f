//! Hosts by ssh: the user's own `ssh` program holds one connection to each (`master`), and sessions on it
//! run what is wanted under one constant wrapper (`wrapper`, `talk`). `links` keeps the connections, `ways`
//! counts those in the making, `files` is files there (`placing` sends them, `packing` packs what pays), `node` is
//! the whole as a host like any other. `toolbox` is what it has to compile with, and `workplace` a folder there in
//! which commands run. Knows no task.

mod files;
mod files_script;
mod folder;
mod limit;
mod links;
mod master;
mod node;
mod packing;
mod placing;
mod talk;
pub mod toolbox;
pub mod trust;
mod ways;
pub mod workplace;
mod workplace_data;
mod workplace_script;
mod wrapper;

use serde::{Deserialize, Serialize};

pub use limit::parse as parse_rate;
pub use links::{Link, Links, PARALLEL};
pub use node::Remote;
pub use talk::{Talk, said};
pub use wrapper::{As, quote};

/// Where containerd listens unless it is said otherwise.
pub const CONTAINERD: &str = "/run/containerd/containerd.sock";

/// How to reach a host; plain data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Address {
    /// What `ssh` gets: `user@host`, a name of the user's ssh configuration, or `ssh://user@host:port`.
    pub target: String,
    /// A configuration of ssh to use in place of the user's, relative to the project or absolute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// Which host key is taken.
    #[serde(default)]
    pub key: Key,
    /// Whether everything there is done by root, through sudo.
    #[serde(default)]
    pub sudo: bool,
    /// The socket of containerd.
    pub containerd: String,
    /// The program `ctr` with its first arguments.
    pub ctr: Vec<String>,
    /// How many bytes in a second may go to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

/// Which host key is taken.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Key {
    /// One that ssh knows for the host's name.
    #[default]
    Strict,
    /// Any at the first contact, then the same.
    AcceptNew,
    /// This one: type and key as in a `.pub` file.
    Pinned(String),
}

impl Key {
    /// Reads `strict`, `accept-new`, or a key as in a `.pub` file.
    pub fn parse(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let plain = |word: &str| word.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=@.-".contains(&b));
        match words.as_slice() {
            ["strict"] => Some(Self::Strict),
            ["accept-new"] => Some(Self::AcceptNew),
            [kind, key, ..] if plain(kind) && plain(key) && key.starts_with("AAAA") => {
                Some(Self::Pinned(format!("{kind} {key}")))
            }
            _ => None,
        }
    }
}

/// Whether a text can be given to `ssh` as the host to reach: it must not look like an option, and holds
/// nothing that a shell or a configuration of ssh could expand.
pub fn is_target(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-@:/[]".contains(&b);
    let begins =
        |text: &str| text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b"_[".contains(&b));
    let host = text.rsplit('@').next().unwrap_or_default();
    begins(text) && begins(host) && text.bytes().all(plain) && text.matches('@').count() <= 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_never_an_option_or_a_command() {
        for good in ["cp-1", "ansible@k8sctrlplane01", "a@10.0.0.1", "ssh://u@h:2222", "u@[fe80::1]"] {
            assert!(is_target(good), "{good}");
        }
        for bad in [
            "",
            "-oProxyCommand=x",
            "u@-oProxyCommand=x",
            "a b",
            "$(x)",
            "h\n",
            "%h",
            "a@b@c",
            "h;x",
            "`x`",
        ] {
            assert!(!is_target(bad), "{bad}");
        }
    }

    #[test]
    fn keys_are_policies_or_keys() {
        assert_eq!(Key::parse("strict"), Some(Key::Strict));
        assert_eq!(Key::parse("accept-new"), Some(Key::AcceptNew));
        let pinned = Key::Pinned("ssh-ed25519 AAAAC3Nz".into());
        assert_eq!(Key::parse("ssh-ed25519 AAAAC3Nz root@host"), Some(pinned));
        for bad in ["", "no", "SHA256:abc", "ssh-ed25519", "ssh-ed25519 x", "ssh-ed25519 AAAA\"x"] {
            assert_eq!(Key::parse(bad), None, "{bad}");
        }
    }
}
