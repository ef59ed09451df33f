//! The image in an archive that anybody made: an OCI layout in a tar, or what `docker save` writes. Layers
//! are left as they are; what Docker's form does not name is named here. Knows no cache.

use std::fs::File;

use serde::Deserialize;

use crate::digest::{Digest, Hasher};
use crate::error::{Error, Failure, Result};
use crate::oci::descriptor::{Descriptor, Packing, Platform};
use crate::oci::document::{CONFIG, LONGEST_CONFIG, LONGEST_DOCUMENT, Manifest, decode};
use crate::oci::find::{Files, find};
use crate::oci::image::Image;
use crate::oci::layout::{LAYOUT, blob_path};
use crate::oci::members::Members;
use crate::oci::quoted;

/// An image, and where the bytes of each of its layers are in the archive.
pub struct Archived {
    /// The image.
    pub image: Image,
    /// For each layer its first byte, and how many there are.
    pub places: Vec<(u64, u64)>,
}

impl Archived {
    /// Reads the only image for a platform. Layers in Docker's form are hashed; others are not read.
    pub fn read(file: &File, members: &Members, platform: &Platform) -> Result<Self> {
        if members.has(LAYOUT.0) && members.has("index.json") {
            let image = find(&Tar { file, members }, platform, None)?.image;
            let place = |digest: &Digest| {
                let missing = || Error::failed(format!("the archive has no layer `{digest}`"));
                members.find(&blob_path(digest)).ok_or_else(missing)
            };
            let places = image.layers().iter().map(|layer| place(&layer.descriptor.digest));
            return Ok(Self { places: places.collect::<Result<_>>()?, image });
        }
        if members.has("manifest.json") {
            return Self::docker(file, members, platform);
        }
        Err(Failure::new("it is no archive of images")
            .hint("one by `docker save`, `podman save` or `skopeo copy … oci-archive:FILE` is")
            .into())
    }

    fn docker(file: &File, members: &Members, platform: &Platform) -> Result<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Line {
            config: String,
            #[serde(default, deserialize_with = "crate::oci::document::null_is_empty")]
            repo_tags: Vec<String>,
            #[serde(default, deserialize_with = "crate::oci::document::null_is_empty")]
            layers: Vec<String>,
        }
        let lines: Vec<Line> =
            decode("`manifest.json`", &members.read(file, "manifest.json", LONGEST_DOCUMENT)?)?;
        let [line] = lines.as_slice() else {
            let names = lines.iter().flat_map(|line| &line.repo_tags).take(12).map(quoted);
            let failure =
                Failure::new(format!("the archive has {} images, and one is wanted", lines.len()));
            return Err(failure.hint(format!("it has: {}", names.collect::<Vec<_>>().join(", "))).into());
        };
        let config = members.read(file, &line.config, LONGEST_CONFIG)?;
        let (mut layers, mut places) = (Vec::new(), Vec::new());
        for path in &line.layers {
            let missing = || Error::failed(format!("the archive has no layer {}", quoted(path)));
            let place = members.find(path).ok_or_else(missing)?;
            layers.push(named(file, members, place)?);
            places.push(place);
        }
        let manifest = Manifest::new(Descriptor::of(CONFIG, &config), layers, [].into());
        let image = Image::new(None, manifest.encode(), config)?;
        let is = &image.config().platform;
        if !is.matches(platform) {
            return Err(Error::failed(format!("its image is for `{is}`, not for `{platform}`")));
        }
        Ok(Self { image, places })
    }
}

/// A layer by what it is, whatever it is called.
fn named(file: &File, members: &Members, place: (u64, u64)) -> Result<Descriptor> {
    let (mut hasher, mut packing) = (Hasher::sha256(), None);
    members.stream(file, place, &mut |piece| {
        packing.get_or_insert(match piece {
            [0x1f, 0x8b, ..] => Packing::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Packing::Zstd,
            _ => Packing::Plain,
        });
        hasher.update(piece);
        Ok(())
    })?;
    let media_type = packing.unwrap_or(Packing::Plain).media_type();
    Ok(Descriptor { digest: hasher.finish(), size: place.1, ..Descriptor::of(&media_type, b"") })
}

struct Tar<'a> {
    file: &'a File,
    members: &'a Members,
}

impl Files for Tar<'_> {
    fn read(&self, path: &str, most: u64) -> Result<Vec<u8>> {
        self.members.read(self.file, path, most)
    }
}
