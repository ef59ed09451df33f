//! What differs between a folder that is somewhere else and a tree: what to remove there, and what to bring.
//! Knows no host.

use std::collections::{BTreeMap, BTreeSet};

use crate::cache::cas::Cas;
use crate::cache::tree::Entry;
use crate::digest::Digest;
use crate::error::Result;
use crate::glob::Globs;

/// What is known of a path there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Have {
    /// As `find` calls it: `d`, `f`, `l`, or something else.
    pub kind: u8,
    /// Permission bits.
    pub mode: u32,
    /// What its content is called, if that is known.
    pub called: Option<String>,
}

/// What is there, by path.
pub type There = BTreeMap<Vec<u8>, Have>;

/// What has to be done.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// Paths to remove, with all below them.
    pub drop: Vec<Vec<u8>>,
    /// What to bring: a folder before what is in it. Folders get all rights for their owner first.
    pub put: Vec<(Vec<u8>, Entry)>,
    /// Folders that get other permission bits once all is there.
    pub modes: Vec<(u32, Vec<u8>)>,
}

/// The rights that are needed to work in a folder.
const WORK: u32 = 0o700;

/// What the content of an entry is called; a folder has none.
pub fn called(entry: &Entry) -> String {
    match entry {
        Entry::File { blob, .. } => blob.digest.to_string(),
        Entry::Recipe { recipe, .. } => recipe.digest.to_string(),
        Entry::Link { target } => Digest::of(target).to_string(),
        Entry::Folder { .. } => "/".to_string(),
    }
}

/// What is in a tree: a folder before what is in it.
pub fn entries(cas: &Cas, tree: &Digest) -> Result<Vec<(Vec<u8>, Entry)>> {
    let mut all = Vec::new();
    cas.walk(tree, &mut |path, entry| {
        all.push((path.to_vec(), entry.clone()));
        Ok(())
    })?;
    Ok(all)
}

/// What would be there if it were a tree.
pub fn there(entries: &[(Vec<u8>, Entry)]) -> There {
    let one = |(path, entry): &(Vec<u8>, Entry)| {
        let (kind, mode) = match entry {
            Entry::File { mode, .. } | Entry::Recipe { mode, .. } => (b'f', *mode),
            Entry::Link { .. } => (b'l', 0o777),
            Entry::Folder { mode, .. } => (b'd', mode | WORK),
        };
        (path.clone(), Have { kind, mode, called: Some(called(entry)) })
    };
    entries.iter().map(one).collect()
}

/// Whether what is there is what is wanted.
fn is(have: &Have, entry: &Entry) -> bool {
    let named = || have.called.as_ref() == Some(&called(entry));
    match entry {
        Entry::File { mode, .. } | Entry::Recipe { mode, .. } => {
            have.kind == b'f' && have.mode == *mode && named()
        }
        Entry::Link { .. } => have.kind == b'l' && named(),
        Entry::Folder { mode, .. } => have.kind == b'd' && have.mode == mode | WORK,
    }
}

/// The paths above a path, from the highest down.
fn above(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| &path[..at])
}

/// What makes what is there a tree: what is not in the tree goes, unless `spare` takes it; what lies in one of
/// `outputs` is removed in any case.
pub fn steps(there: &There, wanted: &[(Vec<u8>, Entry)], outputs: &[Vec<u8>], spare: &Globs) -> Steps {
    let outputs: BTreeSet<&[u8]> = outputs.iter().map(Vec::as_slice).collect();
    let is_output = |path: &[u8]| outputs.contains(path) || above(path).any(|path| outputs.contains(path));
    let mut steps = Steps::default();
    let mut drop = BTreeSet::new();
    let mut known: BTreeSet<&[u8]> = BTreeSet::new();
    for (path, entry) in wanted {
        known.insert(path);
        if let Entry::Folder { mode, .. } = entry
            && mode & WORK != WORK
        {
            steps.modes.push((*mode, path.clone()));
        }
        match there.get(path) {
            Some(have) if is(have, entry) && !is_output(path) => continue,
            Some(have)
                if is_output(path) || have.kind != b'd' || !matches!(entry, Entry::Folder { .. }) =>
            {
                drop.insert(path.as_slice());
            }
            _ => {}
        }
        steps.put.push((path.clone(), entry.clone()));
    }
    let extra: Vec<&[u8]> = there.keys().map(Vec::as_slice).filter(|path| !known.contains(path)).collect();
    let stays = |path: &&&[u8]| !is_output(path) && spare.takes(path);
    let needed: BTreeSet<&[u8]> = extra.iter().filter(stays).flat_map(|path| above(path)).collect();
    for path in &extra {
        if !(stays(&path) || (needed.contains(path) && !is_output(path))) {
            drop.insert(path);
        }
    }
    let highest = drop.iter().filter(|path| !above(path).any(|path| drop.contains(path)));
    steps.drop = highest.map(|path| path.to_vec()).collect();
    // What is removed with a folder above it has to come again.
    let gone = |path: &[u8]| above(path).any(|path| drop.contains(path));
    let brought: BTreeSet<&[u8]> = steps.put.iter().map(|(path, _)| path.as_slice()).collect();
    let again = wanted.iter().filter(|(path, _)| brought.contains(path.as_slice()) || gone(path));
    steps.put = again.cloned().collect();
    steps
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::digest::Blob;

    fn file(content: &str) -> Entry {
        Entry::File { mode: 0o644, blob: Blob::of(content.as_bytes()) }
    }

    fn folder() -> Entry {
        Entry::Folder { mode: 0o755, tree: Digest::of(b"") }
    }

    fn tree(entries: &[(&str, Entry)]) -> Vec<(Vec<u8>, Entry)> {
        entries.iter().map(|(path, entry)| (path.as_bytes().to_vec(), entry.clone())).collect()
    }

    fn names(paths: &[Vec<u8>]) -> Vec<String> {
        paths.iter().map(|path| String::from_utf8_lossy(path).into_owned()).collect()
    }

    #[test]
    fn only_what_differs_goes() {
        let before = tree(&[("a", folder()), ("a/x", file("1")), ("a/y", file("2")), ("b", file("3"))]);
        let after = tree(&[("a", folder()), ("a/x", file("1")), ("a/y", file("4")), ("c", file("3"))]);
        let steps = steps(&there(&before), &after, &[], &Globs::new::<&str>(&[]).unwrap());
        assert_eq!(names(&steps.drop), ["a/y", "b"]);
        assert_eq!(names(&steps.put.into_iter().map(|(path, _)| path).collect::<Vec<_>>()), ["a/y", "c"]);
    }

    #[test]
    fn what_is_spared_stays_but_for_outputs() {
        let wanted = tree(&[("in", file("1"))]);
        let mut found = there(&wanted);
        for (path, kind) in [
            ("build", b'd'),
            ("build/deep", b'd'),
            ("build/deep/o", b'f'),
            ("build/out", b'f'),
            ("left", b'd'),
            ("left/over", b'f'),
        ] {
            found.insert(path.into(), Have { kind, mode: 0o755, called: None });
        }
        let spare = Globs::new(&["build/**"]).unwrap();
        let steps = steps(&found, &wanted, &[b"build/out".to_vec()], &spare);
        assert_eq!(names(&steps.drop), ["build/out", "left"]);
        assert_eq!(steps.put, []);
    }

    #[test]
    fn a_file_in_place_of_a_folder() {
        let before = tree(&[("a", folder()), ("a/x", file("1"))]);
        let after = tree(&[("a", file("1"))]);
        let none = Globs::new::<&str>(&[]).unwrap();
        let there_and = steps(&there(&before), &after, &[], &none);
        assert_eq!((names(&there_and.drop), there_and.put), (vec!["a".to_string()], after.clone()));
        let and_back = steps(&there(&after), &before, &[], &none);
        assert_eq!((names(&and_back.drop), and_back.put), (vec!["a".to_string()], before));
    }

    /// Does what the steps say.
    fn done(mut there: There, steps: &Steps) -> There {
        for gone in &steps.drop {
            there.retain(|path, _| path != gone && !above(path).any(|above| above == gone.as_slice()));
        }
        for (path, entry) in &steps.put {
            let blocked = there
                .get(path)
                .is_some_and(|have| have.kind != b'd' || !matches!(entry, Entry::Folder { .. }));
            assert!(!blocked, "`{}` is in the way", String::from_utf8_lossy(path));
            assert!(above(path).all(|above| there.get(above).is_some_and(|have| have.kind == b'd')));
            there.extend(super::there(&[(path.clone(), entry.clone())]));
        }
        there
    }

    fn some_tree() -> impl Strategy<Value = Vec<(Vec<u8>, Entry)>> {
        let path = prop::collection::vec(prop_oneof![Just("a"), Just("b"), Just("a-b")], 1..4);
        prop::collection::btree_map(path, 0..3u8, 0..8).prop_map(|files| {
            let mut all: BTreeMap<Vec<u8>, Entry> = BTreeMap::new();
            for (names, content) in files {
                let path = names.join("/").into_bytes();
                let blocked = above(&path)
                    .any(|above| all.get(above).is_some_and(|e| !matches!(e, Entry::Folder { .. })));
                if blocked || all.contains_key(&path) {
                    continue;
                }
                for above in above(&path) {
                    all.insert(above.to_vec(), folder());
                }
                all.insert(path, file(&content.to_string()));
            }
            let mut all: Vec<_> = all.into_iter().collect();
            all.sort_by(|(a, _), (b, _)| a.split(|x| *x == b'/').cmp(b.split(|x| *x == b'/')));
            all
        })
    }

    proptest! {
        #[test]
        fn any_folder_becomes_any_tree(
            before in some_tree(), after in some_tree(), unknown in prop::collection::vec(any::<bool>(), 24),
            output in some_tree(),
        ) {
            let mut found = there(&before);
            for (have, unknown) in found.values_mut().zip(unknown) {
                if unknown {
                    have.called = None;
                }
            }
            let outputs: Vec<Vec<u8>> = output.into_iter().take(2).map(|(path, _)| path).collect();
            let spare = Globs::new(&["b/**"]).unwrap();
            let steps = steps(&found, &after, &outputs, &spare);
            let now = done(found, &steps);
            for (path, entry) in &after {
                prop_assert!(is(&now[path], entry), "{}", String::from_utf8_lossy(path));
            }
            let wanted: BTreeSet<_> = after.iter().map(|(path, _)| path.clone()).collect();
            for path in now.keys().filter(|path| !wanted.contains(*path)) {
                let spared = spare.takes(path) || now.keys().any(|other| above(other).any(|a| a == path.as_slice()));
                prop_assert!(spared, "{}", String::from_utf8_lossy(path));
            }
        }
    }
}
