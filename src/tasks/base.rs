//! The `base` of an image: what it starts from, how it is pinned, and where its bytes come from when they are
//! missed. Knows nothing of what is put on it.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize};

use super::names::{Names, Placed, Reference, Want};
use super::origin::{Origin, Reaching};
use super::{contents, layout};
use crate::digest::{Blob, Digest};
use crate::error::{Error, Result};
use crate::host::node::{At, Spec};
use crate::host::registry::Settings;
use crate::oci::descriptor::Descriptor;
use crate::oci::descriptor::Platform;
use crate::oci::image::Image;
use crate::oci::reference::Reference as ImageReference;
use crate::oci::stack::Stack;
use crate::pins::Pin;
use crate::recipe::Part;
use crate::work::{Context, Inputs, Session, TaskName};

/// A base as it is declared, with what is said of registries.
#[derive(Clone, Debug)]
pub struct Declared {
    reference: Reference,
    registries: Settings,
    /// The host whose images it is among.
    host: Option<Spec>,
}

impl Deref for Declared {
    type Target = Reference;

    fn deref(&self) -> &Reference {
        &self.reference
    }
}

impl<'de> Deserialize<'de> for Declared {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let reference = Reference::deserialize(deserializer)?;
        Ok(Self { reference, registries: Settings::default(), host: None })
    }
}

impl JsonSchema for Declared {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Base".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        String::json_schema(generator)
    }
}

/// What an image starts from.
pub enum Base<'a> {
    /// Nothing.
    Scratch,
    /// Another image made here.
    Task(&'a TaskName),
    /// An image from outside.
    Outside(&'a Declared),
}

/// A base as a part of *what*.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// Another image made here, as a tree.
    Tree(Digest),
    /// A manifest from outside.
    Manifest(Digest),
}

/// Where the bytes of a base from outside come from; not in the key.
pub struct How {
    origin: Option<Origin>,
    platform: Platform,
}

/// Both parts of a base.
pub type Parts<'a> = (Option<&'a What>, &'a How);

/// The ways to name a base, for people.
const WAYS: &str = "`scratch`, `image.NAME`, `oci:FOLDER`, `archive:FILE`, `docker-daemon:NAME`, \
    `containerd:NAME@HOST`, `containerd:NAME` or a registry's `docker.io/library/debian:bookworm-slim`";

impl<'a> Base<'a> {
    /// The base that was declared, and checked by [`check`].
    pub fn of(declared: &'a Declared) -> Self {
        match declared.task() {
            Some(task) => Self::Task(task),
            None if declared.text.value == "scratch" => Self::Scratch,
            None => Self::Outside(declared),
        }
    }

    /// What the lock holds of it for a platform.
    pub fn pin(&self, platform: &Platform) -> Option<Pin> {
        match self {
            Self::Outside(declared) => {
                Some(Pin::Image { reference: declared.text.value.clone(), platform: platform.to_string() })
            }
            Self::Scratch | Self::Task(_) => None,
        }
    }

    /// Both parts of it for a platform.
    ///
    /// Errors: what is not pinned yet cannot be found.
    pub fn parts(&self, platform: &Platform, inputs: &Inputs<'_>) -> Result<(Option<What>, How)> {
        let mut how = How { origin: None, platform: platform.clone() };
        let what = match self {
            Self::Scratch => None,
            Self::Task(task) => Some(What::Tree(inputs.value(task))),
            Self::Outside(declared) => {
                let origin = declared.origin(inputs.session)?;
                let pin = self.pin(platform).expect("BUG: what is outside is pinned");
                let reaching = Reaching::of_session(inputs.session, inputs.tell, platform);
                let digest = inputs.pin(&pin, || Ok(origin.resolve(&reaching)?.to_string()))?;
                how.origin = Some(origin);
                let wrong = |why| Error::failed(format!("`vcbuild.lock`: {why}"));
                Some(What::Manifest(digest.parse().map_err(wrong)?))
            }
        };
        Ok((what, how))
    }
}

impl Declared {
    fn origin(&self, session: &Session<'_>) -> Result<Origin> {
        let path = |path: &str| -> PathBuf { session.local.root().join(path) };
        let text = self.text.value.as_str();
        Ok(match text.split_once(':') {
            Some(("oci", folder)) => Origin::Layout(path(folder)),
            Some(("archive", file)) => Origin::Archive(path(file)),
            Some(("docker-daemon", name)) => Origin::Daemon(name.to_string()),
            Some(("containerd", name)) => match (&self.host, on_host(name)) {
                (Some(host), Some((name, _))) => {
                    Origin::Host(name.parse().map_err(Error::failed)?, host.clone())
                }
                _ => Origin::Containerd(name.to_string()),
            },
            _ => {
                let name: ImageReference = text.parse().map_err(Error::failed)?;
                Origin::Registry(name, self.registries.clone())
            }
        })
    }

    /// What it is now for a platform, for `vcbuild update`.
    pub fn now(
        &self,
        platform: &Platform,
        session: &Session<'_>,
        tell: &dyn crate::work::Tell,
    ) -> Result<String> {
        let reaching = Reaching::of_session(session, tell, platform);
        Ok(self.origin(session)?.resolve(&reaching)?.to_string())
    }
}

/// Notes what is wrong with a declared base, and finds its task.
pub fn check(declared: &mut Declared, names: &mut dyn Names) {
    declared.registries = names.registries();
    let text = declared.text.clone();
    if text.starts_with("image.") {
        names.tasks(&mut declared.reference, &["image"], Want::One);
        return;
    }
    let (way, rest) = text.split_once(':').unwrap_or((&text, ""));
    let wrong = match (way, rest) {
        ("scratch", "") => None,
        ("oci", "") => Some(("`oci:` needs the folder of a layout".to_string(), None)),
        ("archive", "") => Some(("`archive:` needs a file".to_string(), None)),
        ("oci" | "archive", _) => None,
        ("docker-daemon" | "containerd", name) => {
            let (name, host) = match on_host(name).filter(|_| way == "containerd") {
                Some((name, host)) => (name, Some(Placed { value: host.to_string(), span: text.span })),
                None => (name, None),
            };
            let mut hosts = host.map(|host| names.hosts(&[host])).unwrap_or_default();
            declared.host = hosts.pop();
            match (name.parse::<ImageReference>(), &declared.host) {
                (Err(why), _) => Some((why, None)),
                (Ok(_), Some(host)) if !hosts.is_empty() => {
                    let count = hosts.len() + 1;
                    let message = format!("`{}` is {count} hosts, and a base is read from one", text.value);
                    Some((message, Some(format!("`containerd:{name}@{}`", host.name))))
                }
                (Ok(_), Some(Spec { name: host, at: At::Docker(_) })) => {
                    let hint = format!("`docker-daemon:{name}` reads from the daemon of this machine");
                    Some((format!("`{host}` is a daemon, and no containerd"), Some(hint)))
                }
                (Ok(_), _) => None,
            }
        }
        _ => {
            // A single word is more likely a mistake than an image of Docker's own.
            let is_name = text.contains(['/', ':', '@']) && text.parse::<ImageReference>().is_ok();
            (!is_name).then(|| (format!("`{}` is not a base", text.value), Some(WAYS.to_string())))
        }
    };
    if let Some((message, hint)) = wrong {
        names.mistake(text.range(), message, hint);
    }
}

/// The name of an image and the host that has it; a digest in the name is none.
fn on_host(text: &str) -> Option<(&str, &str)> {
    text.rsplit_once('@').filter(|(_, host)| !host.contains(':'))
}

/// The image that a base is; its layers may be missing yet.
pub fn read(what: &What, how: &How, context: &Context<'_>) -> Result<Image> {
    match what {
        What::Tree(tree) => Ok(layout::read_for(&context.cache.cas, tree, &how.platform)?.image),
        What::Manifest(digest) => {
            let Some(origin) = &how.origin else { panic!("BUG: a base without its origin") };
            origin.image(digest, &Reaching::of_context(context, &how.platform))
        }
    }
}

/// The folders, links and files that a base has. Of its layers those are fetched that nobody has read.
pub fn stack(image: &Image, what: Option<&What>, how: &How, context: &Context<'_>) -> Result<Stack> {
    let cache = context.cache;
    let mut missing = Vec::new();
    for layer in image.layers() {
        match &layer.part {
            Part::Blob(blob) if !cache.cas.has(blob) && !contents::is_known(cache, layer)? => {
                missing.push(blob.digest);
            }
            _ => {}
        }
    }
    fetch(what, how, &missing, context)?;
    context.stop.check()?;
    contents::stack(cache, image)
}

/// Stores the layers of the base that somebody missed.
pub fn fetch_lost(what: Option<&What>, how: &How, context: &Context<'_>) -> Result<()> {
    fetch(what, how, context.lost, context)
}

/// Stores those of the layers of the base that are among these.
pub fn fetch(what: Option<&What>, how: &How, layers: &[Digest], context: &Context<'_>) -> Result<()> {
    let (Some(origin), Some(What::Manifest(digest))) = (&how.origin, what) else { return Ok(()) };
    let lost: Vec<Digest> =
        layers.iter().filter(|digest| matches!(digest, Digest::Sha256(_))).copied().collect();
    if lost.is_empty() {
        return Ok(());
    }
    let reaching = Reaching::of_context(context, &how.platform);
    let image = origin.image(digest, &reaching)?;
    // Files that come from other tasks may be named by SHA-256 too: those make them again.
    let mut layers: Vec<_> = image.layers().iter().map(|layer| layer.descriptor.clone()).collect();
    if !layers.iter().any(|layer| lost.contains(&layer.digest)) {
        return Ok(());
    }
    // Who needs one of them will need the others too: they come side by side.
    let (cas, mut known) = (&context.cache.cas, BTreeSet::new());
    let is_here = |layer: &Descriptor| cas.has(&Blob { digest: layer.digest, size: layer.size });
    layers.retain(|layer| (lost.contains(&layer.digest) || !is_here(layer)) && known.insert(layer.digest));
    origin.fetch(digest, &layers, &reaching)
}
