//! What is in an image's layers, remembered in the cache by their digests: a layer is read for it once.
//! Knows no kind.

use std::io::{BufReader, Read, Write};

use crate::cache::Cache;
use crate::cache::draft::Draft;
use crate::cache::tree::Entry;
use crate::digest::{Digest, Hasher};
use crate::error::{At, Error, Result};
use crate::oci::contents::{self, Item, Kind};
use crate::oci::image::{Image, Layer};
use crate::oci::root::Root;

/// The version of the remembered form.
const FORM: u32 = 1;
/// An image with more paths than this is not merged into one tree.
const MOST_PATHS: usize = 1_000_000;

/// Calls `see` with the entries of a layer in their order. The layer is read if nobody has yet: fails
/// with `Lost` if it is not there.
pub fn each(cache: &Cache, layer: &Layer, see: &mut dyn FnMut(&Item) -> Result<()>) -> Result<()> {
    let preimage = serde_json::json!({ "listing": layer.descriptor.digest, "form": FORM });
    if let Some(value) = cache.known(&preimage)
        && let Some(known) = remembered(cache, &value)?
    {
        return decode(known, see);
    }
    let blob = cache.cas.put_with(Hasher::blake3(), |out| {
        let mut form = Form { out, before: Vec::new() };
        contents::read(layer, &cache.cas, &mut |item: &Item| form.write(item))
    })?;
    let mut draft = Draft::empty(&cache.cas);
    draft.insert(b"listing", Entry::File { mode: 0o644, blob })?;
    let value = draft.store()?;
    cache.remember(preimage, value)?;
    match remembered(cache, &value)? {
        Some(known) => decode(known, see),
        None => Err(Error::Lost(value)),
    }
}

/// The tree that the layers of an image make.
pub fn root(cache: &Cache, image: &Image) -> Result<Root> {
    let mut root = Root::new();
    for layer in image.layers() {
        each(cache, layer, &mut |item| {
            root.add(item);
            match root.len() > MOST_PATHS {
                true => Err(Error::failed(format!("the image has more than {MOST_PATHS} paths"))),
                false => Ok(()),
            }
        })?;
        root.next_layer();
    }
    Ok(root)
}

/// A remembered listing, if the cache still has it.
fn remembered(cache: &Cache, value: &Digest) -> Result<Option<std::fs::File>> {
    let open = || match cache.cas.entry(value, "listing")? {
        Some(Entry::File { blob, .. }) => cache.cas.open(&blob),
        _ => Err(Error::Lost(*value)),
    };
    match open() {
        Ok(file) => Ok(Some(file)),
        Err(Error::Lost(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes entries: each as its tag, its numbers, how much of its path it shares with the one before,
/// the rest of the path, and the target of a link.
struct Form<'a> {
    out: &'a mut dyn Write,
    before: Vec<u8>,
}

impl Form<'_> {
    fn write(&mut self, item: &Item) -> Result<()> {
        let (tag, target): (u8, &[u8]) = match &item.kind {
            Kind::File => (0, b""),
            Kind::Folder => (1, b""),
            Kind::Link(target) => (2, target),
            Kind::Same(target) => (3, target),
            Kind::Special => (4, b""),
            Kind::Removed => (5, b""),
            Kind::Emptied => (6, b""),
        };
        let shared = self.before.iter().zip(&item.path).take_while(|(a, b)| a == b).count();
        let rest = &item.path[shared..];
        let mut bytes = vec![tag];
        for number in [u64::from(item.mode), item.uid, item.gid, item.size, shared as u64] {
            put_number(&mut bytes, number);
        }
        for text in [rest, target] {
            put_number(&mut bytes, text.len() as u64);
            bytes.extend_from_slice(text);
        }
        self.before.clone_from(&item.path);
        self.out.write_all(&bytes).at("write to", std::path::Path::new("the cache"))
    }
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Reads what [`Form`] wrote.
fn decode(file: std::fs::File, see: &mut dyn FnMut(&Item) -> Result<()>) -> Result<()> {
    let mut bytes = BufReader::with_capacity(64 * 1024, file);
    let mut path = Vec::new();
    loop {
        let mut tag = [0];
        match bytes.read(&mut tag) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(unreadable(&error)),
        }
        let mut number = || read_number(&mut bytes).map_err(|error| unreadable(&error));
        let (mode, uid, gid, size, shared) = (number()?, number()?, number()?, number()?, number()?);
        path.truncate(shared as usize);
        path.extend(read_text(&mut bytes).map_err(|error| unreadable(&error))?);
        let target = read_text(&mut bytes).map_err(|error| unreadable(&error))?;
        let kind = match tag[0] {
            0 => Kind::File,
            1 => Kind::Folder,
            2 => Kind::Link(target),
            3 => Kind::Same(target),
            4 => Kind::Special,
            5 => Kind::Removed,
            _ => Kind::Emptied,
        };
        see(&Item { path: path.clone(), kind, mode: mode as u32, uid, gid, size })?;
    }
}

fn unreadable(error: &std::io::Error) -> Error {
    Error::failed(format!("read a listing in the cache: {}", crate::error::io_words(error)))
}

fn read_number(bytes: &mut dyn Read) -> std::io::Result<u64> {
    let (mut number, mut shift) = (0, 0);
    loop {
        let mut byte = [0];
        bytes.read_exact(&mut byte)?;
        number |= u64::from(byte[0] & 0x7f) << shift;
        if byte[0] < 0x80 || shift >= 63 {
            return Ok(number);
        }
        shift += 7;
    }
}

fn read_text(bytes: &mut dyn Read) -> std::io::Result<Vec<u8>> {
    let length = read_number(bytes)?;
    let mut text = Vec::new();
    bytes.take(length).read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::descriptor::{Descriptor, LAYER};
    use crate::oci::layer::{self, Attributes};
    use crate::recipe::Part;

    fn layer(cache: &Cache) -> Layer {
        let entry = |path: &str, kind| layer::Entry {
            path: path.into(),
            kind,
            attributes: Attributes { mode: 0o2750, uid: 1 << 31, gid: 300, mtime: 0 },
            xattrs: Default::default(),
        };
        let content = Part::Blob(cache.cas.put(&[7; 3000]).unwrap());
        let entries = [
            entry("usr/bin/tool", layer::Kind::File(content)),
            entry("usr/bin/to", layer::Kind::Link("tool".into())),
            entry("usr/b", layer::Kind::Folder),
        ];
        let recipe = layer::pack(&entries, Attributes { mode: 0o755, ..Attributes::default() }).unwrap();
        let part = cache.cas.put_recipe(&recipe).unwrap();
        let diff_id = cache.content_digest(&part, Hasher::sha256()).unwrap();
        let descriptor = Descriptor { digest: diff_id, size: part.size(), ..Descriptor::of(LAYER, b"") };
        Layer { descriptor, diff_id, part }
    }

    #[test]
    fn a_layer_is_read_once() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path()).unwrap();
        let layer = layer(&cache);
        let all = || {
            let mut all = Vec::new();
            each(&cache, &layer, &mut |item| {
                all.push(item.clone());
                Ok(())
            })
            .map(|()| all)
        };
        let mut direct = Vec::new();
        contents::read(&layer, &cache.cas, &mut |item: &Item| {
            direct.push(item.clone());
            Ok(())
        })
        .unwrap();
        assert_eq!(all().unwrap(), direct);
        assert_eq!(direct.len(), 5);
        let Part::Recipe { recipe, .. } = &layer.part else { panic!() };
        crate::host::fs::remove_file(&cache.cas.path(&recipe.digest)).unwrap();
        assert_eq!(all().unwrap(), direct);
        // Without the layer and without what is remembered there is nothing to read.
        crate::host::fs::remove_tree(&folder.path().join("v1/cas")).unwrap();
        assert!(matches!(all(), Err(Error::Lost(digest)) if digest == recipe.digest));
    }
}
