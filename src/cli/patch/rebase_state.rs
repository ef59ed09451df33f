//! A rebase that waits for somebody to decide, or that is just writing: on disk before anything is
//! changed, so that it can be continued or taken back whatever happens.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::scratch::write_tree;
use crate::cache::{Cache, Lock};
use crate::digest::Digest;
use crate::error::{Error, Failure, Result};
use crate::glob::Globs;
use crate::host::fs::{self, Durability};

/// What is known of an unfinished rebase.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    version: u32,
    /// The project folder.
    root: PathBuf,
    /// The patch task.
    pub task: String,
    /// The tree that the first patch goes to now.
    pub tree: Digest,
    /// The trees and patches of before, if they were needed.
    pub old: Option<Old>,
    /// The patches that are done, in order.
    pub done: Vec<Done>,
    /// What is to be decided; nothing: all is done, and the files are being written.
    pub open: Option<Open>,
}

/// A patch that is done. Its text before and after is beside the state.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Done {
    /// Its path in the project.
    pub name: String,
    /// What it came to.
    pub came: Came,
    /// Its text before.
    #[serde(skip)]
    pub was: Vec<u8>,
    /// Its text now.
    #[serde(skip)]
    pub now: Vec<u8>,
}

/// What a patch came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Came {
    /// It applies as it is.
    Same,
    /// Its hunks got their true places.
    Renewed,
    /// It was merged.
    Merged,
    /// Somebody decided.
    Decided,
    /// The tree has all its changes: its file stays as it is, and is not applied any more.
    Taken,
}

/// A patch in conflict.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Open {
    /// Its path in the project.
    pub name: String,
    /// Its content.
    pub was: Digest,
    /// The tree that it goes to.
    pub before: Digest,
    /// The files in conflict.
    pub paths: Vec<Vec<u8>>,
}

/// What patches were made for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Old {
    /// The tree below the first.
    pub tree: Digest,
    /// Names and texts.
    pub patches: Vec<(String, Vec<u8>)>,
}

const VERSION: u32 = 1;

/// The place of a task's rebase.
pub struct Home {
    path: PathBuf,
    root: PathBuf,
    task: String,
    _lock: Lock,
}

impl Home {
    /// Takes the place for itself; fails if somebody else has it.
    pub fn take(cache: &Cache, root: &Path, task: &str) -> Result<Self> {
        let whole = format!("{}\0{task}", root.display());
        let name = format!("rebase-{}", &Digest::of(whole.as_bytes()).hex()[..8]);
        let path = cache.path("edit").join(name);
        let busy = || Failure::new(format!("`{task}` is being rebased by another vcbuild"));
        let lock = cache.try_lock(Path::new(&format!("{}.lock", path.display())))?.ok_or_else(busy)?;
        Ok(Self { path, root: root.to_path_buf(), task: task.to_string(), _lock: lock })
    }

    /// The work tree.
    pub fn folder(&self) -> PathBuf {
        self.path.join("tree")
    }

    /// What is unfinished here.
    pub fn state(&self) -> Result<Option<State>> {
        let path = self.path.join("rebase.json");
        let Some(bytes) = fs::read(&path, 1 << 30)? else { return Ok(None) };
        let wrong = |why: String| Error::failed(format!("read `{}`: {why}", path.display()));
        let mut state: State = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
        if state.version != VERSION {
            return Err(wrong("it was written by a newer vcbuild".into()));
        }
        for (index, done) in state.done.iter_mut().enumerate() {
            let read = |side| {
                let found = fs::read(&text(&self.path, side, index), super::patch_set::LONGEST)?;
                found.ok_or_else(|| wrong("a text beside it is gone".into()))
            };
            (done.was, done.now) = (read("was")?, read("now")?);
        }
        Ok(Some(state))
    }

    /// Notes what is unfinished, with a work tree if something is to be decided there.
    pub fn put(
        &self,
        cache: &Cache,
        tree: Digest,
        old: Option<Old>,
        done: &[Done],
        open: Option<(Open, Digest)>,
    ) -> Result<()> {
        let above = cache.path("edit");
        fs::clear_temporary(&above);
        // What was decided before stays until all that follows is there.
        let fresh = fs::Scratch::new(&above)?;
        let fresh = fresh.path();
        for (index, done) in done.iter().enumerate() {
            fs::write(&text(fresh, "was", index), &done.was, 0o644, Durability::Synced)?;
            fs::write(&text(fresh, "now", index), &done.now, 0o644, Durability::Synced)?;
        }
        if let Some((open, now)) = &open {
            let none = Globs::new::<&str>(&[]).map_err(Error::failed)?;
            let folder = fresh.join("tree");
            fs::make_folder(&folder)?;
            let message = format!("the new tree before {}", open.name);
            write_tree(&cache.cas, &open.before, now, &folder, &none, &message)?;
        }
        let state = State {
            version: VERSION,
            root: self.root.clone(),
            task: self.task.clone(),
            tree,
            old,
            done: done.to_vec(),
            open: open.map(|(open, _)| open),
        };
        let text = serde_json::to_string(&state)
            .map_err(|error| Error::failed(format!("note the rebase of `{}`: {error}", self.task)))?;
        fs::write(&fresh.join("rebase.json"), text.as_bytes(), 0o644, Durability::Synced)?;
        fs::exchange(fresh, &self.path)
    }

    /// Forgets everything.
    pub fn clear(self) -> Result<()> {
        fs::remove_file(&self.path.join("rebase.json"))?;
        fs::remove_tree(&self.path)
    }
}

fn text(home: &Path, side: &str, index: usize) -> PathBuf {
    home.join(side).join(index.to_string())
}
