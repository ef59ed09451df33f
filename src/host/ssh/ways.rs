//! By way of which machines hosts are reached, and how many connections are in the making by each of
//! these: sshd refuses new ones when it has too many that have not logged in. Makes none.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use super::{Address, master};
use crate::host::process::{self, Captured, Command, Exit};
use crate::host::stop::Stop;

/// Connections that are made at the same time by way of one machine: sshd begins to refuse at ten.
const EACH: usize = 8;
/// How long ssh may take to read its configuration.
const PATIENCE: Duration = Duration::from_secs(10);
/// What ssh may print, in bytes.
const MOST: usize = 1 << 20;

/// The machines whose sshd a connection comes by: jump hosts, and the host itself.
pub type Way = Vec<String>;

/// The connections that are in the making.
#[derive(Default)]
pub struct Making {
    now: BTreeMap<String, Address>,
    ways: BTreeMap<String, Way>,
    asked: BTreeSet<String>,
}

impl Making {
    /// Whether one more may be made to a host. As long as there are few, nobody has to know the ways; one
    /// whose way is not known counts for every machine.
    pub fn may(&self, host: &str) -> bool {
        if self.now.len() < EACH {
            return true;
        }
        let Some(way) = self.ways.get(host) else { return false };
        let by = |machine: &String| {
            let others = self.now.keys().map(|other| self.ways.get(other));
            others.filter(|other| other.is_none_or(|other| other.contains(machine))).count()
        };
        way.iter().all(|machine| by(machine) < EACH)
    }

    /// One is begun.
    pub fn begin(&mut self, host: &str, address: &Address) {
        self.now.insert(host.to_string(), address.clone());
    }

    /// One is made, or is not to be.
    pub fn end(&mut self, host: &str) {
        self.now.remove(host);
    }

    /// A host whose way should be asked for, so that `host` need not wait: itself, or one in the making. Each is
    /// given once.
    pub fn unknown(&mut self, host: &str, address: &Address) -> Option<(String, Address)> {
        let own = [(host, address)].into_iter();
        let mut all = own.chain(self.now.iter().map(|(name, address)| (name.as_str(), address)));
        let (name, address) = all.find(|(name, _)| !self.asked.contains(*name))?;
        let found = (name.to_string(), address.clone());
        self.asked.insert(found.0.clone());
        Some(found)
    }

    /// The way to a host is known.
    pub fn know(&mut self, host: String, way: Way) {
        self.ways.insert(host, way);
    }
}

/// Asks ssh by which way it would reach a host; nothing is sent anywhere.
pub fn ask(address: &Address, root: &Path, env: &[(OsString, OsString)]) -> Way {
    let mut argv = master::base(address, root);
    argv.extend(["-G".into(), "--".into(), address.target.clone().into()]);
    let command = Command { argv, dir: root.to_path_buf(), env: env.to_vec(), timeout: Some(PATIENCE) };
    let said = Stop::new(Duration::ZERO).and_then(|stop| process::capture(&command, MOST, &stop));
    match said {
        Ok(Captured { stdout, exit: Exit::Code(0), .. }) => read(&String::from_utf8_lossy(&stdout)),
        // It will be said why when the connection is made.
        _ => vec![String::new()],
    }
}

/// Reads what `ssh -G` prints.
fn read(said: &str) -> Way {
    let value = |name: &str| {
        let mut lines = said.lines().filter_map(|line| line.split_once(' '));
        lines.find(|(key, value)| *key == name && *value != "none").map(|(_, value)| value.to_string())
    };
    let mut way: Way =
        value("proxyjump").iter().flat_map(|jumps| jumps.split(',')).map(str::to_string).collect();
    way.extend(value("proxycommand"));
    if way.is_empty() {
        let port = value("port").unwrap_or_default();
        way.extend(value("hostname").map(|host| format!("{host}:{port}")));
    }
    way
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::ssh::Key;

    fn address() -> Address {
        let (containerd, ctr) = (String::new(), Vec::new());
        let target = "h".to_string();
        Address { target, config: None, key: Key::Strict, sudo: false, containerd, ctr, limit: None }
    }

    #[test]
    fn ways_are_read() {
        for (said, way) in [
            ("user u\nhostname h.example\nport 22\n", vec!["h.example:22"]),
            ("hostname h\nport 22\nproxyjump a,u@b:7\n", vec!["a", "u@b:7"]),
            ("hostname h\nport 22\nproxyjump none\nproxycommand nc -X 5 %h %p\n", vec!["nc -X 5 %h %p"]),
            ("", vec![]),
        ] {
            assert_eq!(read(said), way, "{said}");
        }
    }

    #[test]
    fn each_machine_on_the_way_has_its_own_count() {
        let mut making = Making::default();
        let begin = |making: &mut Making, name: &str, way: &str| {
            making.know(name.into(), vec![way.into()]);
            assert!(making.may(name), "{name}");
            making.begin(name, &address());
        };
        for number in 0..EACH {
            begin(&mut making, &format!("a{number}"), "a");
        }
        for number in 0..EACH {
            begin(&mut making, &format!("b{number}"), "b");
        }
        making.know("a8".into(), vec!["a".into()]);
        assert!(!making.may("a8"));
        making.end("a0");
        assert!(making.may("a8"));
        // One whose way is not known waits until there are few, and counts for all until then.
        assert!(!making.may("c"));
        making.begin("c", &address());
        assert!(!making.may("a8"));
        assert_eq!(making.unknown("a8", &address()).unwrap().0, "a8");
        let mut rest: Vec<String> = Vec::new();
        while let Some((name, _)) = making.unknown("a8", &address()) {
            rest.push(name);
        }
        assert!(rest.len() == 2 * EACH && rest.contains(&"c".into()), "{rest:?}");
    }
}
