//! A cluster, as deploying sees it: ask (objects, inventories and their owners, at once), apply, delete,
//! remember. Objects are opaque texts with an identity; who plans cannot tell what kind of cluster it has.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::host::embedded_cluster::Embedded;
use crate::host::node::{Trouble, Watch};

/// How to reach a cluster; plain data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// Its name in `vcbuild.toml`.
    pub name: String,
    /// The folder of an embedded cluster, relative to the project or absolute.
    pub dir: String,
}

/// Which object of a cluster is meant, whatever the version of its API.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Identity {
    /// The API group; empty for the core group.
    pub group: String,
    /// The kind: `Deployment`.
    pub kind: String,
    /// The namespace; `None` for an object of the whole cluster.
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
}

impl fmt::Display for Identity {
    /// `Deployment hello/greet`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

/// Whether an object belongs to a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// It does not: its kind is known.
    Cluster,
    /// It does: its kind is known.
    Namespaced,
    /// The cluster may know its kind; if not, it does if it says a namespace.
    Unknown,
}

/// All that is asked of a cluster at once.
#[derive(Clone, Debug)]
pub struct Question {
    /// Objects, with the namespace that they say if their scope is unknown.
    pub objects: Vec<(Identity, Scope)>,
    /// The name of the inventory of whoever asks.
    pub inventory: String,
}

/// What a cluster says.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The objects in the order of the question: which they are in this cluster, and how they were
    /// applied if they are there as they were applied; of what somebody has changed since, as it is now.
    pub objects: Vec<(Identity, Option<String>)>,
    /// The objects in the inventory of whoever asks, and whether they are there.
    pub inventory: Vec<(Identity, Presence)>,
    /// The inventories of others, by object.
    pub owners: BTreeMap<Identity, String>,
}

/// Whether an object is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It is.
    There,
    /// It is not.
    Gone,
}

/// Held as long as nobody else may change a cluster.
pub trait Lock {}

/// A cluster, reached.
pub trait Cluster {
    /// Says what is there of all that is asked. Changes nothing.
    fn ask(&self, question: &Question) -> Result<Answer, Trouble>;

    /// Waits until nobody else changes the cluster, and keeps others from it.
    fn lock(&self) -> Result<Box<dyn Lock + '_>, Trouble>;

    /// Makes an object what the text says, whole; the text is one YAML document.
    fn apply(&self, object: &Identity, text: &str) -> Result<(), Trouble>;

    /// Deletes an object, if it is there.
    fn delete(&self, object: &Identity) -> Result<(), Trouble>;

    /// Replaces an inventory; when this returns, it survives a power cut.
    fn remember(&self, inventory: &str, objects: &[Identity]) -> Result<(), Trouble>;
}

/// Reaches a cluster; a folder is relative to `root`.
pub fn open<'a>(spec: &Spec, root: &Path, watch: &'a dyn Watch) -> Result<Box<dyn Cluster + 'a>, Trouble> {
    Ok(Box::new(Embedded::open(spec, root, watch)?))
}
