//! A tree while it is being made or changed: folders of a stored tree are loaded when they are
//! entered, and folders that nobody changed keep their digest. Knows no file system.

use std::collections::BTreeMap;

use super::bulk::Bulk;
use super::cas::Cas;
use super::tree::{Entry, Node};
use crate::digest::{Blob, Digest};
use crate::error::{Error, Failure, Result};
use crate::glob::{Globs, Progress};

/// The mode of folders that nobody gave one.
pub const FOLDER_MODE: u32 = 0o755;

/// A tree that can be changed.
pub struct Draft<'a> {
    cas: &'a Cas,
    root: Folder,
}

struct Folder {
    mode: u32,
    /// The node this folder was loaded from, until it is changed.
    stored: Option<Digest>,
    /// Names, once they are loaded.
    children: Option<BTreeMap<Vec<u8>, Child>>,
}

enum Child {
    Leaf(Entry),
    Folder(Folder),
}

/// A finished tree.
pub struct Built {
    /// The digest of the whole.
    pub root: Digest,
    /// The bytes of the nodes that are new or changed, inner ones first.
    pub nodes: Vec<Vec<u8>>,
}

impl Built {
    /// Stores the nodes.
    pub fn store(&self, cas: &Cas) -> Result<Digest> {
        let bulk = Bulk::new(cas);
        for node in &self.nodes {
            bulk.put(node)?;
        }
        bulk.finish()?;
        Ok(self.root)
    }
}

impl Folder {
    fn empty() -> Self {
        Self { mode: FOLDER_MODE, stored: None, children: Some(BTreeMap::new()) }
    }

    fn stored(mode: u32, tree: Digest) -> Self {
        Self { mode, stored: Some(tree), children: None }
    }

    fn children(&mut self, cas: &Cas) -> Result<&mut BTreeMap<Vec<u8>, Child>> {
        if self.children.is_none() {
            let mut children = BTreeMap::new();
            if let Some(tree) = &self.stored {
                for (name, entry) in cas.node(tree)?.entries {
                    let child = match entry {
                        Entry::Folder { mode, tree } => Child::Folder(Self::stored(mode, tree)),
                        leaf => Child::Leaf(leaf),
                    };
                    children.insert(name, child);
                }
            }
            self.children = Some(children);
        }
        Ok(self.children.get_or_insert_default())
    }

    fn build(&self, nodes: &mut Vec<Vec<u8>>) -> Digest {
        if let Some(stored) = self.stored {
            return stored;
        }
        let mut node = Node::default();
        for (name, child) in self.children.iter().flatten() {
            let entry = match child {
                Child::Leaf(entry) => entry.clone(),
                Child::Folder(folder) => Entry::Folder { mode: folder.mode, tree: folder.build(nodes) },
            };
            node.entries.push((name.clone(), entry));
        }
        let bytes = node.encode();
        let digest = Digest::of(&bytes);
        nodes.push(bytes);
        digest
    }
}

impl<'a> Draft<'a> {
    /// An empty tree.
    pub fn empty(cas: &'a Cas) -> Self {
        Self { cas, root: Folder::empty() }
    }

    /// A stored tree, to be changed.
    pub fn of(cas: &'a Cas, tree: Digest) -> Self {
        Self { cas, root: Folder::stored(FOLDER_MODE, tree) }
    }

    /// Puts an entry at a path, making the folders above and replacing what is there. Fails if
    /// something above is not a folder.
    pub fn insert(&mut self, path: &[u8], entry: Entry) -> Result<()> {
        let (names, last) = split(path)?;
        let mut folder = &mut self.root;
        for name in names {
            folder.children(self.cas)?;
            folder.stored = None;
            let children = folder.children(self.cas)?;
            let child = children.entry(name.to_vec()).or_insert_with(|| Child::Folder(Folder::empty()));
            match child {
                Child::Folder(inner) => folder = inner,
                Child::Leaf(_) => return Err(not_a_folder(path, name)),
            }
        }
        folder.children(self.cas)?;
        folder.stored = None;
        let child = match entry {
            Entry::Folder { mode, tree } => Child::Folder(Folder::stored(mode, tree)),
            leaf => Child::Leaf(leaf),
        };
        folder.children(self.cas)?.insert(last.to_vec(), child);
        Ok(())
    }

    /// Makes an empty folder at a path if nothing is there.
    pub fn make_folder(&mut self, path: &[u8], mode: u32) -> Result<()> {
        if self.entry(path)?.is_none() {
            let empty = Node::default().encode();
            self.insert(path, Entry::Folder { mode, tree: self.cas.put(&empty)?.digest })?;
        }
        Ok(())
    }

    /// Removes what is at a path, and folders above that became empty, as git does. Does nothing if
    /// there is nothing.
    pub fn remove(&mut self, path: &[u8]) -> Result<()> {
        if self.entry(path)?.is_some() {
            let names: Vec<&[u8]> = path.split(|&byte| byte == b'/').collect();
            remove_below(&mut self.root, self.cas, &names)?;
        }
        Ok(())
    }

    /// What is at a path; a changed folder is shown with the digest that it would have.
    pub fn entry(&mut self, path: &[u8]) -> Result<Option<Entry>> {
        let (names, last) = split(path)?;
        let mut folder = &mut self.root;
        for name in names {
            match folder.children(self.cas)?.get_mut(name) {
                Some(Child::Folder(inner)) => folder = inner,
                Some(Child::Leaf(_)) | None => return Ok(None),
            }
        }
        Ok(folder.children(self.cas)?.get(last).map(|child| match child {
            Child::Leaf(entry) => entry.clone(),
            Child::Folder(inner) => Entry::Folder { mode: inner.mode, tree: inner.build(&mut Vec::new()) },
        }))
    }

    /// Keeps only what the globs take; folders that hold nothing of it go.
    pub fn keep(&mut self, globs: &Globs) -> Result<()> {
        let start = globs.start();
        keep_below(&mut self.root, self.cas, globs, &start).map(drop)
    }

    /// The digest of the whole, and the nodes that are not yet stored.
    pub fn build(&self) -> Built {
        let mut nodes = Vec::new();
        let root = self.root.build(&mut nodes);
        Built { root, nodes }
    }

    /// Stores the tree.
    pub fn store(&self) -> Result<Digest> {
        self.build().store(self.cas)
    }

    /// Stores a file's content and puts it at a path.
    pub fn put_file(&mut self, path: &[u8], mode: u32, content: &[u8]) -> Result<Blob> {
        let blob = self.cas.put(content)?;
        self.insert(path, Entry::File { mode, blob })?;
        Ok(blob)
    }
}

fn remove_below(folder: &mut Folder, cas: &Cas, names: &[&[u8]]) -> Result<()> {
    let Some((first, rest)) = names.split_first() else { panic!("BUG: a path without names") };
    let children = folder.children(cas)?;
    let gone = match children.get_mut(*first) {
        Some(Child::Folder(inner)) if !rest.is_empty() => {
            remove_below(inner, cas, rest)?;
            inner.children(cas)?.is_empty()
        }
        _ => true,
    };
    if gone {
        children.remove(*first);
    }
    folder.stored = None;
    Ok(())
}

/// Returns whether anything is left.
fn keep_below(folder: &mut Folder, cas: &Cas, globs: &Globs, at: &Progress) -> Result<bool> {
    if at.takes_all() {
        return Ok(true);
    }
    let children = folder.children(cas)?;
    let (mut kept, mut changed) = (BTreeMap::new(), false);
    for (name, mut child) in std::mem::take(children) {
        let here = globs.enter(at, &name);
        let stays = match &mut child {
            Child::Leaf(_) => here.takes(),
            Child::Folder(_) if here.takes_none() => false,
            Child::Folder(inner) => {
                let before = inner.stored;
                let stays = keep_below(inner, cas, globs, &here)? || here.takes();
                changed |= inner.stored != before;
                stays
            }
        };
        if stays {
            kept.insert(name, child);
        } else {
            changed = true;
        }
    }
    let any = !kept.is_empty();
    *children = kept;
    if changed {
        folder.stored = None;
    }
    Ok(any)
}

fn split(path: &[u8]) -> Result<(Vec<&[u8]>, &[u8])> {
    let mut names: Vec<&[u8]> = path.split(|&byte| byte == b'/').collect();
    if !names.iter().all(|name| super::tree::is_name(name)) {
        return Err(Error::failed(format!("`{}` is not a path in a tree", String::from_utf8_lossy(path))));
    }
    match names.pop() {
        Some(last) => Ok((names, last)),
        None => panic!("BUG: a split has at least one part"),
    }
}

fn not_a_folder(path: &[u8], name: &[u8]) -> Error {
    let (path, name) = (String::from_utf8_lossy(path), String::from_utf8_lossy(name));
    Failure::new(format!("`{path}` cannot be placed: `{name}` is not a folder")).into()
}
