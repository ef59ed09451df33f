//! `push`: images in registries. A registry is asked what it has, gets the blobs that are missing, takes over
//! what it has elsewhere, and names are given when all is there, those that move last. Knows no protocol.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::digest::{Blob, Digest};
use crate::error::{Error, Failure, Result};
use crate::host::index;
use crate::host::node::{Trouble, Watch};
use crate::host::registry::{Access, Around, Place, Settings};
use crate::oci::reference::Reference as ImageReference;
use crate::pins::{Pin, Pins};
use crate::recipe::{Content, Part, Recipe};
use crate::tasks::names::{Declare, Names, Outputs, Placed, Reference, Want};
use crate::tasks::origin::several;
use crate::tasks::origin_registry::READABLE;
use crate::tasks::push_change::{Bringing, Missing};
use crate::tasks::shipped::{self, About, Shipped};
use crate::tasks::shipping::{self, Told};
use crate::work::{Change, Class, Effect, Fault, Inputs, Network, Reach, Session, Task, TaskName, Work};

/// The longest manifest or index that is sent, in bytes.
const LONGEST: u64 = 4 << 20;

/// How many questions a registry gets at once.
const ASKED_AT_ONCE: usize = 8;

/// Images in registries
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Push {
    /// The images
    images: Vec<Reference>,
    /// A registry, with a path if need be, that gets them instead of the registries in their tags
    to: Option<Placed<String>>,
    #[serde(skip)]
    registries: Settings,
    #[serde(skip)]
    project: String,
}

impl Declare for Push {
    fn resolve(&mut self, names: &mut dyn Names) {
        for image in &mut self.images {
            names.tasks(image, &["image"], Want::Many);
        }
        if let Some(to) = &self.to {
            let host = to.split('/').next().unwrap_or_default();
            let name = format!("{}/x", to.value).parse::<ImageReference>();
            if !name.is_ok_and(|name| name.registry == host) {
                let hint = "`registry.example:5000` or `registry.example/path`".to_string();
                names.mistake(to.range(), format!("`{}` is not a registry", to.value), Some(hint));
            }
        }
        self.registries = names.registries();
        self.project = names.project().to_string();
    }

    fn outputs(&self) -> Outputs {
        Outputs::Contents
    }
}

impl Task for Push {
    fn class(&self) -> Class {
        Class::Effect
    }

    fn needs(&self) -> Vec<TaskName> {
        Reference::all_tasks(&self.images)
    }

    fn work(&self, inputs: &Inputs<'_>) -> Result<Work> {
        let session = inputs.session;
        let (mut images, mut parts, mut names) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        for task in self.needs() {
            let shipped = shipped::of(&task, &self.project, inputs)?;
            if shipped.image.tags.is_empty() && self.to.is_none() {
                let failure = Failure::new(format!("`{task}` has no tags: nobody says where it goes"));
                return Err(failure.hint("give it `tags`, or the push a registry with `to`").into());
            }
            let image = self.pushed(&shipped, session)?;
            for home in &image.homes {
                for tag in &home.tags {
                    let name = format!("{}/{}:{tag}", home.registry, home.path);
                    let other = names.insert(name.clone(), image.descriptor.digest);
                    if other.is_some_and(|other| other != image.descriptor.digest) {
                        return Err(Failure::new(format!("two images are named `{name}`")).into());
                    }
                }
            }
            images.push(image);
            parts.extend(shipped.parts);
        }
        let homes = images.iter().flat_map(|image| &image.homes);
        let registries: BTreeSet<String> = homes.map(|home| home.registry.clone()).collect();
        let mut settings = self.registries.clone();
        settings.0.retain(|host, _| registries.contains(host));
        let wants = Wants { registries: registries.into_iter().collect(), settings, images };
        Ok(Work::Effect(Box::new(Pushing { wants, parts, near: near(session) })))
    }
}

impl Push {
    /// An image with where it goes.
    fn pushed(&self, shipped: &Shipped, session: &Session<'_>) -> Result<Pushed> {
        let mut documents = Vec::new();
        collect(&shipped.image.descriptor, shipped, session, &mut documents)?;
        let is_document = |blob: &&Blob| documents.iter().any(|known| known.digest == blob.digest);
        let blobs = shipped.image.blobs.iter().filter(|blob| !is_document(blob)).copied().collect();
        let mut homes: BTreeMap<(String, String), Home> = BTreeMap::new();
        let content = shipped.image.content_tags.iter().map(|name| (name, true));
        for (name, is_content) in content.chain(shipped.image.tags.iter().map(|name| (name, false))) {
            let name: ImageReference = name.parse().map_err(Error::failed)?;
            let (registry, path) = match &self.to {
                None => (name.registry, name.path),
                Some(to) => match to.split_once('/') {
                    Some((host, above)) => (host.to_string(), format!("{above}/{}", name.path)),
                    None => (to.value.clone(), name.path),
                },
            };
            let home = homes.entry((registry.clone(), path.clone())).or_insert_with(|| Home {
                registry,
                path,
                content_tag: String::new(),
                tags: Vec::new(),
            });
            let Some(tag) = name.tag else { panic!("BUG: an image's name without a tag") };
            match is_content {
                true => home.content_tag = tag,
                false if home.tags.contains(&tag) => {}
                false => home.tags.push(tag),
            }
        }
        let descriptor = match documents.last() {
            Some(top) => top.clone(),
            None => panic!("BUG: an image without a manifest"),
        };
        let (about, homes) = (shipped.about.clone(), homes.into_values().collect());
        Ok(Pushed { descriptor, documents, blobs, about, homes })
    }
}

/// The manifests and indexes below a descriptor, and itself, in the order to send them.
fn collect(
    descriptor: &Value,
    shipped: &Shipped,
    session: &Session<'_>,
    documents: &mut Vec<Document>,
) -> Result<()> {
    let blob = index::blob(descriptor)?;
    if documents.iter().any(|known| known.digest == blob.digest) {
        return Ok(());
    }
    let bytes = bytes(&shipped.parts, &blob, &session.cache.cas)?;
    let wrong = |error| Error::failed(format!("the manifest `{}`: {error}", blob.digest));
    let document: Value = serde_json::from_slice(&bytes).map_err(wrong)?;
    for inner in document.get("manifests").and_then(Value::as_array).into_iter().flatten() {
        collect(inner, shipped, session, documents)?;
    }
    let own = |value: &Value| value.get("mediaType").and_then(Value::as_str).map(str::to_string);
    let media_type = own(descriptor).or_else(|| own(&document)).unwrap_or_else(|| READABLE[1].to_string());
    documents.push(Document { media_type, digest: blob.digest, size: blob.size });
    Ok(())
}

/// A small blob of an image.
pub fn bytes(parts: &BTreeMap<Digest, Part>, blob: &Blob, content: &dyn Content) -> Result<Vec<u8>> {
    if blob.size > LONGEST {
        return Err(Error::failed(format!("the manifest `{}` has more than {LONGEST} bytes", blob.digest)));
    }
    let (mut recipe, mut bytes) = (Recipe::new(), Vec::new());
    recipe.push(part(parts, blob));
    recipe.send(content, &mut bytes)?;
    Ok(bytes)
}

/// Where the content of a blob comes from.
pub fn part<'a>(parts: &'a BTreeMap<Digest, Part>, blob: &Blob) -> &'a Part {
    parts.get(&blob.digest).unwrap_or_else(|| panic!("BUG: what only probes is to be applied"))
}

/// The repositories from which bases came: a registry that has those need not be sent their layers.
fn near(session: &Session<'_>) -> BTreeSet<(String, String)> {
    let name = |pin: &Pin| match pin {
        Pin::Image { reference, .. } => reference.parse::<ImageReference>().ok(),
        Pin::Git { .. } => None,
    };
    // A pin that this run has added is in the file already.
    let now = Pins::text(session.local.root()).ok().and_then(|text| Pins::parse(&text).ok());
    let pins = now.as_ref().unwrap_or(session.pins);
    pins.all().filter_map(name).map(|name| (name.registry, name.path)).collect()
}

/// What is wanted where.
#[derive(Serialize, Deserialize)]
struct Wants {
    registries: Vec<String>,
    settings: Settings,
    images: Vec<Pushed>,
}

/// An image, as plain data.
#[derive(Serialize, Deserialize)]
pub struct Pushed {
    /// What the names are given to.
    pub descriptor: Document,
    /// Manifests and indexes, inner ones first.
    pub documents: Vec<Document>,
    /// Layers and configs.
    pub blobs: Vec<Blob>,
    /// Documents about it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub about: Vec<About>,
    /// Where it goes.
    pub homes: Vec<Home>,
}

/// A manifest or index.
#[derive(Clone, Serialize, Deserialize)]
pub struct Document {
    /// What it is.
    pub media_type: String,
    /// Its SHA-256.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

/// A repository, and the image's tags there.
#[derive(Serialize, Deserialize)]
pub struct Home {
    /// The registry.
    pub registry: String,
    /// The path of the repository.
    pub path: String,
    /// The tag that never moves.
    pub content_tag: String,
    /// Those that were declared.
    pub tags: Vec<String>,
}

/// Images on their way to registries.
pub struct Pushing {
    wants: Wants,
    /// Where the content comes from, by SHA-256.
    pub parts: BTreeMap<Digest, Part>,
    /// Registries and repositories that may have some of it.
    pub near: BTreeSet<(String, String)>,
}

/// The effect that wants this. Without its inputs it can only probe.
pub fn from_wants(wants: &Value) -> Option<Box<dyn Effect>> {
    let wants = Wants::deserialize(wants).ok()?;
    Some(Box::new(Pushing { wants, parts: BTreeMap::new(), near: BTreeSet::new() }))
}

impl Pushing {
    /// The repository of a home; others of the same registry may be taken over from.
    pub fn place<'a>(
        &'a self,
        home: &Home,
        first: &mut Option<Place<'a>>,
        reach: &Reach<'a>,
        watch: &'a dyn Watch,
    ) -> Result<Place<'a>> {
        let around = Around { env: &reach.env.0, root: reach.root, settings: &self.wants.settings, watch };
        let others = self.others(home);
        let place = Place::new(&home.registry, &home.path, Access::Push, around)?;
        let place = place.mounting_from(others.into_iter());
        if let Some(first) = first {
            return Ok(place.sharing(first));
        }
        *first = Some(place.beside(&home.path)?);
        Ok(place)
    }

    /// The other repositories at a home's registry.
    fn others(&self, home: &Home) -> BTreeSet<&str> {
        let near = self.near.iter().map(|(registry, path)| (registry, path));
        let homes = self.wants.images.iter().flat_map(|image| &image.homes);
        let all = near.chain(homes.map(|home| (&home.registry, &home.path)));
        all.filter(|(registry, path)| **registry == home.registry && **path != home.path)
            .map(|(_, path)| path.as_str())
            .collect()
    }
}

impl Effect for Pushing {
    fn wants(&self) -> Value {
        shipping::plain(&self.wants)
    }

    fn destinations(&self) -> Vec<String> {
        self.wants.registries.clone()
    }

    fn is_away(&self) -> bool {
        true
    }

    fn probe<'a>(&'a self, destination: usize, reach: &Reach<'_>) -> Result<Box<dyn Change + 'a>, Fault> {
        let registry = &self.wants.registries[destination];
        if reach.network == Network::Offline {
            let message = format!("`{registry}` would have to be asked, and `--offline` forbids it");
            return Err(Failure::new(message).into());
        }
        let watch = Told::named(registry, reach, 0);
        let (mut all, mut first) = (Vec::new(), None);
        for image in &self.wants.images {
            for home in image.homes.iter().filter(|home| home.registry == *registry) {
                let place = self.place(home, &mut first, reach, &watch)?;
                all.push((place, Missing::nothing(image, home)));
            }
        }
        // The tag that never moves, which nobody declared, and those that were.
        let names = |(at, (_, missing)): (usize, &(Place<'_>, Missing<'a>))| {
            let home: &'a Home = missing.home;
            std::iter::once(None).chain(home.tags.iter().map(Some)).map(move |tag| (at, tag))
        };
        let names: Vec<(usize, Option<&'a String>)> = all.iter().enumerate().flat_map(names).collect();
        let is_given = |(at, tag): &(usize, Option<&String>)| {
            let (place, missing) = &all[*at];
            let tag = tag.unwrap_or(&missing.home.content_tag);
            Ok::<_, Trouble>(place.behind(tag, &READABLE)? == Some(missing.image.descriptor.digest))
        };
        let given = several(&names, ASKED_AT_ONCE, is_given)?;
        for ((at, tag), _) in names.iter().zip(given).filter(|(_, given)| !given) {
            let missing = &mut all[*at].1;
            match tag {
                Some(tag) => missing.tags.push(tag),
                None => missing.is_there = false,
            }
        }
        let about = |(at, (_, missing)): (usize, &(Place<'_>, Missing<'a>))| {
            let image: &'a Pushed = missing.image;
            image.about.iter().map(move |about| (at, about))
        };
        let about: Vec<(usize, &'a About)> = all.iter().enumerate().flat_map(about).collect();
        let is_attached = |(at, about): &(usize, &About)| {
            let (place, missing) = &all[*at];
            Ok::<_, Trouble>(missing.is_there && place.is_about(&about.subject, &about.manifest.digest)?)
        };
        let attached = several(&about, ASKED_AT_ONCE, is_attached)?;
        for ((at, about), _) in about.iter().zip(attached).filter(|(_, attached)| !attached) {
            all[*at].1.about.push(about);
        }
        // By repository: images share layers.
        let mut asked: BTreeMap<(&str, Digest), (usize, Blob)> = BTreeMap::new();
        for (at, (_, missing)) in all.iter().enumerate() {
            let own: &[Blob] = if missing.is_there { &[] } else { &missing.image.blobs };
            for blob in own.iter().chain(missing.about.iter().flat_map(|about| &about.blobs)) {
                asked.entry((&missing.home.path, blob.digest)).or_insert((at, *blob));
            }
        }
        let asked: Vec<_> = asked.into_iter().collect();
        let has = several(&asked, ASKED_AT_ONCE, |(_, (at, blob))| all[*at].0.has(blob))?;
        let mut there = BTreeMap::new();
        for (((path, digest), (at, blob)), has) in asked.into_iter().zip(has) {
            match has {
                true => drop(there.insert(digest, path.to_string())),
                false => all[at].1.blobs.push(blob),
            }
        }
        let missing = all.into_iter().map(|(_, missing)| missing);
        let missing = missing.filter(|missing| !missing.is_nothing()).collect();
        Ok(Box::new(Bringing { effect: self, registry, missing, there }))
    }
}
