//! A commit as a tree of ours: what is wanted of it goes from the mirror straight into the cache, byte for
//! byte, with git's modes. Knows no network and no task.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Serialize;

use crate::cache::bulk::Bulk;
use crate::cache::cas::Cas;
use crate::cache::tree::{Entry, Node, is_name};
use crate::digest::{Blob, Digest};
use crate::error::{Error, Failure, Result};
use crate::glob::{Globs, Progress};
use crate::host::git::{Damage, Mirror};
use crate::host::stop::Stop;

/// What is done with the pointer files of git-LFS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum Lfs {
    /// They are refused: whoever reads them wants what they point to.
    #[default]
    Refused,
    /// They are files like all others.
    Pointers,
}

/// What is done with submodules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Submodules {
    /// They are empty folders, as in a checkout.
    Empty,
    /// They are given back, to be cloned too.
    Given,
}

/// What is wanted of a commit.
pub struct Wanted<'a> {
    /// The paths.
    pub globs: &'a Globs,
    /// How far the globs have come at the commit's root.
    pub at: &'a Progress,
    /// Submodules.
    pub submodules: Submodules,
    /// Pointer files of git-LFS.
    pub lfs: Lfs,
}

/// A commit that was read.
pub struct Taken {
    /// The tree, stored.
    pub tree: Digest,
    /// Submodules that hold something of what is wanted.
    pub links: Vec<Link>,
}

/// A submodule.
pub struct Link {
    /// Where it is in the commit.
    pub path: Vec<u8>,
    /// The commit that it is.
    pub commit: String,
    /// How far the globs have come there.
    pub at: Progress,
}

/// Why a commit could not be read.
pub enum Trouble {
    /// The mirror has lost a part of it.
    Damage(String),
    /// Anything else.
    Other(Error),
}

impl From<Damage> for Trouble {
    fn from(damage: Damage) -> Self {
        Self::Damage(damage.0)
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

/// Reads a commit and stores what is wanted of it.
pub fn take(
    mirror: &Mirror,
    commit: &str,
    wanted: &Wanted<'_>,
    cas: &Cas,
    stop: &Stop,
) -> Result<Taken, Trouble> {
    let mut plan = Plan::new(mirror, wanted, stop);
    let root = plan.folder(mirror.tree(commit)?, wanted.at, &mut PathBuf::new())?;
    let (objects, bulk) = (mirror.objects()?, Bulk::new(cas));
    let stored: Result<Vec<Stored>, Trouble> = plan
        .files
        .par_iter()
        .map(|(id, form)| {
            stop.check()?;
            let store = |bytes: &[u8]| match form {
                Form::File => Ok(Stored::File(bulk.put(bytes)?, is_pointer(bytes))),
                Form::Link => Ok(Stored::Link(bytes.to_vec())),
            };
            objects.blob(*id, store)?
        })
        .collect();
    let stored = stored?;
    if wanted.lfs == Lfs::Refused {
        refuse_pointers(&plan, &stored, root)?;
    }
    let mut digests: Vec<Digest> = Vec::with_capacity(plan.folders.len());
    let mut nodes = Vec::with_capacity(plan.folders.len());
    for folder in &plan.folders {
        let bytes = node(folder, &stored, &digests).encode();
        digests.push(Digest::of(&bytes));
        nodes.push(bytes);
    }
    nodes.par_iter().try_for_each(|node| bulk.put(node).map(drop))?;
    bulk.finish()?;
    Ok(Taken { tree: digests[root], links: plan.links })
}

/// What a file of git becomes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Form {
    File,
    Link,
}

enum Stored {
    File(Blob, bool),
    Link(Vec<u8>),
}

/// A folder before its files are stored; files and folders by their place in the plan.
struct Folder(Vec<(Vec<u8>, Part)>);

enum Part {
    File { mode: u32, file: usize },
    Folder(usize),
}

/// So deep folders may be in each other. Nobody's are, but a commit can be made to exhaust a stack.
const DEEPEST: usize = 256;
/// So many folders are looked into; a commit can name the same ones over and over, without an end.
const MOST_FOLDERS: usize = 2_000_000;

/// What is to be stored: each file and each folder once, inner folders first.
struct Plan<'a> {
    mirror: &'a Mirror,
    wanted: &'a Wanted<'a>,
    stop: &'a Stop,
    files: Vec<(git2::Oid, Form)>,
    folders: Vec<Folder>,
    links: Vec<Link>,
    entered: usize,
    known_files: BTreeMap<(git2::Oid, Form), usize>,
    /// Folders of which everything is taken, and which hold no submodule.
    known_folders: BTreeMap<git2::Oid, usize>,
}

impl<'a> Plan<'a> {
    fn new(mirror: &'a Mirror, wanted: &'a Wanted<'a>, stop: &'a Stop) -> Self {
        Self {
            mirror,
            wanted,
            stop,
            files: Vec::new(),
            folders: Vec::new(),
            links: Vec::new(),
            entered: 0,
            known_files: BTreeMap::new(),
            known_folders: BTreeMap::new(),
        }
    }

    fn folder(&mut self, tree: git2::Oid, at: &Progress, path: &mut PathBuf) -> Result<usize, Trouble> {
        if at.takes_all()
            && let Some(known) = self.known_folders.get(&tree)
        {
            return Ok(*known);
        }
        self.stop.check()?;
        self.entered += 1;
        if path.iter().count() > DEEPEST {
            return Err(
                Error::failed(format!("the commit has folders {DEEPEST} deep in each other")).into()
            );
        }
        if self.entered > MOST_FOLDERS {
            return Err(Error::failed(format!("the commit has more than {MOST_FOLDERS} folders")).into());
        }
        let (mut parts, links) = (Vec::new(), self.links.len());
        for item in self.mirror.list(tree)? {
            path.push(OsStr::from_bytes(&item.name));
            if !is_name(&item.name) || item.name.eq_ignore_ascii_case(b".git") {
                return Err(Error::failed(format!("the commit has a file `{}`", path.display())).into());
            }
            let here = self.wanted.globs.enter(at, &item.name);
            let part = match item.mode {
                _ if here.takes_none() => None,
                0o040000 => {
                    let folder = self.folder(item.id, &here, path)?;
                    // A folder that holds nothing of what is wanted is not there.
                    (here.takes_all() || !self.folders[folder].0.is_empty()).then_some(Part::Folder(folder))
                }
                0o160000 => match self.wanted.submodules {
                    Submodules::Empty => here.takes().then(|| self.add(Folder(Vec::new()))),
                    Submodules::Given => {
                        let path = path.as_os_str().as_bytes().to_vec();
                        self.links.push(Link { path, commit: item.id.to_string(), at: here });
                        None
                    }
                },
                _ if !here.takes() => None,
                mode => {
                    let form = if mode == 0o120000 { Form::Link } else { Form::File };
                    let mode = if mode & 0o100 == 0 { 0o644 } else { 0o755 };
                    Some(Part::File { mode, file: self.file(item.id, form) })
                }
            };
            parts.extend(part.map(|part| (item.name, part)));
            path.pop();
        }
        // Git sorts folders as if their names ended in a slash.
        parts.sort_by(|(a, _), (b, _)| a.cmp(b));
        if parts.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(
                Error::failed(format!("the commit has a name twice in `{}`", path.display())).into()
            );
        }
        self.folders.push(Folder(parts));
        let index = self.folders.len() - 1;
        if at.takes_all() && self.links.len() == links {
            self.known_folders.insert(tree, index);
        }
        Ok(index)
    }

    fn add(&mut self, folder: Folder) -> Part {
        self.folders.push(folder);
        Part::Folder(self.folders.len() - 1)
    }

    fn file(&mut self, id: git2::Oid, form: Form) -> usize {
        let next = self.files.len();
        let index = *self.known_files.entry((id, form)).or_insert(next);
        if index == next {
            self.files.push((id, form));
        }
        index
    }
}

fn node(folder: &Folder, stored: &[Stored], digests: &[Digest]) -> Node {
    let entry = |part: &Part| match *part {
        Part::Folder(folder) => Entry::Folder { mode: 0o755, tree: digests[folder] },
        Part::File { mode, file } => match &stored[file] {
            Stored::File(blob, _) => Entry::File { mode, blob: *blob },
            Stored::Link(target) => Entry::Link { target: target.clone() },
        },
    };
    Node { entries: folder.0.iter().map(|(name, part)| (name.clone(), entry(part))).collect() }
}

/// What pointer files of git-LFS begin with (git-lfs, `docs/spec.md`), before and after it got its name.
const POINTERS: [&[u8]; 2] =
    [b"version https://git-lfs.github.com/spec/", b"version https://hawser.github.com/spec/"];
/// Pointer files are shorter than this (same place).
const LONGEST_POINTER: usize = 1024;

fn is_pointer(bytes: &[u8]) -> bool {
    bytes.len() < LONGEST_POINTER
        && POINTERS.iter().any(|start| bytes.starts_with(start))
        && bytes.windows(12).any(|window| window == b"\noid sha256:")
}

/// How many pointer files are named.
const NAMED: usize = 10;

fn refuse_pointers(plan: &Plan<'_>, stored: &[Stored], root: usize) -> Result<()> {
    if !stored.iter().any(|stored| matches!(stored, Stored::File(_, true))) {
        return Ok(());
    }
    let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
    name_pointers(plan, stored, root, Path::new(""), &mut seen, &mut found);
    let (count, more) = (found.len(), found.len().saturating_sub(NAMED));
    let what = if count == 1 { "1 file".to_string() } else { format!("{count} files") };
    let message = format!("the content of {what} is kept by git-LFS, and is not in the repository");
    let mut failure = Failure::new(message).detail(found.into_iter().take(NAMED));
    if more > 0 {
        failure.detail.push(format!("and {more} more"));
    }
    let hint = "leave them out with `paths = [\"**\", \"!…\"]`, or take the pointer files as they are with `lfs = false`";
    Err(failure.hint(hint).into())
}

/// Each folder is entered once, under the first of its names.
fn name_pointers(
    plan: &Plan<'_>,
    stored: &[Stored],
    folder: usize,
    path: &Path,
    seen: &mut BTreeSet<usize>,
    found: &mut Vec<String>,
) {
    if !seen.insert(folder) {
        return;
    }
    for (name, part) in &plan.folders[folder].0 {
        let path = path.join(OsStr::from_bytes(name));
        match *part {
            Part::Folder(inner) => name_pointers(plan, stored, inner, &path, seen, found),
            Part::File { file, .. } if matches!(stored[file], Stored::File(_, true)) => {
                found.push(path.display().to_string());
            }
            Part::File { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cache::Cache;

    /// Reads a commit whose root is made of trees, one inside the other: of each, `names` lead to the next.
    fn nested(depth: usize, names: &[&str], globs: &[&str]) -> Result<Taken, Trouble> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mirror");
        let repository = git2::Repository::init_bare(&path).unwrap();
        let mut tree = {
            let file = repository.blob(b"content").unwrap();
            let mut builder = repository.treebuilder(None).unwrap();
            builder.insert("file.c", file, 0o100_644).unwrap();
            builder.write().unwrap()
        };
        for _ in 0..depth {
            let mut builder = repository.treebuilder(None).unwrap();
            for name in names {
                builder.insert(name, tree, 0o040_000).unwrap();
            }
            tree = builder.write().unwrap();
        }
        let who = git2::Signature::new("a", "a@example.com", &git2::Time::new(0, 0)).unwrap();
        let tree = repository.find_tree(tree).unwrap();
        let commit = repository.commit(None, &who, &who, "words", &tree, &[]).unwrap().to_string();
        let cache = Cache::open(&folder.path().join("cache")).unwrap();
        let globs = Globs::new(globs).unwrap();
        let wanted =
            Wanted { globs: &globs, at: &globs.start(), submodules: Submodules::Empty, lfs: Lfs::Refused };
        let mirror = Mirror::open(&path).unwrap();
        take(&mirror, &commit, &wanted, &cache.cas, &Stop::new(Duration::ZERO).unwrap())
    }

    fn refused(taken: Result<Taken, Trouble>) -> String {
        match taken {
            Err(Trouble::Other(error)) => error.to_string(),
            Err(Trouble::Damage(why)) => panic!("damage: {why}"),
            Ok(_) => panic!("it was taken"),
        }
    }

    #[test]
    fn folders_without_an_end() {
        assert!(nested(100, &["a"], &["**"]).is_ok());
        let said = refused(nested(300, &["a"], &["**"]));
        assert_eq!(said, "the commit has folders 256 deep in each other");
        // The same folder again and again, 10^30 files in all: it is stored once.
        let names = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
        assert!(nested(30, &names, &["**"]).is_ok());
    }

    #[test]
    fn pointers_look_like_this() {
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n";
        assert!(is_pointer(pointer));
        assert!(!is_pointer(&pointer[1..]) && !is_pointer(&pointer[..50]));
        assert!(!is_pointer(&[&pointer[..], &[b'x'; 1024]].concat()));
    }
}
