//! The run memo: what the last run of the same targets and flags saw, in one checksummed file, so that
//! a run with nothing to do costs one `statx` for each path and nothing else. Losing it costs time.
//!
//! Layout: magic, checksum of the rest, four lengths, then the head (JSON), the stamps (fixed size), the
//! paths (each ends in NUL) and the tasks (JSON). Only head, stamps and paths are looked at when nothing
//! has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use crate::cache::Cache;
use crate::cache::local::Fact;
use crate::digest::Digest;
use crate::error::Result;
use crate::host::fs::{self, Durability, Links, Stamp};
use crate::work::Env;

const MAGIC: &[u8; 16] = b"vcbuild memo 001";
const HEADER: usize = 16 + 32 + 4 * 8;
/// Bytes of one stamp: five numbers and flags.
const STAMP: usize = 48;
const FOLLOW: u8 = 1;
const ABSENT: u8 = 2;
/// The stamp was so young that a change could leave it as it is: it counts as changed.
const RACY: u8 = 4;

/// What is looked at when nothing has changed.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Head {
    /// The boot of the machine in which the stamps were taken.
    boot: String,
    /// Variables of the environment, with the digest of their value.
    variables: BTreeMap<String, Option<Digest>>,
    /// Whether everything that was selected is done.
    pub complete: bool,
    /// How many tasks were selected.
    pub tasks: usize,
    /// What each effect wants: its kind and plain data.
    pub effects: Vec<(String, serde_json::Value)>,
    /// What was seen on hosts.
    pub remote: Vec<serde_json::Value>,
    /// How many of the paths are about the run as a whole: the configuration, the lock, vcbuild.
    common: usize,
}

/// What is remembered of one task.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// The key, for actions.
    pub key: Option<Digest>,
    /// The value, for actions.
    pub value: Option<Digest>,
    /// The values it read.
    pub values: BTreeMap<String, Digest>,
    /// What it wants, for effects.
    pub wants: Option<serde_json::Value>,
    /// Whether something was seen on a host.
    pub is_remote: bool,
    /// Indices of its paths.
    paths: Vec<u32>,
}

/// A memo that was read.
pub struct Memo {
    /// The head.
    pub head: Head,
    bytes: Vec<u8>,
    stamps: usize,
    paths: usize,
    tasks: usize,
}

/// What has changed since a memo was written.
#[derive(Debug, PartialEq)]
pub enum Changes {
    /// Nothing that it looked at.
    None,
    /// Only local inputs: the indices of their paths.
    Inputs(BTreeSet<u32>),
    /// What is common to all tasks: nothing of it holds.
    All,
}

/// Where the memo of these targets and flags lies; `flags` is any text that tells two runs apart.
pub fn path(cache: &Cache, root: &Path, targets: &[String], flags: &str) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    let mut hasher = blake3::Hasher::new();
    for part in [root.as_os_str().as_bytes(), flags.as_bytes()] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    for target in targets {
        hasher.update(&(target.len() as u64).to_le_bytes());
        hasher.update(target.as_bytes());
    }
    cache.path("memo").join(hasher.finalize().to_hex().as_str())
}

impl Memo {
    /// Reads a memo; `None` if there is no whole one.
    pub fn read(path: &Path) -> Option<Self> {
        let bytes = fs::read(path, 1 << 32).ok()??;
        if bytes.len() < HEADER || &bytes[..16] != MAGIC {
            return None;
        }
        if blake3::hash(&bytes[48..]).as_bytes()[..] != bytes[16..48] {
            return None;
        }
        let length = |at: usize| usize::try_from(number(&bytes, 48 + at * 8)).ok();
        let (head, stamps, paths, tasks) = (length(0)?, length(1)?, length(2)?, length(3)?);
        if HEADER + head + stamps * STAMP + paths + tasks != bytes.len() {
            return None;
        }
        let parsed: Head = serde_json::from_slice(&bytes[HEADER..HEADER + head]).ok()?;
        let stamps_at = HEADER + head;
        let paths_at = stamps_at + stamps * STAMP;
        Some(Self { head: parsed, stamps: stamps_at, paths: paths_at, tasks: paths_at + paths, bytes })
    }

    /// Looks at every path again. The project is in `root`.
    pub fn changes(&self, root: &Path, env: &Env) -> Changes {
        let same = |(name, digest): (&String, &Option<Digest>)| {
            use std::os::unix::ffi::OsStrExt;
            env.value(name).map(|value| Digest::of(value.as_bytes())) == *digest
        };
        if self.head.boot != fs::boot_id() || !self.head.variables.iter().all(same) {
            return Changes::All;
        }
        let Ok(folder) = File::open(root) else { return Changes::All };
        let count = (self.paths - self.stamps) / STAMP;
        let common_changed = AtomicBool::new(false);
        let check = |from: usize, to: usize| {
            let mut changed = Vec::new();
            for index in from..to {
                if self.holds(index, &folder) {
                    continue;
                }
                if index < self.head.common {
                    common_changed.store(true, Ordering::Relaxed);
                    break;
                }
                changed.push(index as u32);
            }
            changed
        };
        // For a few hundred paths a thread costs more than it saves.
        let changed: Vec<u32> = if count < 500 {
            check(0, count)
        } else {
            let threads = std::thread::available_parallelism().map_or(2, usize::from).min(8);
            std::thread::scope(|scope| {
                let check = &check;
                let part =
                    |i: usize| scope.spawn(move || check(count * i / threads, count * (i + 1) / threads));
                let parts: Vec<_> = (0..threads).map(part).collect();
                parts.into_iter().flat_map(|part| part.join().unwrap_or_default()).collect()
            })
        };
        match (common_changed.into_inner(), changed.is_empty()) {
            (true, _) => Changes::All,
            (false, true) => Changes::None,
            (false, false) => Changes::Inputs(changed.into_iter().collect()),
        }
    }

    fn path(&self, index: usize) -> Option<&CStr> {
        let at = self.stamps + index * STAMP + 44;
        let mut offset = [0; 4];
        offset.copy_from_slice(&self.bytes[at..at + 4]);
        let paths = &self.bytes[self.paths..self.tasks];
        CStr::from_bytes_until_nul(paths.get(u32::from_le_bytes(offset) as usize..)?).ok()
    }

    fn holds(&self, index: usize, folder: &File) -> bool {
        let Some(path) = self.path(index) else { return false };
        let at = self.stamps + index * STAMP;
        let flags = self.bytes[at + 40];
        if flags & RACY != 0 {
            return false;
        }
        let links = if flags & FOLLOW != 0 { Links::Follow } else { Links::Keep };
        let Ok(found) = fs::status_at(folder, path, links) else { return false };
        let known = (flags & ABSENT == 0).then(|| self.stamp(at));
        found.map(|found| found.stamp) == known
    }

    /// The tasks that still hold by themselves: none of their paths has changed.
    pub fn entries(&self, changed: &BTreeSet<u32>) -> BTreeMap<String, Entry> {
        let all: BTreeMap<String, Entry> =
            serde_json::from_slice(&self.bytes[self.tasks..]).unwrap_or_default();
        all.into_iter()
            .filter(|(_, entry)| entry.paths.iter().all(|path| !changed.contains(path)))
            .collect()
    }
}

fn number(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

/// A memo that is being made.
pub struct Draft {
    head: Head,
    facts: BTreeMap<(Vec<u8>, bool), u32>,
    stamps: Vec<(Option<Stamp>, bool)>,
    tasks: BTreeMap<String, Entry>,
    /// The moment before the run looked at anything.
    began: i64,
}

impl Draft {
    /// A memo of a run that began at `began` (nanoseconds since 1970). `common` is what holds for all
    /// tasks.
    pub fn new(began: i64, common: &[Fact]) -> Self {
        let mut draft = Self {
            head: Head { boot: fs::boot_id(), ..Head::default() },
            facts: BTreeMap::new(),
            stamps: Vec::new(),
            tasks: BTreeMap::new(),
            began,
        };
        for fact in common {
            draft.add(fact);
        }
        draft.head.common = draft.stamps.len();
        draft
    }

    fn add(&mut self, fact: &Fact) -> u32 {
        let next = self.stamps.len() as u32;
        let index = *self.facts.entry((fact.path.clone(), fact.follow)).or_insert(next);
        if index == next {
            self.stamps.push((fact.stamp, false));
        } else if self.stamps[index as usize].0 != fact.stamp {
            // It changed while the run went on: one of the two is wrong.
            self.stamps[index as usize].1 = true;
        }
        index
    }

    /// Adds a task that is done, and what it looked at.
    pub fn task(
        &mut self,
        name: &str,
        mut entry: Entry,
        facts: &[Fact],
        env: &Env,
        variables: &BTreeSet<String>,
    ) {
        use std::os::unix::ffi::OsStrExt;
        let mut paths: Vec<u32> = facts.iter().map(|fact| self.add(fact)).collect();
        paths.sort_unstable();
        paths.dedup();
        entry.paths = paths;
        for name in variables {
            let digest = env.value(name).map(|value| Digest::of(value.as_bytes()));
            self.head.variables.insert(name.clone(), digest);
        }
        self.tasks.insert(name.to_string(), entry);
    }

    /// Carries tasks over from an earlier memo, with what they looked at then.
    pub fn carry(&mut self, tasks: BTreeMap<String, Entry>, memo: &Memo, env: &Env) {
        let facts = memo.facts();
        let variables = memo.head.variables.keys().cloned().collect();
        for (name, entry) in tasks {
            let paths: Vec<Fact> = entry.paths.iter().map(|index| facts[*index as usize].clone()).collect();
            self.task(&name, entry, &paths, env, &variables);
        }
    }

    /// Writes the memo.
    pub fn write(
        mut self,
        path: &Path,
        complete: bool,
        tasks: usize,
        effects: Vec<(String, serde_json::Value)>,
        remote: Vec<serde_json::Value>,
    ) -> Result<()> {
        self.head.complete = complete;
        self.head.tasks = tasks;
        self.head.effects = effects;
        self.head.remote = remote;
        let json = |value: serde_json::Result<Vec<u8>>| match value {
            Ok(bytes) => bytes,
            Err(error) => panic!("BUG: a memo cannot be written: {error}"),
        };
        let (head, tasks) = (json(serde_json::to_vec(&self.head)), json(serde_json::to_vec(&self.tasks)));
        let mut named: Vec<(u32, Vec<u8>, bool)> =
            self.facts.into_iter().map(|((path, follow), index)| (index, path, follow)).collect();
        named.sort_unstable();
        let (mut stamps, mut paths) = (Vec::new(), Vec::new());
        for ((index, path, follow), (stamp, changed)) in named.into_iter().zip(&self.stamps) {
            debug_assert_eq!(stamps.len() / STAMP, index as usize);
            let flags = flags(stamp, follow, *changed, self.began);
            put_stamp(&mut stamps, stamp, flags, paths.len() as u32);
            paths.extend_from_slice(&path);
            paths.push(0);
        }
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&[0; 32]);
        for length in [head.len(), stamps.len() / STAMP, paths.len(), tasks.len()] {
            bytes.extend_from_slice(&(length as u64).to_le_bytes());
        }
        for part in [head, stamps, paths, tasks] {
            bytes.extend_from_slice(&part);
        }
        let sum = blake3::hash(&bytes[48..]);
        bytes[16..48].copy_from_slice(sum.as_bytes());
        fs::write(path, &bytes, 0o644, Durability::Cache)
    }
}

fn flags(stamp: &Option<Stamp>, follow: bool, changed: bool, began: i64) -> u8 {
    let racy = changed || stamp.is_some_and(|stamp| stamp.is_racy(began));
    let set = |flag: u8, is: bool| if is { flag } else { 0 };
    set(FOLLOW, follow) | set(ABSENT, stamp.is_none()) | set(RACY, racy)
}

fn put_stamp(out: &mut Vec<u8>, stamp: &Option<Stamp>, flags: u8, offset: u32) {
    let stamp = stamp.unwrap_or(Stamp { dev: 0, ino: 0, size: 0, mtime: 0, ctime: 0 });
    for number in [stamp.dev, stamp.ino, stamp.size, stamp.mtime as u64, stamp.ctime as u64] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&[flags, 0, 0, 0]);
    out.extend_from_slice(&offset.to_le_bytes());
}

impl Memo {
    /// All that it looked at.
    fn facts(&self) -> Vec<Fact> {
        let fact = |index: usize| {
            let base = self.stamps + index * STAMP;
            let flags = self.bytes[base + 40];
            let stamp = (flags & ABSENT == 0).then(|| self.stamp(base));
            let path = self.path(index).unwrap_or_default().to_bytes().to_vec();
            Fact { path, follow: flags & FOLLOW != 0, stamp }
        };
        (0..(self.paths - self.stamps) / STAMP).map(fact).collect()
    }

    fn stamp(&self, at: usize) -> Stamp {
        Stamp {
            dev: number(&self.bytes, at),
            ino: number(&self.bytes, at + 8),
            size: number(&self.bytes, at + 16),
            mtime: number(&self.bytes, at + 24) as i64,
            ctime: number(&self.bytes, at + 32) as i64,
        }
    }
}

impl Entry {
    /// What is remembered of a task.
    pub fn new(key: Option<Digest>, value: Option<Digest>, values: BTreeMap<String, Digest>) -> Self {
        Self { key, value, values, wants: None, is_remote: false, paths: Vec::new() }
    }
}
