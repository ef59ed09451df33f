//! Applies a parsed patch to a tree: every file change in order, all or none. Knows the tree only by
//! what it is asked, and writes nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::change::Changing;
use super::note::{Note, Said};
use super::overlay::Overlay;
use super::reason::{Halt, Reason, Refusal, show};
use super::section::{Mode, Operation, Patch, Section, Style};
use super::{AlreadyApplied, Change, Entry, Files, Options, ZeroContext, name};
use crate::error::Result;

/// What a patch makes of a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The changed paths: removals first, then the rest, each by path.
    pub changes: Vec<(Vec<u8>, Change)>,
    /// What is worth a warning, in the order of the patch.
    pub notes: Vec<Note>,
}

/// Applies every file change of `patch` over `files`, or none.
///
/// Errors: a failure that says which hunk does not go in and why, or whatever `files` could not read.
pub fn apply(patch: &Patch, files: &dyn Files, options: &Options) -> Result<Applied> {
    Ok(attempt(patch, files, options)?)
}

/// The same; a refusal says its reason.
pub fn attempt(patch: &Patch, files: &dyn Files, options: &Options) -> Result<Applied, Halt> {
    let mut tree = Tree {
        patch,
        options,
        now: Overlay::new(files),
        found: BTreeMap::new(),
        notes: Vec::new(),
        commit: Commit::default(),
    };
    for sections in patch.sections.chunk_by(|a, b| a.commit == b.commit) {
        tree.commit(sections)?;
    }
    let Tree { now, found, notes, .. } = tree;
    let (removed, kept): (Vec<_>, Vec<_>) =
        now.into_changes().into_iter().partition(|(_, change)| *change == Change::Remove);
    let removed = removed.into_iter().filter(|(path, _)| found.get(path) == Some(&true));
    Ok(Applied { changes: removed.chain(kept).collect(), notes })
}

/// The tree while a patch is applied.
struct Tree<'a> {
    patch: &'a Patch,
    options: &'a Options,
    now: Overlay<'a>,
    /// Whether each changed path was there before the patch.
    found: BTreeMap<Vec<u8>, bool>,
    notes: Vec<Note>,
    commit: Commit,
}

/// What one commit's changes did so far. Its renames and copies read the state before it.
#[derive(Default)]
struct Commit {
    /// What its renames and copies read.
    sources: BTreeSet<Vec<u8>>,
    /// What was at each of them that has been changed.
    before: BTreeMap<Vec<u8>, Option<Entry>>,
    /// Whether a file or link was at each changed path.
    found: BTreeMap<Vec<u8>, bool>,
    /// The files that were changed in place, and by which style of section.
    edited: BTreeMap<Vec<u8>, Style>,
    /// Where renames and copies went, with the section.
    arrived: BTreeMap<Vec<u8>, usize>,
    /// The files that were deleted or renamed.
    gone: BTreeSet<Vec<u8>>,
}

impl Tree<'_> {
    fn commit(&mut self, sections: &[Section]) -> Result<(), Halt> {
        let sources = sections.iter().filter_map(|section| match &section.operation {
            Operation::Rename { from, .. } | Operation::Copy { from, .. } => Some(from.clone()),
            _ => None,
        });
        self.commit = Commit { sources: sources.collect(), ..Commit::default() };
        // What a file or folder is in the way of now may go in once that is gone: git sorts by path.
        let mut blocked = Vec::new();
        for section in sections {
            let path = section.operation.path();
            match &section.operation {
                Operation::Edit(_) => self.edit(section, path)?,
                Operation::Delete(_) => self.delete(section, path)?,
                Operation::Create(_) if self.is_blocked(path)? => blocked.push((section, None)),
                Operation::Create(_) => self.create(section, path)?,
                Operation::Rename { from, .. } | Operation::Copy { from, .. } => {
                    let Some(taken) = self.take(section, from, path)? else { continue };
                    if self.is_blocked(path)? {
                        blocked.push((section, Some(taken)));
                    } else {
                        self.arrive(section, path, taken)?;
                    }
                    continue;
                }
            }
            self.commit.edited.insert(path.to_vec(), section.style);
        }
        for (section, taken) in blocked {
            let path = section.operation.path();
            match taken {
                Some(taken) => self.arrive(section, path, taken)?,
                None => self.create(section, path)?,
            }
        }
        for (path, line) in &self.commit.arrived {
            if self.commit.found.get(path) == Some(&true) && !self.commit.gone.contains(path) {
                return Err(self
                    .change()
                    .refuse(*line, Reason::Exists, path, "is there already and would be overwritten")
                    .hint("delete it in a patch before this one if it may go")
                    .into());
            }
        }
        Ok(())
    }

    fn change(&self) -> Changing<'_> {
        Changing { patch: &self.patch.name, options: self.options }
    }

    /// Whether a folder is at a path, or a file or link above it.
    fn is_blocked(&self, path: &[u8]) -> Result<bool> {
        if self.now.entry(path)? == Some(Entry::Folder) {
            return Ok(true);
        }
        for folder in name::folders(path) {
            if matches!(self.now.entry(folder)?, Some(Entry::File { .. } | Entry::Link(_))) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn edit(&mut self, section: &Section, path: &[u8]) -> Result<(), Halt> {
        self.contained(section, path)?;
        let adds_to_nothing =
            matches!(&section.hunks[..], [hunk] if hunk.old_start == 0 && hunk.new_start > 0);
        let entry = self.now.entry(path)?;
        let is_blank =
            entry.is_none() || matches!(&entry, Some(Entry::File { content, .. }) if content.is_empty());
        if adds_to_nothing && (is_blank || self.options.zero_context == ZeroContext::Refuse) {
            return self.create(section, path);
        }
        let Some(entry) = entry else {
            return Err(self.missing(section, path).into());
        };
        // What hunks are laid in is changed itself: large files are not held twice.
        let same = section.hunks.is_empty().then(|| entry.clone());
        self.remember(path, Some(&entry));
        match self.change().changed(section, path, entry) {
            Ok((new, _)) if same.is_some_and(|same| same == new) => self.already(section, path),
            Ok((new, said)) => {
                self.say(path, said);
                self.set(path, Some(new));
                Ok(())
            }
            Err(refusal) => {
                // What is refused although it fits somewhere is not made right by a reverse that fits too.
                let may_be = matches!(refusal.reason, Reason::Mismatch | Reason::Reversed | Reason::Binary);
                let entry = if may_be { self.now.entry(path)? } else { None };
                match entry.is_some_and(|entry| self.change().is_undone(section, &entry, None)) {
                    true => self.already(section, path),
                    false => Err(refusal.into()),
                }
            }
        }
    }

    fn create(&mut self, section: &Section, path: &[u8]) -> Result<(), Halt> {
        self.contained(section, path)?;
        let mode = section.new_mode.unwrap_or(Mode::File(false));
        let blank = match mode {
            Mode::File(executable) => Entry::File { content: Vec::new(), executable },
            Mode::Link => Entry::Link(Vec::new()),
        };
        let (new, said) = self.change().changed(section, path, blank)?;
        let there = self.now.entry(path)?;
        match &there {
            None => {}
            Some(there) if *there == new => return self.already(section, path),
            Some(Entry::File { content, executable }) if content.is_empty() => {
                let (new, said) = match section.new_mode {
                    Some(_) => (new, said),
                    None => {
                        let there = Entry::File { content: Vec::new(), executable: *executable };
                        self.change().changed(section, path, there)?
                    }
                };
                if !matches!(new, Entry::File { .. }) {
                    return Err(self
                        .change()
                        .refuse(section.line, Reason::Type, path, "is a file, and the patch makes a link")
                        .into());
                }
                self.say(path, said);
                self.remember(path, there.as_ref());
                self.set(path, Some(new));
                return Ok(());
            }
            Some(Entry::Folder) if self.is_empty(path)? => {}
            Some(Entry::Folder) => {
                return Err(self.folder(section, path).into());
            }
            Some(_) => {
                return Err(self.change().refuse(section.line, Reason::Exists, path, "is there already, with other content or mode")
                    .hint("remove the patch if upstream has the file now, or write it as a change of that file")
                    .into());
            }
        }
        self.say(path, said);
        self.remember(path, there.as_ref());
        self.set(path, Some(new));
        Ok(())
    }

    fn delete(&mut self, section: &Section, path: &[u8]) -> Result<(), Halt> {
        self.contained(section, path)?;
        let Some(entry) = self.now.entry(path)? else { return self.already(section, path) };
        self.remember(path, Some(&entry));
        let (rest, said) = self.change().changed(section, path, entry)?;
        if !matches!(&rest, Entry::File { content: rest, .. } | Entry::Link(rest) if rest.is_empty()) {
            return Err(self
                .change()
                .refuse(
                    section.line,
                    Reason::Leftover,
                    path,
                    "would go, but the patch does not have all its lines",
                )
                .hint("the file changed since the patch was made: write the patch again for it")
                .into());
        }
        self.say(path, said);
        self.commit.gone.insert(path.to_vec());
        self.set(path, None);
        Ok(())
    }

    /// Takes the source of a rename or copy, and gives what it becomes; nothing if it did so already.
    fn take(
        &mut self,
        section: &Section,
        from: &[u8],
        to: &[u8],
    ) -> Result<Option<(Entry, Vec<Said>)>, Halt> {
        let is_rename = matches!(section.operation, Operation::Rename { .. });
        let edited = self.commit.edited.get(from);
        if is_rename && edited.is_some() || edited == Some(&Style::Plain) {
            let what = "was changed earlier in this patch, so what is renamed or copied has two readings";
            return Err(self
                .change()
                .refuse(section.line, Reason::Source, from, what)
                .hint("put the change into the rename or copy itself, or into another patch")
                .into());
        }
        self.contained(section, from)?;
        let source = match self.commit.before.get(from) {
            Some(entry) => entry.clone(),
            None => self.now.entry(from)?,
        };
        let there = self.now.entry(to)?;
        let is_undone = |source: Option<&Entry>| {
            there.as_ref().is_some_and(|there| self.change().is_undone(section, there, source))
        };
        let is_done = match &source {
            None => is_rename && is_undone(None),
            Some(source) => !is_rename && is_undone(Some(source)),
        };
        if is_done {
            self.already(section, to)?;
            return Ok(None);
        }
        let Some(source) = source else { return Err(self.missing(section, from).into()) };
        let leaves = is_rename && !self.commit.arrived.contains_key(from);
        if leaves {
            self.remember(from, Some(&source));
        }
        let taken = self.change().changed(section, from, source)?;
        if is_rename {
            if leaves {
                self.set(from, None);
            }
            self.commit.gone.insert(from.to_vec());
        }
        Ok(Some(taken))
    }

    /// Puts what was renamed or copied at its new path.
    fn arrive(&mut self, section: &Section, to: &[u8], taken: (Entry, Vec<Said>)) -> Result<(), Halt> {
        self.contained(section, to)?;
        let there = self.now.entry(to)?;
        if there == Some(Entry::Folder) && !self.is_empty(to)? {
            return Err(self.folder(section, to).into());
        }
        if self.commit.edited.contains_key(to) && there.is_some() || self.commit.arrived.contains_key(to) {
            let what = "is made or changed twice in this patch";
            return Err(self.change().refuse(section.line, Reason::Exists, to, what).into());
        }
        self.commit.arrived.insert(to.to_vec(), section.line);
        self.say(to, taken.1);
        self.remember(to, there.as_ref());
        self.set(to, Some(taken.0));
        Ok(())
    }

    fn folder(&self, section: &Section, path: &[u8]) -> Refusal {
        self.change()
            .refuse(section.line, Reason::Type, path, "is a folder with files in it")
            .hint("delete them in the same patch if a file takes its place")
    }

    fn already(&mut self, section: &Section, path: &[u8]) -> Result<(), Halt> {
        if self.options.already_applied == AlreadyApplied::Skip {
            self.say(path, vec![Said::Skipped]);
            return Ok(());
        }
        let what = match section.operation {
            Operation::Delete(_) => "is gone already",
            _ => "has this change already",
        };
        Err(self
            .change()
            .refuse(section.line, Reason::Applied, path, what)
            .hint("remove the patch if upstream has it now, or set `already_applied = \"skip\"`")
            .into())
    }

    fn missing(&self, section: &Section, path: &[u8]) -> Refusal {
        let hint = format!(
            "check `strip` (now {}), which says how many leading folders are cut from each name, and `basedir`",
            self.options.strip
        );
        self.change().refuse(section.line, Reason::Missing, path, "is not in the tree").hint(hint)
    }

    /// Checks that every parent is a folder, or nothing yet.
    fn contained(&self, section: &Section, path: &[u8]) -> Result<(), Halt> {
        for folder in name::folders(path) {
            let what = match self.now.entry(folder)? {
                None | Some(Entry::Folder) => continue,
                Some(Entry::Link(_)) => "a link",
                Some(Entry::File { .. }) => "a file",
            };
            let message = format!("lies behind `{}`, which is {what}", show(folder));
            return Err(self
                .change()
                .refuse(section.line, Reason::Through, path, &message)
                .hint("name the file by the folders that it is in, without links")
                .into());
        }
        Ok(())
    }

    /// Whether a folder holds no file, however deep.
    fn is_empty(&self, folder: &[u8]) -> Result<bool> {
        for name in self.now.names(folder)? {
            let path = [folder, b"/", &name].concat();
            match self.now.entry(&path)? {
                None => {}
                Some(Entry::Folder) if self.is_empty(&path)? => {}
                Some(_) => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Keeps in mind what is at a path that is about to change.
    fn remember(&mut self, path: &[u8], was: Option<&Entry>) {
        let was_there = !matches!(was, None | Some(Entry::Folder));
        self.found.entry(path.to_vec()).or_insert(was_there);
        self.commit.found.entry(path.to_vec()).or_insert(was_there);
        if self.commit.sources.contains(path) {
            self.commit.before.entry(path.to_vec()).or_insert_with(|| was.cloned());
        }
    }

    /// Changes a path.
    fn set(&mut self, path: &[u8], entry: Option<Entry>) {
        let change = match entry {
            None => Change::Remove,
            Some(Entry::File { content, executable }) => Change::Write { content, executable },
            Some(Entry::Link(target)) => Change::Link(target),
            Some(Entry::Folder) => panic!("BUG: a patch makes no folder"),
        };
        self.now.lay([(path.to_vec(), change)]);
    }

    fn say(&mut self, path: &[u8], said: Vec<Said>) {
        let patch = &self.patch.name;
        self.notes.extend(said.into_iter().map(|said| Note {
            patch: patch.clone(),
            path: path.to_vec(),
            said,
        }));
    }
}
