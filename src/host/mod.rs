//! The outside world: only these files start processes, open sockets or write outside memory. They
//! know paths, bytes and stamps, but no task, no configuration, and nothing of OCI.
//!
//! `process` runs a command by `launch`, which stays above it and ends everything below; `wire` is what the two
//! say, `below` finds and signals, `foreground` is our terminal, `stop` the wish to stop. `fs` is files here,
//! `status` what is known of one unread. `node` is a host, and `wanted` its files: `embedded` a folder here, `ssh`
//! a machine, `ctr` its containerd, `docker` a daemon here. `registry` is registries, by way of `http`.

mod absent;
pub mod behind;
mod below;
pub mod checkout;
pub mod cluster;
pub mod ctr;
pub mod docker;
pub mod download;
mod embedded;
mod embedded_cluster;
mod findings;
pub mod foreground;
pub mod fs;
pub mod git;
pub mod health;
pub mod http;
pub mod index;
mod inside;
pub mod launch;
pub mod machine;
pub mod node;
pub mod passing;
pub mod process;
#[cfg(test)]
mod process_tests;
pub mod registry;
pub mod ssh;
mod status;
pub mod stop;
mod wanted;
mod wire;
