//! Documents about an image that travel beside it as OCI referrers: a manifest of their own that names
//! the image as its subject (image-spec 1.1 "Guidelines for Artifact Usage"). Knows no kind of document.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::oci::descriptor::Descriptor;
use crate::oci::document::{Document, INDEX, LONGEST_DOCUMENT, MANIFEST, decode, encode, parse};
use crate::oci::find::Files;
use crate::oci::layout::blob_path;
use crate::recipe::Part;

/// The config of what has none.
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// The longest document in bytes.
const LONGEST: u64 = 64 << 20;
/// Documents in one layout, at most.
const MOST: usize = 100;

/// A document about an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// What it is: a media type.
    pub kind: String,
    /// The manifest that it is about.
    pub subject: Descriptor,
    /// The document.
    pub bytes: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    media_type: String,
    artifact_type: Option<String>,
    config: Descriptor,
    layers: Vec<Descriptor>,
    subject: Option<Descriptor>,
}

impl Attached {
    /// What an index says of it, and its blobs with their descriptors: manifest, config, document.
    pub fn blobs(&self) -> (Descriptor, Vec<(Descriptor, Part)>) {
        let subject =
            Descriptor { platform: None, annotations: Default::default(), ..self.subject.clone() };
        let (config, layer) = (Descriptor::of(EMPTY, b"{}"), Descriptor::of(&self.kind, &self.bytes));
        let manifest = encode(&Manifest {
            schema_version: 2,
            media_type: MANIFEST.to_string(),
            artifact_type: Some(self.kind.clone()),
            config: config.clone(),
            layers: vec![layer.clone()],
            subject: Some(subject),
        });
        let top =
            Descriptor { artifact_type: Some(self.kind.clone()), ..Descriptor::of(MANIFEST, &manifest) };
        let blobs = vec![
            (top.clone(), Part::Inline(manifest)),
            (config, Part::Inline(b"{}".to_vec())),
            (layer, Part::Inline(self.bytes.clone())),
        ];
        (top, blobs)
    }

    /// The documents that a layout's index lists, verified; those of another shape are passed over.
    pub fn find(files: &dyn Files) -> Result<Vec<Self>> {
        let bytes = files.read("index.json", LONGEST_DOCUMENT)?;
        let Document::Index(index) = parse(&bytes, Some(INDEX))? else {
            return Err(Error::failed("`index.json` is a manifest"));
        };
        let mut all = Vec::new();
        for top in index.manifests.iter().filter(|top| top.is_artifact()).take(MOST) {
            let read = |descriptor: &Descriptor, most: u64| {
                descriptor.check("document", most)?;
                let bytes = files.read(&blob_path(&descriptor.digest), descriptor.size)?;
                descriptor.verify("the document", &bytes).map(|()| bytes)
            };
            let manifest: Manifest = decode("a manifest", &read(top, LONGEST_DOCUMENT)?)?;
            if let (Some(kind), Some(subject), [layer]) =
                (manifest.artifact_type, manifest.subject, manifest.layers.as_slice())
            {
                all.push(Self { kind, subject, bytes: read(layer, LONGEST)? });
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::oci::descriptor::Platform;
    use crate::oci::find::{Parts, find};
    use crate::oci::layout::{Named, files_with};
    use crate::oci::samples::{Memory, plain_image};

    #[test]
    fn what_is_attached_is_found_and_is_no_image() {
        let mut memory = Memory::default();
        let image = plain_image(&mut memory);
        let subject = Descriptor { platform: None, ..image.descriptor() };
        let about =
            Attached { kind: "application/spdx+json".into(), subject, bytes: b"{\"a\":1}".to_vec() };
        let named = [Named { image: image.clone(), others: vec![], tags: vec![] }];
        let files: BTreeMap<String, Part> =
            files_with(&named, std::slice::from_ref(&about)).unwrap().into_iter().collect();
        let parts = Parts { files: &files, content: &memory };
        assert_eq!(Attached::find(&parts).unwrap(), std::slice::from_ref(&about));
        assert_eq!(find(&parts, &Platform::linux("amd64"), None).unwrap().image, image);
        let path = blob_path(&crate::digest::Digest::sha256_of(&about.bytes));
        let mut damaged = files.clone();
        damaged.insert(path, Part::Inline(b"{\"a\":2}".to_vec()));
        assert!(Attached::find(&Parts { files: &damaged, content: &memory }).is_err());
    }
}
