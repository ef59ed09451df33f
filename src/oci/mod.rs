//! An image library: layers, configs, manifests, layouts and archives, as recipes and bytes.
//! Knows no task, configuration, cache, network or file system: small documents come through
//! `find::Files`, everything large stays a reference and is only ever streamed.
//!
//! | to change | look in |
//! |---|---|
//! | the bytes of a tar entry | `tar` |
//! | what may be in a layer, and its order | `layer` |
//! | how a large layer is divided | `split` |
//! | image names, content tags | `reference` |
//! | what other people's manifests may say | `document`, `descriptor` |
//! | what files may do without being root | `capability` |
//! | config fields; how a user's merge with a base's | `config`; `settings` |
//! | an image from a base and layers | `image` |
//! | a layout's files; how an image is found in one | `layout`; `find` |
//! | docker-archive, oci-archive | `archive` |
//! | what somebody need not fetch | `have` |
//! | what is in somebody's layer; how it is unpacked; packed; a tar's headers | `contents`; `packed`; `pack`; `untar` |
//! | what layers make together: to be looked at; to put more on | `root`; `stack` |
//! | what a program needs | `elf` |
//! | what an image is made of, as SPDX; documents beside an image | `sbom`; `attached` |
//! | the image in somebody's archive; the members of a tar | `archived`; `members` |

pub mod archive;
pub mod archived;
pub mod attached;
pub mod capability;
pub mod config;
pub mod contents;
pub mod descriptor;
pub mod document;
pub mod elf;
pub mod find;
pub mod have;
pub mod image;
pub mod layer;
#[cfg(test)]
mod layer_tests;
pub mod layout;
pub mod members;
pub mod pack;
pub mod packed;
pub mod reference;
pub mod root;
pub mod sbom;
pub mod settings;
pub mod split;
pub mod stack;
mod tar;
pub mod untar;

#[cfg(test)]
mod other_tools;
#[cfg(test)]
mod samples;

/// A name from outside in backticks, its control characters escaped.
pub fn quoted(name: impl AsRef<[u8]>) -> String {
    let text = String::from_utf8_lossy(name.as_ref());
    let mut out = String::from("`");
    for c in text.chars().take(300) {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out.push('`');
    out
}
