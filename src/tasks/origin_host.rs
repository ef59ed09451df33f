//! A base among the images of a host: what its name is given to, documents and layers as they are there. Knows
//! no task, and not what kind of host it is.

use std::sync::atomic::AtomicU64;

use super::origin::{Fetching, Reaching, several};
use super::origin_registry::own_type;
use super::shipping::{allowed, failed};
use crate::cache::cas::Writing;
use crate::digest::{Blob, Digest, Hasher};
use crate::error::{Error, Failure, Result};
use crate::host::node::{self, Node, Spec, Trouble, Watch};
use crate::oci::descriptor::Descriptor;
use crate::oci::document::LONGEST_DOCUMENT;
use crate::oci::find::{Files, find_below};
use crate::oci::reference::Reference as ImageReference;
use crate::recipe::AtMost;

/// Layers that are read at once.
const AT_ONCE: usize = 3;

/// Does something at the host; what is cut off is done once more.
fn at<T>(
    spec: &Spec,
    reaching: &Reaching<'_>,
    watch: &dyn Watch,
    doing: impl Fn(&dyn Node) -> Result<T, Trouble>,
) -> Result<T> {
    allowed(spec, reaching.network)?;
    let stamps = &reaching.cache.cas.stamps;
    let once = || doing(&*node::open(spec, reaching.root, reaching.links, stamps, watch)?);
    let done = match once() {
        Err(Trouble::Cut(_)) => once(),
        done => done,
    };
    done.map_err(|trouble| failed(&spec.name, trouble))
}

/// The manifest of the platform's image behind a name now; it and its config are kept.
pub fn resolve(name: &ImageReference, spec: &Spec, reaching: &Reaching<'_>) -> Result<Digest> {
    let none = AtomicU64::new(0);
    let watch = Fetching { stop: reaching.stop, tell: reaching.tell, done: &none, total: 0 };
    let named = name.to_string();
    let given = at(spec, reaching, &watch, |node| node.given(&named))?;
    let Some(digest) = given else {
        return Err(Failure::new(format!("`{}` has no image `{name}`", spec.name))
            .hint("names are whole there: `docker.io/library/debian:bookworm-slim`")
            .into());
    };
    let files = OnHost { spec, reaching };
    let found = || {
        let bytes = files.document(&digest, LONGEST_DOCUMENT)?;
        let top = Descriptor::of(&own_type(&bytes), &bytes);
        Ok(find_below(&files, &top, reaching.platform)?.descriptor().digest)
    };
    found().map_err(|error: Error| error.context(format!("`{name}` on `{}`", spec.name)))
}

/// A document by its digest.
pub fn document(
    name: &ImageReference,
    spec: &Spec,
    digest: &Digest,
    most: u64,
    reaching: &Reaching<'_>,
) -> Result<Vec<u8>> {
    let read = OnHost { spec, reaching }.document(digest, most);
    read.map_err(|error| error.context(format!("the pinned image `{name}` on `{}`", spec.name)))
}

/// Stores layers.
pub fn fetch(
    name: &ImageReference,
    spec: &Spec,
    layers: &[Descriptor],
    reaching: &Reaching<'_>,
) -> Result<()> {
    let done = AtomicU64::new(0);
    let total = layers.iter().map(|layer| layer.size).sum();
    let watch = Fetching { stop: reaching.stop, tell: reaching.tell, done: &done, total };
    let one = |layer: &Descriptor| {
        let blob = at(spec, reaching, &watch, |node| {
            let mut trouble = None;
            let stored = reaching.cache.cas.put_with(Hasher::sha256(), |writer| {
                let mut writing = Writing(writer);
                let mut most = AtMost::new(&mut writing, layer.size, &longer);
                node.blob(&layer.digest, &mut most).map_err(|why| match why {
                    Trouble::Error(error) => error,
                    other => {
                        trouble = Some(other);
                        Error::failed("it cannot be reached")
                    }
                })
            });
            match trouble {
                Some(trouble) => Err(trouble),
                None => Ok(stored?),
            }
        })?;
        if blob == (Blob { digest: layer.digest, size: layer.size }) {
            return Ok(());
        }
        let (host, layer) = (&spec.name, layer.digest);
        Err(Error::failed(format!("`{host}` gives `{}` of {} bytes for `{layer}`", blob.digest, blob.size)))
    };
    let stored = several(layers, AT_ONCE, one).map(drop);
    stored.map_err(|error| error.context(format!("fetch `{name}` from `{}`", spec.name)))
}

/// The images of a host as the files of a layout.
struct OnHost<'a> {
    spec: &'a Spec,
    reaching: &'a Reaching<'a>,
}

impl OnHost<'_> {
    fn document(&self, digest: &Digest, most: u64) -> Result<Vec<u8>> {
        let none = AtomicU64::new(0);
        let reaching = self.reaching;
        let watch = Fetching { stop: reaching.stop, tell: reaching.tell, done: &none, total: 0 };
        let bytes = at(self.spec, reaching, &watch, |node| {
            let mut bytes = Vec::new();
            node.blob(digest, &mut AtMost::new(&mut bytes, most, &longer))?;
            Ok(bytes)
        })?;
        match Digest::sha256_of(&bytes) {
            is if is == *digest => reaching.keep(bytes),
            is => Err(Error::failed(format!("`{}` gives `{is}` for `{digest}`", self.spec.name))),
        }
    }
}

impl Files for OnHost<'_> {
    fn read(&self, path: &str, most: u64) -> Result<Vec<u8>> {
        let hex = path.rsplit('/').next().unwrap_or_default();
        let digest: Digest = format!("sha256:{hex}").parse().map_err(Error::failed)?;
        match self.reaching.kept(&digest) {
            Some(bytes) => Ok(bytes),
            None => self.document(&digest, most),
        }
    }
}

fn longer() -> Error {
    Error::failed("it has more bytes than it should have")
}
