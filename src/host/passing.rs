//! Sinks on the way to and from a host: what passes is named, written, counted. Knows no host.

use std::io::Write;
use std::path::Path;

use crate::digest::{Blob, Hasher};
use crate::error::{At, Result};
use crate::host::node::Watch;
use crate::recipe::Sink;

/// Names what comes.
pub struct Hash {
    hasher: Hasher,
    size: u64,
}

impl Hash {
    /// By SHA-256.
    pub fn sha256() -> Self {
        Self { hasher: Hasher::sha256(), size: 0 }
    }

    /// What came.
    pub fn finish(self) -> Blob {
        Blob { digest: self.hasher.finish(), size: self.size }
    }
}

impl Sink for Hash {
    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }
}

/// Writes and names what arrives.
pub struct Arrival<'a> {
    /// Where it goes.
    pub file: &'a std::fs::File,
    /// Its name.
    pub hash: Hash,
    /// What people call the file.
    pub shown: &'a Path,
    /// Whoever watches.
    pub watch: &'a dyn Watch,
}

impl Sink for Arrival<'_> {
    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.watch.check()?;
        self.file.write_all(bytes).at("write", self.shown)?;
        self.watch.moved(bytes.len() as u64);
        self.hash.bytes(bytes)
    }
}

/// Counts what leaves.
pub struct Departure<'a> {
    /// Where it goes.
    pub sink: &'a mut dyn Sink,
    /// Whoever watches.
    pub watch: &'a dyn Watch,
}

impl Sink for Departure<'_> {
    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.sink.bytes(bytes)?;
        self.watch.moved(bytes.len() as u64);
        Ok(())
    }
}
