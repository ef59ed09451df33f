//! What is in a layer, in its order: paths, kinds, modes, owners, sizes, and what it takes away. Reads a
//! tar plain or packed, from anybody, in bounded memory and time; of a plain one only the headers.
//! Knows no merged tree.

use tar::EntryType;

use crate::error::{Error, Result};
use crate::oci::descriptor::Packing;
use crate::oci::image::Layer;
use crate::oci::packed::Unpacker;
use crate::oci::quoted;
use crate::oci::tar::{Attributes, Xattrs};
use crate::oci::untar::{Member, Untar, Visitor};
use crate::recipe::{Content, Part, Recipe, Sink};

/// The longest path and link target in bytes, as Linux has it.
const LONGEST_PATH: usize = 4095;
/// The longest part of a path in bytes.
const LONGEST_NAME: usize = 255;
/// Recipes within recipes, at most.
const DEEPEST: usize = 16;

/// One entry of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The path from the image's root, plain, without a slash at either end; empty for the root itself.
    pub path: Vec<u8>,
    /// What is there.
    pub kind: Kind,
    /// Mode, owner and time; where something is only taken away they say nothing.
    pub attributes: Attributes,
    /// Extended attributes.
    pub xattrs: Xattrs,
    /// The length of a file's content in bytes.
    pub size: u64,
    /// All of a file's content, if somebody has kept it with its name; [`read`] does not.
    pub kept: Option<Vec<u8>>,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link to this target, as it is written.
    Link(Vec<u8>),
    /// One more name of the file at this path.
    Same(Vec<u8>),
    /// A pipe or device.
    Special,
    /// Nothing: what lower layers have at the path is taken away.
    Removed,
    /// A folder of which nothing that lower layers have in it is left.
    Emptied,
}

/// Who is told what a layer holds.
pub trait Reader {
    /// An entry; says how many bytes from the start of its content it wants.
    fn item(&mut self, item: &Item) -> Result<usize>;

    /// The wanted bytes of an entry, all that it has of them.
    fn content(&mut self, _item: &Item, _bytes: &[u8]) -> Result<()> {
        Ok(())
    }

    /// The whole content of an entry of which nothing was wanted, where it is at hand: in layers that
    /// were packed here.
    fn part(&mut self, _item: &Item, _part: &Part) -> Result<()> {
        Ok(())
    }
}

impl<F: FnMut(&Item) -> Result<()>> Reader for F {
    fn item(&mut self, item: &Item) -> Result<usize> {
        self(item).map(|()| 0)
    }
}

/// Tells what a layer holds. A packed one is read whole and has to have its diffID.
///
/// Fails on a damaged tar, on paths with `..`, on names longer than Linux has them, and on a layer with
/// too many entries or that unpacks to too much. An absolute path is taken from the image's root, as
/// runtimes do it.
pub fn read(layer: &Layer, content: &dyn Content, reader: &mut dyn Reader) -> Result<()> {
    let mut told = Told { reader, last: None };
    let tar = Untar::new(&mut told);
    let done = match Packing::of(&layer.descriptor.media_type)? {
        Packing::Plain => whole(&layer.part, content, tar),
        Packing::Gzip | Packing::Zstd => packed(layer, content, tar),
    };
    done.map_err(|error| error.context(format!("the layer `{}`", layer.descriptor.digest)))
}

fn whole(part: &Part, content: &dyn Content, mut tar: Untar<'_>) -> Result<()> {
    plain(part, content, &mut tar, 0)?;
    tar.finish()
}

/// Shows a tar's headers; what lies between them is not even opened where it is a part of its own.
fn plain(part: &Part, content: &dyn Content, tar: &mut Untar<'_>, depth: usize) -> Result<()> {
    if tar.skippable() >= part.size() {
        return tar.skip_part(part);
    }
    match part {
        Part::Inline(bytes) => tar.bytes(bytes),
        Part::Blob(blob) => content.send(*blob, tar),
        Part::Recipe { .. } if depth == DEEPEST => Err(Error::failed("recipes are nested too deep")),
        Part::Recipe { recipe, .. } => {
            let inner = content.recipe(*recipe)?;
            inner.parts().iter().try_for_each(|part| plain(part, content, tar, depth + 1))
        }
    }
}

fn packed(layer: &Layer, content: &dyn Content, tar: Untar<'_>) -> Result<()> {
    let mut unpacker = Unpacker::new(tar, layer.part.size());
    let mut whole = Recipe::new();
    whole.push(&layer.part);
    whole.send(content, &mut unpacker)?;
    let (tar, blob) = unpacker.finish()?;
    tar.finish()?;
    if blob.digest != layer.diff_id {
        let (is, said) = (blob.digest, layer.diff_id);
        return Err(Error::failed(format!("it unpacks to `{is}`, and its config says `{said}`")));
    }
    Ok(())
}

/// Passes members of a tar on as entries of a layer.
struct Told<'a> {
    reader: &'a mut dyn Reader,
    last: Option<Item>,
}

impl Visitor for Told<'_> {
    fn member(&mut self, member: Member) -> Result<usize> {
        self.last = None;
        let Some(item) = item(member)? else { return Ok(0) };
        let wanted = self.reader.item(&item)?;
        self.last = Some(item);
        Ok(wanted)
    }

    fn content(&mut self, bytes: &[u8]) -> Result<()> {
        match &self.last {
            Some(item) => self.reader.content(item, bytes),
            None => panic!("BUG: content that nobody wanted"),
        }
    }

    fn part(&mut self, part: &Part) -> Result<()> {
        self.last.as_ref().map_or(Ok(()), |item| self.reader.part(item, part))
    }
}

/// A member as an entry; nothing if it is only for a tool that made the layer.
fn item(member: Member) -> Result<Option<Item>> {
    let path = plain_path(&member.path)?;
    let kind = match member.kind {
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File,
        EntryType::Directory => Kind::Folder,
        EntryType::Symlink => {
            if member.target.len() > LONGEST_PATH {
                return Err(Error::failed(format!("the link {} leads too far", quoted(&path))));
            }
            Kind::Link(member.target)
        }
        EntryType::Link => Kind::Same(plain_path(&member.target)?),
        EntryType::Char | EntryType::Block | EntryType::Fifo => Kind::Special,
        other => {
            let (path, kind) = (quoted(&path), quoted([other.as_byte()]));
            return Err(Error::failed(format!("{path} is of the unknown kind {kind}")));
        }
    };
    let Member { attributes, xattrs, size, .. } = member;
    let item = Item { path, kind, attributes, xattrs, size, kept: None };
    let at = item.path.iter().rposition(|&byte| byte == b'/').map_or(0, |at| at + 1);
    let Some(name) = item.path[at..].strip_prefix(b".wh.") else { return Ok(Some(item)) };
    let (kind, path) = match name {
        b".wh..opq" => (Kind::Emptied, item.path[..at.saturating_sub(1)].to_vec()),
        _ if name.starts_with(b".wh.") => return Ok(None),
        b"" | b"." | b".." => {
            return Err(Error::failed(format!("{} takes nothing away", quoted(&item.path))));
        }
        _ => (Kind::Removed, [&item.path[..at], name].concat()),
    };
    Ok(Some(Item { path, kind, size: 0, ..item }))
}

/// A path from the image's root; fails on one that is no path on Linux, or goes up.
fn plain_path(path: &[u8]) -> Result<Vec<u8>> {
    let mut plain = Vec::with_capacity(path.len());
    for name in path.split(|&byte| byte == b'/').filter(|name| !name.is_empty() && *name != b".") {
        let why = match name {
            b".." => "goes up with `..`",
            _ if name.contains(&0) => "has a NUL byte",
            _ if name.len() > LONGEST_NAME => "has a part of more than 255 bytes",
            _ if plain.len() + name.len() >= LONGEST_PATH => "has more than 4095 bytes",
            _ => {
                if !plain.is_empty() {
                    plain.push(b'/');
                }
                plain.extend_from_slice(name);
                continue;
            }
        };
        return Err(Error::failed(format!("the path {} {why}", quoted(path))));
    }
    Ok(plain)
}

#[cfg(test)]
#[path = "contents_tests.rs"]
mod tests;
