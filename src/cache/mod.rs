//! The cache: content by digest, results by key, and what is remembered about files. Any part of it
//! may vanish at any time. Knows no task and no configuration.

pub mod actions;
pub mod cas;
pub mod draft;
pub mod folder;
pub mod history;
pub mod local;
pub mod stamps;
pub mod tree;

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::error::{At, Error, Failure, Result};
use crate::host::fs;
use cas::Cas;
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
    pub fn scratch(&self) -> Result<tempfile::TempDir> {
        let folder = self.path("tmp");
        tempfile::Builder::new().prefix("scratch.").tempdir_in(&folder).at("make a folder in", &folder)
    }

    /// Takes the lock on a name, waiting for whoever has it; `waiting` is called before a wait.
    pub fn lock(&self, name: &Path, waiting: impl FnOnce()) -> Result<Lock> {
        let file = self.lock_file(name)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                waiting();
                file.lock().at("lock", name)?;
            }
            Err(std::fs::TryLockError::Error(error)) => return Err(error).at("lock", name),
        }
        Ok(Lock { _file: file })
    }

    /// Takes the lock on a name if nobody has it.
    pub fn try_lock(&self, name: &Path) -> Result<Option<Lock>> {
        let file = self.lock_file(name)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock { _file: file })),
            Err(std::fs::TryLockError::WouldBlock) => Ok(None),
            Err(std::fs::TryLockError::Error(error)) => Err(error).at("lock", name),
        }
    }

    /// Takes a lock that others may take likewise, but nobody alone.
    pub fn lock_shared(&self, name: &Path, waiting: impl FnOnce()) -> Result<Lock> {
        let file = self.lock_file(name)?;
        match file.try_lock_shared() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                waiting();
                file.lock_shared().at("lock", name)?;
            }
            Err(std::fs::TryLockError::Error(error)) => return Err(error).at("lock", name),
        }
        Ok(Lock { _file: file })
    }

    /// Takes the lock of a key, so that equal work runs once among all processes.
    pub fn lock_key(&self, key: &Digest, waiting: impl FnOnce()) -> Result<Lock> {
        // 256 lock files are enough: two keys that share one only wait for each other.
        self.lock(&self.path("actions").join("locks").join(&key.hex()[..2]), waiting)
    }

    fn lock_file(&self, name: &Path) -> Result<File> {
        fs::open_lock(name)
    }
}

/// A lock that is held until it is dropped, or its process ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}
