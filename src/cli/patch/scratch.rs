//! The work tree in which a patch is edited, and what is known of it: it stays on disk until what was
//! changed in it is written back, whatever happens meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cache::cas::Cas;
use crate::cache::folder;
use crate::cache::local::{Local, Seen};
use crate::cache::tree::Entry;
use crate::cache::{Cache, Lock};
use crate::digest::{Blob, Digest};
use crate::error::{At, Error, Failure, Result};
use crate::glob::Globs;
use crate::host::checkout::{self, Ignored, Mode};
use crate::host::fs::{self, Durability};
use crate::patch::{Change, Files, Wanted};
use crate::recipe::Content;
use crate::tasks::patch_set::{LONGEST, Tree};

/// What is known of an open work tree.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    version: u32,
    /// The project folder.
    root: PathBuf,
    /// The patch task.
    pub task: String,
    /// The patch file, in the project.
    pub file: String,
    /// The content of the patch file that the work tree was made of; nothing for a new one.
    pub patch: Option<Digest>,
    /// The tree that the patch goes to.
    pub before: Digest,
    /// The work tree.
    pub folder: PathBuf,
    /// The text for a new patch.
    pub message: String,
}

const VERSION: u32 = 1;

/// An open work tree that nobody else works on.
pub struct Scratch {
    /// What is known of it.
    pub state: State,
    home: PathBuf,
    _lock: Lock,
}

fn homes(cache: &Cache) -> PathBuf {
    cache.path("edit")
}

fn home(cache: &Cache, root: &Path, task: &str, file: &str) -> PathBuf {
    let whole = format!("{}\0{task}\0{file}", root.display());
    let stem = super::names_of(file)[1];
    homes(cache).join(format!("{stem}-{}", &Digest::of(whole.as_bytes()).hex()[..8]))
}

fn read(home: &Path) -> Result<Option<State>> {
    let path = home.join("state.json");
    let Some(bytes) = fs::read(&path, 1 << 20)? else { return Ok(None) };
    match serde_json::from_slice::<State>(&bytes) {
        Ok(state) if state.version == VERSION => Ok(Some(state)),
        Ok(_) => Err(Error::failed(format!("`{}` was written by a newer vcbuild", path.display()))),
        Err(error) => Err(Error::failed(format!("read `{}`: {error}", path.display()))),
    }
}

/// The tasks and files of all open work trees of a project.
pub fn opened(cache: &Cache, root: &Path) -> Vec<(String, String)> {
    let names = fs::list(&homes(cache)).unwrap_or_default();
    let states = names.iter().filter_map(|name| read(&homes(cache).join(name)).ok().flatten());
    states.filter(|state| state.root == root).map(|state| (state.task, state.file)).collect()
}

/// The lock of a work tree; fails if somebody has it.
fn lock(cache: &Cache, home: &Path, file: &str) -> Result<Lock> {
    let name = format!("{}.lock", home.display());
    let busy = || Failure::new(format!("`{file}` is being edited by another vcbuild"));
    Ok(cache.try_lock(Path::new(&name))?.ok_or_else(busy)?)
}

/// What a new work tree is made of.
#[derive(Clone)]
pub struct Making {
    /// The project folder.
    pub root: PathBuf,
    /// The patch task.
    pub task: String,
    /// The patch file.
    pub file: String,
    /// The content of the patch file; nothing for a new one.
    pub patch: Option<Digest>,
    /// The text for a new patch.
    pub message: String,
    /// Where the work tree is to be, if not in the cache.
    pub at: Option<PathBuf>,
}

impl Making {
    /// Makes the work tree: the files of `now`, and one commit with those of `before`.
    pub fn make(&self, cache: &Cache, before: Digest, now: Digest) -> Result<()> {
        let home = home(cache, &self.root, &self.task, &self.file);
        fs::make_folder(&homes(cache))?;
        fs::clear_temporary(&homes(cache));
        let fresh = fs::Scratch::new(&homes(cache))?;
        let (made, folder) = match &self.at {
            Some(at) => {
                let there = fs::status(at, fs::Links::Follow).at("look at", at)?.is_some();
                if there && !fs::list(at).at("list", at)?.is_empty() {
                    let message = format!("`{}` is not empty", at.display());
                    return Err(Failure::new(message).hint("name a new folder with `--at`").into());
                }
                (at.clone(), at.clone())
            }
            None => (fresh.path().join("tree"), home.join("tree")),
        };
        fs::make_folder(&made)?;
        let none = Globs::new::<&str>(&[]).map_err(Error::failed)?;
        let message = format!("the tree before {}", self.file);
        write_tree(&cache.cas, &before, &now, &made, &none, &message)?;
        let state = State {
            version: VERSION,
            root: self.root.clone(),
            task: self.task.clone(),
            file: self.file.clone(),
            patch: self.patch,
            before,
            folder,
            message: self.message.clone(),
        };
        write(&state, fresh.path())?;
        fs::rename(fresh.path(), &home)
    }
}

/// Writes the files of `now` to a folder, with a git repository whose one commit is `before`.
pub fn write_tree(
    cas: &Cas,
    before: &Digest,
    now: &Digest,
    folder: &Path,
    none: &Globs,
    message: &str,
) -> Result<()> {
    folder::bring(cas, now, folder, none)?;
    checkout::make(folder, message, &mut |put| {
        cas.walk(before, &mut |path, entry| {
            let path = path.to_vec();
            match entry {
                Entry::Folder { .. } => Ok(()),
                Entry::Link { target } => {
                    put(checkout::File { path, content: target.clone(), mode: Mode::Link })
                }
                Entry::File { mode, .. } | Entry::Recipe { mode, .. } => {
                    let content = content_of(cas, entry)?;
                    let mode = if mode & 0o100 == 0 { Mode::Plain } else { Mode::Executable };
                    put(checkout::File { path, content, mode })
                }
            }
        })
    })
}

fn content_of(cas: &Cas, entry: &Entry) -> Result<Vec<u8>> {
    match entry {
        Entry::File { blob, .. } => cas.read(*blob),
        Entry::Recipe { recipe, .. } => {
            let mut content = Vec::new();
            cas.recipe(*recipe)?.send(cas, &mut content)?;
            Ok(content)
        }
        Entry::Link { target } => Ok(target.clone()),
        Entry::Folder { .. } => panic!("BUG: a folder has no content"),
    }
}

fn write(state: &State, home: &Path) -> Result<()> {
    let text = serde_json::to_string_pretty(state)
        .map_err(|error| Error::failed(format!("note the work tree of `{}`: {error}", state.file)))?;
    fs::write(&home.join("state.json"), text.as_bytes(), 0o644, Durability::Synced)
}

impl Scratch {
    /// The open work tree of a patch. Fails if somebody else works on it.
    pub fn find(cache: &Cache, root: &Path, task: &str, file: &str) -> Result<Option<Self>> {
        let home = home(cache, root, task, file);
        if read(&home)?.is_none() {
            return Ok(None);
        }
        let lock = lock(cache, &home, file)?;
        let Some(state) = read(&home)? else { return Ok(None) };
        Ok(Some(Self { state, home, _lock: lock }))
    }

    /// Notes that the patch file now has this content.
    pub fn written(&mut self, patch: Digest) -> Result<()> {
        self.state.patch = Some(patch);
        write(&self.state, &self.home)
    }

    /// Takes the work tree away; one that is not in the cache stays, but is no longer known.
    pub fn close(self) -> Result<()> {
        // First what is known of it: half a work tree must not be taken for one with deletions.
        fs::remove_file(&self.home.join("state.json"))?;
        fs::remove_tree(&self.home)
    }
}

/// What was changed in a work tree. Files that git ignores count only if the tree before or the patch, which
/// makes the paths in `made`, knows them.
pub fn changes(cas: &Cas, before: Digest, folder: &Path, made: &BTreeSet<Vec<u8>>) -> Result<Wanted> {
    if fs::status(folder, fs::Links::Follow).at("look at", folder)?.is_none() {
        return Err(Error::failed(format!("the work tree `{}` is gone", folder.display())));
    }
    let mut old: BTreeMap<Vec<u8>, Entry> = BTreeMap::new();
    cas.walk(&before, &mut |path, entry| {
        if !matches!(entry, Entry::Folder { .. }) {
            old.insert(path.to_vec(), entry.clone());
        }
        Ok(())
    })?;
    let real = folder.canonicalize().at("find", folder)?;
    let local = Local::new(real.clone(), Vec::new());
    let found = local.select(".", &Globs::all(), &cas.stamps, &mut Seen::default())?;
    let ignored = Ignored::of(&real);
    let mut wanted = Wanted::new();
    for (path, now) in found {
        let was = old.remove(&path);
        if was.is_none() && !made.contains(&path) && ignored.is(&path) {
            continue;
        }
        if is_same(cas, was.as_ref(), &now)? {
            continue;
        }
        use std::os::unix::ffi::OsStrExt;
        let full = real.join(std::ffi::OsStr::from_bytes(&path));
        let change = match now {
            Entry::Link { target } => Change::Link(target),
            Entry::File { mode, .. } => {
                let gone = || Error::failed(format!("read `{}`: it has just been removed", full.display()));
                let content = fs::read(&full, LONGEST)?.ok_or_else(gone)?;
                Change::Write { content, executable: mode & 0o100 != 0 }
            }
            Entry::Recipe { .. } | Entry::Folder { .. } => panic!("BUG: a file is a file or a link"),
        };
        wanted.insert(path, change);
    }
    wanted.extend(old.into_keys().map(|path| (path, Change::Remove)));
    // An executable bit is all that counts of a mode.
    crate::patch::real(wanted, &Tree::new(cas, before) as &dyn Files)
}

fn is_same(cas: &Cas, was: Option<&Entry>, now: &Entry) -> Result<bool> {
    Ok(match (was, now) {
        (Some(Entry::File { mode, blob }), Entry::File { mode: new, blob: now }) => {
            mode & 0o100 == new & 0o100 && blob == now
        }
        (Some(was @ Entry::Recipe { mode, .. }), Entry::File { mode: new, blob }) => {
            let content = content_of(cas, was)?;
            let was = Blob { digest: Digest::of(&content), size: content.len() as u64 };
            mode & 0o100 == new & 0o100 && was == *blob
        }
        (Some(was), now) => was == now,
        (None, _) => false,
    })
}
