//! What layers make together: the folders, links and files that a container would see, as each layer
//! is put on those below. Knows no content but that of a few files, and writes nothing.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::error::{Error, Result};
use crate::oci::contents::{Item, Kind};
use crate::oci::quoted;
use crate::oci::tar::{Attributes, Xattrs};

/// Links that lead to links, at most, as Linux has it.
const MOST_LINKS: usize = 40;

/// The folders that nobody gave a mode or owner.
pub const PLAIN_FOLDER: Attributes = Attributes { mode: 0o755, uid: 0, gid: 0, mtime: 0 };

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// File, folder or link.
    pub kind: Held,
    /// Mode, owner and time.
    pub attributes: Attributes,
    /// Extended attributes.
    pub xattrs: Xattrs,
}

/// What can be at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// A file, or anything else that is neither folder nor link; with its content if that is kept.
    File(Option<Vec<u8>>),
    /// A folder.
    Folder,
    /// A symbolic link.
    Link(Vec<u8>),
}

/// Shows the entries of a layer to somebody, in their order.
pub type Each<'a> = &'a dyn Fn(&mut dyn FnMut(&Item) -> Result<()>) -> Result<()>;

/// A file system, by paths from its root.
#[derive(Clone, Debug, Default)]
pub struct Stack {
    all: BTreeMap<Vec<u8>, Standing>,
    bytes: usize,
}

impl Stack {
    /// How many paths there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// How many bytes all that was ever there had, names counted.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What is at a path, links not followed.
    pub fn at(&self, path: &[u8]) -> Option<&Standing> {
        self.all.get(path)
    }

    /// The path that a path means: links on the way are followed, as within the root; the last name is
    /// not. Fails if something on the way is a file, and on links without an end.
    pub fn place(&self, path: &[u8]) -> Result<Vec<u8>> {
        match path.iter().rposition(|&byte| byte == b'/') {
            None => Ok(path.to_vec()),
            Some(at) => {
                let mut place = self.follow(&path[..at])?;
                join(&mut place, &path[at + 1..]);
                Ok(place)
            }
        }
    }

    /// The path that a folder's path means: the last name is followed too.
    pub fn follow(&self, path: &[u8]) -> Result<Vec<u8>> {
        let mut place: Vec<u8> = Vec::new();
        let mut left: Vec<Vec<u8>> = names(path);
        let mut links = 0;
        while let Some(name) = left.pop() {
            if name == b".." {
                place.truncate(place.iter().rposition(|&byte| byte == b'/').unwrap_or(0));
                continue;
            }
            let before = place.len();
            join(&mut place, &name);
            match self.all.get(&place).map(|standing| &standing.kind) {
                Some(Held::Link(target)) => {
                    links += 1;
                    if links > MOST_LINKS {
                        return Err(Error::failed(format!(
                            "{} leads through links without end",
                            quoted(path)
                        )));
                    }
                    left.extend(names(target));
                    place.truncate(if target.starts_with(b"/") { 0 } else { before });
                }
                Some(Held::File(_)) => {
                    let (path, file) = (quoted(path), quoted(&place));
                    return Err(Error::failed(format!("{path} cannot be a folder: {file} is a file")));
                }
                _ => {}
            }
        }
        Ok(place)
    }

    /// Puts a layer of an image on those below: first what it takes away, then what it has. `fits` says
    /// when it is too much.
    pub fn put_layer(&mut self, each: Each<'_>, fits: &dyn Fn(&Self) -> Result<()>) -> Result<()> {
        each(&mut |item| {
            match item.kind {
                Kind::Removed => self.remove(&self.place(&item.path)?),
                Kind::Emptied => self.clear(&self.follow(&item.path)?),
                _ => {}
            }
            Ok(())
        })?;
        each(&mut |item| {
            let kind = match &item.kind {
                Kind::Removed | Kind::Emptied => return Ok(()),
                _ if item.path.is_empty() => return Ok(()),
                Kind::File | Kind::Same(_) | Kind::Special => Held::File(item.kept.clone()),
                Kind::Folder => Held::Folder,
                Kind::Link(target) => Held::Link(target.clone()),
            };
            // What a container would see behind a link to nowhere is nobody's concern here.
            let place = self.place(&item.path).unwrap_or_else(|_| item.path.clone());
            let Item { attributes, xattrs, .. } = item;
            self.put(&place, Standing { kind, attributes: *attributes, xattrs: xattrs.clone() });
            fits(self)
        })
    }

    /// Puts something at a place, with plain folders above; what is no folder replaces all that was
    /// there.
    pub fn put(&mut self, place: &[u8], standing: Standing) {
        if standing.kind != Held::Folder {
            self.clear(place);
        }
        for (at, _) in place.iter().enumerate().rev().filter(|(_, byte)| **byte == b'/') {
            match self.all.get(&place[..at]) {
                Some(Standing { kind: Held::Folder, .. }) => break,
                _ => {
                    let plain =
                        Standing { kind: Held::Folder, attributes: PLAIN_FOLDER, xattrs: Xattrs::new() };
                    self.insert(&place[..at], plain);
                }
            }
        }
        self.insert(place, standing);
    }

    fn insert(&mut self, place: &[u8], standing: Standing) {
        let held = match &standing.kind {
            Held::File(kept) => kept.as_ref().map_or(0, Vec::len),
            Held::Folder => 0,
            Held::Link(target) => target.len(),
        };
        let xattrs = standing.xattrs.iter().map(|(name, value)| name.len() + value.len());
        self.bytes += place.len() + held + xattrs.sum::<usize>();
        self.all.insert(place.to_vec(), standing);
    }

    /// Takes away what is at a place and below.
    pub fn remove(&mut self, place: &[u8]) {
        self.clear(place);
        self.all.remove(place);
    }

    fn clear(&mut self, place: &[u8]) {
        let start = if place.is_empty() { Vec::new() } else { [place, b"/"].concat() };
        let below: Vec<Vec<u8>> = self
            .all
            .range((Bound::Included(start.clone()), Bound::Unbounded))
            .take_while(|(path, _)| path.starts_with(&start))
            .map(|(path, _)| path.clone())
            .collect();
        for path in below {
            self.all.remove(&path);
        }
    }
}

/// The names of a path, last first.
fn names(path: &[u8]) -> Vec<Vec<u8>> {
    let names = path.split(|&byte| byte == b'/').filter(|name| !name.is_empty() && *name != b".");
    names.rev().map(<[u8]>::to_vec).collect()
}

fn join(place: &mut Vec<u8>, name: &[u8]) {
    if !place.is_empty() {
        place.push(b'/');
    }
    place.extend_from_slice(name);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(path: &str, kind: Kind) -> Item {
        let attributes = Attributes { mode: 0o711, uid: 7, gid: 8, mtime: 9 };
        Item { path: path.into(), kind, attributes, xattrs: Xattrs::new(), size: 0, kept: None }
    }

    fn put(stack: &mut Stack, layer: &[Item]) {
        stack.put_layer(&|see| layer.iter().try_for_each(see), &|_| Ok(())).unwrap();
    }

    fn base() -> Stack {
        let mut stack = Stack::default();
        let layer = vec![
            item("usr", Kind::Folder),
            item("usr/bin", Kind::Folder),
            item("bin", Kind::Link(b"usr/bin".to_vec())),
            item("usr/sbin", Kind::Link(b"../bin".to_vec())),
            item("abs", Kind::Link(b"/usr/./sbin/../bin".to_vec())),
            item("up", Kind::Link(b"../../../usr".to_vec())),
            item("loop", Kind::Link(b"loop2".to_vec())),
            item("loop2", Kind::Link(b"loop".to_vec())),
            item("bin/sh", Kind::File),
            item("etc/motd", Kind::File),
            item("etc/deep/er", Kind::File),
        ];
        put(&mut stack, &layer);
        stack
    }

    #[test]
    fn links_lead_within_the_root() {
        let stack = base();
        assert!(stack.at(b"usr/bin/sh").is_some() && stack.at(b"bin/sh").is_none());
        for (path, place) in [
            ("bin/x", "usr/bin/x"),
            ("bin", "bin"),
            ("usr/sbin/x", "usr/bin/x"),
            ("abs/x/y", "usr/bin/x/y"),
            ("up/bin/x", "usr/bin/x"),
            ("new/x", "new/x"),
            ("x", "x"),
        ] {
            assert_eq!(stack.place(path.as_bytes()).unwrap(), place.as_bytes(), "{path}");
        }
        assert_eq!(stack.follow(b"bin").unwrap(), b"usr/bin");
        let told = |path: &[u8]| stack.place(path).unwrap_err().to_string();
        assert_eq!(told(b"loop/x"), "`loop` leads through links without end");
        assert_eq!(told(b"bin/sh/x"), "`bin/sh` cannot be a folder: `usr/bin/sh` is a file");
        assert_eq!(stack.at(b"usr").unwrap().attributes.uid, 7);
        assert_eq!(stack.at(b"etc").unwrap().attributes, PLAIN_FOLDER);
    }

    #[test]
    fn what_a_layer_takes_away_is_gone_and_its_own_stays() {
        let mut stack = base();
        let own = vec![
            item("etc/new", Kind::File),
            item("etc", Kind::Emptied),
            item("bin/sh", Kind::Removed),
            item("usr/bin/sh", Kind::File),
            item("bin", Kind::Folder),
        ];
        put(&mut stack, &own);
        assert!(stack.at(b"etc/motd").is_none() && stack.at(b"etc/deep/er").is_none());
        assert!(stack.at(b"etc/new").is_some() && stack.at(b"usr/bin/sh").is_some());
        assert_eq!(stack.at(b"bin").unwrap().kind, Held::Folder);
        put(&mut stack, &[item("usr", Kind::File)]);
        assert!(stack.at(b"usr/bin").is_none());
        put(&mut stack, &[item("", Kind::Emptied)]);
        assert!(stack.all.is_empty());
    }
}
