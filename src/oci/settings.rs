//! What a user says of an image, merged over a base's config as Docker does. Knows no layer.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::error::{Error, Failure, Result};
use crate::oci::config::{Config, Empty, Execution, Healthcheck};
use crate::oci::quoted;

/// The search path that Docker gives to an image which says none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What an image says differently from its base. Absent leaves the base's; an empty list or text
/// takes it away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Settings {
    /// Replaces the base's, and takes its `cmd` away, as in Docker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the base's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// Added to the base's; a name that the base has keeps its place.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Replaces the base's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Absolute; replaces the base's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// Added to the base's.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The manifest's; the base's are about the base and do not count.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// `8080` or `8080/tcp`; added to the base's.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub ports: BTreeSet<String>,
    /// Absolute; added to the base's.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub volumes: BTreeSet<String>,
    /// A name with `SIG` or a number; replaces the base's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// Replaces the base's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Replaces the base's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
    /// Replaces the base's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Seconds since the epoch.
    pub created: u64,
}

impl Config {
    /// Merges settings over this config, without touching layers and history. `None` if nothing would
    /// change; a `created` alone, and a search path that nobody asked for, are no change.
    pub fn merge(&self, settings: &Settings) -> Result<Option<Self>> {
        let mut config = self.config.merge(settings)?;
        if config == self.config
            && settings.author.as_ref().is_none_or(|author| self.author.as_ref() == Some(author))
        {
            return Ok(None);
        }
        config.complete(&self.config);
        let author =
            settings.author.clone().or_else(|| self.author.clone()).filter(|author| !author.is_empty());
        Ok(Some(Self { config, author, ..self.clone() }))
    }

    /// Gives the config the search path that Docker would, if it has none.
    pub fn complete(&mut self) {
        let base = self.config.clone();
        self.config.complete(&base);
    }
}

impl Execution {
    fn merge(&self, settings: &Settings) -> Result<Self> {
        let mut made = self.clone();
        if let Some(entrypoint) = &settings.entrypoint {
            made.entrypoint.clone_from(entrypoint);
            made.cmd.clear();
        }
        if let Some(cmd) = &settings.cmd {
            made.cmd.clone_from(cmd);
        }
        for (name, value) in &settings.env {
            check_variable(name, value)?;
            let entry = format!("{name}={value}");
            match made.env.iter_mut().rfind(|entry| name_of(entry) == name) {
                Some(old) => *old = entry,
                None => made.env.push(entry),
            }
        }
        if let Some(user) = &settings.user {
            check_user(user)?;
            made.user.clone_from(user);
        }
        if let Some(workdir) = &settings.workdir {
            if !workdir.is_empty() {
                check_absolute("the working folder", workdir)?;
            }
            made.working_dir.clone_from(workdir);
        }
        made.labels.extend(settings.labels.clone());
        for port in &settings.ports {
            made.exposed_ports.insert(complete_port(port)?, Empty {});
        }
        for volume in &settings.volumes {
            check_absolute("the volume", volume)?;
            made.volumes.insert(volume.clone(), Empty {});
        }
        if let Some(signal) = &settings.stop_signal {
            check_signal(signal)?;
            made.stop_signal.clone_from(signal);
        }
        if let Some(healthcheck) = &settings.healthcheck {
            made.healthcheck = Some(healthcheck.clone());
        }
        if let Some(shell) = &settings.shell {
            made.shell.clone_from(shell);
        }
        Ok(made)
    }

    /// Adds the default search path if there is none, after the variables of `base`.
    fn complete(&mut self, base: &Self) {
        if !self.env.iter().any(|entry| name_of(entry) == "PATH") {
            self.env.insert(base.env.len(), format!("PATH={DEFAULT_PATH}"));
        }
    }
}

/// Fails unless this can be a variable of the environment.
pub fn check_variable(name: &str, value: &str) -> Result<()> {
    if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
        return Err(Error::failed(format!("{} cannot be an environment variable", quoted(name))));
    }
    Ok(())
}

/// Fails unless a path can be a working folder or volume; `what` is what messages call it.
pub fn check_absolute(what: &str, path: &str) -> Result<()> {
    if path.starts_with('/') && !path.contains('\0') && path.split('/').all(|name| name != "..") {
        return Ok(());
    }
    Err(Error::failed(format!("{what} {} is not an absolute path", quoted(path))))
}

/// Fails unless a text is empty, or a user as a config has it: a name or number, and perhaps a group.
pub fn check_user(user: &str) -> Result<()> {
    let (name, group) = user.split_once(':').unwrap_or((user, "0"));
    let fine = |text: &str| {
        !text.is_empty()
            && text.chars().all(|c| !c.is_whitespace() && !c.is_control() && c != ':' && c != '/')
            // What looks like a number has to be one that Linux has.
            && (!text.bytes().all(|byte| byte.is_ascii_digit()) || text.parse::<u32>().is_ok())
    };
    if user.is_empty() || (fine(name) && fine(group)) {
        return Ok(());
    }
    let hint = "write a name or number, and perhaps a group: `app`, `65532:65532`";
    Err(Failure::new(format!("{} is no user", quoted(user))).hint(hint).into())
}

/// Fails unless a text is empty or a signal.
pub fn check_signal(signal: &str) -> Result<()> {
    if signal.is_empty() || is_signal(signal) {
        return Ok(());
    }
    let hint = "write a name such as `SIGTERM`, or a number from 1 to 64";
    Err(Failure::new(format!("{} is no signal", quoted(signal))).hint(hint).into())
}

fn name_of(entry: &str) -> &str {
    entry.split('=').next().unwrap_or_default()
}

/// A port with its protocol; fails if it is none.
pub fn complete_port(text: &str) -> Result<String> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    match number.parse::<u16>() {
        Ok(1..) if !number.starts_with(['+', '0']) && ["tcp", "udp", "sctp"].contains(&protocol) => {
            Ok(format!("{number}/{protocol}"))
        }
        _ => Err(Failure::new(format!("{} is no port", quoted(text)))
            .hint("write a number from 1 to 65535, and perhaps `/tcp`, `/udp` or `/sctp` after it")
            .into()),
    }
}

fn is_signal(text: &str) -> bool {
    match text.strip_prefix("SIG") {
        Some(name) => {
            name.starts_with(|c: char| c.is_ascii_uppercase())
                && name
                    .chars()
                    .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '+' || c == '-')
        }
        None => matches!(text.parse::<u8>(), Ok(1..=64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Config {
        Config::parse(
            br#"{"architecture":"amd64","os":"linux","docker_version":"1","container_config":{"Cmd":["x"]},
                "config":{"Env":["A=1","B=2","C"],"Cmd":["sh"],"Labels":null,"Hostname":"h","Entrypoint":null},
                "rootfs":{"type":"layers","diff_ids":[]},"history":null}"#,
        )
        .unwrap()
    }

    fn text(list: &[&str]) -> Vec<String> {
        list.iter().map(|&text| text.to_string()).collect()
    }

    #[test]
    fn settings_are_merged_as_docker_does() {
        let settings = Settings {
            entrypoint: Some(text(&["/manager"])),
            env: [("Z".into(), "1=2".into()), ("B".into(), "3".into()), ("C".into(), String::new())].into(),
            labels: [("b".into(), "2".into()), ("a".into(), "1".into())].into(),
            ports: ["8080".into(), "53/udp".into()].into(),
            volumes: ["/data".into()].into(),
            workdir: Some("/work".into()),
            user: Some("65532:65532".into()),
            stop_signal: Some("SIGRTMIN+3".into()),
            ..Settings::default()
        };
        let made = base().merge(&settings).unwrap().unwrap();
        assert_eq!(
            String::from_utf8(made.encode()).unwrap(),
            r#"{"architecture":"amd64","os":"linux","config":{"User":"65532:65532","ExposedPorts":{"53/udp":{},"8080/tcp":{}},"Env":["A=1","B=3","C=","PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin","Z=1=2"],"Entrypoint":["/manager"],"Volumes":{"/data":{}},"WorkingDir":"/work","Labels":{"a":"1","b":"2"},"StopSignal":"SIGRTMIN+3"},"rootfs":{"type":"layers","diff_ids":[]}}"#
        );
        let read = oci_spec::image::ImageConfiguration::from_reader(&made.encode()[..]).unwrap();
        assert_eq!(read.config().as_ref().unwrap().working_dir().as_deref(), Some("/work"));
        assert_eq!(Config::parse(&made.encode()).unwrap(), made);
    }

    #[test]
    fn settings_that_say_what_the_base_says_change_nothing() {
        assert_eq!(base().merge(&Settings { created: 5, ..Settings::default() }).unwrap(), None);
        let settings = Settings {
            cmd: Some(text(&["sh"])),
            env: [("A".into(), "1".into())].into(),
            user: Some(String::new()),
            ..Settings::default()
        };
        assert_eq!(base().merge(&settings).unwrap(), None);
        let settings = Settings { cmd: Some(vec![]), ..Settings::default() };
        assert_eq!(base().merge(&settings).unwrap().unwrap().config.cmd, text(&[]));
    }

    #[test]
    fn a_path_that_is_said_is_kept() {
        let settings = Settings { env: [("PATH".into(), "/x".into())].into(), ..Settings::default() };
        assert_eq!(base().merge(&settings).unwrap().unwrap().config.env, ["A=1", "B=2", "C", "PATH=/x"]);
    }

    #[test]
    fn wrong_settings_are_refused() {
        let none = Settings::default;
        for settings in [
            Settings { env: [("A=B".into(), String::new())].into(), ..none() },
            Settings { env: [(String::new(), String::new())].into(), ..none() },
            Settings { workdir: Some("work".into()), ..none() },
            Settings { workdir: Some("/a/../b".into()), ..none() },
            Settings { volumes: ["data".into()].into(), ..none() },
            Settings { ports: ["0".into()].into(), ..none() },
            Settings { ports: ["65536".into()].into(), ..none() },
            Settings { ports: ["80/icmp".into()].into(), ..none() },
            Settings { ports: ["+80".into()].into(), ..none() },
            Settings { stop_signal: Some("TERM".into()), ..none() },
            Settings { stop_signal: Some("65".into()), ..none() },
            Settings { user: Some("a b".into()), ..none() },
            Settings { user: Some("1:".into()), ..none() },
            Settings { user: Some("99999999999".into()), ..none() },
            Settings { user: Some("a:b:c".into()), ..none() },
        ] {
            assert!(base().merge(&settings).is_err(), "{settings:?}");
        }
    }
}
