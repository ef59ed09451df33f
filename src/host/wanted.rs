//! Files, links and folders on a host: as they are wanted, asked for, found, and removed. Knows no host.

use serde::{Deserialize, Serialize};

use crate::digest::Blob;

/// A file on a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Its path there; components are separated by slashes, `..` is refused.
    pub path: String,
    /// Permission bits.
    #[serde(with = "octal")]
    pub mode: u32,
    /// Its content, by SHA-256.
    #[serde(flatten)]
    pub blob: Blob,
    /// Whose it is: a user, or a user and a group with a colon between; nothing is whoever writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
}

impl File {
    /// Whether this is what was found at its path.
    pub fn is(&self, found: &Found) -> bool {
        match found {
            Found::File { blob, mode, owner } => {
                *blob == self.blob && *mode == self.mode && is_owner(self.owner.as_deref(), owner.as_ref())
            }
            _ => false,
        }
    }
}

/// What is wanted at a path and has no content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bare {
    /// Its path there, as a file's.
    pub path: String,
    /// What it is.
    #[serde(flatten)]
    pub shape: Shape,
    /// Whose it is, as a file's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
}

/// What has no content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// A symbolic link with this target, whatever that leads to.
    Link(String),
    /// A folder with these permission bits.
    Folder(#[serde(with = "octal")] u32),
}

/// Whether something has the owner that is wanted.
pub fn is_owner(wanted: Option<&str>, found: Option<&Owner>) -> bool {
    let (Some(wanted), Some(found)) = (wanted, found) else { return true };
    let (user, group) = match wanted.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (wanted, None),
    };
    found.user.iter().any(|name| name == user)
        && group.is_none_or(|group| found.group.iter().any(|name| name == group))
}

/// Whose a file is, by name and by number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub user: [String; 2],
    /// The group.
    pub group: [String; 2],
}

/// Permission bits as text: `"0644"`.
pub mod octal {
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes four digits.
    pub fn serialize<S: Serializer>(mode: &u32, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{mode:04o}"))
    }

    /// Reads what `parse` reads.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse(&text).ok_or_else(|| serde::de::Error::custom(format!("`{text}` is not a mode")))
    }

    /// Reads one to four octal digits.
    pub fn parse(text: &str) -> Option<u32> {
        let digits =
            (1..=4).contains(&text.len()) && text.bytes().all(|digit| (b'0'..b'8').contains(&digit));
        if digits { u32::from_str_radix(text, 8).ok() } else { None }
    }
}

/// A file that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Its path.
    pub path: String,
    /// The size it should have, if that is known: a file of another size need not be read.
    pub size: Option<u64>,
}

impl Asked {
    /// A path of which only is asked what kind of thing is there: no file is read for it.
    pub fn kind(path: &str) -> Self {
        Self { path: path.to_string(), size: Some(u64::MAX) }
    }
}

/// What is in a folder and below it; links are not followed, and other file systems not entered. Left out is
/// what a send that was cut off has left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listing {
    /// There is nothing at its path.
    Nothing,
    /// There is something else than a folder: a link, a file.
    Other,
    /// It is a folder.
    Folder {
        /// Its path without links.
        real: String,
        /// The paths in it, from there, and whether each is a folder.
        inside: Vec<(String, bool)>,
    },
}

/// What is at a path of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// A regular file.
    File {
        /// Its content, by SHA-256.
        blob: Blob,
        /// Permission bits.
        mode: u32,
        /// Whose it is, where that is known.
        owner: Option<Owner>,
    },
    /// A regular file of another size than asked for.
    Differs,
    /// A symbolic link; it is not followed, and is replaced by what is sent.
    Link {
        /// Its target, if that can be told.
        target: Option<String>,
        /// Whose it is, where that is known.
        owner: Option<Owner>,
    },
    /// A folder.
    Folder {
        /// Permission bits.
        mode: u32,
        /// Whose it is, where that is known.
        owner: Option<Owner>,
    },
    /// Something else.
    Other,
}

impl Found {
    /// What it is, in words.
    pub fn words(&self) -> &'static str {
        match self {
            Self::Nothing => "not there",
            Self::File { .. } | Self::Differs => "a file",
            Self::Link { .. } => "a link",
            Self::Folder { .. } => "a folder",
            Self::Other => "a socket, pipe or device",
        }
    }
}

/// Something that is to be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    /// Its path as people know it.
    pub path: String,
    /// The folder that nothing is removed outside of: its path without links.
    pub root: String,
    /// The path from there, on which there is no link.
    pub inside: String,
    /// Whether it is a folder; it must be empty by then.
    pub is_folder: bool,
}

/// Whether what is sent may leave traces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trace {
    /// Yes: digests in names and messages, partial files that are gone on with.
    #[default]
    Left,
    /// No: it is secret.
    None,
}
