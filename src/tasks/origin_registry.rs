//! A base in a registry: the tag's meaning, documents by digest, layers side by side. Knows no task.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;

use super::origin::{Fetching, Kind, Reaching, config_of, several};
use super::shipping::failed;
use crate::digest::{Blob, Digest, Hasher};
use crate::error::{Error, Result};
use crate::host::node::{Trouble, Watch};
use crate::host::registry::{Around, Place, Repository, Settings};
use crate::oci::descriptor::Descriptor;
use crate::oci::document::{DOCKER_INDEX, DOCKER_MANIFEST, INDEX, LONGEST_DOCUMENT, MANIFEST};
use crate::oci::find::{Files, find_below};
use crate::oci::layout::blob_path;
use crate::oci::reference::Reference as ImageReference;

/// What can be read.
pub const READABLE: [&str; 4] = [INDEX, MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST];
/// Layers that are fetched at once.
const AT_ONCE: usize = 3;

fn at<'a, T>(
    name: &ImageReference,
    settings: &'a Settings,
    reaching: &Reaching<'a>,
    watch: &'a dyn Watch,
    doing: impl FnMut(&Place<'a>) -> Result<T, Trouble>,
) -> Result<T> {
    reaching.allowed(&name.registry)?;
    let around = Around { env: &reaching.env.0, root: reaching.root, settings, watch };
    let repository = Repository::new(&name.registry, &name.path, around)?;
    repository.at_first(doing).map_err(|trouble| failed(&name.registry, trouble))
}

/// The manifest of the platform's image behind a name now; it and its config are kept.
pub fn resolve(name: &ImageReference, settings: &Settings, reaching: &Reaching<'_>) -> Result<Digest> {
    let reference = match (&name.digest, &name.tag) {
        (Some(digest), _) => digest.to_string(),
        (None, Some(tag)) => tag.clone(),
        (None, None) => panic!("BUG: a name without tag and digest"),
    };
    let none = AtomicU64::new(0);
    let watch = Fetching { stop: reaching.stop, tell: reaching.tell, done: &none, total: 0 };
    let found = at(name, settings, reaching, &watch, |place| {
        let top = place.document(&reference, &READABLE, LONGEST_DOCUMENT)?;
        let mut descriptor = Descriptor::of(&top.media_type, &top.bytes);
        if !is_readable(&top.media_type) {
            // Plain files of a web server have no better type: then the document says itself what it is.
            if !["", "application/json", "application/octet-stream", "text/plain"]
                .contains(&top.media_type.as_str())
            {
                let message = format!(
                    "`{}` answers with `{}`, which is no image",
                    place.name(),
                    shown(&top.media_type)
                );
                return Err(Error::failed(message).into());
            }
            descriptor.media_type = own_type(&top.bytes);
        }
        let files =
            Remote { place, reaching, top: (descriptor.digest, top.bytes), configs: RefCell::default() };
        Ok(find_below(&files, &descriptor, reaching.platform)?.descriptor().digest)
    });
    found.map_err(|error| error.context(format!("`{name}`")))
}

fn is_readable(media_type: &str) -> bool {
    READABLE.contains(&media_type) || media_type.contains("distribution.manifest.v1")
}

fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}

/// What a document says that it is; a manifest if it says nothing.
pub fn own_type(bytes: &[u8]) -> String {
    let document: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
    let usual = if document.get("manifests").is_some() { INDEX } else { MANIFEST };
    document.get("mediaType").and_then(|own| own.as_str()).unwrap_or(usual).to_string()
}

/// A document by its digest.
pub fn document(
    name: &ImageReference,
    settings: &Settings,
    digest: &Digest,
    most: u64,
    kind: Kind,
    reaching: &Reaching<'_>,
) -> Result<Vec<u8>> {
    let none = AtomicU64::new(0);
    let watch = Fetching { stop: reaching.stop, tell: reaching.tell, done: &none, total: 0 };
    let read = at(name, settings, reaching, &watch, |place| match kind {
        Kind::Manifest => Ok(place.document(&digest.to_string(), &READABLE, most)?.bytes),
        Kind::Config => place.small(digest, most),
    });
    read.map_err(|error| error.context(format!("the pinned image `{name}`")))
}

/// Stores layers.
pub fn fetch(
    name: &ImageReference,
    settings: &Settings,
    layers: &[Descriptor],
    reaching: &Reaching<'_>,
) -> Result<()> {
    let done = AtomicU64::new(0);
    let total = layers.iter().map(|layer| layer.size).sum();
    let blobs: Vec<Blob> =
        layers.iter().map(|layer| Blob { digest: layer.digest, size: layer.size }).collect();
    let one = |blob: &Blob| {
        let watch = Fetching { stop: reaching.stop, tell: reaching.tell, done: &done, total };
        at(name, settings, reaching, &watch, |place| {
            let mut trouble = None;
            let stored = reaching.cache.cas.put_with(Hasher::sha256(), |writer| {
                place.blob(blob, writer).map_err(|why| match why {
                    Trouble::Error(error) => error,
                    other => {
                        trouble = Some(other);
                        Error::failed("it cannot be reached")
                    }
                })
            });
            match (stored, trouble) {
                (_, Some(trouble)) => Err(trouble),
                (stored, None) => Ok(stored.map(drop)?),
            }
        })
    };
    several(&blobs, AT_ONCE, one).map(drop).map_err(|error| error.context(format!("fetch `{name}`")))
}

/// Documents of a repository as the files of a layout.
struct Remote<'a, 'b> {
    place: &'a Place<'b>,
    reaching: &'a Reaching<'a>,
    /// What the name means: it is here already.
    top: (Digest, Vec<u8>),
    /// What is asked for as a blob, and not as a document.
    configs: RefCell<BTreeSet<Digest>>,
}

impl Files for Remote<'_, '_> {
    fn read(&self, path: &str, most: u64) -> Result<Vec<u8>> {
        let hex = path.rsplit('/').next().unwrap_or_default();
        let digest: Digest = format!("sha256:{hex}").parse().map_err(Error::failed)?;
        debug_assert_eq!(path, blob_path(&digest));
        let kept = match digest == self.top.0 {
            true => Some(self.top.1.clone()),
            false => self.reaching.kept(&digest),
        };
        let trouble = |trouble| failed(&self.place.name(), trouble);
        let is_config = self.configs.borrow().contains(&digest);
        let bytes = match kept {
            Some(bytes) => bytes,
            None if is_config => self.place.small(&digest, most).map_err(trouble)?,
            None => self.place.document(&digest.to_string(), &READABLE, most).map_err(trouble)?.bytes,
        };
        if !is_config && let Ok(config) = config_of(&digest, &bytes) {
            self.configs.borrow_mut().insert(config);
        }
        self.reaching.keep(bytes)
    }
}
