//! Why a patch is refused: one named reason each, so that `docs/patch.md` can list them.
//! Knows no patch and no file.

use crate::error::{Error, Failure};

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// Why a patch was refused; the name is the row in `docs/patch.md`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Reason { $($(#[$doc])* $variant,)* }

        impl Reason {
            /// Every reason, in the order of the table.
            #[cfg(test)]
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The row's name.
            #[cfg(test)]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

reasons! {
    /// No file change is in the patch.
    Empty = "empty",
    /// Another format than the unified one.
    Format = "format",
    /// A hunk without its file, or cut off from it by other text.
    Orphan = "orphan",
    /// A file header without change.
    NoChange = "no-change",
    /// A hunk's header or line is not well formed.
    Malformed = "malformed",
    /// A hunk has fewer lines than its header says.
    Short = "short",
    /// A hunk goes on after the lines that its header counts.
    Long = "long",
    /// The patch ends inside a line.
    CutOff = "cut-off",
    /// `\ No newline at end of file` where the file cannot end.
    Marker = "marker",
    /// A diff inside the message of a mail.
    Message = "message",
    /// Header lines that contradict each other.
    Contradiction = "contradiction",
    /// A name that can be read in two ways, or not at all.
    Name = "name",
    /// A name that leads out of the tree.
    Outside = "outside",
    /// A parent of the file is a link or a file.
    Through = "through",
    /// The file to change is not there.
    Missing = "missing",
    /// The file to make is there.
    Exists = "exists",
    /// The file is of another type than the patch says.
    Type = "type",
    /// A submodule or another mode that no file here can have.
    Mode = "mode",
    /// A rename or copy of a file that was changed before.
    Source = "source",
    /// Text is left after a deletion.
    Leftover = "leftover",
    /// A time near 1970 that may or may not mean "no such file".
    Stamp = "stamp",
    /// Nothing of the hunk would be compared with the file.
    Nothing = "nothing-compared",
    /// The hunk fits only where an earlier one changed the file, or before it.
    Order = "order",
    /// The hunk fits nowhere.
    Mismatch = "mismatch",
    /// The whole change is there already.
    Applied = "already-applied",
    /// The reverse of the first hunk fits better than the hunk.
    Reversed = "reversed",
    /// The patch mixes line ends in a way that has two readings.
    LineEnds = "line-ends",
    /// A line without line end would get a neighbour.
    FileEnd = "file-end",
    /// Binary data that is missing, damaged or made for another content.
    Binary = "binary",
    /// The text of a link that no link can have.
    Link = "link",
}

/// A refused patch: the reason as data, and what to tell the user.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The row in `docs/patch.md`.
    pub reason: Reason,
    /// What to show.
    pub failure: Failure,
}

impl Refusal {
    /// A refusal of one line.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, failure: Failure::new(message) }
    }

    /// Adds a hint.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.failure = self.failure.hint(hint);
        self
    }

    /// Adds lines that show what went wrong.
    pub fn detail(mut self, lines: impl IntoIterator<Item = String>) -> Self {
        self.failure = self.failure.detail(lines);
        self
    }
}

/// What stops an application: a refusal, or an error of the tree below.
#[derive(Debug)]
pub enum Halt {
    /// The patch does not go in.
    Refused(Box<Refusal>),
    /// The tree could not be read.
    Error(Error),
}

impl From<Refusal> for Halt {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(Box::new(refusal))
    }
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<Halt> for Error {
    fn from(halt: Halt) -> Self {
        match halt {
            Halt::Refused(refusal) => Self::Failed(refusal.failure),
            Halt::Error(error) => error,
        }
    }
}

/// Bytes of a patch or a path as people read them: control characters as escapes, one line.
pub fn show(bytes: &[u8]) -> String {
    let mut shown = String::new();
    for char in String::from_utf8_lossy(bytes).chars() {
        match char {
            '\t' => shown.push('\t'),
            char if char.is_control() => shown.extend(char.escape_default()),
            char => shown.push(char),
        }
    }
    shown
}
