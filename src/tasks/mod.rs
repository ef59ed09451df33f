//! The kinds, one file each, all of the same shape: the table as written, what it reads, what it
//! becomes, and doing that. This is the one place that knows all of them.

pub mod base;
pub mod clone;
mod clone_source;
mod clone_tree;
pub mod compile;
mod compile_facts;
mod compile_run;
mod compile_sync;
mod compile_there;
pub mod contents;
pub mod deploy;
mod deploy_plan;
pub mod fetch;
pub mod image;
mod image_certificates;
mod image_config;
mod image_fetch;
mod image_files;
mod image_layers;
#[cfg(test)]
mod image_tests;
mod image_users;
pub mod import;
#[cfg(test)]
mod import_tests;
#[cfg(test)]
mod keys;
mod kin;
pub mod layout;
mod lints;
pub mod names;
mod origin;
mod origin_archive;
mod origin_host;
mod origin_registry;
mod packed;
pub mod patch;
pub mod patch_set;
mod placement;
pub mod push;
mod push_change;
#[cfg(test)]
mod samples;
pub mod save;
mod sbom;
pub mod secret;
pub mod shipped;
mod shipping;
pub mod upload;
mod upload_change;
mod upload_gather;
#[cfg(test)]
mod upload_tests;

pub use compile_run::lock_of_keep;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::work::{Effect, Reach};
use names::Declare;

/// The kinds, in the order of the flow.
pub const KINDS: [&str; 10] =
    ["clone", "patch", "compile", "image", "save", "fetch", "upload", "import", "push", "deploy"];

/// Something to be done with the type of a kind's table.
pub trait Visit {
    /// What comes of it.
    type Output;
    /// Does it.
    fn visit<T: Declare + DeserializeOwned + JsonSchema + 'static>(self) -> Self::Output;
}

/// Does something with the type of the table of `kind`.
pub fn visit<V: Visit>(kind: &str, visit: V) -> V::Output {
    match kind {
        "clone" => visit.visit::<clone::Clone>(),
        "patch" => visit.visit::<patch::Patch>(),
        "compile" => visit.visit::<compile::Compile>(),
        "image" => visit.visit::<image::Image>(),
        "save" => visit.visit::<save::Save>(),
        "fetch" => visit.visit::<fetch::Fetch>(),
        "upload" => visit.visit::<upload::Upload>(),
        "import" => visit.visit::<import::Import>(),
        "push" => visit.visit::<push::Push>(),
        "deploy" => visit.visit::<deploy::Deploy>(),
        other => panic!("BUG: `{other}` is not a kind"),
    }
}

/// Whether what a task saw outside of files is still so.
pub fn still(seen: &serde_json::Value, reach: &Reach<'_>) -> bool {
    compile_facts::still(seen, reach).unwrap_or_else(|| fetch::still(seen, reach))
}

/// Whether what a task saw outside of files, and its commands read when they ran, is still so. What was fetched has
/// its digest in the key, and was read by that.
pub fn held(seen: &serde_json::Value, reach: &Reach<'_>) -> bool {
    compile_facts::still(seen, reach).unwrap_or(true)
}

/// The effect of `kind` that wants this: plain data from which it can only probe.
pub fn effect(kind: &str, wants: &serde_json::Value) -> Option<Box<dyn Effect>> {
    match kind {
        "fetch" => secret::from_wants(wants),
        "upload" => upload::from_wants(wants),
        "import" => import::from_wants(wants),
        "push" => push::from_wants(wants),
        "deploy" => deploy::from_wants(wants),
        _ => None,
    }
}
