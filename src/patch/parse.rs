//! Finds the file changes in the text of a patch and checks that nothing in it would be lost: hunks
//! without file, text between hunks, lines after a hunk's counts. Knows no tree.

use super::header::{self, Header};
use super::name;
use super::reason::{Reason, Refusal, show};
use super::section::{Hunk, Operation, Patch, Section, Style};
use super::{Options, hunk};
use crate::error::Failure;

/// Parses the text of a patch; `name` is what messages call it.
pub fn parse(name: &str, bytes: &[u8], options: &Options) -> Result<Patch, Failure> {
    read(name, bytes, options).map_err(|refusal| refusal.failure)
}

/// Parses the text of a patch; a refusal says its reason.
pub fn read(name: &str, bytes: &[u8], options: &Options) -> Result<Patch, Refusal> {
    let mut reader = Reader::new(name, bytes, options);
    reader.read_all()?;
    if reader.sections.is_empty() {
        let message = format!("`{name}` holds no change of a file");
        return Err(Refusal::new(Reason::Empty, message)
            .hint("remove it, or write it with `diff -u` or `git diff`"));
    }
    Ok(Patch { name: name.to_owned(), sections: reader.sections })
}

/// The lines of a patch and where its reading has come to.
pub struct Reader<'a> {
    /// What messages call the patch.
    pub name: &'a str,
    /// How names are read.
    pub options: &'a Options,
    /// All lines, each with its line end.
    lines: Vec<&'a [u8]>,
    /// The next line, from 0.
    pub at: usize,
    sections: Vec<Section>,
    commit: usize,
    /// In a mail: how many sections there were when it began.
    mail: Option<usize>,
    /// Whether the last `+++` line ends with CRLF: the patch itself may have been carried so.
    pub is_crlf: bool,
    /// Whether only blank lines were seen since the last hunk.
    after_hunk: bool,
}

impl<'a> Reader<'a> {
    fn new(name: &'a str, bytes: &'a [u8], options: &'a Options) -> Self {
        let lines = bytes.split_inclusive(|byte| *byte == b'\n').collect();
        Self {
            name,
            options,
            lines,
            at: 0,
            sections: Vec::new(),
            commit: 0,
            mail: None,
            is_crlf: false,
            after_hunk: false,
        }
    }

    /// The line `ahead` of the next one, with its line end; empty after the last.
    pub fn raw(&self, ahead: usize) -> &'a [u8] {
        self.lines.get(self.at + ahead).copied().unwrap_or_default()
    }

    /// The same without its line end.
    pub fn line(&self, ahead: usize) -> &'a [u8] {
        let raw = self.raw(ahead);
        let line = raw.strip_suffix(b"\n").unwrap_or(raw);
        line.strip_suffix(b"\r").unwrap_or(line)
    }

    /// Whether all lines were read.
    pub fn is_done(&self) -> bool {
        self.at >= self.lines.len()
    }

    /// The number of the next line, from 1.
    pub fn number(&self) -> usize {
        self.at + 1
    }

    /// Says in which line of the patch something is wrong.
    pub fn refuse_at(&self, line: usize, reason: Reason, message: impl std::fmt::Display) -> Refusal {
        Refusal::new(reason, format!("`{}` line {line}: {message}", self.name))
    }

    /// The same for the next line.
    pub fn refuse(&self, reason: Reason, message: impl std::fmt::Display) -> Refusal {
        self.refuse_at(self.number(), reason, message)
    }

    /// Puts the place in front of a refusal about a name.
    pub fn place(&self, line: usize, mut refusal: Refusal) -> Refusal {
        refusal.failure.message = format!("`{}` line {line}: {}", self.name, refusal.failure.message);
        refusal
    }

    fn read_all(&mut self) -> Result<(), Refusal> {
        while !self.is_done() {
            let line = self.line(0);
            if line.starts_with(b"diff --git ") {
                self.git_section()?;
            } else if line.starts_with(b"--- ") && self.line(1).starts_with(b"+++ ") {
                self.plain_section()?;
            } else {
                self.between(line)?;
                self.at += 1;
            }
        }
        Ok(())
    }

    /// Checks a line outside of all changes.
    fn between(&mut self, line: &[u8]) -> Result<(), Refusal> {
        if line.starts_with(b"@@ -") {
            let message = match self.sections.last() {
                Some(_) => "text stands between this hunk and the header of its file",
                None => "this hunk has no `---` and `+++` lines before it",
            };
            return Err(self
                .refuse(Reason::Orphan, message)
                .hint("hunks follow the `+++` line and each other directly; remove what is between them"));
        }
        if line.starts_with(b"@@@ -") {
            let message = "this is a merge's combined diff, which fits no single file";
            return Err(self.refuse(Reason::Format, message).hint("use `git diff` against one parent"));
        }
        let inner = line.trim_ascii_start();
        let is_indented = inner.len() < line.len();
        if is_indented && (inner.starts_with(b"@@ -") || inner.starts_with(b"diff --git ")) {
            let message = "an indented diff stands here; other tools would apply it";
            return Err(self.refuse(Reason::Format, message).hint("remove the indentation, or the text"));
        }
        if line.starts_with(b"*** ")
            && self.line(1).starts_with(b"--- ")
            && self.line(2).starts_with(b"*****")
        {
            let message = "this is a context diff";
            return Err(self.refuse(Reason::Format, message).hint("write it with `diff -u`"));
        }
        if line == b"GIT binary patch" || line.starts_with(b"Binary files ") && line.ends_with(b" differ") {
            return Err(self
                .refuse(Reason::Binary, "a binary change without its `diff --git` header and data")
                .hint("write the patch with `git diff --binary`"));
        }
        if line == b"---" && self.mail.is_some_and(|count| count < self.sections.len()) {
            let section = &self.sections[self.sections.len() - 1];
            let message = "a diff stands in the message of a mail, before its `---` line";
            return Err(self
                .refuse_at(section.line, Reason::Message, message)
                .hint("indent it or remove it: only what follows the `---` line may change files"));
        }
        if self.after_hunk && matches!(line.first(), Some(b' ' | b'+' | b'-' | b'\\')) && line != b"-- " {
            let message =
                format!("the hunk goes on after the lines that its header counts: `{}`", show(line));
            return Err(self.refuse(Reason::Long, message).hint(
                "correct the counts in the `@@` line, or write the patch again; `recountdiff` can do it",
            ));
        }
        if !line.is_empty() {
            self.after_hunk = false;
        }
        if is_commit(line, b"From ") || is_commit(line, b"commit ") {
            self.commit += 1;
            self.mail = line.starts_with(b"From ").then_some(self.sections.len());
        }
        Ok(())
    }

    fn git_section(&mut self) -> Result<(), Refusal> {
        let line = self.number();
        let mut header = Header::read(self)?;
        let mut hunks = Vec::new();
        if self.line(0).starts_with(b"--- ") && self.line(1).starts_with(b"+++ ") {
            header.old = Some(self.field(b"--- ")?);
            header.new = Some(self.field(b"+++ ")?);
            hunks = self.hunks()?;
        }
        let operation = header.operation(self, line, &hunks)?;
        self.push(Section {
            line,
            end: self.number(),
            commit: self.commit,
            style: Style::Git,
            operation,
            old_mode: header.mode(self, header::Which::Old)?,
            new_mode: header.mode(self, header::Which::New)?,
            hunks,
            binary: header.binary,
        })
    }

    fn plain_section(&mut self) -> Result<(), Refusal> {
        let line = self.number();
        let old = self.field(b"--- ")?;
        let new = self.field(b"+++ ")?;
        let hunks = self.hunks()?;
        let operation = header::plain_operation(self, line, &old, &new, &hunks)?;
        self.push(Section {
            line,
            end: self.number(),
            commit: self.commit,
            style: Style::Plain,
            operation,
            old_mode: None,
            new_mode: None,
            hunks,
            binary: None,
        })
    }

    fn push(&mut self, section: Section) -> Result<(), Refusal> {
        let empty = |starts: fn(&Hunk) -> u64, counts: fn(&Hunk) -> usize| {
            section.hunks.len() == 1
                && section.hunks.iter().all(|hunk| starts(hunk) == 0 && counts(hunk) == 0)
        };
        let contradiction = match &section.operation {
            Operation::Create(_) if !section.hunks.is_empty() => {
                let fits = empty(|hunk| hunk.old_start, |hunk| hunk.old_lines().count());
                (!fits)
                    .then_some("the header says that the file is new, but a hunk has lines of an old one")
            }
            Operation::Delete(_) => {
                let fits = section.hunks.iter().all(|hunk| hunk.new_lines().next().is_none());
                (!fits).then_some("the header says that the file goes, but a hunk has lines of a new one")
            }
            _ => None,
        };
        if let Some(message) = contradiction {
            return Err(self
                .refuse_at(section.line, Reason::Contradiction, message)
                .hint("write the patch again with `git diff` or `diff -uN`"));
        }
        self.after_hunk = !section.hunks.is_empty();
        self.sections.push(section);
        Ok(())
    }

    fn field(&mut self, prefix: &[u8]) -> Result<name::Field, Refusal> {
        let text = self.line(0).strip_prefix(prefix).unwrap_or_default();
        let field = name::field(text).map_err(|refusal| self.place(self.number(), refusal))?;
        self.at += 1;
        Ok(field)
    }

    /// Reads the hunks after a `+++` line; that line's end says whether the patch itself was carried
    /// with CRLF.
    fn hunks(&mut self) -> Result<Vec<Hunk>, Refusal> {
        self.is_crlf = self.lines[self.at - 1].ends_with(b"\r\n");
        let mut hunks = Vec::new();
        while self.line(0).starts_with(b"@@ -") {
            hunks.push(hunk::read(self, hunks.len() + 1)?);
        }
        if hunks.is_empty() {
            let message = match self.is_done() {
                true => "the header of a file has no hunk".to_owned(),
                false => format!("a hunk should begin here, not `{}`", show(self.line(0))),
            };
            let reason = if self.is_done() { Reason::NoChange } else { Reason::Orphan };
            return Err(self
                .refuse(reason, message)
                .hint("`@@ -1,3 +1,4 @@` has to follow the `+++` line directly"));
        }
        if self.is_crlf
            && let Err(line) = hunk::cut_cr(&mut hunks)
        {
            let message = "the `+++` line ends with CRLF; here some lines do, and some do not";
            return Err(self
                .refuse_at(line, Reason::LineEnds, message)
                .hint("write the patch again without converting its line ends"));
        }
        Ok(hunks)
    }
}

/// Whether a line begins a mail or a log entry: the prefix, then a commit's name.
fn is_commit(line: &[u8], prefix: &[u8]) -> bool {
    line.strip_prefix(prefix).is_some_and(|rest| {
        let name = rest.split(|byte| *byte == b' ').next().unwrap_or_default();
        name.len() >= 7 && name.len() <= 64 && name.iter().all(u8::is_ascii_hexdigit)
    })
}
