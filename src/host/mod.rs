//! The outside world: only these files start processes, open sockets or write outside memory. They
//! know paths, bytes and stamps, but no task, no configuration, and nothing of OCI.
//!
//! `process` runs a command: it starts `launch` (this program again, under a hidden verb), which stays
//! above the command and ends everything below it. `wire` is what the two say to each other, `below`
//! finds and signals processes, `foreground` runs a command in our terminal, `stop` carries the wish to
//! stop to whoever waits. `fs` is files here, `status` what is known of one without reading it. `node` is a
//! host: `embedded` is a folder here, `ssh` a machine, and `ctr` what containerd on it has.

mod below;
pub mod checkout;
pub mod cluster;
pub mod ctr;
mod embedded;
mod embedded_cluster;
pub mod foreground;
pub mod fs;
pub mod git;
pub mod health;
pub mod index;
mod inside;
pub mod launch;
pub mod node;
mod passing;
pub mod process;
#[cfg(test)]
mod process_tests;
pub mod ssh;
mod status;
pub mod stop;
mod wire;
