//! The files of a base, by the headers of its layers: which folders, links and files there are. Each
//! layer is read once, and what was in it is remembered. Knows nothing of what is put on it.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use rayon::prelude::*;

use super::base;
use crate::cache::Cache;
use crate::cache::cas::Cas;
use crate::cache::draft::Draft;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::oci::descriptor::Packing;
use crate::oci::image::{Image, Layer};
use crate::oci::listing::{Item, Plain, Source, list, skeleton};
use crate::oci::stack::Stack;
use crate::recipe::{Content, Part};
use crate::work::Context;

/// The files of a base whose content is kept: users and groups.
const KEPT: [&[u8]; 2] = [b"etc/passwd", b"etc/group"];

/// Layers of a base from which more comes out than this are not read.
const LARGEST_LAYER: u64 = 1 << 40;

/// All that a base has. Layers that are not here yet are fetched if their headers are not remembered.
pub fn stack(image: &Image, (what, how): base::Parts<'_>, context: &Context<'_>) -> Result<Stack> {
    let missing: Vec<Digest> = image
        .layers()
        .iter()
        .filter(|layer| remembered(context.cache, layer).is_none())
        .filter_map(|layer| match &layer.part {
            Part::Blob(blob) if !context.cache.cas.has(blob) => Some(blob.digest),
            _ => None,
        })
        .collect();
    base::fetch(what, how, &missing, context)?;
    context.stop.check()?;
    let cache = context.cache;
    let all: Vec<Vec<Item>> =
        image.layers().par_iter().map(|layer| items(cache, layer)).collect::<Result<_>>()?;
    let mut stack = Stack::default();
    all.into_iter().try_for_each(|items| stack.put_layer(items))?;
    Ok(stack)
}

/// What a layer holds.
fn items(cache: &Cache, layer: &Layer) -> Result<Vec<Item>> {
    if let Some(items) = remembered(cache, layer) {
        return Ok(items);
    }
    let (mut items, lost) = (Vec::new(), Cell::new(None));
    let left = VecDeque::from([layer.part.clone()]);
    let parts = Parts { cas: &cache.cas, left, now: Now::Bytes(Vec::new(), 0), lost: &lost };
    let result = match Packing::of(&layer.descriptor.media_type)? {
        Packing::Plain => read(parts, &mut items),
        Packing::Gzip => {
            let packed = std::io::BufReader::with_capacity(1 << 17, parts);
            let plain = flate2::bufread::MultiGzDecoder::new(packed);
            read(Plain(plain.take(LARGEST_LAYER)), &mut items)
        }
        Packing::Zstd => match zstd::Decoder::new(parts) {
            Ok(plain) => read(Plain(plain.take(LARGEST_LAYER)), &mut items),
            Err(error) => Err(wrong(&error)),
        },
    };
    if let Some(digest) = lost.get() {
        return Err(Error::Lost(digest));
    }
    result.map_err(|error| error.context(format!("`{}`", layer.descriptor.digest)))?;
    remember(cache, layer, &items)?;
    Ok(items)
}

fn read(mut source: impl Source, items: &mut Vec<Item>) -> Result<()> {
    list(&mut source, &|path| KEPT.contains(&path), &mut |item| {
        items.push(item);
        Ok(())
    })
}

fn wrong(error: &std::io::Error) -> Error {
    Error::failed(crate::error::io_words(error))
}

/// What the headers of a layer are remembered by.
fn preimage(layer: &Layer) -> serde_json::Value {
    serde_json::json!({ "headers": layer.diff_id, "kept": "passwd, group" })
}

/// The name of the file that holds the headers.
const NAME: &str = "headers.tar.zst";

fn remembered(cache: &Cache, layer: &Layer) -> Option<Vec<Item>> {
    let value = cache.known(&preimage(layer))?;
    let entry = cache.cas.entry(&value, NAME).ok()??;
    let Some(Part::Blob(blob)) = entry.part() else { return None };
    let bytes = cache.cas.read(blob).ok()?;
    let mut items = Vec::new();
    read(Plain(zstd::Decoder::new(&bytes[..]).ok()?), &mut items).ok()?;
    Some(items)
}

fn remember(cache: &Cache, layer: &Layer, items: &[Item]) -> Result<()> {
    let mut bytes = Vec::new();
    skeleton(items.iter().cloned()).send(&cache.cas, &mut bytes)?;
    let packed = zstd::bulk::compress(&bytes, 1).map_err(|error| wrong(&error))?;
    let mut draft = Draft::empty(&cache.cas);
    draft.put_file(NAME.as_bytes(), 0o644, &packed)?;
    cache.remember(preimage(layer), draft.store()?)
}

/// The content of parts, as it is read; what is passed over is not.
struct Parts<'a> {
    cas: &'a Cas,
    left: VecDeque<Part>,
    now: Now,
    /// What the cache turned out not to have: an error of input cannot say it.
    lost: &'a Cell<Option<Digest>>,
}

/// The part that is being read.
enum Now {
    /// Bytes, and how many of them were read.
    Bytes(Vec<u8>, usize),
    /// A file, and how much of it is left.
    File(File, u64),
}

impl Parts<'_> {
    /// Notes what is lost.
    fn noted<T>(&self, result: Result<T>) -> std::io::Result<T> {
        result.map_err(|error| {
            if let Error::Lost(digest) = error {
                self.lost.set(Some(digest));
            }
            std::io::Error::other(error.to_string())
        })
    }

    /// Goes on to the next part; false if there is none.
    fn next(&mut self) -> std::io::Result<bool> {
        match self.left.pop_front() {
            None => return Ok(false),
            Some(Part::Inline(bytes)) => self.now = Now::Bytes(bytes, 0),
            Some(Part::Blob(blob)) => {
                self.now = Now::File(self.noted(self.cas.open(&blob))?, blob.size);
            }
            Some(Part::Recipe { recipe, .. }) => {
                let inner = self.noted(self.cas.recipe(recipe))?;
                inner.parts().iter().rev().for_each(|part| self.left.push_front(part.clone()));
            }
        }
        Ok(true)
    }
}

impl Read for Parts<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            match &mut self.now {
                Now::Bytes(bytes, read) if *read < bytes.len() => {
                    let count = buffer.len().min(bytes.len() - *read);
                    buffer[..count].copy_from_slice(&bytes[*read..*read + count]);
                    *read += count;
                    return Ok(count);
                }
                Now::File(file, left) if *left > 0 => {
                    let count = file.take(*left).read(buffer)?;
                    *left -= count as u64;
                    return if count == 0 {
                        Err(std::io::ErrorKind::UnexpectedEof.into())
                    } else {
                        Ok(count)
                    };
                }
                _ => {
                    if !self.next()? {
                        return Ok(0);
                    }
                }
            }
        }
    }
}

impl Source for Parts<'_> {
    fn pass(&mut self, mut count: u64) -> std::io::Result<()> {
        while count > 0 {
            let step = match &mut self.now {
                Now::Bytes(bytes, read) => {
                    let step = count.min((bytes.len() - *read) as u64);
                    *read += step as usize;
                    step
                }
                Now::File(file, left) => {
                    let step = count.min(*left);
                    file.seek(SeekFrom::Current(step.cast_signed()))?;
                    *left -= step;
                    step
                }
            };
            count -= step;
            // A part that is passed over whole is not even opened.
            while count > 0
                && let Some(size) = self.left.front().map(Part::size).filter(|size| *size <= count)
            {
                self.left.pop_front();
                count -= size;
            }
            if count > 0 && !self.next()? {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }
}
