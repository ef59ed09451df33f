//! The hunks of one file written again for other contents: those whose change is still wanted stay as
//! they were written, byte for byte, and what they do not do becomes new hunks. Knows no file header.

use std::ops::Range;

use super::Options;
use super::diff::{Block, Carried, Edit, Row, blocks, edits};
use super::emit::{self, Asking};
use super::section::{Hunk, Section, Side};
use super::text::Text;

/// More hunks of a file than this are not tried one by one.
const MOST_TRIED: usize = 200;

/// The hunks of one file as they were written.
pub struct Written<'a> {
    /// The lines of the patch.
    pub lines: &'a Text<'a>,
    /// The file's change.
    pub section: &'a Section,
    /// How the patch is applied.
    pub options: &'a Options,
}

/// A hunk that fits, as far as is known before the rest is.
struct Fit<'a> {
    hunk: &'a Hunk,
    /// The old lines it covers, from 0.
    old: Range<usize>,
    /// The same lines in the content that it makes.
    made: Range<usize>,
    rows: Vec<Place<'a>>,
}

/// A line of a hunk: its side, where it is in the old content (or, if it is new, in what is made), and how
/// it was written, if that is still right.
type Place<'a> = (Side, Range<usize>, Option<&'a [u8]>);

impl<'a> Written<'a> {
    /// Whether the section was converted to CRLF as a whole.
    pub fn carried(&self) -> Carried {
        let Some(hunk) = self.section.hunks.first() else { return Carried::Plain };
        let plus = self.lines.line(hunk.line - 2);
        let has_cr = |line: &[u8]| line.strip_suffix(b"\n").unwrap_or(line).ends_with(b"\r");
        let body = self.lines.line(hunk.line);
        match plus.ends_with(b"\r\n") && has_cr(body) {
            true => Carried::WithCr,
            false => Carried::Plain,
        }
    }

    /// The hunks that make `new` of `old`.
    pub fn hunks<'c>(&self, old: &'c [u8], new: &'c [u8]) -> Vec<Block<'c>>
    where
        'a: 'c,
    {
        let (before, after) = (Text::new(old), Text::new(new));
        let (made, fits) = self.fits(old);
        let changes = edits(&made, new);
        let made = Text::new(&made);
        let mut islands: Vec<Block<'c>> = Vec::new();
        for fit in &fits {
            let Some(start) = moved(&fit.made, &changes) else { continue };
            let rows = fit.rows.iter().map(|(side, lines, raw)| {
                let text = match side {
                    Side::New => after.line(lines.start - fit.made.start + start),
                    _ => before.line(lines.start),
                };
                let raw = raw.filter(|_| match side {
                    Side::New => made.line(lines.start) == text,
                    _ => true,
                });
                Row { side: *side, text, raw }
            });
            let rows: Vec<Row<'c>> = rows.collect();
            let new = start..start + fit.made.len();
            let mut block = Block { old: fit.old.clone(), new, rows, heading: Vec::new(), header: None };
            self.head(fit.hunk, &mut block, &before, &after);
            islands.push(block);
        }
        fill(islands, &before, &after)
    }

    /// The hunks that fit, and the content that they make.
    fn fits(&self, old: &[u8]) -> (Vec<u8>, Vec<Fit<'a>>) {
        let asking = Asking { patch: "", path: "" };
        let hunks = &self.section.hunks;
        let all = emit::emit(old, hunks, asking, self.options).ok();
        let (chosen, emitted): (Vec<&Hunk>, _) = match all {
            Some(emitted) => (hunks.iter().collect(), Some(emitted)),
            None => {
                let mut chosen: Vec<Hunk> = Vec::new();
                let mut last = None;
                for hunk in hunks.iter().take(MOST_TRIED) {
                    chosen.push(hunk.clone());
                    match emit::emit(old, &chosen, asking, self.options) {
                        Ok(emitted) => last = Some(emitted),
                        Err(_) => drop(chosen.pop()),
                    }
                }
                let numbers: Vec<usize> = chosen.iter().map(|hunk| hunk.number).collect();
                (hunks.iter().filter(|hunk| numbers.contains(&hunk.number)).collect(), last)
            }
        };
        let Some(emitted) = emitted else { return (old.to_vec(), Vec::new()) };
        let content = emitted.lay(old.to_vec());
        let count = Text::new(old).count() as i64;
        let (mut net, mut fits) = (0, Vec::new());
        for (hunk, place) in chosen.iter().zip(&emitted.places) {
            fits.push(self.fit(hunk, place - 1, net, count, &content, old));
            net += hunk.new_lines().count() as i64 - hunk.old_lines().count() as i64;
        }
        (content, fits)
    }

    /// The rows of a hunk that fits at line `place` (from 0); context beyond the file's ends is dropped.
    fn fit(&self, hunk: &'a Hunk, place: i64, net: i64, count: i64, made: &[u8], old: &[u8]) -> Fit<'a> {
        let (old, made) = (Text::new(old), Text::new(made));
        let (mut at, mut to, mut rows) = (place, place + net, Vec::new());
        let (mut first, mut last) = (None, place);
        let mut line = hunk.line;
        for part in &hunk.lines {
            let from = line;
            line += 1;
            while line < self.lines.count() && self.lines.line(line).first() == Some(&b'\\') {
                line += 1;
            }
            let raw = self.lines.range(from, line);
            if part.side == Side::New {
                first = first.or(Some((at, to)));
                let here = to as usize;
                let same = here < made.count() && made.line(here) == part.text;
                rows.push((Side::New, here..here + 1, same.then_some(raw)));
                to += 1;
                continue;
            }
            if (0..count).contains(&at) {
                first = first.or(Some((at, to)));
                let here = at as usize;
                rows.push((part.side, here..here + 1, (old.line(here) == part.text).then_some(raw)));
                last = at + 1;
            }
            at += 1;
            to += i64::from(part.side == Side::Context);
        }
        let (start, made_start) = first.unwrap_or((place, place + net));
        let kept_new = rows.iter().filter(|(side, ..)| *side != Side::Old).count();
        let (start, made_start) = (start.max(0) as usize, made_start.max(0) as usize);
        Fit {
            hunk,
            old: start..(last.max(0) as usize).max(start),
            made: made_start..made_start + kept_new,
            rows,
        }
    }

    /// Gives a hunk its header: the one it had, if that is still right.
    fn head(&self, hunk: &Hunk, block: &mut Block<'a>, before: &Text<'_>, after: &Text<'_>) {
        let header = self.lines.line(hunk.line - 1);
        let start = |lines: &Range<usize>| lines.start as u64 + u64::from(!lines.is_empty());
        let olds = hunk.old_lines().count() == block.old.len();
        let is_right = olds && hunk.old_start == start(&block.old);
        if is_right && !strays(hunk, block, before, after) {
            block.header = Some(header);
        }
        let rest = header.get(3..).and_then(|tail| {
            let at = tail.windows(3).position(|part| part == b" @@")?;
            Some(&tail[at + 3..])
        });
        block.heading = rest.unwrap_or_default().trim_ascii().to_vec();
    }
}

/// Whether git, which looks first where the header says that the new lines begin, would find another
/// place before this one. Only then a hunk that was not changed gets a new header because of others.
fn strays(hunk: &Hunk, block: &Block<'_>, before: &Text<'_>, after: &Text<'_>) -> bool {
    let says = hunk.new_start as i64 - i64::from(!block.new.is_empty());
    let is = block.new.start as i64;
    let far = (says - is).abs();
    let olds: Vec<&[u8]> =
        block.rows.iter().filter(|row| row.side != Side::New).map(|row| row.text).collect();
    let count = is + (before.count() - block.old.start) as i64;
    let line = |at: i64| match at < is {
        true => after.line(at as usize),
        false => before.line((at - is) as usize + block.old.start),
    };
    let fits = |at: i64| {
        at >= 0
            && at + olds.len() as i64 <= count
            && olds.iter().zip(at..).all(|(text, at)| line(at) == *text)
    };
    far > 0 && (says - far..=says + far).any(|at| at != is && fits(at))
}

/// Where lines are after some changes; nothing if one of them is among those.
fn moved(lines: &Range<usize>, changes: &[Edit]) -> Option<usize> {
    let mut start = lines.start;
    for change in changes {
        let touches = match lines.is_empty() {
            true => change.old.start <= lines.end && change.old.end >= lines.start,
            false => change.old.start < lines.end && change.old.end > lines.start,
        };
        if touches {
            return None;
        }
        if change.old.start >= lines.end {
            break;
        }
        start = change.new.end + (lines.start - change.old.end);
    }
    Some(start)
}

/// Adds the hunks for what lies between; those that would overlap a kept one take its place.
fn fill<'c>(mut islands: Vec<Block<'c>>, before: &Text<'c>, after: &Text<'c>) -> Vec<Block<'c>> {
    loop {
        let mut fresh: Vec<Block<'c>> = Vec::new();
        let (mut old, mut new) = (0, 0);
        let ends = (before.count(), after.count());
        let borders = islands.iter().map(|island| (island.old.start, island.new.start));
        let after_each = islands.iter().map(|island| (island.old.end, island.new.end));
        for ((old_to, new_to), next) in borders.chain([ends]).zip(after_each.chain([ends])) {
            let mut gap = edits(before.range(old, old_to), after.range(new, new_to));
            for edit in &mut gap {
                edit.old = edit.old.start + old..edit.old.end + old;
                edit.new = edit.new.start + new..edit.new.end + new;
            }
            fresh.extend(blocks(&gap, before, after));
            (old, new) = next;
        }
        // Where lines are only added, a neighbour that touches would have to say which comes first.
        let overlaps = |island: &Block<'_>| {
            let (start, end) = (island.old.start, island.old.end);
            fresh.iter().any(|one| match start == end {
                true => one.old.start <= end && one.old.end >= start,
                false => one.old.start < end && one.old.end > start,
            })
        };
        let before_count = islands.len();
        islands.retain(|island| !overlaps(island));
        if islands.len() == before_count {
            islands.extend(fresh);
            islands.sort_by_key(|block| (block.old.start, block.new.start));
            return islands;
        }
    }
}
