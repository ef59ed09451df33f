//! What became of each task in the last runs of a project: one file, appended once per run, read by
//! `why`, `log` and `list`. Losing it costs explanations, never a result.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Cache;
use crate::digest::{Blob, Digest};
use crate::error::{At, Result};
use crate::host::fs::{self, Durability};

/// One ending of one task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ending {
    /// The key, for actions.
    pub key: Option<Digest>,
    /// The tree it made, for actions.
    pub value: Option<Digest>,
    /// What it wanted at its destinations, for effects.
    pub wants: Option<serde_json::Value>,
    /// The outcome in one lower-case word.
    pub outcome: String,
    /// What it printed.
    pub log: Option<Blob>,
    /// Seconds since 1970.
    pub time: i64,
    /// Wall-clock seconds that it took.
    pub seconds: f64,
}

impl Ending {
    /// Whether both are about the same work.
    pub fn same_work(&self, other: &Self) -> bool {
        self.key == other.key && self.wants == other.wants
    }
}

/// The history of one project.
pub struct History {
    path: PathBuf,
}

/// The endings of the past by task, each line read only when somebody asks for it.
pub struct Past {
    bytes: Vec<u8>,
    /// Where a line's task begins, where it ends, and where the line ends; sorted by task, then by time.
    lines: Vec<(usize, usize, usize)>,
}

impl Past {
    fn new(bytes: Vec<u8>) -> Self {
        let (mut lines, mut start) = (Vec::new(), 0);
        for line in bytes.split(|&byte| byte == b'\n') {
            if let Some(tab) = line.iter().position(|&byte| byte == b'\t') {
                lines.push((start, start + tab, start + line.len()));
            }
            start += line.len() + 1;
        }
        lines.sort_unstable_by_key(|&(start, tab, _)| (&bytes[start..tab], start));
        Self { bytes, lines }
    }

    /// The last ending of a task.
    pub fn last(&self, task: &str) -> Option<Ending> {
        let name = |&(start, tab, _): &(usize, usize, usize)| &self.bytes[start..tab];
        let from = self.lines.partition_point(|line| name(line) < task.as_bytes());
        let own = self.lines[from..].iter().take_while(|line| name(line) == task.as_bytes());
        // A line that a crash cut short is nothing.
        let own: Vec<_> = own.collect();
        own.iter().rev().find_map(|&&(_, tab, end)| serde_json::from_slice(&self.bytes[tab + 1..end]).ok())
    }
}

/// From this size on the file is rewritten when most of it is old.
const LARGE: u64 = 1 << 20;

impl Cache {
    /// The history of the project in `root`.
    pub fn history(&self, root: &Path) -> History {
        use std::os::unix::ffi::OsStrExt;
        History { path: self.path("runs").join(Digest::of(root.as_os_str().as_bytes()).hex()) }
    }
}

impl History {
    /// For each task its last ending, and the last one before it that was about other work.
    pub fn read(&self) -> BTreeMap<String, (Ending, Option<Ending>)> {
        let mut all: BTreeMap<String, (Ending, Option<Ending>)> = BTreeMap::new();
        let bytes = fs::read(&self.path, 1 << 30).ok().flatten().unwrap_or_default();
        for line in bytes.split(|&byte| byte == b'\n') {
            // A line that a crash cut short is nothing.
            let Ok(line) = std::str::from_utf8(line) else { continue };
            let Some((task, ending)) = line.split_once('\t') else { continue };
            let Ok(ending) = serde_json::from_str::<Ending>(ending) else { continue };
            match all.get_mut(task) {
                None => {
                    all.insert(task.to_string(), (ending, None));
                }
                Some((last, _)) if last.same_work(&ending) => *last = ending,
                Some((last, before)) => *before = Some(std::mem::replace(last, ending)),
            }
        }
        all
    }

    /// The keys under which a task has a value, the last first, each once.
    pub fn keys(&self, task: &str) -> Vec<Digest> {
        let bytes = fs::read(&self.path, 1 << 30).ok().flatten().unwrap_or_default();
        let mut keys = Vec::new();
        for line in bytes.rsplit(|&byte| byte == b'\n') {
            let Some(ending) = line.strip_prefix(task.as_bytes()).and_then(|rest| rest.strip_prefix(b"\t"))
            else {
                continue;
            };
            let Ok(ending) = serde_json::from_slice::<Ending>(ending) else { continue };
            if let (Some(key), Some(_)) = (ending.key, ending.value)
                && !keys.contains(&key)
            {
                keys.push(key);
            }
        }
        keys
    }

    /// The endings of the past.
    pub fn past(&self) -> Past {
        Past::new(fs::read(&self.path, 1 << 30).ok().flatten().unwrap_or_default())
    }

    /// Adds endings.
    pub fn append(&self, endings: &BTreeMap<String, Ending>) -> Result<()> {
        let mut text = String::new();
        for (task, ending) in endings {
            let Ok(json) = serde_json::to_string(ending) else {
                panic!("BUG: an ending cannot be written")
            };
            text.push_str(&format!("{task}\t{json}\n"));
        }
        let mut file = fs::open_append(&self.path)?;
        // A line that a crash cut short must not swallow the next one.
        let text = format!("\n{text}");
        file.write_all(text.as_bytes()).at("write", &self.path)?;
        if fs::status_of(&file).is_ok_and(|found| found.stamp.size > LARGE) {
            self.compact()?;
        }
        Ok(())
    }

    fn compact(&self) -> Result<()> {
        let mut text = String::new();
        for (task, (last, before)) in self.read() {
            for ending in before.iter().chain([&last]) {
                let Ok(json) = serde_json::to_string(ending) else {
                    panic!("BUG: an ending cannot be written")
                };
                text.push_str(&format!("{task}\t{json}\n"));
            }
        }
        if (text.len() as u64) < LARGE / 2
            || fs::read(&self.path, 1 << 30)?.is_some_and(|old| text.len() * 2 < old.len())
        {
            fs::write(&self.path, text.as_bytes(), 0o644, Durability::Cache)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ending(key: u8, time: i64) -> Ending {
        Ending {
            key: Some(Digest::of(&[key])),
            value: None,
            wants: None,
            outcome: "ran".into(),
            log: None,
            time,
            seconds: 0.5,
        }
    }

    #[test]
    fn the_last_two_distinct_keys_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path()).unwrap();
        let history = cache.history(Path::new("/p"));
        for (key, time) in [(1, 1), (2, 2), (2, 3)] {
            history.append(&BTreeMap::from([("compile.a".to_string(), ending(key, time))])).unwrap();
        }
        let read = history.read();
        assert_eq!(read["compile.a"], (ending(2, 3), Some(ending(1, 1))));
        assert_eq!(history.past().last("compile.a"), Some(ending(2, 3)));
        assert_eq!((history.past().last("compile."), history.past().last("compile.b")), (None, None));
        history.compact().unwrap();
        assert_eq!(history.read(), read);
        assert!(history.keys("compile.a").is_empty(), "a task without a value has none to go back to");
        let with = |key| Ending { value: Some(Digest::of(b"v")), ..ending(key, 9) };
        for key in [3, 4, 3] {
            history.append(&BTreeMap::from([("compile.a".to_string(), with(key))])).unwrap();
        }
        assert_eq!(history.keys("compile.a"), [3, 4].map(|key| Digest::of(&[key])));
    }
}
