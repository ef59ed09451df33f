//! Reads the header of a file's change, git's or the plain one, and decides what it does to which path.
//! Contradictions are refused, never resolved by what is in the tree.

use super::binary;
use super::name::{self, Field, Stamp};
use super::parse::Reader;
use super::reason::{Reason, Refusal, show};
use super::section::{Binary, Hunk, Mode, Operation};

/// The lines that git puts before the hunks.
#[derive(Debug, Default)]
pub struct Header {
    /// What follows `diff --git `.
    names: Vec<u8>,
    rename_from: Option<Vec<u8>>,
    rename_to: Option<Vec<u8>>,
    copy_from: Option<Vec<u8>>,
    copy_to: Option<Vec<u8>>,
    modes: [Option<Vec<u8>>; 5],
    /// The name in the `---` line.
    pub old: Option<Field>,
    /// The name in the `+++` line.
    pub new: Option<Field>,
    /// The binary change.
    pub binary: Option<Binary>,
    line: usize,
}

/// One of the two sides of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Before it.
    Old,
    /// After it.
    New,
}

const OLD_MODE: usize = 0;
const NEW_MODE: usize = 1;
const NEW_FILE: usize = 2;
const DELETED_FILE: usize = 3;
const INDEX: usize = 4;

impl Header {
    /// Reads from the `diff --git` line up to the `---` line, or the end of the header.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, Refusal> {
        let names = reader.line(0).strip_prefix(b"diff --git ").unwrap_or_default();
        let mut header = Self { names: names.to_vec(), line: reader.number(), ..Self::default() };
        reader.at += 1;
        while !reader.is_done() {
            let line = reader.line(0);
            let after = |prefix: &str| line.strip_prefix(prefix.as_bytes());
            let (slot, value) = if let Some(value) = after("rename from ") {
                (&mut header.rename_from, value)
            } else if let Some(value) = after("rename to ") {
                (&mut header.rename_to, value)
            } else if let Some(value) = after("copy from ") {
                (&mut header.copy_from, value)
            } else if let Some(value) = after("copy to ") {
                (&mut header.copy_to, value)
            } else if let Some(value) = after("old mode ") {
                (&mut header.modes[OLD_MODE], value)
            } else if let Some(value) = after("new mode ") {
                (&mut header.modes[NEW_MODE], value)
            } else if let Some(value) = after("new file mode ") {
                (&mut header.modes[NEW_FILE], value)
            } else if let Some(value) = after("deleted file mode ") {
                (&mut header.modes[DELETED_FILE], value)
            } else if let Some(value) = after("index ") {
                reader.at += 1;
                if let Some(blank) = value.iter().position(|byte| *byte == b' ') {
                    header.modes[INDEX] = Some(value[blank + 1..].to_vec());
                }
                continue;
            } else if after("similarity index ").or_else(|| after("dissimilarity index ")).is_some() {
                reader.at += 1;
                continue;
            } else if line == b"GIT binary patch" {
                header.binary = Some(binary::read(reader)?);
                break;
            } else if line.starts_with(b"Binary files ") {
                return Err(reader
                    .refuse(Reason::Binary, "the patch says that a binary file differs, but not how")
                    .hint("write the patch with `git diff --binary`"));
            } else {
                break;
            };
            if slot.replace(value.to_vec()).is_some() {
                return Err(reader.refuse(Reason::Contradiction, format!("`{}` comes twice", show(line))));
            }
            reader.at += 1;
        }
        Ok(header)
    }

    /// The mode of one side.
    pub fn mode(&self, reader: &Reader<'_>, which: Which) -> Result<Option<Mode>, Refusal> {
        // `index a..b mode` names a mode that does not change.
        let texts: &[usize] = match which {
            Which::Old => &[OLD_MODE, DELETED_FILE, INDEX],
            Which::New => &[NEW_MODE, NEW_FILE],
        };
        let Some(text) = texts.iter().find_map(|slot| self.modes[*slot].as_ref()) else { return Ok(None) };
        let number = std::str::from_utf8(text).ok().and_then(|text| u32::from_str_radix(text, 8).ok());
        match number {
            Some(0o120_000) => Ok(Some(Mode::Link)),
            Some(mode) if mode & 0o170_000 == 0o100_000 => Ok(Some(Mode::File(mode & 0o100 != 0))),
            Some(0o160_000) => {
                Err(reader.refuse_at(self.line, Reason::Mode, "this changes a submodule, not a file").hint(
                    "pin the submodule's commit in the clone, and patch its files by a patch of their own",
                ))
            }
            _ => Err(reader.refuse_at(
                self.line,
                Reason::Mode,
                format!("the mode `{}` is not one of a file or link", show(text)),
            )),
        }
    }

    /// What the header and the hunks do to which path.
    pub fn operation(
        &self,
        reader: &Reader<'_>,
        line: usize,
        hunks: &[Hunk],
    ) -> Result<Operation, Refusal> {
        let contradiction = |message: String| {
            reader
                .refuse_at(line, Reason::Contradiction, message)
                .hint("write the patch again with `git diff`")
        };
        let strip = reader.options.strip;
        let path = |name: &[u8], strip| {
            name::path(name, strip, reader.options).map_err(|refusal| reader.place(line, refusal))
        };
        let plain = match (&self.old, &self.new) {
            (Some(old), Some(new)) => Some((
                if old.is_absent() { None } else { Some(path(&old.name, strip)?) },
                if new.is_absent() { None } else { Some(path(&new.name, strip)?) },
            )),
            _ => None,
        };
        let moved = match (&self.rename_from, &self.rename_to, &self.copy_from, &self.copy_to) {
            (None, None, None, None) => None,
            (Some(from), Some(to), None, None) => Some((from, to, true)),
            (None, None, Some(from), Some(to)) => Some((from, to, false)),
            _ => return Err(contradiction("the lines of a rename or copy are not a pair".to_owned())),
        };
        let is_new = self.modes[NEW_FILE].is_some();
        let is_deleted = self.modes[DELETED_FILE].is_some();
        if is_new && is_deleted || (is_new || is_deleted) && moved.is_some() {
            return Err(contradiction("the header says two things about the file".to_owned()));
        }
        if let Some((from, to, is_rename)) = moved {
            // These names have no `a/` and `b/` in front, so one folder less is stripped.
            let unquoted = |name: &[u8]| match name.first() {
                Some(b'"') => {
                    name::unquote(name).map(|(name, _)| name).map_err(|refusal| reader.place(line, refusal))
                }
                _ => Ok(name.to_vec()),
            };
            let from = path(&unquoted(from)?, strip.saturating_sub(1))?;
            let to = path(&unquoted(to)?, strip.saturating_sub(1))?;
            let agrees = match &plain {
                Some((old, new)) => old.as_ref() == Some(&from) && new.as_ref() == Some(&to),
                None => true,
            };
            if !agrees || from == to || !self.names_are(reader, &from, &to) {
                let message =
                    format!("the header names other files than `{}` and `{}`", show(&from), show(&to));
                return Err(contradiction(message));
            }
            return Ok(if is_rename {
                Operation::Rename { from, to }
            } else {
                Operation::Copy { from, to }
            });
        }
        let operation = match plain {
            Some((None, None)) => return Err(contradiction("both sides are `/dev/null`".to_owned())),
            Some((None, Some(new))) if !is_deleted => Operation::Create(new),
            Some((Some(old), None)) if !is_new => Operation::Delete(old),
            Some((Some(old), Some(new))) if old == new => match (is_new, is_deleted) {
                (true, _) => Operation::Create(new),
                (_, true) => Operation::Delete(old),
                _ => Operation::Edit(new),
            },
            Some(_) => {
                return Err(contradiction("the `---` and `+++` lines and the header disagree".to_owned()));
            }
            None => {
                let path = self.common_name(reader)?;
                match (is_new, is_deleted) {
                    (true, _) => Operation::Create(path),
                    (_, true) => Operation::Delete(path),
                    _ if self.binary.is_some() || self.modes[NEW_MODE].is_some() => Operation::Edit(path),
                    _ => {
                        return Err(reader
                            .refuse_at(line, Reason::NoChange, "the header of a file has no change")
                            .hint("remove it; if hunks follow, nothing may stand between"));
                    }
                }
            }
        };
        let path = operation.path();
        if (hunks.is_empty() || self.old.is_some()) && !self.names_are(reader, path, path) {
            let message =
                format!("`diff --git {}` names another file than `{}`", show(&self.names), show(path));
            return Err(contradiction(message));
        }
        Ok(operation)
    }

    /// Whether the `diff --git` line can be read as these two paths.
    fn names_are(&self, reader: &Reader<'_>, old: &[u8], new: &[u8]) -> bool {
        self.pairs(reader).iter().any(|(left, right)| left == old && right == new)
    }

    /// The one path that both names of the `diff --git` line give.
    fn common_name(&self, reader: &Reader<'_>) -> Result<Vec<u8>, Refusal> {
        let mut common: Vec<Vec<u8>> = self
            .pairs(reader)
            .into_iter()
            .filter(|(left, right)| left == right)
            .map(|(left, _)| left)
            .collect();
        common.dedup();
        match <[Vec<u8>; 1]>::try_from(common) {
            Ok([path]) => Ok(path),
            Err(_) => Err(self.unreadable(reader)),
        }
    }

    fn unreadable(&self, reader: &Reader<'_>) -> Refusal {
        // A single bad name is worth its own words.
        for (left, right) in splits(&self.names) {
            for name in [left, right] {
                if let Err(refusal) = name::path(&name, reader.options.strip, reader.options)
                    && refusal.reason == Reason::Outside
                {
                    return reader.place(self.line, refusal);
                }
            }
        }
        let message = format!("`diff --git {}` does not name one file", show(&self.names));
        reader.refuse_at(self.line, Reason::Name, message).hint("check `strip`, and the names in that line")
    }

    /// Every way to read the `diff --git` line as two good paths.
    fn pairs(&self, reader: &Reader<'_>) -> Vec<(Vec<u8>, Vec<u8>)> {
        let path = |name: &[u8]| name::path(name, reader.options.strip, reader.options).ok();
        splits(&self.names)
            .into_iter()
            .filter_map(|(left, right)| Some((path(&left)?, path(&right)?)))
            .collect()
    }
}

/// Every way to cut `a/x b/x` in two names; quoted ones are unquoted.
fn splits(names: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let whole = |text: &[u8]| match text.first() {
        Some(b'"') => name::unquote(text).ok().filter(|(_, rest)| rest.is_empty()).map(|(name, _)| name),
        _ => (!text.is_empty()).then(|| text.to_vec()),
    };
    if names.first() == Some(&b'"') {
        let Ok((left, rest)) = name::unquote(names) else { return Vec::new() };
        let right = rest.strip_prefix(b" ").and_then(whole);
        return right.map(|right| (left, right)).into_iter().collect();
    }
    let blanks = names.iter().enumerate().filter(|(_, byte)| **byte == b' ');
    // A line of thousands of blanks is no pair of names, and would take the square of its length.
    blanks.take(256).filter_map(|(at, _)| Some((whole(&names[..at])?, whole(&names[at + 1..])?))).collect()
}

/// What plain `---` and `+++` lines do to which path.
pub fn plain_operation(
    reader: &Reader<'_>,
    line: usize,
    old: &Field,
    new: &Field,
    hunks: &[Hunk],
) -> Result<Operation, Refusal> {
    let path = |field: &Field| {
        name::path(&field.name, reader.options.strip, reader.options)
            .map_err(|refusal| reader.place(line, refusal))
    };
    match (old.is_absent(), new.is_absent()) {
        (true, true) => {
            return Err(reader.refuse_at(line, Reason::Contradiction, "both sides are `/dev/null`"));
        }
        (true, false) => return Ok(Operation::Create(path(new)?)),
        (false, true) => return Ok(Operation::Delete(path(old)?)),
        (false, false) => {}
    }
    let (old_path, new_path) = (path(old)?, path(new)?);
    let adds_to_nothing = hunks.iter().any(|hunk| hunk.old_start == 0);
    if adds_to_nothing && old_path != new_path && name::folder(&old_path) != name::folder(&new_path) {
        let message = format!("the new file can be `{}` or `{}`", show(&old_path), show(&new_path));
        return Err(reader
            .refuse_at(line, Reason::Name, message)
            .hint("write `--- /dev/null` for a file that is new"));
    }
    let path = name::chosen(old_path, new_path);
    let is_emptied = hunks.iter().all(|hunk| hunk.new_start == 0);
    match name::stamp(&new.rest) {
        Stamp::Epoch if is_emptied => Ok(Operation::Delete(path)),
        Stamp::Near if is_emptied => {
            let message = format!("the time `{}` may or may not mean that the file goes", show(&new.rest));
            Err(reader.refuse_at(line, Reason::Stamp, message).hint(
                "write `+++ /dev/null` for a file that goes, or another time for one that stays empty",
            ))
        }
        _ => Ok(Operation::Edit(path)),
    }
}
