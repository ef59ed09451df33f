//! A layer: entries in, a deterministic uncompressed tar out, as a recipe. Knows no file system:
//! whoever calls it has decided names, modes and owners.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::oci::quoted;
use crate::oci::tar::Writer;
pub use crate::oci::tar::{Attributes, Xattrs};
use crate::recipe::{Part, Recipe};

/// One file, folder or link of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The path from the image's root, without a slash at either end.
    pub path: Vec<u8>,
    /// What is there.
    pub kind: Kind,
    /// Mode, owner and time; a link's mode does not count.
    pub attributes: Attributes,
    /// Extended attributes of a file or folder.
    pub xattrs: Xattrs,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file with this content.
    File(Part),
    /// A folder.
    Folder,
    /// A symbolic link to this target, which may lead anywhere.
    Link(Vec<u8>),
    /// Nothing: what lower layers have there is gone (image-spec "Whiteouts").
    Nothing,
}

/// What the name of a file that deletes another begins with.
pub(super) const WHITEOUT: &[u8] = b".wh.";

/// The longest path and link target in bytes, as Linux has it.
const LONGEST_PATH: usize = 4095;
/// The longest part of a path in bytes.
const LONGEST_NAME: usize = 255;
/// The largest number of a user or group on Linux; the one above means none.
pub(super) const LARGEST_OWNER: u64 = (1 << 32) - 2;

/// Makes the tar of a layer: entries in byte order of their paths whatever their order here, with
/// every folder on the way to them that is not given itself, which gets `parents`.
///
/// Fails on two entries of one path, on a file or link that is used as a folder, on paths that are
/// empty, absolute or not plain (`.`, `..`, `//`, NUL), and on names that would delete (`.wh.`).
pub fn pack(entries: &[Entry], parents: Attributes) -> Result<Recipe> {
    let mut all: BTreeMap<&[u8], Option<&Entry>> = BTreeMap::new();
    for entry in entries {
        check(entry)?;
        if all.insert(&entry.path, Some(entry)).is_some() {
            return Err(Error::failed(format!("two entries of a layer are {}", quoted(&entry.path))));
        }
    }
    for entry in entries {
        for (at, _) in entry.path.iter().enumerate().rev().filter(|(_, byte)| **byte == b'/') {
            let parent = &entry.path[..at];
            match all.get(parent) {
                None => {
                    all.insert(parent, None);
                }
                Some(None) => break,
                Some(Some(Entry { kind: Kind::Folder, .. })) => {}
                Some(Some(_)) => {
                    let (path, parent) = (quoted(&entry.path), quoted(parent));
                    return Err(Error::failed(format!(
                        "{path} cannot be inside {parent}, which is no folder"
                    )));
                }
            }
        }
    }
    let mut tar = Writer::default();
    for (path, entry) in all {
        match entry {
            None => tar.folder(path, parents),
            Some(entry) => match &entry.kind {
                Kind::File(content) => tar.file_with(path, entry.attributes, &entry.xattrs, content),
                Kind::Folder => tar.folder_with(path, entry.attributes, &entry.xattrs),
                Kind::Link(target) => tar.link(path, entry.attributes, target),
                Kind::Nothing => {
                    let (folder, name) = path.split_at(last_slash(path));
                    let path = [folder, WHITEOUT, name].concat();
                    tar.file(&path, entry.attributes, &Part::Inline(Vec::new()));
                }
            },
        }
    }
    Ok(tar.finish())
}

/// Where the last name of a path begins.
fn last_slash(path: &[u8]) -> usize {
    path.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1)
}

fn check(entry: &Entry) -> Result<()> {
    let path = &entry.path;
    let wrong = |why: &str| Err(Error::failed(format!("{} cannot be in a layer: {why}", quoted(path))));
    if path.is_empty() {
        return Err(Error::failed("an entry of a layer has no path"));
    }
    if path.starts_with(b"/") {
        return wrong("the path is absolute");
    }
    if path.contains(&0) {
        return wrong("the path has a NUL byte");
    }
    if path.len() > LONGEST_PATH {
        return wrong("the path is longer than 4095 bytes");
    }
    let longer = if entry.kind == Kind::Nothing { WHITEOUT.len() } else { 0 };
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" => return wrong("a part of the path is empty"),
            b"." | b".." => return wrong("the path is not plain"),
            _ if name.starts_with(WHITEOUT) => return wrong("names with `.wh.` delete files of the base"),
            _ if name.len() + longer > LONGEST_NAME => {
                return wrong("a part of the path is longer than 255 bytes");
            }
            _ => {}
        }
    }
    if entry.attributes.mode > 0o7777 {
        return wrong("the mode has more than permission bits");
    }
    if entry.attributes.uid.max(entry.attributes.gid) > LARGEST_OWNER {
        return wrong("owners and groups end at 4294967294");
    }
    if entry.xattrs.keys().any(|name| name.is_empty() || name.contains(&b'=')) {
        return wrong("an extended attribute has no name, or `=` in it");
    }
    match &entry.kind {
        Kind::Link(target) if target.is_empty() => wrong("the link's target is empty"),
        Kind::Link(target) if target.contains(&0) => wrong("the link's target has a NUL byte"),
        Kind::Link(target) if target.len() > LONGEST_PATH => {
            wrong("the link's target is longer than 4095 bytes")
        }
        _ => Ok(()),
    }
}
