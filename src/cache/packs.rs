//! The packs of a cache: looked into for what is not there as a file, read again, and brought together when
//! they are many. Each has a name of its own for ever and is never changed, so that nobody waits for anybody.
//! Knows nothing but packs.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::pack::{Pack, Writer};
use crate::digest::{Blob, Digest};
use crate::error::{At, Result};
use crate::host::fs::{self, Existing, Links, Stamp};

/// So many packs of one order of size are brought together.
const MANY: usize = 8;
/// Packs with fewer blobs are of one order of size; those with more stay as they are.
const ORDERS: [u64; 3] = [1 << 9, 1 << 12, 1 << 15];
/// A pack that is made of others has at most so many blobs: their index is held in memory meanwhile.
const MOST: u64 = 1 << 18;

/// How often the folder is listed again because a pack went meanwhile.
const TRIES: usize = 100;

/// The packs in a folder.
pub struct Packs {
    folder: PathBuf,
    tmp: PathBuf,
    listed: Mutex<Listed>,
}

#[derive(Default)]
struct Listed {
    /// The folder when it was listed, and that moment.
    seen: Option<(Stamp, i64)>,
    packs: Arc<Vec<Arc<Pack>>>,
}

/// What there is in the packs.
pub enum Reread {
    /// A whole blob.
    Whole(Blob),
    /// What was a blob, and was taken away.
    Damaged(Digest),
    /// A file that is no pack, and was taken away.
    Unreadable(PathBuf),
}

impl Packs {
    /// The packs in the folder of a store, if there are any; with temporary files in `tmp` on the same file system.
    pub fn new(store: &Path, tmp: PathBuf) -> Self {
        Self { folder: store.join("packs"), tmp, listed: Mutex::default() }
    }

    /// Whether a blob should be there.
    pub fn has(&self, blob: &Blob) -> bool {
        let found = |pack: &Arc<Pack>| pack.find(&blob.digest).ok().flatten();
        let all = self.all().unwrap_or_default();
        all.iter().filter_map(found).any(|place| place.blob.size == blob.size)
    }

    /// The bytes of a blob, from the first pack that has them whole.
    pub fn read(&self, digest: &Digest) -> Result<Option<Vec<u8>>> {
        let known = self.listed().packs.clone();
        match read_any(&known, digest)? {
            None => read_any(&self.all()?, digest),
            found => Ok(found),
        }
    }

    fn listed(&self) -> MutexGuard<'_, Listed> {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A pack to be filled.
    pub fn begin(&self) -> Result<Writer> {
        Writer::new(&self.tmp)
    }

    /// Gives a pack its name: from now on what is in it is there.
    pub fn publish(&self, pack: Writer) -> Result<()> {
        let (file, name) = pack.finish()?;
        fs::publish(file, &self.folder.join(name), 0o444, Existing::Keep)
    }

    /// All that can be read now; opened when they are seen for the first time.
    fn all(&self) -> Result<Arc<Vec<Arc<Pack>>>> {
        let found = fs::status(&self.folder, Links::Keep).at("look at", &self.folder)?;
        let mut listed = self.listed();
        let Some(found) = found else {
            *listed = Listed::default();
            return Ok(Arc::default());
        };
        if listed.seen.is_some_and(|(stamp, at)| stamp == found.stamp && !stamp.is_racy(at)) {
            return Ok(listed.packs.clone());
        }
        let at = fs::now();
        let mut packs = self.list(&listed.packs)?;
        // The largest is most likely to have it.
        packs.sort_by_key(|pack| std::cmp::Reverse(pack.count));
        *listed = Listed { seen: Some((found.stamp, at)), packs: Arc::new(packs) };
        Ok(listed.packs.clone())
    }

    fn list(&self, known: &[Arc<Pack>]) -> Result<Vec<Arc<Pack>>> {
        for _ in 0..TRIES {
            let (mut packs, mut gone) = (Vec::new(), false);
            for name in fs::list(&self.folder).unwrap_or_default() {
                let path = self.folder.join(name);
                match known.iter().find(|pack| pack.path == path) {
                    Some(known) => packs.push(known.clone()),
                    None => match Pack::open(path.clone())? {
                        Some(new) => packs.push(Arc::new(new)),
                        None => gone |= fs::status(&path, Links::Keep).at("look at", &path)?.is_none(),
                    },
                }
            }
            // What was in it is in another one, which may not have been listed yet.
            if !gone {
                return Ok(packs);
            }
        }
        Ok(known.to_vec())
    }

    /// Reads everything once, and tells `visit` of it; what is damaged is taken away.
    pub fn reread(&self, visit: &mut dyn FnMut(Reread)) -> Result<()> {
        for name in fs::list(&self.folder).unwrap_or_default() {
            let path = self.folder.join(name);
            let Some(pack) = Pack::open(path.clone())? else {
                // Somebody else may have brought it together with others.
                if fs::status(&path, Links::Keep).at("look at", &path)?.is_some() {
                    fs::remove_tree(&path)?;
                    visit(Reread::Unreadable(path));
                }
                continue;
            };
            let mut is_whole = true;
            for place in pack.places()? {
                let whole = pack.read(&place)?.is_some();
                is_whole &= whole;
                visit(if whole { Reread::Whole(place.blob) } else { Reread::Damaged(place.blob.digest) });
            }
            if !is_whole {
                self.rewrite(&[Arc::new(pack)])?;
            }
        }
        Ok(())
    }

    /// Brings packs together where there are many small ones: each has to be looked into for what is in none.
    pub fn merge(&self) -> Result<()> {
        for order in ORDERS {
            let mut small: Vec<_> = self.all()?.iter().filter(|pack| pack.count < order).cloned().collect();
            if small.len() < MANY {
                continue;
            }
            // Somebody else may be at it; what both did would be there twice.
            let folder = std::fs::File::open(&self.folder).at("open", &self.folder)?;
            if folder.try_lock().is_err() {
                break;
            }
            small.sort_by_key(|pack| pack.count);
            let mut left = MOST;
            small.retain(|pack| {
                let fits = pack.count <= left;
                left -= if fits { pack.count } else { 0 };
                fits
            });
            self.rewrite(&small)?;
        }
        Ok(())
    }

    /// Replaces packs by one with all that is whole in them.
    fn rewrite(&self, old: &[Arc<Pack>]) -> Result<()> {
        let mut new = self.begin()?;
        for pack in old {
            for place in pack.places()? {
                if let Some(bytes) = pack.read(&place)? {
                    new.add(&place.blob, &bytes)?;
                }
            }
        }
        if new.count() > 0 {
            self.publish(new)?;
        }
        old.iter().try_for_each(|pack| fs::remove_file(&pack.path))
    }
}

fn read_any(packs: &[Arc<Pack>], digest: &Digest) -> Result<Option<Vec<u8>>> {
    for pack in packs {
        if let Some(place) = pack.find(digest)?
            && let Some(bytes) = pack.read(&place)?
        {
            return Ok(Some(bytes));
        }
    }
    Ok(None)
}

#[cfg(test)]
#[path = "packs_tests.rs"]
mod tests;
