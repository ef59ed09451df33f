//! Writes a patch again so that it makes other changes: sections and hunks that already make what is
//! wanted stay byte for byte, as do all texts; the rest is rewritten. What is written is applied before
//! it is given back. Knows no file system.

use std::collections::{BTreeMap, BTreeSet};

use super::apply::{self, Applied};
use super::diff::Carried;
use super::kept::Written;
use super::reason::Reason;
use super::section::{Mode, Operation, Patch, Section};
use super::text::Text;
use super::write::{Names, content, is_binary};
use super::{Change, Entry, Files, Options, name, parse};
use crate::error::{Error, Failure, Result};

/// What a patch is to make of a tree: each path that is to change.
pub type Wanted = BTreeMap<Vec<u8>, Change>;

/// What happens to hunks that make what is wanted, but elsewhere than they say or with less context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// They stay.
    All,
    /// They get their true place and context.
    Exact,
}

/// A patch that is to be written again.
pub struct Rewriting<'a> {
    /// What messages call it.
    pub name: &'a str,
    /// Its text; empty if it is new.
    pub text: &'a [u8],
    /// How it is read and applied.
    pub options: &'a Options,
    /// The tree that it is applied to.
    pub before: &'a dyn Files,
    /// What it is to make of it; not nothing.
    pub wanted: &'a Wanted,
    /// Which hunks stay.
    pub keep: Keep,
}

/// How much is written anew.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Anew {
    /// Hunks.
    Hunks,
    /// The sections of files in which anything changes.
    Sections,
    /// All sections.
    All,
}

/// The changes that do change something, of those over a tree.
pub fn real(changes: impl IntoIterator<Item = (Vec<u8>, Change)>, before: &dyn Files) -> Result<Wanted> {
    let mut all = Wanted::new();
    for (path, change) in changes {
        let was = before.entry(&path)?.filter(|entry| *entry != Entry::Folder);
        if was != after(Some(&change)) {
            all.insert(path, change);
        }
    }
    Ok(all)
}

/// What is at a path after a change of it.
pub fn after(change: Option<&Change>) -> Option<Entry> {
    match change? {
        Change::Write { content, executable } => {
            Some(Entry::File { content: content.clone(), executable: *executable })
        }
        Change::Link(target) => Some(Entry::Link(target.clone())),
        Change::Remove => None,
    }
}

impl Rewriting<'_> {
    /// The new text of the patch. Applied to the tree it gives exactly what is wanted.
    ///
    /// Errors: the old text is no patch; a wanted change that no patch can express; the tree could not be
    /// read.
    pub fn rewrite(&self) -> Result<Vec<u8>> {
        let patch = match parse::read(self.name, self.text, self.options) {
            Ok(patch) => patch,
            Err(refusal) if refusal.reason == Reason::Empty => {
                Patch { name: self.name.to_owned(), sections: Vec::new() }
            }
            Err(refusal) => return Err(refusal.failure.into()),
        };
        let whole = self.apply(&patch)?;
        let mut wrong = None;
        for anew in [Anew::Hunks, Anew::Sections, Anew::All] {
            let lines = &Text::new(self.text);
            let text =
                Composing { asked: self, patch: &patch, lines, anew, whole: whole.as_ref() }.compose()?;
            match self.check(&text) {
                Ok(true) => return Ok(text),
                Ok(false) => {}
                Err(Error::Failed(failure)) => wrong = Some(failure),
                Err(other) => return Err(other),
            }
        }
        let mut failure =
            Failure::new(format!("`{}` cannot be written so that it makes this change", self.name));
        failure.detail.extend(wrong.map(|wrong| wrong.message));
        Err(failure.into())
    }

    /// Whether a text makes of the tree what is wanted, and nothing else.
    fn check(&self, text: &[u8]) -> Result<bool> {
        let patch = parse::parse(self.name, text, self.options)?;
        let applied = apply::apply(&patch, self.before, self.options)?;
        let is_exact = self.keep == Keep::All || applied.notes.is_empty();
        Ok(is_exact && real(applied.changes, self.before)? == *self.wanted)
    }

    /// What a patch makes of the tree; nothing if it does not go in.
    fn apply(&self, patch: &Patch) -> Result<Option<Applied>> {
        match apply::apply(patch, self.before, self.options) {
            Ok(applied) => Ok(Some(applied)),
            Err(Error::Failed(_)) => Ok(None),
            Err(other) => Err(other),
        }
    }

    fn before(&self, path: &[u8]) -> Result<Option<Entry>> {
        Ok(self.before.entry(path)?.filter(|entry| *entry != Entry::Folder))
    }

    /// How names are written: as the patch does, where that is open.
    fn names(&self) -> Names<'_> {
        let folders = self.options.strip.saturating_sub(1);
        let lines = self.text.split(|byte| *byte == b'\n');
        let fields =
            lines.filter_map(|line| line.strip_prefix(b"+++ ").or_else(|| line.strip_prefix(b"--- ")));
        let inner = fields.filter_map(|text| name::field(text.trim_ascii_end()).ok()).find_map(|field| {
            let parts: Vec<&[u8]> = field.name.split(|byte| *byte == b'/').collect();
            (!field.is_absent() && parts.len() > folders + 1).then(|| parts[1..=folders].join(&b'/'))
        });
        let inner = inner.unwrap_or_else(|| vec![&b"tree"[..]; folders].join(&b'/'));
        Names { options: self.options, inner }
    }
}

/// A patch on its way to its new text.
struct Composing<'a> {
    asked: &'a Rewriting<'a>,
    patch: &'a Patch,
    lines: &'a Text<'a>,
    anew: Anew,
    /// What the patch makes of the tree as it is, if it goes in.
    whole: Option<&'a Applied>,
}

/// What stands in the place of a section.
enum Instead {
    /// The section.
    Itself,
    /// Its header, with other hunks.
    Hunks(Vec<u8>),
    /// What is written for its files, elsewhere.
    Nothing,
}

impl Composing<'_> {
    fn compose(&self) -> Result<Vec<u8>> {
        let sections = &self.patch.sections;
        let mut instead: Vec<Instead> = sections.iter().map(|_| Instead::Itself).collect();
        let mut fresh: Vec<(usize, Vec<u8>)> = Vec::new();
        let mut known = BTreeSet::new();
        for group in groups(sections) {
            let paths: BTreeSet<&[u8]> = group.iter().flat_map(|at| paths(&sections[*at])).collect();
            known.extend(paths.iter().map(|path| path.to_vec()));
            if self.anew != Anew::All && self.is_wanted(&group, &paths)? {
                continue;
            }
            if self.anew == Anew::Hunks
                && let [at] = group[..]
                && let Some(text) = self.section(&sections[at])?
            {
                instead[at] = Instead::Hunks(text);
                continue;
            }
            for at in &group {
                instead[*at] = Instead::Nothing;
            }
            fresh.extend(paths.iter().map(|path| (group[0], path.to_vec())));
        }
        let added: Vec<&Vec<u8>> = self.asked.wanted.keys().filter(|path| !known.contains(*path)).collect();
        fresh.extend(added.into_iter().map(|path| (self.place(path), path.clone())));
        let mut new: BTreeMap<usize, Vec<u8>> = BTreeMap::new();
        for (at, text) in self.written(&fresh)? {
            new.entry(at).or_default().extend(text);
        }
        Ok(self.join(&instead, &new))
    }

    /// Whether some sections make just what is wanted of their paths.
    fn is_wanted(&self, group: &[usize], paths: &BTreeSet<&[u8]>) -> Result<bool> {
        let alone;
        let applied = match self.whole {
            Some(applied) => applied,
            None => {
                // Others may be what does not go in.
                let sections = group.iter().map(|at| self.patch.sections[*at].clone()).collect();
                alone = self.asked.apply(&Patch { name: self.patch.name.clone(), sections })?;
                let Some(applied) = &alone else { return Ok(false) };
                applied
            }
        };
        let own = applied.changes.iter().filter(|(path, _)| paths.contains(&path[..])).cloned();
        let made = real(own, self.asked.before)?;
        let exact = self.asked.keep == Keep::All
            || !applied.notes.iter().any(|note| paths.contains(&note.path[..]));
        Ok(exact && paths.iter().all(|path| made.get(*path) == self.asked.wanted.get(*path)))
    }

    /// A section with the hunks that are still right; nothing if it has to be written anew.
    fn section(&self, section: &Section) -> Result<Option<Vec<u8>>> {
        let wanted = self.asked.wanted;
        let (from, to) = match &section.operation {
            Operation::Edit(path) => (Some(path), path),
            Operation::Create(path) => (None, path),
            Operation::Rename { from, to } if wanted.get(from) == Some(&Change::Remove) => (Some(from), to),
            _ => return Ok(None),
        };
        let old = match from {
            Some(from) => self.asked.before(from)?,
            None => None,
        };
        let is_text = |entry: &Entry| matches!(entry, Entry::File { content, .. } if !is_binary(content));
        let Some(Entry::File { executable, .. }) = after(wanted.get(to)) else { return Ok(None) };
        let new = after(wanted.get(to));
        let ready = old.as_ref().is_none_or(is_text) && new.as_ref().is_none_or(is_text);
        let (before, now) = (content(old.as_ref()), content(new.as_ref()));
        if !ready || old.is_none() != from.is_none() || section.hunks.is_empty() || before == now {
            return Ok(None);
        }
        let was = match &old {
            Some(Entry::File { executable, .. }) => *executable,
            _ => false,
        };
        let says = match section.new_mode {
            Some(Mode::File(executable)) => executable,
            Some(Mode::Link) => return Ok(None),
            None => was,
        };
        let written = Written { lines: self.lines, section, options: self.asked.options };
        let carried = written.carried();
        let mut out = Vec::new();
        if says == executable {
            for line in section.line - 1..section.hunks[0].line - 1 {
                let line = self.lines.line(line);
                // These would not be true any more.
                let tells = ["index ", "similarity index ", "dissimilarity index "];
                if !tells.iter().any(|start| line.starts_with(start.as_bytes())) {
                    out.extend_from_slice(line);
                }
            }
        } else {
            let names = self.asked.names();
            let mut head = names.head(from.unwrap_or(to), to, old.as_ref(), new.as_ref())?;
            head.extend(names.sides(from.map(|path| &path[..]), Some(to))?);
            for line in head.split_inclusive(|byte| *byte == b'\n') {
                out.extend_from_slice(line.strip_suffix(b"\n").unwrap_or(line));
                out.extend_from_slice(if carried == Carried::WithCr { b"\r\n" } else { b"\n" });
            }
        }
        for block in written.hunks(before, now) {
            block.write(carried, &mut out);
        }
        Ok(Some(out))
    }

    /// The section before which the change of a path that the patch did not know belongs.
    fn place(&self, path: &[u8]) -> usize {
        let sections = &self.patch.sections;
        let last = sections.last().map_or(0, |section| section.commit);
        let first = sections.iter().position(|section| section.commit == last).unwrap_or(0);
        let own: Vec<&[u8]> = sections[first..].iter().map(|section| section.operation.path()).collect();
        match own.is_sorted() {
            true => first + own.partition_point(|known| *known <= path),
            false => sections.len(),
        }
    }

    /// The changes of these paths, each with its place; a file that only moved is a rename.
    fn written(&self, fresh: &[(usize, Vec<u8>)]) -> Result<Vec<(usize, Vec<u8>)>> {
        let names = self.asked.names();
        let mut changes = Vec::new();
        for (place, path) in fresh {
            let new = self.asked.wanted.get(path);
            let Some(change) = new else { continue };
            changes.push((*place, path, self.asked.before(path)?, after(Some(change))));
        }
        let mut moved: BTreeMap<&[u8], &[u8]> = BTreeMap::new();
        for (_, to, old, new) in &changes {
            let Some(Entry::File { content: bytes, .. }) = new else { continue };
            if old.is_some() || bytes.is_empty() {
                continue;
            }
            let source = changes.iter().find(|(_, from, old, new)| {
                let same = matches!(old, Some(Entry::File { content, .. }) if content == bytes);
                same && new.is_none() && !moved.values().any(|taken| *taken == from.as_slice())
            });
            if let Some((_, from, ..)) = source {
                moved.insert(to, from);
            }
        }
        let mut out = Vec::new();
        for (place, path, old, new) in &changes {
            if let Some(from) = moved.get(path.as_slice()) {
                let source = self.asked.before(from)?;
                out.push((*place, names.head(from, path, source.as_ref(), new.as_ref())?));
            } else if !moved.values().any(|from| *from == path.as_slice()) {
                out.push((*place, names.section(path, old.as_ref(), new.as_ref())?));
            }
        }
        Ok(out)
    }

    /// Joins texts, sections that stay, and new ones.
    fn join(&self, instead: &[Instead], new: &BTreeMap<usize, Vec<u8>>) -> Vec<u8> {
        let (mut out, mut at) = (Vec::new(), 0);
        let put = |out: &mut Vec<u8>, text: &[u8]| {
            if out.last().is_some_and(|byte| *byte != b'\n') && !text.is_empty() {
                out.push(b'\n');
            }
            out.extend_from_slice(text);
        };
        for (index, section) in self.patch.sections.iter().enumerate() {
            // Lines that announce a section without belonging to it go where it goes.
            let mut head = section.line - 1;
            while head > at && announces(self.lines.line(head - 1)) {
                head -= 1;
            }
            put(&mut out, self.lines.range(at, head));
            if let Some(new) = new.get(&index) {
                put(&mut out, new);
            }
            at = (section.end - 1).min(self.lines.count());
            match &instead[index] {
                Instead::Itself => put(&mut out, self.lines.range(head, at)),
                Instead::Hunks(text) => {
                    put(&mut out, self.lines.range(head, section.line - 1));
                    put(&mut out, text);
                }
                Instead::Nothing => {}
            }
        }
        let rest = self.lines.range(at, self.lines.count());
        let last = new.get(&self.patch.sections.len()).map_or(&b""[..], |new| new);
        // What follows the last section is a signature or the like; without any, all is description.
        let parts = if self.patch.sections.is_empty() { [rest, last] } else { [last, rest] };
        parts.iter().for_each(|part| put(&mut out, part));
        out
    }
}

/// Whether a line is one that diff tools write before the `---` line.
fn announces(line: &[u8]) -> bool {
    line.starts_with(b"Index: ") || line.starts_with(b"diff ") || line.starts_with(b"=====")
}

/// The paths that a section reads or changes.
fn paths(section: &Section) -> Vec<&[u8]> {
    match &section.operation {
        Operation::Rename { from, to } | Operation::Copy { from, to } => vec![from, to],
        other => vec![other.path()],
    }
}

/// The sections that share paths, each group in order.
fn groups(sections: &[Section]) -> Vec<Vec<usize>> {
    let mut groups: Vec<(BTreeSet<&[u8]>, Vec<usize>)> = Vec::new();
    for (index, section) in sections.iter().enumerate() {
        let mut own: BTreeSet<&[u8]> = paths(section).into_iter().collect();
        let mut members = Vec::new();
        groups.retain_mut(|(known, others)| {
            let joins = !known.is_disjoint(&own);
            if joins {
                own.append(known);
                members.append(others);
            }
            !joins
        });
        members.push(index);
        members.sort_unstable();
        groups.push((own, members));
    }
    groups.into_iter().map(|(_, members)| members).collect()
}
