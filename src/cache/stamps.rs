//! Remembers the digest of files by their stamp, so that unchanged bytes are hashed once. One file,
//! sorted, replaced whole; valid for one boot of the machine, because a power cut may tear a file
//! without touching its stamp. Does not know whose files they are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::digest::{Blob, Digest, Hasher};
use crate::error::{At, Error, Result};
use crate::host::fs::{self, Durability, Kind, Links, Stamp, Status};

const MAGIC: &[u8; 16] = b"vcbuild stamps 1";
const HEADER: usize = 16 + 32 + 32;
const RECORD: usize = 80;
/// Days after which an entry that nobody asked for is dropped.
const KEPT_DAYS: u32 = 30;

/// Which of the two digests of a file is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Algorithm {
    /// The cache's own.
    Blake3,
    /// OCI's, and that of files on hosts.
    Sha256,
}

type Place = (u64, u64, Algorithm);

/// The memory; shared by all threads of a process.
pub struct Stamps {
    folder: PathBuf,
    stored: OnceLock<Vec<u8>>,
    fresh: Mutex<Fresh>,
}

#[derive(Default)]
struct Fresh {
    entries: BTreeMap<Place, (Stamp, Digest)>,
    written: BTreeMap<Place, (PathBuf, Stamp, Digest)>,
}

impl Stamps {
    /// The memory in `folder`; nothing is read before it is needed.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, stored: OnceLock::new(), fresh: Mutex::default() }
    }

    /// The blob behind a stamp, if it is remembered.
    pub fn blob(&self, stamp: &Stamp, algorithm: Algorithm) -> Option<Blob> {
        let place = (stamp.dev, stamp.ino, algorithm);
        let fresh = self.fresh();
        let known = fresh.entries.get(&place).map(|(known, digest)| (known, digest));
        let written = fresh.written.get(&place).map(|(_, known, digest)| (known, digest));
        if let Some((known, digest)) = written.or(known) {
            return (known == stamp).then_some(Blob { digest: *digest, size: stamp.size });
        }
        drop(fresh);
        let records = self.stored.get_or_init(|| load(&self.folder.join("index")).unwrap_or_default());
        let (mut low, mut high) = (0, records.len() / RECORD);
        while low < high {
            let middle = low + (high - low) / 2;
            let (known, digest, _) = decode(&records[middle * RECORD..][..RECORD]);
            match (known.dev, known.ino, algorithm_of(&digest)).cmp(&place) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => {
                    return (known == *stamp).then_some(Blob { digest, size: stamp.size });
                }
            }
        }
        None
    }

    /// Status and content of a regular file, hashed only if its stamp is not remembered. `None` if
    /// there is nothing; anything but a file comes with an empty blob. A file that does not stand
    /// still while it is read is an error.
    pub fn digest(&self, path: &Path, algorithm: Algorithm) -> Result<Option<(Status, Blob)>> {
        let none = Blob { digest: Digest::Blake3([0; 32]), size: 0 };
        for _ in 0..20 {
            let Some(found) = fs::status(path, Links::Keep).at("look at", path)? else { return Ok(None) };
            if found.kind != Kind::File {
                return Ok(Some((found, none)));
            }
            if let Some(blob) = self.blob(&found.stamp, algorithm) {
                return Ok(Some((found, blob)));
            }
            let at = fs::now();
            let (file, before) = fs::open_known(path).at("read", path)?;
            let hasher = match algorithm {
                Algorithm::Blake3 => Hasher::blake3(),
                Algorithm::Sha256 => Hasher::sha256(),
            };
            let blob = crate::digest::hash_file(&file, before.stamp.size, hasher).at("read", path)?;
            if fs::status_of(&file).at("read", path)?.stamp == before.stamp
                && blob.size == before.stamp.size
            {
                self.remember(&before.stamp, blob.digest, at);
                return Ok(Some((before, blob)));
            }
        }
        Err(Error::failed(format!("read `{}`: it keeps changing", path.display())))
    }

    /// Remembers that the file with this stamp, read after the moment `at`, has this digest. A stamp
    /// so young that a later change could leave it as it is, is not remembered.
    pub fn remember(&self, stamp: &Stamp, digest: Digest, at: i64) {
        if !stamp.is_racy(at) {
            self.fresh().entries.insert((stamp.dev, stamp.ino, algorithm_of(&digest)), (*stamp, digest));
        }
    }

    /// Forgets what is remembered about a file.
    pub fn forget(&self, stamp: &Stamp) {
        let unknown = Stamp { ctime: 0, mtime: 0, ..*stamp };
        for algorithm in [Algorithm::Blake3, Algorithm::Sha256] {
            let place = (stamp.dev, stamp.ino, algorithm);
            let mut fresh = self.fresh();
            fresh.written.remove(&place);
            // An entry that no file has stands before the stored one.
            fresh.entries.insert(place, (unknown, digest_of(algorithm)));
        }
    }

    /// Remembers a file that this process has just written; others will know it too if it is still
    /// as it is when this process ends.
    pub fn wrote(&self, path: PathBuf, stamp: Stamp, digest: Digest) {
        self.fresh().written.insert((stamp.dev, stamp.ino, algorithm_of(&digest)), (path, stamp, digest));
    }

    /// Writes down what is new. Other processes may do so too: nothing of theirs is lost.
    pub fn flush(&self) -> Result<()> {
        let mut fresh = std::mem::take(&mut *self.fresh());
        let now = fs::now();
        for (path, stamp, digest) in std::mem::take(&mut fresh.written).into_values() {
            if !stamp.is_racy(now)
                && let Ok(Some(found)) = fs::status(&path, Links::Keep)
                && found.stamp == stamp
            {
                fresh.entries.insert((stamp.dev, stamp.ino, algorithm_of(&digest)), (stamp, digest));
            }
        }
        if fresh.entries.is_empty() {
            return Ok(());
        }
        let lock = fs::open_lock(&self.folder.join("lock"))?;
        // Without the lock the worst is that another process's entries are forgotten.
        let _ = lock.lock();
        let today = u32::try_from(now / 86_400_000_000_000).unwrap_or(0);
        let stored = load(&self.folder.join("index")).unwrap_or_default();
        let mut records = Vec::with_capacity(HEADER + stored.len() + fresh.entries.len() * RECORD);
        records.extend_from_slice(MAGIC);
        records.extend_from_slice(&[0; HEADER - MAGIC.len()]);
        // Both are sorted: what is new goes between what is stored, or takes its place.
        let mut new = fresh.entries.into_iter().peekable();
        for record in stored.chunks_exact(RECORD) {
            let (stamp, digest, day) = decode(record);
            let place = (stamp.dev, stamp.ino, algorithm_of(&digest));
            while let Some((_, (stamp, digest))) = new.next_if(|(other, _)| *other < place) {
                encode(&mut records, &stamp, &digest, today);
            }
            let replaced = new.peek().is_some_and(|(other, _)| *other == place);
            if !replaced && day + KEPT_DAYS >= today {
                records.extend_from_slice(record);
            }
        }
        for (_, (stamp, digest)) in new {
            encode(&mut records, &stamp, &digest, today);
        }
        let boot = boot();
        records[16..48].copy_from_slice(&boot);
        let sum = checksum(&boot, &records[HEADER..]);
        records[48..80].copy_from_slice(&sum);
        fs::write(&self.folder.join("index"), &records, 0o644, Durability::Cache)
    }

    fn fresh(&self) -> std::sync::MutexGuard<'_, Fresh> {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl crate::host::node::Memory for Stamps {
    fn recall(&self, stamp: &Stamp) -> Option<Digest> {
        self.blob(stamp, Algorithm::Sha256).map(|blob| blob.digest)
    }

    fn remember(&self, stamp: &Stamp, digest: Digest, at: i64) {
        Self::remember(self, stamp, digest, at);
    }

    fn wrote(&self, path: PathBuf, stamp: Stamp, digest: Digest) {
        Self::wrote(self, path, stamp, digest);
    }
}

fn boot() -> [u8; 32] {
    *blake3::hash(fs::boot_id().as_bytes()).as_bytes()
}

fn checksum(boot: &[u8; 32], records: &[u8]) -> [u8; 32] {
    *blake3::Hasher::new_keyed(boot).update(records).finalize().as_bytes()
}

/// The records of a whole, undamaged file of this boot.
fn load(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = fs::read(path, 1 << 30).ok()??;
    let boot = boot();
    if bytes.len() < HEADER || &bytes[..16] != MAGIC || bytes[16..48] != boot {
        return None;
    }
    if bytes[48..80] != checksum(&boot, &bytes[HEADER..]) || !(bytes.len() - HEADER).is_multiple_of(RECORD)
    {
        return None;
    }
    Some(bytes.split_off(HEADER))
}

fn digest_of(algorithm: Algorithm) -> Digest {
    match algorithm {
        Algorithm::Blake3 => Digest::Blake3([0; 32]),
        Algorithm::Sha256 => Digest::Sha256([0; 32]),
    }
}

fn algorithm_of(digest: &Digest) -> Algorithm {
    match digest {
        Digest::Blake3(_) => Algorithm::Blake3,
        Digest::Sha256(_) => Algorithm::Sha256,
    }
}

fn encode(out: &mut Vec<u8>, stamp: &Stamp, digest: &Digest, day: u32) {
    for number in [stamp.dev, stamp.ino, stamp.size] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    for number in [stamp.mtime, stamp.ctime] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&u32::from(algorithm_of(digest) == Algorithm::Sha256).to_le_bytes());
    out.extend_from_slice(&day.to_le_bytes());
    out.extend_from_slice(digest.bytes());
}

fn decode(record: &[u8]) -> (Stamp, Digest, u32) {
    let number = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&record[at..at + 8]);
        u64::from_le_bytes(bytes)
    };
    let stamp = Stamp {
        dev: number(0),
        ino: number(8),
        size: number(16),
        mtime: number(24) as i64,
        ctime: number(32) as i64,
    };
    let mut bytes = [0; 32];
    bytes.copy_from_slice(&record[48..80]);
    let digest = if number(40) & 1 == 1 { Digest::Sha256(bytes) } else { Digest::Blake3(bytes) };
    (stamp, digest, (number(40) >> 32) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(ino: u64) -> Stamp {
        Stamp { dev: 1, ino, size: ino * 10, mtime: 5, ctime: -3 }
    }

    #[test]
    fn what_was_flushed_is_known_later() {
        let folder = tempfile::tempdir().unwrap();
        let first = Stamps::new(folder.path().to_path_buf());
        for ino in (0..100).rev() {
            first.remember(&stamp(ino), Digest::of(&ino.to_le_bytes()), fs::now());
        }
        first.remember(&stamp(7), Digest::sha256_of(b"seven"), fs::now());
        first.flush().unwrap();
        let second = Stamps::new(folder.path().to_path_buf());
        let blob = second.blob(&stamp(42), Algorithm::Blake3).unwrap();
        assert_eq!(blob, Blob { digest: Digest::of(&42u64.to_le_bytes()), size: 420 });
        assert_eq!(second.blob(&stamp(7), Algorithm::Sha256).unwrap().digest, Digest::sha256_of(b"seven"));
        assert_eq!(second.blob(&Stamp { ctime: 0, ..stamp(42) }, Algorithm::Blake3), None);
        assert_eq!(second.blob(&stamp(42), Algorithm::Sha256), None);
    }

    #[test]
    fn what_is_new_joins_what_is_stored() {
        let folder = tempfile::tempdir().unwrap();
        let (mut known, open) = (BTreeMap::new(), || Stamps::new(folder.path().to_path_buf()));
        for (round, inos) in [vec![5, 3, 9], vec![1, 3, 10], vec![4], vec![11, 0, 9]].iter().enumerate() {
            let stamps = open();
            for &ino in inos {
                let digest = Digest::of(&[round as u8]);
                stamps.remember(&stamp(ino), digest, fs::now());
                known.insert(ino, digest);
            }
            stamps.flush().unwrap();
            for ino in 0..12 {
                let found = open().blob(&stamp(ino), Algorithm::Blake3).map(|blob| blob.digest);
                assert_eq!(found, known.get(&ino).copied(), "{ino}");
            }
        }
    }

    #[test]
    fn a_stamp_that_is_too_young_is_not_trusted() {
        let folder = tempfile::tempdir().unwrap();
        let stamps = Stamps::new(folder.path().to_path_buf());
        let now = fs::now();
        let young = Stamp { ctime: now, ..stamp(1) };
        stamps.remember(&young, Digest::of(b""), now);
        assert_eq!(stamps.blob(&young, Algorithm::Blake3), None);
    }

    #[test]
    fn any_damage_forgets_everything() {
        let folder = tempfile::tempdir().unwrap();
        let stamps = Stamps::new(folder.path().to_path_buf());
        stamps.remember(&stamp(1), Digest::of(b"x"), fs::now());
        stamps.flush().unwrap();
        let index = folder.path().join("index");
        let good = fs::read(&index, 1 << 20).unwrap().unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&index, &bad, 0o644, Durability::Cache).unwrap();
            let later = Stamps::new(folder.path().to_path_buf());
            assert_eq!(later.blob(&stamp(1), Algorithm::Blake3), None, "byte {at}");
        }
    }
}
