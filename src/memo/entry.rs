//! What a memo remembers of one task, and its bytes. Does not know which paths the indices mean.

use std::collections::BTreeMap;

use crate::digest::Digest;

/// What is remembered of one task.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key, for actions.
    pub key: Option<Digest>,
    /// The value, for actions.
    pub value: Option<Digest>,
    /// The values it read.
    pub values: BTreeMap<String, Digest>,
    /// What it wants, for effects.
    pub wants: Option<serde_json::Value>,
    /// Whether something was seen on a host.
    pub is_remote: bool,
    /// Indices of its paths.
    pub(super) paths: Vec<u32>,
}

const REMOTE: u8 = 1;

impl Entry {
    /// What is remembered of a task.
    pub fn new(key: Option<Digest>, value: Option<Digest>, values: BTreeMap<String, Digest>) -> Self {
        Self { key, value, values, wants: None, is_remote: false, paths: Vec::new() }
    }

    /// Writes the entry; its paths are `paths`.
    pub(super) fn encode(&self, name: &str, paths: &[u32], out: &mut Vec<u8>) {
        put_bytes(out, name.as_bytes());
        out.push(if self.is_remote { REMOTE } else { 0 });
        put_digest(out, self.key.as_ref());
        put_digest(out, self.value.as_ref());
        put_number(out, self.values.len());
        for (name, value) in &self.values {
            put_bytes(out, name.as_bytes());
            put_digest(out, Some(value));
        }
        let wants = self.wants.as_ref().map(ToString::to_string).unwrap_or_default();
        put_bytes(out, wants.as_bytes());
        put_number(out, paths.len());
        for path in paths {
            out.extend_from_slice(&path.to_le_bytes());
        }
    }

    /// Reads the next task's name and entry from `rest`; there are `count` paths.
    pub(super) fn decode(rest: &mut &[u8], count: usize) -> Option<(String, Self)> {
        let name = take_text(rest)?.to_string();
        let is_remote = take::<1>(rest)?[0] & REMOTE != 0;
        let (key, value) = (take_digest(rest)?, take_digest(rest)?);
        let mut values = BTreeMap::new();
        for _ in 0..take_number(rest)? {
            values.insert(take_text(rest)?.to_string(), take_digest(rest)??);
        }
        let wants = match take_text(rest)? {
            "" => None,
            text => Some(serde_json::from_str(text).ok()?),
        };
        let length = take_number(rest)?.checked_mul(4)?;
        let (indices, after) = rest.split_at_checked(length)?;
        *rest = after;
        let (indices, _) = indices.as_chunks::<4>();
        let paths: Vec<u32> = indices.iter().map(|index| u32::from_le_bytes(*index)).collect();
        let known = paths.iter().all(|path| (*path as usize) < count);
        known.then_some((name, Self { key, value, values, wants, is_remote, paths }))
    }
}

pub(super) fn put_number(out: &mut Vec<u8>, number: usize) {
    match u32::try_from(number) {
        Ok(number) => out.extend_from_slice(&number.to_le_bytes()),
        Err(_) => panic!("BUG: a memo of more than 4 GiB"),
    }
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn put_digest(out: &mut Vec<u8>, digest: Option<&Digest>) {
    out.push(match digest {
        None => 0,
        Some(Digest::Blake3(_)) => 1,
        Some(Digest::Sha256(_)) => 2,
    });
    out.extend_from_slice(digest.map_or(&[0; 32], |digest| digest.bytes()));
}

pub(super) fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (bytes, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*bytes)
}

pub(super) fn take_number(rest: &mut &[u8]) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(take(rest)?)).ok()
}

pub(super) fn take_text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let length = take_number(rest)?;
    let (text, after) = rest.split_at_checked(length)?;
    *rest = after;
    std::str::from_utf8(text).ok()
}

/// Nothing if the bytes are no digest, and a digest or none if they are.
fn take_digest(rest: &mut &[u8]) -> Option<Option<Digest>> {
    let [kind] = take(rest)?;
    let bytes = take(rest)?;
    match kind {
        0 => Some(None),
        1 => Some(Some(Digest::Blake3(bytes))),
        2 => Some(Some(Digest::Sha256(bytes))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn digests() -> impl Strategy<Value = Digest> {
        any::<([u8; 32], bool)>()
            .prop_map(|(bytes, sha)| if sha { Digest::Sha256(bytes) } else { Digest::Blake3(bytes) })
    }

    prop_compose! {
        fn entries()(
            (key, value) in (prop::option::of(digests()), prop::option::of(digests())),
            values in prop::collection::btree_map(".{0,9}", digests(), 0..4),
            wants in prop::option::of("[a-z]{0,9}".prop_map(serde_json::Value::from)),
            is_remote in any::<bool>(),
            paths in prop::collection::vec(0_u32..9, 0..9),
        ) -> Entry {
            Entry { key, value, values, wants, is_remote, paths }
        }
    }

    proptest! {
        #[test]
        fn entries_survive_encoding(all in prop::collection::vec((".{0,9}", entries()), 0..4)) {
            let mut bytes = Vec::new();
            for (name, entry) in &all {
                entry.encode(name, &entry.paths, &mut bytes);
            }
            let mut rest = bytes.as_slice();
            for (name, entry) in all {
                prop_assert_eq!(Entry::decode(&mut rest, 9), Some((name, entry)));
            }
            prop_assert!(rest.is_empty());
            for cut in 0..bytes.len() {
                let mut rest = &bytes[..cut];
                while !rest.is_empty() && Entry::decode(&mut rest, 9).is_some() {}
            }
        }
    }
}
