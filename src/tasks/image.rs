//! `image`: a base, files and settings give an OCI image, as a layout in a tree. Layers stay recipes:
//! no tar is written until somebody reads it, and a base's layers are fetched only then too.

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::base::{self, Base};
use super::layout;
use super::names::{Declare, Names, Outputs, Placed, Reference};
use super::placement::Placement;
use crate::cache::Cache;
use crate::cache::draft::Draft;
use crate::cache::tree::Entry;
use crate::digest::{Digest, Hasher};
use crate::error::{Error, Result};
use crate::oci::image::{Image as OciImage, NewLayer};
use crate::oci::layer::{self, Attributes};
use crate::oci::layout::Named;
use crate::oci::reference::Reference as ImageReference;
use crate::oci::settings::Settings;
use crate::pins::Pin;
use crate::recipe::Part;
use crate::work::{Action, Class, Context, Inputs, Session, Task, TaskName, Tell, Work};

/// `[image.NAME]`: a base, files and settings give an OCI image
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// An image of a registry (`docker.io/library/debian:bookworm-slim`), `oci:FOLDER` (an OCI layout),
    /// `archive:FILE`, `docker-daemon:NAME`, `containerd:NAME`, `image.NAME` or `scratch`
    base: base::Declared,
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

impl Declare for Image {
    fn resolve(&mut self, names: &mut dyn Names) {
        base::check(&mut self.base, names);
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
        Base::of(&self.base).pin().into_iter().collect()
    }

    fn image_now(&self, _pin: &Pin, session: &Session<'_>, tell: &dyn Tell) -> Result<String> {
        self.base.now(session, tell)
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
        let (base, base_how) = Base::of(&self.base).parts(inputs)?;
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
        Ok(Work::Action(Box::new(ImageAction { what, base: base_how })))
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

#[derive(Serialize)]
struct What {
    base: Option<base::What>,
    layers: Vec<Digest>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    user: Option<String>,
    workdir: Option<String>,
    tags: Vec<String>,
}

struct ImageAction {
    what: What,
    base: base::How,
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
        let base = self.what.base.as_ref();
        base::fetch_lost(base, &self.base, context)?;
        let base = base.map(|base| base::read(base, &self.base, context)).transpose()?;
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
