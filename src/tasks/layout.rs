//! An image's value: an OCI layout as a tree. Shared by the kinds that read images. Knows no key.

use std::collections::BTreeMap;

use crate::cache::cas::Cas;
use crate::cache::draft::Draft;
use crate::cache::tree::Entry;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::host::machine;
use crate::oci::attached::Attached;
use crate::oci::descriptor::Platform;
use crate::oci::find::{Files, Found, Parts, find, platforms};
use crate::oci::layout::Named;
use crate::recipe::{Content, Part};

/// The platform of images that are made here.
pub fn platform() -> Platform {
    let architecture = machine::here().split_once('/').map_or("", |(_, architecture)| architecture);
    Platform::linux(architecture)
}

/// The image for a platform in a tree.
pub fn read_for(cas: &Cas, tree: &Digest, platform: &Platform) -> Result<Found> {
    find(&Layout { cas, tree }, platform, None)
}

/// The image in a tree, for each of its platforms.
pub fn read_all(cas: &Cas, tree: &Digest) -> Result<Named> {
    let layout = Layout { cas, tree };
    let mut found = Vec::new();
    for platform in platforms(&layout)? {
        found.push(find(&layout, &platform, None)?);
    }
    let mut found = found.into_iter();
    let Some(Found { image, names }) = found.next() else {
        return Err(Error::failed("the layout has no image"));
    };
    let tags = names.iter().map(|name| name.parse().map_err(Error::failed)).collect::<Result<_>>()?;
    Ok(Named { image, others: found.map(|found| found.image).collect(), tags })
}

/// The documents about the image in a tree.
pub fn attached(cas: &Cas, tree: &Digest) -> Result<Vec<Attached>> {
    Attached::find(&Layout { cas, tree })
}

/// Stores the files of a layout as a tree.
pub fn store(cas: &Cas, files: Vec<(String, Part)>) -> Result<Digest> {
    let mut draft = Draft::empty(cas);
    for (path, part) in files {
        draft.insert(path.as_bytes(), entry(cas, part)?)?;
    }
    draft.store()
}

/// A part as a file of a tree.
pub fn entry(cas: &Cas, part: Part) -> Result<Entry> {
    Ok(match part {
        Part::Inline(bytes) => Entry::File { mode: 0o644, blob: cas.put(&bytes)? },
        Part::Blob(blob) => Entry::File { mode: 0o644, blob },
        Part::Recipe { recipe, size } => Entry::Recipe { mode: 0o644, recipe, size },
    })
}

struct Layout<'a> {
    cas: &'a Cas,
    tree: &'a Digest,
}

impl Files for Layout<'_> {
    fn read(&self, path: &str, most: u64) -> Result<Vec<u8>> {
        let part = self.part(path)?;
        let files = BTreeMap::from([(path.to_string(), part.unwrap_or(Part::Inline(Vec::new())))]);
        Parts { files: &files, content: self.cas as &dyn Content }.read(path, most)
    }

    fn part(&self, path: &str) -> Result<Option<Part>> {
        let missing = || Error::failed(format!("the image has no `{path}`"));
        Ok(self.cas.entry(self.tree, path)?.ok_or_else(missing)?.part())
    }
}
