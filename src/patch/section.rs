//! A parsed patch as data: its file changes in order, each with its hunks. Knows neither the text it
//! came from nor the tree it goes to.

/// A parsed patch, ready to be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// The name to show for it, such as `patches/a.patch`.
    pub name: String,
    /// The file changes, in the order of the text.
    pub sections: Vec<Section>,
}

/// The change of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// The line of the patch where it starts, from 1.
    pub line: usize,
    /// The line after its last one.
    pub end: usize,
    /// Which commit of a mailbox or log it belongs to: renames and copies read the state before it.
    pub commit: usize,
    /// Plain or git's.
    pub style: Style,
    /// What happens to which path.
    pub operation: Operation,
    /// The mode that git says the file had.
    pub old_mode: Option<Mode>,
    /// The mode that git says the file gets.
    pub new_mode: Option<Mode>,
    /// The text changes, in order.
    pub hunks: Vec<Hunk>,
    /// The binary change.
    pub binary: Option<Binary>,
}

/// Which tool's headers a section has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// `---` and `+++` only.
    Plain,
    /// `diff --git`.
    Git,
}

/// What happens to which path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// The file changes; it is made if the only hunk adds to nothing.
    Edit(Vec<u8>),
    /// The file is made.
    Create(Vec<u8>),
    /// The file goes.
    Delete(Vec<u8>),
    /// The file gets another path.
    Rename {
        /// Where it was.
        from: Vec<u8>,
        /// Where it goes.
        to: Vec<u8>,
    },
    /// Another file is made from it.
    Copy {
        /// What is copied.
        from: Vec<u8>,
        /// Where to.
        to: Vec<u8>,
    },
}

impl Operation {
    /// The path that is there afterwards (or, for a deletion, no more).
    pub fn path(&self) -> &[u8] {
        match self {
            Self::Edit(path) | Self::Create(path) | Self::Delete(path) => path,
            Self::Rename { to, .. } | Self::Copy { to, .. } => to,
        }
    }

    /// All paths that it reads or writes.
    pub fn paths(&self) -> Vec<&[u8]> {
        match self {
            Self::Edit(path) | Self::Create(path) | Self::Delete(path) => vec![path],
            Self::Rename { from, to } | Self::Copy { from, to } => vec![from, to],
        }
    }
}

/// The type of a file and whether it may be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A regular file; `true`: executable.
    File(bool),
    /// A symbolic link.
    Link,
}

/// Some changed lines with their context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hunk {
    /// Its place among the hunks of its file, from 1.
    pub number: usize,
    /// The line of the patch that has its header, from 1.
    pub line: usize,
    /// The first line of the old side; of an empty one, the line before.
    pub old_start: u64,
    /// The same for the new side.
    pub new_start: u64,
    /// Context, deleted and inserted lines.
    pub lines: Vec<Line>,
}

/// One line of a hunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// On which sides it is.
    pub side: Side,
    /// Its bytes with its line end, if it has one.
    pub text: Vec<u8>,
}

/// On which sides of a hunk a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// On both.
    Context,
    /// On the old one.
    Old,
    /// On the new one.
    New,
}

/// Both directions of a binary change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binary {
    /// The line of the patch that says `GIT binary patch`, from 1.
    pub line: usize,
    /// From the old content to the new one.
    pub forward: Block,
    /// From the new content to the old one.
    pub reverse: Block,
}

/// One direction of a binary change, unpacked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Block {
    /// The whole content.
    Literal(Vec<u8>),
    /// What to copy from the other content, and what to add.
    Delta(Vec<u8>),
}

impl Hunk {
    /// The lines of the old side.
    pub fn old_lines(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.lines.iter().filter(|line| line.side != Side::New).map(|line| &line.text[..])
    }

    /// The lines of the new side.
    pub fn new_lines(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.lines.iter().filter(|line| line.side != Side::Old).map(|line| &line.text[..])
    }

    /// The hunk that undoes this one.
    pub fn reversed(&self) -> Self {
        let lines = self.lines.iter().map(|line| Line {
            side: match line.side {
                Side::Context => Side::Context,
                Side::Old => Side::New,
                Side::New => Side::Old,
            },
            text: line.text.clone(),
        });
        Self {
            number: self.number,
            line: self.line,
            old_start: self.new_start,
            new_start: self.old_start,
            lines: lines.collect(),
        }
    }
}
