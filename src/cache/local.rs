//! Files and folders of the project as values: each folder is listed once, each file hashed only if
//! its stamp is new, and everything looked at is noted, so that a later run can see cheaply that
//! nothing has changed. Knows no task.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;

use super::stamps::{Algorithm, Stamps};
use super::tree::Entry;
use crate::digest::Blob;
use crate::error::{At, Error, Result};
use crate::glob::{Globs, Progress};
use crate::host::fs::{self, Kind, Links, Stamp, Status};

/// Something that was seen and that decided about a key: as long as all facts hold, so does the key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fact {
    /// The path: relative to the project folder, or absolute.
    pub path: Vec<u8>,
    /// What of it was seen.
    pub look: Look,
    /// The stamp; `None` if there was nothing.
    pub stamp: Option<Stamp>,
}

/// What of a path was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Look {
    /// What it names: a link is a link.
    Itself,
    /// What it leads to.
    Target,
    /// That it is this folder, and no link to it, whatever is in it: something below was looked at.
    Way,
}

impl Look {
    /// Whether links are followed.
    pub fn links(self) -> Links {
        match self {
            Self::Itself | Self::Way => Links::Keep,
            Self::Target => Links::Follow,
        }
    }

    /// The stamp of what was found.
    pub fn stamp(self, found: Option<Status>) -> Option<Stamp> {
        match self {
            Self::Itself | Self::Target => found.map(|found| found.stamp),
            Self::Way => found.filter(|found| found.kind == Kind::Folder).map(|found| Stamp {
                size: 0,
                mtime: 0,
                ctime: 0,
                ..found.stamp
            }),
        }
    }
}

/// What a step has seen and used of the project.
#[derive(Debug, Default)]
pub struct Seen {
    /// What must stay as it is.
    pub facts: Vec<Fact>,
    /// Where the content of local files can be read, to be stored when it is needed.
    pub sources: Vec<(Blob, Stamp, PathBuf)>,
}

/// The project folder.
pub struct Local {
    root: PathBuf,
    never: Vec<PathBuf>,
    listings: Mutex<BTreeMap<PathBuf, Arc<Listing>>>,
}

/// A file or link that was looked at.
struct Hashed {
    entry: Entry,
    fact: Fact,
    source: Option<(Blob, Stamp, PathBuf)>,
}

impl Hashed {
    fn note(self, seen: &mut Seen) -> Entry {
        seen.facts.push(self.fact);
        seen.sources.extend(self.source);
        self.entry
    }
}

struct Listing {
    stamp: Stamp,
    entries: Vec<(Vec<u8>, Status)>,
}

impl Local {
    /// The project in `root`; the paths in `never` (the cache, embedded destinations) and `.git` are
    /// not entered.
    pub fn new(root: PathBuf, never: Vec<PathBuf>) -> Self {
        Self { root, never, listings: Mutex::default() }
    }

    /// The project folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Forgets which files there are: something has changed since they were listed.
    pub fn forget_listings(&self) {
        self.listings.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Refuses a path that goes through a link: it may lead out of the project.
    fn refuse_linked(&self, path: &str, seen: &mut Seen) -> Result<()> {
        for (at, _) in path.match_indices('/') {
            let above = self.root.join(&path[..at]);
            let found = fs::status(&above, Links::Keep).at("look at", &above)?;
            if found.is_some_and(|found| found.kind == Kind::Link) {
                return Err(Error::failed(format!("`{path}` goes through the link `{}`", &path[..at])));
            }
            let stamp = Look::Way.stamp(found);
            seen.facts.push(Fact { path: path[..at].into(), look: Look::Way, stamp });
        }
        Ok(())
    }

    /// What a path of the project names, hashed; `None` if there is nothing. Links are not followed.
    pub fn entry(&self, path: &str, stamps: &Stamps, seen: &mut Seen) -> Result<Option<Entry>> {
        let full = self.root.join(path);
        self.refuse_linked(path, seen)?;
        let found = fs::status(&full, Links::Keep).at("look at", &full)?;
        match found {
            None => {
                seen.facts.push(Fact { path: path.into(), look: Look::Itself, stamp: None });
                Ok(None)
            }
            Some(found) if found.kind == Kind::Folder => {
                Ok(Some(Entry::Folder { mode: 0o755, tree: crate::digest::Digest::Blake3([0; 32]) }))
            }
            Some(_) => Ok(Some(self.file(path.as_bytes(), full, stamps)?.note(seen))),
        }
    }

    /// The files, links and empty folders below a folder of the project that the globs take, with
    /// their paths from that folder, in the order of the bytes of the whole path.
    pub fn select(
        &self,
        folder: &str,
        globs: &Globs,
        stamps: &Stamps,
        seen: &mut Seen,
    ) -> Result<Vec<(Vec<u8>, Entry)>> {
        let folder = folder.trim_end_matches('/').trim_start_matches("./");
        let folder = if folder == "." { "" } else { folder };
        let mut paths = Vec::new();
        self.collect(&self.root.join(folder), &mut Vec::new(), globs, &globs.start(), seen, &mut paths)?;
        paths.sort_unstable();
        let whole = |path: &[u8]| match folder {
            "" => path.to_vec(),
            _ => [folder.as_bytes(), b"/", path].concat(),
        };
        let one = |path: &Vec<u8>| {
            let name = whole(path);
            self.file(&name, self.root.join(OsStr::from_bytes(&name)), stamps)
        };
        // A few files are read faster than threads are woken.
        let found: Vec<_> = match paths.len() {
            0..64 => paths.iter().map(one).collect(),
            _ => paths.par_iter().map(one).collect(),
        };
        let mut entries = Vec::with_capacity(paths.len());
        seen.facts.reserve(paths.len());
        seen.sources.reserve(paths.len());
        for (path, found) in paths.into_iter().zip(found) {
            entries.push((path, found?.note(seen)));
        }
        Ok(entries)
    }

    fn collect(
        &self,
        folder: &Path,
        path: &mut Vec<u8>,
        globs: &Globs,
        at: &Progress,
        seen: &mut Seen,
        paths: &mut Vec<Vec<u8>>,
    ) -> Result<()> {
        let names = globs.names(at);
        let listing = match &names {
            Some(names) => Arc::new(self.named(folder, names, seen)?),
            None => {
                let listing = self.listing(folder)?;
                let path = self.relative(folder);
                seen.facts.push(Fact { path, look: Look::Target, stamp: Some(listing.stamp) });
                listing
            }
        };
        for (name, found) in &listing.entries {
            let here = globs.enter(at, name);
            let length = path.len();
            if length > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(name);
            let full = folder.join(OsStr::from_bytes(name));
            match found.kind {
                Kind::Folder if here.takes_none() || name == b".git" || self.never.contains(&full) => {}
                Kind::Folder => self.collect(&full, path, globs, &here, seen, paths)?,
                _ if here.takes() => paths.push(path.clone()),
                // Where a folder was wanted: it may become one, which a listing would show.
                _ if names.is_some() && !here.takes_none() => {
                    let path = self.relative(&full);
                    seen.facts.push(Fact { path, look: Look::Itself, stamp: Some(found.stamp) });
                }
                _ => {}
            }
            path.truncate(length);
        }
        Ok(())
    }

    /// A path as facts have it.
    fn relative(&self, path: &Path) -> Vec<u8> {
        let relative = path.strip_prefix(&self.root).unwrap_or(path).as_os_str().as_bytes();
        if relative.is_empty() { b".".to_vec() } else { relative.to_vec() }
    }

    /// What these names in a folder are. What is in the folder is not looked at: what else comes and goes
    /// there does not matter.
    fn named(&self, folder: &Path, names: &[&[u8]], seen: &mut Seen) -> Result<Listing> {
        let stamp = self.folder(folder)?;
        let mut entries = Vec::new();
        for name in names {
            let path = folder.join(OsStr::from_bytes(name));
            match fs::status(&path, Links::Keep).at("look at", &path)? {
                Some(found) => {
                    if found.kind == Kind::Folder {
                        let (path, stamp) = (self.relative(&path), Look::Way.stamp(Some(found)));
                        seen.facts.push(Fact { path, look: Look::Way, stamp });
                    }
                    entries.push((name.to_vec(), found));
                }
                None => {
                    seen.facts.push(Fact { path: self.relative(&path), look: Look::Itself, stamp: None })
                }
            }
        }
        Ok(Listing { stamp, entries })
    }

    /// The stamp of a folder that must be there.
    fn folder(&self, folder: &Path) -> Result<Stamp> {
        let missing = || Error::failed(format!("the folder `{}` does not exist", self.shown(folder)));
        let found = fs::status(folder, Links::Follow).at("look at", folder)?.ok_or_else(missing)?;
        if found.kind != Kind::Folder {
            return Err(Error::failed(format!("`{}` is not a folder", self.shown(folder))));
        }
        Ok(found.stamp)
    }

    fn listing(&self, folder: &Path) -> Result<Arc<Listing>> {
        let known = || self.listings.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(listing) = known().get(folder) {
            return Ok(listing.clone());
        }
        let stamp = self.folder(folder)?;
        let mut entries = Vec::new();
        for name in fs::list(folder).at("list", folder)? {
            let path = folder.join(&name);
            if let Some(found) = fs::status(&path, Links::Keep).at("look at", &path)? {
                entries.push((name.as_bytes().to_vec(), found));
            }
        }
        let listing = Arc::new(Listing { stamp, entries });
        known().insert(folder.to_path_buf(), listing.clone());
        Ok(listing)
    }

    fn shown(&self, path: &Path) -> String {
        path.strip_prefix(&self.root).unwrap_or(path).display().to_string()
    }

    /// A file or link, hashed, with git's modes only.
    fn file(&self, name: &[u8], full: PathBuf, stamps: &Stamps) -> Result<Hashed> {
        let gone = || Error::failed(format!("read `{}`: it has just been removed", self.shown(&full)));
        let (found, blob) = stamps.digest(&full, Algorithm::Blake3)?.ok_or_else(gone)?;
        let fact = Fact { path: name.to_vec(), look: Look::Itself, stamp: Some(found.stamp) };
        match found.kind {
            Kind::File => {
                let entry = Entry::File { mode: if found.mode & 0o100 == 0 { 0o644 } else { 0o755 }, blob };
                Ok(Hashed { entry, fact, source: Some((blob, found.stamp, full)) })
            }
            Kind::Link => {
                let entry = Entry::Link { target: fs::link_target(&full).at("read", &full)? };
                Ok(Hashed { entry, fact, source: None })
            }
            _ => Err(Error::failed(format!(
                "`{}` is a socket, pipe or device: only files, folders and links are read",
                self.shown(&full)
            ))),
        }
    }

    /// A file outside the project, links followed; hashed, but never stored.
    pub fn outside(
        &self,
        path: &Path,
        algorithm: Algorithm,
        stamps: &Stamps,
        seen: &mut Seen,
    ) -> Result<Option<(Blob, u32)>> {
        let name = path.as_os_str().as_bytes().to_vec();
        let Ok(real) = std::fs::canonicalize(path) else {
            seen.facts.push(Fact { path: name, look: Look::Target, stamp: None });
            return Ok(None);
        };
        let before = fs::status(&real, Links::Keep).ok().flatten();
        match stamps.digest(&real, algorithm) {
            Ok(Some((found, blob))) if found.kind == Kind::File => {
                seen.facts.push(Fact { path: name, look: Look::Target, stamp: Some(found.stamp) });
                Ok(Some((blob, found.mode)))
            }
            other => {
                // Also what cannot be used has decided: a program further down in PATH is taken instead.
                seen.facts.push(Fact {
                    path: name,
                    look: Look::Target,
                    stamp: before.map(|found| found.stamp),
                });
                other?;
                Err(Error::failed(format!("`{}` is not a file", path.display())))
            }
        }
    }
}
