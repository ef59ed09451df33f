//! The `base` of an image: what it starts from, how it is pinned, and where its bytes come from when they are
//! missed. Knows nothing of what is put on it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::layout;
use super::names::{Names, Reference, Want};
use crate::cache::Cache;
use crate::digest::{Digest, Hasher};
use crate::error::{At, Error, Failure, Result};
use crate::host::fs::{self, Links};
use crate::oci::find::{Files, find};
use crate::oci::image::Image;
use crate::oci::layout::blob_path;
use crate::pins::Pin;
use crate::work::{Context, Inputs, TaskName};

/// What an image starts from.
pub enum Base<'a> {
    /// Nothing.
    Scratch,
    /// The folder of an OCI layout.
    Layout(&'a str),
    /// Another image made here.
    Task(&'a TaskName),
}

/// A base as a part of *what*.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// Another image made here, as a tree.
    Tree(Digest),
    /// A manifest from outside.
    Manifest(Digest),
}

/// Where the bytes of a base from outside come from; not in the key.
pub struct How {
    /// The folder of the base's layout.
    folder: Option<PathBuf>,
}

impl<'a> Base<'a> {
    /// The base that was declared, and checked by [`check`].
    pub fn of(declared: &'a Reference) -> Self {
        match (declared.text.strip_prefix("oci:"), declared.task()) {
            (Some(folder), _) => Self::Layout(folder),
            (None, Some(task)) => Self::Task(task),
            (None, None) => Self::Scratch,
        }
    }

    /// What the lock holds of it.
    pub fn pin(&self) -> Option<Pin> {
        match self {
            Self::Layout(folder) => Some(Pin::Image {
                reference: format!("oci:{folder}"),
                platform: layout::platform().to_string(),
            }),
            Self::Scratch | Self::Task(_) => None,
        }
    }

    /// Both parts of it.
    ///
    /// Errors: what is not pinned yet cannot be found.
    pub fn parts(&self, inputs: &Inputs<'_>) -> Result<(Option<What>, How)> {
        let mut how = How { folder: None };
        let what = match self {
            Self::Scratch => None,
            Self::Task(task) => Some(What::Tree(inputs.value(task))),
            Self::Layout(folder) => {
                let path = inputs.session.local.root().join(folder);
                let pin = self.pin().expect("BUG: a layout is pinned");
                let digest = inputs.pin(&pin, || resolve(&path))?;
                how.folder = Some(path);
                let wrong = |why| Error::failed(format!("`vcbuild.lock`: {why}"));
                Some(What::Manifest(digest.parse().map_err(wrong)?))
            }
        };
        Ok((what, how))
    }
}

/// Notes what is wrong with a declared base, and finds its task.
pub fn check(declared: &mut Reference, names: &mut dyn Names) {
    let text = declared.text.clone();
    if text.starts_with("image.") {
        names.tasks(declared, &["image"], Want::One);
    } else if let Some(folder) = text.strip_prefix("oci:") {
        if folder.is_empty() {
            names.mistake(text.range(), "`oci:` needs the folder of a layout".into(), None);
        }
    } else if text.value != "scratch" {
        let hint = "`scratch`, `oci:FOLDER` or `image.NAME`".to_string();
        names.mistake(text.range(), format!("`{}` is not a base", text.value), Some(hint));
    }
}

/// The manifest that a layout's only, or platform's, image has now, for `vcbuild update` too.
pub fn resolve(folder: &Path) -> Result<String> {
    let found = find(&Folder(folder), &layout::platform(), None)
        .map_err(|error| error.context(format!("read the layout `{}`", folder.display())))?;
    Ok(found.image.descriptor().digest.to_string())
}

/// The image that a base is; its layers may be missing yet.
pub fn read(what: &What, how: &How, cache: &Cache) -> Result<Image> {
    match what {
        What::Tree(tree) => Ok(layout::read(&cache.cas, tree)?.image),
        What::Manifest(digest) => {
            let Some(folder) = &how.folder else { panic!("BUG: a base without its folder") };
            pinned(folder, digest)
        }
    }
}

/// Stores the layers of the base that somebody missed.
pub fn fetch_lost(how: &How, context: &Context<'_>) -> Result<()> {
    fetch(how, context.lost, context)
}

/// Stores layers of the base.
pub fn fetch(how: &How, layers: &[Digest], context: &Context<'_>) -> Result<()> {
    let Some(folder) = &how.folder else { return Ok(()) };
    for digest in layers.iter().filter(|digest| matches!(digest, Digest::Sha256(_))) {
        let path = folder.join(blob_path(digest));
        // Files that come from other tasks may be named by SHA-256 too: those make them again.
        if fs::status(&path, Links::Follow).at("look at", &path)?.is_none() {
            continue;
        }
        let file = fs::open_regular(&path).at("read", &path)?;
        let found = context.cache.cas.put_file(&file, &path, Hasher::sha256())?;
        if found.digest != *digest {
            let what = format!("`{}` is damaged: it is `{}`", path.display(), found.digest);
            return Err(Error::failed(what));
        }
    }
    Ok(())
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
/// The image that a layout has under a manifest's digest.
fn pinned(folder: &Path, digest: &Digest) -> Result<Image> {
    let files = Folder(folder);
    let gone = |error: Error| match error {
        Error::Failed(failure) => Failure {
            message: format!(
                "the pinned image `{digest}` is not in `{}`: {}",
                folder.display(),
                failure.message
            ),
            ..failure
        }
        .hint("if the layout was made anew, `vcbuild update` moves the pin")
        .into(),
        other => other,
    };
    let manifest = files.read(&blob_path(digest), 4 << 20).map_err(gone)?;
    if Digest::sha256_of(&manifest) != *digest {
        return Err(Error::failed(format!("`{}` is damaged", folder.join(blob_path(digest)).display())));
    }
    #[derive(Deserialize)]
    struct Manifest {
        config: Config,
    }
    #[derive(Deserialize)]
    struct Config {
        digest: Digest,
    }
    let parsed: Manifest = serde_json::from_slice(&manifest)
        .map_err(|error| Error::failed(format!("the manifest `{digest}`: {error}")))?;
    let config = files.read(&blob_path(&parsed.config.digest), 8 << 20)?;
    Image::new(None, manifest, config)
}
