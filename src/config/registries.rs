//! The tables `[registry."HOST"]`: how a registry is reached. Opens no connection and reads no file.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::read::Mistakes;
use super::value::Value;
use crate::host::registry::{Settings, Spec};
use crate::oci::reference::Reference;
use crate::tasks::names::Placed;

/// `[registry."HOST"]`: how a registry is reached
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Registry {
    /// A file of certificates (PEM) to trust besides the system's, relative to the project or absolute
    ca: Option<Placed<String>>,
    /// Hosts that are asked first, in this order: `HOST` or `HOST/PATH`
    #[serde(default)]
    mirrors: Vec<Placed<String>>,
    /// Speak plain HTTP; never without saying so
    #[serde(default)]
    insecure: bool,
}

/// Whether a text is the host of a registry as image names have it.
fn is_host(text: &str) -> bool {
    format!("{text}/x").parse::<Reference>().is_ok_and(|name| name.registry == text)
}

/// Reads the tables, rendered.
pub fn read(
    tables: impl Iterator<Item = (String, std::ops::Range<usize>, Value)>,
    mistakes: &mut Mistakes,
) -> Settings {
    let mut all = BTreeMap::new();
    for (host, place, table) in tables {
        if !is_host(&host) {
            let hint = "as image names have it: `docker.io`, `registry.example:5000`, `localhost`";
            mistakes.note(
                place.clone(),
                format!("`{host}` is not the host of a registry"),
                Some(hint.into()),
            );
        }
        let Some(read) = mistakes.read::<Registry>(&format!("registry.\"{host}\""), &place, &table) else {
            continue;
        };
        for mirror in &read.mirrors {
            let (name, path) = mirror.split_once('/').unwrap_or((mirror, ""));
            let path = path.trim_end_matches('/');
            let whole = if path.is_empty() { format!("{name}/x") } else { format!("{name}/{path}/x") };
            if !is_host(name) || whole.parse::<Reference>().is_err() {
                let hint = "`HOST` or `HOST/PATH`, without `https://`".to_string();
                mistakes.note(mirror.range(), format!("`{}` is not a mirror", mirror.value), Some(hint));
            }
        }
        let mirrors = read.mirrors.into_iter().map(|mirror| mirror.value).collect();
        let spec = Spec { ca: read.ca.map(|ca| ca.value), mirrors, insecure: read.insecure };
        all.insert(host, spec);
    }
    Settings(all)
}
