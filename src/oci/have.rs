//! Which content somebody has who has the images of a layout or archive: what else would have to move
//! for another image. Reads documents only, strictly and in bounded memory. Knows no folder.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::oci::config::Config;
use crate::oci::descriptor::{Descriptor, Packing};
use crate::oci::document::{
    DOCKER_INDEX, DOCKER_MANIFEST, Document, INDEX, LONGEST_CONFIG, LONGEST_DOCUMENT, MANIFEST, decode,
    parse,
};
use crate::oci::find::Files;
use crate::oci::image::{Image, Layer};
use crate::oci::layout::blob_path;
use crate::oci::quoted;
use crate::oci::untar::{Member, Visitor};

/// Documents that are read, at most.
const MOST_READS: usize = 2000;
/// All documents of an archive together, in bytes, at most.
const MOST_BYTES: u64 = 64 << 20;

/// What somebody has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Have {
    /// Manifests, configs, layers as they travel, and the diffIDs of layers.
    pub digests: BTreeSet<Digest>,
}

impl Have {
    /// What the image is made of.
    pub fn add(&mut self, image: &Image) {
        self.digests.insert(image.descriptor().digest);
        self.digests.insert(image.manifest().config.digest);
        for layer in image.layers() {
            self.digests.extend([layer.descriptor.digest, layer.diff_id]);
        }
    }

    /// Whether a layer need not move: a runtime knows it by its content, however it is packed.
    pub fn has(&self, layer: &Layer) -> bool {
        self.digests.contains(&layer.descriptor.digest) || self.digests.contains(&layer.diff_id)
    }

    /// What a layout, or what `docker save` wrote, holds for all platforms.
    ///
    /// Fails on what is neither, and on documents that are not as they should be. An index may list
    /// images that are not there: nobody has those.
    pub fn of(files: &dyn Files) -> Result<Self> {
        let mut have = Self::default();
        if let Ok(bytes) = files.read("index.json", LONGEST_DOCUMENT) {
            let mut reads = 0;
            have.add_document(files, &bytes, INDEX, &mut reads)?;
            return Ok(have);
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Line {
            config: String,
        }
        let wrong = |_| Error::failed("it has neither `index.json` nor `manifest.json`");
        let lines: Vec<Line> =
            decode("`manifest.json`", &files.read("manifest.json", LONGEST_DOCUMENT).map_err(wrong)?)?;
        for line in lines.iter().take(MOST_READS) {
            let bytes = files.read(&line.config, LONGEST_CONFIG)?;
            have.digests.insert(Digest::sha256_of(&bytes));
            have.digests.extend(Config::parse(&bytes)?.rootfs.diff_ids);
        }
        Ok(have)
    }

    fn add_document(
        &mut self,
        files: &dyn Files,
        bytes: &[u8],
        media_type: &str,
        reads: &mut usize,
    ) -> Result<()> {
        match parse(bytes, Some(media_type))? {
            Document::Index(index) => {
                for descriptor in &index.manifests {
                    self.add_listed(files, descriptor, reads)?;
                }
            }
            Document::Manifest(manifest) => {
                let config = files.read(&blob_path(&manifest.config.digest), LONGEST_CONFIG)?;
                manifest.config.verify("the image's config", &config)?;
                self.digests.insert(manifest.config.digest);
                self.digests.extend(manifest.layers.iter().map(|layer| layer.digest));
                self.digests.extend(Config::parse(&config)?.rootfs.diff_ids);
            }
        }
        Ok(())
    }

    fn add_listed(&mut self, files: &dyn Files, listed: &Descriptor, reads: &mut usize) -> Result<()> {
        let kinds = [MANIFEST, DOCKER_MANIFEST, INDEX, DOCKER_INDEX];
        let is_image = kinds.contains(&listed.media_type.as_str()) && !listed.is_artifact();
        // Each document counts once, so that an index that lists itself comes to an end.
        if !is_image || self.digests.contains(&listed.digest) || listed.size > LONGEST_DOCUMENT {
            return Ok(());
        }
        *reads += 1;
        if *reads > MOST_READS {
            return Err(Error::failed(format!("it has more than {MOST_READS} images")));
        }
        let Ok(bytes) = files.read(&blob_path(&listed.digest), listed.size) else { return Ok(()) };
        listed.verify("the document", &bytes)?;
        self.digests.insert(listed.digest);
        self.add_document(files, &bytes, &listed.media_type, reads)
    }
}

/// The small members of a tar, by their paths: the documents of an archive.
#[derive(Default)]
pub struct Documents {
    files: BTreeMap<String, Vec<u8>>,
    bytes: u64,
    last: String,
}

impl Visitor for Documents {
    fn member(&mut self, member: Member) -> Result<usize> {
        let path = String::from_utf8_lossy(&member.path).into_owned();
        let path = path.trim_start_matches("./").to_string();
        if member.size == 0 || member.size > LONGEST_CONFIG || !member.whole {
            return Ok(0);
        }
        self.bytes += member.size;
        if self.bytes > MOST_BYTES {
            // Small layers may come to more: what follows is not kept, and missed if it is needed.
            self.bytes -= member.size;
            return Ok(0);
        }
        self.last = path;
        Ok(member.size as usize)
    }

    fn content(&mut self, bytes: &[u8]) -> Result<()> {
        self.files.insert(std::mem::take(&mut self.last), bytes.to_vec());
        Ok(())
    }
}

impl Files for Documents {
    fn read(&self, path: &str, most: u64) -> Result<Vec<u8>> {
        match self.files.get(path) {
            Some(bytes) if bytes.len() as u64 <= most => Ok(bytes.clone()),
            Some(_) => Err(Error::failed(format!("{} has more than {most} bytes", quoted(path)))),
            None => Err(Error::failed(format!("there is no {}", quoted(path)))),
        }
    }
}

/// How a layer is packed, in one word.
pub fn packing_word(media_type: &str) -> &'static str {
    match Packing::of(media_type) {
        Ok(Packing::Plain) => "plain",
        Ok(Packing::Gzip) => "gzip",
        Ok(Packing::Zstd) => "zstd",
        Err(_) => "odd",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::archive;
    use crate::oci::layout::{Named, files};
    use crate::oci::samples::{Memory, plain_image};
    use crate::oci::untar::Untar;
    use crate::recipe::{Part, Sink};

    fn documents(bytes: &[u8]) -> Result<Have> {
        let mut documents = Documents::default();
        let mut tar = Untar::new(&mut documents);
        tar.bytes(bytes)?;
        tar.finish()?;
        Have::of(&documents)
    }

    #[test]
    fn each_form_says_what_it_holds() {
        let mut memory = Memory::default();
        let image = plain_image(&mut memory);
        let mut whole = Have::default();
        whole.add(&image);
        let named = [Named { image: image.clone(), others: vec![], tags: vec![] }];
        let oci = memory.bytes(&archive::oci(&named).unwrap());
        assert_eq!(documents(&oci).unwrap(), whole);
        let docker = documents(&memory.bytes(&archive::docker(&named).unwrap())).unwrap();
        assert!(image.layers().iter().all(|layer| docker.has(layer)));
        assert!(!docker.digests.contains(&image.descriptor().digest));
        let map: BTreeMap<String, Part> = files(&named).unwrap().into_iter().collect();
        let parts = crate::oci::find::Parts { files: &map, content: &memory };
        assert_eq!(Have::of(&parts).unwrap(), whole);
        assert!(image.layers().iter().all(|layer| !Have::default().has(layer)));
        assert_eq!(
            documents(&[0; 1024]).unwrap_err().to_string(),
            "it has neither `index.json` nor `manifest.json`"
        );
    }
}
