//! Applies the hunks of one file to its content: places each, checks that nothing is done twice, and says
//! what has to be written where. Knows no path but for messages.

use std::ops::Range;

use super::note::Moved;
use super::place::{Found, From, Sought};
use super::reason::{Reason, Refusal};
use super::section::{Hunk, Side};
use super::text::{Ends, Text};
use super::{Options, ZeroContext, show};

/// What the hunks of one file make of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Emitted {
    /// What goes and what comes, in order; none overlap.
    edits: Vec<Edit>,
    /// The hunks that went somewhere else than they say, or with less context.
    pub moved: Vec<Moved>,
    /// The line ends that were kept against those of the patch.
    pub kept: Option<Ends>,
    /// For each hunk the line of the old content, from 1, that its first old line is or precedes.
    pub places: Vec<i64>,
}

/// Bytes of the old content, and what is there instead.
#[derive(Debug, PartialEq, Eq)]
struct Edit {
    old: Range<usize>,
    new: Vec<u8>,
}

impl Emitted {
    /// The new content. It is made in the old one's place, because memory that is touched for the first time
    /// costs more than moving what is there.
    pub fn lay(&self, mut content: Vec<u8>) -> Vec<u8> {
        // So far the new content gets ahead of the old one at most.
        let (mut ahead, mut most) = (0_isize, 0);
        for edit in &self.edits {
            ahead += edit.new.len() as isize - edit.old.len() as isize;
            most = most.max(ahead);
        }
        let (most, first) =
            (most as usize, self.edits.first().map_or(content.len(), |edit| edit.old.start));
        let old_end = content.len();
        content.resize(old_end + most, 0);
        shift(&mut content, first..old_end, first + most);
        let (mut write, mut read) = (first, first + most);
        for edit in &self.edits {
            let untouched = read..edit.old.start + most;
            write = shift(&mut content, untouched, write);
            content[write..write + edit.new.len()].copy_from_slice(&edit.new);
            write += edit.new.len();
            read = edit.old.end + most;
        }
        let end = shift(&mut content, read..old_end + most, write);
        content.truncate(end);
        content
    }
}

/// Moves bytes to where `to` says; gives where they end then.
fn shift(content: &mut [u8], bytes: Range<usize>, to: usize) -> usize {
    let end = to + bytes.len();
    if bytes.start != to {
        content.copy_within(bytes, to);
    }
    end
}

/// Who asks, for messages.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    /// The patch's name.
    pub patch: &'a str,
    /// The file's path as people read it.
    pub path: &'a str,
}

/// Applies `hunks` to `content`.
pub fn emit(
    content: &[u8],
    hunks: &[Hunk],
    asking: Asking<'_>,
    options: &Options,
) -> Result<Emitted, Refusal> {
    let text = Text::new(content);
    let (adapted, kept) = match adapt(&text, hunks) {
        Some((adapted, ends)) => (Some(adapted), Some(ends)),
        None => (None, None),
    };
    let hunks = adapted.as_deref().unwrap_or(hunks);
    let mut emission = Emission { text: &text, edits: Vec::new(), last: None, frozen: 0 };
    let (mut drift, mut net) = (0, 0);
    let (mut moved, mut places) = (Vec::new(), Vec::new());
    for hunk in hunks {
        let from = From { drift, frozen: emission.frozen as i64 };
        let sought = Sought::new(hunk);
        let (slot, note) = place(&text, hunk, &sought, from, net, asking, options)?;
        drift = slot - sought.start;
        moved.extend(note);
        places.push(slot);
        emission.write(hunk, slot as usize, asking)?;
        net += hunk.new_lines().count() as i64 - hunk.old_lines().count() as i64;
    }
    emission.copy(text.count(), &|| unended(asking, hunks.last()))?;
    Ok(Emitted { edits: emission.edits, moved, kept, places })
}

const STALE: &str = "the file changed since the patch was made: write the patch again for it";

/// Finds the place of one hunk; gives its slot and what is worth a note.
fn place(
    text: &Text<'_>,
    hunk: &Hunk,
    sought: &Sought<'_>,
    from: From,
    net: i64,
    asking: Asking<'_>,
    options: &Options,
) -> Result<(i64, Option<Moved>), Refusal> {
    let refuse = |reason, message: &str| {
        let Asking { patch, path } = asking;
        let (number, line) = (hunk.number, hunk.line);
        Refusal::new(reason, format!("`{patch}` line {line}: hunk {number} of `{path}` {message}"))
    };
    let adds_only = hunk.old_lines().next().is_none();
    let is_whole = adds_only && text.count() == 0;
    if adds_only && !is_whole && options.zero_context == ZeroContext::Refuse {
        return Err(refuse(Reason::Nothing, "adds lines without any context, so nothing says where they belong")
            .hint("write the patch with context (`diff -U3`), or set `zero_context = true` to trust its line numbers"));
    }
    let reversed = (hunk.number == 1).then(|| hunk.reversed());
    let reversed_sought =
        reversed.as_ref().filter(|hunk| hunk.old_lines().next().is_some()).map(Sought::new);
    let most = sought.most_fuzz(options.fuzz);
    for fuzz in 0..=most {
        match sought.find(text, from, fuzz) {
            Found::Fits(fit) => {
                let offset = fit.slot - sought.start;
                let line = fit.slot + net;
                let moved = (offset != 0 || fuzz != 0 || fit.also.is_some()).then(|| Moved {
                    hunk: hunk.number,
                    line,
                    offset,
                    fuzz,
                    also: fit.also.map(|slot| slot + net),
                });
                return Ok((fit.slot, moved));
            }
            Found::Behind(slot) => {
                let message = format!("fits line {slot} only, which an earlier hunk changed or went past");
                return Err(refuse(Reason::Order, &message)
                    .hint("put the hunks in the order of the file's lines, and join those that overlap"));
            }
            Found::Nothing if adds_only => {
                let message =
                    format!("adds lines after line {}, but the file has {}", hunk.old_start, text.count());
                return Err(refuse(Reason::Nothing, &message).hint(STALE));
            }
            Found::Nothing => {
                return Err(refuse(
                    Reason::Nothing,
                    "fits nowhere, and with more fuzz nothing of it would be compared",
                )
                .detail(show::mismatch(text, hunk, from)));
            }
            Found::Nowhere => {}
        }
        // What GNU patch takes for an applied patch before it tries more fuzz is at least doubtful.
        if let Some(reversed) = &reversed_sought
            && let Found::Fits(fit) = reversed.find(text, From { drift: 0, frozen: 0 }, fuzz)
        {
            let message = format!("does not fit, but its reverse does, at line {}", fit.slot);
            return Err(refuse(Reason::Reversed, &message).detail(show::mismatch(text, hunk, from)).hint(
                "the patch, or a part of it, seems to be applied already; compare the file with the patch",
            ));
        }
    }
    Err(refuse(Reason::Mismatch, "does not fit").detail(show::mismatch(text, hunk, from)).hint(
        if most < options.fuzz || options.fuzz > 0 {
            STALE
        } else {
            "write the patch again for this file, or allow some context to differ with `fuzz`"
        },
    ))
}

/// The hunks with the file's line ends, if the file has one style and all hunks the other.
fn adapt(text: &Text<'_>, hunks: &[Hunk]) -> Option<(Vec<Hunk>, Ends)> {
    // Without an old line that has an end, nothing would be matched by its content.
    if !hunks.iter().flat_map(Hunk::old_lines).any(|line| line.ends_with(b"\n")) {
        return None;
    }
    let of_hunks = Ends::of(hunks.iter().flat_map(|hunk| &hunk.lines).map(|line| &line.text[..]));
    if !matches!(of_hunks, Ends::Lf | Ends::Crlf) {
        return None;
    }
    // Most files have the style of the patch, or both; the first line tells.
    if text.count() == 0 || Ends::of([text.line(0)]) == of_hunks {
        return None;
    }
    let of_text = text.ends();
    if !matches!(of_text, Ends::Lf | Ends::Crlf) || of_text == of_hunks {
        return None;
    }
    let mut adapted = hunks.to_vec();
    for line in adapted.iter_mut().flat_map(|hunk| &mut hunk.lines) {
        if line.text.pop_if(|byte| *byte == b'\n').is_some() {
            match of_text {
                Ends::Crlf => line.text.push(b'\r'),
                _ => {
                    line.text.pop();
                }
            }
            line.text.push(b'\n');
        }
    }
    Some((adapted, of_text))
}

/// The new content while it grows.
struct Emission<'t, 'b> {
    text: &'t Text<'b>,
    edits: Vec<Edit>,
    /// The last byte of the new content.
    last: Option<u8>,
    /// How many lines of the old content were copied or deleted.
    frozen: usize,
}

impl Emission<'_, '_> {
    /// Leaves lines up to and including `line` as they are.
    fn copy(&mut self, line: usize, unended: &dyn Fn() -> Refusal) -> Result<(), Refusal> {
        let line = line.min(self.text.count());
        if line > self.frozen {
            self.push(self.text.range(self.frozen, line), unended)?;
            self.frozen = line;
        }
        Ok(())
    }

    /// Takes note of bytes, which must follow a line end.
    fn push(&mut self, bytes: &[u8], unended: &dyn Fn() -> Refusal) -> Result<(), Refusal> {
        if self.last.is_some_and(|byte| byte != b'\n') && !bytes.is_empty() {
            return Err(unended());
        }
        self.last = bytes.last().copied().or(self.last);
        Ok(())
    }

    /// The edit that goes on where the copied and deleted lines end.
    fn edit(&mut self) -> &mut Edit {
        let at = self.text.range(0, self.frozen).len();
        if self.edits.last().is_none_or(|edit| edit.old.end != at) {
            self.edits.push(Edit { old: at..at, new: Vec::new() });
        }
        self.edits.last_mut().expect("BUG: an edit was just there")
    }

    fn write(&mut self, hunk: &Hunk, slot: usize, asking: Asking<'_>) -> Result<(), Refusal> {
        let unended = || unended(asking, Some(hunk));
        // The old line that is next; those of trimmed context may lie beyond the end.
        let mut next = slot;
        for line in &hunk.lines {
            match line.side {
                Side::Context => next += 1,
                Side::Old => {
                    self.copy(next - 1, &unended)?;
                    let size = self.text.line(self.frozen).len();
                    self.edit().old.end += size;
                    self.frozen = next;
                    next += 1;
                }
                Side::New => {
                    self.copy(next - 1, &unended)?;
                    self.push(&line.text, &unended)?;
                    self.edit().new.extend_from_slice(&line.text);
                }
            }
        }
        Ok(())
    }
}

fn unended(asking: Asking<'_>, hunk: Option<&Hunk>) -> Refusal {
    let Asking { patch, path } = asking;
    let (number, line) = hunk.map_or((0, 0), |hunk| (hunk.number, hunk.line));
    let message = format!(
        "`{patch}` line {line}: hunk {number} of `{path}` would put text after a line that has no line end"
    );
    Refusal::new(Reason::FileEnd, message)
        .hint("the patch was made where the file ends; write it again for this file")
}
