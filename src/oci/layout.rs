//! The files of an OCI layout with some images (image-spec "Image Layout"), as parts. Knows no folder
//! and no archive.

use std::collections::BTreeMap;

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::oci::descriptor::Descriptor;
use crate::oci::document::{INDEX, Index};
use crate::oci::image::Image;
use crate::oci::reference::Reference;
use crate::recipe::Part;

/// The name of an image in an index.
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The same for containerd, which would put a prefix before the other.
pub(super) const IMAGE_NAME: &str = "io.containerd.image.name";
/// The file that says that a folder is a layout, and what it says.
pub(super) const LAYOUT: (&str, &[u8]) = ("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);

/// An image and its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The image.
    pub image: Image,
    /// The same for further platforms: then an index has the names.
    pub others: Vec<Image>,
    /// Its names; none has a digest.
    pub tags: Vec<Reference>,
}

impl Named {
    /// The image, for each platform.
    pub fn images(&self) -> impl Iterator<Item = &Image> {
        std::iter::once(&self.image).chain(&self.others)
    }

    /// The index, if there are several platforms.
    pub fn index(&self) -> Option<Vec<u8>> {
        let all = || self.images().map(Image::descriptor).collect();
        (!self.others.is_empty()).then(|| Index::new(all()).encode())
    }

    /// What the names are given to.
    pub fn top(&self) -> Descriptor {
        self.index().map_or_else(|| self.image.descriptor(), |index| Descriptor::of(INDEX, &index))
    }
}

/// The files of a layout with these images, each path once: first those that say what is in it, then
/// manifests and configs, then layers. Fails on a name that two images have.
pub fn files(images: &[Named]) -> Result<Vec<(String, Part)>> {
    let tags = tags(images)?;
    let (mut small, mut large) = (Blobs::default(), Blobs::default());
    let mut tops = Vec::new();
    for (named, tags) in images.iter().zip(tags) {
        let top = named.top();
        if let Some(index) = named.index() {
            small.add(&top, Part::Inline(index))?;
        }
        for image in named.images() {
            small.add(&image.descriptor(), Part::Inline(image.manifest_bytes().to_vec()))?;
            small.add(&image.manifest().config, Part::Inline(image.config_bytes().to_vec()))?;
            for layer in image.layers() {
                large.add(&layer.descriptor, layer.part.clone())?;
            }
        }
        if tags.is_empty() && !tops.contains(&top) {
            tops.push(top.clone());
        }
        for tag in tags {
            let mut top = top.clone();
            top.annotations.insert(IMAGE_NAME.to_string(), tag.clone());
            top.annotations.insert(REF_NAME.to_string(), tag);
            tops.push(top);
        }
    }
    let index = Part::Inline(Index::new(tops).encode());
    let mut files =
        vec![(LAYOUT.0.to_string(), Part::Inline(LAYOUT.1.to_vec())), ("index.json".to_string(), index)];
    files.extend(small.list);
    files.extend(large.list.into_iter().filter(|(path, _)| !small.sizes.contains_key(path)));
    Ok(files)
}

/// The complete names of each image, sorted, each once; fails on a name that two images have.
pub(super) fn tags(images: &[Named]) -> Result<Vec<Vec<String>>> {
    let mut owners: BTreeMap<String, usize> = BTreeMap::new();
    let mut tags = vec![Vec::new(); images.len()];
    for (at, named) in images.iter().enumerate() {
        for tag in &named.tags {
            if tag.digest.is_some() {
                return Err(Error::failed(format!("`{tag}` has a digest and cannot be given to an image")));
            }
            let tag = tag.to_string();
            match owners.insert(tag.clone(), at) {
                None => tags[at].push(tag),
                Some(other) if other == at => {}
                Some(other) if images[other].top() == named.top() => {}
                Some(_) => return Err(Error::failed(format!("two images are named `{tag}`"))),
            }
        }
        tags[at].sort();
    }
    Ok(tags)
}

/// The path of a blob in a layout.
pub fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// Blobs in the order in which they came, each once.
#[derive(Default)]
struct Blobs {
    sizes: BTreeMap<String, u64>,
    list: Vec<(String, Part)>,
}

impl Blobs {
    fn add(&mut self, descriptor: &Descriptor, part: Part) -> Result<()> {
        let path = blob_path(&descriptor.digest);
        match self.sizes.insert(path.clone(), descriptor.size) {
            None => self.list.push((path, part)),
            Some(size) if size == descriptor.size => {}
            Some(size) => {
                let (digest, other) = (descriptor.digest, descriptor.size);
                return Err(Error::failed(format!("`{digest}` has {size} bytes or {other}, not both")));
            }
        }
        Ok(())
    }
}
