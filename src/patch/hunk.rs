//! Frames one hunk by the counts in its header, strictly, and has diffy parse it. Knows no file header
//! and no tree.

use super::parse::Reader;
use super::reason::{Reason, Refusal, show};
use super::section::{Hunk, Line, Side};

/// The line that diffy knows; translated ones are written as this.
const MARKER: &[u8] = b"\\ No newline at end of file\n";

/// The ranges of a `@@` line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ranges {
    old: (u64, u64),
    new: (u64, u64),
}

/// Reads the hunk whose header is the reader's next line.
pub fn read(reader: &mut Reader<'_>, number: usize) -> Result<Hunk, Refusal> {
    let header_line = reader.number();
    let header = reader.line(0);
    let Some(ranges) = ranges(header) else {
        return Err(reader
            .refuse(Reason::Malformed, format!("`{}` is not a hunk's header", show(header)))
            .hint("it has the form `@@ -start,count +start,count @@`"));
    };
    let mut text = header.to_vec();
    text.push(b'\n');
    reader.at += 1;
    frame(reader, header_line, ranges, &mut text)?;
    let malformed = |message: String| reader.refuse_at(header_line, Reason::Malformed, message);
    let parsed = diffy::Patch::from_bytes(&text).map_err(|error| malformed(error.to_string()))?;
    let [hunk] = parsed.hunks() else { return Err(malformed("this is not one hunk".to_owned())) };
    let lines: Vec<Line> = hunk
        .lines()
        .iter()
        .map(|line| match line {
            diffy::Line::Context(text) => Line { side: Side::Context, text: text.to_vec() },
            diffy::Line::Delete(text) => Line { side: Side::Old, text: text.to_vec() },
            diffy::Line::Insert(text) => Line { side: Side::New, text: text.to_vec() },
        })
        .collect();
    if lines.iter().all(|line| line.side == Side::Context) {
        return Err(reader.refuse_at(header_line, Reason::NoChange, "the hunk changes nothing"));
    }
    let (old_start, new_start) = (hunk.old_range().start() as u64, hunk.new_range().start() as u64);
    let hunk = Hunk { number, line: header_line, old_start, new_start, lines };
    for (start, count) in [(old_start, hunk.old_lines().count()), (new_start, hunk.new_lines().count())] {
        if start == 0 && count > 0 {
            return Err(malformed("the hunk has lines but starts at line 0".to_owned()));
        }
    }
    Ok(hunk)
}

/// Takes the lines that the counts claim, each checked, into `text`.
fn frame(
    reader: &mut Reader<'_>,
    header_line: usize,
    ranges: Ranges,
    text: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let (mut old, mut new) = (ranges.old.1, ranges.new.1);
    // Whether the last line of a side was said to have no line end.
    let (mut old_ended, mut new_ended) = (false, false);
    let mut last = b' ';
    while old > 0 || new > 0 || reader.raw(0).first() == Some(&b'\\') {
        if reader.is_done() {
            return Err(short(reader, header_line, "the patch ends", old, new));
        }
        let raw = reader.raw(0);
        let Some(line) = raw.strip_suffix(b"\n") else {
            if raw[0] == b'\\' {
                // The marker needs no line end of its own.
                mark(reader, last, old, new, &mut old_ended, &mut new_ended)?;
                text.extend_from_slice(MARKER);
                reader.at += 1;
                continue;
            }
            return Err(reader
                .refuse(Reason::CutOff, "the patch ends inside this line")
                .hint("end it with a line end, or write the patch again if more is missing"));
        };
        let kind = if line.is_empty() || reader.is_crlf && line == b"\r" { b' ' } else { line[0] };
        let ended = match kind {
            b' ' => old_ended || new_ended,
            b'-' => old_ended,
            b'+' => new_ended,
            _ => false,
        };
        if ended {
            return Err(marker(reader, "this line follows one that is said to end its file"));
        }
        let enough = match kind {
            b' ' => old > 0 && new > 0,
            b'-' => old > 0,
            b'+' => new > 0,
            b'\\' => {
                mark(reader, last, old, new, &mut old_ended, &mut new_ended)?;
                text.extend_from_slice(MARKER);
                reader.at += 1;
                continue;
            }
            _ => {
                return Err(short(
                    reader,
                    header_line,
                    &format!("it is cut off by `{}`", show(line)),
                    old,
                    new,
                ));
            }
        };
        if !enough {
            let message = format!("the counts in line {header_line} leave no room for `{}`", show(line));
            return Err(reader
                .refuse(Reason::Malformed, message)
                .hint("correct the counts in the `@@` line, or write the patch again"));
        }
        old -= u64::from(kind != b'+');
        new -= u64::from(kind != b'-');
        last = kind;
        // A blank context line may have lost its blank; diffy has to see where the line's text begins.
        if line.first() != Some(&kind) {
            text.push(kind);
        }
        text.extend_from_slice(line);
        text.push(b'\n');
        reader.at += 1;
    }
    Ok(())
}

fn short(reader: &Reader<'_>, header_line: usize, what: &str, old: u64, new: u64) -> Refusal {
    let message = format!(
        "the hunk of line {header_line} is too short: {what}, but {old} old and {new} new lines are to come"
    );
    reader.refuse(Reason::Short, message).hint(
        "correct the counts in the `@@` line, or write the patch again; context lines begin with a blank",
    )
}

fn marker(reader: &Reader<'_>, message: &str) -> Refusal {
    reader
        .refuse(Reason::Marker, message)
        .hint("`\\ No newline at end of file` belongs after the last line of a file only")
}

/// Takes a `\ No newline at end of file` line for the side of the line before it.
fn mark(
    reader: &Reader<'_>,
    last: u8,
    old: u64,
    new: u64,
    old_ended: &mut bool,
    new_ended: &mut bool,
) -> Result<(), Refusal> {
    let is_last = match last {
        b'-' => old == 0 && !*old_ended,
        b'+' => new == 0 && !*new_ended,
        _ => old == 0 && new == 0 && !*old_ended && !*new_ended,
    };
    if !is_last {
        return Err(marker(reader, "`\\ No newline at end of file` follows a line that is not the last"));
    }
    *old_ended |= last != b'+';
    *new_ended |= last != b'-';
    Ok(())
}

/// Cuts one CR from each line of hunks that were converted to CRLF together with their patch. None is cut
/// if none has one; if only some have one, gives the number of the first line that lacks it.
pub fn cut_cr(hunks: &mut [Hunk]) -> Result<(), usize> {
    let has_cr = |line: &Line| line.text.strip_suffix(b"\n").unwrap_or(&line.text).ends_with(b"\r");
    if !hunks.iter().flat_map(|hunk| &hunk.lines).any(has_cr) {
        return Ok(());
    }
    for hunk in hunks {
        for (at, line) in hunk.lines.iter_mut().enumerate() {
            if !has_cr(line) {
                return Err(hunk.line + 1 + at);
            }
            let cr = line.text.iter().rposition(|byte| *byte == b'\r');
            line.text.remove(cr.unwrap_or_default());
        }
    }
    Ok(())
}

/// Reads `@@ -start[,count] +start[,count] @@`; `None` if it is anything else or a number is too large.
fn ranges(line: &[u8]) -> Option<Ranges> {
    let text = line.strip_prefix(b"@@ -")?;
    let (old, text) = range(text)?;
    let (new, text) = range(text.strip_prefix(b" +")?)?;
    (text.starts_with(b" @@")).then_some(Ranges { old, new })
}

fn range(text: &[u8]) -> Option<((u64, u64), &[u8])> {
    let (start, text) = digits(text)?;
    let (count, text) = match text.strip_prefix(b",") {
        Some(text) => digits(text)?,
        None => (1, text),
    };
    // Lines are counted in half of the range, so that no sum of two can overflow.
    (start <= u64::MAX / 8 && count <= u64::MAX / 8).then_some(((start, count), text))
}

fn digits(text: &[u8]) -> Option<(u64, &[u8])> {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let number = std::str::from_utf8(&text[..end]).ok()?.parse().ok()?;
    Some((number, &text[end..]))
}
