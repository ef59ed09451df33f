//! What may be in a layer, and that other programs read its tar as it was meant.

use std::io::Read;

use proptest::prelude::*;
use proptest::strategy::ValueTree;

use std::collections::BTreeMap;

use super::layer::*;
use crate::digest::{Blob, Digest};
use crate::oci::samples::{Memory, folder_of, tool};
use crate::recipe::Part;

const PARENTS: Attributes = Attributes { mode: 0o755, uid: 0, gid: 0, mtime: 0 };

fn entry(path: &str, kind: Kind, mode: u32) -> Entry {
    let attributes = Attributes { mode, ..Attributes::default() };
    Entry { path: path.into(), kind, attributes, xattrs: Xattrs::new() }
}

fn file(path: &str) -> Entry {
    entry(path, Kind::File(Part::Inline(b"x".to_vec())), 0o644)
}

fn refused(entries: &[Entry]) -> String {
    pack(entries, PARENTS).unwrap_err().to_string()
}

#[test]
fn golden() {
    let mut memory = Memory::default();
    let entries = [
        entry("usr/local/bin/manager", Kind::File(Part::Blob(memory.add(b"\x7fELF manager"))), 0o755),
        entry("etc", Kind::Folder, 0o700),
        entry("etc/localtime", Kind::Link(b"/usr/share/zoneinfo/UTC".to_vec()), 0),
        Entry {
            path: format!("opt/{}/{}", "d".repeat(200), "ü".repeat(90)).into_bytes(),
            kind: Kind::File(memory.add_recipe(b"made by a recipe")),
            attributes: Attributes { mode: 0o4750, uid: 3_000_000, gid: LARGEST_OWNER, mtime: 1 << 40 },
            xattrs: Xattrs::new(),
        },
    ];
    let bytes = memory.bytes(&pack(&entries, PARENTS).unwrap());
    assert_eq!(bytes.len() % 512, 0);
    assert_eq!(
        Digest::sha256_of(&bytes).to_string(),
        "sha256:67fe6405aa523e5c51408e78b680672580b4e23b52206a87bb5364cc37b85cf7"
    );
}

#[test]
fn an_empty_layer_is_two_blocks() {
    assert_eq!(Memory::default().bytes(&pack(&[], PARENTS).unwrap()), [0; 1024]);
}

#[test]
fn odd_paths_are_refused() {
    for path in
        ["", "/", "/a", "a/", "a//b", ".", "./a", "a/.", "..", "a/../b", "a\0b", ".wh.a", "a/.wh..wh..opq"]
    {
        refused(&[file(path)]);
    }
    refused(&[file(&"a".repeat(256))]);
    refused(&[file(&"a/".repeat(3000))]);
    refused(&[entry("a", Kind::Folder, 0o40755)]);
    let owner = Attributes { gid: LARGEST_OWNER + 1, ..PARENTS };
    refused(&[Entry { attributes: owner, ..file("a") }]);
    refused(&[entry("a", Kind::Link(vec![]), 0)]);
    refused(&[entry("a", Kind::Link(b"a\0".to_vec()), 0)]);
    assert_eq!(
        refused(&[file("a\x1b[2J/../b")]),
        "`a\\u{1b}[2J/../b` cannot be in a layer: the path is not plain"
    );
}

#[test]
fn clashes_are_refused() {
    assert_eq!(refused(&[file("a"), file("a")]), "two entries of a layer are `a`");
    refused(&[entry("a", Kind::Folder, 0o755), file("a")]);
    assert_eq!(refused(&[file("a/b/c"), file("a")]), "`a/b/c` cannot be inside `a`, which is no folder");
    refused(&[file("a/b"), file("a/b/c"), file("a/c")]);
    refused(&[entry("lib", Kind::Link(b"usr/lib".to_vec()), 0), file("lib/x")]);
}

#[test]
fn a_size_over_eight_gibibytes_has_a_record() {
    let blob = Blob { digest: Digest::of(b"big"), size: 1 << 33 };
    let recipe = pack(&[entry("big", Kind::File(Part::Blob(blob)), 0o644)], PARENTS).unwrap();
    let [Part::Inline(head), Part::Blob(middle), Part::Inline(end)] = recipe.parts() else { panic!() };
    assert!(String::from_utf8_lossy(head).contains("19 size=8589934592\n"));
    assert_eq!((head.len(), *middle, end.len()), (3 * 512, blob, 1024));
}

/// Entries that can live together: every last name is its own, folders come from a small set.
fn entries() -> impl Strategy<Value = Vec<(Entry, Vec<u8>)>> {
    let names = prop_oneof![
        "[a-z.-]{1,12}",
        Just("ä".repeat(30)),
        Just("n".repeat(90)),
        Just("n".repeat(250)),
        Just("with space".to_string()),
    ];
    let folders = prop::collection::vec("[ab]{1}|[dD]{40}", 0..5);
    let numbers =
        |largest| prop_oneof![Just(0), 0_u64..3000, Just(2_097_151), Just(2_097_152), Just(largest)];
    let one = (
        folders,
        names,
        0..3,
        0_u32..0o10000,
        (numbers(LARGEST_OWNER), numbers(LARGEST_OWNER), numbers(1 << 35)),
        any::<Vec<u8>>(),
    );
    prop::collection::vec(one, 0..12).prop_map(|list| {
        let mut made = Vec::new();
        for (at, (folders, name, kind, mode, (uid, gid, mtime), content)) in list.into_iter().enumerate() {
            let mut path = folders.join("/");
            if !path.is_empty() {
                path.push('/');
            }
            path.push_str(&format!("{at}{}", name.chars().take(250).collect::<String>()));
            let kind = match kind {
                0 => Kind::File(Part::Inline(content.clone())),
                1 => Kind::Folder,
                _ => Kind::Link(format!("../{name}").repeat(1 + content.len() / 8).into_bytes()),
            };
            let attributes = Attributes { mode, uid, gid, mtime };
            let xattrs = Xattrs::new();
            made.push((Entry { path: path.into_bytes(), kind, attributes, xattrs }, content));
        }
        made
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn order_does_not_count_and_the_tar_crate_agrees(list in entries(), turn in 0_usize..12) {
        let mut given: Vec<Entry> = list.iter().map(|(entry, _)| entry.clone()).collect();
        let recipe = pack(&given, PARENTS).unwrap();
        let bytes = Memory::default().bytes(&recipe);
        prop_assert_eq!(recipe.size(), bytes.len() as u64);
        let by = turn.min(given.len());
        given.rotate_left(by);
        given.reverse();
        prop_assert_eq!(&pack(&given, PARENTS).unwrap(), &recipe);

        let mut expected: BTreeMap<Vec<u8>, &Entry> = given.iter().map(|e| (e.path.clone(), e)).collect();
        let mut archive = ::tar::Archive::new(&bytes[..]);
        let mut before: Option<Vec<u8>> = None;
        for member in archive.entries().unwrap() {
            let mut member = member.unwrap();
            let mut path = member.path_bytes().into_owned();
            if member.header().entry_type().is_dir() {
                prop_assert_eq!(path.pop(), Some(b'/'));
            }
            prop_assert!(before.as_ref() < Some(&path));
            before = Some(path.clone());
            let mut content = Vec::new();
            member.read_to_end(&mut content).unwrap();
            let (uid, gid) = (member.header().uid().unwrap(), member.header().gid().unwrap());
            let Some(entry) = expected.remove(&path) else {
                prop_assert!(member.header().entry_type().is_dir());
                prop_assert_eq!(member.header().mode().unwrap(), 0o755);
                continue;
            };
            if entry.attributes.uid < 1 << 21 {
                prop_assert_eq!(uid, entry.attributes.uid);
            }
            if entry.attributes.gid < 1 << 21 {
                prop_assert_eq!(gid, entry.attributes.gid);
            }
            match &entry.kind {
                Kind::File(part) => {
                    prop_assert_eq!(&Part::Inline(content), part);
                    prop_assert_eq!(member.header().mode().unwrap(), entry.attributes.mode);
                }
                Kind::Folder => prop_assert_eq!(member.header().mode().unwrap(), entry.attributes.mode),
                Kind::Link(target) => {
                    prop_assert_eq!(member.link_name_bytes().unwrap().into_owned(), target.clone());
                }
                Kind::Nothing => panic!("nothing is in the list"),
            }
        }
        prop_assert!(expected.is_empty());
    }
}

#[test]
fn gnu_tar_lists_the_same() {
    let strategy = entries();
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for _ in 0..24 {
        let list = strategy.new_tree(&mut runner).unwrap().current();
        let given: Vec<Entry> = list.into_iter().map(|(entry, _)| entry).collect();
        let bytes = Memory::default().bytes(&pack(&given, PARENTS).unwrap());
        let folder = folder_of(&[("layer.tar", &bytes)]);
        let listing = tool(
            folder.path(),
            &[
                "tar",
                "--numeric-owner",
                "--full-time",
                "--utc",
                "-tvf",
                "layer.tar",
                "--quoting-style=literal",
                "--show-transformed-names",
            ],
        );
        for entry in given {
            let a = entry.attributes;
            let (letter, size, mode) = match &entry.kind {
                Kind::File(part) => ('-', part.size(), a.mode),
                Kind::Folder => ('d', 0, a.mode),
                Kind::Link(_) => ('l', 0, 0o777),
                Kind::Nothing => panic!("nothing is in the list"),
            };
            let name = String::from_utf8(entry.path).unwrap();
            let tail = match entry.kind {
                Kind::File(_) => format!(" {name}\n"),
                Kind::Folder => format!(" {name}/\n"),
                Kind::Link(target) => format!(" {name} -> {}\n", String::from_utf8_lossy(&target)),
                Kind::Nothing => panic!("nothing is in the list"),
            };
            let at = listing.find(&tail).unwrap_or_else(|| panic!("no {tail:?} in {listing}"));
            let line = listing[..at].rsplit('\n').next().unwrap();
            let fields: Vec<&str> = line.split_whitespace().collect();
            assert_eq!(fields[0], format!("{letter}{}", mode_words(mode)), "{line}{tail}");
            assert_eq!(fields[1], format!("{}/{}", a.uid, a.gid), "{line}{tail}");
            assert_eq!(fields[2], size.to_string(), "{line}{tail}");
            if a.mtime == 2_097_152 {
                assert_eq!(fields[3..5], ["1970-01-25", "06:32:32"], "{line}{tail}");
            }
            if a.mtime == 1 << 35 {
                assert_eq!(fields[3..5], ["3058-10-26", "03:46:08"], "{line}{tail}");
            }
        }
    }
}

fn mode_words(mode: u32) -> String {
    let mut text: Vec<char> = "rwxrwxrwx".chars().collect();
    for (at, c) in text.iter_mut().enumerate() {
        if mode & (0o400 >> at) == 0 {
            *c = '-';
        }
    }
    for (bit, at, set, unset) in [(0o4000, 2, 's', 'S'), (0o2000, 5, 's', 'S'), (0o1000, 8, 't', 'T')] {
        if mode & bit != 0 {
            text[at] = if text[at] == 'x' { set } else { unset };
        }
    }
    text.into_iter().collect()
}
