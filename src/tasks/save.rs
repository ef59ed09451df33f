//! `save`: images give an archive or a layout. It exists as a recipe; its bytes are made when somebody
//! reads them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::names::{Declare, Names, Outputs, Placed, Reference, Want};
use super::{layout, packed};
use crate::cache::draft::Draft;
use crate::digest::Digest;
use crate::error::Result;
use crate::oci::archive;
use crate::oci::layout::Named;
use crate::oci::pack::Packer;
use crate::work::{Action, Class, Context, Inputs, Task, TaskName, Work};

/// `[save.NAME]`: images give an archive
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Save {
    /// The images
    images: Placed<Vec<Reference>>,
    /// What to write
    #[serde(default)]
    format: Format,
    /// The name of the file, or of the folder of a layout
    #[serde(default = "default_name")]
    name: Placed<String>,
    /// How layers are packed that are plain: not at all, with `gzip` or with `zstd`; a base's are packed
    /// already, and stay as they are
    #[serde(default)]
    compression: Placed<Compression>,
    /// Whether the lists of what images with `sbom = true` are made of go with them, as OCI referrers
    #[serde(default)]
    sbom: Placed<bool>,
}

/// How layers are packed
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Compression {
    /// They stay plain
    #[default]
    None,
    /// Every reader takes it
    Gzip,
    /// Smaller and faster than gzip; readers of before 2021 do not take it
    Zstd,
}

/// What to write
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Format {
    /// One file that `docker load` reads
    #[default]
    DockerArchive,
    /// One file that holds an OCI layout
    OciArchive,
    /// A folder that is an OCI layout
    OciLayout,
}

fn default_name() -> Placed<String> {
    Placed { value: "images.tar".into(), span: (0, 0) }
}

impl Declare for Save {
    fn resolve(&mut self, names: &mut dyn Names) {
        for image in &mut self.images.value {
            names.tasks(image, &["image"], Want::Many);
        }
        if self.images.is_empty() {
            names.mistake(self.images.range(), format!("`{}` has no images", names.task()), None);
        }
        if !crate::cache::tree::is_name(self.name.as_bytes()) {
            let hint = Some("a name without a folder".to_string());
            names.mistake(self.name.range(), format!("`{}` cannot name a file", self.name.value), hint);
        }
        if self.format == Format::DockerArchive {
            let oci = "take `oci-archive` or `oci-layout`";
            if self.compression.value == Compression::Zstd {
                let message = "not every reader of a `docker-archive` takes zstd".to_string();
                names.mistake(self.compression.range(), message, Some(format!("`gzip`, or {oci}")));
            }
            if self.sbom.value {
                let message = "a `docker-archive` holds nothing but images".to_string();
                names.mistake(self.sbom.range(), message, Some(oci.to_string()));
            }
        }
    }

    fn outputs(&self) -> Outputs {
        Outputs::Named(vec![self.name.value.clone()])
    }
}

impl Task for Save {
    fn class(&self) -> Class {
        Class::Action
    }

    fn needs(&self) -> Vec<TaskName> {
        Reference::all_tasks(&*self.images)
    }

    fn work(&self, inputs: &Inputs<'_>) -> Result<Work> {
        let mut images = Vec::new();
        for task in self.images.iter().flat_map(Reference::tasks) {
            let value = inputs.value(task);
            if !images.contains(&value) {
                images.push(value);
            }
        }
        let packer = match self.compression.value {
            Compression::None => None,
            Compression::Gzip => Some(Packer::Gzip),
            Compression::Zstd => Some(Packer::Zstd),
        };
        let what = What {
            format: self.format,
            name: self.name.value.clone(),
            images,
            packer: packer.map(|packer| packer.name()),
            sbom: self.sbom.value,
        };
        Ok(Work::Action(Box::new(SaveAction { what, packer })))
    }
}

#[derive(Serialize)]
struct What {
    format: Format,
    name: String,
    images: Vec<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    packer: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    sbom: bool,
}

struct SaveAction {
    what: What,
    /// The one that `what` names.
    packer: Option<Packer>,
}

impl Action for SaveAction {
    fn kind(&self) -> &'static str {
        "save"
    }

    fn revision(&self) -> u32 {
        1
    }

    fn what(&self) -> serde_json::Value {
        serde_json::json!(self.what)
    }

    fn run(&self, context: &Context<'_>) -> Result<Digest> {
        let cas = &context.cache.cas;
        let (mut images, mut attached) = (Vec::new(), Vec::new());
        for tree in &self.what.images {
            let documents = match self.what.sbom {
                true => layout::attached(cas, tree)?,
                false => Vec::new(),
            };
            let Named { image, others, tags } = layout::read_all(cas, tree)?;
            let (mut packed, mut all) = (Vec::new(), documents);
            for image in std::iter::once(image).chain(others) {
                let was = image.descriptor().digest;
                let image = match self.packer {
                    None => image,
                    Some(packer) => packed::image(context.cache, &image, packer, context.stop)?,
                };
                // Packed layers make another manifest: that is what the documents are about here.
                for document in all.iter_mut().filter(|document| document.subject.digest == was) {
                    document.subject = image.descriptor();
                }
                packed.push(image);
            }
            attached.append(&mut all);
            let mut packed = packed.into_iter();
            let Some(image) = packed.next() else { panic!("BUG: an image for no platform") };
            images.push(Named { image, others: packed.collect(), tags });
        }
        let recipe = match self.what.format {
            Format::DockerArchive => archive::docker(&images)?,
            Format::OciArchive => archive::oci_with(&images, &attached)?,
            Format::OciLayout => {
                let mut draft = Draft::empty(cas);
                for (path, part) in crate::oci::layout::files_with(&images, &attached)? {
                    let path = format!("{}/{path}", self.what.name);
                    draft.insert(path.as_bytes(), layout::entry(cas, part)?)?;
                }
                return draft.store();
            }
        };
        let part = cas.put_recipe(&recipe)?;
        let mut draft = Draft::empty(cas);
        draft.insert(self.what.name.as_bytes(), layout::entry(cas, part)?)?;
        draft.store()
    }
}
