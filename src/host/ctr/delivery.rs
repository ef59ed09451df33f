//! What goes into containerd on a host, in a conversation with the script there: blobs, and names for what is there. Does
//! not know what was there before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::archive::Archive;
use super::state::PINNED;
use super::{Call, placing};
use crate::digest::{Blob, Digest};
use crate::error::{Error, Failure, Result};
use crate::host::node::{Image, Trouble, Variant, Watch};
use crate::host::ssh::Talk;
use crate::recipe::{Content, Nothing, Part, Sink};
use crate::splice::Splice;

/// Whether kubelet is told to leave an image alone.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Pin {
    /// It is.
    Yes,
    /// It is not.
    No,
}

impl Call<'_> {
    /// Sees that there is room for blobs and for what their layers become: containerd does not always clear away what it
    /// had not the room to finish.
    pub fn has_room<'v>(
        &self,
        blobs: &[(Blob, Part)],
        variants: impl Iterator<Item = &'v Variant>,
    ) -> Result<()> {
        let layers: BTreeSet<Digest> =
            variants.flat_map(|variant| &variant.layers).map(|layer| layer.blob.digest).collect();
        let of = |blob: &Blob| if layers.contains(&blob.digest) { 2 * blob.size } else { blob.size };
        let needed = blobs.iter().map(|(blob, _)| of(blob)).sum::<u64>();
        match self.free {
            Some(free) if free < needed => {
                let (free, needed) = (megabytes(free), megabytes(needed));
                let host = self.on.link.name();
                let message = format!("`{host}` has {free} free for images, and {needed} are needed");
                Err(Failure::new(message).hint("make room on the disk of `/var/lib/containerd`").into())
            }
            _ => Ok(()),
        }
    }

    /// Brings blobs, and unpacks what has names; returns how many bytes were sent. What is made of other blobs comes
    /// when something that has a name wants it: containerd collects what nothing does.
    pub fn bring(
        &mut self,
        blobs: &[(Blob, Part)],
        splices: &BTreeMap<Digest, Arc<Splice>>,
        names: &[(String, &Value)],
        content: &dyn Content,
    ) -> Result<u64, Trouble> {
        let splice = |(blob, _): &(Blob, Part)| splices.get(&blob.digest);
        let archive = Archive::new(blobs.iter().filter(|one| splice(one).is_none()), names);
        let mut sent = archive.payload();
        if blobs.iter().all(|one| splice(one).is_none()) {
            self.import(&archive, content, "")?;
            return Ok(sent);
        }
        self.import(&archive, content, "--no-unpack")?;
        for one in blobs {
            if let Some(splice) = splice(one) {
                self.write(format!("place {} {}\n", one.0.digest.hex(), one.0.size).as_bytes())?;
                self.stream(splice.size(), |sink| placing::dictate(one, splice, content, sink))?;
                sent += splice.size();
            }
        }
        self.import(&Archive::of_names(names), content, "")?;
        Ok(sent)
    }

    /// Streams an archive into containerd; `words` are for `ctr`.
    fn import(&mut self, archive: &Archive<'_>, content: &dyn Content, words: &str) -> Result<(), Trouble> {
        self.write(format!("import {} {words}\n", archive.size()).as_bytes())?;
        self.stream(archive.payload(), |sink| archive.send(content, sink))
    }

    /// Streams something with that much content of blobs.
    fn stream(&mut self, left: u64, send: impl FnOnce(&mut dyn Sink) -> Result<()>) -> Result<(), Trouble> {
        let mut stream = Stream { talk: &mut self.talk, watch: self.on.watch, left, trouble: None };
        let sent = send(&mut stream);
        match (stream.trouble.take(), sent) {
            (Some(Trouble::Error(Error::Failed(_))), _) if self.talk.is_over() => Err(self.failed(None)),
            (Some(trouble), _) => Err(trouble),
            (None, sent) => {
                sent?;
                self.done()
            }
        }
    }

    /// Gives names by an archive without blobs: that can only move them to what is there, and fails
    /// before any moves if something is not. Then sees that it is so.
    pub fn give(
        &mut self,
        names: &[(String, &Variant)],
        pin: Pin,
        images: &[&Image],
    ) -> Result<(), Trouble> {
        let entries: Vec<_> =
            names.iter().map(|(name, variant)| (name.clone(), &variant.descriptor)).collect();
        if entries.is_empty() {
            return Ok(());
        }
        let by_label = pin == Pin::Yes && self.version >= 2;
        let words = if by_label { format!("--label {PINNED}=pinned") } else { String::new() };
        self.import(&Archive::of_names(&entries), &Nothing, &words)?;
        if pin == Pin::Yes && !by_label {
            for (name, _) in names {
                self.order(&format!("label {name} {PINNED}=pinned"))?;
            }
        }
        let state = self.named(images)?;
        let is_given = |(name, variant): &&(String, &Variant)| match pin {
            Pin::Yes => state.is_pinned(name, variant),
            Pin::No => state.is_named(name, variant),
        };
        match names.iter().find(|given| !is_given(given)) {
            None => Ok(()),
            Some((name, _)) => {
                let message =
                    format!("`{name}` was given on `{}`, but it is not there", self.on.link.name());
                Err(Trouble::Cut(
                    Failure::new(message).hint("somebody else may be removing images: run again"),
                ))
            }
        }
    }
}

/// Bytes for people.
fn megabytes(bytes: u64) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes % 1_000_000 / 100_000)
}

/// Sends an archive.
struct Stream<'a, 'b> {
    talk: &'a mut Talk<'b>,
    watch: &'a dyn Watch,
    /// Payload that is not yet counted: headers are not payload.
    left: u64,
    trouble: Option<Trouble>,
}

impl Sink for Stream<'_, '_> {
    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        if let Err(trouble) = self.talk.write(bytes) {
            self.trouble = Some(trouble);
            return Err(Error::failed("the host takes no more"));
        }
        let counted = self.left.min(bytes.len() as u64);
        self.left -= counted;
        self.watch.moved(counted);
        Ok(())
    }
}
