//! The keys of hosts as ssh remembers them: looked at, and replaced when a machine was rebuilt. Knows
//! nothing of connections that are held.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Address, folder, master};
use crate::error::{Error, Failure, Result};
use crate::host::fs;
use crate::host::process::{self, Captured, Command, Exit};
use crate::host::stop::Stop;

/// How long a host may take to show its key.
const PATIENCE: Duration = Duration::from_secs(45);
/// What ssh may print, in bytes.
const MOST: usize = 1 << 20;

/// A key that a host has shown.
pub struct Shown {
    /// Type and key, as in a `.pub` file.
    pub key: String,
    /// As people compare it: `256 SHA256:… (ED25519)`.
    pub fingerprint: String,
}

/// How ssh is called to look at keys.
pub struct Keys<'a> {
    /// The host's name in the project.
    pub name: &'a str,
    /// Where it is.
    pub address: &'a Address,
    /// The project folder.
    pub root: &'a Path,
    /// The environment of ssh.
    pub env: &'a [(OsString, OsString)],
    /// The user's wish to stop.
    pub stop: &'a Stop,
}

impl Keys<'_> {
    fn call(&self, argv: Vec<OsString>) -> Result<Captured> {
        let command =
            Command { argv, dir: self.root.to_path_buf(), env: self.env.to_vec(), timeout: Some(PATIENCE) };
        process::capture(&command, MOST, self.stop)
    }

    /// Asks the host for its key. Nothing is sent to it but that, and nobody logs in.
    pub fn show(&self) -> Result<Shown> {
        let failed =
            |error| Error::failed(format!("make a folder for ssh: {}", crate::error::io_words(&error)));
        let folder = folder::make().map_err(failed)?;
        let known = folder.path().join("known");
        let mut argv = master::base(self.address, self.root);
        for option in [
            format!("HostKeyAlias={}", self.name),
            "StrictHostKeyChecking=accept-new".into(),
            format!("UserKnownHostsFile={}", known.display()),
            "GlobalKnownHostsFile=none".into(),
            "HashKnownHosts=no".into(),
            "PreferredAuthentications=none".into(),
        ] {
            argv.extend(["-o".into(), option.into()]);
        }
        argv.extend(["-T".into(), "--".into(), self.address.target.clone().into(), "true".into()]);
        let done = self.call(argv)?;
        let text = fs::read(&known, MOST as u64)?.unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let key = text.lines().find_map(|line| line.split_once(' ').map(|(_, key)| key.to_string()));
        let Some(key) = key else {
            let said = String::from_utf8_lossy(&done.stderr).into_owned();
            let why = master::last_words(&said).unwrap_or_else(|| done.exit.to_string());
            return Err(Failure::new(format!("`{}` does not answer: {why}", self.name)).into());
        };
        let listed = self.call(["ssh-keygen".into(), "-lf".into(), known.into()].into())?;
        let line = String::from_utf8_lossy(&listed.stdout).into_owned();
        let words: Vec<&str> = line.lines().next().unwrap_or_default().split(' ').collect();
        // Between size and kind stands the host's name.
        let fingerprint =
            words.iter().filter(|word| **word != self.name).copied().collect::<Vec<_>>().join(" ");
        Ok(Shown { key, fingerprint })
    }

    /// The file in which ssh remembers the keys of hosts.
    pub fn file(&self) -> Result<PathBuf> {
        let mut argv = master::base(self.address, self.root);
        argv.extend(["-G".into(), "--".into(), self.address.target.clone().into()]);
        let done = self.call(argv)?;
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        let file = text.lines().find_map(|line| line.strip_prefix("userknownhostsfile "));
        let file = file.and_then(|files| files.split(' ').next()).filter(|file| *file != "none");
        match (done.exit, file) {
            (Exit::Code(0), Some(file)) => {
                let home = |rest: &str| {
                    let home =
                        self.env.iter().find(|(name, _)| name == "HOME").map(|(_, home)| home.clone());
                    PathBuf::from(home.unwrap_or_default()).join(rest)
                };
                Ok(file.strip_prefix("~/").map_or_else(|| PathBuf::from(file), home))
            }
            (Exit::Code(0), None) => Err(Failure::new("ssh is told to remember no keys")
                .hint(
                    "set `UserKnownHostsFile` in the configuration of ssh, or pin the key with `host_key`",
                )
                .into()),
            _ => Err(Error::failed(format!(
                "ssh does not read its configuration: {}",
                master::last_words(&String::from_utf8_lossy(&done.stderr)).unwrap_or_default()
            ))),
        }
    }

    /// Remembers a key in place of those that were known for the host; whether that changes anything.
    pub fn replace(&self, file: &Path, key: &str) -> Result<bool> {
        let before = fs::read(file, 64 << 20)?.unwrap_or_default();
        let before = String::from_utf8_lossy(&before).into_owned();
        let line = format!("{} {key}", self.name);
        let own = |line: &&str| {
            line.split(' ').next().is_some_and(|names| names.split(',').any(|n| n == self.name))
        };
        if before.lines().filter(own).eq([line.as_str()]) {
            return Ok(false);
        }
        if !before.is_empty() {
            // It also finds names that are written as hashes.
            let argv = ["ssh-keygen".into(), "-R".into(), self.name.into(), "-f".into(), file.into()];
            self.call(argv.into())?;
        }
        let before = fs::read(file, 64 << 20)?.unwrap_or_default();
        let before = String::from_utf8_lossy(&before).into_owned();
        let kept = before.lines().filter(|line| !own(line));
        let after: String = kept.chain([line.as_str()]).map(|line| format!("{line}\n")).collect();
        if let Some(folder) = file.parent() {
            fs::make_folder(folder)?;
        }
        fs::write(file, after.as_bytes(), 0o600, fs::Durability::Synced)?;
        Ok(true)
    }
}
