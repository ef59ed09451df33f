//! What one section of a patch makes of one file's content, type and mode. Knows the file, not the tree.

use super::emit::{self, Asking};
use super::note::Said;
use super::reason::{Reason, Refusal, show};
use super::section::{Hunk, Mode, Operation, Section, Style};
use super::{Entry, Options, ZeroContext, binary};

/// The patch that changes files, for messages, and how.
#[derive(Clone, Copy, Debug)]
pub struct Changing<'a> {
    /// The patch's name.
    pub patch: &'a str,
    /// How it is applied.
    pub options: &'a Options,
}

impl Changing<'_> {
    /// Refuses a section because of a path.
    pub fn refuse(&self, line: usize, reason: Reason, path: &[u8], message: &str) -> Refusal {
        Refusal::new(reason, format!("`{}` line {line}: `{}` {message}", self.patch, show(path)))
    }

    /// What a section's modes, hunks and binary data make of an entry.
    pub fn changed(
        &self,
        section: &Section,
        path: &[u8],
        entry: Entry,
    ) -> Result<(Entry, Vec<Said>), Refusal> {
        let (bytes, was) = match entry {
            Entry::File { content, executable } => (content, Mode::File(executable)),
            Entry::Link(target) => (target, Mode::Link),
            Entry::Folder => return Err(self.refuse(section.line, Reason::Type, path, "is a folder")),
        };
        self.check_type(section, path, was)?;
        let (bytes, said) = self.bytes(section, path, bytes)?;
        let is_deletion = matches!(section.operation, Operation::Delete(_));
        if was == Mode::Link
            && !is_deletion
            && (bytes.is_empty() || bytes.contains(&0) || bytes.contains(&b'\n'))
        {
            let what = "would be a link with a line end or nothing in its text";
            return Err(self
                .refuse(section.line, Reason::Link, path, what)
                .hint("the text of a link ends with `\\ No newline at end of file`"));
        }
        let entry = match (was, section.new_mode) {
            (Mode::Link, _) => Entry::Link(bytes),
            (_, Some(Mode::File(executable))) | (Mode::File(executable), _) => {
                Entry::File { content: bytes, executable }
            }
        };
        Ok((entry, said))
    }

    /// Refuses a section that was made for another type of file.
    fn check_type(&self, section: &Section, path: &[u8], was: Mode) -> Result<(), Refusal> {
        let is_link = was == Mode::Link;
        let agrees = [section.old_mode, section.new_mode]
            .iter()
            .flatten()
            .all(|mode| (*mode == Mode::Link) == is_link);
        if agrees && (!is_link || section.style == Style::Git) {
            return Ok(());
        }
        let what = match is_link {
            true => "is a link, and the patch changes a file",
            false => "is a file, and the patch changes a link",
        };
        Err(self
            .refuse(section.line, Reason::Type, path, what)
            .hint("a type changes by a deletion and a creation, as `git diff` writes it"))
    }

    fn bytes(
        &self,
        section: &Section,
        path: &[u8],
        bytes: Vec<u8>,
    ) -> Result<(Vec<u8>, Vec<Said>), Refusal> {
        if let Some(change) = &section.binary {
            return match binary::apply(change, &bytes) {
                binary::Outcome::Applied(bytes) => Ok((bytes, Vec::new())),
                binary::Outcome::Already | binary::Outcome::Foreign => {
                    let what = "has another content than the binary patch was made for";
                    Err(self
                        .refuse(change.line, Reason::Binary, path, what)
                        .hint("write the patch again with `git diff --binary` for this file"))
                }
            };
        }
        if section.hunks.is_empty() {
            return Ok((bytes, Vec::new()));
        }
        let asking = Asking { patch: self.patch, path: &show(path) };
        let emitted = emit::emit(&bytes, &section.hunks, asking, self.options)?;
        let bytes = emitted.lay(bytes);
        let moved = emitted.moved.into_iter().map(Said::Moved);
        Ok((bytes, emitted.kept.map(Said::LineEnds).into_iter().chain(moved).collect()))
    }

    /// Whether an entry is what the section would make: its reverse fits exactly, and gives `source`.
    pub fn is_undone(&self, section: &Section, entry: &Entry, source: Option<&Entry>) -> bool {
        let Some((bytes, was)) = parts(entry) else { return false };
        if section.new_mode.is_some_and(|mode| mode != was) {
            return false;
        }
        if let Some(change) = &section.binary {
            return binary::apply(change, bytes) == binary::Outcome::Already;
        }
        let hunks: Vec<_> = section.hunks.iter().map(Hunk::reversed).collect();
        let options = Options { fuzz: 0, zero_context: ZeroContext::Refuse, ..self.options.clone() };
        let Ok(emitted) = emit::emit(bytes, &hunks, Asking { patch: self.patch, path: "" }, &options)
        else {
            return false;
        };
        let is_made_of = |source| emitted.lay(bytes.to_vec()) == source;
        source.is_none_or(|source| parts(source).is_some_and(|(source, _)| is_made_of(source)))
    }
}

fn parts(entry: &Entry) -> Option<(&[u8], Mode)> {
    match entry {
        Entry::File { content, executable } => Some((content, Mode::File(*executable))),
        Entry::Link(target) => Some((target, Mode::Link)),
        Entry::Folder => None,
    }
}
