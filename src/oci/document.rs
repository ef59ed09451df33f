//! Manifests and indexes as JSON: what other people wrote is checked strictly, what is written here has
//! one byte sequence (image-spec "Image Manifest", "Image Index", "Content Descriptors"; Docker's
//! schema 2). Knows no file and no config.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Failure, Result};
use crate::oci::descriptor::{Descriptor, Packing};
use crate::oci::quoted;

/// An OCI manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// An OCI index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// An OCI config.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Docker's manifest, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's index.
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker's config.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// The longest manifest or index in bytes, as registries have it.
pub const LONGEST_DOCUMENT: u64 = 4 << 20;
/// The longest config in bytes.
pub const LONGEST_CONFIG: u64 = 8 << 20;
/// The largest layer in bytes.
const LARGEST_LAYER: u64 = 1 << 44;
/// More layers than any runtime mounts.
const MOST_LAYERS: usize = 1000;

/// A manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    schema_version: u32,
    /// `MANIFEST` or `DOCKER_MANIFEST`.
    pub media_type: String,
    /// The config.
    pub config: Descriptor,
    /// The layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// Free text.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// An OCI manifest.
    pub fn new(config: Descriptor, layers: Vec<Descriptor>, annotations: BTreeMap<String, String>) -> Self {
        Self { schema_version: 2, media_type: MANIFEST.to_string(), config, layers, annotations }
    }

    /// The bytes, always the same.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }
}

/// An index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    schema_version: u32,
    /// `INDEX` or `DOCKER_INDEX`.
    pub media_type: String,
    /// What it lists.
    pub manifests: Vec<Descriptor>,
}

impl Index {
    /// An OCI index.
    pub fn new(manifests: Vec<Descriptor>) -> Self {
        Self { schema_version: 2, media_type: INDEX.to_string(), manifests }
    }

    /// The bytes, always the same.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }
}

/// A document that says what it is.
#[expect(clippy::large_enum_variant, reason = "there is one at a time")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// One image.
    Manifest(Manifest),
    /// A list of images.
    Index(Index),
}

/// A document as somebody wrote it; what matters is there or not.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: u32,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    #[serde(default, deserialize_with = "null_is_empty")]
    annotations: BTreeMap<String, String>,
}

/// Reads a manifest or index. `said` is the media type that its descriptor, or the registry, gave.
///
/// Fails on Docker's schema 1, on a document that is both (CVE-2021-41190) or says it is another than
/// its descriptor does, on artifacts that are no images, on digests that are not SHA-256, on sizes
/// beyond the limits of this library and on layers that are foreign or no tar.
pub fn parse(bytes: &[u8], said: Option<&str>) -> Result<Document> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Version {
        schema_version: u32,
    }
    if bytes.len() as u64 > LONGEST_DOCUMENT {
        return Err(Error::failed(format!("a manifest or index has more than {LONGEST_DOCUMENT} bytes")));
    }
    let version: Version = decode("a manifest or index", bytes)?;
    if version.schema_version == 1 || said.is_some_and(|said| said.contains("distribution.manifest.v1")) {
        return Err(Error::Failed(
            Failure::new("the image is Docker schema 1, which is not read")
                .hint("pull and push it with a current tool: that makes a schema 2 or OCI image of it"),
        ));
    }
    let raw: Raw = decode("a manifest or index", bytes)?;
    if raw.schema_version != 2 {
        return Err(Error::failed(format!("schema version {} is not known", raw.schema_version)));
    }
    if let (Some(said), Some(own)) = (said, &raw.media_type)
        && said != own
    {
        let (said, own) = (quoted(said), quoted(own));
        return Err(Error::failed(format!("a document is said to be {said} and says that it is {own}")));
    }
    let media_type = raw.media_type.as_deref().or(said);
    match (raw.config, raw.layers, raw.manifests) {
        (Some(config), Some(layers), None) => {
            let media_type = media_type.unwrap_or(MANIFEST);
            if media_type != MANIFEST && media_type != DOCKER_MANIFEST {
                return Err(Error::failed(format!("a manifest says that it is {}", quoted(media_type))));
            }
            if let Some(kind) = raw.artifact_type.as_ref().filter(|kind| *kind != CONFIG) {
                return Err(Error::failed(format!("{} is no image", quoted(kind))));
            }
            if config.media_type != CONFIG && config.media_type != DOCKER_CONFIG {
                return Err(Error::failed(format!("{} is no image", quoted(&config.media_type))));
            }
            config.check("config", LONGEST_CONFIG)?;
            if layers.len() > MOST_LAYERS {
                let count = layers.len();
                return Err(Error::failed(format!("an image has {count} layers, more than {MOST_LAYERS}")));
            }
            for layer in &layers {
                Packing::of(&layer.media_type)?;
                layer.check("layer", LARGEST_LAYER)?;
            }
            let mut manifest = Manifest::new(config, layers, raw.annotations);
            manifest.media_type = media_type.to_string();
            Ok(Document::Manifest(manifest))
        }
        (None, None, Some(manifests)) => {
            let media_type = media_type.unwrap_or(INDEX);
            if media_type != INDEX && media_type != DOCKER_INDEX {
                return Err(Error::failed(format!("an index says that it is {}", quoted(media_type))));
            }
            for manifest in &manifests {
                manifest.check("manifest", u64::MAX)?;
            }
            let mut index = Index::new(manifests);
            index.media_type = media_type.to_string();
            Ok(Document::Index(index))
        }
        _ => Err(Error::failed("a document is neither a manifest nor an index")),
    }
}

/// Reads JSON that somebody else wrote.
pub(super) fn decode<'a, T: Deserialize<'a>>(what: &str, bytes: &'a [u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| {
        let shown = quoted(error.to_string());
        Error::failed(format!("{what} is not as it should be: {}", shown.trim_matches('`')))
    })
}

/// Writes JSON: fields in the order of the type, maps by key, no white space.
pub(super) fn encode(value: &impl Serialize) -> Vec<u8> {
    match serde_json::to_vec(value) {
        Ok(bytes) => bytes,
        Err(error) => panic!("BUG: a document cannot be written: {error}"),
    }
}

/// Go writes an empty map as `null`.
pub(super) fn null_is_empty<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::oci::descriptor::{LAYER, Platform};

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn manifest(change: impl Fn(String) -> String) -> Result<Document> {
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{{"mediaType":"{CONFIG}","digest":"sha256:{HEX}","size":2}},"layers":[{{"mediaType":"{LAYER}+gzip","digest":"sha256:{HEX}","size":3,"annotations":null}}]}}"#
        );
        parse(change(text).as_bytes(), None)
    }

    #[test]
    fn a_manifest_is_read_and_written_back() {
        let Document::Manifest(read) = manifest(|text| text).unwrap() else { panic!() };
        assert_eq!(parse(&read.encode(), Some(MANIFEST)).unwrap(), Document::Manifest(read));
        manifest(|text| text.replace(&format!(r#""mediaType":"{MANIFEST}","#), "")).unwrap();
    }

    #[test]
    fn what_is_written_is_oci() {
        let layer = Descriptor::of(LAYER, b"x");
        let manifest = Manifest::new(Descriptor::of(CONFIG, b"{}"), vec![layer], BTreeMap::new());
        let read = oci_spec::image::ImageManifest::from_reader(&manifest.encode()[..]).unwrap();
        assert_eq!(read.schema_version(), 2);
        assert_eq!(read.layers()[0].media_type(), &oci_spec::image::MediaType::ImageLayer);
        let mut top = Descriptor::of(MANIFEST, &manifest.encode());
        top.platform = Some(Platform::linux("arm64"));
        let index = oci_spec::image::ImageIndex::from_reader(&Index::new(vec![top]).encode()[..]).unwrap();
        let platform = index.manifests()[0].platform().as_ref().unwrap();
        assert_eq!(platform.architecture(), &oci_spec::image::Arch::ARM64);
    }

    #[test]
    fn hostile_documents_are_refused() {
        let refuse = |from: &str, to: &str| {
            manifest(|text| {
                assert!(text.contains(from), "{from}");
                text.replacen(from, to, 1)
            })
            .unwrap_err()
            .to_string()
        };
        assert_eq!(
            refuse(r#"Version":2"#, r#"Version":1"#),
            "the image is Docker schema 1, which is not read"
        );
        refuse(r#"Version":2"#, r#"Version":3"#);
        refuse(r#""schemaVersion":2,"#, "");
        refuse(r#""layers""#, r#""manifests":[],"layers""#);
        refuse(r#""layers""#, r#""layers":[],"layers""#);
        refuse(MANIFEST, INDEX);
        refuse(CONFIG, "application/vnd.unknown.config.v1+json");
        assert_eq!(
            refuse(".layer.v1.tar", ".layer.nondistributable.v1.tar"),
            "a layer is foreign: `application/vnd.oci.image.layer.nondistributable.v1.tar+gzip`"
        );
        refuse("+gzip", "+xz");
        refuse("+gzip", "+gzip\\u0000");
        refuse("sha256:", "sha512:");
        refuse("sha256:", "");
        refuse("sha256:", "sha256:../../");
        refuse(HEX, &HEX.to_uppercase());
        refuse(r#""size":2"#, r#""size":-2"#);
        refuse(r#""size":2"#, r#""size":2e3"#);
        refuse(r#""size":2"#, r#""size":99999999"#);
        refuse(r#""size":3"#, r#""size":9223372036854775807"#);
        refuse(r#""size":3"#, r#""size":99999999999999999999"#);
        assert!(parse(b"", None).is_err());
        assert!(parse(&b"[".repeat(100_000), None).is_err());
        assert!(parse(&vec![b' '; 5 << 20], None).is_err());
    }

    #[test]
    fn a_descriptor_and_its_document_must_agree() {
        let Document::Manifest(read) = manifest(|text| text).unwrap() else { panic!() };
        assert!(parse(&read.encode(), Some(DOCKER_MANIFEST)).is_err());
        assert!(parse(&Index::new(vec![]).encode(), Some(MANIFEST)).is_err());
        assert!(parse(br#"{"schemaVersion":2,"manifests":[]}"#, Some(MANIFEST)).is_err());
    }

    proptest! {
        #[test]
        fn no_document_panics(bytes in prop::collection::vec(any::<u8>(), 0..64), text in "[\\[\\]{}:,\"a-z0-9]{0,64}") {
            let _ = parse(&bytes, None);
            let _ = parse(text.as_bytes(), Some(MANIFEST));
        }
    }
}
