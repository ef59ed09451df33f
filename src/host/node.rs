//! A host, as shipping sees it: ask (everything at once), send (one stream), check, name, and read. It
//! speaks of blobs and opaque descriptors; what a descriptor describes is not known here, and who plans
//! cannot tell what kind of host it has.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::digest::{Blob, Digest};
use crate::error::{Error, Failure, Result};
use crate::host::embedded::Embedded;
use crate::host::fs::Stamp;
use crate::host::inside;
use crate::recipe::{Content, Part, Sink};

/// How to reach a host; plain data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// Its name in `vcbuild.toml`.
    pub name: String,
    /// The folder of an embedded node, relative to the project or absolute.
    pub local: String,
}

/// Why a host did not do what it was asked.
#[derive(Debug)]
pub enum Trouble {
    /// It does not answer: why, in words.
    Unreachable(String),
    /// Everything else, also lost content.
    Error(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Error(failure.into())
    }
}

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

/// All that is asked of a host at once.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// Paths of files.
    pub files: Vec<String>,
    /// Blobs that descriptors are made of, by SHA-256.
    pub blobs: Vec<Blob>,
    /// Names of descriptors.
    pub names: Vec<String>,
}

/// What a host says.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// What is at each path, in the order of the question.
    pub files: Vec<Found>,
    /// Those of the blobs that are there, whole and undamaged.
    pub blobs: BTreeSet<Digest>,
    /// The descriptors behind those of the names that are there and mean one thing.
    pub names: BTreeMap<String, Value>,
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
    },
    /// A symbolic link; it is not followed, and is replaced by what is sent.
    Link,
    /// Something else, in words: `a folder`.
    Other(&'static str),
}

/// What is sent to a host, in this order, as one stream.
#[derive(Clone, Debug, Default)]
pub struct Load {
    /// Files to place or to replace, with where their content comes from.
    pub files: Vec<(File, Part)>,
    /// Files whose content is there, but not with these permission bits.
    pub modes: Vec<File>,
    /// Blobs that descriptors are made of.
    pub blobs: Vec<(Blob, Part)>,
}

/// A host, reached.
pub trait Node {
    /// Says what is there of all that is asked. Changes nothing, but for clearing away what a send
    /// that was cut off has left.
    fn ask(&self, question: &Question) -> Result<Answer, Trouble>;

    /// Sends everything in one stream; each piece appears whole and verified, or not at all.
    fn send(&self, load: &Load, content: &dyn Content) -> Result<(), Trouble>;

    /// Gives names to descriptors, all at once; a name that is taken moves. Fails, and moves nothing,
    /// if what a descriptor names is not there.
    fn name(&self, names: &BTreeMap<String, Value>) -> Result<(), Trouble>;

    /// Streams a file from a byte on to its end.
    fn read(&self, path: &str, from: u64, sink: &mut dyn Sink) -> Result<(), Trouble>;

    /// Sees that files and blobs are there; the error names the first that is not.
    fn check(&self, files: &[File], blobs: &[Blob]) -> Result<(), Trouble> {
        let question = Question {
            files: files.iter().map(|file| file.path.clone()).collect(),
            blobs: blobs.to_vec(),
            names: Vec::new(),
        };
        let answer = self.ask(&question)?;
        for (file, found) in files.iter().zip(&answer.files) {
            if *found != (Found::File { blob: file.blob, mode: file.mode }) {
                let message = format!("`{}` was sent, but it is not there as it was sent", file.path);
                return Err(Failure::new(message)
                    .hint("somebody else may have changed it: run again")
                    .into());
            }
        }
        match blobs.iter().find(|blob| !answer.blobs.contains(&blob.digest)) {
            None => Ok(()),
            Some(blob) => {
                let message = format!("`{}` was sent, but it is not there", blob.digest);
                Err(Failure::new(message).hint("somebody else may have removed it: run again").into())
            }
        }
    }
}

/// Remembers the SHA-256 of files by their stamp.
pub trait Memory: Sync {
    /// The digest of the file with this stamp.
    fn recall(&self, stamp: &Stamp) -> Option<Digest>;
    /// The file with this stamp was read after the moment `at` and has this digest.
    fn remember(&self, stamp: &Stamp, digest: Digest, at: i64);
    /// This process has just written a file.
    fn wrote(&self, path: PathBuf, stamp: Stamp, digest: Digest);
}

/// Whoever watches what goes on at a host.
pub trait Watch {
    /// So many more bytes of payload were moved.
    fn moved(&self, bytes: u64);
    /// Fails if it was asked to stop; called at every piece.
    fn check(&self) -> Result<()>;
    /// Somebody else is changing the host, and is waited for.
    fn waits(&self);
}

/// The last name in the path of a file on a host; `None` if a text cannot be such a path.
pub fn last_name(path: &str) -> Option<&str> {
    inside::names(path)?.pop()
}

/// Reaches a host; a folder is relative to `root`.
pub fn open<'a>(
    spec: &Spec,
    root: &Path,
    memory: &'a dyn Memory,
    watch: &'a dyn Watch,
) -> Result<Box<dyn Node + 'a>, Trouble> {
    Ok(Box::new(Embedded::open(spec, root, memory, watch)?))
}
