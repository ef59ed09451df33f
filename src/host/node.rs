//! A host, as shipping sees it: ask (everything at once), send (one stream), check, name, and read. It
//! speaks of blobs, of what they become when they are unpacked, and of opaque descriptors; what a
//! descriptor describes is not known here, and who plans cannot tell what kind of host it has.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::digest::{Blob, Digest};
use crate::error::{Error, Failure, Result};
use crate::host::docker;
use crate::host::embedded::Embedded;
use crate::host::fs::Stamp;
use crate::host::inside;
use crate::host::ssh::{self, Links};
pub use crate::host::wanted::{
    Asked, Bare, File, Found, Gone, Listing, Owner, Shape, Trace, is_owner, octal,
};
use crate::recipe::{Content, Part, Sink};
use crate::splice::Splice;

/// How to reach a host; plain data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// Its name in `vcbuild.toml`.
    pub name: String,
    /// Where it is.
    #[serde(flatten)]
    pub at: At,
}

/// Where a host is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum At {
    /// An embedded node: a folder, relative to the project or absolute.
    Local(String),
    /// A machine, by ssh.
    Ssh(ssh::Address),
    /// A Docker or Podman daemon of this machine: its socket.
    Docker(String),
}

impl Spec {
    /// An embedded node.
    pub fn local(name: &str, folder: &str) -> Self {
        Self { name: name.to_string(), at: At::Local(folder.to_string()) }
    }

    /// Whether the host is this machine.
    pub fn is_here(&self) -> bool {
        matches!(self.at, At::Local(_) | At::Docker(_))
    }
}

/// Why a host did not do what it was asked.
#[derive(Debug)]
pub enum Trouble {
    /// It does not answer: why, in words.
    Unreachable(String),
    /// What was begun was cut off, or what was said of the host is no more so: asked again, it may go on.
    Cut(Failure),
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

/// An image as a host gets it; plain data.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Image {
    /// Names that never move: one for each repository.
    pub content_tags: Vec<String>,
    /// Names that the user declared.
    pub tags: Vec<String>,
    /// What the names are given to.
    pub descriptor: Value,
    /// All that it is made of: layers, then configs, then manifests, each once.
    pub blobs: Vec<Blob>,
    /// One for each platform.
    pub variants: Vec<Variant>,
}

impl Image {
    /// What of it runs on a machine of a platform as in `linux/arm64`, whichever kind of that machine it is made for.
    pub fn variant(&self, platform: &str) -> Option<&Variant> {
        let fits = |of: &str| {
            of.strip_prefix(platform).is_some_and(|kind| kind.is_empty() || kind.starts_with('/'))
        };
        self.variants.iter().find(|variant| fits(&variant.platform))
    }

    /// What of it is for a platform, if it is made for several.
    pub fn only(&self, platform: &str) -> Cow<'_, Self> {
        let variant = self.variants.iter().find(|variant| variant.platform == platform);
        let (Some(variant), 2..) = (variant, self.variants.len()) else { return Cow::Borrowed(self) };
        let Ok(manifest) = super::index::blob(&variant.descriptor) else { return Cow::Borrowed(self) };
        let mut wanted: BTreeSet<Digest> = variant.layers.iter().map(|layer| layer.blob.digest).collect();
        wanted.extend([variant.config.digest, manifest.digest]);
        let blobs = self.blobs.iter().filter(|blob| wanted.contains(&blob.digest)).copied().collect();
        Cow::Owned(Self { descriptor: variant.descriptor.clone(), blobs, ..self.clone() })
    }

    /// The name to call it by.
    pub fn shown(&self) -> &str {
        let name = self.content_tags.first().or(self.tags.first());
        name.map_or("an image", |name| name.rsplit('/').next().unwrap_or(name))
    }
}

/// What an image is on hosts of one platform.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Variant {
    /// As in `linux/amd64`.
    pub platform: String,
    /// What names are given to.
    pub descriptor: Value,
    /// What says how to run it.
    pub config: Blob,
    /// From the lowest up.
    pub layers: Vec<Layer>,
}

/// A layer of an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Layer {
    /// What is sent.
    #[serde(flatten)]
    pub blob: Blob,
    /// The name of what it becomes, with all below it, when it is unpacked: a host that has that does not
    /// need the blob.
    pub becomes: Digest,
    /// The media type.
    #[serde(rename = "mediaType")]
    pub media: String,
}

/// All that is asked of a host at once.
#[derive(Clone, Debug, Default)]
pub struct Question<'a> {
    /// Files, links, folders.
    pub files: Vec<Asked>,
    /// Folders of which all is told that is in them.
    pub folders: Vec<String>,
    /// Images.
    pub images: &'a [Image],
}

/// What a host says.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// What is at each path, in the order of the question.
    pub files: Vec<Found>,
    /// What is in each folder, in the order of the question.
    pub folders: Vec<Listing>,
    /// What there is of each image, in the order of the question.
    pub images: Vec<Standing>,
    /// The blobs that are there and of which others can be made, if something is missing.
    pub held: BTreeSet<Digest>,
}

/// What there is of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The blobs that must be sent, in the order to send them.
    pub missing: Vec<Blob>,
    /// The names that are not there, or mean something else, or are not as they should be.
    pub names: BTreeSet<String>,
}

/// What is sent to a host, in this order, as one stream.
#[derive(Clone, Debug, Default)]
pub struct Load<'a> {
    /// What stands in the way of the rest.
    pub before: Vec<Gone>,
    /// Links and folders to make, folders before what is in them.
    pub bare: Vec<Bare>,
    /// Files to place or to replace, with where their content comes from.
    pub files: Vec<(File, Part)>,
    /// Files whose content is there, but not with these permission bits or this owner.
    pub modes: Vec<File>,
    /// Folders that get these permission bits and this owner, when all that goes into them is there.
    pub folders: Vec<Bare>,
    /// What is removed when all the rest is there, from the inside out.
    pub after: Vec<Gone>,
    /// Whether it may leave traces.
    pub trace: Trace,
    /// Blobs that images are made of, each once.
    pub blobs: Vec<(Blob, Part)>,
    /// How some of the blobs are made of what the host said that it holds; it may have all of them sent.
    pub splices: BTreeMap<Digest, Arc<Splice>>,
    /// The images that get their names that never move once all of them is there.
    pub images: Vec<&'a Image>,
}

impl Load<'_> {
    /// Whether something is said of files.
    pub fn has_files(&self) -> bool {
        let removes = !self.before.is_empty() || !self.after.is_empty();
        let bare = !self.bare.is_empty() || !self.folders.is_empty();
        removes || bare || !self.files.is_empty() || !self.modes.is_empty()
    }
}

/// A host, reached.
pub trait Node {
    /// Says what is there of all that is asked. Changes nothing, but for clearing away what a send
    /// that was cut off has left.
    fn ask(&self, question: &Question<'_>) -> Result<Answer, Trouble>;

    /// Sends everything in one stream, and returns the payload in bytes that went. Each piece appears
    /// whole and verified, or not at all; an image gets its names that never move when all of it is there.
    fn send(&self, load: &Load<'_>, content: &dyn Content) -> Result<u64, Trouble>;

    /// Gives images their declared names, all at once; a name that is taken moves. Fails, and moves
    /// nothing, if an image is not there.
    fn name(&self, images: &[&Image]) -> Result<(), Trouble>;

    /// Streams a file from a byte on to its end.
    fn read(&self, path: &str, from: u64, sink: &mut dyn Sink) -> Result<(), Trouble>;

    /// What an image's name is given to, an index or a manifest; `None` if it is given to nothing.
    fn given(&self, name: &str) -> Result<Option<Digest>, Trouble>;

    /// Streams a blob of an image as it is there; it is not verified.
    fn blob(&self, digest: &Digest, sink: &mut dyn Sink) -> Result<(), Trouble>;

    /// Sees that files and all that images are made of are there; the error names the first that is not.
    fn check(&self, files: &[File], images: &[Image]) -> Result<(), Trouble> {
        let asked = |file: &File| Asked { path: file.path.clone(), size: Some(file.blob.size) };
        let files_asked = files.iter().map(asked).collect();
        let answer = self.ask(&Question { files: files_asked, images, ..Question::default() })?;
        let lost = |what: &str, who: &str, hint: &str| {
            let message = format!("`{what}` was sent, but it is not there{who}");
            Err(Failure::new(message).hint(format!("somebody else may have {hint} it: run again")).into())
        };
        for (file, found) in files.iter().zip(&answer.files) {
            if !file.is(found) {
                return lost(&file.path, " as it was sent", "changed");
            }
        }
        match answer.images.iter().find_map(|standing| standing.missing.first()) {
            None => Ok(()),
            Some(blob) => lost(&blob.digest.to_string(), "", "removed"),
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

/// Remembers nothing.
pub struct Forgetful;

impl Memory for Forgetful {
    fn recall(&self, _: &Stamp) -> Option<Digest> {
        None
    }

    fn remember(&self, _: &Stamp, _: Digest, _: i64) {}

    fn wrote(&self, _: PathBuf, _: Stamp, _: Digest) {}
}

/// Whoever watches what goes on at a host.
pub trait Watch: Sync {
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
    links: &'a Links,
    memory: &'a dyn Memory,
    watch: &'a dyn Watch,
) -> Result<Box<dyn Node + 'a>, Trouble> {
    match &spec.at {
        At::Local(folder) => Ok(Box::new(Embedded::open(&spec.name, folder, root, memory, watch)?)),
        At::Docker(socket) => {
            let daemon = docker::Daemon::new(Path::new(socket), watch)?;
            Ok(Box::new(docker::Docker { name: spec.name.clone(), daemon }))
        }
        At::Ssh(address) => Ok(Box::new(ssh::Remote::open(&spec.name, address, root, links, watch)?)),
    }
}
