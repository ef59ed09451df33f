//! What is in an image's layers, remembered in the cache by their digests: a layer is read for it once.
//! Knows no kind.

use std::io::{BufReader, Read, Write};

use rayon::prelude::*;

use crate::cache::Cache;
use crate::cache::draft::Draft;
use crate::cache::tree::Entry;
use crate::digest::{Digest, Hasher};
use crate::error::{At, Error, Result};
use crate::oci::contents::{self, Item, Kind, Reader};
use crate::oci::image::{Image, Layer};
use crate::oci::layer::{Attributes, Xattrs};
use crate::oci::root::Root;
use crate::oci::stack::Stack;

/// The version of the remembered form.
const FORM: u32 = 2;
/// An image with more paths than this is not merged into one tree ...
const MOST_PATHS: usize = 1_000_000;
/// ... nor one whose names and attributes have more bytes.
const MOST_BYTES: usize = 256 << 20;
/// Files that are remembered with their content: users and groups ...
const KEPT: [&[u8]; 2] = [b"etc/passwd", b"etc/group"];
/// ... unless they have more bytes.
const LONGEST_KEPT: usize = 8 << 20;

/// Calls `see` with the entries of a layer in their order; users and groups come with their content. The
/// layer is read if nobody has yet: fails with `Lost` if it is not there.
pub fn each(cache: &Cache, layer: &Layer, see: &mut dyn FnMut(&Item) -> Result<()>) -> Result<()> {
    decode(listing(cache, layer)?, see)
}

/// Whether a layer need not be read to say what is in it.
pub fn is_known(cache: &Cache, layer: &Layer) -> Result<bool> {
    known(cache, layer).map(|listing| listing.is_some())
}

/// The tree that the layers of an image make.
pub fn root(cache: &Cache, image: &Image) -> Result<Root> {
    let mut root = Root::new();
    for layer in image.layers() {
        each(cache, layer, &mut |item| {
            root.add(item);
            fits(root.len(), root.bytes())
        })?;
        root.next_layer();
    }
    Ok(root)
}

/// The same to put more layers on.
pub fn stack(cache: &Cache, image: &Image) -> Result<Stack> {
    image.layers().par_iter().try_for_each(|layer| listing(cache, layer).map(drop))?;
    let mut stack = Stack::default();
    for layer in image.layers() {
        let fits = |stack: &Stack| fits(stack.len(), stack.bytes());
        stack.put_layer(&|see| each(cache, layer, see), &fits)?;
    }
    Ok(stack)
}

fn fits(paths: usize, bytes: usize) -> Result<()> {
    let (most, what) = match () {
        () if paths > MOST_PATHS => (MOST_PATHS, "paths"),
        () if bytes > MOST_BYTES => (MOST_BYTES, "bytes of names and attributes"),
        () => return Ok(()),
    };
    Err(Error::failed(format!("the image has more than {most} {what}")))
}

fn preimage(layer: &Layer) -> serde_json::Value {
    serde_json::json!({ "listing": layer.descriptor.digest, "form": FORM })
}

fn known(cache: &Cache, layer: &Layer) -> Result<Option<std::fs::File>> {
    cache.known(&preimage(layer)).map_or(Ok(None), |value| remembered(cache, &value))
}

/// What is remembered of a layer, after it was read if need be.
fn listing(cache: &Cache, layer: &Layer) -> Result<std::fs::File> {
    if let Some(listing) = known(cache, layer)? {
        return Ok(listing);
    }
    let blob = cache.cas.put_with(Hasher::blake3(), |out| {
        let mut form = Form { out, before: Vec::new(), waits: None };
        contents::read(layer, &cache.cas, &mut form)?;
        form.flush()
    })?;
    let mut draft = Draft::empty(&cache.cas);
    draft.insert(b"listing", Entry::File { mode: 0o644, blob })?;
    let value = draft.store()?;
    cache.remember(preimage(layer), value)?;
    remembered(cache, &value)?.ok_or(Error::Lost(value))
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
/// the rest of the path, the target of a link or the content of a file, and its attributes.
struct Form<'a> {
    out: &'a mut dyn Write,
    before: Vec<u8>,
    /// An entry whose content may still come.
    waits: Option<Item>,
}

/// The tag of a file with its content.
const WITH_CONTENT: u8 = 7;

impl Form<'_> {
    fn write(&mut self, item: &Item) -> Result<()> {
        let (tag, text): (u8, &[u8]) = match (&item.kind, &item.kept) {
            (Kind::File, Some(content)) => (WITH_CONTENT, content),
            (Kind::File, None) => (0, b""),
            (Kind::Folder, _) => (1, b""),
            (Kind::Link(target), _) => (2, target),
            (Kind::Same(target), _) => (3, target),
            (Kind::Special, _) => (4, b""),
            (Kind::Removed, _) => (5, b""),
            (Kind::Emptied, _) => (6, b""),
        };
        let shared = self.before.iter().zip(&item.path).take_while(|(a, b)| a == b).count();
        let rest = &item.path[shared..];
        let mut bytes = vec![tag];
        let Attributes { mode, uid, gid, mtime } = item.attributes;
        for number in [u64::from(mode), uid, gid, mtime, item.size, item.xattrs.len() as u64, shared as u64]
        {
            put_number(&mut bytes, number);
        }
        let xattrs = item.xattrs.iter().flat_map(|(name, value)| [&name[..], &value[..]]);
        for text in [rest, text].into_iter().chain(xattrs) {
            put_number(&mut bytes, text.len() as u64);
            bytes.extend_from_slice(text);
        }
        self.before.clone_from(&item.path);
        self.out.write_all(&bytes).at("write to", std::path::Path::new("the cache"))
    }

    fn flush(&mut self) -> Result<()> {
        self.waits.take().map_or(Ok(()), |item| self.write(&item))
    }
}

impl Reader for Form<'_> {
    fn item(&mut self, item: &Item) -> Result<usize> {
        self.flush()?;
        let keeps = item.kind == Kind::File && KEPT.contains(&&item.path[..]);
        if !keeps || item.size > LONGEST_KEPT as u64 {
            return self.write(item).map(|()| 0);
        }
        self.waits = Some(Item { kept: Some(Vec::new()).filter(|_| item.size == 0), ..item.clone() });
        Ok(LONGEST_KEPT)
    }

    fn content(&mut self, _item: &Item, bytes: &[u8]) -> Result<()> {
        if let Some(item) = &mut self.waits {
            item.kept = Some(bytes.to_vec());
        }
        Ok(())
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
        let item = entry(tag[0], &mut path, &mut bytes).map_err(|error| unreadable(&error))?;
        see(&item)?;
    }
}

fn entry(tag: u8, path: &mut Vec<u8>, bytes: &mut dyn Read) -> std::io::Result<Item> {
    let mut number = || read_number(bytes);
    let (mode, uid, gid, mtime) = (number()? as u32, number()?, number()?, number()?);
    let (size, count, shared) = (number()?, number()?, number()?);
    path.truncate(shared as usize);
    path.extend(read_text(bytes)?);
    let (text, mut kept, mut xattrs) = (read_text(bytes)?, None, Xattrs::new());
    for _ in 0..count {
        xattrs.insert(read_text(bytes)?, read_text(bytes)?);
    }
    let kind = match tag {
        0 => Kind::File,
        1 => Kind::Folder,
        2 => Kind::Link(text),
        3 => Kind::Same(text),
        4 => Kind::Special,
        5 => Kind::Removed,
        WITH_CONTENT => {
            kept = Some(text);
            Kind::File
        }
        _ => Kind::Emptied,
    };
    let attributes = Attributes { mode, uid, gid, mtime };
    Ok(Item { path: path.clone(), kind, attributes, xattrs, size, kept })
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
    use crate::oci::layer;
    use crate::recipe::Part;

    fn layer(cache: &Cache) -> Layer {
        let entry = |path: &str, kind| layer::Entry {
            path: path.into(),
            kind,
            attributes: Attributes { mode: 0o2750, uid: 1 << 31, gid: 300, mtime: 1 << 40 },
            xattrs: Xattrs::from([(b"user.x".to_vec(), b"\0\n=1".to_vec())]),
        };
        let file = |bytes: &[u8]| layer::Kind::File(Part::Blob(cache.cas.put(bytes).unwrap()));
        let entries = [
            entry("usr/bin/tool", file(&[7; 3000])),
            entry("usr/bin/to", layer::Kind::Link("tool".into())),
            entry("usr/b", layer::Kind::Folder),
            entry("usr/gone", layer::Kind::Nothing),
            entry("etc/passwd", file(b"root")),
            entry("etc/group", file(b"")),
            entry("etc/shadow", file(b"secret")),
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
        let mut first = all().unwrap();
        assert_eq!(all().unwrap(), first);
        assert_eq!(direct.len(), 10);
        for (path, text) in [("etc/passwd", "root"), ("etc/group", "")] {
            let item = first.iter_mut().find(|item| item.path == path.as_bytes()).unwrap();
            assert_eq!(item.kept.take().unwrap(), text.as_bytes());
        }
        assert_eq!(first, direct);
        let tool = direct.iter().find(|item| item.path.ends_with(b"tool")).unwrap();
        assert_eq!((tool.attributes.mtime, tool.xattrs.len()), (1 << 40, 1));
        let before = all().unwrap();
        let Part::Recipe { recipe, .. } = &layer.part else { panic!() };
        crate::host::fs::remove_file(&cache.cas.path(&recipe.digest)).unwrap();
        assert!(is_known(&cache, &layer).unwrap());
        assert_eq!(all().unwrap(), before);
        // Without the layer and without what is remembered there is nothing to read.
        crate::host::fs::remove_tree(&folder.path().join("v1/cas")).unwrap();
        assert!(!is_known(&cache, &layer).unwrap());
        assert!(matches!(all(), Err(Error::Lost(digest)) if digest == recipe.digest));
    }
}
