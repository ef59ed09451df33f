//! What is missing at a registry, and bringing it: blobs first, then documents, inner ones first, then names.
//! Knows no table.

use std::collections::{BTreeMap, BTreeSet};

use super::origin::several;
use super::origin_registry::READABLE;
use super::push::{Home, Pushed, Pushing, bytes, part};
use super::shipped::About;
use super::shipping::{Told, size_text};
use crate::digest::{Blob, Digest};
use crate::error::{Failure, Result};
use crate::host::registry::{Place, Sent};
use crate::oci::document::MANIFEST;
use crate::work::{Change, Fault, Reach};

/// How much a registry gets at once.
const SENT_AT_ONCE: usize = 4;

/// What is missing of an image in a repository.
pub struct Missing<'a> {
    /// The image.
    pub image: &'a Pushed,
    /// The repository.
    pub home: &'a Home,
    /// What has to be sent or taken over.
    pub blobs: Vec<Blob>,
    /// Whether the image itself is there.
    pub is_there: bool,
    /// Documents about it that are not there, or that nobody would find.
    pub about: Vec<&'a About>,
    /// Declared tags that are not there, or mean something else.
    pub tags: Vec<&'a String>,
}

impl<'a> Missing<'a> {
    /// All of an image is there.
    pub fn nothing(image: &'a Pushed, home: &'a Home) -> Self {
        Self { image, home, blobs: Vec::new(), is_there: true, about: Vec::new(), tags: Vec::new() }
    }

    /// Whether all of it is there.
    pub fn is_nothing(&self) -> bool {
        self.is_complete() && self.tags.is_empty()
    }

    /// Whether only names may be missing.
    fn is_complete(&self) -> bool {
        self.is_there && self.about.is_empty()
    }
}

/// What is missing at a registry.
pub struct Bringing<'a> {
    /// What is wanted.
    pub effect: &'a Pushing,
    /// The registry.
    pub registry: &'a str,
    /// What is missing there.
    pub missing: Vec<Missing<'a>>,
    /// A repository that has a blob.
    pub there: BTreeMap<Digest, String>,
}

impl Bringing<'_> {
    /// The repository to take a blob over from, if one is known or likely to have it.
    fn source(
        &self,
        place: &Place<'_>,
        missing: &Missing<'_>,
        blob: &Blob,
        there: &BTreeMap<Digest, String>,
    ) -> Result<Option<String>, Fault> {
        if let Some(path) = there.get(&blob.digest).filter(|path| **path != missing.home.path) {
            return Ok(Some(path.clone()));
        }
        let near = self
            .effect
            .near
            .iter()
            .filter(|(registry, path)| registry == self.registry && *path != missing.home.path);
        let near: Vec<&String> = near.map(|(_, path)| path).collect();
        match near.as_slice() {
            // To ask for it costs nothing: if it is not there, the answer is the beginning of an upload.
            [] => Ok(None),
            [one] => Ok(Some((*one).clone())),
            several => {
                for path in several {
                    if place.beside(path)?.has(blob).unwrap_or(false) {
                        return Ok(Some((*path).clone()));
                    }
                }
                Ok(None)
            }
        }
    }

    /// Gives a tag to an image that is there, and sees that it has it.
    fn name(
        &self,
        place: &Place<'_>,
        missing: &Missing<'_>,
        tag: &str,
        reach: &Reach<'_>,
    ) -> Result<(), Fault> {
        let top = &missing.image.descriptor;
        let blob = Blob { digest: top.digest, size: top.size };
        let bytes = bytes(&self.effect.parts, &blob, &reach.cache.cas)?;
        place.put(tag, &top.media_type, &bytes)?;
        if place.behind(tag, &READABLE)? == Some(top.digest) {
            return Ok(());
        }
        let message = format!("`{}:{tag}` was sent, but it is not there as it was sent", place.name());
        Err(Failure::new(message).hint("somebody else may have changed it: run again").into())
    }
}

impl Change for Bringing<'_> {
    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut counted = BTreeSet::new();
        for missing in self.missing.iter().filter(|missing| !missing.is_complete()) {
            // What another repository gets first is only taken over.
            let sizes: Vec<u64> = missing
                .blobs
                .iter()
                .filter(|blob| !self.there.contains_key(&blob.digest) && counted.insert(blob.digest))
                .map(|blob| blob.size)
                .collect();
            let name = format!("{}:{}", missing.home.path, missing.home.content_tag);
            lines.push(match sizes.len() {
                0 if missing.is_there => format!("attach to {name}"),
                0 => format!("name {name}"),
                1 => format!("{name} 1 blob, {}", size_text(sizes[0])),
                count => format!("{name} {count} blobs, {}", size_text(sizes.iter().sum())),
            });
        }
        for missing in &self.missing {
            lines.extend(missing.tags.iter().map(|tag| format!("name {}:{tag}", missing.home.path)));
        }
        lines
    }

    fn bytes(&self) -> u64 {
        let mut counted = BTreeSet::new();
        let blobs = self.missing.iter().flat_map(|missing| &missing.blobs);
        blobs
            .filter(|blob| !self.there.contains_key(&blob.digest) && counted.insert(blob.digest))
            .map(|blob| blob.size)
            .sum()
    }

    fn apply(&self, reach: &Reach<'_>) -> Result<u64, Fault> {
        let watch = Told::named(self.registry, reach, self.bytes());
        let (mut there, cas, mut first) = (self.there.clone(), &reach.cache.cas, None);
        let mut all = Vec::new();
        for missing in self.missing.iter().filter(|missing| !missing.is_complete()) {
            all.push((self.effect.place(missing.home, &mut first, reach, &watch)?, missing));
        }
        // What several repositories lack is sent to one; the others take it over from there.
        let (mut sent_first, mut taken_over, mut known) = (Vec::new(), Vec::new(), BTreeSet::new());
        for (at, (_, missing)) in all.iter().enumerate() {
            for blob in &missing.blobs {
                let which = if known.insert(blob.digest) { &mut sent_first } else { &mut taken_over };
                which.push((at, *blob));
            }
        }
        // What takes longest begins first.
        sent_first.sort_by_key(|(_, blob)| std::cmp::Reverse(blob.size));
        let mut sent = 0;
        for blobs in [sent_first, taken_over] {
            let bring = |(at, blob): &(usize, Blob)| {
                let (place, missing) = &all[*at];
                let from = self.source(place, missing, blob, &there)?;
                let part = part(&self.effect.parts, blob);
                let how = place.upload(blob, part, cas, from.as_deref())?;
                Ok::<_, Fault>(if how == Sent::Uploaded { blob.size } else { 0 })
            };
            sent += several(&blobs, SENT_AT_ONCE, bring)?.iter().sum::<u64>();
            for (at, blob) in blobs {
                there.insert(blob.digest, all[at].1.home.path.clone());
            }
        }
        let images: Vec<_> = all.iter().filter(|(_, missing)| !missing.is_there).collect();
        several(&images, SENT_AT_ONCE, |(place, missing)| {
            for document in &missing.image.documents {
                if document.digest != missing.image.descriptor.digest {
                    let blob = Blob { digest: document.digest, size: document.size };
                    let bytes = bytes(&self.effect.parts, &blob, cas)?;
                    place.put(&document.digest.to_string(), &document.media_type, &bytes)?;
                }
            }
            self.name(place, missing, &missing.home.content_tag, reach)
        })?;
        // One by one: two may belong into the same list.
        for (place, missing) in &all {
            for About { subject, manifest, descriptor, .. } in &missing.about {
                let bytes = bytes(&self.effect.parts, manifest, cas)?;
                place.put(&manifest.digest.to_string(), MANIFEST, &bytes)?;
                place.list_about(subject, &manifest.digest, descriptor)?;
            }
        }
        Ok(sent)
    }

    fn finish(&self, reach: &Reach<'_>) -> Result<(), Fault> {
        let (watch, mut first) = (Told::named(self.registry, reach, 0), None);
        let mut all = Vec::new();
        for missing in self.missing.iter().filter(|missing| !missing.tags.is_empty()) {
            all.push((self.effect.place(missing.home, &mut first, reach, &watch)?, missing));
        }
        several(&all, SENT_AT_ONCE, |(place, missing)| {
            missing.tags.iter().try_for_each(|tag| self.name(place, missing, tag, reach))
        })?;
        Ok(())
    }
}
