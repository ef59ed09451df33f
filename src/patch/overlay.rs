//! Changes laid over a tree: what the next patch sees. Knows nothing of patches.

use std::collections::BTreeMap;

use super::{Change, Entry, Files};
use crate::error::Result;

/// A tree with changes over it.
pub struct Overlay<'a> {
    below: &'a dyn Files,
    changes: BTreeMap<Vec<u8>, Change>,
}

impl<'a> Overlay<'a> {
    /// The tree as it is.
    pub fn new(below: &'a dyn Files) -> Self {
        Self { below, changes: BTreeMap::new() }
    }

    /// Lays changes over all earlier ones.
    pub fn lay(&mut self, changes: impl IntoIterator<Item = (Vec<u8>, Change)>) {
        self.changes.extend(changes);
    }

    /// All changes so far, by path.
    pub fn changes(&self) -> &BTreeMap<Vec<u8>, Change> {
        &self.changes
    }

    /// All changes together, by path. Nothing below the tree's own files is among the removed.
    pub fn into_changes(self) -> BTreeMap<Vec<u8>, Change> {
        self.changes
    }

    /// The changes at and below a folder.
    fn within(&self, folder: &[u8]) -> impl Iterator<Item = (&Vec<u8>, &Change)> {
        let prefix = if folder.is_empty() { Vec::new() } else { [folder, b"/"].concat() };
        let start = prefix.clone();
        self.changes.range(start..).take_while(move |(path, _)| path.starts_with(&prefix))
    }
}

impl Files for Overlay<'_> {
    fn entry(&self, path: &[u8]) -> Result<Option<Entry>> {
        match self.changes.get(path) {
            Some(Change::Write { content, executable }) => {
                return Ok(Some(Entry::File { content: content.clone(), executable: *executable }));
            }
            Some(Change::Link(target)) => return Ok(Some(Entry::Link(target.clone()))),
            Some(Change::Remove) | None => {}
        }
        if self.within(path).any(|(_, change)| *change != Change::Remove) {
            return Ok(Some(Entry::Folder));
        }
        if self.changes.contains_key(path) {
            return Ok(None);
        }
        // A file or link that was put above hides what the tree has here; a removed one hides nothing.
        let hides = |folder| !matches!(self.changes.get(folder), None | Some(Change::Remove));
        if super::name::folders(path).any(hides) {
            return Ok(None);
        }
        self.below.entry(path)
    }

    fn names(&self, folder: &[u8]) -> Result<Vec<Vec<u8>>> {
        let mut names: Vec<Vec<u8>> = match self.below.entry(folder)? {
            Some(Entry::Folder) => self.below.names(folder)?,
            _ => Vec::new(),
        };
        let start = if folder.is_empty() { 0 } else { folder.len() + 1 };
        for (path, _) in self.within(folder) {
            let name = path[start..].split(|byte| *byte == b'/').next().unwrap_or_default();
            names.push(name.to_vec());
        }
        names.sort();
        names.dedup();
        let mut kept = Vec::new();
        for name in names {
            let path = if folder.is_empty() { name.clone() } else { [folder, b"/", &name].concat() };
            if self.entry(&path)?.is_some() {
                kept.push(name);
            }
        }
        Ok(kept)
    }
}
