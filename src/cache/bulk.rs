//! Blobs that are stored together: many small ones become a pack, a few become files, and large ones are files
//! as always. What was put is there when all of it is: at the end. Knows no tree.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::cas::Cas;
use super::pack::{SMALL, Writer};
use super::stamps::Algorithm;
use crate::digest::{Blob, Digest, Hasher};
use crate::error::{At, Result};
use crate::host::fs::{self, Stamp};

/// From so many new small blobs on they become a pack.
const MANY: usize = 64;
/// So many are in one pack at most.
const MOST: usize = 1 << 16;

/// Blobs that are stored together, by any number of threads.
pub struct Bulk<'a> {
    /// Where they are stored.
    pub cas: &'a Cas,
    gathered: Mutex<Gathered>,
}

#[derive(Default)]
struct Gathered {
    few: Vec<(Blob, Vec<u8>)>,
    pack: Option<Writer>,
}

impl<'a> Bulk<'a> {
    /// Nothing yet.
    pub fn new(cas: &'a Cas) -> Self {
        Self { cas, gathered: Mutex::default() }
    }

    /// Stores bytes by their BLAKE3 digest.
    pub fn put(&self, bytes: &[u8]) -> Result<Blob> {
        if bytes.len() as u64 >= SMALL {
            return self.cas.put(bytes);
        }
        let blob = Blob::of(bytes);
        if !self.cas.will_do(&blob) {
            self.add(blob, bytes.to_vec())?;
        }
        Ok(blob)
    }

    /// Stores an open file by its BLAKE3 digest.
    pub fn put_file(&self, file: &File, path: &Path) -> Result<Blob> {
        let size = fs::status_of(file).at("read", path)?.stamp.size;
        match small(file, size).at("read", path)? {
            Some(bytes) => self.put(&bytes),
            None => self.cas.put_file(file, path, Hasher::blake3()),
        }
    }

    /// Stores a file whose digest is already known. Returns whether the file still was what it is known to be;
    /// if not, nothing is stored under its name.
    pub fn put_known(&self, path: &Path, stamp: &Stamp, blob: &Blob) -> Result<bool> {
        if blob.size >= SMALL || !matches!(blob.digest, Digest::Blake3(_)) {
            return self.cas.put_known(path, stamp, blob);
        }
        if self.cas.will_do(blob) {
            return Ok(true);
        }
        let (file, found) = fs::open_known(path).at("read", path)?;
        let Some(bytes) = small(&file, found.stamp.size).at("read", path)? else { return Ok(false) };
        // A stamp that was too young to be remembered may hide an edit since it was hashed.
        let is_known = self.cas.stamps.blob(stamp, Algorithm::Blake3) == Some(*blob)
            && fs::status_of(&file).at("read", path)?.stamp == *stamp
            && bytes.len() as u64 == blob.size;
        let is_same = is_known || Blob::of(&bytes) == *blob;
        if is_same {
            self.add(*blob, bytes)?;
        }
        Ok(is_same)
    }

    fn add(&self, blob: Blob, bytes: Vec<u8>) -> Result<()> {
        let mut gathered = self.gathered.lock().unwrap_or_else(PoisonError::into_inner);
        let Gathered { few, pack } = &mut *gathered;
        if pack.is_none() && few.len() + 1 < MANY {
            if !few.iter().any(|(other, _)| *other == blob) {
                few.push((blob, bytes));
            }
            return Ok(());
        }
        let mut writer = match pack.take() {
            Some(writer) => writer,
            None => self.cas.packs.begin()?,
        };
        for (blob, bytes) in few.drain(..).chain([(blob, bytes)]) {
            writer.add(&blob, &bytes)?;
        }
        match writer.count() {
            0..MOST => *pack = Some(writer),
            _ => self.cas.packs.publish(writer)?,
        }
        Ok(())
    }

    /// Ends it: from now on all of it is there.
    pub fn finish(self) -> Result<()> {
        let Gathered { few, pack } = self.gathered.into_inner().unwrap_or_else(PoisonError::into_inner);
        few.iter().try_for_each(|(blob, bytes)| self.cas.keep(blob, bytes))?;
        pack.map_or(Ok(()), |pack| self.cas.packs.publish(pack))
    }
}

/// The bytes of a file that is thought to be `size` bytes long, if it is small.
fn small(file: &File, size: u64) -> std::io::Result<Option<Vec<u8>>> {
    if size >= SMALL {
        return Ok(None);
    }
    let mut bytes = Vec::with_capacity(size as usize + 1);
    file.take(SMALL).read_to_end(&mut bytes)?;
    Ok(((bytes.len() as u64) < SMALL).then_some(bytes))
}
