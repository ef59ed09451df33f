//! What is worth a warning although the patch goes in. Knows no terminal.

use std::fmt;

use super::reason::show;
use super::text::Ends;

/// One warning about an applied patch; `Display` gives its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The patch's name.
    pub patch: String,
    /// The file.
    pub path: Vec<u8>,
    /// What is to be said.
    pub said: Said,
}

/// What a warning says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// A hunk went elsewhere than it says, or with less context.
    Moved(Moved),
    /// The file's line ends were kept; the patch has the others.
    LineEnds(Ends),
    /// The change was there already, and was passed over.
    Skipped,
}

/// Where a hunk went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The hunk's place among those of its file, from 1.
    pub hunk: usize,
    /// The line of the new file where it begins, from 1.
    pub line: i64,
    /// How many lines further down than it says; negative: further up.
    pub offset: i64,
    /// How many outer context lines were left out of the comparison.
    pub fuzz: u32,
    /// The line of another place that is as near and fits as well; the later one was taken.
    pub also: Option<i64>,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (patch, path) = (&self.patch, show(&self.path));
        match &self.said {
            Said::Moved(moved) => {
                write!(f, "`{patch}`: hunk {} of `{path}` went to line {}", moved.hunk, moved.line)?;
                if moved.offset != 0 {
                    let lines = if moved.offset.abs() == 1 { "line" } else { "lines" };
                    write!(f, ", offset {:+} {lines}", moved.offset)?;
                }
                if moved.fuzz != 0 {
                    write!(f, ", fuzz {}", moved.fuzz)?;
                }
                if let Some(also) = moved.also {
                    write!(f, "; line {also} is as near and fits too")?;
                }
                Ok(())
            }
            Said::LineEnds(kept) => {
                let (kept, given) = match kept {
                    Ends::Crlf => ("CRLF", "LF"),
                    _ => ("LF", "CRLF"),
                };
                write!(f, "`{patch}`: `{path}` keeps its {kept} line ends; the patch has {given}")
            }
            Said::Skipped => write!(f, "`{patch}`: `{path}` has this change already"),
        }
    }
}
