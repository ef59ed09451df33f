//! Git: the network by the `git` program, under the user's own configuration; what is local by libgit2.
//! One bare mirror for each address. Knows no task and no cache but the mirror's folder.
//!
//! `address` is what can be said of an address without asking anybody, `remote` asks who is there,
//! `mirror` keeps what was fetched, `history` says what lies between two commits,
//! `committed` what the user's own repository has of a file.

mod address;
mod committed;
mod history;
mod mirror;
mod remote;

pub use address::{Wrong, beside, is_here, is_path, shown, wrong};
pub use committed::Committed;
pub use history::Between;
pub use mirror::{Damage, Depth, Mirror, Unfetched};
pub use remote::{Found, Kind, Remote, Trust};
