//! The two roads on which something goes wrong: the user's file is wrong (`Mistake`, many at once),
//! or a task failed (`Failure`, data). A bug panics with `BUG:`. Knows no terminal and no task.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::digest::Digest;

/// Why a step, or the whole program, could not go on.
#[derive(Debug)]
pub enum Error {
    /// Something could not be done; data for people.
    Failed(Failure),
    /// A record promises this content and the cache does not have it, or has it wrong.
    Lost(Digest),
    /// The user asked to stop.
    Interrupted,
}

/// The result of almost everything.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What failed, in words: lower case, names in backticks, no full stop.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    /// One line: what could not be done, and why.
    pub message: String,
    /// More lines: a command's last output, a hunk beside the lines that are there.
    pub detail: Vec<String>,
    /// What to do about it, one line each.
    pub hints: Vec<String>,
    /// What the task printed until it failed, whole.
    pub log: Option<Vec<u8>>,
}

impl Failure {
    /// A failure of one line.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), ..Self::default() }
    }

    /// Adds a hint.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Adds lines that show what went wrong.
    pub fn detail(mut self, lines: impl IntoIterator<Item = String>) -> Self {
        self.detail.extend(lines);
        self
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Error {
    /// A failure of one line.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::Failed(Failure::new(message))
    }

    /// Puts what was being done in front of a failure; leaves the other roads alone.
    pub fn context(self, doing: impl fmt::Display) -> Self {
        match self {
            Self::Failed(mut failure) => {
                failure.message = format!("{doing}: {}", failure.message);
                Self::Failed(failure)
            }
            other => other,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(failure) => f.write_str(&failure.message),
            Self::Lost(digest) => write!(f, "the cache lost `{digest}`"),
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

/// Names the operation and the file in a failed input or output call.
pub trait At<T> {
    /// `` read `patches/a.patch`: no such file or directory ``
    fn at(self, doing: &str, path: &Path) -> Result<T>;
}

impl<T, E: Into<std::io::Error>> At<T> for std::result::Result<T, E> {
    fn at(self, doing: &str, path: &Path) -> Result<T> {
        self.map_err(|error| {
            Error::failed(format!("{doing} `{}`: {}", path.display(), io_words(&error.into())))
        })
    }
}

/// An input or output error as one lower-case phrase, without the `(os error N)`.
pub fn io_words(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => String::new(),
    }
}

/// A text that the user wrote, with the name to show for it.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    /// The file's name as the user would write it.
    pub name: String,
    /// The whole text.
    pub text: String,
}

/// One thing that is wrong in a file of the user, or in a command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// One line, in the words of `Failure`.
    pub message: String,
    /// Where: bytes of the source's text.
    pub place: Option<(Arc<Source>, Range<usize>)>,
    /// What to do about it.
    pub hints: Vec<String>,
}

impl Mistake {
    /// A mistake without a place.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), place: None, hints: Vec::new() }
    }

    /// Says where.
    pub fn at(mut self, source: &Arc<Source>, span: Range<usize>) -> Self {
        self.place = Some((source.clone(), span));
        self
    }

    /// Adds a hint.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Adds a hint if there is one.
    pub fn hint_maybe(mut self, hint: Option<String>) -> Self {
        self.hints.extend(hint);
        self
    }
}

/// The name among `candidates` that was most likely meant by `wrong`, as a hint.
pub fn did_you_mean<'a>(wrong: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(wrong, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len().max(wrong.len()) / 4)
        .min()
        .map(|(_, candidate)| format!("did you mean `{candidate}`?"))
}
