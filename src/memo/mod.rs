//! The run memo: what the last run of the same targets and flags saw, in one checksummed file, so that
//! a run with nothing to do costs one `statx` for each path and nothing else. Losing it costs time.
//!
//! Layout: magic, checksum of what follows up to the tasks, five lengths, checksum of the rest, then the
//! head (JSON), the stamps (fixed size), the paths (each ends in NUL); then the tasks and the outline of
//! the configuration, which are read only when something has changed.

mod draft;
mod entry;
mod outline;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};

use crate::cache::Cache;
use crate::cache::local::Look;
use crate::digest::Digest;
use crate::host::fs::{self, Stamp};
use crate::work::Env;
pub use draft::Draft;
pub use entry::Entry;
pub use outline::{Outline, table};

const MAGIC: &[u8; 16] = b"vcbuild memo 005";
/// The checksum of what lies between it and the tasks.
const FRONT_SUM: usize = 16;
/// The lengths of head, stamps (how many), paths, tasks and outline.
const LENGTHS: usize = FRONT_SUM + 32;
/// The checksum of the tasks and the outline.
const REST_SUM: usize = LENGTHS + 5 * 8;
const HEADER: usize = REST_SUM + 32;
/// Bytes of one stamp: five numbers, flags, and where its path begins.
const STAMP: usize = 48;
const FLAGS_AT: usize = 40;
const PATH_AT: usize = 44;
const TARGET: u8 = 1;
const ABSENT: u8 = 2;
/// The stamp was so young that a change could leave it as it is: it counts as changed.
const RACY: u8 = 4;
const WAY: u8 = 8;
/// Paths that a thread takes at once, so that no thread waits long for another at the end.
const TURN: usize = 256;

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
    /// How many hosts are asked at once.
    pub parallel: usize,
    /// How many of the paths are about the run as a whole: the configuration, the lock, vcbuild.
    common: usize,
}

/// A memo that was read.
pub struct Memo {
    /// The head.
    pub head: Head,
    /// The file, for the tasks.
    file: File,
    /// What is in it before the tasks.
    front: Vec<u8>,
    /// Where the stamps begin.
    stamps: usize,
    /// Where the paths begin.
    paths: usize,
    /// How long the tasks are, and the outline.
    tasks: usize,
    outline: usize,
}

/// What is remembered of the tasks.
#[derive(Debug, PartialEq)]
pub struct Known {
    /// The tasks that still hold by themselves: none of their paths has changed.
    pub entries: BTreeMap<String, Entry>,
    /// The others.
    pub changed: BTreeSet<String>,
    /// The encoded outline of the configuration.
    pub outline: Vec<u8>,
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
        let mut file = File::open(path).ok()?;
        let all = usize::try_from(file.metadata().ok()?.len()).ok()?;
        let mut front = vec![0; HEADER];
        file.read_exact(&mut front).ok()?;
        if !front.starts_with(MAGIC) {
            return None;
        }
        let length = |at: usize| usize::try_from(number(&front, LENGTHS + at * 8)).ok();
        let (head, stamps, paths) = (length(0)?, length(1)?, length(2)?);
        let (tasks, outline) = (length(3)?, length(4)?);
        let stamps_at = HEADER.checked_add(head)?;
        let paths_at = stamps_at.checked_add(stamps.checked_mul(STAMP)?)?;
        let end = paths_at.checked_add(paths)?;
        if end.checked_add(tasks)?.checked_add(outline)? != all {
            return None;
        }
        front.resize(end, 0);
        file.read_exact(&mut front[HEADER..]).ok()?;
        if blake3::hash(&front[LENGTHS..]).as_bytes()[..] != front[FRONT_SUM..LENGTHS] {
            return None;
        }
        let parsed: Head = serde_json::from_slice(&front[HEADER..stamps_at]).ok()?;
        Some(Self { head: parsed, file, front, stamps: stamps_at, paths: paths_at, tasks, outline })
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
        let count = self.count();
        let (next, common_changed) = (AtomicUsize::new(0), AtomicBool::new(false));
        let check = || {
            let mut changed = Vec::new();
            while !common_changed.load(Ordering::Relaxed) {
                let from = next.fetch_add(TURN, Ordering::Relaxed);
                if from >= count {
                    break;
                }
                for index in (from..count.min(from + TURN)).filter(|index| !self.holds(*index, &folder)) {
                    if index < self.head.common {
                        common_changed.store(true, Ordering::Relaxed);
                    }
                    changed.push(index as u32);
                }
            }
            changed
        };
        // For a few hundred paths a thread costs more than it saves.
        let more = if count < 500 { 0 } else { fs::processors().min(8) - 1 };
        let changed: BTreeSet<u32> = std::thread::scope(|scope| {
            let others: Vec<_> = (0..more).map(|_| scope.spawn(check)).collect();
            let mut changed = check();
            for other in others {
                match other.join() {
                    Ok(more) => changed.extend(more),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            changed.into_iter().collect()
        });
        match (common_changed.into_inner(), changed.is_empty()) {
            (true, _) => Changes::All,
            (false, true) => Changes::None,
            (false, false) => Changes::Inputs(changed),
        }
    }

    /// How many paths it looks at.
    fn count(&self) -> usize {
        (self.paths - self.stamps) / STAMP
    }

    /// The bytes of a stamp.
    fn record(&self, index: usize) -> &[u8] {
        &self.front[self.stamps + index * STAMP..][..STAMP]
    }

    fn path(&self, index: usize) -> Option<&CStr> {
        let mut offset = [0; 4];
        offset.copy_from_slice(&self.record(index)[PATH_AT..]);
        let paths = &self.front[self.paths..];
        CStr::from_bytes_until_nul(paths.get(u32::from_le_bytes(offset) as usize..)?).ok()
    }

    fn holds(&self, index: usize, folder: &File) -> bool {
        let Some(path) = self.path(index) else { return false };
        let record = self.record(index);
        let flags = record[FLAGS_AT];
        if flags & RACY != 0 {
            return false;
        }
        let look = look(flags);
        let Ok(found) = fs::status_at(folder, path, look.links()) else { return false };
        let known = (flags & ABSENT == 0).then(|| stamp(record));
        look.stamp(found) == known
    }

    /// What is remembered of the tasks, if the paths of these indices have changed. `None` if it is damaged.
    pub fn known(&self, changed: &BTreeSet<u32>) -> Option<Known> {
        let mut bytes = vec![0; self.tasks + self.outline];
        self.file.read_exact_at(&mut bytes, self.front.len() as u64).ok()?;
        if blake3::hash(&bytes).as_bytes()[..] != self.front[REST_SUM..HEADER] {
            return None;
        }
        let outline = bytes.split_off(self.tasks);
        let (mut rest, mut hold, mut not) = (bytes.as_slice(), Vec::new(), BTreeSet::new());
        while !rest.is_empty() {
            let (name, entry) = Entry::decode(&mut rest, self.count())?;
            if changed.is_empty() || entry.paths.iter().all(|path| !changed.contains(path)) {
                hold.push((name, entry));
            } else {
                not.insert(name);
            }
        }
        Some(Known { entries: hold.into_iter().collect(), changed: not, outline })
    }
}

fn number(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

fn look(flags: u8) -> Look {
    match flags & (TARGET | WAY) {
        0 => Look::Itself,
        TARGET => Look::Target,
        _ => Look::Way,
    }
}

fn stamp(record: &[u8]) -> Stamp {
    Stamp {
        dev: number(record, 0),
        ino: number(record, 8),
        size: number(record, 16),
        mtime: number(record, 24) as i64,
        ctime: number(record, 32) as i64,
    }
}
