//! `vcbuild.lock`: what a moving name meant when it was first used. A run adds pins and never moves
//! one. Knows no git and no registry.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_spanned::Spanned;

use crate::error::{Error, Mistake, Result, Source};
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
struct File<T> {
    version: u32,
    #[serde(default = "Vec::new", skip_serializing_if = "Vec::is_empty")]
    git: Vec<GitPin<T>>,
    #[serde(default = "Vec::new", skip_serializing_if = "Vec::is_empty")]
    image: Vec<ImagePin<T>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GitPin<T> {
    url: T,
    rev: T,
    commit: T,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ImagePin<T> {
    reference: T,
    platform: T,
    digest: T,
}

/// The file's name, beside `vcbuild.toml`.
pub const NAME: &str = "vcbuild.lock";
const VERSION: u32 = 1;

impl Pins {
    /// The text of the lock of the project in `root`; empty if there is no file.
    pub fn text(root: &Path) -> Result<String> {
        let bytes = fs::read(&root.join(NAME), 16 << 20)?.unwrap_or_default();
        String::from_utf8(bytes).map_err(|_| Error::failed(format!("`{NAME}` is not UTF-8")))
    }

    /// Reads the pins in the text of a lock.
    pub fn parse(text: &str) -> Result<Self, Mistake> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let source = Arc::new(Source { name: NAME.into(), text: text.into() });
        let hint =
            "`git checkout vcbuild.lock` brings it back; without the file, a run pins everything anew";
        let wrong = |why: String, span: Range<usize>| Mistake::new(why).at(&source, span).hint(hint);
        let unread =
            |error: toml::de::Error| wrong(error.message().to_string(), error.span().unwrap_or_default());
        #[derive(Deserialize)]
        struct Version {
            version: Spanned<u32>,
        }
        let Version { version } = toml::from_str(text).map_err(unread)?;
        if *version.get_ref() != VERSION {
            let message = format!("`{NAME}` has version {}, which is not known", version.get_ref());
            let newer = "it was written by a newer vcbuild: use that one";
            return Err(Mistake::new(message).at(&source, version.span()).hint(newer));
        }
        let file: File<Spanned<String>> = toml::from_str(text).map_err(unread)?;
        let mut pins = Self::default();
        for GitPin { url, rev, commit } in file.git {
            let span = commit.span();
            let commit = commit.into_inner();
            if commit.len() != 40 || !commit.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(wrong(format!("`{commit}` is not a commit"), span));
            }
            pins.set(Pin::Git { url: url.into_inner(), rev: rev.into_inner() }, commit);
        }
        for ImagePin { reference, platform, digest } in file.image {
            let span = digest.span();
            let digest = digest.into_inner();
            if !matches!(digest.parse(), Ok(crate::digest::Digest::Sha256(_))) {
                return Err(wrong(format!("`{digest}` is not a digest"), span));
            }
            let pin = Pin::Image { reference: reference.into_inner(), platform: platform.into_inner() };
            pins.set(pin, digest);
        }
        Ok(pins)
    }

    /// Everything that is pinned.
    pub fn all(&self) -> impl Iterator<Item = &Pin> {
        self.all.keys()
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
        assert_eq!(Pins::parse(&Pins::text(folder.path()).unwrap()).unwrap(), pins);
    }

    #[test]
    fn an_unknown_version_is_refused() {
        let mistake = Pins::parse("version = 2\nnew = 1\n").unwrap_err();
        assert_eq!(mistake.message, "`vcbuild.lock` has version 2, which is not known");
        assert_eq!(mistake.place.unwrap().1, 10..11);
    }
}
