//! Applies unified diffs: bytes in, changes out. Parses a patch strictly (nothing in it is dropped
//! silently), places each hunk by GNU patch's rules as far as those are safe, and gives all changes or
//! none. Knows no file system, no cache and no task; the tree comes in through [`Files`].
//! Also writes patches again for another change (`keep`), and merges files (`merge`).
//! `docs/patch.md` lists where it refuses what other tools accept, and why.

mod apply;
mod binary;
mod change;
mod diff;
mod emit;
mod header;
mod hunk;
mod keep;
mod kept;
mod merge;
mod name;
mod note;
mod overlay;
mod parse;
mod place;
mod reason;
mod section;
mod show;
mod text;
mod write;

#[cfg(test)]
mod cases;
#[cfg(test)]
mod differential;
#[cfg(test)]
mod histories;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod keep_tests;
#[cfg(test)]
mod tests;

pub use apply::{Applied, apply, attempt};
pub use keep::{Keep, Rewriting, Wanted, after, real};
pub use merge::{Labels, Merged, Why, is_marked, merge};
pub use overlay::Overlay;
pub use parse::parse;
pub use reason::{Halt, Reason, show};

use crate::error::Result;

/// How a patch is read and applied; all of it belongs to the key of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How many leading folders are cut from each name.
    pub strip: usize,
    /// How many outer context lines of a hunk may differ; 0 means none.
    pub fuzz: u32,
    /// What a change that is already there means.
    pub already_applied: AlreadyApplied,
    /// What a hunk that only inserts, without any context, means.
    pub zero_context: ZeroContext,
    /// The folder that the names in the patch start from, if not the tree's root.
    pub basedir: Option<Vec<u8>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            strip: 1,
            fuzz: 2,
            already_applied: AlreadyApplied::Fail,
            zero_context: ZeroContext::Refuse,
            basedir: None,
        }
    }
}

/// What a change that is already there means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlreadyApplied {
    /// It is an error.
    Fail,
    /// It is passed over, with a note.
    Skip,
}

/// What a hunk that only inserts, without any context, means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZeroContext {
    /// It is refused: nothing would be compared.
    Refuse,
    /// It goes where its line number says, if the file is that long.
    Allow,
}

/// What is found under one path. A link is never followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A regular file.
    File {
        /// All its bytes.
        content: Vec<u8>,
        /// Whether it may be run.
        executable: bool,
    },
    /// A symbolic link with its text.
    Link(Vec<u8>),
    /// A folder.
    Folder,
}

/// The tree that is patched, as patching sees it. Paths are relative, with `/`, without `.` or `..`.
pub trait Files {
    /// What is at `path`; `None` if nothing is, also when a parent is a link or a file.
    fn entry(&self, path: &[u8]) -> Result<Option<Entry>>;

    /// The names in a folder. Only asked for when a patch puts a file in the place of a folder.
    fn names(&self, folder: &[u8]) -> Result<Vec<Vec<u8>>>;
}

/// What happens to one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A regular file is there afterwards.
    Write {
        /// All its bytes.
        content: Vec<u8>,
        /// Whether it may be run.
        executable: bool,
    },
    /// A symbolic link is there afterwards.
    Link(Vec<u8>),
    /// Nothing is there afterwards. Folders that this empties are the caller's to drop.
    Remove,
}
