//! `vcbuild.lock`: what a moving name meant when it was first used. A run adds pins and never moves
//! one. Knows no git and no registry.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Failure, Result};
use crate::host::fs::{self, Durability};

/// Something that moves.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pin {
    /// A branch or tag of a repository; pinned to a commit.
    Git {
        /// As written in `vcbuild.toml`.
        url: String,
        /// As written in `vcbuild.toml`.
        rev: String,
    },
    /// An image reference; pinned to a manifest's digest.
    Image {
        /// As written in `vcbuild.toml`.
        reference: String,
        /// For example `linux/amd64`.
        platform: String,
    },
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Git { url, rev } => write!(f, "`{rev}` of `{url}`"),
            Self::Image { reference, platform } => write!(f, "`{reference}` for {platform}"),
        }
    }
}

/// All pins of a project.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pins {
    all: BTreeMap<Pin, String>,
    /// Whether adding a pin is refused.
    pub locked: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    git: Vec<GitPin>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    image: Vec<ImagePin>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GitPin {
    url: String,
    rev: String,
    commit: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ImagePin {
    reference: String,
    platform: String,
    digest: String,
}

/// The file's name, beside `vcbuild.toml`.
pub const NAME: &str = "vcbuild.lock";
const VERSION: u32 = 1;

impl Pins {
    /// Reads the pins of the project in `root`; none if there is no file.
    pub fn read(root: &Path) -> Result<Self> {
        let path = root.join(NAME);
        let Some(bytes) = fs::read(&path, 16 << 20)? else { return Ok(Self::default()) };
        let text = String::from_utf8(bytes);
        Self::parse(text.map_err(|_| Error::failed(format!("read `{NAME}`: it is not UTF-8")))?)
    }

    /// Reads the text of the file.
    pub fn parse(text: String) -> Result<Self> {
        let wrong = |why: String| Error::failed(format!("read `{NAME}`: {why}"));
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let version: Version = toml::from_str(&text).map_err(|error| wrong(error.message().to_string()))?;
        if version.version != VERSION {
            let failure =
                Failure::new(format!("`{NAME}` has version {}, which is not known", version.version));
            return Err(failure.hint("it was written by a newer vcbuild: use that one").into());
        }
        let file: File = toml::from_str(&text).map_err(|error| {
            let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
            wrong(format!("line {line}: {}", error.message()))
        })?;
        let mut pins = Self::default();
        for pin in file.git {
            if pin.commit.len() != 40 || !pin.commit.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(wrong(format!("`{}` is not a commit", pin.commit)));
            }
            pins.set(Pin::Git { url: pin.url, rev: pin.rev }, pin.commit);
        }
        for pin in file.image {
            if !matches!(pin.digest.parse(), Ok(crate::digest::Digest::Sha256(_))) {
                return Err(wrong(format!("`{}` is not a digest", pin.digest)));
            }
            pins.set(Pin::Image { reference: pin.reference, platform: pin.platform }, pin.digest);
        }
        Ok(pins)
    }

    /// What something is pinned to.
    pub fn pinned(&self, pin: &Pin) -> Option<&str> {
        self.all.get(pin).map(String::as_str)
    }

    /// Pins something, moving an old pin. Returns whether anything changed.
    pub fn set(&mut self, pin: Pin, to: String) -> bool {
        self.all.insert(pin, to.clone()) != Some(to)
    }

    /// Writes the file, whole and synced, sorted.
    pub fn write(&self, root: &Path) -> Result<()> {
        let mut file = File { version: VERSION, git: Vec::new(), image: Vec::new() };
        for (pin, to) in &self.all {
            match pin.clone() {
                Pin::Git { url, rev } => file.git.push(GitPin { url, rev, commit: to.clone() }),
                Pin::Image { reference, platform } => {
                    file.image.push(ImagePin { reference, platform, digest: to.clone() });
                }
            }
        }
        let text = match toml::to_string(&file) {
            Ok(text) => text,
            Err(error) => panic!("BUG: pins cannot be written as TOML: {error}"),
        };
        let text = format!("# Written by vcbuild; moved only by `vcbuild update`.\n{text}");
        fs::write(&root.join(NAME), text.as_bytes(), 0o644, Durability::Synced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_pins_are_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut pins = Pins::default();
        let git = Pin::Git { url: "a \"b\"".into(), rev: "main".into() };
        assert!(pins.set(git.clone(), "0".repeat(40)));
        assert!(!pins.set(git.clone(), "0".repeat(40)));
        let image = Pin::Image { reference: "x:1".into(), platform: "linux/amd64".into() };
        pins.set(image, crate::digest::Digest::sha256_of(b"").to_string());
        pins.write(folder.path()).unwrap();
        assert_eq!(Pins::read(folder.path()).unwrap(), pins);
    }

    #[test]
    fn an_unknown_version_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(&folder.path().join(NAME), b"version = 2\nnew = 1\n", 0o644, Durability::Cache).unwrap();
        let error = Pins::read(folder.path()).unwrap_err();
        assert_eq!(error.to_string(), "`vcbuild.lock` has version 2, which is not known");
    }
}
