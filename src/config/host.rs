//! `[host.NAME]` becomes a host: a folder or a daemon here, or a machine by ssh. Reaches nothing.

use std::ops::Range;

use super::Host;
use super::read::Mistakes;
use crate::host::node::At;
use crate::host::ssh::{self, Address, Key};
use crate::tasks::names::Placed;

/// Reads a rate; a wrong one is noted.
pub fn rate(text: &Placed<String>, mistakes: &mut Mistakes) -> Option<u64> {
    let rate = ssh::parse_rate(text);
    if rate.is_none() {
        let hint = "bytes in a second: `100M`, `512k`".to_string();
        mistakes.note(text.range(), format!("`{}` is not a rate", **text), Some(hint));
    }
    rate
}

impl Host {
    /// Where the host is; `None` if the table is wrong, which is noted.
    pub fn at(self, name: &str, place: &Range<usize>, mistakes: &mut Mistakes) -> Option<At> {
        let said = [
            ("ssh_config", self.ssh_config.as_ref().map(|value| value.range())),
            ("host_key", self.host_key.as_ref().map(|value| value.range())),
            ("containerd", self.containerd.as_ref().map(|value| value.range())),
            (
                "ctr",
                self.ctr.as_ref().map(|value| value.first().map_or(place.clone(), |first| first.range())),
            ),
            ("limit", self.limit.as_ref().map(|value| value.range())),
            ("sudo", self.sudo.map(|_| place.clone())),
        ];
        let here = match (&self.docker, &self.local, &self.ssh) {
            (Some(docker), None, None) => match crate::host::docker::socket(docker) {
                Some(socket) => Some(At::Docker(socket.display().to_string())),
                None => {
                    let hint = "the socket of a daemon here: `unix:///var/run/docker.sock`".to_string();
                    let message = format!("`{}` is not a socket", docker.value);
                    mistakes.note(docker.range(), message, Some(hint));
                    return None;
                }
            },
            (Some(docker), ..) => {
                mistakes.note(docker.range(), "`docker`, `local` and `ssh` exclude each other", None);
                return None;
            }
            (None, Some(local), None) => Some(At::Local(local.value.clone())),
            _ => None,
        };
        if let Some(here) = here {
            let what = if matches!(here, At::Local(_)) { "a folder" } else { "a daemon" };
            let mut fine = true;
            for (key, place) in said {
                if let Some(place) = place {
                    let message = format!("`{key}` is for machines, and `{name}` is {what} here");
                    mistakes.note(place, message, None);
                    fine = false;
                }
            }
            return fine.then_some(here);
        }
        let target = match (self.local, self.ssh) {
            (None, Some(ssh)) => ssh,
            (Some(_), Some(ssh)) => {
                mistakes.note(ssh.range(), "`local` and `ssh` exclude each other", None);
                return None;
            }
            (Some(_), None) | (None, None) => {
                let hint = "give a machine, `ssh = \"user@host\"`, a folder here, `local = \"DIR\"`, or a daemon \
                    here, `docker = \"unix:///var/run/docker.sock\"`";
                mistakes.note(place.clone(), format!("`host.{name}` is nowhere"), Some(hint.into()));
                return None;
            }
        };
        if !ssh::is_target(&target) {
            let hint = "write `user@host`, a name of your ssh configuration, or `ssh://user@host:port`";
            mistakes.note(
                target.range(),
                format!("`{}` is not a host for ssh", *target),
                Some(hint.into()),
            );
            return None;
        }
        let key = match &self.host_key {
            None => Key::Strict,
            Some(text) => match Key::parse(text) {
                Some(key) => key,
                None => {
                    let hint = "`strict`, `accept-new`, or a key as in a `.pub` file: `ssh-ed25519 AAAA…`";
                    mistakes.note(
                        text.range(),
                        format!("`{}` is not a host key", **text),
                        Some(hint.into()),
                    );
                    return None;
                }
            },
        };
        let containerd = self.containerd.map_or(ssh::CONTAINERD.to_string(), |path| path.value);
        let ctr: Vec<String> = match self.ctr {
            Some(words) => words.into_iter().map(|word| word.value).collect(),
            None => vec!["ctr".into()],
        };
        if ctr.is_empty() || !containerd.starts_with('/') {
            let message = "`containerd` is an absolute path, and `ctr` is at least a program";
            mistakes.note(place.clone(), message, None);
            return None;
        }
        let limit = match &self.limit {
            None => None,
            Some(limit) => Some(rate(limit, mistakes)?),
        };
        let config = self.ssh_config.map(|path| path.value);
        let sudo = self.sudo.unwrap_or(false);
        Some(At::Ssh(Address { target: target.value, config, key, sudo, containerd, ctr, limit }))
    }
}
