//! One image for one platform: manifest, config, and its layers as parts; read from documents, or made
//! from a base, new layers and settings. Knows no layout or archive.

use crate::digest::{Blob, Digest};
use crate::error::{Error, Result};
use crate::oci::config::{Config, History, rfc3339};
use crate::oci::descriptor::{Descriptor, Packing, Platform};
use crate::oci::document::{CONFIG, Document, Manifest, parse};
use crate::oci::settings::Settings;
use crate::recipe::Part;

/// An image whose documents agree with each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    manifest: Manifest,
    manifest_bytes: Vec<u8>,
    manifest_digest: Digest,
    config: Config,
    config_bytes: Vec<u8>,
    layers: Vec<Layer>,
}

/// A layer of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// What the manifest says of it.
    pub descriptor: Descriptor,
    /// The SHA-256 of its tar.
    pub diff_id: Digest,
    /// Where its bytes, as the descriptor names them, are to be had.
    pub part: Part,
}

/// A layer to put on a base: an uncompressed tar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewLayer {
    /// The tar.
    pub part: Part,
    /// The tar's SHA-256, which is its diffID too.
    pub digest: Digest,
    /// What the history says made it.
    pub created_by: String,
}

impl Image {
    /// Reads an image's documents. `media_type` is what the manifest's descriptor says. Layers are
    /// blobs by the manifest's digests, of which nobody need have the bytes yet.
    ///
    /// Fails on whatever `document::parse` and `Config::parse` refuse, on a config that is not the one
    /// that the manifest names, and on layers that are not as many as the config's diffIDs, or whose
    /// digest is not their diffID although they are plain tars.
    pub fn new(media_type: Option<&str>, manifest: Vec<u8>, config: Vec<u8>) -> Result<Self> {
        match parse(&manifest, media_type)? {
            Document::Manifest(parsed) => Self::assemble(parsed, manifest, config),
            Document::Index(_) => Err(Error::failed("an index is no image")),
        }
    }

    pub(super) fn assemble(
        manifest: Manifest,
        manifest_bytes: Vec<u8>,
        config_bytes: Vec<u8>,
    ) -> Result<Self> {
        manifest.config.verify("the image's config", &config_bytes)?;
        let config = Config::parse(&config_bytes)?;
        let diff_ids = &config.rootfs.diff_ids;
        if manifest.layers.len() != diff_ids.len() {
            let (layers, ids) = (manifest.layers.len(), diff_ids.len());
            return Err(Error::failed(format!(
                "the image's manifest has {layers} layers, its config {ids}"
            )));
        }
        let layers = manifest.layers.iter().zip(diff_ids).map(|(descriptor, &diff_id)| {
            if Packing::of(&descriptor.media_type)? == Packing::Plain && descriptor.digest != diff_id {
                return Err(Error::failed(format!(
                    "the image's config names the layer `{}` differently: `{diff_id}`",
                    descriptor.digest
                )));
            }
            let part = Part::Blob(Blob { digest: descriptor.digest, size: descriptor.size });
            Ok(Layer { descriptor: descriptor.clone(), diff_id, part })
        });
        let layers = layers.collect::<Result<_>>()?;
        let manifest_digest = Digest::sha256_of(&manifest_bytes);
        Ok(Self { manifest, manifest_bytes, manifest_digest, config, config_bytes, layers })
    }

    /// Puts layers and settings on a base, or on nothing. Without any change this is the base, byte for
    /// byte. `platform` counts where there is no base.
    ///
    /// A Docker base becomes an OCI image with the same layers; the base's annotations on its manifest
    /// are about the base and are not taken over. Fails on settings that cannot be, and on a base for
    /// another platform.
    pub fn build(
        base: Option<&Self>,
        platform: &Platform,
        layers: &[NewLayer],
        settings: &Settings,
    ) -> Result<Self> {
        let created = rfc3339(settings.created)?;
        let start = match base {
            Some(base) if !base.config.platform.matches(platform) => {
                let is = &base.config.platform;
                return Err(Error::failed(format!("the base is for `{is}`, not for `{platform}`")));
            }
            Some(base) => base.config.clone(),
            None => Config::new(platform.clone()),
        };
        let merged = start.merge(settings)?;
        if let Some(base) = base
            && merged.is_none()
            && layers.is_empty()
            && settings
                .annotations
                .iter()
                .all(|(key, value)| base.manifest.annotations.get(key) == Some(value))
        {
            return Ok(base.clone());
        }
        let mut config = merged.unwrap_or_else(|| {
            let mut config = start;
            config.complete();
            config
        });
        config.tidy_history();
        config.created = Some(created.clone());
        let says_more = base.is_none_or(|base| base.config.config != config.config);
        let mut all = Vec::new();
        for layer in base.map(|base| &base.layers[..]).unwrap_or_default() {
            let mut layer = layer.clone();
            layer.descriptor.media_type = Packing::of(&layer.descriptor.media_type)?.media_type();
            layer.descriptor.platform = None;
            all.push(layer);
        }
        for layer in layers {
            let media_type = Packing::Plain.media_type();
            let size = layer.part.size();
            let descriptor = Descriptor { digest: layer.digest, size, ..Descriptor::of(&media_type, b"") };
            all.push(Layer { descriptor, diff_id: layer.digest, part: layer.part.clone() });
            config.rootfs.diff_ids.push(layer.digest);
            let created_by = Some(layer.created_by.clone()).filter(|text| !text.is_empty());
            config.history.push(History {
                created: Some(created.clone()),
                created_by,
                ..History::default()
            });
        }
        if says_more {
            config.history.push(History {
                created: Some(created),
                created_by: Some("vcbuild: config".to_string()),
                empty_layer: Some(true),
                ..History::default()
            });
        }
        let config_bytes = config.encode();
        let descriptors = all.iter().map(|layer| layer.descriptor.clone()).collect();
        let manifest =
            Manifest::new(Descriptor::of(CONFIG, &config_bytes), descriptors, settings.annotations.clone());
        let mut made = Self::assemble(manifest.clone(), manifest.encode(), config_bytes)?;
        made.layers = all;
        Ok(made)
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The manifest's bytes, by whose digest the image is known.
    pub fn manifest_bytes(&self) -> &[u8] {
        &self.manifest_bytes
    }

    /// What an index says of the image.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor {
            media_type: self.manifest.media_type.clone(),
            digest: self.manifest_digest,
            size: self.manifest_bytes.len() as u64,
            platform: Some(self.config.platform.clone()),
            annotations: Default::default(),
        }
    }

    /// The config.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The config's bytes; their SHA-256 is what Docker calls the image's id.
    pub fn config_bytes(&self) -> &[u8] {
        &self.config_bytes
    }

    /// The layers, lowest first.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Says for each layer where its bytes are to be had; `None` leaves it as it is. Fails if a part has
    /// another size than its layer.
    pub fn locate(&mut self, mut part: impl FnMut(&Descriptor) -> Result<Option<Part>>) -> Result<()> {
        for layer in &mut self.layers {
            if let Some(part) = part(&layer.descriptor)? {
                if part.size() != layer.descriptor.size {
                    let (digest, said) = (layer.descriptor.digest, layer.descriptor.size);
                    let is = part.size();
                    return Err(Error::failed(format!("layer `{digest}` has {is} bytes, not {said}")));
                }
                layer.part = part;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::document::{DOCKER_CONFIG, DOCKER_MANIFEST};
    use crate::oci::samples::{Memory, amd64, new_layer, plain_image, verify};

    fn none() -> Settings {
        Settings::default()
    }

    #[test]
    fn golden() {
        let mut memory = Memory::default();
        let image = plain_image(&mut memory);
        verify(&image, &memory).unwrap();
        assert_eq!(
            String::from_utf8_lossy(image.config_bytes()),
            r#"{"created":"1970-01-01T00:00:00Z","architecture":"amd64","os":"linux","config":{"User":"65532","Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"Entrypoint":["/usr/local/bin/manager"],"Cmd":["-v"]},"rootfs":{"type":"layers","diff_ids":["sha256:a405a9320080249e09da1c800855fdaaa29709cd240aa9f954a997a96dd53391","sha256:0f8b8b418a43044ad4cf4ada4d5bb197dc6832df944aa5ec958f04bd29c28e65"]},"history":[{"created":"1970-01-01T00:00:00Z","created_by":"files"},{"created":"1970-01-01T00:00:00Z","created_by":"files"},{"created":"1970-01-01T00:00:00Z","created_by":"vcbuild: config","empty_layer":true}]}"#
        );
        assert_eq!(
            image.descriptor().digest.hex(),
            "4ca2134b1e920be074bb7164fea6d513b55c3510fa431c0cd3bbb0cc405312b7"
        );
    }

    #[test]
    fn a_base_without_change_keeps_its_bytes() {
        let mut memory = Memory::default();
        let base = plain_image(&mut memory);
        let settings = Settings { created: 77, ..none() };
        assert_eq!(Image::build(Some(&base), &amd64(), &[], &settings).unwrap(), base);
        let settings = Settings { annotations: [("a".into(), "b".into())].into(), ..none() };
        let changed = Image::build(Some(&base), &amd64(), &[], &settings).unwrap();
        assert_ne!(changed.descriptor().digest, base.descriptor().digest);
        assert_eq!(changed.layers(), base.layers());
        assert_eq!(Image::build(Some(&changed), &amd64(), &[], &settings).unwrap(), changed);
    }

    #[test]
    fn layers_go_on_top() {
        let mut memory = Memory::default();
        let base = plain_image(&mut memory);
        let layer = new_layer(&mut memory, &[("app", b"new")]);
        let made = Image::build(Some(&base), &amd64(), std::slice::from_ref(&layer), &none()).unwrap();
        verify(&made, &memory).unwrap();
        assert_eq!(made.layers()[..base.layers().len()], *base.layers());
        assert_eq!(made.layers().last().unwrap().diff_id, layer.digest);
        let lines = made.config().history.iter();
        assert_eq!(lines.filter(|line| line.empty_layer.is_none()).count(), made.layers().len());
        assert_eq!(made.config().config, base.config().config);
    }

    #[test]
    fn a_docker_base_becomes_oci() {
        let mut memory = Memory::default();
        let plain = plain_image(&mut memory);
        let text = String::from_utf8(plain.manifest_bytes().to_vec()).unwrap();
        let text = text
            .replace("application/vnd.oci.image.manifest.v1+json", DOCKER_MANIFEST)
            .replace(CONFIG, DOCKER_CONFIG)
            .replace(
                "application/vnd.oci.image.layer.v1.tar",
                "application/vnd.docker.image.rootfs.diff.tar.gzip",
            );
        let docker =
            Image::new(Some(DOCKER_MANIFEST), text.clone().into_bytes(), plain.config_bytes().to_vec())
                .unwrap();
        let same = Image::build(Some(&docker), &amd64(), &[], &none()).unwrap();
        assert_eq!(same.manifest_bytes(), text.as_bytes());
        let layer = new_layer(&mut memory, &[("app", b"new")]);
        let made = Image::build(Some(&docker), &amd64(), &[layer], &none()).unwrap();
        let text = String::from_utf8(made.manifest_bytes().to_vec()).unwrap();
        assert!(!text.contains("docker"), "{text}");
        assert_eq!(made.layers()[0].descriptor.media_type, "application/vnd.oci.image.layer.v1.tar+gzip");
        assert_eq!(made.layers()[0].descriptor.digest, plain.layers()[0].descriptor.digest);
    }

    #[test]
    fn documents_that_disagree_are_refused() {
        let mut memory = Memory::default();
        let image = plain_image(&mut memory);
        let (manifest, config) = (image.manifest_bytes().to_vec(), image.config_bytes().to_vec());
        Image::new(None, manifest.clone(), config.clone()).unwrap();
        assert!(Image::new(None, manifest.clone(), [&config[..], b" "].concat()).is_err());
        let turned: Vec<u8> = config.iter().map(|c| if *c == b'0' { b'1' } else { *c }).collect();
        assert!(Image::new(None, manifest, turned.clone()).is_err());
        let other =
            Manifest::new(Descriptor::of(CONFIG, &turned), image.manifest().layers.clone(), [].into());
        let error = Image::new(None, other.encode(), turned).unwrap_err().to_string();
        assert!(error.contains("differently"), "{error}");
        let short = Manifest::new(Descriptor::of(CONFIG, &config), vec![], [].into());
        let error = Image::new(None, short.encode(), config).unwrap_err().to_string();
        assert_eq!(error, "the image's manifest has 0 layers, its config 2");
    }

    #[test]
    fn another_platform_is_refused() {
        let mut memory = Memory::default();
        let base = plain_image(&mut memory);
        let error = Image::build(Some(&base), &Platform::linux("arm64"), &[], &none()).unwrap_err();
        assert_eq!(error.to_string(), "the base is for `linux/amd64`, not for `linux/arm64`");
    }

    #[test]
    fn wrong_parts_are_found() {
        let mut memory = Memory::default();
        let mut image = plain_image(&mut memory);
        let blob = memory.add(b"short");
        assert!(image.locate(|_| Ok(Some(Part::Blob(blob)))).is_err());
        let size = usize::try_from(image.layers()[0].descriptor.size).unwrap();
        image.locate(|layer| Ok((layer.size == size as u64).then(|| Part::Inline(vec![1; size])))).unwrap();
        assert!(verify(&image, &memory).is_err());
    }
}
