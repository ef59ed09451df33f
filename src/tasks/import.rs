//! `import`: images on hosts; only missing blobs are sent, and names are given when all is complete,
//! those that move last. Does not know what kind of host it is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cache::Cache;
use crate::digest::{Blob, Digest};
use crate::error::{Failure, Result};
use crate::host::ctr::bundle;
use crate::host::node::{Image, Load, Question, Spec, Standing};
use crate::recipe::Part;
use crate::splice::Splice;
use crate::tasks::kin::{self, Kin};
use crate::tasks::names::{Declare, Names, OneOrMany, Outputs, Placed, Reference, Want};
use crate::tasks::shipped;
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
        Reference::all_tasks(&self.images)
    }

    fn work(&self, inputs: &Inputs<'_>) -> Result<Work> {
        let (mut images, mut parts, mut names) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        for task in self.needs() {
            let shipped = shipped::of(&task, &self.project, inputs)?;
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
        Ok(Work::Effect(Box::new(Importing { wants, parts, kin: Kin::default() })))
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
    /// How layers are made of older ones.
    kin: Kin,
}

/// The effect that wants this. Without its inputs it can only probe.
pub fn from_wants(wants: &Value) -> Option<Box<dyn Effect>> {
    let wants = Wants::deserialize(wants).ok()?;
    Some(Box::new(Importing { wants, parts: BTreeMap::new(), kin: Kin::default() }))
}

/// The hosts and images of what an import wants.
pub fn wanted(wants: &Value) -> Option<(Vec<Spec>, Vec<Image>)> {
    let wants = Wants::deserialize(wants).ok()?;
    Some((wants.destinations, wants.images))
}

impl Effect for Importing {
    fn wants(&self) -> Value {
        shipping::plain(&self.wants)
    }

    fn destinations(&self) -> Vec<String> {
        self.wants.destinations.iter().map(|spec| spec.name.clone()).collect()
    }

    fn bundle(&self, cache: &Cache, to: &Path) -> Result<u64> {
        bundle::write(&self.wants.images, &self.parts, &cache.cas, to)
    }

    fn is_away(&self) -> bool {
        self.wants.destinations.iter().any(|spec| !spec.is_here())
    }

    fn probe(&self, destination: usize, reach: &Reach<'_>) -> Result<Box<dyn Change + '_>, Fault> {
        let spec = &self.wants.destinations[destination];
        let watch = Told::destination(spec, reach, 0);
        let question = Question { images: &self.wants.images, ..Question::default() };
        let answer = shipping::open(spec, reach, &watch)?.ask(&question)?;
        let mut change = Bringing::new(self, spec, answer.images);
        change.splices =
            self.kin.splices(&change.blobs, &answer.held, &self.parts, (reach.cache, reach.stop))?;
        Ok(Box::new(change))
    }
}

/// What is missing at a destination.
struct Bringing<'a> {
    effect: &'a Importing,
    spec: &'a Spec,
    standings: Vec<Standing>,
    /// All missing blobs, each once.
    blobs: Vec<Blob>,
    /// How some of them are made of what is there.
    splices: BTreeMap<Digest, Arc<Splice>>,
}

impl<'a> Bringing<'a> {
    fn new(effect: &'a Importing, spec: &'a Spec, standings: Vec<Standing>) -> Self {
        let mut known = BTreeSet::new();
        let missing = standings.iter().flat_map(|standing| &standing.missing);
        let blobs = missing.filter(|blob| known.insert(blob.digest)).copied().collect();
        Self { effect, spec, standings, blobs, splices: BTreeMap::new() }
    }

    /// How many bytes go for a blob.
    fn size(&self, blob: &Blob) -> u64 {
        self.splices.get(&blob.digest).map_or(blob.size, |splice| splice.size())
    }

    /// The images with what there is of them.
    fn images(&self) -> impl Iterator<Item = (&'a Image, &Standing)> {
        self.effect.wants.images.iter().zip(&self.standings)
    }

    /// The images of which one of these names is not as it should be, or that are not whole.
    fn unnamed(&self, which: impl Fn(&Image) -> &[String]) -> Vec<&'a Image> {
        let wrong = |(image, standing): &(&'a Image, &Standing)| {
            let lacks = which(image).iter().any(|name| standing.names.contains(name));
            lacks || !standing.missing.is_empty()
        };
        self.images().filter(wrong).map(|(image, _)| image).collect()
    }
}

impl Change for Bringing<'_> {
    fn lines(&self) -> Vec<String> {
        let (mut lines, mut content, mut declared) = (Vec::new(), Vec::new(), Vec::new());
        let mut left: BTreeMap<Digest, u64> =
            self.blobs.iter().map(|blob| (blob.digest, self.size(blob))).collect();
        for (image, standing) in self.images() {
            // A blob that several images share is sent once, and counted where it is first needed.
            let sizes: Vec<u64> =
                standing.missing.iter().filter_map(|blob| left.remove(&blob.digest)).collect();
            let name = image.content_tags.first().filter(|_| !sizes.is_empty());
            if name.is_some() {
                let plural = if sizes.len() == 1 { "" } else { "s" };
                let (short, count) = (image.shown(), sizes.len());
                lines.push(format!("{short} {count} blob{plural}, {}", size_text(sizes.iter().sum())));
            }
            let missing = |tag: &&String| standing.names.contains(*tag) && Some(*tag) != name;
            content.extend(image.content_tags.iter().filter(missing));
            declared.extend(image.tags.iter().filter(missing));
        }
        let names = BTreeSet::from_iter(content).into_iter().chain(BTreeSet::from_iter(declared));
        lines.extend(names.map(|name| format!("name {name}")));
        lines
    }

    fn bytes(&self) -> u64 {
        self.blobs.iter().map(|blob| self.size(blob)).sum()
    }

    fn apply(&self, reach: &Reach<'_>) -> Result<u64, Fault> {
        let watch = Told::destination(self.spec, reach, self.bytes());
        let node = shipping::open(self.spec, reach, &watch)?;
        let part = |blob: &Blob| match self.effect.parts.get(&blob.digest) {
            Some(part) => (*blob, part.clone()),
            None => panic!("BUG: what only probes is to be applied"),
        };
        let blobs: Vec<_> = self.blobs.iter().map(part).collect();
        let images = self.unnamed(|image| &image.content_tags);
        if images.is_empty() {
            return Ok(0);
        }
        let load = Load { blobs, images, splices: self.splices.clone(), ..Load::default() };
        let sent = node.send(&load, &reach.cache.cas)?;
        // What cannot be remembered is sent whole the next time.
        let _ = kin::remember(reach.cache, &load.blobs);
        Ok(sent)
    }

    fn finish(&self, reach: &Reach<'_>) -> Result<(), Fault> {
        let images = self.unnamed(|image| &image.tags);
        if images.iter().all(|image| image.tags.is_empty()) {
            return Ok(());
        }
        let watch = Told::destination(self.spec, reach, 0);
        Ok(shipping::open(self.spec, reach, &watch)?.name(&images)?)
    }
}
