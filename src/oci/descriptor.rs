//! What documents say of other content: media type, digest and size; on what an image runs; how a layer
//! is packed (image-spec "Content Descriptors"). Knows no document.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{Error, Failure, Result};
use crate::oci::document::null_is_empty;
use crate::oci::quoted;

/// An uncompressed layer.
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";

/// Other content, by media type, digest and size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the content is.
    pub media_type: String,
    /// Always SHA-256 once it is checked.
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    /// In an index: what the image runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Free text.
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// Names bytes.
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self {
            media_type: media_type.to_string(),
            digest: Digest::sha256_of(bytes),
            size: bytes.len() as u64,
            platform: None,
            annotations: BTreeMap::new(),
        }
    }

    /// Fails unless these are the bytes that the descriptor names.
    pub fn verify(&self, what: &str, bytes: &[u8]) -> Result<()> {
        if bytes.len() as u64 != self.size {
            let (said, is) = (self.size, bytes.len());
            return Err(Error::failed(format!("{what} `{}` has {is} bytes, not {said}", self.digest)));
        }
        let is = Digest::sha256_of(bytes);
        if is != self.digest {
            return Err(Error::failed(format!("{what} `{}` has other content: `{is}`", self.digest)));
        }
        Ok(())
    }

    /// Fails unless the digest is SHA-256 and the size at most `most` bytes.
    pub(super) fn check(&self, what: &str, most: u64) -> Result<()> {
        if !matches!(self.digest, Digest::Sha256(_)) {
            return Err(Error::failed(format!("{what}: `{}` is no sha256 digest", self.digest)));
        }
        if self.size > most {
            return Err(Error::failed(format!(
                "{what} `{}` says that it has {} bytes; at most {most} are read",
                self.digest, self.size
            )));
        }
        Ok(())
    }
}

/// What an image runs on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// `amd64`, `arm64`, …, as Go says it.
    pub architecture: String,
    /// `linux`, …, as Go says it.
    pub os: String,
    /// `v7`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// Linux on an architecture.
    pub fn linux(architecture: &str) -> Self {
        Self { architecture: architecture.to_string(), os: "linux".to_string(), variant: None }
    }

    /// Whether these are one, variants that go without saying added.
    pub fn matches(&self, other: &Self) -> bool {
        self.os == other.os && self.architecture == other.architecture && self.level() == other.level()
    }

    fn level(&self) -> &str {
        match (self.variant.as_deref().unwrap_or_default(), self.architecture.as_str()) {
            ("", "arm64") => "v8",
            ("", "arm") => "v7",
            ("", "amd64") => "v1",
            (variant, _) => variant,
        }
    }
}

impl std::str::FromStr for Platform {
    type Err = String;

    /// Reads `linux/arm64` or `linux/arm/v7`.
    fn from_str(text: &str) -> Result<Self, String> {
        let is_word = |word: &&str| {
            !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
        };
        let words: Vec<&str> = text.split('/').filter(is_word).collect();
        match (words.as_slice(), text.matches('/').count()) {
            (["linux", architecture], 1) => Ok(Self::linux(architecture)),
            (["linux", architecture, variant], 2) => {
                Ok(Self { variant: Some((*variant).to_string()), ..Self::linux(architecture) })
            }
            _ => Err(format!("{} is not a platform", quoted(text))),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

/// How a layer's blob is packed, by its media type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// A tar; its digest is its diffID.
    Plain,
    /// A tar in gzip.
    Gzip,
    /// A tar in zstd.
    Zstd,
}

impl Packing {
    /// Reads a layer's media type, OCI's or Docker's; fails on layers that are not carried here.
    pub fn of(media_type: &str) -> Result<Self> {
        let rest = media_type.strip_prefix(LAYER).map(|rest| rest.replace('+', "."));
        let rest = rest.or_else(|| media_type.strip_prefix(DOCKER_LAYER).map(str::to_string));
        match rest.as_deref() {
            Some("") => Ok(Self::Plain),
            Some(".gzip") => Ok(Self::Gzip),
            Some(".zstd") => Ok(Self::Zstd),
            _ if media_type.contains("foreign") || media_type.contains("nondistributable") => Err(
                Error::Failed(Failure::new(format!("a layer is foreign: {}", quoted(media_type))).hint(
                    "foreign layers (Windows bases) are fetched from elsewhere; choose another base",
                )),
            ),
            _ => Err(Error::failed(format!("a layer is no tar: {}", quoted(media_type)))),
        }
    }

    /// OCI's media type.
    pub fn media_type(self) -> String {
        match self {
            Self::Plain => LAYER.to_string(),
            Self::Gzip => format!("{LAYER}+gzip"),
            Self::Zstd => format!("{LAYER}+zstd"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_know_their_default_variants() {
        let with = |architecture, variant: &str| Platform {
            variant: Some(variant.to_string()),
            ..Platform::linux(architecture)
        };
        assert!(Platform::linux("arm64").matches(&with("arm64", "v8")));
        assert!(Platform::linux("arm").matches(&with("arm", "v7")));
        assert!(!Platform::linux("arm").matches(&with("arm", "v6")));
        assert!(!Platform::linux("amd64").matches(&with("amd64", "v3")));
        assert!(Platform::linux("amd64").matches(&with("amd64", "")));
        assert_eq!(with("arm", "v7").to_string(), "linux/arm/v7");
        assert_eq!("linux/arm/v7".parse(), Ok(with("arm", "v7")));
        for wrong in
            ["", "linux", "windows/amd64", "linux/", "linux/arm/", "linux//v7", "linux/ARM", "/linux/arm"]
        {
            assert!(wrong.parse::<Platform>().is_err(), "{wrong}");
        }
    }
}
