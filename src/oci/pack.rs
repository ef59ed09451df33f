//! Packs a layer with gzip or zstd: blocks of one size, each a gzip member or zstd frame of its own, on
//! all cores. The bytes are the same whatever the number of threads; memory does not grow with the
//! layer. Knows no image.

use std::io::{self, Write};

use rayon::prelude::*;

use crate::error::{Error, Result, io_words};
use crate::oci::descriptor::{Descriptor, Packing};
use crate::oci::document::{CONFIG, Manifest};
use crate::oci::image::{Image, Layer};
use crate::recipe::Sink;

/// What is packed on its own, in bytes: large enough that little is lost between blocks.
const BLOCK: usize = 1 << 20;
/// Blocks that are worked on at once, at most.
const MOST_AT_ONCE: usize = 12;
/// libdeflate's version: with another one the bytes may be others.
const LIBDEFLATE: &str = "1.26.1";

/// How layers are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packer {
    /// By libdeflate, which every reader takes.
    Gzip,
    /// By zstd: smaller and faster, for readers since about 2021.
    Zstd,
}

impl Packer {
    /// What it makes.
    pub fn packing(self) -> Packing {
        match self {
            Self::Gzip => Packing::Gzip,
            Self::Zstd => Packing::Zstd,
        }
    }

    /// Everything that decides its bytes.
    pub fn name(self) -> String {
        match self {
            Self::Gzip => format!("libdeflate {LIBDEFLATE} level {} block {BLOCK}", self.level()),
            Self::Zstd => {
                let version = zstd::zstd_safe::version_string();
                format!("zstd {version} level {} block {BLOCK}", self.level())
            }
        }
    }

    fn level(self) -> i32 {
        match self {
            Self::Gzip => 6,
            Self::Zstd => 3,
        }
    }

    fn pack(self, block: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip => {
                let level = libdeflater::CompressionLvl::new(self.level());
                let mut compressor = libdeflater::Compressor::new(level.map_err(|_| odd("its level"))?);
                let mut packed = vec![0; compressor.gzip_compress_bound(block.len())];
                let size = compressor.gzip_compress(block, &mut packed).map_err(|_| odd("its room"))?;
                packed.truncate(size);
                Ok(packed)
            }
            Self::Zstd => zstd::bulk::compress(block, self.level()),
        }
    }
}

fn odd(why: &str) -> io::Error {
    io::Error::other(format!("the compressor refuses {why}"))
}

/// The image with these layers, which have the same diffIDs, in a manifest of their own; an image whose
/// layers they are already keeps its manifest.
pub fn repacked(image: &Image, layers: Vec<Layer>) -> Result<Image> {
    let descriptors = layers.iter().map(|layer| layer.descriptor.clone()).collect::<Vec<_>>();
    let mut made = match descriptors == image.manifest().layers {
        true => image.clone(),
        false => {
            let config = Descriptor { platform: None, ..Descriptor::of(CONFIG, image.config_bytes()) };
            let manifest = Manifest::new(config, descriptors, image.manifest().annotations.clone());
            Image::new(None, manifest.encode(), image.config_bytes().to_vec())?
        }
    };
    let mut parts = layers.into_iter().map(|layer| layer.part);
    made.locate(|_| Ok(parts.next()))?;
    Ok(made)
}

/// A sink that packs what comes and writes it on.
pub struct Pack<'a> {
    packer: Packer,
    out: &'a mut dyn Write,
    blocks: Vec<Vec<u8>>,
    most: usize,
    wrote: bool,
}

impl<'a> Pack<'a> {
    /// Packs into `out`.
    pub fn new(packer: Packer, out: &'a mut dyn Write) -> Self {
        let most = (2 * rayon::current_num_threads()).min(MOST_AT_ONCE);
        Self { packer, out, blocks: Vec::new(), most, wrote: false }
    }

    /// Writes what is left.
    pub fn finish(mut self) -> Result<()> {
        if self.blocks.is_empty() && !self.wrote {
            self.blocks.push(Vec::new());
        }
        self.write()
    }

    fn write(&mut self) -> Result<()> {
        let packer = self.packer;
        let packed: Vec<io::Result<Vec<u8>>> =
            self.blocks.par_iter().map(|block| packer.pack(block)).collect();
        for block in packed {
            let written = block.and_then(|block| self.out.write_all(&block));
            written.map_err(|error| Error::failed(format!("pack a layer: {}", io_words(&error))))?;
            self.wrote = true;
        }
        self.blocks.clear();
        Ok(())
    }
}

impl Sink for Pack<'_> {
    fn bytes(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            if self.blocks.last().is_none_or(|block| block.len() == BLOCK) {
                if self.blocks.len() == self.most {
                    self.write()?;
                }
                self.blocks.push(Vec::with_capacity(BLOCK));
            }
            let Some(block) = self.blocks.last_mut() else { panic!("BUG: a block was just added") };
            let (now, after) = bytes.split_at(bytes.len().min(BLOCK - block.len()));
            block.extend_from_slice(now);
            bytes = after;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::oci::packed::Unpacker;

    /// Bytes that are packed to about a half.
    fn text(size: usize) -> Vec<u8> {
        let mut state = 1_u32;
        let next = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 28) as u8 + b'a'
        };
        (0..size).map(next).collect()
    }

    fn packed(packer: Packer, bytes: &[u8], threads: usize, piece: usize) -> Vec<u8> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut out = Vec::new();
            let mut pack = Pack::new(packer, &mut out);
            bytes.chunks(piece).for_each(|piece| pack.bytes(piece).unwrap());
            pack.finish().unwrap();
            out
        })
    }

    #[test]
    fn threads_and_pieces_do_not_count() {
        for packer in [Packer::Gzip, Packer::Zstd] {
            for size in [0, 1, BLOCK, BLOCK + 1, 15 * BLOCK + 77] {
                let bytes = text(size);
                let first = packed(packer, &bytes, 1, 1 << 16);
                assert!(first.len() < size * 2 / 3 + 64, "{size}");
                for (threads, piece) in [(2, 100_003), (7, usize::MAX)] {
                    assert!(packed(packer, &bytes, threads, piece) == first, "{packer:?} {size} {threads}");
                }
                let mut unpacker = Unpacker::new(Vec::new(), first.len() as u64);
                unpacker.bytes(&first).unwrap();
                assert!(unpacker.finish().unwrap().0 == bytes, "{packer:?} {size}");
            }
        }
    }

    #[test]
    fn golden() {
        let bytes = text(BLOCK + 1000);
        for (packer, name, digest) in [
            (
                Packer::Gzip,
                "libdeflate 1.26.1 level 6 block 1048576",
                "414ee6ecaebc266270edb8e66e06081efa6a96ea9a2ef9853cc5349e683af3b3",
            ),
            (
                Packer::Zstd,
                "zstd 1.5.7 level 3 block 1048576",
                "53e859fc3f30720f407bb52bc0c1a4c8e4673a0ecfb3907460dfb934b88bb727",
            ),
        ] {
            assert_eq!(packer.name(), name);
            assert_eq!(Digest::sha256_of(&packed(packer, &bytes, 2, 4096)).hex(), digest, "{name}");
        }
    }

    #[test]
    fn the_version_that_is_said_is_the_one_that_is_built_in() {
        let lock = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock")).unwrap();
        let line = format!("name = \"libdeflate-sys\"\nversion = \"{LIBDEFLATE}\"");
        assert!(lock.contains(&line), "{line}");
    }
}
