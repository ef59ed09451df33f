//! Content by digest: one read-only file for each blob, but for small ones that came together (`bulk`), which
//! are in packs. Every reader verifies; what is damaged is taken away and reported as lost, so that its producer
//! makes it again. Nothing is synced: a torn blob is a lost blob. Knows no tree and no record.

use std::fs::File;
use std::io::{ErrorKind, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use tempfile::{NamedTempFile, TempPath};

use super::pack::SMALL;
use super::packs::Packs;
use super::stamps::{Algorithm, Stamps};
use crate::digest::{Blob, Digest, Hasher, HashingWriter, PIECE, each_piece};
use crate::error::{At, Error, Result};
use crate::host::fs::{self, Existing, Links, Stamp};
use crate::recipe::{Content, Sink};

/// Blobs of at least this many bytes are remembered as verified; smaller ones are hashed faster than
/// they are looked up.
const REMEMBERED: u64 = SMALL;

/// From so many bytes on a second thread is worth its waking.
const LARGE: usize = 1 << 20;

/// The content-addressed store.
pub struct Cas {
    folder: PathBuf,
    tmp: PathBuf,
    /// What is remembered about files, here and in the project.
    pub stamps: Stamps,
    /// What has no file of its own. A file comes first: what was lost in a pack is healed by it.
    pub packs: Packs,
    /// Something was found lost: what is put is compared with what is there already.
    suspicious: AtomicBool,
    /// One for each of the possible ends of a digest's first byte.
    naming: [Mutex<()>; 16],
}

impl Cas {
    /// A store in `folder`, with temporary files in `tmp` on the same file system.
    pub fn new(folder: PathBuf, tmp: PathBuf, stamps: Stamps) -> Self {
        let packs = Packs::new(&folder, tmp.clone());
        Self { folder, tmp, stamps, packs, suspicious: AtomicBool::new(false), naming: Default::default() }
    }

    /// The file of a blob, there, in a pack or not: `cas/ab/…` by BLAKE3, `cas/sha256/ab/…` by SHA-256.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        match digest {
            Digest::Blake3(_) => self.folder.join(&hex[..2]).join(&hex[2..]),
            Digest::Sha256(_) => self.folder.join("sha256").join(&hex[..2]).join(&hex[2..]),
        }
    }

    /// Whether a blob is there with its size; its bytes are verified by whoever reads them.
    pub fn has(&self, blob: &Blob) -> bool {
        matches!(fs::status(self.path(&blob.digest), Links::Keep),
            Ok(Some(found)) if found.stamp.size == blob.size && found.kind == fs::Kind::File)
            || self.packs.has(blob)
    }

    /// Whether a blob need not be stored: it is there, and whole as far as is known. Once one was found lost
    /// the others are read before they are taken for granted: what is made again must heal all of it.
    pub fn will_do(&self, blob: &Blob) -> bool {
        self.has(blob) && (!self.suspicious.load(Ordering::Relaxed) || self.open(blob).is_ok())
    }

    /// Stores bytes by their BLAKE3 digest.
    pub fn put(&self, bytes: &[u8]) -> Result<Blob> {
        if bytes.len() >= LARGE {
            // Most are new: they are written while they are hashed.
            let (blob, file) = std::thread::scope(|scope| {
                let writer = scope.spawn(|| self.write(bytes));
                (Blob::of(bytes), writer.join())
            });
            let file = file.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            self.publish(file, &blob)?;
            return Ok(blob);
        }
        let blob = Blob::of(bytes);
        if !self.will_do(&blob) {
            self.keep(&blob, bytes)?;
        }
        Ok(blob)
    }

    /// Stores a blob that has these bytes. Whatever lies there by now, these are right.
    pub fn keep(&self, blob: &Blob, bytes: &[u8]) -> Result<()> {
        self.name(self.write(bytes)?, blob, Existing::Replace)
    }

    fn write(&self, bytes: &[u8]) -> Result<NamedTempFile> {
        let mut file = fs::temporary(&self.tmp)?;
        // In one call for all the kernel would look for huge pages, which nobody has touched for long: many
        // times slower.
        bytes.chunks(PIECE).try_for_each(|piece| file.write_all(piece)).at("write to", &self.tmp)?;
        Ok(file)
    }

    /// Stores whatever `write` writes, named by `hasher`.
    pub fn put_with(
        &self,
        hasher: Hasher,
        write: impl FnOnce(&mut dyn Write) -> Result<()>,
    ) -> Result<Blob> {
        let mut writer = HashingWriter::new(fs::temporary(&self.tmp)?, hasher);
        write(&mut writer)?;
        let (file, blob) = writer.finish();
        self.publish(file, &blob)?;
        Ok(blob)
    }

    /// Stores content that is known by its name already and may come in several runs. `write` gets how many
    /// bytes are there and adds the rest, and says whether the content still is what it was; what it added
    /// before it failed is there the next time. Returns whether all of it came.
    pub fn put_resumed(
        &self,
        blob: &Blob,
        write: &dyn Fn(u64, &mut dyn Write) -> Result<bool>,
    ) -> Result<bool> {
        let path = self.tmp.join(format!("{}{}", fs::PARTIAL, blob.digest.hex()));
        let file = fs::open_lock(&path)?;
        if file.try_lock().is_err() {
            // Somebody else is at it, and two at once would write into each other.
            let mut whole = true;
            let put = self.put_with(blob.digest.hasher(), |writer| {
                whole = write(0, writer)?;
                Ok(())
            })?;
            return Ok(whole && put == *blob);
        }
        let there = fs::status_of(&file).at("read", &path)?.stamp.size;
        let from = if there < blob.size { there } else { 0 };
        for from in [from, 0] {
            let mut hasher = blob.digest.hasher();
            let read = each_piece(&file, from, |piece| {
                hasher.update(piece);
                Ok::<(), Error>(())
            })?;
            read.at("read", &path)?;
            file.set_len(from).at("write to", &path)?;
            (&file).seek(SeekFrom::Start(from)).at("write to", &path)?;
            let mut writer = HashingWriter::after(&file, hasher, from);
            let whole = write(from, &mut writer)?;
            let (_, came) = writer.finish();
            if whole && came == *blob {
                let named = TempPath::try_from_path(&path).at("name", &path)?;
                self.publish(NamedTempFile::from_parts(file, named), blob)?;
                return Ok(true);
            }
            // What was there from an earlier time may have been something else.
            if !whole || from == 0 {
                break;
            }
        }
        fs::remove_file(&path)?;
        Ok(false)
    }

    /// Stores an open file, named by `hasher`.
    pub fn put_file(&self, file: &File, path: &Path, hasher: Hasher) -> Result<Blob> {
        let size = fs::status_of(file).at("read", path)?.stamp.size;
        self.put_with(hasher, |writer| {
            let write = |piece: &[u8]| writer.write_all(piece).at("write to", &self.tmp);
            each_piece(file, size, write)?.map(drop).at("read", path)
        })
    }

    /// Stores a file whose digest is already known; the kernel copies if its stamp is remembered, otherwise
    /// it is hashed once more. Returns whether the file still was what it is known to be; if not, nothing is
    /// stored under its name.
    pub fn put_known(&self, path: &Path, stamp: &Stamp, blob: &Blob) -> Result<bool> {
        if self.will_do(blob) {
            return Ok(true);
        }
        let file = fs::open_regular(path).at("read", path)?;
        // A stamp that was too young to be remembered may hide an edit since it was hashed.
        if self.stamps.blob(stamp, algorithm(&blob.digest)) != Some(*blob) {
            return Ok(self.put_file(&file, path, blob.digest.hasher())? == *blob);
        }
        let copy = fs::temporary(&self.tmp)?;
        let whole = fs::copy(&file, copy.as_file(), stamp.size).at("write to", &self.tmp)?;
        if !whole || fs::status_of(&file).at("read", path)?.stamp != *stamp {
            return Ok(false);
        }
        self.publish(copy, blob)?;
        Ok(true)
    }

    /// Opens a blob whose bytes are verified. One that is in a pack comes as a file in memory.
    pub fn open(&self, blob: &Blob) -> Result<File> {
        if let Some((file, stamp)) = self.find(blob)? {
            if self.is_verified(blob, &stamp) {
                return Ok(file);
            }
            let at = fs::now();
            if self.is_whole(blob, &file)? {
                self.stamps.remember(&stamp, blob.digest, at);
                return Ok(file);
            }
            self.discard(&blob.digest, &stamp);
        }
        fs::in_memory(&self.packed(&blob.digest, Some(blob.size))?)
            .at("open", Path::new("a file in memory"))
    }

    /// Whether a blob is there and whole, whatever its size.
    pub fn is_there(&self, digest: &Digest) -> bool {
        let found = fs::status(self.path(digest), Links::Keep).ok().flatten();
        found.is_some_and(|found| self.open(&Blob { digest: *digest, size: found.stamp.size }).is_ok())
            || self.read_whole(digest).is_ok()
    }

    fn is_whole(&self, blob: &Blob, file: &File) -> Result<bool> {
        match crate::digest::hash_file(file, blob.size, blob.digest.hasher()) {
            Err(error) if !is_damage(&error) => Err(error).at("read", &self.path(&blob.digest)),
            found => Ok(found.is_ok_and(|found| found == *blob)),
        }
    }

    /// The bytes of a blob that has no whole file.
    fn packed(&self, digest: &Digest, size: Option<u64>) -> Result<Vec<u8>> {
        let found = self.packs.read(digest)?;
        found.filter(|bytes| size.is_none_or(|size| bytes.len() as u64 == size)).ok_or_else(|| {
            self.suspicious.store(true, Ordering::Relaxed);
            Error::Lost(*digest)
        })
    }

    /// Whether a file that looks so was seen to be this blob.
    fn is_verified(&self, blob: &Blob, stamp: &Stamp) -> bool {
        self.stamps.blob(stamp, algorithm(&blob.digest)).is_some_and(|known| known == *blob)
    }

    /// Reads the file of a blob again whatever is remembered of it; a damaged one is taken away. Returns
    /// whether it is whole.
    pub fn reread(&self, blob: &Blob) -> Result<bool> {
        let Some((file, stamp)) = self.find(blob)? else { return Ok(false) };
        let whole = self.is_whole(blob, &file)?;
        if !whole {
            self.stamps.forget(&stamp);
            self.discard(&blob.digest, &stamp);
        }
        Ok(whole)
    }

    fn find(&self, blob: &Blob) -> Result<Option<(File, Stamp)>> {
        let found = self.find_any(&blob.digest)?;
        if let Some((_, stamp)) = found.as_ref().filter(|(_, stamp)| stamp.size != blob.size) {
            self.discard(&blob.digest, stamp);
            return Ok(None);
        }
        Ok(found)
    }

    /// The file of a blob, whatever its size.
    fn find_any(&self, digest: &Digest) -> Result<Option<(File, Stamp)>> {
        let path = self.path(digest);
        match fs::open_known(&path) {
            Ok((file, found)) => Ok(Some((file, found.stamp))),
            Err(error) if is_passing(&error) => Err(error).at("read", &path),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(_) => {
                // What is there and cannot be opened as a file would stand in the way of a good one.
                if let Ok(Some(found)) = fs::status(&path, Links::Keep)
                    && fs::open_regular(&path).is_err()
                {
                    self.discard(digest, &found.stamp);
                }
                Ok(None)
            }
        }
    }

    /// The bytes of a blob whose size is not known.
    pub fn read_whole(&self, digest: &Digest) -> Result<Vec<u8>> {
        self.read_found(digest, None, self.find_any(digest)?)
    }

    fn read_found(
        &self,
        digest: &Digest,
        size: Option<u64>,
        found: Option<(File, Stamp)>,
    ) -> Result<Vec<u8>> {
        if let Some((file, stamp)) = found
            && let Some(bytes) = self.read_file(digest, &file, &stamp)?
        {
            return Ok(bytes);
        }
        self.packed(digest, size)
    }

    fn read_file(&self, digest: &Digest, file: &File, stamp: &Stamp) -> Result<Option<Vec<u8>>> {
        let mut bytes = vec![0; usize::try_from(stamp.size).unwrap_or(0)];
        match fill(file, &mut bytes) {
            Ok(()) => {}
            // What became shorter does not have the digest.
            Err(error) if is_damage(&error) || error.kind() == ErrorKind::UnexpectedEof => bytes.clear(),
            Err(error) => return Err(error).at("read", &self.path(digest)),
        }
        let blob = Blob { digest: *digest, size: bytes.len() as u64 };
        if blob.size >= REMEMBERED && blob.size == stamp.size && self.is_verified(&blob, stamp) {
            return Ok(Some(bytes));
        }
        let mut hasher = digest.hasher();
        hasher.update(&bytes);
        if hasher.finish() != *digest {
            self.discard(digest, stamp);
            return Ok(None);
        }
        Ok(Some(bytes))
    }

    /// Takes a damaged blob away, unless somebody has put a good one in its place meanwhile.
    fn discard(&self, digest: &Digest, bad: &Stamp) {
        self.suspicious.store(true, Ordering::Relaxed);
        let path = self.path(digest);
        let _alone = self.naming(digest);
        if matches!(fs::status(&path, Links::Keep), Ok(Some(found)) if found.stamp.ino == bad.ino) {
            // If it cannot be removed it stays damaged, and every reader finds out again.
            let _ = fs::remove_tree(&path);
        }
    }

    /// Held while names are given or taken away, so that nobody takes away a good blob that has just got the
    /// name of a bad one.
    fn naming(&self, digest: &Digest) -> MutexGuard<'_, ()> {
        self.naming[usize::from(digest.bytes()[0] & 15)].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, file: NamedTempFile, blob: &Blob) -> Result<()> {
        // The bytes are right by construction; what lies there may not be.
        let existing = if self.will_do(blob) { Existing::Keep } else { Existing::Replace };
        self.name(file, blob, existing)
    }

    fn name(&self, file: NamedTempFile, blob: &Blob, existing: Existing) -> Result<()> {
        let path = self.path(&blob.digest);
        let large = blob.size >= REMEMBERED;
        let kept = if large { file.as_file().try_clone().ok() } else { None };
        {
            let _alone = self.naming(&blob.digest);
            fs::publish(file, &path, 0o444, existing)?;
        }
        if let Some(Ok(found)) = kept.as_ref().map(fs::status_of) {
            self.stamps.wrote(path, found.stamp, blob.digest);
        }
        Ok(())
    }

    /// Calls `visit` with every blob that has a file, in the order of the digests.
    pub fn each(&self, visit: &mut dyn FnMut(Blob)) {
        for (folder, prefix) in [(self.folder.clone(), ""), (self.folder.join("sha256"), "sha256:")] {
            for shard in fs::list(&folder).unwrap_or_default() {
                let Some(start) = shard.to_str().filter(|name| name.len() == 2) else { continue };
                for name in fs::list(&folder.join(&shard)).unwrap_or_default() {
                    let path = folder.join(&shard).join(&name);
                    let text = format!("{prefix}{start}{}", name.to_string_lossy());
                    if let Ok(digest) = text.parse()
                        && let Ok(Some(found)) = fs::status(&path, Links::Keep)
                    {
                        visit(Blob { digest, size: found.stamp.size });
                    }
                }
            }
        }
    }
}

/// What `put_with` gives, as a sink.
pub struct Writing<'a>(
    /// The writer.
    pub &'a mut dyn Write,
);

impl Sink for Writing<'_> {
    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.write_all(bytes).at("write to", Path::new("the cache"))
    }
}

/// Reads the beginning of a file. Half of much is read by a second thread: what takes the time is memory that is
/// touched for the first time.
fn fill(file: &File, bytes: &mut [u8]) -> std::io::Result<()> {
    if bytes.len() < LARGE {
        return file.read_exact_at(bytes, 0);
    }
    let (head, tail) = bytes.split_at_mut(bytes.len() / 2);
    let at = head.len() as u64;
    std::thread::scope(|scope| {
        let tail = scope.spawn(move || file.read_exact_at(tail, at));
        let head = file.read_exact_at(head, 0);
        tail.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).and(head)
    })
}

/// Whether a failed read means that the disk has lost the bytes.
pub fn is_damage(error: &std::io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::IO)
}

/// Whether opening failed for a reason that has nothing to do with the file.
pub fn is_passing(error: &std::io::Error) -> bool {
    let passing = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::INTR, Errno::IO];
    Errno::from_io_error(error).is_some_and(|errno| passing.contains(&errno))
}

fn algorithm(digest: &Digest) -> Algorithm {
    match digest {
        Digest::Blake3(_) => Algorithm::Blake3,
        Digest::Sha256(_) => Algorithm::Sha256,
    }
}

impl Content for Cas {
    fn send(&self, blob: Blob, sink: &mut dyn Sink) -> Result<()> {
        if blob.size >= REMEMBERED {
            let file = self.open(&blob)?;
            return sink.file(&file, blob.size);
        }
        sink.bytes(&self.read(blob)?)
    }

    fn read(&self, blob: Blob) -> Result<Vec<u8>> {
        self.read_found(&blob.digest, Some(blob.size), self.find(&blob)?)
    }
}

#[cfg(test)]
#[path = "cas_tests.rs"]
mod tests;
