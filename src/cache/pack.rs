//! A pack: small blobs in one file, one after the other, and at its end where each of them is, sorted by
//! digest. Nothing in it is taken for granted: what is read is verified, so that damage anywhere loses blobs
//! and never gives wrong ones. Knows no other pack.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::cas::{is_damage, is_passing};
use crate::digest::{Blob, Digest};
use crate::error::{At, Result};
use crate::host::fs;

/// Blobs of fewer bytes go into packs when many are stored together.
pub const SMALL: u64 = 64 * 1024;

/// The end of a pack: this, where the index begins, and how many blobs there are.
const MAGIC: &[u8; 16] = b"vcbuild pack  1\n";
const FOOT: usize = MAGIC.len() + 16;
/// An entry of the index: BLAKE3, offset, size.
const RECORD: usize = 48;
/// How many entries are read at once. Digests are spread evenly, so that the first guess mostly hits.
const BLOCK: u64 = 128;
/// How many bytes are written at once.
const GATHERED: usize = 1 << 20;

/// Where a blob is in a pack.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The blob.
    pub blob: Blob,
    offset: u64,
}

/// An open pack.
pub struct Pack {
    file: File,
    /// Its file.
    pub path: PathBuf,
    /// How many blobs are in it.
    pub count: u64,
    index: u64,
}

impl Pack {
    /// Opens a pack; `None` if the file is gone or is none.
    pub fn open(path: PathBuf) -> Result<Option<Self>> {
        let (file, size) = match fs::open_known(&path) {
            Ok((file, found)) => (file, found.stamp.size),
            Err(error) if is_passing(&error) => return Err(error).at("read", &path),
            Err(_) => return Ok(None),
        };
        let mut foot = [0; FOOT];
        let Some(start) = size.checked_sub(FOOT as u64) else { return Ok(None) };
        if !there(file.read_exact_at(&mut foot, start)).at("read", &path)? {
            return Ok(None);
        }
        let (index, count) = (number(&foot[16..]), number(&foot[24..]));
        let whole =
            count.checked_mul(RECORD as u64).and_then(|size| size.checked_add(index)) == Some(start);
        let pack = Self { file, path, count, index };
        Ok((whole && foot.starts_with(MAGIC)).then_some(pack))
    }

    /// Where the index says that a blob is.
    pub fn find(&self, digest: &Digest) -> Result<Option<Place>> {
        let Digest::Blake3(wanted) = digest else { return Ok(None) };
        let mut block = [0; BLOCK as usize * RECORD];
        let (mut low, mut high, mut leap) = (0, self.count, BLOCK);
        let share = u64::from_be_bytes(*wanted.first_chunk().unwrap_or(&[0; 8]));
        let mut start = ((u128::from(share) * u128::from(self.count)) >> 64) as u64;
        start = start.saturating_sub(BLOCK / 2);
        while low < high {
            let length = BLOCK.min(high - low);
            start = start.clamp(low, high - length);
            let records = &mut block[..length as usize * RECORD];
            let at = self.index + start * RECORD as u64;
            if !there(self.file.read_exact_at(records, at)).at("read", &self.path)? {
                return Ok(None);
            }
            let (records, _) = records.as_chunks::<RECORD>();
            let found = records.binary_search_by(|record| record[..32].cmp(wanted));
            match found {
                Ok(found) => return Ok(Some(place(&records[found]))),
                // It is near: the next look goes a little further, and each one twice as far.
                Err(0) => (high, start) = (start, start.saturating_sub(leap)),
                Err(all) if all == records.len() => (low, start) = (start + length, start + leap),
                Err(_) => return Ok(None),
            }
            leap *= 2;
        }
        Ok(None)
    }

    /// The bytes of a blob, if they are whole.
    pub fn read(&self, place: &Place) -> Result<Option<Vec<u8>>> {
        let end = place.offset.checked_add(place.blob.size);
        if place.blob.size >= SMALL || end.is_none_or(|end| end > self.index) {
            return Ok(None);
        }
        let mut bytes = vec![0; place.blob.size as usize];
        if !there(self.file.read_exact_at(&mut bytes, place.offset)).at("read", &self.path)? {
            return Ok(None);
        }
        Ok((Blob::of(&bytes) == place.blob).then_some(bytes))
    }

    /// Everything that the index says, in the order in which it was written.
    pub fn places(&self) -> Result<Vec<Place>> {
        let mut index = vec![0; self.count as usize * RECORD];
        if !there(self.file.read_exact_at(&mut index, self.index)).at("read", &self.path)? {
            return Ok(Vec::new());
        }
        let mut places: Vec<Place> = index.as_chunks::<RECORD>().0.iter().map(place).collect();
        places.sort_unstable_by_key(|place| place.offset);
        Ok(places)
    }
}

/// Whether bytes could be read. That a file is shorter than it was, or that the disk has lost them, is damage.
fn there(read: io::Result<()>) -> io::Result<bool> {
    match read {
        Ok(()) => Ok(true),
        Err(error) if is_damage(&error) || error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(*bytes.first_chunk().unwrap_or(&[0; 8]))
}

fn place(record: &[u8; RECORD]) -> Place {
    let digest = Digest::Blake3(*record.first_chunk().unwrap_or(&[0; 32]));
    Place { blob: Blob { digest, size: number(&record[40..]) }, offset: number(&record[32..]) }
}

/// A pack that is being written.
pub struct Writer {
    file: NamedTempFile,
    gathered: Vec<u8>,
    end: u64,
    places: BTreeMap<[u8; 32], (u64, u64)>,
}

impl Writer {
    /// An empty one, a temporary file in `tmp`.
    pub fn new(tmp: &Path) -> Result<Self> {
        let gathered = Vec::with_capacity(GATHERED);
        Ok(Self { file: fs::temporary(tmp)?, gathered, end: 0, places: BTreeMap::new() })
    }

    /// How many blobs are in it.
    pub fn count(&self) -> usize {
        self.places.len()
    }

    /// Adds a blob, which is small and has these bytes.
    pub fn add(&mut self, blob: &Blob, bytes: &[u8]) -> Result<()> {
        let Digest::Blake3(digest) = blob.digest else { panic!("BUG: packs hold what is named by BLAKE3") };
        if self.places.contains_key(&digest) {
            return Ok(());
        }
        self.places.insert(digest, (self.end, blob.size));
        self.end += blob.size;
        self.gather(bytes)
    }

    fn gather(&mut self, bytes: &[u8]) -> Result<()> {
        if self.gathered.len() + bytes.len() > GATHERED {
            self.write()?;
        }
        self.gathered.extend_from_slice(bytes);
        Ok(())
    }

    fn write(&mut self) -> Result<()> {
        let folder = self.file.path().parent().unwrap_or(Path::new(".")).to_path_buf();
        self.file.write_all(&self.gathered).at("write to", &folder)?;
        self.gathered.clear();
        Ok(())
    }

    /// The whole file, and the name that nothing else has.
    pub fn finish(mut self) -> Result<(NamedTempFile, String)> {
        let mut name = blake3::Hasher::new();
        let (index, places) = (self.end, std::mem::take(&mut self.places));
        for (digest, (offset, size)) in &places {
            for bytes in [&digest[..], &offset.to_le_bytes(), &size.to_le_bytes()] {
                name.update(bytes);
                self.gather(bytes)?;
            }
        }
        for bytes in [&MAGIC[..], &index.to_le_bytes(), &(places.len() as u64).to_le_bytes()] {
            self.gather(bytes)?;
        }
        self.write()?;
        // Whoever takes a damaged pack away by its name must not meet one that was written anew.
        name.update(&fs::now().to_le_bytes()).update(&std::process::id().to_le_bytes());
        Ok((self.file, name.finalize().to_hex().to_string()))
    }
}
