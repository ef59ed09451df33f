//! The difference of two contents as edits, and edits with context as hunks, in the form of `git diff`.
//! Knows no file header and no tree.

use std::ops::Range;

use super::section::Side;
use super::text::Text;

/// How many lines of context a new hunk has on each side.
pub const CONTEXT: usize = 3;

/// Lines that give way to others; lines count from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// The lines that go.
    pub old: Range<usize>,
    /// The lines that come.
    pub new: Range<usize>,
}

/// One line of a hunk that is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row<'a> {
    /// On which sides it is.
    pub side: Side,
    /// Its bytes with its line end, if it has one.
    pub text: &'a [u8],
    /// The line of the patch that says just this, marker included, if there is one.
    pub raw: Option<&'a [u8]>,
}

/// A hunk that is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block<'a> {
    /// The lines of the old content that it covers, from 0.
    pub old: Range<usize>,
    /// The same of the new content.
    pub new: Range<usize>,
    /// Its lines.
    pub rows: Vec<Row<'a>>,
    /// What stands after the second `@@`.
    pub heading: Vec<u8>,
    /// The header line as it was, if it still says just this.
    pub header: Option<&'a [u8]>,
}

/// The edits that make `new` of `old`, by git's own algorithm.
pub fn edits(old: &[u8], new: &[u8]) -> Vec<Edit> {
    if old == new {
        return Vec::new();
    }
    let mut options = git2::DiffOptions::new();
    options.context_lines(0).interhunk_lines(0).force_text(true).indent_heuristic(true);
    let whole = || vec![Edit { old: 0..Text::new(old).count(), new: 0..Text::new(new).count() }];
    let Ok(patch) = git2::Patch::from_buffers(old, None, new, None, Some(&mut options)) else {
        return whole();
    };
    let lines = |start: u32, count: u32| {
        let (start, count) = (start as usize, count as usize);
        let from = if count == 0 { start } else { start - 1 };
        from..from + count
    };
    let mut edits = Vec::new();
    for index in 0..patch.num_hunks() {
        let Ok((hunk, _)) = patch.hunk(index) else { return whole() };
        edits.push(Edit {
            old: lines(hunk.old_start(), hunk.old_lines()),
            new: lines(hunk.new_start(), hunk.new_lines()),
        });
    }
    if edits.is_empty() { whole() } else { edits }
}

/// Joins edits that are close to each other, and gives them context.
pub fn blocks<'a>(edits: &[Edit], old: &Text<'a>, new: &Text<'a>) -> Vec<Block<'a>> {
    let close = |a: &Edit, b: &Edit| b.old.start - a.old.end <= 2 * CONTEXT;
    edits.chunk_by(close).map(|edits| block(edits, old, new)).collect()
}

fn block<'a>(edits: &[Edit], old: &Text<'a>, new: &Text<'a>) -> Block<'a> {
    let (Some(first), Some(last)) = (edits.first(), edits.last()) else {
        panic!("BUG: a hunk without edits")
    };
    let start = first.old.start.saturating_sub(CONTEXT);
    let end = (last.old.end + CONTEXT).min(old.count());
    let mut rows = Vec::new();
    let mut at = start;
    let row = |side, text| Row { side, text, raw: None };
    for edit in edits {
        rows.extend((at..edit.old.start).map(|line| row(Side::Context, old.line(line))));
        rows.extend(edit.old.clone().map(|line| row(Side::Old, old.line(line))));
        rows.extend(edit.new.clone().map(|line| row(Side::New, new.line(line))));
        at = edit.old.end;
    }
    rows.extend((at..end).map(|line| row(Side::Context, old.line(line))));
    // Context may reach into what was not compared, and there have fewer lines: such a block is dropped.
    let new_start = first.new.start.saturating_sub(first.old.start - start);
    let new_end = last.new.end + (end - last.old.end);
    Block { old: start..end, new: new_start..new_end, rows, heading: heading(old, start), header: None }
}

/// The line above a hunk that git would show in its header: the nearest that begins with a letter, `_`
/// or `$`.
fn heading(text: &Text<'_>, start: usize) -> Vec<u8> {
    let names = |line: &[u8]| line.first().is_some_and(|b| b.is_ascii_alphabetic() || b"_$".contains(b));
    let Some(line) = (0..start).rev().map(|at| text.line(at)).find(|line| names(line)) else {
        return Vec::new();
    };
    let line = line.trim_ascii_end();
    let mut end = line.len().min(80);
    // Not in the middle of a character.
    while end > 0 && end < line.len() && line[end] & 0xc0 == 0x80 {
        end -= 1;
    }
    if line[..end].contains(&0) { Vec::new() } else { line[..end].trim_ascii_end().to_vec() }
}

/// How the lines of a patch end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carried {
    /// With the line ends of the file's content.
    Plain,
    /// With a CR more: the patch was converted as a whole.
    WithCr,
}

impl Block<'_> {
    /// Writes the hunk.
    pub fn write(&self, carried: Carried, out: &mut Vec<u8>) {
        let end: &[u8] = if carried == Carried::WithCr { b"\r\n" } else { b"\n" };
        match self.header {
            Some(header) => out.extend_from_slice(header),
            None => {
                let (old, new) = (range(&self.old), range(&self.new));
                out.extend_from_slice(format!("@@ -{old} +{new} @@").as_bytes());
                if !self.heading.is_empty() {
                    out.push(b' ');
                    out.extend_from_slice(&self.heading);
                }
                out.extend_from_slice(end);
            }
        }
        for row in &self.rows {
            if let Some(raw) = row.raw {
                out.extend_from_slice(raw);
                if !raw.ends_with(b"\n") {
                    out.push(b'\n');
                }
                continue;
            }
            out.push(match row.side {
                Side::Context => b' ',
                Side::Old => b'-',
                Side::New => b'+',
            });
            let text = row.text.strip_suffix(b"\n");
            out.extend_from_slice(text.unwrap_or(row.text));
            out.extend_from_slice(end);
            if text.is_none() {
                out.extend_from_slice(b"\\ No newline at end of file");
                out.extend_from_slice(end);
            }
        }
    }
}

/// One side of a hunk's header.
fn range(lines: &Range<usize>) -> String {
    match lines.len() {
        0 => format!("{},0", lines.start),
        1 => format!("{}", lines.start + 1),
        count => format!("{},{count}", lines.start + 1),
    }
}
