//! A file as a list of inline bytes and references to content: layers and archives exist as recipes
//! and are only ever streamed. Knows no cache: content comes from whoever implements `Content`.

use std::fs::File;

use crate::digest::{Blob, Digest, Hasher, each_piece};
use crate::error::{Error, Result};

/// One stretch of a recipe's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Bytes as they are.
    Inline(Vec<u8>),
    /// The content of a blob.
    Blob(Blob),
    /// The content of another recipe: the blob holds that recipe's canonical bytes, `size` is the
    /// length in bytes of what it makes.
    Recipe {
        /// The inner recipe's canonical bytes.
        recipe: Blob,
        /// The length in bytes of the inner recipe's content.
        size: u64,
    },
}

impl Part {
    /// The length in bytes of the part's content.
    pub fn size(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Blob(blob) => blob.size,
            Self::Recipe { size, .. } => *size,
        }
    }
}

/// A file as a list of parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recipe {
    parts: Vec<Part>,
    size: u64,
}

/// Canonical bytes begin with this; the number is the version of the encoding.
const MAGIC: &[u8] = b"vcbuild recipe 1\n";

impl Recipe {
    /// An empty file.
    pub fn new() -> Self {
        Self::default()
    }

    /// The length in bytes of the content.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The parts in order; no two inline parts are adjacent and none is empty.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Adds bytes at the end.
    pub fn inline(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        match self.parts.last_mut() {
            _ if bytes.is_empty() => {}
            Some(Part::Inline(last)) => last.extend_from_slice(bytes),
            _ => self.parts.push(Part::Inline(bytes.to_vec())),
        }
    }

    /// Adds a blob's content at the end.
    pub fn blob(&mut self, blob: Blob) {
        if blob.size > 0 {
            self.size += blob.size;
            self.parts.push(Part::Blob(blob));
        }
    }

    /// Adds another recipe's content at the end.
    pub fn recipe(&mut self, recipe: Blob, size: u64) {
        if size > 0 {
            self.size += size;
            self.parts.push(Part::Recipe { recipe, size });
        }
    }

    /// Adds any part at the end.
    pub fn push(&mut self, part: &Part) {
        match part {
            Part::Inline(bytes) => self.inline(bytes),
            Part::Blob(blob) => self.blob(*blob),
            Part::Recipe { recipe, size } => self.recipe(*recipe, *size),
        }
    }

    /// The canonical bytes, by which a recipe is identified.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        for part in &self.parts {
            match part {
                Part::Inline(bytes) => {
                    out.push(0);
                    out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
                    out.extend_from_slice(bytes);
                }
                Part::Blob(blob) => {
                    encode_digest(&mut out, 1, &blob.digest);
                    out.extend_from_slice(&blob.size.to_le_bytes());
                }
                Part::Recipe { recipe, size } => {
                    encode_digest(&mut out, 3, &recipe.digest);
                    out.extend_from_slice(&recipe.size.to_le_bytes());
                    out.extend_from_slice(&size.to_le_bytes());
                }
            }
        }
        out
    }

    /// Reads canonical bytes; `None` if they are not.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(MAGIC)?;
        let mut recipe = Self::new();
        while let Some((&tag, after)) = rest.split_first() {
            rest = after;
            match tag {
                0 => {
                    let length = usize::try_from(take_u64(&mut rest)?).ok()?;
                    recipe.inline(rest.get(..length)?);
                    rest = &rest[length..];
                }
                1 | 2 => {
                    let digest = take_digest(&mut rest, tag == 2)?;
                    recipe.blob(Blob { digest, size: take_u64(&mut rest)? });
                }
                3 | 4 => {
                    let digest = take_digest(&mut rest, tag == 4)?;
                    let blob = Blob { digest, size: take_u64(&mut rest)? };
                    recipe.recipe(blob, take_u64(&mut rest)?);
                }
                _ => return None,
            }
        }
        Some(recipe)
    }

    /// Streams the content into `sink`, in order.
    pub fn send(&self, content: &dyn Content, sink: &mut dyn Sink) -> Result<()> {
        for part in &self.parts {
            match part {
                Part::Inline(bytes) => sink.bytes(bytes)?,
                Part::Blob(blob) => content.send(*blob, sink)?,
                Part::Recipe { recipe, size } => {
                    let inner = content.recipe(*recipe)?;
                    if inner.size() != *size {
                        return Err(Error::Lost(recipe.digest));
                    }
                    inner.send(content, sink)?;
                }
            }
        }
        Ok(())
    }

    /// Streams the content once and names it; `hasher` chooses the algorithm.
    pub fn digest(&self, content: &dyn Content, hasher: Hasher) -> Result<Digest> {
        let mut sink = HashSink(hasher);
        self.send(content, &mut sink)?;
        Ok(sink.0.finish())
    }
}

fn encode_digest(out: &mut Vec<u8>, tag: u8, digest: &Digest) {
    out.push(match digest {
        Digest::Blake3(_) => tag,
        Digest::Sha256(_) => tag + 1,
    });
    out.extend_from_slice(digest.bytes());
}

fn take_u64(rest: &mut &[u8]) -> Option<u64> {
    let (number, after) = rest.split_first_chunk::<8>()?;
    *rest = after;
    Some(u64::from_le_bytes(*number))
}

fn take_digest(rest: &mut &[u8], sha256: bool) -> Option<Digest> {
    let (bytes, after) = rest.split_first_chunk::<32>()?;
    *rest = after;
    Some(if sha256 { Digest::Sha256(*bytes) } else { Digest::Blake3(*bytes) })
}

/// Where content comes from.
pub trait Content: Sync {
    /// Streams a blob into `sink` and verifies it. When this fails with `Lost`, what the sink got is
    /// wrong or incomplete and must be thrown away.
    fn send(&self, blob: Blob, sink: &mut dyn Sink) -> Result<()>;

    /// Reads a small blob whole, verified.
    fn read(&self, blob: Blob) -> Result<Vec<u8>> {
        let mut sink = Vec::with_capacity(usize::try_from(blob.size).unwrap_or(0).min(1 << 20));
        self.send(blob, &mut sink)?;
        Ok(sink)
    }

    /// Reads a recipe.
    fn recipe(&self, blob: Blob) -> Result<Recipe> {
        Recipe::decode(&self.read(blob)?).ok_or(Error::Lost(blob.digest))
    }
}

/// Where streamed content goes.
pub trait Sink {
    /// Takes the next bytes.
    fn bytes(&mut self, bytes: &[u8]) -> Result<()>;

    /// Takes the next `size` bytes from the start of `file`. A sink that can have the kernel copy
    /// does; the others read.
    fn file(&mut self, file: &File, size: u64) -> Result<()> {
        match each_piece(file, size, |piece| self.bytes(piece))? {
            Ok(read) if read == size => Ok(()),
            Ok(_) => Err(Error::failed("a file became shorter while it was read")),
            Err(error) => Err(Error::failed(crate::error::io_words(&error))),
        }
    }
}

impl Sink for Vec<u8> {
    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.extend_from_slice(bytes);
        Ok(())
    }
}

/// No content at all: for what names no blob.
pub struct Nothing;

impl Content for Nothing {
    fn send(&self, blob: Blob, _: &mut dyn Sink) -> Result<()> {
        Err(Error::Lost(blob.digest))
    }
}

/// Lets so many bytes pass on: what is longer than it should be ends at the first byte too many.
pub struct AtMost<'a> {
    sink: &'a mut dyn Sink,
    /// How many may still come.
    pub left: u64,
    longer: &'a dyn Fn() -> Error,
}

impl<'a> AtMost<'a> {
    /// `left` bytes for `sink`; `longer` says what is wrong with more.
    pub fn new(sink: &'a mut dyn Sink, left: u64, longer: &'a dyn Fn() -> Error) -> Self {
        Self { sink, left, longer }
    }
}

impl Sink for AtMost<'_> {
    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or_else(self.longer)?;
        self.sink.bytes(bytes)
    }
}

/// A sink that only hashes.
pub struct HashSink(
    /// The hash of what came so far.
    pub Hasher,
);

impl Sink for HashSink {
    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.update(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    struct Memory(BTreeMap<Digest, Vec<u8>>);

    impl Content for Memory {
        fn send(&self, blob: Blob, sink: &mut dyn Sink) -> Result<()> {
            match self.0.get(&blob.digest) {
                Some(bytes) => sink.bytes(bytes),
                None => Err(Error::Lost(blob.digest)),
            }
        }
    }

    fn recipes() -> impl Strategy<Value = Vec<Result<Vec<u8>, Vec<u8>>>> {
        let bytes = prop::collection::vec(any::<u8>(), 0..20);
        prop::collection::vec(prop_oneof![bytes.clone().prop_map(Ok), bytes.prop_map(Err)], 0..8)
    }

    proptest! {
        #[test]
        fn encoding_and_streaming_keep_everything(parts in recipes()) {
            let (mut recipe, mut memory, mut expected) = (Recipe::new(), BTreeMap::new(), vec![]);
            for part in parts {
                match part {
                    Ok(inline) => {
                        recipe.inline(&inline);
                        expected.extend(inline);
                    }
                    Err(stored) => {
                        recipe.blob(Blob::of(&stored));
                        expected.extend(&stored);
                        memory.insert(Digest::of(&stored), stored);
                    }
                }
            }
            let encoded = recipe.encode();
            let decoded = Recipe::decode(&encoded);
            prop_assert_eq!(decoded.as_ref(), Some(&recipe));
            prop_assert_eq!(recipe.size(), expected.len() as u64);
            let inner = Blob::of(&encoded);
            memory.insert(inner.digest, encoded);
            let mut outer = Recipe::new();
            outer.recipe(inner, recipe.size());
            let mut out = Vec::new();
            outer.send(&Memory(memory), &mut out).unwrap();
            prop_assert_eq!(out, expected);
        }

        #[test]
        fn decoding_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut all = MAGIC.to_vec();
            all.extend(bytes);
            let _ = Recipe::decode(&all);
        }
    }
}
