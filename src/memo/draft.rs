//! A memo while it is being made: the tasks that were looked at, and those carried over from the memo
//! before, whose bytes are copied as they are.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{
    ABSENT, Entry, FLAGS_AT, FRONT_SUM, HEADER, Head, LENGTHS, MAGIC, Memo, RACY, REST_SUM, STAMP, TARGET,
    WAY, look, stamp,
};
use crate::cache::local::{Fact, Look};
use crate::digest::Digest;
use crate::error::Result;
use crate::host::fs::{self, Durability, Stamp};
use crate::work::Env;

/// A memo that is being made.
pub struct Draft {
    head: Head,
    /// The indices of paths, for each way to look at them.
    known: BTreeMap<Vec<u8>, [Option<u32>; 3]>,
    stamps: Vec<u8>,
    paths: Vec<u8>,
    tasks: Vec<u8>,
    /// The moment before the run looked at anything.
    began: i64,
}

impl Draft {
    /// A memo of a run that began at `began` (nanoseconds since 1970). `common` is what holds for all
    /// tasks.
    pub fn new(began: i64, common: &[Fact]) -> Self {
        let mut draft = Self {
            head: Head { boot: fs::boot_id(), ..Head::default() },
            known: BTreeMap::new(),
            stamps: Vec::new(),
            paths: Vec::new(),
            tasks: Vec::new(),
            began,
        };
        for fact in common {
            draft.add(fact);
        }
        draft.head.common = draft.stamps.len() / STAMP;
        draft
    }

    /// So many hosts are to be asked at once.
    pub fn set_parallel(&mut self, parallel: usize) {
        self.head.parallel = parallel;
    }

    fn add(&mut self, fact: &Fact) -> u32 {
        match self.known.get(&fact.path).and_then(|known| known[fact.look as usize]) {
            Some(index) => {
                self.seen_again(index, fact.stamp);
                index
            }
            None => {
                let index = self.push(fact.stamp, fact.look, &fact.path);
                self.known.entry(fact.path.clone()).or_default()[fact.look as usize] = Some(index);
                index
            }
        }
    }

    fn push(&mut self, stamp: Option<Stamp>, look: Look, path: &[u8]) -> u32 {
        let (Ok(index), Ok(path_at)) =
            (u32::try_from(self.stamps.len() / STAMP), u32::try_from(self.paths.len()))
        else {
            panic!("BUG: a memo of more than 4 GiB")
        };
        let racy = stamp.is_some_and(|stamp| stamp.is_racy(self.began));
        let set = |flag: u8, is: bool| if is { flag } else { 0 };
        let looked = set(TARGET, look == Look::Target) | set(WAY, look == Look::Way);
        let flags = looked | set(ABSENT, stamp.is_none()) | set(RACY, racy);
        let stamp = stamp.unwrap_or(Stamp { dev: 0, ino: 0, size: 0, mtime: 0, ctime: 0 });
        for number in [stamp.dev, stamp.ino, stamp.size, stamp.mtime as u64, stamp.ctime as u64] {
            self.stamps.extend_from_slice(&number.to_le_bytes());
        }
        self.stamps.extend_from_slice(&[flags, 0, 0, 0]);
        self.stamps.extend_from_slice(&path_at.to_le_bytes());
        self.paths.extend_from_slice(path);
        self.paths.push(0);
        index
    }

    /// If a path had another stamp before, it changed while the run went on: one of the two is wrong.
    fn seen_again(&mut self, index: u32, now: Option<Stamp>) {
        let record = &mut self.stamps[index as usize * STAMP..][..STAMP];
        let before = (record[FLAGS_AT] & ABSENT == 0).then(|| stamp(record));
        if before != now {
            record[FLAGS_AT] |= RACY;
        }
    }

    fn variable(&mut self, name: &str, env: &Env) {
        use std::os::unix::ffi::OsStrExt;
        let digest = env.value(name).map(|value| Digest::of(value.as_bytes()));
        self.head.variables.insert(name.to_string(), digest);
    }

    /// Adds a task that is done, and what it looked at.
    pub fn task(
        &mut self,
        name: &str,
        entry: &Entry,
        facts: &[Fact],
        env: &Env,
        variables: &BTreeSet<String>,
    ) {
        let mut paths: Vec<u32> = facts.iter().map(|fact| self.add(fact)).collect();
        paths.sort_unstable();
        paths.dedup();
        for name in variables {
            self.variable(name, env);
        }
        entry.encode(name, &paths, &mut self.tasks);
    }

    /// Carries tasks over from an earlier memo, with what they looked at then.
    pub fn carry(&mut self, tasks: &BTreeMap<&str, &Entry>, memo: &Memo, env: &Env) {
        if tasks.is_empty() {
            return;
        }
        for name in memo.head.variables.keys() {
            self.variable(name, env);
        }
        let mut moved: Vec<Option<u32>> = vec![None; memo.count()];
        let mut paths = Vec::new();
        for (name, entry) in tasks {
            paths.clear();
            for &old in &entry.paths {
                let index = moved[old as usize].unwrap_or_else(|| self.carry_path(memo, old as usize));
                moved[old as usize] = Some(index);
                paths.push(index);
            }
            paths.sort_unstable();
            paths.dedup();
            entry.encode(name, &paths, &mut self.tasks);
        }
    }

    fn carry_path(&mut self, memo: &Memo, old: usize) -> u32 {
        let (record, path) = (memo.record(old), memo.path(old).unwrap_or_default().to_bytes());
        let flags = record[FLAGS_AT];
        let seen = (flags & ABSENT == 0).then(|| stamp(record));
        let look = look(flags);
        match self.known.get(path).and_then(|known| known[look as usize]) {
            Some(index) => {
                self.seen_again(index, seen);
                index
            }
            // No other path of the earlier memo is the same, and its own come last: nobody looks it up.
            None => self.push(seen, look, path),
        }
    }

    /// Writes the memo.
    pub fn write(
        mut self,
        path: &Path,
        complete: bool,
        tasks: usize,
        effects: Vec<(String, serde_json::Value)>,
        remote: Vec<serde_json::Value>,
        outline: &[u8],
    ) -> Result<()> {
        self.head.complete = complete;
        self.head.tasks = tasks;
        self.head.effects = effects;
        self.head.remote = remote;
        let head = match serde_json::to_vec(&self.head) {
            Ok(bytes) => bytes,
            Err(error) => panic!("BUG: a memo cannot be written: {error}"),
        };
        let tasks = self.tasks.len();
        let mut rest = self.tasks;
        rest.extend_from_slice(outline);
        let size = HEADER + head.len() + self.stamps.len() + self.paths.len() + rest.len();
        let mut bytes = Vec::with_capacity(size);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&[0; 32]);
        let stamps = self.stamps.len() / STAMP;
        for length in [head.len(), stamps, self.paths.len(), tasks, outline.len()] {
            bytes.extend_from_slice(&(length as u64).to_le_bytes());
        }
        bytes.extend_from_slice(blake3::hash(&rest).as_bytes());
        debug_assert_eq!((bytes.len(), LENGTHS + 5 * 8), (HEADER, REST_SUM));
        for part in [head, self.stamps, self.paths] {
            bytes.extend_from_slice(&part);
        }
        let sum = blake3::hash(&bytes[LENGTHS..]);
        bytes[FRONT_SUM..LENGTHS].copy_from_slice(sum.as_bytes());
        bytes.extend_from_slice(&rest);
        fs::write(path, &bytes, 0o644, Durability::Cache)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Changes;
    use super::*;

    const OLD: i64 = 1_000_000_000;

    fn fact(root: &Path, name: &str) -> Fact {
        let found = fs::status(root.join(name), fs::Links::Keep).unwrap();
        Fact { path: name.into(), look: Look::Itself, stamp: found.map(|found| found.stamp) }
    }

    fn entry(value: &[u8]) -> Entry {
        Entry::new(Some(Digest::of(b"key")), Some(Digest::of(value)), BTreeMap::new())
    }

    /// A project with three files, and a memo of two tasks that read two of them each.
    fn project() -> (tempfile::TempDir, Env) {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c"] {
            fs::write(&folder.path().join(name), name.as_bytes(), 0o644, Durability::Cache).unwrap();
        }
        (folder, Env(BTreeMap::new()))
    }

    fn remember(root: &Path, env: &Env, began: i64) -> Memo {
        let mut draft = Draft::new(began, &[]);
        let none = BTreeSet::new();
        draft.task("x", &entry(b"x"), &[fact(root, "a"), fact(root, "b")], env, &none);
        draft.task("y", &entry(b"y"), &[fact(root, "c"), fact(root, "b"), fact(root, "no")], env, &none);
        draft.write(&root.join("memo"), true, 2, Vec::new(), Vec::new(), b"outline").unwrap();
        Memo::read(&root.join("memo")).unwrap()
    }

    /// A moment at which the stamps of now are no longer young.
    fn later() -> i64 {
        fs::now() + 1_000_000_000
    }

    fn names(memo: &Memo, changes: &Changes) -> Vec<String> {
        let none = BTreeSet::new();
        let changed = match changes {
            Changes::None => &none,
            Changes::Inputs(changed) => changed,
            Changes::All => return Vec::new(),
        };
        memo.known(changed).unwrap().entries.into_keys().collect()
    }

    #[test]
    fn a_change_takes_out_the_tasks_that_read_it() {
        let (folder, env) = project();
        let root = folder.path();
        let memo = remember(root, &env, later());
        assert_eq!(memo.changes(root, &env), Changes::None);
        assert_eq!(names(&memo, &Changes::None), ["x", "y"]);
        for (name, left) in [("a", vec!["y"]), ("no", vec!["x"]), ("b", vec![])] {
            let memo = remember(root, &env, later());
            fs::write(&root.join(name), b"other", 0o644, Durability::Cache).unwrap();
            assert_eq!(names(&memo, &memo.changes(root, &env)), left, "{name}");
        }
    }

    #[test]
    fn young_stamps_are_not_trusted() {
        let (folder, env) = project();
        let memo = remember(folder.path(), &env, OLD);
        assert_eq!(names(&memo, &memo.changes(folder.path(), &env)), Vec::<String>::new());
    }

    #[test]
    fn tasks_are_carried_over_with_what_they_saw() {
        let (folder, env) = project();
        let root = folder.path();
        let memo = remember(root, &env, later());
        fs::write(&root.join("a"), b"other", 0o644, Durability::Cache).unwrap();
        let Changes::Inputs(changed) = memo.changes(root, &env) else { panic!() };
        let entries = memo.known(&changed).unwrap().entries;
        let carried: BTreeMap<&str, &Entry> =
            entries.iter().map(|(name, entry)| (name.as_str(), entry)).collect();
        let mut draft = Draft::new(later(), &[]);
        draft.task("x", &entry(b"z"), &[fact(root, "a"), fact(root, "b")], &env, &BTreeSet::new());
        draft.carry(&carried, &memo, &env);
        draft.write(&root.join("memo"), true, 2, Vec::new(), Vec::new(), b"outline").unwrap();
        let memo = Memo::read(&root.join("memo")).unwrap();
        assert_eq!((memo.count(), memo.changes(root, &env)), (4, Changes::None));
        let entries = memo.known(&BTreeSet::new()).unwrap().entries;
        assert_eq!(entries["x"].value, Some(Digest::of(b"z")));
        assert_eq!(entries["y"].value, Some(Digest::of(b"y")));
        fs::write(&root.join("c"), b"other", 0o644, Durability::Cache).unwrap();
        assert_eq!(names(&memo, &memo.changes(root, &env)), ["x"]);
    }

    #[test]
    fn what_changed_during_the_run_is_looked_at_again() {
        let (folder, env) = project();
        let root = folder.path();
        let memo = remember(root, &env, later());
        let entries = memo.known(&BTreeSet::new()).unwrap().entries;
        let carried: BTreeMap<&str, &Entry> = [("x", &entries["x"])].into();
        fs::write(&root.join("b"), b"other", 0o644, Durability::Cache).unwrap();
        let mut draft = Draft::new(later(), &[]);
        draft.task("y", &entry(b"y"), &[fact(root, "b")], &env, &BTreeSet::new());
        draft.carry(&carried, &memo, &env);
        draft.write(&root.join("memo"), true, 2, Vec::new(), Vec::new(), b"outline").unwrap();
        let memo = Memo::read(&root.join("memo")).unwrap();
        assert_eq!(names(&memo, &memo.changes(root, &env)), Vec::<String>::new());
    }

    #[test]
    fn a_damaged_memo_is_none() {
        let (folder, env) = project();
        let path = folder.path().join("memo");
        remember(folder.path(), &env, later());
        let good = fs::read(&path, 1 << 20).unwrap().unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, &bad, 0o644, Durability::Cache).unwrap();
            let known = Memo::read(&path).and_then(|memo| memo.known(&BTreeSet::new()));
            assert_eq!(known, None, "byte {at}");
            fs::write(&path, &good[..at], 0o644, Durability::Cache).unwrap();
            assert!(Memo::read(&path).is_none(), "{at} bytes");
        }
    }
}
