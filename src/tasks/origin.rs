//! Where a base from outside is: finding out what it is now, its documents, and its layers when somebody
//! needs their bytes. What comes is verified and kept as it is. Knows no task.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;

use super::origin_archive::From;
use crate::cache::Cache;
use crate::digest::{Digest, Hasher};
use crate::error::{At, Error, Failure, Result};
use crate::host::fs::{self, Links as FileLinks};
use crate::host::node::{Spec, Watch};
use crate::host::registry::Settings;
use crate::host::ssh::Links;
use crate::host::stop::Stop;
use crate::oci::descriptor::{Descriptor, Platform};
use crate::oci::document::{LONGEST_CONFIG, LONGEST_DOCUMENT};
use crate::oci::find::{Files, find};
use crate::oci::image::Image;
use crate::oci::layout::blob_path;
use crate::oci::reference::Reference as ImageReference;
use crate::work::{Context, Env, Network, Session, Tell};

/// Where a base is.
pub enum Origin {
    /// The folder of an OCI layout.
    Layout(PathBuf),
    /// A file made by `docker save` or the like.
    Archive(PathBuf),
    /// An image of the Docker daemon here.
    Daemon(String),
    /// An image of the containerd here.
    Containerd(String),
    /// An image on a host.
    Host(ImageReference, Spec),
    /// A registry.
    Registry(ImageReference, Settings),
}

/// What is needed to get at it.
#[derive(Clone, Copy)]
pub struct Reaching<'a> {
    /// The cache.
    pub cache: &'a Cache,
    /// The project folder.
    pub root: &'a Path,
    /// The user's environment.
    pub env: &'a Env,
    /// The user's wish to stop.
    pub stop: &'a Stop,
    /// Connections to hosts.
    pub links: &'a Links,
    /// Whether the network may be used.
    pub network: Network,
    /// Where to tell what is going on.
    pub tell: &'a dyn Tell,
    /// The platform whose image is wanted.
    pub platform: &'a Platform,
}

impl<'a> Reaching<'a> {
    /// Before a task runs.
    pub fn of_session(session: &Session<'a>, tell: &'a dyn Tell, platform: &'a Platform) -> Self {
        let Session { cache, local, env, stop, links, network, .. } = *session;
        Self { cache, root: local.root(), env, stop, links, network, tell, platform }
    }

    /// While it runs.
    pub fn of_context(context: &Context<'a>, platform: &'a Platform) -> Self {
        let Context { cache, env, stop, links, network, tell, owner, .. } = *context;
        Self { cache, root: owner.0, env, stop, links, network, tell, platform }
    }

    /// Fails if the network may not be used.
    pub fn allowed(&self, name: &str) -> Result<()> {
        match self.network {
            Network::Allowed => Ok(()),
            Network::Offline => {
                let message = format!("`{name}` would have to be asked, and `--offline` forbids it");
                Err(Error::failed(message))
            }
        }
    }

    /// Keeps a document; gives its bytes back.
    pub fn keep(&self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        let write =
            |writer: &mut dyn std::io::Write| writer.write_all(&bytes).at("keep", Path::new("a document"));
        self.cache.cas.put_with(Hasher::sha256(), write)?;
        Ok(bytes)
    }

    /// Whether a manifest and its config are there.
    fn has_documents(&self, manifest: &Digest) -> bool {
        let config = self.kept(manifest).and_then(|bytes| config_of(manifest, &bytes).ok());
        config.is_some_and(|config| self.kept(&config).is_some())
    }

    /// A document that was kept and is whole.
    pub fn kept(&self, digest: &Digest) -> Option<Vec<u8>> {
        let there = fs::status(self.cache.cas.path(digest), FileLinks::Keep);
        if !matches!(there, Ok(Some(_))) {
            return None;
        }
        self.cache.cas.read_whole(digest).ok()
    }
}

impl Origin {
    /// The archive that it is, or that it can be had as.
    fn archive(&self) -> Option<From<'_>> {
        match self {
            Self::Archive(file) => Some(From::File(file)),
            Self::Daemon(name) => Some(From::Daemon(name)),
            Self::Containerd(name) => Some(From::Containerd(name)),
            Self::Layout(_) | Self::Host(..) | Self::Registry(..) => None,
        }
    }

    /// The manifest of the platform's image now; it and its config are kept.
    pub fn resolve(&self, reaching: &Reaching<'_>) -> Result<Digest> {
        if let Some(archive) = self.archive() {
            return archive.resolve(reaching);
        }
        match self {
            Self::Archive(_) | Self::Daemon(_) | Self::Containerd(_) => panic!("BUG: it is an archive"),
            Self::Layout(folder) => {
                let found = find(&Folder(folder), reaching.platform, None)
                    .map_err(|error| error.context(format!("read the layout `{}`", folder.display())))?;
                reaching.keep(found.image.manifest_bytes().to_vec())?;
                reaching.keep(found.image.config_bytes().to_vec())?;
                Ok(found.image.descriptor().digest)
            }
            Self::Host(name, spec) => super::origin_host::resolve(name, spec, reaching),
            Self::Registry(name, settings) => super::origin_registry::resolve(name, settings, reaching),
        }
    }

    /// The image with this manifest; nothing is asked if its documents were kept.
    pub fn image(&self, digest: &Digest, reaching: &Reaching<'_>) -> Result<Image> {
        if let Some(archive) = self.archive()
            && !reaching.has_documents(digest)
        {
            // Reading it again brings back all that it can.
            archive.check(digest, &archive.resolve(reaching)?)?;
        }
        let document = |digest: &Digest, most: u64, kind: Kind| match reaching.kept(digest) {
            Some(bytes) => Ok(bytes),
            None => reaching.keep(self.document(digest, most, kind, reaching)?),
        };
        let manifest = document(digest, LONGEST_DOCUMENT, Kind::Manifest)?;
        let config = document(&config_of(digest, &manifest)?, LONGEST_CONFIG, Kind::Config)?;
        Image::new(None, manifest, config)
    }

    /// Stores layers of the image with the manifest `digest`.
    pub fn fetch(&self, digest: &Digest, layers: &[Descriptor], reaching: &Reaching<'_>) -> Result<()> {
        if let Some(archive) = self.archive() {
            let wanted: Vec<Digest> = layers.iter().map(|layer| layer.digest).collect();
            return archive.fetch(digest, &wanted, reaching);
        }
        match self {
            Self::Archive(_) | Self::Daemon(_) | Self::Containerd(_) => panic!("BUG: it is an archive"),
            Self::Layout(folder) => {
                layers.iter().try_for_each(|layer| copy(folder, &layer.digest, reaching))
            }
            Self::Host(name, spec) => super::origin_host::fetch(name, spec, layers, reaching),
            Self::Registry(name, settings) => {
                super::origin_registry::fetch(name, settings, layers, reaching)
            }
        }
    }

    fn document(&self, digest: &Digest, most: u64, kind: Kind, reaching: &Reaching<'_>) -> Result<Vec<u8>> {
        match self {
            Self::Archive(_) | Self::Daemon(_) | Self::Containerd(_) => Err(Error::Lost(*digest)),
            Self::Layout(folder) => {
                let path = blob_path(digest);
                let bytes =
                    Folder(folder).read(&path, most).map_err(|error| gone(error, digest, folder))?;
                match Digest::sha256_of(&bytes) == *digest {
                    true => Ok(bytes),
                    false => Err(Error::failed(format!("`{}` is damaged", folder.join(path).display()))),
                }
            }
            Self::Host(name, spec) => super::origin_host::document(name, spec, digest, most, reaching),
            Self::Registry(name, settings) => {
                super::origin_registry::document(name, settings, digest, most, kind, reaching)
            }
        }
    }
}

/// What a document is to its image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Its manifest.
    Manifest,
    /// Its config.
    Config,
}

/// The config that a manifest names.
pub fn config_of(digest: &Digest, manifest: &[u8]) -> Result<Digest> {
    #[derive(Deserialize)]
    struct Manifest {
        config: Config,
    }
    #[derive(Deserialize)]
    struct Config {
        digest: Digest,
    }
    let parsed: Manifest = serde_json::from_slice(manifest)
        .map_err(|error| Error::failed(format!("the manifest `{digest}`: {error}")))?;
    Ok(parsed.config.digest)
}

fn gone(error: Error, digest: &Digest, from: &Path) -> Error {
    let Error::Failed(failure) = error else { return error };
    let from = from.display();
    let message = format!("the pinned image `{digest}` is not in `{from}`: {}", failure.message);
    Failure { message, ..failure }.hint("if it was made anew, `vcbuild update` moves the pin").into()
}

/// Stores a layer from a layout.
fn copy(folder: &Path, digest: &Digest, reaching: &Reaching<'_>) -> Result<()> {
    let path = folder.join(blob_path(digest));
    let file = fs::open_regular(&path).at("read", &path)?;
    let found = reaching.cache.cas.put_file(&file, &path, Hasher::sha256())?;
    match found.digest == *digest {
        true => Ok(()),
        false => {
            let what = format!("`{}` is damaged: it is `{}`", path.display(), found.digest);
            Err(Error::failed(what))
        }
    }
}

/// The folder of an OCI layout.
struct Folder<'a>(&'a Path);

impl Files for Folder<'_> {
    fn read(&self, path: &str, most: u64) -> Result<Vec<u8>> {
        let full = self.0.join(path);
        let missing = || Error::failed(format!("`{}` does not exist", full.display()));
        fs::read(&full, most)?.ok_or_else(missing)
    }
}

/// Tells how far several fetches have come together.
pub struct Fetching<'a> {
    /// The user's wish to stop.
    pub stop: &'a Stop,
    /// Where to tell.
    pub tell: &'a dyn Tell,
    /// Bytes so far.
    pub done: &'a AtomicU64,
    /// Bytes in all.
    pub total: u64,
}

impl Watch for Fetching<'_> {
    fn moved(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if self.total > 0 {
            self.tell.progress(None, done.min(self.total), Some(self.total));
        }
    }

    fn check(&self) -> Result<()> {
        self.stop.check()
    }

    fn waits(&self) {}
}

/// Does something with each, with at most so many at once; what came of them, in their order. The first failure
/// ends it.
pub fn several<T: Sync, R: Send, E: Send>(
    all: &[T],
    at_once: usize,
    each: impl Fn(&T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    if at_once.min(all.len()) <= 1 {
        return all.iter().map(each).collect();
    }
    let open = Mutex::new((all.iter().enumerate(), Ok(Vec::with_capacity(all.len()))));
    let state = || open.lock().unwrap_or_else(PoisonError::into_inner);
    let next = || {
        let mut open = state();
        if open.1.is_err() { None } else { open.0.next() }
    };
    let work = || {
        while let Some((at, one)) = next() {
            let came = each(one);
            let mut open = state();
            match (&mut open.1, came) {
                (Ok(done), Ok(came)) => done.push((at, came)),
                (done @ Ok(_), Err(error)) => *done = Err(error),
                (Err(_), _) => {}
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..at_once.min(all.len()) {
            scope.spawn(work);
        }
        work();
    });
    let mut done = open.into_inner().unwrap_or_else(PoisonError::into_inner).1?;
    done.sort_by_key(|(at, _)| *at);
    Ok(done.into_iter().map(|(_, came)| came).collect())
}
