//! `ca_certificates` of an image: those of this machine, or a file. Knows no layer.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use super::names::{Names, Outputs, Placed, Reference, To, Want};
use super::placement::{self, By};
use crate::cache::stamps::Algorithm;
use crate::cache::tree::Entry;
use crate::digest::Blob;
use crate::error::{At, Error, Failure, Result};
use crate::host::fs::{self, Links};
use crate::work::{Inputs, TaskName};

/// Certificates of authorities
#[derive(Clone, Debug, Default)]
pub enum CaCertificates {
    /// The base's, if it has any.
    #[default]
    Base,
    /// Those of this machine.
    Machine,
    /// A file.
    File(Reference),
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum YesOrFile {
    Yes(bool),
    File(String),
}

impl<'de> Deserialize<'de> for CaCertificates {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Placed { value, span } = Placed::<YesOrFile>::deserialize(deserializer)?;
        Ok(match value {
            YesOrFile::Yes(false) => Self::Base,
            YesOrFile::Yes(true) => Self::Machine,
            YesOrFile::File(value) => Self::File(Placed { value, span }.into()),
        })
    }
}

impl JsonSchema for CaCertificates {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "CaCertificates".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        YesOrFile::json_schema(generator)
    }
}

/// Where machines keep the certificates of authorities, in one file.
const CERTIFICATES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The tasks that may make a file of certificates.
const MAKERS: [&str; 5] = ["clone", "patch", "compile", "save", "fetch"];

impl CaCertificates {
    /// Resolves the name in it.
    pub fn resolve(&mut self, names: &mut dyn Names) {
        if let Self::File(file) = self {
            names.reference(file, &MAKERS, Want::One);
        }
    }

    /// The task that it reads.
    pub fn needs(&self) -> &[TaskName] {
        match self {
            Self::File(file) => file.tasks(),
            Self::Base | Self::Machine => &[],
        }
    }

    /// The file, if the image gets one.
    pub fn blob(&self, inputs: &Inputs<'_>) -> Result<Option<Blob>> {
        let file = match self {
            Self::Base => return Ok(None),
            Self::File(file) => file,
            Self::Machine => {
                for path in CERTIFICATES {
                    if let Some(blob) = machine_file(Path::new(path), inputs)? {
                        return Ok(Some(blob));
                    }
                }
                let message = format!("this machine has no certificates in `{}`", CERTIFICATES[0]);
                let hint = "install `ca-certificates`, or name a file in `ca_certificates`";
                return Err(Failure::new(message).hint(hint).into());
            }
        };
        let (cas, mut found) = (&inputs.session.cache.cas, Vec::new());
        match (file.task(), &file.to) {
            (Some(task), _) => {
                let outputs = file.outputs.first().unwrap_or(&Outputs::Contents);
                placement::offered(cas, task, &inputs.value(task), outputs, By::LastName, &mut found)?;
            }
            (None, To::Path(path)) => placement::local(path, By::LastName, inputs, &mut found)?,
            (None, _) => panic!("BUG: `{}` was not resolved", file.text.value),
        }
        match found.as_slice() {
            [(_, Entry::File { blob, .. })] => Ok(Some(*blob)),
            _ => Err(Error::failed(format!("`{}` is not one file of certificates", file.text.value))),
        }
    }
}

/// A file of this machine, links followed, to be stored when it is needed.
fn machine_file(path: &Path, inputs: &Inputs<'_>) -> Result<Option<Blob>> {
    inputs.look(|local, stamps, seen| {
        let Some((blob, _)) = local.outside(path, Algorithm::Blake3, stamps, seen)? else {
            return Ok(None);
        };
        let real = std::fs::canonicalize(path).at("look at", path)?;
        if let Some(found) = fs::status(&real, Links::Keep).at("look at", &real)? {
            seen.sources.push((blob, found.stamp, real));
        }
        Ok(Some(blob))
    })
}
