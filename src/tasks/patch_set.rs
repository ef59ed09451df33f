//! The patches of one task with the tree that they go to: what a run applies, `check` looks at and the
//! verbs of `patch` edit. Knows no configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::cache::cas::Cas;
use crate::cache::draft::Draft;
use crate::cache::tree::Entry;
use crate::digest::{Blob, Digest};
use crate::error::{Error, Result};
use crate::host::fs::{self, Stamp};
use crate::patch::{self, Applied, Change, Halt, Options, Overlay, Reason};
use crate::recipe::Content;

/// The patches of a task, in order.
#[derive(Clone, Debug)]
pub struct Set {
    /// The tree that the first goes to.
    pub tree: Digest,
    /// The files.
    pub files: Vec<PatchFile>,
    /// How they are applied.
    pub options: Options,
}

/// A patch file. Its name is part of the warnings that are kept with the result.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct PatchFile {
    /// Its path in the project.
    pub name: String,
    /// Its content.
    pub digest: Digest,
    /// The length of its content.
    pub size: u64,
}

impl PatchFile {
    /// What its text makes of a tree.
    pub fn apply(&self, text: &[u8], tree: &dyn patch::Files, options: &Options) -> Result<Applied> {
        let patch = patch::parse(&self.name, text, options)?;
        patch::attempt(&patch, tree, options).map_err(|halt| match halt {
            Halt::Refused(refusal) if refusal.reason != Reason::Applied => {
                let hint = "`vcbuild patch rebase` merges patches with a tree that has changed";
                Error::Failed(refusal.failure.hint(hint))
            }
            other => other.into(),
        })
    }

    /// The files that its text makes, changes or takes away; none if it cannot be read.
    pub fn paths(&self, text: &[u8], options: &Options) -> BTreeSet<Vec<u8>> {
        let sections =
            patch::parse(&self.name, text, options).map_or_else(|_| Vec::new(), |patch| patch.sections);
        sections.iter().flat_map(|section| section.operation.paths()).map(<[u8]>::to_vec).collect()
    }
}

/// More than any patch is long.
pub const LONGEST: u64 = 1 << 30;

/// What became of one patch.
pub enum Applies {
    /// It goes in, with these warnings.
    Yes(Vec<String>),
    /// It does not.
    No(Error),
}

/// Applies patches one after the other, each with its text, up to the first that does not go in. Lays what
/// they do over `now`.
pub fn apply_all<'p>(
    patches: impl IntoIterator<Item = (&'p PatchFile, Vec<u8>)>,
    now: &mut Overlay<'_>,
    options: &Options,
) -> Vec<(&'p PatchFile, Applies)> {
    let mut all = Vec::new();
    for (file, text) in patches {
        match file.apply(&text, now, options) {
            Ok(applied) => {
                let notes = applied.notes.iter().map(ToString::to_string).collect();
                now.lay(applied.changes);
                all.push((file, Applies::Yes(notes)));
            }
            Err(error) => {
                all.push((file, Applies::No(error)));
                break;
            }
        }
    }
    all
}

/// The tree that changes make of another one.
pub fn store(
    cas: &Cas,
    root: Digest,
    changes: impl IntoIterator<Item = (Vec<u8>, Change)>,
) -> Result<Digest> {
    let mut draft = Draft::of(cas, root);
    for (path, change) in changes {
        match change {
            Change::Remove => draft.remove(&path)?,
            Change::Link(target) => draft.insert(&path, Entry::Link { target })?,
            Change::Write { content, executable } => {
                draft.put_file(&path, if executable { 0o755 } else { 0o644 }, &content)?;
            }
        }
    }
    draft.store()
}

/// Where the content of files can be read that may not be stored yet.
pub type Sources = BTreeMap<Digest, (Blob, Stamp, PathBuf)>;

/// A stored tree as patching sees it.
pub struct Tree<'a> {
    cas: &'a Cas,
    root: Digest,
    sources: Sources,
}

impl<'a> Tree<'a> {
    /// A tree of which everything is stored.
    pub fn new(cas: &'a Cas, root: Digest) -> Self {
        Self { cas, root, sources: Sources::new() }
    }

    /// A tree of which some files may still be only where they were found.
    pub fn over(cas: &'a Cas, root: Digest, sources: Sources) -> Self {
        Self { cas, root, sources }
    }

    fn read(&self, blob: Blob) -> Result<Vec<u8>> {
        match (self.cas.read(blob), self.sources.get(&blob.digest)) {
            (Err(Error::Lost(_)), Some((blob, stamp, path))) => {
                self.cas.put_known(path, stamp, blob)?;
                self.cas.read(*blob)
            }
            (read, _) => read,
        }
    }
}

impl patch::Files for Tree<'_> {
    fn entry(&self, path: &[u8]) -> Result<Option<patch::Entry>> {
        Ok(match self.cas.entry(&self.root, path)? {
            None => None,
            Some(Entry::Folder { .. }) => Some(patch::Entry::Folder),
            Some(Entry::Link { target }) => Some(patch::Entry::Link(target)),
            Some(Entry::File { mode, blob }) => {
                Some(patch::Entry::File { content: self.read(blob)?, executable: mode & 0o100 != 0 })
            }
            Some(Entry::Recipe { mode, recipe, .. }) => {
                let mut content = Vec::new();
                self.cas.recipe(recipe)?.send(self.cas, &mut content)?;
                Some(patch::Entry::File { content, executable: mode & 0o100 != 0 })
            }
        })
    }

    fn names(&self, folder: &[u8]) -> Result<Vec<Vec<u8>>> {
        let Some(Entry::Folder { tree, .. }) = self.cas.entry(&self.root, folder)? else {
            return Ok(Vec::new());
        };
        Ok(self.cas.node(&tree)?.entries.into_iter().map(|(name, _)| name).collect())
    }
}

/// The text of a patch file of the project in `root`.
pub fn text(root: &std::path::Path, name: &str) -> Result<Vec<u8>> {
    let text = fs::read(&root.join(name), LONGEST)?;
    text.ok_or_else(|| Error::failed(format!("`{name}` is gone")))
}
