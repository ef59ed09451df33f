//! The patches of a task on a new tree, one after the other: as they are, with true places, or merged with
//! what the old tree tells about them. Writes no patch file.

use std::collections::BTreeMap;
use std::path::Path;

use super::back::apply;
use super::open::Opened;
use super::rebase_state::{Came, Done, Old, Open, State};
use super::scratch;
use crate::cache::tree::{Entry as Stored, Holds};
use crate::digest::Digest;
use crate::error::{Error, Failure, Result};
use crate::patch::{
    AlreadyApplied, Change, Entry, Files, Keep, Labels, Merged, Options, Overlay, Rewriting, Wanted, Why,
    after, merge, real,
};
use crate::tasks::patch_set::{self, Tree};

/// Patches on their way to a new tree.
pub struct Merging<'a> {
    /// The patches and the new tree.
    pub opened: &'a Opened<'a>,
    /// Where an earlier attempt stopped.
    pub resume: Option<&'a State>,
    /// Where that one's conflict was resolved.
    pub folder: &'a Path,
    /// What the patches were made for, if it is known yet.
    pub old: Option<&'a Old>,
}

/// How far it went.
pub struct Far {
    /// The tree that the first patch goes to.
    pub tree: Digest,
    /// The patches that are done.
    pub done: Vec<Done>,
    /// Why not all are.
    pub stopped: Stopped,
}

/// Why it went no further.
pub enum Stopped {
    /// It is at the end.
    No,
    /// A patch does not go in, for this reason, and what it was made for is wanted.
    NeedsOld(String, Failure),
    /// Somebody has to decide.
    Conflict {
        /// What.
        open: Open,
        /// The tree to begin with, marks included.
        now: Digest,
        /// For each path in conflict why.
        whys: Vec<Why>,
    },
}

/// What one patch comes to.
enum One {
    Done(Came, Vec<u8>, Wanted),
    NeedsOld(Failure),
    Conflict(Wanted, Vec<(Vec<u8>, Why)>),
}

impl Merging<'_> {
    /// Goes as far as it can.
    pub fn run(&self) -> Result<Far> {
        let (cas, set) = (&self.opened.cache.cas, &self.opened.set);
        let tree = Tree::new(cas, set.tree);
        let mut now = Overlay::new(&tree);
        let mut far = Far { tree: set.tree, done: Vec::new(), stopped: Stopped::No };
        for (index, file) in set.files.iter().enumerate() {
            let text = patch_set::text(self.opened.root, &file.name)?;
            let one = match self.resume {
                Some(state) if index < state.done.len() => self.again(&state.done[index], &now)?,
                Some(state) if index == state.done.len() => self.decided(state, &text, &now)?,
                _ => self.one(&file.name, &text, &now)?,
            };
            match one {
                One::Done(came, new, wanted) => {
                    now.lay(wanted);
                    far.done.push(Done { name: file.name.clone(), came, was: text, now: new });
                }
                One::NeedsOld(why) => {
                    far.stopped = Stopped::NeedsOld(file.name.clone(), why);
                    return Ok(far);
                }
                One::Conflict(wanted, conflicts) => {
                    let before = patch_set::store(cas, set.tree, now.changes().clone())?;
                    let now = patch_set::store(cas, before, wanted)?;
                    let (paths, whys) = conflicts.into_iter().unzip();
                    let open = Open { name: file.name.clone(), was: Digest::of(&text), before, paths };
                    far.stopped = Stopped::Conflict { open, now, whys };
                    return Ok(far);
                }
            }
        }
        Ok(far)
    }

    fn options(&self) -> &Options {
        &self.opened.set.options
    }

    /// A patch that was done by an earlier attempt.
    fn again(&self, done: &Done, now: &Overlay<'_>) -> Result<One> {
        let wanted = match done.came {
            Came::Taken => Wanted::new(),
            _ => real(apply(&done.name, &done.now, now, self.options())?.changes, now)?,
        };
        Ok(One::Done(done.came, done.now.clone(), wanted))
    }

    /// The patch whose conflict was resolved.
    fn decided(&self, state: &State, text: &[u8], now: &Overlay<'_>) -> Result<One> {
        let Some(open) = &state.open else { panic!("BUG: nothing was to be decided") };
        let cas = &self.opened.cache.cas;
        // The tree before it is made again if the cache has lost it.
        patch_set::store(cas, self.opened.set.tree, now.changes().clone())?;
        let known = open.paths.iter().cloned().collect();
        let wanted = scratch::changes(cas, open.before, self.folder, &known)?;
        self.written(&open.name, text, wanted, now, Came::Decided)
    }

    /// The new text of a patch.
    fn written(
        &self,
        name: &str,
        text: &[u8],
        wanted: Wanted,
        now: &Overlay<'_>,
        came: Came,
    ) -> Result<One> {
        if wanted.is_empty() {
            return Ok(One::Done(Came::Taken, text.to_vec(), wanted));
        }
        let options = self.options();
        let asked = Rewriting { name, text, options, before: now, wanted: &wanted, keep: Keep::Exact };
        let new = asked.rewrite()?;
        let came = if new == text { Came::Same } else { came };
        Ok(One::Done(came, new, wanted))
    }

    fn one(&self, name: &str, text: &[u8], now: &Overlay<'_>) -> Result<One> {
        let why = match apply(name, text, now, self.options()) {
            Ok(applied) if applied.notes.is_empty() => {
                return Ok(One::Done(Came::Same, text.to_vec(), real(applied.changes, now)?));
            }
            Ok(applied) => {
                let wanted = real(applied.changes, now)?;
                return self.written(name, text, wanted, now, Came::Renewed);
            }
            Err(Error::Failed(why)) => why,
            Err(other) => return Err(other),
        };
        let skip = Options { already_applied: AlreadyApplied::Skip, ..self.options().clone() };
        match apply(name, text, now, &skip) {
            Ok(applied) => {
                let wanted = real(applied.changes, now)?;
                return self.written(name, text, wanted, now, Came::Merged);
            }
            Err(Error::Failed(_)) => {}
            Err(other) => return Err(other),
        }
        match self.old {
            None => Ok(One::NeedsOld(why)),
            Some(old) => match self.merged(name, text, now, old, why.clone()) {
                // What the cache has lost of the old tree nobody here can make again.
                Err(Error::Lost(digest)) if self.is_old(&digest) => Ok(One::NeedsOld(why)),
                other => other,
            },
        }
    }

    /// Whether lost content is none of the new tree.
    fn is_old(&self, digest: &Digest) -> bool {
        self.opened.cache.cas.holds(&self.opened.set.tree, digest) == Holds::No
    }

    /// Merges file by file what the patch did to the old tree with what became of that.
    fn merged(&self, name: &str, text: &[u8], now: &Overlay<'_>, old: &Old, why: Failure) -> Result<One> {
        let tree = Tree::new(&self.opened.cache.cas, old.tree);
        let mut base = Overlay::new(&tree);
        let before = old.patches.iter().take_while(|(other, _)| other != name);
        for (other, text) in before {
            base.lay(apply(other, text, &base, self.options())?.changes);
        }
        let known = old.patches.iter().find(|(other, _)| other == name).map(|(_, text)| &text[..]);
        // The text may have been changed since; if that does not fit the old tree, the old one does.
        let applied = match apply(name, text, &base, self.options()) {
            Ok(applied) => applied,
            Err(Error::Failed(failure)) => match known.map(|text| apply(name, text, &base, self.options()))
            {
                Some(Ok(applied)) => applied,
                _ => {
                    let mut failed =
                        Failure::new(format!("`{name}` goes neither into the new tree nor into the old"));
                    failed.detail = vec![why.message, failure.message];
                    return Err(failed
                        .hint("`--from REV` names the revision of the clone that it was made for")
                        .into());
                }
            },
            Err(other) => return Err(other),
        };
        let labels = Labels { ours: "the new tree", theirs: name };
        let (mut wanted, mut conflicts) = (BTreeMap::new(), Vec::new());
        for (path, change) in real(applied.changes, &base)? {
            let file = |files: &dyn Files, path: &[u8]| -> Result<Option<Entry>> {
                Ok(files.entry(path)?.filter(|entry| *entry != Entry::Folder))
            };
            let (was, theirs) = (file(&base, &path)?, after(Some(&change)));
            let mut place = path.clone();
            let mut ours = file(now, &path)?;
            if ours.is_none()
                && theirs.is_some()
                && let Some(moved) = self.moved(old, &path, now)?
            {
                ours = file(now, &moved)?;
                place = moved;
            }
            let result = match merge(was.as_ref(), ours.as_ref(), theirs.as_ref(), labels) {
                Merged::Clean(result) => result,
                Merged::Conflict(result, why) => {
                    conflicts.push((place.clone(), why));
                    result
                }
            };
            if result == ours {
                continue;
            }
            let change = match result {
                None => Change::Remove,
                Some(Entry::Link(target)) => Change::Link(target),
                Some(Entry::File { content, executable }) => Change::Write { content, executable },
                Some(Entry::Folder) => panic!("BUG: a merge makes no folder"),
            };
            wanted.insert(place, change);
        }
        match conflicts.is_empty() {
            true => self.written(name, text, wanted, now, Came::Merged),
            false => Ok(One::Conflict(wanted, conflicts)),
        }
    }

    /// Where a file went that the old tree had at `path`: the one new path in the new tree with the same
    /// content.
    fn moved(&self, old: &Old, path: &[u8], now: &Overlay<'_>) -> Result<Option<Vec<u8>>> {
        let cas = &self.opened.cache.cas;
        let Some(Stored::File { blob: was, .. }) = cas.entry(&old.tree, path)? else { return Ok(None) };
        if was.size == 0 || now.changes().contains_key(path) {
            return Ok(None);
        }
        let mut found = Vec::new();
        cas.walk(&self.opened.set.tree, &mut |path, entry| {
            if matches!(entry, Stored::File { blob, .. } if *blob == was)
                && cas.entry(&old.tree, path)?.is_none()
            {
                found.push(path.to_vec());
            }
            Ok(())
        })?;
        Ok(if found.len() == 1 { found.pop() } else { None })
    }
}
