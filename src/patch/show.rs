//! Shows why a hunk does not fit: what it expects beside the nearest lines that are there.
//! Knows no terminal.

use super::place::From;
use super::reason::show;
use super::section::Hunk;
use super::text::{Text, hash};

/// Lines of this many expected ones are shown at most.
const SHOWN: usize = 40;
/// A line that occurs more often says nothing about the place.
const COMMON: usize = 200;
/// The width of the left column.
const WIDTH: usize = 44;

/// One row of the comparison.
enum Row<'a> {
    Same(&'a [u8]),
    Wanted(&'a [u8]),
    There(&'a [u8], usize),
}

/// The lines that a failure shows for `hunk`.
pub fn mismatch(text: &Text<'_>, hunk: &Hunk, from: From) -> Vec<String> {
    let old: Vec<&[u8]> = hunk.old_lines().take(SHOWN).collect();
    let guess = i64::try_from(hunk.old_start).unwrap_or(0).saturating_add(from.drift);
    let near = nearest(text, &old, guess);
    let to = (near + old.len() + 2).min(text.count());
    let there: Vec<&[u8]> = (near.min(to)..to).map(|at| text.line(at)).collect();
    let mut rows = align(&old, &there, near);
    while let Some(Row::There(..)) = rows.last() {
        rows.pop();
    }
    let mut lines = vec![format!("  {:WIDTH$} | there, from line {}", "expected", near + 1)];
    if there.is_empty() {
        lines[0] = format!("  {:WIDTH$} | the file has {} lines", "expected", text.count());
    }
    for row in &rows {
        lines.push(match row {
            Row::Same(line) => format!("  {} | {}", column(line), cut(line)),
            Row::Wanted(line) => format!("- {} |", column(line)),
            Row::There(line, at) => format!("+ {:WIDTH$} | {}  (line {at})", "", cut(line)),
        });
    }
    if hunk.old_lines().nth(SHOWN).is_some() {
        lines.push("  …".to_owned());
    }
    lines.extend(difference(&rows));
    lines
}

/// The place, from 0, where most of the old lines are; of several, the one nearest to the guess.
fn nearest(text: &Text<'_>, old: &[&[u8]], guess: i64) -> usize {
    let mut votes = std::collections::BTreeMap::new();
    for (at, line) in old.iter().enumerate() {
        let places = text.index().places(hash(line));
        if places.len() <= COMMON && line.trim_ascii().len() > 1 || places.len() == 1 {
            for (_, place) in places {
                *votes.entry(i64::from(*place) - at as i64).or_insert(0usize) += 1;
            }
        }
    }
    let best = votes.into_iter().max_by_key(|(slot, count)| (*count, -(slot + 1 - guess).abs(), *slot));
    let slot = best.map_or(guess - 1, |(slot, _)| slot);
    usize::try_from(slot).unwrap_or(0).min(text.count().saturating_sub(1))
}

/// Aligns the longest common run of lines.
fn align<'a>(old: &[&'a [u8]], there: &[&'a [u8]], near: usize) -> Vec<Row<'a>> {
    let (m, n) = (old.len(), there.len());
    let mut lengths = vec![vec![0usize; n + 1]; m + 1];
    for i in (0..m).rev() {
        for j in (0..n).rev() {
            lengths[i][j] = match old[i] == there[j] {
                true => lengths[i + 1][j + 1] + 1,
                false => lengths[i + 1][j].max(lengths[i][j + 1]),
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut rows = Vec::new();
    while i < m || j < n {
        if i < m && j < n && old[i] == there[j] {
            rows.push(Row::Same(old[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == n || i < m && lengths[i + 1][j] >= lengths[i][j + 1] {
            rows.push(Row::Wanted(old[i]));
            i += 1;
        } else {
            rows.push(Row::There(there[j], near + j + 1));
            j += 1;
        }
    }
    rows
}

/// One sentence about the first expected line that is not there.
fn difference(rows: &[Row<'_>]) -> Option<String> {
    let at = rows.iter().position(|row| matches!(row, Row::Wanted(_)))?;
    let Row::Wanted(wanted) = rows[at] else { return None };
    let other = rows[at..].iter().chain(rows[..at].iter().rev()).find_map(|row| match row {
        Row::There(line, number) if like(line) == like(wanted) => Some((*line, *number)),
        _ => None,
    });
    let end = |line: &[u8]| match line {
        [.., b'\r', b'\n'] => "CRLF",
        [.., b'\n'] => "LF",
        _ => "no line end",
    };
    Some(match other {
        Some((line, number))
            if line.trim_ascii_end() == wanted.trim_ascii_end() && end(line) != end(wanted) =>
        {
            format!("line {number} ends with {}, expected {}", end(line), end(wanted))
        }
        Some((_, number)) => format!("line {number} differs from the expected one in blanks only"),
        None => format!("not there: `{}`", cut(wanted)),
    })
}

/// A line without its blanks.
fn like(line: &[u8]) -> Vec<u8> {
    line.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect()
}

fn cut(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let shown = show(line).replace('\t', "    ");
    match shown.chars().count() > WIDTH {
        true => shown.chars().take(WIDTH - 1).chain(['…']).collect(),
        false => shown,
    }
}

fn column(line: &[u8]) -> String {
    let line = cut(line);
    format!("{line:WIDTH$}")
}
