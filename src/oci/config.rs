//! An image's config: how it is read and written (image-spec "Image Configuration"). Knows no layer's
//! content and no manifest.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::oci::descriptor::Platform;
use crate::oci::document::{LONGEST_CONFIG, decode, encode, null_is_empty};
use crate::oci::quoted;

/// A config. Fields that only say how somebody built an image (`container`, `docker_version`, …) are
/// not kept in a config that is made from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// What it runs on.
    #[serde(flatten)]
    pub platform: Platform,
    /// How it runs.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub config: Execution,
    /// The layers' content.
    pub rootfs: RootFs,
    /// How it came to be; entries that are not `empty_layer` belong to the layers in order.
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
}

/// The layers' content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    #[serde(rename = "type")]
    kind: String,
    /// The SHA-256 of each layer's tar, lowest first.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub diff_ids: Vec<Digest>,
}

/// One line of history.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// By which command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Whether it made no layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub empty_layer: Option<bool>,
}

/// How an image runs: OCI's fields and those of Docker's that outlive a build.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Execution {
    /// A name or number, and perhaps a group after `:`.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// `8080/tcp`.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, Empty>,
    /// `NAME=value`.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// The command's fixed start.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// The command's rest, which a user may replace.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// Folders that are volumes.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Empty>,
    /// The folder in which it starts.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Free text.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// `SIGTERM`.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// Docker's: seconds until it is killed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    /// Docker's: how to see whether it is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Docker's: what runs commands that are one string.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub shell: Vec<String>,
}

/// Go's `struct{}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// Docker's health check; times in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `CMD`, `CMD-SHELL` or `NONE`, and the command.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Between two checks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<i64>,
    /// For one check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
    /// In which failures do not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_period: Option<i64>,
    /// Between two checks in the start period.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_interval: Option<i64>,
    /// Failures until it is unwell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<i64>,
}

impl Config {
    /// A config without layers.
    pub fn new(platform: Platform) -> Self {
        let rootfs = RootFs { kind: "layers".to_string(), diff_ids: Vec::new() };
        let config = Execution::default();
        Self { created: None, author: None, platform, config, rootfs, history: Vec::new() }
    }

    /// Reads a config; fails unless its layers are a list of SHA-256 digests and it says what it runs on.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() as u64 > LONGEST_CONFIG {
            return Err(Error::failed(format!("an image's config has more than {LONGEST_CONFIG} bytes")));
        }
        let config: Self = decode("an image's config", bytes)?;
        if config.rootfs.kind != "layers" {
            let kind = quoted(&config.rootfs.kind);
            return Err(Error::failed(format!("an image's root file system is {kind}, not `layers`")));
        }
        if let Some(digest) = config.rootfs.diff_ids.iter().find(|id| !matches!(id, Digest::Sha256(_))) {
            return Err(Error::failed(format!("an image's config: `{digest}` is no sha256 digest")));
        }
        if config.platform.os.is_empty() || config.platform.architecture.is_empty() {
            return Err(Error::failed("an image's config does not say what it runs on"));
        }
        Ok(config)
    }

    /// The bytes, always the same.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// One line of history per layer: lines that do not fit the layers are replaced by empty ones.
    pub fn tidy_history(&mut self) {
        let layers = self.history.iter().filter(|line| line.empty_layer != Some(true)).count();
        if layers != self.rootfs.diff_ids.len() {
            self.history = vec![History::default(); self.rootfs.diff_ids.len()];
        }
    }
}

/// Seconds since the epoch as RFC 3339 in UTC; fails after the year 9999.
pub fn rfc3339(seconds: u64) -> Result<String> {
    if seconds > 253_402_300_799 {
        return Err(Error::failed(format!("{seconds} seconds since the epoch are after the year 9999")));
    }
    let (days, second) = (seconds / 86400, seconds % 86400);
    // Howard Hinnant's days-from-civil, backwards: years begin in March, eras have 400 of them.
    let day = days + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march = (5 * of_year + 2) / 153;
    let (month, day) = ((march + 2) % 12 + 1, of_year - (153 * march + 2) / 5 + 1);
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    Ok(format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}Z", second % 60))
}

/// Seconds since the epoch of a time that is written as `rfc3339` writes it; `None` for every other.
pub fn seconds(text: &str) -> Option<u64> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<u64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let clock = number(11..13)? * 3600 + number(14..16)? * 60 + number(17..19)?;
    let march = (month + 9) % 12;
    let year = year.checked_sub(u64::from(month <= 2))?;
    let day_of_year = (153 * march + 2) / 5 + day.checked_sub(1)?;
    let days = year * 365 + year / 4 - year / 100 + year / 400 + day_of_year;
    let seconds = days.checked_sub(719_468)? * 86400 + clock;
    // Whatever is not a date of the calendar, or is written otherwise, comes out as another text.
    (rfc3339(seconds).ok()? == text).then_some(seconds)
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

    #[test]
    fn hostile_configs_are_refused() {
        for text in [
            "",
            "[]",
            r#"{"architecture":"amd64","os":"linux"}"#,
            r#"{"os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#,
            r#"{"architecture":"","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#,
            r#"{"architecture":"a","os":"linux","rootfs":{"type":"zfs","diff_ids":[]}}"#,
            r#"{"architecture":"a","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:.."]}}"#,
            r#"{"architecture":"a","os":"linux","rootfs":{"type":"layers","diff_ids":[7]}}"#,
        ] {
            assert!(Config::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn history_has_a_line_per_layer() {
        let mut config = base();
        config.rootfs.diff_ids = vec![Digest::sha256_of(b""); 2];
        config.history = vec![History { empty_layer: Some(true), ..History::default() }];
        config.tidy_history();
        assert_eq!(config.history, vec![History::default(); 2]);
        let kept = vec![
            History { created_by: Some("a".into()), ..History::default() },
            History { empty_layer: Some(true), ..History::default() },
            History::default(),
        ];
        config.history.clone_from(&kept);
        config.tidy_history();
        assert_eq!(config.history, kept);
    }

    #[test]
    fn times_are_in_utc() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(seconds).unwrap(), expected);
            assert_eq!(super::seconds(expected), Some(seconds));
        }
        for wrong in [
            "",
            "2026-02-29T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:00:60Z",
            "2026-01-01 00:00:00Z",
            "2026-01-01T00:00:00+01:00",
            "1969-12-31T23:59:59Z",
            "0000-01-01T00:00:00Z",
            "ä026-01-01T00:00:00Z",
        ] {
            assert_eq!(super::seconds(wrong), None, "{wrong}");
        }
        assert!(rfc3339(253_402_300_800).is_err());
    }
}
