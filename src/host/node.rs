//! A host, as shipping sees it: ask (everything at once), send (one stream), check, name. It speaks of
//! blobs and opaque descriptors and knows nothing of OCI; who plans cannot tell what kind of host it is.

use serde::{Deserialize, Serialize};

/// How to reach a host; plain data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// Its name in `vcbuild.toml`.
    pub name: String,
    /// The folder of an embedded node, relative to the project or absolute.
    pub local: String,
}
