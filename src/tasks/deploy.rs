//! `deploy`: manifests become objects in a cluster. Templates are rendered, names of images become content
//! tags; what that leads to in the cluster is planned in `deploy_plan`. Does not know what kind of cluster
//! it is.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::cache::tree::Entry;
use crate::digest::{Blob, Digest};
use crate::error::{Failure, Result};
use crate::glob::Globs;
use crate::host::cluster::Spec;
use crate::host::{fs, index};
use crate::manifest::emit;
use crate::manifest::images::Rewrites;
use crate::manifest::order::{self, Identified};
use crate::manifest::template::{Image, Templates};
use crate::manifest::yaml;
pub use crate::tasks::deploy_plan::from_wants;
use crate::tasks::deploy_plan::{Deploying, Object, Wants};
use crate::tasks::names::{Declare, Names, Outputs, Placed, Reference, Want};
use crate::tasks::shipped::{self, repository};
use crate::work::{Checked, Class, Inputs, Task, TaskName, Work};

/// The longest manifest that is read, in bytes.
const LONGEST: u64 = 64 << 20;

/// Objects in a cluster.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Deploy {
    /// The cluster that gets them.
    cluster: Placed<String>,
    /// Globs of project files with the objects; those that end in `.j2` are rendered.
    manifests: Vec<Placed<String>>,
    /// Images whose declared tags in manifests become content tags.
    #[serde(default)]
    images: Vec<Reference>,
    #[serde(skip)]
    spec: Option<Spec>,
    #[serde(skip)]
    project: String,
    #[serde(skip)]
    inventory: String,
    #[serde(skip)]
    variables: serde_json::Value,
}

impl Declare for Deploy {
    fn resolve(&mut self, names: &mut dyn Names) {
        self.spec = names.cluster(&self.cluster);
        for image in &mut self.images {
            names.tasks(image, &["image"], Want::Many);
        }
        for manifest in &self.manifests {
            names.contained(manifest);
            if let Err(why) = Globs::new(&[manifest.value.as_str()]) {
                names.mistake(manifest.range(), why, None);
            }
        }
        if self.manifests.is_empty() {
            names.mistake(
                self.cluster.range(),
                "`manifests` is empty: nothing would be deployed".into(),
                None,
            );
        }
        let instance = names.task().0.split_once('.').map_or("", |(_, name)| name);
        self.project = names.project().to_string();
        self.inventory = format!("{}.{instance}", self.project);
        self.variables = names.variables();
    }

    fn outputs(&self) -> Outputs {
        Outputs::Contents
    }
}

impl Task for Deploy {
    fn class(&self) -> Class {
        Class::Effect
    }

    fn needs(&self) -> Vec<TaskName> {
        Reference::all_tasks(&self.images)
    }

    fn work(&self, inputs: &Inputs<'_>) -> Result<Work> {
        let Some(cluster) = self.spec.clone() else { panic!("BUG: a deploy without a cluster") };
        let (mut objects, mut texts) = (Vec::new(), Vec::new());
        for Identified { identity, scope, object } in self.objects(inputs, Images::Built)? {
            let text = emit::canonical(&object.value);
            objects.push(Object { identity, scope, blob: Blob::of(text.as_bytes()) });
            texts.push(text);
        }
        let wants = Wants { cluster, inventory: self.inventory.clone(), objects };
        Ok(Work::Effect(Box::new(Deploying { wants, texts: Some(texts) })))
    }

    fn check(&self, inputs: &Inputs<'_>) -> Result<Checked> {
        self.objects(inputs, Images::Imagined)?;
        Ok(Checked::All)
    }
}

/// Whether the images that manifests speak of are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Images {
    /// They are: their content tags are known.
    Built,
    /// They need not be: their content tags are made up.
    Imagined,
}

impl Deploy {
    /// The objects, rewritten, in the order in which they are applied.
    fn objects(&self, inputs: &Inputs<'_>, images: Images) -> Result<Vec<Identified>> {
        let (known, rewrites) = self.images(inputs, images)?;
        let templates = Templates::new(known);
        let mut objects = Vec::new();
        for (name, text) in self.manifests(inputs)? {
            let text = match name.ends_with(".j2") {
                true => templates.render(&name, &text, &self.variables)?,
                false => text,
            };
            objects.extend(yaml::objects(&name, &text)?);
        }
        rewrites.apply(&mut objects)?;
        Ok(order::ordered(objects)?)
    }

    /// What templates may ask about images, and which names become which.
    fn images(&self, inputs: &Inputs<'_>, images: Images) -> Result<(BTreeMap<String, Image>, Rewrites)> {
        let (mut known, mut rewrites) = (BTreeMap::new(), Rewrites::default());
        for task in self.needs() {
            let (content_tags, tags, digest) = match images {
                Images::Imagined => {
                    let fallback = shipped::fallback_repository(&self.project, &task);
                    (vec![format!("{fallback}:vc-{}", "0".repeat(16))], Vec::new(), Digest::Sha256([0; 32]))
                }
                Images::Built => {
                    let shipped = shipped::of(&task, &self.project, inputs)?;
                    let digest = index::blob(&shipped.image.descriptor)?.digest;
                    (shipped.image.content_tags, shipped.image.tags, digest)
                }
            };
            for tag in &tags {
                let own = content_tags.iter().find(|own| repository(own) == repository(tag));
                if let Some(own) = own.or(content_tags.first()) {
                    rewrites.add_tag(tag, own);
                }
            }
            for own in &content_tags {
                rewrites.add_content_tag(own);
            }
            let Some(reference) = content_tags.into_iter().next() else {
                panic!("BUG: `{task}` has no content tag");
            };
            let repository = repository(&reference).to_string();
            let tag = reference[repository.len() + 1..].to_string();
            let image = Image { reference, repository, tag, digest: digest.to_string() };
            let name = task.0.split_once('.').map_or("", |(_, name)| name);
            known.insert(name.to_string(), image);
        }
        Ok((known, rewrites))
    }

    /// The manifests in the order in which they are listed, each once: name and text.
    fn manifests(&self, inputs: &Inputs<'_>) -> Result<Vec<(String, String)>> {
        let mut found: Vec<(String, String)> = Vec::new();
        for pattern in &self.manifests {
            let globs = Globs::new(&[pattern.value.as_str()]).map_err(Failure::new)?;
            let entries = inputs.look(|local, stamps, seen| local.select(".", &globs, stamps, seen))?;
            if entries.is_empty() {
                return Err(Failure::new(format!("`{}` matches no file", pattern.value))
                    .hint("`manifests` are globs of files, from the folder of `vcbuild.toml`")
                    .into());
            }
            for (path, entry) in entries {
                let name = String::from_utf8_lossy(&path).into_owned();
                if found.iter().all(|(known, _)| *known != name) {
                    let text = text(inputs.session.local.root().join(os(&path)), &name, &entry)?;
                    found.push((name, text));
                }
            }
        }
        Ok(found)
    }
}

fn os(path: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    PathBuf::from(std::ffi::OsStr::from_bytes(path))
}

/// The text of a manifest: just what was hashed.
fn text(path: PathBuf, name: &str, entry: &Entry) -> Result<String> {
    let Entry::File { blob, .. } = entry else {
        return Err(Failure::new(format!("`{name}` is not a file")).into());
    };
    let bytes = fs::read(&path, LONGEST)?.unwrap_or_default();
    if Digest::of(&bytes) != blob.digest {
        return Err(Failure::new(format!("`{name}` has just been changed")).hint("run again").into());
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Failure::new(format!("`{name}` is not UTF-8 text: byte {at} is wrong")).into()
    })
}

#[cfg(test)]
#[path = "deploy_tests.rs"]
mod tests;
