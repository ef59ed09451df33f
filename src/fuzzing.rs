//! What the fuzzers drive, and what must hold for any input. The suite runs it over the corpus.

use std::collections::BTreeMap;

use crate::patch::{self, AlreadyApplied, Change, Entry, Files, Options, ZeroContext};

/// Folders and files by path.
struct Tree(BTreeMap<Vec<u8>, Entry>);

impl Files for Tree {
    fn entry(&self, path: &[u8]) -> crate::error::Result<Option<Entry>> {
        let inside = |known: &Vec<u8>| known.starts_with(path) && known.get(path.len()) == Some(&b'/');
        let folder = || self.0.keys().any(inside).then_some(Entry::Folder);
        Ok(self.0.get(path).cloned().or_else(folder))
    }

    fn names(&self, folder: &[u8]) -> crate::error::Result<Vec<Vec<u8>>> {
        let inside = self.0.keys().filter_map(|path| path.strip_prefix(folder)?.strip_prefix(b"/"));
        let first = |rest: &[u8]| rest.split(|byte| *byte == b'/').next().unwrap_or_default().to_vec();
        Ok(inside.map(first).collect())
    }
}

/// Applies a patch to a tree. The input is a line of records, each ended by the byte 0x1e: options as
/// letters, then path and content of each file; the rest is the patch.
///
/// # Panics
/// If something is wrong with the result.
pub fn patch(input: &[u8]) {
    let mut records: Vec<&[u8]> = input.split(|byte| *byte == 0x1e).collect();
    let patch = records.pop().unwrap_or_default();
    let (letters, files) = records.split_first().map_or((&[][..], &[][..]), |(one, rest)| (*one, rest));
    let has = |letter: u8| letters.contains(&letter);
    let options = Options {
        strip: usize::from(has(b'1')) + 2 * usize::from(has(b'2')),
        fuzz: if has(b'f') { 0 } else { 2 },
        already_applied: if has(b'a') { AlreadyApplied::Skip } else { AlreadyApplied::Fail },
        zero_context: if has(b'z') { ZeroContext::Allow } else { ZeroContext::Refuse },
        basedir: has(b'b').then(|| b"base".to_vec()),
    };
    let mut tree = Tree(BTreeMap::new());
    for [path, content] in files.as_chunks().0 {
        let fits = |part: &[u8]| !part.is_empty() && part != b"." && part != b".." && !part.contains(&0);
        if path.split(|byte| *byte == b'/').all(fits) {
            let executable = content.starts_with(b"#!");
            tree.0.insert(path.to_vec(), Entry::File { content: content.to_vec(), executable });
        }
    }
    let size: usize = tree
        .0
        .values()
        .map(|entry| if let Entry::File { content, .. } = entry { content.len() } else { 0 })
        .sum();
    let Ok(parsed) = patch::parse("patch", patch, &options) else { return };
    let Ok(applied) = patch::apply(&parsed, &tree, &options) else { return };
    for (path, change) in &applied.changes {
        for part in path.split(|byte| *byte == b'/') {
            assert!(!part.is_empty() && part != b"." && part != b"..", "leaves the tree");
            assert!(!part.eq_ignore_ascii_case(b".git"), "goes into a repository");
        }
        if let Some(base) = &options.basedir {
            assert!(path.starts_with(base), "leaves the base folder");
        }
        match change {
            // A delta may copy the same bytes again and again, but only as far as it says beforehand.
            Change::Write { content, .. } if !patch.windows(6).any(|part| part == b"delta ") => {
                assert!(content.len() <= size + patch.len() * 1100, "more bytes than went in");
            }
            Change::Write { .. } | Change::Link(_) => {}
            Change::Remove => assert!(tree.0.contains_key(path), "removes what is not there"),
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_corpus_does_no_harm() {
        let folder = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/patch"));
        let names = crate::host::fs::list(folder).unwrap();
        for name in &names {
            super::patch(&std::fs::read(folder.join(name)).unwrap());
        }
        assert!(names.len() > 50, "the corpus has {} inputs", names.len());
    }
}
