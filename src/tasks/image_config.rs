//! The fields of an image that go into its config: how they are written, what may be wrong with them,
//! and the settings that they become. Knows no file and no layer.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Deserialize;

use super::compile::duration;
use super::names::{Names, Placed};
use crate::error::{Error, Result};
use crate::oci::config::{Healthcheck, rfc3339, seconds};
use crate::oci::settings::{self, Settings};

/// A number or a text
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum NumberOrText {
    /// A number
    Number(i64),
    /// A text
    Text(String),
}

/// A command as one text or as a list
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum TextOrList {
    /// For the shell
    Text(String),
    /// `CMD` and arguments, `CMD-SHELL` and a command, or `NONE`
    List(Vec<String>),
}

/// How to see whether a container is well, as Docker has it
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HealthcheckTable {
    /// A command for the shell, or a list that begins with `CMD`, `CMD-SHELL` or `NONE`
    test: Placed<TextOrList>,
    /// The time between two checks: `30s`
    interval: Option<Placed<String>>,
    /// The time for one check
    timeout: Option<Placed<String>>,
    /// The time in which failures do not count
    start_period: Option<Placed<String>>,
    /// The time between two checks in that
    start_interval: Option<Placed<String>>,
    /// Failures until it is not well
    retries: Option<Placed<u32>>,
}

impl HealthcheckTable {
    fn check(&self, names: &mut dyn Names) {
        let times = [&self.interval, &self.timeout, &self.start_period, &self.start_interval];
        for time in times.into_iter().flatten() {
            if nanoseconds(Some(time)).is_none() {
                let hint = Some("a number and a unit: `500ms`, `30s`, `2m`".to_string());
                names.mistake(time.range(), format!("`{}` is not a time", time.value), hint);
            }
        }
        let fine = match &self.test.value {
            TextOrList::Text(text) => !text.is_empty(),
            TextOrList::List(list) => match list.first().map(String::as_str) {
                Some("NONE") => list.len() == 1,
                Some("CMD-SHELL") => list.len() == 2,
                Some("CMD") => list.len() > 1,
                _ => false,
            },
        };
        if !fine {
            let hint = "`[\"CMD\", \"/bin/check\"]`, `[\"CMD-SHELL\", \"…\"]`, `[\"NONE\"]`, or a text for the shell";
            names.mistake(self.test.range(), "`test` is not a health check".into(), Some(hint.into()));
        }
    }

    fn healthcheck(&self) -> Healthcheck {
        Healthcheck {
            test: match &self.test.value {
                TextOrList::Text(text) => vec!["CMD-SHELL".to_string(), text.clone()],
                TextOrList::List(list) => list.clone(),
            },
            interval: nanoseconds(self.interval.as_ref()),
            timeout: nanoseconds(self.timeout.as_ref()),
            start_period: nanoseconds(self.start_period.as_ref()),
            start_interval: nanoseconds(self.start_interval.as_ref()),
            retries: self.retries.as_ref().map(|retries| i64::from(retries.value)),
        }
    }
}

fn nanoseconds(time: Option<&Placed<String>>) -> Option<i64> {
    i64::try_from(duration(time?)?.as_nanos()).ok()
}

/// The fields of an image's table that go into its config.
pub struct Fields<'a> {
    /// `entrypoint`.
    pub entrypoint: Option<&'a Vec<String>>,
    /// `cmd`.
    pub cmd: Option<&'a Vec<String>>,
    /// `env`.
    pub env: &'a BTreeMap<String, Placed<String>>,
    /// `labels`.
    pub labels: &'a BTreeMap<String, Placed<String>>,
    /// `annotations`.
    pub annotations: &'a BTreeMap<String, Placed<String>>,
    /// `user`.
    pub user: Option<&'a Placed<String>>,
    /// `workdir`.
    pub workdir: Option<&'a Placed<String>>,
    /// `ports`.
    pub ports: &'a [Placed<NumberOrText>],
    /// `volumes`.
    pub volumes: &'a [Placed<String>],
    /// `stop_signal`.
    pub stop_signal: Option<&'a Placed<NumberOrText>>,
    /// `healthcheck`.
    pub healthcheck: Option<&'a HealthcheckTable>,
    /// `shell`.
    pub shell: Option<&'a Vec<String>>,
    /// `author`.
    pub author: Option<&'a String>,
    /// `created`.
    pub created: Option<&'a Placed<NumberOrText>>,
}

impl Fields<'_> {
    /// Notes what is wrong.
    pub fn check(&self, names: &mut dyn Names) {
        for (name, value) in self.env {
            note(names, value, settings::check_variable(name, value));
        }
        for (what, map) in [("label", self.labels), ("annotation", self.annotations)] {
            if let Some(value) = map.get("") {
                names.mistake(value.range(), format!("a {what} has no name"), None);
            }
        }
        if let Some(user) = self.user {
            note(names, user, settings::check_user(user));
        }
        if let Some(workdir) = self.workdir.filter(|workdir| !workdir.is_empty()) {
            note(names, workdir, settings::check_absolute("the working folder", workdir));
        }
        for port in self.ports {
            note(names, port, settings::complete_port(&text(&port.value)).map(drop));
        }
        for volume in self.volumes {
            note(names, volume, settings::check_absolute("the volume", volume));
        }
        if let Some(signal) = self.stop_signal {
            note(names, signal, settings::check_signal(&text(&signal.value)));
        }
        if let Some(healthcheck) = self.healthcheck {
            healthcheck.check(names);
        }
        if let Some(created) = self.created {
            note(names, created, time(&created.value).map(drop));
        }
    }

    /// What an image says differently from its base.
    pub fn settings(&self) -> Settings {
        let plain = |map: &BTreeMap<String, Placed<String>>| -> BTreeMap<String, String> {
            map.iter().map(|(name, value)| (name.clone(), value.value.clone())).collect()
        };
        Settings {
            entrypoint: self.entrypoint.cloned(),
            cmd: self.cmd.cloned(),
            env: plain(self.env),
            user: self.user.map(|user| user.value.clone()),
            workdir: self.workdir.map(|workdir| workdir.value.clone()),
            labels: plain(self.labels),
            annotations: plain(self.annotations),
            ports: self
                .ports
                .iter()
                .filter_map(|port| settings::complete_port(&text(&port.value)).ok())
                .collect(),
            volumes: self.volumes.iter().map(|volume| volume.value.clone()).collect::<BTreeSet<_>>(),
            stop_signal: self.stop_signal.map(|signal| text(&signal.value)),
            healthcheck: self.healthcheck.map(HealthcheckTable::healthcheck),
            shell: self.shell.cloned(),
            author: self.author.cloned(),
            created: self.created.and_then(|created| time(&created.value).ok()).unwrap_or(0),
        }
    }
}

fn note<T>(names: &mut dyn Names, at: &Placed<T>, checked: Result<()>) {
    if let Err(Error::Failed(failure)) = checked {
        names.mistake(at.range(), failure.message, failure.hints.into_iter().next());
    }
}

fn text(value: &NumberOrText) -> String {
    match value {
        NumberOrText::Number(number) => number.to_string(),
        NumberOrText::Text(text) => text.clone(),
    }
}

/// Seconds since the epoch, as a number (`SOURCE_DATE_EPOCH`) or as RFC 3339.
fn time(value: &NumberOrText) -> Result<u64> {
    let text = text(value);
    let found = match text.parse::<u64>() {
        Ok(number) => rfc3339(number).map(|_| number).ok(),
        Err(_) => seconds(&text),
    };
    found.ok_or_else(|| {
        let hint = "seconds since 1970, or a time in UTC: `2026-01-31T12:00:00Z`";
        crate::error::Failure::new(format!("`{text}` is not a time")).hint(hint).into()
    })
}
