//! A Docker or Podman daemon as a host: it knows images by the digest of their config, and takes in whole
//! archives of those that it lacks. It has no files, and nobody can ask it for single blobs.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::Daemon;
use crate::digest::{Blob, Digest};
use crate::error::{Error, Failure, Result};
use crate::host::node::{Answer, Image, Load, Node, Question, Standing, Trouble, Variant};
use crate::recipe::{Content, Part, Recipe, Sink};

const BLOCK: u64 = 512;

/// A daemon that is a host.
pub struct Docker<'a> {
    /// How the user calls it.
    pub name: String,
    /// The daemon.
    pub daemon: Daemon<'a>,
}

impl Docker<'_> {
    /// What an image is for the daemon.
    fn variant<'b>(&self, image: &'b Image) -> Result<&'b Variant, Trouble> {
        if let [one] = image.variants.as_slice() {
            return Ok(one);
        }
        let platform = self.daemon.platform()?;
        let found = image.variants.iter().find(|variant| variant.platform == platform);
        let missing = || Failure::new(format!("`{}` is not there for `{platform}`", image.shown()));
        Ok(found.ok_or_else(missing)?)
    }

    fn standing(&self, image: &Image) -> Result<Standing, Trouble> {
        let variant = self.variant(image)?;
        let id = variant.config.digest.to_string();
        let mut missing = Vec::new();
        if self.daemon.id(&id)?.as_ref() != Some(&id) {
            let mut known = BTreeSet::new();
            let all = variant.layers.iter().map(|layer| layer.blob).chain([variant.config]);
            missing.extend(all.filter(|blob| known.insert(blob.digest)));
        }
        let mut names = BTreeSet::new();
        for name in image.content_tags.iter().chain(&image.tags) {
            if !missing.is_empty() || self.daemon.id(name)?.as_ref() != Some(&id) {
                names.insert(name.clone());
            }
        }
        Ok(Standing { missing, names })
    }

    /// Gives names to an image that is there.
    fn give(&self, image: &Image, names: &[String]) -> Result<(), Trouble> {
        let id = self.variant(image)?.config.digest.to_string();
        if self.daemon.id(&id)?.as_ref() != Some(&id) {
            let message =
                format!("`{}`: it took `{}`, and does not have it as `{id}`", self.name, image.shown());
            return Err(Failure::new(message)
                .hint(
                    "a daemon with containerd's image store names images otherwise: import into containerd",
                )
                .into());
        }
        for name in names {
            if self.daemon.id(name)?.as_ref() == Some(&id) {
                continue;
            }
            let Some(parts) = name.rsplit_once(':') else { panic!("BUG: a name without a tag: `{name}`") };
            self.daemon.tag(&id, parts)?;
        }
        Ok(())
    }

    fn no_files(&self) -> Trouble {
        Failure::new(format!("`{}` is a daemon, and has no files", self.name)).into()
    }
}

impl Node for Docker<'_> {
    fn ask(&self, question: &Question<'_>) -> Result<Answer, Trouble> {
        if !question.files.is_empty() {
            return Err(self.no_files());
        }
        let images = question.images.iter().map(|image| self.standing(image));
        Ok(Answer { images: images.collect::<Result<_, _>>()?, ..Answer::default() })
    }

    fn send(&self, load: &Load<'_>, content: &dyn Content) -> Result<u64, Trouble> {
        if !load.files.is_empty() || !load.modes.is_empty() {
            return Err(self.no_files());
        }
        let parts: BTreeMap<Digest, &(Blob, Part)> =
            load.blobs.iter().map(|whole| (whole.0.digest, whole)).collect();
        let mut variants = Vec::new();
        for image in &load.images {
            let variant = self.variant(image)?;
            if parts.contains_key(&variant.config.digest) {
                variants.push(variant);
            }
        }
        if !variants.is_empty() {
            self.daemon.load(&archive(&variants, &parts)?, content)?;
        }
        for image in &load.images {
            self.give(image, &image.content_tags)?;
        }
        Ok(load.blobs.iter().map(|(blob, _)| blob.size).sum())
    }

    fn name(&self, images: &[&Image]) -> Result<(), Trouble> {
        images.iter().try_for_each(|image| self.give(image, &image.tags))
    }

    fn read(&self, _path: &str, _from: u64, _sink: &mut dyn Sink) -> Result<(), Trouble> {
        Err(self.no_files())
    }
}

/// Images as `docker load` reads them: what there is first, then configs, then layers as they are, each once.
fn archive(variants: &[&Variant], parts: &BTreeMap<Digest, &(Blob, Part)>) -> Result<Recipe> {
    let named = |digest: &Digest, end: &str| format!("{}.{end}", digest.hex());
    let line = |variant: &&Variant| {
        let layers: Vec<String> =
            variant.layers.iter().map(|layer| named(&layer.blob.digest, "tar")).collect();
        json!({ "Config": named(&variant.config.digest, "json"), "RepoTags": null, "Layers": layers })
    };
    let lines = Value::Array(variants.iter().map(line).collect()).to_string().into_bytes();
    let mut recipe = Recipe::new();
    member(&mut recipe, "manifest.json", &Part::Inline(lines))?;
    let mut known = BTreeSet::new();
    let configs = variants.iter().map(|variant| (variant.config.digest, "json"));
    let layers =
        variants.iter().flat_map(|variant| &variant.layers).map(|layer| (layer.blob.digest, "tar"));
    for (digest, end) in configs.chain(layers) {
        if known.insert(digest) {
            let missing = || Error::failed(format!("`{digest}` was not to be sent, and is needed"));
            let (_, part) = parts.get(&digest).ok_or_else(missing)?;
            member(&mut recipe, &named(&digest, end), part)?;
        }
    }
    recipe.inline(&[0; 2 * BLOCK as usize]);
    Ok(recipe)
}

fn member(recipe: &mut Recipe, path: &str, part: &Part) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_path(path).map_err(|error| Error::failed(format!("`{path}` in an archive: {error}")))?;
    header.set_size(part.size());
    header.set_mode(0o644);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    recipe.inline(header.as_bytes());
    recipe.push(part);
    let padding = part.size().next_multiple_of(BLOCK) - part.size();
    recipe.inline(&vec![0; usize::try_from(padding).unwrap_or_default()]);
    Ok(())
}
