//! `image`: a base, files and settings give an OCI image, as a layout in a tree. Layers stay recipes:
//! no tar is written until somebody reads it, and a base's layers are fetched only then too.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::layout;
use super::names::{Declare, Names, Outputs, Placed, Reference, Want};
use super::placement::Placement;
use crate::cache::Cache;
use crate::cache::draft::Draft;
use crate::cache::tree::Entry;
use crate::digest::{Digest, Hasher};
use crate::error::{At, Error, Failure, Result};
use crate::host::fs::{self, Links};
use crate::oci::find::{Files, find};
use crate::oci::image::{Image as OciImage, NewLayer};
use crate::oci::layer::{self, Attributes};
use crate::oci::layout::{Named, blob_path};
use crate::oci::reference::Reference as ImageReference;
use crate::oci::settings::Settings;
use crate::pins::Pin;
use crate::recipe::Part;
use crate::work::{Action, Class, Context, Inputs, Task, TaskName, Work};

/// `[image.NAME]`: a base, files and settings give an OCI image
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// `scratch`, `oci:FOLDER` (an OCI layout), or `image.NAME`
    base: Reference,
    /// What to put on it
    #[serde(default)]
    files: Vec<Layered>,
    /// The program that runs, with its first arguments
    entrypoint: Option<Vec<String>>,
    /// The arguments that follow, unless others are given
    cmd: Option<Vec<String>>,
    /// Variables, added to those of the base
    #[serde(default)]
    env: BTreeMap<String, String>,
    /// Labels, added to those of the base
    #[serde(default)]
    labels: BTreeMap<String, String>,
    /// The user, as a number or a name
    user: Option<String>,
    /// The folder in which the program starts
    workdir: Option<String>,
    /// Whole names of the image, as `docker.io/library/x:latest`
    #[serde(default)]
    tags: Vec<Placed<String>>,
}

/// One entry of an image's `files`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Layered {
    /// A task, or a file, folder or glob of the project
    from: Reference,
    /// Where it goes: a folder if it ends in `/`, otherwise the path of exactly one file
    to: Placed<String>,
    /// Which of the outputs, as a glob; all if it is absent
    path: Option<Placed<String>>,
    /// Permission bits of the files, in octal: `0755`
    mode: Option<Placed<String>>,
    /// Entries with the same name make one layer; otherwise each is a layer of its own
    layer: Option<String>,
}

impl Layered {
    fn placement(&self) -> Placement {
        let Self { from, to, path, mode, .. } = self.clone();
        Placement { from, to, path, mode }
    }
}

/// What an image starts from.
enum Base<'a> {
    Scratch,
    Layout(&'a str),
    Task(&'a TaskName),
}

impl Image {
    fn base(&self) -> Base<'_> {
        match (self.base.text.strip_prefix("oci:"), self.base.task()) {
            (Some(folder), _) => Base::Layout(folder),
            (None, Some(task)) => Base::Task(task),
            (None, None) => Base::Scratch,
        }
    }

    fn pin(&self) -> Pin {
        let (reference, platform) = (self.base.text.value.clone(), layout::platform().to_string());
        Pin::Image { reference, platform }
    }
}

impl Declare for Image {
    fn resolve(&mut self, names: &mut dyn Names) {
        let text = self.base.text.clone();
        if text.starts_with("image.") {
            names.tasks(&mut self.base, &["image"], Want::One);
        } else if let Some(folder) = text.strip_prefix("oci:") {
            if folder.is_empty() {
                names.mistake(text.range(), "`oci:` needs the folder of a layout".into(), None);
            }
        } else if text.value != "scratch" {
            let hint = "`scratch`, `oci:FOLDER` or `image.NAME`".to_string();
            names.mistake(text.range(), format!("`{}` is not a base", text.value), Some(hint));
        }
        for file in &mut self.files {
            let mut placement = file.placement();
            placement.resolve(names);
            file.from = placement.from;
        }
        for tag in &self.tags {
            match tag.parse::<ImageReference>() {
                Ok(reference) if reference.digest.is_none() => {
                    names.claim(format!("the tag `{reference}`"), tag.range());
                }
                Ok(_) => names.mistake(
                    tag.range(),
                    format!("`{}` has a digest: a tag is wanted", tag.value),
                    None,
                ),
                Err(why) => names.mistake(tag.range(), why, None),
            }
        }
    }

    fn outputs(&self) -> Outputs {
        Outputs::Image
    }

    fn pins(&self) -> Vec<Pin> {
        match self.base() {
            Base::Layout(_) => vec![self.pin()],
            _ => Vec::new(),
        }
    }
}

impl Task for Image {
    fn class(&self) -> Class {
        Class::Action
    }

    fn needs(&self) -> Vec<TaskName> {
        let files = self.files.iter().flat_map(|file| file.from.tasks());
        let mut all: Vec<TaskName> = self.base.tasks().iter().chain(files).cloned().collect();
        all.sort();
        all.dedup();
        all
    }

    fn work(&self, inputs: &Inputs<'_>) -> Result<Work> {
        let mut how = How { folder: None };
        let base = match self.base() {
            Base::Scratch => None,
            Base::Task(task) => Some(BaseWhat::Tree(inputs.value(task))),
            Base::Layout(folder) => {
                let path = inputs.session.local.root().join(folder);
                let digest = inputs.pin(&self.pin(), || resolve(&path))?;
                how.folder = Some(path);
                let wrong = |why| Error::failed(format!("`vcbuild.lock`: {why}"));
                Some(BaseWhat::Manifest(digest.parse().map_err(wrong)?))
            }
        };
        let what = What {
            base,
            layers: self.layers(inputs)?,
            entrypoint: self.entrypoint.clone(),
            cmd: self.cmd.clone(),
            env: self.env.clone(),
            labels: self.labels.clone(),
            user: self.user.clone(),
            workdir: self.workdir.clone(),
            tags: self.tags.iter().map(|tag| tag.value.clone()).collect(),
        };
        Ok(Work::Action(Box::new(ImageAction { what, how })))
    }
}

impl Image {
    /// The files of each layer as a tree, in the order in which layers are first mentioned.
    fn layers(&self, inputs: &Inputs<'_>) -> Result<Vec<Digest>> {
        let cas = &inputs.session.cache.cas;
        let mut layers: Vec<(Option<&str>, Draft<'_>)> = Vec::new();
        for file in &self.files {
            let same =
                |(name, _): &(Option<&str>, Draft<'_>)| name.is_some() && *name == file.layer.as_deref();
            let at = layers.iter().position(same).unwrap_or_else(|| {
                layers.push((file.layer.as_deref(), Draft::empty(cas)));
                layers.len() - 1
            });
            file.placement().place(inputs, &mut layers[at].1)?;
        }
        layers.iter().map(|(_, draft)| draft.store()).collect()
    }
}

/// The manifest that a layout's only, or platform's, image has now, for `vcbuild update` too.
pub fn resolve(folder: &Path) -> Result<String> {
    let found = find(&Folder(folder), &layout::platform(), None)
        .map_err(|error| error.context(format!("read the layout `{}`", folder.display())))?;
    Ok(found.image.descriptor().digest.to_string())
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum BaseWhat {
    /// Another image made here.
    Tree(Digest),
    /// A manifest from outside.
    Manifest(Digest),
}

#[derive(Serialize)]
struct What {
    base: Option<BaseWhat>,
    layers: Vec<Digest>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    user: Option<String>,
    workdir: Option<String>,
    tags: Vec<String>,
}

struct How {
    /// The folder of the base's layout.
    folder: Option<PathBuf>,
}

struct ImageAction {
    what: What,
    how: How,
}

impl ImageAction {
    fn base(&self, context: &Context<'_>) -> Result<Option<OciImage>> {
        match &self.what.base {
            None => Ok(None),
            Some(BaseWhat::Tree(tree)) => Ok(Some(layout::read(&context.cache.cas, tree)?.image)),
            Some(BaseWhat::Manifest(digest)) => {
                let Some(folder) = &self.how.folder else { panic!("BUG: a base without its folder") };
                pinned(folder, digest).map(Some)
            }
        }
    }

    /// Stores the layers of the base that somebody missed.
    fn fetch_lost(&self, context: &Context<'_>) -> Result<()> {
        let Some(folder) = &self.how.folder else { return Ok(()) };
        for digest in context.lost.iter().filter(|digest| matches!(digest, Digest::Sha256(_))) {
            let path = folder.join(blob_path(digest));
            // Files that come from other tasks may be named by SHA-256 too: those make them again.
            if fs::status(&path, Links::Follow).at("look at", &path)?.is_none() {
                continue;
            }
            let file = fs::open_regular(&path).at("read", &path)?;
            let found = context.cache.cas.put_file(&file, &path, Hasher::sha256())?;
            if found.digest != *digest {
                return Err(Error::failed(format!(
                    "`{}` is damaged: it is `{}`",
                    path.display(),
                    found.digest
                )));
            }
        }
        Ok(())
    }
}

/// The image that a layout has under a manifest's digest.
fn pinned(folder: &Path, digest: &Digest) -> Result<OciImage> {
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
    OciImage::new(None, manifest, config)
}

impl Action for ImageAction {
    fn kind(&self) -> &'static str {
        "image"
    }

    fn revision(&self) -> u32 {
        1
    }

    fn what(&self) -> serde_json::Value {
        serde_json::json!(self.what)
    }

    fn run(&self, context: &Context<'_>) -> Result<Digest> {
        self.fetch_lost(context)?;
        let base = self.base(context)?;
        let pack = |tree: &Digest| pack(context.cache, tree);
        let layers: Vec<NewLayer> = match self.what.layers.as_slice() {
            // Threads for one layer would only wait.
            [one] => vec![pack(one)?],
            all => all.par_iter().map(pack).collect::<Result<_>>()?,
        };
        let settings = Settings {
            entrypoint: self.what.entrypoint.clone(),
            cmd: self.what.cmd.clone(),
            env: self.what.env.clone().into_iter().collect(),
            user: self.what.user.clone(),
            workdir: self.what.workdir.clone(),
            labels: self.what.labels.clone(),
            ..Settings::default()
        };
        let image = OciImage::build(base.as_ref(), &layout::platform(), &layers, &settings)?;
        let tags = self.what.tags.iter().map(|tag| tag.parse().map_err(Error::failed));
        let tags = tags.collect::<Result<BTreeSet<ImageReference>>>()?.into_iter().collect();
        let files = crate::oci::layout::files(&[Named { image, tags }])?;
        layout::store(&context.cache.cas, files)
    }
}

/// A layer of the files of a tree, as a recipe; its SHA-256 is remembered by the recipe.
fn pack(cache: &Cache, tree: &Digest) -> Result<NewLayer> {
    let mut entries = Vec::new();
    cache.cas.walk(tree, &mut |path, entry| {
        let (kind, mode) = match entry {
            Entry::Link { target } => (layer::Kind::Link(target.clone()), 0o777),
            Entry::Folder { mode, .. } => (layer::Kind::Folder, *mode),
            Entry::File { mode, blob } => (layer::Kind::File(Part::Blob(*blob)), *mode),
            Entry::Recipe { mode, recipe, size } => {
                (layer::Kind::File(Part::Recipe { recipe: *recipe, size: *size }), *mode)
            }
        };
        let attributes = Attributes { mode, uid: 0, gid: 0, mtime: 0 };
        entries.push(layer::Entry { path: path.to_vec(), kind, attributes });
        Ok(())
    })?;
    let recipe = layer::pack(&entries, Attributes { mode: 0o755, uid: 0, gid: 0, mtime: 0 })?;
    let part = cache.cas.put_recipe(&recipe)?;
    let digest = cache.content_digest(&part, Hasher::sha256())?;
    Ok(NewLayer { part, digest, created_by: "vcbuild".into() })
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
