//! The file behind a `url` of an image: fetched once, known by its SHA-256, and then in the cache. Knows
//! no layer.

use super::shipping::Told;
use crate::digest::{Blob, Digest, Hasher};
use crate::error::{At, Failure, Result};
use crate::host::download;
use crate::host::fs::{self, Links};
use crate::work::{Context, Network};

/// The file with a SHA-256, from the cache, or else from where it is to be had.
pub fn file(url: &str, sha256: &Digest, context: &Context<'_>) -> Result<Blob> {
    let cas = &context.cache.cas;
    let path = cas.path(sha256);
    // Whoever reads it verifies it; a damaged one is taken away, and fetched again.
    if let Some(found) = fs::status(&path, Links::Keep).at("look at", &path)? {
        return Ok(Blob { digest: *sha256, size: found.stamp.size });
    }
    if context.network == Network::Offline {
        return Err(Failure::new(format!("`{url}` is not in the cache, and the network is not used"))
            .hint("run once without `--offline`")
            .into());
    }
    let watch = Told::source(url, context.stop, context.tell, None);
    let blob = cas
        .put_with(Hasher::sha256(), |writer| download::get(url, writer, &context.env.0, &watch))
        .map_err(|error| error.context(format!("fetch `{url}`")))?;
    if blob.digest != *sha256 {
        let (wanted, is) = (sha256.hex(), blob.digest.hex());
        return Err(Failure::new(format!("`{url}` gives another file than its `sha256` says"))
            .detail([format!("wanted {wanted}"), format!("got    {is}, {} bytes", blob.size)])
            .hint("if the new file is the right one, write its digest into `sha256`")
            .into());
    }
    Ok(blob)
}
