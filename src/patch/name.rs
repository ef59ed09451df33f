//! File names in patch headers: where they end, quoting, stripping, and that they stay in the tree.
//! Knows no tree: which of two names is meant is decided by their text alone.

use super::Options;
use super::reason::{Reason, Refusal, show};

/// A name as a header line gives it, with what stands after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// The name, unquoted, before stripping.
    pub name: Vec<u8>,
    /// The text after the TAB: a time, a revision, or nothing.
    pub rest: Vec<u8>,
}

impl Field {
    /// Whether it says that there is no such file.
    pub fn is_absent(&self) -> bool {
        self.name == b"/dev/null"
    }
}

/// Reads the name in a `--- ` or `+++ ` line, given without its prefix and line end.
pub fn field(text: &[u8]) -> Result<Field, Refusal> {
    if text.first() == Some(&b'"') {
        let (name, rest) = unquote(text)?;
        let rest = match rest {
            [] => rest,
            [b'\t' | b' ', rest @ ..] => rest,
            _ => return Err(name_error(format!("text follows the quoted name in `{}`", show(text)))),
        };
        return Ok(Field { name, rest: rest.to_vec() });
    }
    if let Some(tab) = text.iter().position(|byte| *byte == b'\t') {
        return plain(&text[..tab], &text[tab + 1..]);
    }
    let Some(blank) = text.iter().position(|byte| *byte == b' ') else { return plain(text, b"") };
    let rest = text[blank..].trim_ascii();
    let is_time = rest.len() > 4 && rest[..4].iter().all(u8::is_ascii_digit) && rest[4] == b'-';
    if rest.is_empty() || is_time || rest.starts_with(b"(") {
        return plain(&text[..blank], rest);
    }
    Err(name_error(format!("`{}` can be one name with a blank, or a name and a note", show(text)))
        .hint("put a TAB after the name, as `git diff` and `diff -u` do"))
}

fn plain(name: &[u8], rest: &[u8]) -> Result<Field, Refusal> {
    if name.is_empty() {
        return Err(name_error("the file name is empty"));
    }
    Ok(Field { name: name.to_vec(), rest: rest.to_vec() })
}

fn name_error(message: impl Into<String>) -> Refusal {
    Refusal::new(Reason::Name, message)
}

/// Reads a name in C quotes; gives it and what follows the closing quote.
pub fn unquote(text: &[u8]) -> Result<(Vec<u8>, &[u8]), Refusal> {
    let bad = || name_error(format!("the quoted name `{}` is not well formed", show(text)));
    let mut name = Vec::new();
    let mut at = 1;
    loop {
        let byte = *text.get(at).ok_or_else(bad)?;
        at += 1;
        match byte {
            b'"' => return Ok((name, &text[at..])),
            b'\\' => {
                let escape = *text.get(at).ok_or_else(bad)?;
                at += 1;
                name.push(match escape {
                    b'a' => 7,
                    b'b' => 8,
                    b't' => b'\t',
                    b'n' => b'\n',
                    b'v' => 11,
                    b'f' => 12,
                    b'r' => b'\r',
                    b'"' | b'\\' => escape,
                    b'0'..=b'3' => {
                        let digits = text.get(at - 1..at + 2).ok_or_else(bad)?;
                        if !digits.iter().all(|digit| (b'0'..=b'7').contains(digit)) {
                            return Err(bad());
                        }
                        at += 2;
                        digits.iter().fold(0, |value, digit| value * 8 + (digit - b'0'))
                    }
                    _ => return Err(bad()),
                });
            }
            other => name.push(other),
        }
    }
}

/// Cuts `strip` folders from a name, checks that it stays in the tree, and puts `basedir` before it.
pub fn path(name: &[u8], strip: usize, options: &Options) -> Result<Vec<u8>, Refusal> {
    let outside = |what: &str| {
        Refusal::new(Reason::Outside, format!("the name `{}` {what}", show(name)))
            .hint("a patch may only change files of the tree that it is applied to")
    };
    if name.first() == Some(&b'/') {
        return Err(outside("is absolute"));
    }
    if name.len() >= 2 && name[0].is_ascii_alphabetic() && name[1] == b':' {
        return Err(outside("begins with a drive letter"));
    }
    if name.contains(&0) {
        return Err(name_error(format!("the name `{}` has a NUL byte", show(name))));
    }
    let mut parts: Vec<&[u8]> = name.split(|byte| *byte == b'/').collect();
    if parts.last().is_some_and(|last| last.is_empty()) {
        return Err(name_error(format!("the name `{}` is that of a folder", show(name))));
    }
    parts.retain(|part| !part.is_empty());
    if parts.len() <= strip {
        return Err(name_error(format!("the name `{}` has no {strip} folders to strip", show(name)))
            .hint("lower `strip`, which says how many leading folders are cut from each name"));
    }
    let mut kept = Vec::new();
    for part in parts.into_iter().skip(strip) {
        if part == b".." {
            return Err(outside("leads out of its folder with `..`"));
        }
        if part.eq_ignore_ascii_case(b".git") {
            return Err(outside("is inside of git's own `.git`"));
        }
        if part != b"." {
            kept.push(part);
        }
    }
    if kept.is_empty() {
        return Err(name_error(format!("the name `{}` is that of a folder", show(name))));
    }
    let path = kept.join(&b'/');
    Ok(match &options.basedir {
        Some(base) if !base.is_empty() => [&base[..], b"/", &path].concat(),
        _ => path,
    })
}

/// Which of an old and a new path is meant: fewest folders, shortest last name, shortest path, the old one.
/// GNU patch asks this of the files that exist; here the tree has no say.
pub fn chosen(old: Vec<u8>, new: Vec<u8>) -> Vec<u8> {
    let rank = |path: &[u8]| {
        let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
        (parts.len(), parts.last().map_or(0, |last| last.len()), path.len())
    };
    if rank(&new) < rank(&old) { new } else { old }
}

/// The folder of a path; empty at the root.
pub fn folder(path: &[u8]) -> &[u8] {
    path.iter().rposition(|byte| *byte == b'/').map_or(b"", |slash| &path[..slash])
}

/// The paths of all folders above `path`, outermost first.
pub fn folders(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| &path[..at])
}

/// What the time in a header says about the file's existence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stamp {
    /// Exactly the epoch, in any zone: there is no such file.
    Epoch,
    /// Within about a day of it: some tools read that as "no such file".
    Near,
    /// Any other time, or none.
    Other,
}

/// Reads the time after a name.
pub fn stamp(rest: &[u8]) -> Stamp {
    let text = String::from_utf8_lossy(rest);
    match seconds(&text) {
        Some(0.0) => Stamp::Epoch,
        Some(seconds) if (-86_400.0..=90_000.0).contains(&seconds) => Stamp::Near,
        Some(_) => Stamp::Other,
        None if text.contains("1970") || text.contains("1969") => Stamp::Near,
        None => Stamp::Other,
    }
}

/// Seconds since the epoch of `YYYY-MM-DD HH:MM:SS[.frac] [+-HHMM]`, if near it.
fn seconds(text: &str) -> Option<f64> {
    let mut words = text.split_ascii_whitespace();
    let days = match words.next()? {
        "1969-12-30" => -2.0,
        "1969-12-31" => -1.0,
        "1970-01-01" => 0.0,
        "1970-01-02" => 1.0,
        "1970-01-03" => 2.0,
        date => {
            let is_date =
                date.len() == 10 && date.bytes().all(|byte| byte == b'-' || byte.is_ascii_digit());
            return is_date.then_some(f64::MAX);
        }
    };
    let mut clock = words.next()?.splitn(3, ':').map(str::parse::<f64>);
    let (hour, minute, second) = (clock.next()?.ok()?, clock.next()?.ok()?, clock.next()?.ok()?);
    let zone = match words.next() {
        None => 0.0,
        Some(zone) => {
            let number: f64 = zone.get(1..5)?.parse().ok()?;
            let seconds = (number / 100.0).floor() * 3600.0 + number % 100.0 * 60.0;
            if zone.starts_with('-') { -seconds } else { seconds }
        }
    };
    Some(days * 86_400.0 + hour * 3600.0 + minute * 60.0 + second - zone)
}
