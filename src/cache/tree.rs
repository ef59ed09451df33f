//! A directory as a value: Merkle nodes, each the canonical sorted listing of one folder. Equal
//! subtrees have equal digests. Knows no file system.

use super::cas::Cas;
use crate::digest::{Blob, Digest};
use crate::error::{Error, Result};
use crate::recipe::{Content, Part, Recipe};

/// One name in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A file: permission bits and content.
    File {
        /// Permission bits.
        mode: u32,
        /// The content.
        blob: Blob,
    },
    /// A file that exists as a recipe, identified by the recipe's canonical bytes.
    Recipe {
        /// Permission bits.
        mode: u32,
        /// The recipe's canonical bytes.
        recipe: Blob,
        /// The length in bytes of what it makes.
        size: u64,
    },
    /// A symbolic link.
    Link {
        /// Its target as it is.
        target: Vec<u8>,
    },
    /// A folder.
    Folder {
        /// Permission bits.
        mode: u32,
        /// The node of the folder.
        tree: Digest,
    },
}

impl Entry {
    /// The length in bytes of a file's content, also of one that exists as a recipe.
    pub fn size(&self) -> Option<u64> {
        match self {
            Self::File { blob, .. } => Some(blob.size),
            Self::Recipe { size, .. } => Some(*size),
            _ => None,
        }
    }

    /// A file's content as a part of a recipe.
    pub fn part(&self) -> Option<Part> {
        match self {
            Self::File { blob, .. } => Some(Part::Blob(*blob)),
            Self::Recipe { recipe, size, .. } => Some(Part::Recipe { recipe: *recipe, size: *size }),
            _ => None,
        }
    }
}

/// The listing of one folder, sorted by the bytes of the names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Names and what they name.
    pub entries: Vec<(Vec<u8>, Entry)>,
}

/// Nodes begin with this; the number is the version of the encoding.
const MAGIC: &[u8] = b"vcbuild tree 1\n";

impl Node {
    /// What `name` names.
    pub fn entry(&self, name: &[u8]) -> Option<&Entry> {
        let at = self.entries.binary_search_by(|(known, _)| known.as_slice().cmp(name)).ok()?;
        Some(&self.entries[at].1)
    }

    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        for (name, entry) in &self.entries {
            let (tag, mode) = match entry {
                Entry::File { mode, .. } => (b'f', *mode),
                Entry::Recipe { mode, .. } => (b'r', *mode),
                Entry::Link { .. } => (b'l', 0),
                Entry::Folder { mode, .. } => (b'd', *mode),
            };
            out.push(tag);
            out.extend_from_slice(&mode.to_le_bytes());
            put_bytes(&mut out, name);
            match entry {
                Entry::File { blob, .. } => put_blob(&mut out, blob),
                Entry::Recipe { recipe, size, .. } => {
                    put_blob(&mut out, recipe);
                    out.extend_from_slice(&size.to_le_bytes());
                }
                Entry::Link { target } => put_bytes(&mut out, target),
                Entry::Folder { tree, .. } => put_digest(&mut out, tree),
            }
        }
        out
    }

    /// Reads canonical bytes; `None` if they are not canonical.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(MAGIC)?;
        let mut entries: Vec<(Vec<u8>, Entry)> = Vec::new();
        while let Some((&tag, after)) = rest.split_first() {
            rest = after;
            let mode = u32::from_le_bytes(take(&mut rest)?);
            let name = take_bytes(&mut rest)?;
            let entry = match tag {
                b'f' => Entry::File { mode, blob: take_blob(&mut rest)? },
                b'r' => {
                    let recipe = take_blob(&mut rest)?;
                    Entry::Recipe { mode, recipe, size: u64::from_le_bytes(take(&mut rest)?) }
                }
                b'l' => Entry::Link { target: take_bytes(&mut rest)? },
                b'd' => Entry::Folder { mode, tree: take_digest(&mut rest)? },
                _ => return None,
            };
            let ordered = entries.last().is_none_or(|(last, _)| *last < name);
            if !ordered || !is_name(&name) {
                return None;
            }
            entries.push((name, entry));
        }
        Some(Self { entries })
    }
}

/// Whether these bytes can name a file in a folder.
pub fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name != b"." && name != b".." && !name.contains(&b'/') && !name.contains(&0)
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn put_digest(out: &mut Vec<u8>, digest: &Digest) {
    out.push(u8::from(matches!(digest, Digest::Sha256(_))));
    out.extend_from_slice(digest.bytes());
}

fn put_blob(out: &mut Vec<u8>, blob: &Blob) {
    put_digest(out, &blob.digest);
    out.extend_from_slice(&blob.size.to_le_bytes());
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (bytes, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*bytes)
}

fn take_bytes(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let length = u32::from_le_bytes(take(rest)?) as usize;
    let bytes = rest.get(..length)?.to_vec();
    *rest = &rest[length..];
    Some(bytes)
}

fn take_digest(rest: &mut &[u8]) -> Option<Digest> {
    match take::<1>(rest)?[0] {
        0 => Some(Digest::Blake3(take(rest)?)),
        1 => Some(Digest::Sha256(take(rest)?)),
        _ => None,
    }
}

fn take_blob(rest: &mut &[u8]) -> Option<Blob> {
    let digest = take_digest(rest)?;
    Some(Blob { digest, size: u64::from_le_bytes(take(rest)?) })
}

/// Whether a tree refers to a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holds {
    /// It does not.
    No,
    /// A part of it cannot be read, and the rest does not.
    Perhaps,
    /// It does.
    Yes,
}

fn best(mut parts: impl Iterator<Item = Holds>) -> Holds {
    let mut found = Holds::No;
    parts.find(|part| {
        found = found.max(*part);
        *part == Holds::Yes
    });
    found
}

impl Cas {
    /// Reads the node of a folder.
    pub fn node(&self, tree: &Digest) -> Result<Node> {
        Node::decode(&self.read_whole(tree)?).ok_or(Error::Lost(*tree))
    }

    /// What a path in a tree names; `None` if there is nothing. Links are not followed.
    pub fn entry(&self, tree: &Digest, path: impl AsRef<[u8]>) -> Result<Option<Entry>> {
        let mut entry = Entry::Folder { mode: 0o755, tree: *tree };
        let names = path.as_ref().split(|&byte| byte == b'/');
        for name in names.filter(|name| !name.is_empty() && *name != b".") {
            let Entry::Folder { tree, .. } = entry else { return Ok(None) };
            match self.node(&tree)?.entry(name) {
                Some(found) => entry = found.clone(),
                None => return Ok(None),
            }
        }
        Ok(Some(entry))
    }

    /// Calls `visit` with the path of everything in a tree: a folder before what is in it, names in
    /// the order of their bytes.
    pub fn walk(&self, tree: &Digest, visit: &mut dyn FnMut(&[u8], &Entry) -> Result<()>) -> Result<()> {
        self.walk_below(tree, &mut Vec::new(), visit)
    }

    fn walk_below(
        &self,
        tree: &Digest,
        path: &mut Vec<u8>,
        visit: &mut dyn FnMut(&[u8], &Entry) -> Result<()>,
    ) -> Result<()> {
        for (name, entry) in self.node(tree)?.entries {
            let length = path.len();
            if length > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(&name);
            visit(path, &entry)?;
            if let Entry::Folder { tree, .. } = &entry {
                self.walk_below(tree, path, visit)?;
            }
            path.truncate(length);
        }
        Ok(())
    }

    /// Whether a tree refers to a digest: as a node, a file's content, a recipe, or something inside
    /// a recipe.
    pub fn holds(&self, tree: &Digest, digest: &Digest) -> Holds {
        if tree == digest {
            return Holds::Yes;
        }
        let Ok(node) = self.node(tree) else { return Holds::Perhaps };
        best(node.entries.iter().map(|(_, entry)| match entry {
            Entry::File { blob, .. } if blob.digest == *digest => Holds::Yes,
            Entry::File { .. } | Entry::Link { .. } => Holds::No,
            Entry::Recipe { recipe, .. } => self.recipe_holds(recipe, digest),
            Entry::Folder { tree, .. } => self.holds(tree, digest),
        }))
    }

    fn recipe_holds(&self, recipe: &Blob, digest: &Digest) -> Holds {
        if recipe.digest == *digest {
            return Holds::Yes;
        }
        let Ok(recipe) = self.recipe(*recipe) else { return Holds::Perhaps };
        best(recipe.parts().iter().map(|part| match part {
            Part::Blob(blob) if blob.digest == *digest => Holds::Yes,
            Part::Inline(_) | Part::Blob(_) => Holds::No,
            Part::Recipe { recipe, .. } => self.recipe_holds(recipe, digest),
        }))
    }

    /// Stores a recipe.
    pub fn put_recipe(&self, recipe: &Recipe) -> Result<Part> {
        Ok(Part::Recipe { recipe: self.put(&recipe.encode())?, size: recipe.size() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entries() -> impl Strategy<Value = Entry> {
        let blob = any::<(u64, bool)>().prop_map(|(seed, sha)| {
            let bytes = seed.to_le_bytes();
            Blob { digest: if sha { Digest::sha256_of(&bytes) } else { Digest::of(&bytes) }, size: seed }
        });
        let mode = 0u32..0o10000;
        prop_oneof![
            (mode.clone(), blob.clone()).prop_map(|(mode, blob)| Entry::File { mode, blob }),
            (mode.clone(), blob.clone(), any::<u64>()).prop_map(|(mode, recipe, size)| Entry::Recipe {
                mode,
                recipe,
                size
            }),
            prop::collection::vec(any::<u8>(), 0..9).prop_map(|target| Entry::Link { target }),
            (mode, blob).prop_map(|(mode, blob)| Entry::Folder { mode, tree: blob.digest }),
        ]
    }

    proptest! {
        #[test]
        fn nodes_survive_encoding(
            names in prop::collection::btree_map(prop::collection::vec(any::<u8>(), 1..9), entries(), 0..9)
        ) {
            let entries: Vec<_> = names.into_iter().filter(|(name, _)| is_name(name)).collect();
            let node = Node { entries };
            prop_assert_eq!(Node::decode(&node.encode()), Some(node));
        }

        #[test]
        fn only_canonical_bytes_are_nodes(bytes in prop::collection::vec(any::<u8>(), 0..99)) {
            let mut all = MAGIC.to_vec();
            all.extend(bytes);
            if let Some(node) = Node::decode(&all) {
                prop_assert_eq!(node.encode(), all);
            }
        }
    }
}
