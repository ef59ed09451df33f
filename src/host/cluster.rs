//! A cluster, as deploying sees it: ask (objects and inventory at once), apply, delete, remember. Knows
//! no template and no image; who plans cannot tell what kind of cluster it is.

use serde::{Deserialize, Serialize};

/// How to reach a cluster; plain data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// Its name in `vcbuild.toml`.
    pub name: String,
    /// The folder of an embedded cluster, relative to the project or absolute.
    pub dir: String,
}
