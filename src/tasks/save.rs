//! `save`: images give an archive or a layout. It exists as a recipe; its bytes are made when somebody
//! reads them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::layout;
use super::names::{Declare, Names, Outputs, Placed, Reference, Want};
use crate::cache::draft::Draft;
use crate::digest::Digest;
use crate::error::Result;
use crate::oci::archive;
use crate::work::{Action, Class, Context, Inputs, Task, TaskName, Work};

/// `[save.NAME]`: images give an archive
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Save {
    /// The images
    images: Vec<Reference>,
    /// What to write
    format: Format,
    /// The name of the file, or of the folder of a layout
    #[serde(default = "default_name")]
    name: Placed<String>,
}

/// What to write
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Format {
    /// One file that `docker load` reads
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
        for image in &mut self.images {
            names.tasks(image, &["image"], Want::Many);
        }
        if self.images.is_empty() {
            names.mistake(self.name.range(), format!("`{}` has no images", names.task()), None);
        }
        if !crate::cache::tree::is_name(self.name.as_bytes()) {
            let hint = Some("a name without a folder".to_string());
            names.mistake(self.name.range(), format!("`{}` cannot name a file", self.name.value), hint);
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
        let mut all: Vec<TaskName> = self.images.iter().flat_map(Reference::tasks).cloned().collect();
        all.sort();
        all.dedup();
        all
    }

    fn work(&self, inputs: &Inputs<'_>) -> Result<Work> {
        let mut images = Vec::new();
        for task in self.images.iter().flat_map(Reference::tasks) {
            let value = inputs.value(task);
            if !images.contains(&value) {
                images.push(value);
            }
        }
        let what = What { format: self.format, name: self.name.value.clone(), images };
        Ok(Work::Action(Box::new(SaveAction { what })))
    }
}

#[derive(Serialize)]
struct What {
    format: Format,
    name: String,
    images: Vec<Digest>,
}

struct SaveAction {
    what: What,
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
        let mut images = Vec::new();
        for tree in &self.what.images {
            images.push(layout::read_all(cas, tree)?);
        }
        let recipe = match self.what.format {
            Format::DockerArchive => archive::docker(&images)?,
            Format::OciArchive => archive::oci(&images)?,
            Format::OciLayout => {
                let mut draft = Draft::empty(cas);
                for (path, part) in crate::oci::layout::files(&images)? {
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
