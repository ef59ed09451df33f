//! `image`: a base, files and settings give an OCI image, as a layout in a tree. Layers stay recipes:
//! no tar is written until somebody reads it, and a base's layers are fetched only then too. Knows no entry of
//! `files` (`image_files`), no layer (`image_layers`) and no rule of a config (`image_config`).

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::base::{self, Base};
use super::image_certificates::CaCertificates;
use super::image_config::{Fields, HealthcheckTable, NumberOrText};
use super::image_files::{FileEntry, Piece};
use super::image_users::{User, UserEntry};
use super::lints::{self, Command};
use super::names::{Declare, Names, Outputs, Placed};
use super::placement::plain;
use super::{image_layers, layout, sbom};
use crate::digest::{Blob, Digest};
use crate::error::{Error, Result};
use crate::oci::descriptor::Platform;
use crate::oci::image::{Image as OciImage, Layer};
use crate::oci::layout::Named;
use crate::oci::reference::Reference as ImageReference;
use crate::oci::settings::Settings;
use crate::pins::Pin;
use crate::recipe::Part;
use crate::work::{Action, Class, Context, Inputs, Session, Task, TaskName, Tell, Work};

/// `[image.NAME]`: a base, files and settings give an OCI image
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// An image of a registry (`docker.io/library/debian:bookworm-slim`), `oci:FOLDER` (an OCI layout),
    /// `archive:FILE`, `docker-daemon:NAME`, `containerd:NAME@HOST`, `image.NAME` or `scratch`
    base: base::Declared,
    /// What it is made for, as `linux/arm64`; several make an index. This machine's if it is absent
    #[serde(default)]
    platforms: Vec<Placed<String>>,
    /// What to put on it
    #[serde(default)]
    files: Vec<FileEntry>,
    /// What the base has and the image does not, as absolute paths
    #[serde(default)]
    remove: Vec<Placed<String>>,
    /// Users that the image gets, with their groups and home folders
    #[serde(default)]
    users: Vec<UserEntry>,
    /// Certificates of authorities: `true` for those of this machine, or a file
    #[serde(default)]
    ca_certificates: CaCertificates,
    /// The largest layer that is made of `files`; a larger one is divided: `64M`
    layer_size: Option<Placed<String>>,
    /// The program that runs, with its first arguments
    entrypoint: Option<Vec<String>>,
    /// The arguments that follow, unless others are given
    cmd: Option<Vec<String>>,
    /// Variables, added to those of the base
    #[serde(default)]
    env: BTreeMap<String, Placed<String>>,
    /// Labels, added to those of the base
    #[serde(default)]
    labels: BTreeMap<String, Placed<String>>,
    /// What the manifest says of the image
    #[serde(default)]
    annotations: BTreeMap<String, Placed<String>>,
    /// The user, as a number or a name, and perhaps a group after `:`
    user: Option<Placed<String>>,
    /// The folder in which the program starts
    workdir: Option<Placed<String>>,
    /// Ports on which it listens, added to those of the base: `8080`, `53/udp`
    #[serde(default)]
    ports: Vec<Placed<NumberOrText>>,
    /// Folders that are volumes, added to those of the base
    #[serde(default)]
    volumes: Vec<Placed<String>>,
    /// What ends it: `SIGTERM`
    stop_signal: Option<Placed<NumberOrText>>,
    /// How to see whether it is well
    healthcheck: Option<HealthcheckTable>,
    /// What runs commands that are one text
    shell: Option<Vec<String>>,
    /// Who made it
    author: Option<String>,
    /// When it was made: seconds since 1970, or a time in UTC; 1970 if it is absent
    created: Option<Placed<NumberOrText>>,
    /// Whole names of the image, as `docker.io/library/x:latest`
    #[serde(default)]
    tags: Vec<Placed<String>>,
    /// Whether a list of what it is made of goes with it, as SPDX
    #[serde(default)]
    sbom: bool,
}

impl Image {
    fn fields(&self) -> Fields<'_> {
        Fields {
            entrypoint: self.entrypoint.as_ref(),
            cmd: self.cmd.as_ref(),
            env: &self.env,
            labels: &self.labels,
            annotations: &self.annotations,
            user: self.user.as_ref(),
            workdir: self.workdir.as_ref(),
            ports: &self.ports,
            volumes: &self.volumes,
            stop_signal: self.stop_signal.as_ref(),
            healthcheck: self.healthcheck.as_ref(),
            shell: self.shell.as_ref(),
            author: self.author.as_ref(),
            created: self.created.as_ref(),
        }
    }
}

impl Declare for Image {
    fn resolve(&mut self, names: &mut dyn Names) {
        base::check(&mut self.base, names);
        let mut platforms: Vec<Platform> = Vec::new();
        for text in &self.platforms {
            match text.parse::<Platform>() {
                Ok(platform) if platforms.iter().any(|known| known.matches(&platform)) => {
                    names.mistake(text.range(), format!("the platform `{platform}` is there twice"), None);
                }
                Ok(platform) => platforms.push(platform),
                Err(why) => {
                    let hint = "`linux/amd64`, `linux/arm64`, `linux/arm/v7`";
                    names.mistake(text.range(), why, Some(hint.into()));
                }
            }
        }
        for file in &mut self.files {
            file.resolve(names);
            if let Some(text) = &file.platform
                && !text
                    .parse()
                    .is_ok_and(|platform| platforms.iter().any(|known| known.matches(&platform)))
            {
                let message = format!("the image is not made for `{}`", text.value);
                names.mistake(text.range(), message, Some("`platforms` lists what it is made for".into()));
            }
        }
        for path in &self.remove {
            let rest = path.strip_prefix('/').unwrap_or_default();
            if plain(rest.as_bytes()).is_empty() || rest.split('/').any(|name| name == "..") {
                let message = format!("`{}` cannot be removed", path.value);
                names.mistake(path.range(), message, Some("an absolute path, without `..`".into()));
            } else if self.base.text.value == "scratch" {
                let message = format!("`{}` cannot be removed: `scratch` has nothing", path.value);
                names.mistake(path.range(), message, None);
            }
        }
        self.users.iter().for_each(|user| user.check(names));
        self.ca_certificates.resolve(names);
        if let Some(text) = &self.layer_size
            && size(text).is_none()
        {
            let hint = "a number and a unit, at least `1M`: `64M`, `1G`";
            names.mistake(text.range(), format!("`{}` is not a size", text.value), Some(hint.into()));
        }
        self.fields().check(names);
        for tag in &self.tags {
            match tag.parse::<ImageReference>() {
                Ok(reference) if reference.digest.is_none() => {
                    names.claim(format!("the tag `{reference}`"), tag.range());
                }
                Ok(_) => names.mistake(
                    tag.range(),
                    format!("`{}` has a digest: a tag is wanted", tag.value),
                    None,
                ),
                Err(why) => names.mistake(tag.range(), why, None),
            }
        }
    }

    fn outputs(&self) -> Outputs {
        Outputs::Image
    }

    fn pins(&self) -> Vec<Pin> {
        let base = Base::of(&self.base);
        self.platforms().iter().filter_map(|platform| base.pin(platform)).collect()
    }

    fn image_now(&self, pin: &Pin, session: &Session<'_>, tell: &dyn Tell) -> Result<String> {
        let Pin::Image { platform, .. } = pin else { panic!("BUG: a base is pinned as an image") };
        self.base.now(&platform.parse().map_err(Error::failed)?, session, tell)
    }
}

/// Bytes: a number, and `k`, `M` or `G` for the binary units; at least 1 MiB.
fn size(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text[..digits].parse().ok()?;
    let unit = match text[digits..].trim_end_matches("iB").trim_end_matches('B') {
        "" => 1,
        "k" | "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(unit).filter(|size| *size >= 1 << 20)
}

impl Task for Image {
    fn class(&self) -> Class {
        Class::Action
    }

    fn needs(&self) -> Vec<TaskName> {
        let files = self.files.iter().flat_map(FileEntry::needs);
        let mut all: Vec<TaskName> = self.base.tasks().iter().chain(files).cloned().collect();
        all.extend(self.ca_certificates.needs().iter().cloned());
        all.sort();
        all.dedup();
        all
    }

    /// The base, then each layer's files.
    fn origins(&self) -> Vec<String> {
        let mut layers: Vec<(Option<&str>, Vec<String>)> = Vec::new();
        for file in &self.files {
            match layers.iter_mut().find(|(name, _)| name.is_some() && *name == file.layer.as_deref()) {
                Some((_, all)) => all.push(file.origin()),
                None => layers.push((file.layer.as_deref(), vec![file.origin()])),
            }
        }
        let shown = layers.into_iter().map(|(name, from)| match name {
            Some(name) => format!("{} as `{name}`", from.join(", ")),
            None => from.join(", "),
        });
        std::iter::once(self.base.text.value.clone()).chain(shown).collect()
    }

    fn work(&self, inputs: &Inputs<'_>) -> Result<Work> {
        let mut remove: Vec<String> =
            self.remove.iter().map(|path| text(&plain(path.as_bytes()))).collect();
        remove.sort();
        remove.dedup();
        let what = What {
            remove,
            users: self.users.iter().map(UserEntry::user).collect(),
            ca_certificates: self.ca_certificates.blob(inputs)?,
            layer_size: self.layer_size.as_ref().and_then(|text| size(text)),
            settings: self.fields().settings(),
            tags: self.tags.iter().map(|tag| tag.value.clone()).collect(),
            sbom: self.sbom.then_some(SBOM),
        };
        let (mut ways, mut bases) = (Vec::new(), Vec::new());
        for platform in self.platforms() {
            let (base, how) = Base::of(&self.base).parts(&platform, inputs)?;
            ways.push(Way { base, layers: self.layers(&platform, inputs)?, platform });
            bases.push(how);
        }
        Ok(Work::Action(Box::new(ImageAction { what, ways, bases, is_here: self.platforms.is_empty() })))
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Image {
    /// What it is made for.
    fn platforms(&self) -> Vec<Platform> {
        match self.platforms.iter().filter_map(|text| text.parse().ok()).collect::<Vec<_>>() {
            none if none.is_empty() => vec![layout::platform()],
            some => some,
        }
    }

    /// What goes into each layer, in the order in which layers are first mentioned.
    fn layers(&self, platform: &Platform, inputs: &Inputs<'_>) -> Result<Vec<Vec<Piece>>> {
        let mut layers: Vec<(Option<&str>, Vec<Piece>)> = Vec::new();
        for file in self.files.iter().filter(|file| file.is_for(platform)) {
            let same =
                |(name, _): &(Option<&str>, Vec<Piece>)| name.is_some() && *name == file.layer.as_deref();
            let at = layers.iter().position(same).unwrap_or_else(|| {
                layers.push((file.layer.as_deref(), Vec::new()));
                layers.len() - 1
            });
            layers[at].1.push(file.piece(inputs)?);
        }
        Ok(layers.into_iter().map(|(_, pieces)| pieces).collect())
    }
}

/// What an image is made of, but for its base and files.
#[derive(Serialize)]
pub struct What {
    /// What the base has and the image does not, sorted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
    /// Users that are added.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<User>,
    /// A file of certificates.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "digest_of")]
    pub ca_certificates: Option<Blob>,
    /// The largest layer, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer_size: Option<u64>,
    #[serde(flatten)]
    settings: Settings,
    tags: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sbom: Option<u32>,
}

/// Raised when the list of what an image is made of becomes another.
const SBOM: u32 = 1;

fn as_text<S: serde::Serializer>(platform: &Platform, serializer: S) -> Result<S::Ok, S::Error> {
    platform.to_string().serialize(serializer)
}

fn digest_of<S: serde::Serializer>(blob: &Option<Blob>, serializer: S) -> Result<S::Ok, S::Error> {
    blob.map(|blob| blob.digest).serialize(serializer)
}

/// A base, and what goes on it.
#[derive(Serialize)]
pub struct Way {
    #[serde(serialize_with = "as_text")]
    platform: Platform,
    base: Option<base::What>,
    /// What goes into each layer.
    pub layers: Vec<Vec<Piece>>,
}

struct ImageAction {
    what: What,
    /// One for each platform.
    ways: Vec<Way>,
    /// Their bases.
    bases: Vec<base::How>,
    /// Whether the platform is just the one of this machine, which is in every key.
    is_here: bool,
}

impl Action for ImageAction {
    fn kind(&self) -> &'static str {
        "image"
    }

    fn revision(&self) -> u32 {
        2
    }

    fn what(&self) -> Value {
        let mut what = json!(self.what);
        match (self.ways.as_slice(), what.as_object_mut()) {
            // One platform alone is read more easily than a list of one.
            ([way], Some(fields)) => {
                let Value::Object(mut way) = json!(way) else { panic!("BUG: a way is not a table") };
                if self.is_here {
                    way.remove("platform");
                }
                fields.extend(way);
            }
            (ways, _) => what["images"] = json!(ways),
        }
        what
    }

    fn run(&self, context: &Context<'_>) -> Result<Digest> {
        let tags = self.what.tags.iter().map(|tag| tag.parse().map_err(Error::failed));
        let tags = tags.collect::<Result<BTreeSet<ImageReference>>>()?.into_iter().collect::<Vec<_>>();
        let (mut images, mut attached) = (Vec::new(), Vec::new());
        for (way, how) in self.ways.iter().zip(&self.bases) {
            let what = way.base.as_ref();
            base::fetch_lost(what, how, context)?;
            let base = what.map(|what| base::read(what, how, context)).transpose()?;
            let layers = image_layers::layers(&self.what, way, base.as_ref(), (what, how), context)?;
            let image = OciImage::build(base.as_ref(), &way.platform, &layers, &self.what.settings)?;
            self.lint(&image, layers.len(), (what, how), context)?;
            if self.what.sbom.is_some() {
                let name = tags.first().map_or_else(|| "image".to_string(), ImageReference::to_string);
                attached.push(with_base((what, how), context, || sbom::of(context.cache, &image, &name))?);
            }
            images.push(image);
        }
        let mut images = images.into_iter();
        let Some(image) = images.next() else { panic!("BUG: an image for no platform") };
        let named = Named { image, others: images.collect(), tags };
        let files = crate::oci::layout::files_with(&[named], &attached)?;
        layout::store(&context.cache.cas, files)
    }
}

impl ImageAction {
    /// Warns of what looks wrong in the new layers. Layers of the base are fetched if an answer may lie
    /// there, and only then.
    fn lint(
        &self,
        image: &OciImage,
        added: usize,
        base: base::Parts<'_>,
        context: &Context<'_>,
    ) -> Result<()> {
        let is_new = |layer: &&Layer| matches!(layer.part, Part::Recipe { .. });
        let new = image.layers().iter().rev().take(added).take_while(is_new).count();
        let own = &image.layers()[image.layers().len() - new..];
        let command = match self.what.settings.entrypoint.is_some() || self.what.settings.cmd.is_some() {
            true => Command::Own,
            false => Command::Inherited,
        };
        let lines = match with_base(base, context, || lints::check(context.cache, image, own, command)) {
            // The image is as good as it was before somebody asked.
            Err(Error::Failed(failure)) => {
                vec![format!("what may be wrong in it was not looked for: {}", failure.message)]
            }
            lines => lines?,
        };
        context.warnings.borrow_mut().extend(lines);
        Ok(())
    }
}

/// Does something that may need layers of the base, which are fetched then.
fn with_base<T>(
    (what, how): base::Parts<'_>,
    context: &Context<'_>,
    mut done: impl FnMut() -> Result<T>,
) -> Result<T> {
    let mut fetched = Vec::new();
    loop {
        match done() {
            Err(Error::Lost(digest)) if !fetched.contains(&digest) => {
                let lost = [digest];
                base::fetch_lost(what, how, &context.missing(&lost))?;
                fetched.push(digest);
            }
            done => return done,
        }
    }
}
