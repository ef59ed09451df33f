//! The cache: content by digest, results by key, and what is remembered about files. Any part of it
//! may vanish at any time. Knows no task and no configuration.

pub mod actions;
pub mod bulk;
pub mod cas;
pub mod draft;
pub mod folder;
pub mod history;
pub mod local;
mod pack;
pub mod packs;
pub mod stamps;
pub mod tree;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::digest::Digest;
use crate::error::{At, Error, Failure, Result};
use crate::host::fs::{self, Scratch};
use crate::host::stop::Stop;
use cas::Cas;
use packs::Packs;
use stamps::Stamps;

/// The version of the layout on disk; a newer layout gets a folder of its own.
const VERSION: &str = "v1";

/// An open cache folder.
pub struct Cache {
    root: PathBuf,
    /// Content by digest.
    pub cas: Cas,
}

impl Cache {
    /// Opens the cache in `folder`, making it if need be. Fails if it cannot be written to.
    pub fn open(folder: &Path) -> Result<Self> {
        let root = folder.join(VERSION);
        let prepare = || {
            for part in ["cas", "actions", "tmp"] {
                fs::make_folder(&root.join(part))?;
            }
            fs::temporary(&root.join("tmp")).map(drop)
        };
        prepare().map_err(|error| match error {
            Error::Failed(failure) => Error::Failed(
                Failure { message: format!("the cache cannot be written: {}", failure.message), ..failure }
                    .hint("choose another folder with `--cache DIR` or `VCBUILD_CACHE`"),
            ),
            other => other,
        })?;
        let stamps = Stamps::new(root.join("stamps"));
        Ok(Self { cas: Cas::new(root.join("cas"), root.join("tmp"), stamps), root })
    }

    /// A path inside the cache.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.root.join(inside)
    }

    /// A new empty folder that is removed when it is dropped.
    pub fn scratch(&self) -> Result<Scratch> {
        Scratch::new(&self.path("tmp"))
    }

    /// Takes the lock on a name, waiting for whoever has it; `waiting` is called before a wait.
    pub fn lock(&self, name: &Path, stop: &Stop, waiting: impl FnOnce()) -> Result<Lock> {
        take(name, File::try_lock, stop, waiting)
    }

    /// Takes the lock on a name if nobody has it.
    pub fn try_lock(&self, name: &Path) -> Result<Option<Lock>> {
        let file = fs::open_lock(name)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock { _file: file })),
            Err(std::fs::TryLockError::WouldBlock) => Ok(None),
            Err(std::fs::TryLockError::Error(error)) => Err(error).at("lock", name),
        }
    }

    /// Takes a lock that others may take likewise, but nobody alone.
    pub fn lock_shared(&self, name: &Path, stop: &Stop, waiting: impl FnOnce()) -> Result<Lock> {
        take(name, File::try_lock_shared, stop, waiting)
    }

    /// Takes the lock of a key, so that equal work runs once among all processes.
    pub fn lock_key(&self, key: &Digest, stop: &Stop, waiting: impl FnOnce()) -> Result<Lock> {
        self.lock(&self.path("actions").join(LOCKS).join(&key.hex()[..2]), stop, waiting)
    }

    /// Takes the locks of all keys: nothing runs as long as they are held.
    pub fn lock_keys(&self, stop: &Stop, waiting: impl FnOnce()) -> Result<Vec<Lock>> {
        let folder = self.path("actions").join(LOCKS);
        let mut waiting = Some(waiting);
        let mut one = |number: u8| {
            let wait = || waiting.take().into_iter().for_each(|waiting| waiting());
            self.lock(&folder.join(format!("{number:02x}")), stop, wait)
        };
        (0..=u8::MAX).map(&mut one).collect()
    }
}

/// The folder in `actions` with the locks of the keys. 256 of them are enough: two keys that share one
/// only wait for each other.
pub const LOCKS: &str = "locks";

/// The longest pause between two looks at a lock that somebody else has.
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

fn take(
    name: &Path,
    try_lock: impl Fn(&File) -> Result<(), TryLockError>,
    stop: &Stop,
    waiting: impl FnOnce(),
) -> Result<Lock> {
    let file = fs::open_lock(name)?;
    let (mut waiting, mut pause) = (Some(waiting), Duration::from_millis(1));
    loop {
        match try_lock(&file) {
            Ok(()) => return Ok(Lock { _file: file }),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error).at("lock", name),
        }
        waiting.take().into_iter().for_each(|waiting| waiting());
        // The kernel's own wait would not hear that the user wants to stop.
        stop.check()?;
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Takes away what processes that were killed left behind, and brings small packs together; `root` is the
/// folder of this version.
pub fn tidy(root: &Path) {
    // What cannot be done now can be done after the next run.
    let _ = Packs::new(&root.join("cas"), root.join("tmp")).merge();
    for part in ["tmp", "memo", "runs", "stamps"] {
        fs::clear_temporary(&root.join(part));
    }
    fs::clear_partial(&root.join("tmp"));
    let records = root.join("actions");
    for shard in fs::list(&records).unwrap_or_default() {
        fs::clear_temporary(&records.join(shard));
    }
}

/// A lock that is held until it is dropped, or its process ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}
