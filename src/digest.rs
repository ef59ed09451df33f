//! Digests, blobs, and readers and writers that hash what passes through them.
//! Knows no file, cache or task: it turns bytes into names and names into text.

use std::convert::Infallible;
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::str::FromStr;
use std::sync::mpsc::channel;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The name of some bytes: 32 bytes made by BLAKE3, or by SHA-256 where the outside world (an image
/// registry, an OCI layout, a file on a host) has named them already.
///
/// BLAKE3 digests are written as 64 hex digits, the others as `sha256:` and 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Digest {
    /// The name that vcbuild itself gives.
    Blake3([u8; 32]),
    /// The name that OCI (image-spec, "Descriptor digests") and hosts give.
    Sha256([u8; 32]),
}

impl Digest {
    /// Hashes `bytes` with BLAKE3.
    pub fn of(bytes: &[u8]) -> Self {
        Self::Blake3(*blake3::hash(bytes).as_bytes())
    }

    /// Hashes `bytes` with SHA-256.
    pub fn sha256_of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::sha256();
        hasher.update(bytes);
        hasher.finish()
    }

    /// The 32 bytes, without the algorithm.
    pub fn bytes(&self) -> &[u8; 32] {
        match self {
            Self::Blake3(bytes) | Self::Sha256(bytes) => bytes,
        }
    }

    /// 64 lower-case hex digits, without the algorithm.
    pub fn hex(&self) -> String {
        let mut text = String::with_capacity(64);
        for byte in self.bytes() {
            text.push(char::from(b"0123456789abcdef"[usize::from(byte >> 4)]));
            text.push(char::from(b"0123456789abcdef"[usize::from(byte & 15)]));
        }
        text
    }

    /// The first 12 hex digits, for people.
    pub fn short(&self) -> String {
        self.hex()[..12].to_string()
    }

    /// A hasher of the algorithm that made this digest.
    pub fn hasher(&self) -> Hasher {
        match self {
            Self::Blake3(_) => Hasher::blake3(),
            Self::Sha256(_) => Hasher::sha256(),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blake3(_) => f.write_str(&self.hex()),
            Self::Sha256(_) => write!(f, "sha256:{}", self.hex()),
        }
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (algorithm, hex): (fn([u8; 32]) -> Self, &str) = match text.strip_prefix("sha256:") {
            Some(hex) => (Self::Sha256, hex),
            None => (Self::Blake3, text),
        };
        let wrong = || format!("`{text}` is not a digest");
        if hex.len() != 64 {
            return Err(wrong());
        }
        let nibble = |c: u8| match c {
            b'0'..=b'9' => Ok(c - b'0'),
            b'a'..=b'f' => Ok(c - b'a' + 10),
            _ => Err(wrong()),
        };
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Ok(algorithm(bytes))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Content by name, with its size in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Blob {
    /// The name of the content.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

impl Blob {
    /// Hashes `bytes` with BLAKE3.
    pub fn of(bytes: &[u8]) -> Self {
        Self { digest: Digest::of(bytes), size: bytes.len() as u64 }
    }
}

/// An incremental hash of either algorithm.
#[derive(Clone)]
pub enum Hasher {
    /// BLAKE3.
    Blake3(Box<blake3::Hasher>),
    /// SHA-256.
    Sha256(sha2::Sha256),
}

impl Hasher {
    /// An empty BLAKE3 hash.
    pub fn blake3() -> Self {
        Self::Blake3(Box::new(blake3::Hasher::new()))
    }

    /// An empty SHA-256 hash.
    pub fn sha256() -> Self {
        Self::Sha256(<sha2::Sha256 as sha2::Digest>::new())
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Blake3(hasher) => {
                hasher.update(bytes);
            }
            Self::Sha256(hasher) => sha2::Digest::update(hasher, bytes),
        }
    }

    /// The digest of all bytes so far.
    pub fn finish(self) -> Digest {
        match self {
            Self::Blake3(hasher) => Digest::Blake3(*hasher.finalize().as_bytes()),
            Self::Sha256(hasher) => Digest::Sha256(sha2::Digest::finalize(hasher).into()),
        }
    }
}

/// Hashes and counts what is written through it.
pub struct HashingWriter<W> {
    inner: W,
    hasher: Hasher,
    size: u64,
}

impl<W: Write> HashingWriter<W> {
    /// Passes everything on to `inner` and through `hasher`.
    pub fn new(inner: W, hasher: Hasher) -> Self {
        Self { inner, hasher, size: 0 }
    }

    /// As `new`, where so many bytes went into both already.
    pub fn after(inner: W, hasher: Hasher, size: u64) -> Self {
        Self { inner, hasher, size }
    }

    /// The inner writer, and what went into it.
    pub fn finish(self) -> (W, Blob) {
        (self.inner, Blob { digest: self.hasher.finish(), size: self.size })
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// The size of the pieces in which content is read: large enough for BLAKE3's widest vectors, small
/// enough to stay in the second-level cache between the read and the hash.
pub const PIECE: usize = 256 * 1024;

/// From this size on a file is read by a thread of its own.
const LARGE: u64 = 2 << 20;
/// Pieces that have been read and not yet worked on, at most.
const AHEAD: usize = 3;

/// Calls `visit` with the first `size` bytes of a file, piece by piece, and returns how many there were, or
/// why it cannot be read. Of a large file the next pieces are read while `visit` works; the first error of
/// `visit` ends it.
pub fn each_piece<E>(
    file: &File,
    size: u64,
    mut visit: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<io::Result<u64>, E> {
    if size < LARGE {
        let (mut buffer, mut done) = (vec![0; PIECE.min(usize::try_from(size).unwrap_or(PIECE))], 0);
        loop {
            match read_piece(file, &mut buffer, done, size) {
                Ok(0) => return Ok(Ok(done)),
                Ok(n) => {
                    visit(&buffer[..n])?;
                    done += n as u64;
                }
                Err(error) => return Ok(Err(error)),
            }
        }
    }
    std::thread::scope(|scope| {
        let (full, pieces) = channel();
        let (empty, buffers) = channel();
        for _ in 0..AHEAD {
            // The other end is there: it has not been given away yet.
            let _ = empty.send(vec![0; PIECE]);
        }
        scope.spawn(move || {
            let mut done = 0;
            for mut buffer in buffers {
                let n = read_piece(file, &mut buffer, done, size);
                done += n.as_ref().map_or(0, |n| *n as u64);
                let last = !matches!(n, Ok(1..));
                if full.send((buffer, n)).is_err() || last {
                    return;
                }
            }
        });
        let mut done = 0;
        for (buffer, n) in pieces {
            match n {
                Ok(0) => break,
                Ok(n) => {
                    visit(&buffer[..n])?;
                    done += n as u64;
                }
                Err(error) => return Ok(Err(error)),
            }
            // After its last piece the reader has gone, and needs no buffer.
            let _ = empty.send(buffer);
        }
        Ok(Ok(done))
    })
}

/// Reads what comes after `done` bytes of the first `size`; nothing at the end.
fn read_piece(file: &File, buffer: &mut [u8], done: u64, size: u64) -> io::Result<usize> {
    let most = buffer.len().min(usize::try_from(size - done).unwrap_or(usize::MAX));
    loop {
        match file.read_at(&mut buffer[..most], done) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

/// Hashes a file that is thought to be `size` bytes long. One that is longer is read one byte further, so
/// that the size in the result tells.
pub fn hash_file(file: &File, size: u64, mut hasher: Hasher) -> io::Result<Blob> {
    let Ok(size) = each_piece::<Infallible>(file, size.saturating_add(1), |piece| {
        hasher.update(piece);
        Ok(())
    });
    Ok(Blob { size: size?, digest: hasher.finish() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        for digest in [Digest::of(b"x"), Digest::sha256_of(b"x")] {
            assert_eq!(digest.to_string().parse(), Ok(digest));
        }
        assert_eq!(
            Digest::sha256_of(b"").to_string(),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }

    #[test]
    fn odd_text_is_refused() {
        for text in ["", "sha256:", "sha512:00", &"g".repeat(64), &"A".repeat(64), "../x"] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }

    fn file_of(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn writer_and_reader_agree() {
        for size in
            [0, 1, PIECE, 3 * PIECE + 5, LARGE as usize - 1, LARGE as usize, 9 * PIECE, 20 * PIECE + 7]
        {
            let bytes: Vec<u8> = (0..size).map(|at| (at / 1000) as u8).collect();
            let file = file_of(&bytes);
            for hasher in [Hasher::blake3(), Hasher::sha256()] {
                let mut writer = HashingWriter::new(Vec::new(), hasher.clone());
                writer.write_all(&bytes).unwrap();
                let (copy, written) = writer.finish();
                assert_eq!(copy, bytes);
                assert_eq!(hash_file(&file, size as u64, hasher).unwrap(), written);
            }
        }
    }

    #[test]
    fn a_file_of_another_length_is_told() {
        for size in [5, LARGE + 5] {
            let file = file_of(&vec![1; size as usize]);
            for (thought, found) in [(size - 1, size), (size - 3, size - 2), (size + 9, size)] {
                assert_eq!(hash_file(&file, thought, Hasher::blake3()).unwrap().size, found);
            }
        }
    }

    #[test]
    fn whoever_looks_at_pieces_can_stop() {
        for size in [PIECE as u64, 30 * LARGE] {
            let file = file_of(&vec![1; size as usize]);
            let stop = each_piece(&file, size, |_| Err("enough"));
            assert_eq!(stop.unwrap_err(), "enough");
        }
    }
}
