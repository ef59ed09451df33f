//! `import`: images on hosts; only missing blobs are sent, and names are given when all is complete,
//! those that move last. Does not know what kind of host it is.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::digest::{Blob, Digest};
use crate::error::{Failure, Result};
use crate::host::node::{Load, Question, Spec};
use crate::recipe::Part;
use crate::tasks::layout;
use crate::tasks::names::{Declare, Names, OneOrMany, Outputs, Placed, Reference, Want};
use crate::tasks::shipped::{self, Image};
use crate::tasks::shipping::{self, Told, size_text};
use crate::work::{Change, Class, Effect, Fault, Inputs, Reach, Task, TaskName, Work};

/// Images on hosts.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Import {
    /// The images.
    images: Vec<Reference>,
    /// The hosts and groups that get them.
    hosts: OneOrMany<Placed<String>>,
    #[serde(skip)]
    destinations: Vec<Spec>,
    #[serde(skip)]
    project: String,
}

impl Declare for Import {
    fn resolve(&mut self, names: &mut dyn Names) {
        for image in &mut self.images {
            names.tasks(image, &["image"], Want::Many);
        }
        self.destinations = names.hosts(&self.hosts.0);
        self.project = names.project().to_string();
    }

    fn outputs(&self) -> Outputs {
        Outputs::Contents
    }
}

impl Task for Import {
    fn class(&self) -> Class {
        Class::Effect
    }

    fn needs(&self) -> Vec<TaskName> {
        let all: BTreeSet<_> = self.images.iter().flat_map(Reference::tasks).collect();
        all.into_iter().cloned().collect()
    }

    fn work(&self, inputs: &Inputs<'_>) -> Result<Work> {
        let (mut images, mut parts, mut names) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        for task in self.needs() {
            let fallback = shipped::fallback_repository(&self.project, &task);
            let shipped = shipped::read_for(
                &inputs.session.cache.cas,
                &inputs.value(&task),
                &fallback,
                &layout::platform(),
            )
            .map_err(|error| error.context(format_args!("`{task}`")))?;
            for tag in &shipped.image.tags {
                let other = names.insert(tag.clone(), shipped.image.descriptor.clone());
                if other.is_some_and(|other| other != shipped.image.descriptor) {
                    return Err(Failure::new(format!("two images are named `{tag}`")).into());
                }
            }
            images.push(shipped.image);
            parts.extend(shipped.parts);
        }
        let wants = Wants { destinations: self.destinations.clone(), images };
        Ok(Work::Effect(Box::new(Importing { wants, parts })))
    }
}

/// What is wanted where.
#[derive(Serialize, Deserialize)]
struct Wants {
    destinations: Vec<Spec>,
    images: Vec<Image>,
}

struct Importing {
    wants: Wants,
    /// Where the content comes from, by SHA-256.
    parts: BTreeMap<Digest, Part>,
}

/// The effect that wants this. Without its inputs it can only probe.
pub fn from_wants(wants: &Value) -> Option<Box<dyn Effect>> {
    let wants = Wants::deserialize(wants).ok()?;
    Some(Box::new(Importing { wants, parts: BTreeMap::new() }))
}

impl Importing {
    /// All blobs of all images, each once, in the order to send them.
    fn blobs(&self) -> Vec<Blob> {
        let mut known = BTreeSet::new();
        let all = self.wants.images.iter().flat_map(|image| &image.blobs);
        all.filter(|blob| known.insert(blob.digest)).copied().collect()
    }

    /// The names that never move.
    fn content_tags(&self) -> impl Iterator<Item = (&String, &Value)> {
        let images = self.wants.images.iter();
        images.flat_map(|image| image.content_tags.iter().map(move |name| (name, &image.descriptor)))
    }

    /// The names that the user declared.
    fn tags(&self) -> impl Iterator<Item = (&String, &Value)> {
        let images = self.wants.images.iter();
        images.flat_map(|image| image.tags.iter().map(move |name| (name, &image.descriptor)))
    }
}

impl Effect for Importing {
    fn wants(&self) -> Value {
        shipping::plain(&self.wants)
    }

    fn destinations(&self) -> Vec<String> {
        self.wants.destinations.iter().map(|spec| spec.name.clone()).collect()
    }

    fn probe(&self, destination: usize, reach: &Reach<'_>) -> Result<Box<dyn Change + '_>, Fault> {
        let spec = &self.wants.destinations[destination];
        let watch = Told::destination(spec, reach, 0);
        let names = self.content_tags().chain(self.tags()).map(|(name, _)| name.clone()).collect();
        let question = Question { files: Vec::new(), blobs: self.blobs(), names };
        let answer = shipping::open(spec, reach, &watch)?.ask(&question)?;
        let mut blobs = question.blobs;
        blobs.retain(|blob| !answer.blobs.contains(&blob.digest));
        let absent = |(name, wanted): &(&String, &Value)| answer.names.get(*name) != Some(*wanted);
        let own = |(name, wanted): (&String, &Value)| (name.clone(), wanted.clone());
        Ok(Box::new(Bringing {
            effect: self,
            spec,
            blobs,
            content_tags: self.content_tags().filter(absent).map(own).collect(),
            tags: self.tags().filter(absent).map(own).collect(),
        }))
    }
}

/// What is missing at a destination.
struct Bringing<'a> {
    effect: &'a Importing,
    spec: &'a Spec,
    blobs: Vec<Blob>,
    content_tags: BTreeMap<String, Value>,
    tags: BTreeMap<String, Value>,
}

impl Change for Bringing<'_> {
    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut missing: BTreeMap<Digest, u64> =
            self.blobs.iter().map(|blob| (blob.digest, blob.size)).collect();
        let mut said = BTreeSet::new();
        for image in &self.effect.wants.images {
            // A blob that several images share is sent once, and counted where it is first needed.
            let sizes: Vec<u64> =
                image.blobs.iter().filter_map(|blob| missing.remove(&blob.digest)).collect();
            let Some(name) = image.content_tags.first().filter(|_| !sizes.is_empty()) else { continue };
            let plural = if sizes.len() == 1 { "" } else { "s" };
            let (short, count) = (name.rsplit('/').next().unwrap_or(name), sizes.len());
            lines.push(format!("{short} {count} blob{plural}, {}", size_text(sizes.iter().sum())));
            said.insert(name);
        }
        let names = self.content_tags.keys().filter(|name| !said.contains(name)).chain(self.tags.keys());
        lines.extend(names.map(|name| format!("name {name}")));
        lines
    }

    fn bytes(&self) -> u64 {
        self.blobs.iter().map(|blob| blob.size).sum()
    }

    fn apply(&self, reach: &Reach<'_>) -> Result<u64, Fault> {
        let watch = Told::destination(self.spec, reach, self.bytes());
        let node = shipping::open(self.spec, reach, &watch)?;
        if !self.blobs.is_empty() {
            let part = |blob: &Blob| match self.effect.parts.get(&blob.digest) {
                Some(part) => (*blob, part.clone()),
                None => panic!("BUG: what only probes is to be applied"),
            };
            let blobs = self.blobs.iter().map(part).collect();
            node.send(&Load { blobs, ..Load::default() }, &reach.cache.cas)?;
        }
        node.check(&[], &self.effect.blobs())?;
        if !self.content_tags.is_empty() {
            node.name(&self.content_tags)?;
        }
        Ok(self.bytes())
    }

    fn finish(&self, reach: &Reach<'_>) -> Result<(), Fault> {
        if self.tags.is_empty() {
            return Ok(());
        }
        let watch = Told::destination(self.spec, reach, 0);
        Ok(shipping::open(self.spec, reach, &watch)?.name(&self.tags)?)
    }
}
