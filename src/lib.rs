//! vcbuild takes upstream source to running pods: clone, patch, compile, image, save, fetch, upload,
//! import, deploy. Tasks are hashed by what they read, and only what changed is built, shipped and
//! rolled out.
//!
//! # The flow
//! ```text
//! vcbuild.toml -> config -> graph -> schedule <-> build -> Event -> report
//!                                                  |
//!              step { inputs -> action -> key -> lookup | run -> check -> record }   (or: probe -> apply -> verify)
//! ```
//! A key needs the digests of finished inputs, so it is made inside the step: that gives early cut-off
//! on every edge. A run with nothing to do never gets that far: `memo` holds what the last one saw.
//!
//! # The layers, lowest first
//! | layer | modules | knows |
//! |---|---|---|
//! | values | `digest` `recipe` `splice` `error` `glob` | bytes and words |
//! | report | `report` | `Event` only; the only one that prints |
//! | host | `host` `pins` | the outside world: processes, files, git, nodes, clusters |
//! | libraries | `oci` `patch` `manifest` `cache` | one thing each, and no task |
//! | work | `work` `key` `explain` | what a task, an action and an effect are |
//! | tasks | `tasks` | the ten kinds, one file each |
//! | config | `config` | `vcbuild.toml` |
//! | graph | `schedule` `graph` | names, edges, what may run next |
//! | engine | `memo` `step` `step_effect` `worker` `build` | running it |
//! | cli | `cli` | verbs, the environment, exit codes |
//! | proof | `fuzzing` | what must hold for any input; only in tests and fuzzers |
//!
//! A module uses only what stands above it in this table (and in its own row); a test reads the `use`
//! lines.
//!
//! # Where to change what
//! | to change | look in |
//! |---|---|
//! | what a kind reads, does, or has in its key | `tasks/KIND.rs`: the table, the task, the action or effect, in this order |
//! | a new kind | one file in `tasks`, its lines in `tasks/mod.rs` |
//! | how a hunk is placed | `patch/place.rs` |
//! | how a patch is written again | `patch/keep.rs` (sections), `patch/kept.rs` (hunks), `patch/write.rs` (new ones) |
//! | the verbs that edit patches | `cli/patch/` |
//! | the bytes of images | `oci` |
//! | what layers an image gets, on what its base has | `tasks/image_layers.rs`, `oci/stack.rs` |
//! | what `show`, lints and SPDX lists say of layers | `tasks/contents.rs`, `oci/contents.rs`, `oci/root.rs` |
//! | layers that are saved packed | `tasks/packed.rs`, `oci/pack.rs` |
//! | where a base comes from | `tasks/base.rs`, `tasks/origin.rs` |
//! | how registries and daemons are spoken to | `host/registry`, `host/docker`; both by `host/http.rs` |
//! | how content lies in the cache: files, packs of small ones | `cache/cas.rs`; `cache/bulk.rs` (what goes in), `cache/packs.rs`, `cache/pack.rs` |
//! | what is remembered of files, results, runs | `cache/stamps.rs`, `cache/actions.rs`, `cache/history.rs` |
//! | what a no-op looks at | `memo` |
//! | what happens when content is lost | `schedule/rules.rs` decides, `step.rs` finds the owner |
//! | machines by ssh, and their containerd | `host/ssh`, `host/ctr` |
//! | compiling here, and on a host | `tasks/compile_run.rs`; `tasks/compile_there.rs`, `host/ssh/workplace.rs` |
//! | what an upload compares, sends and deletes; secrets | `tasks/upload_change.rs`; `tasks/secret.rs` |
//! | what goes of a layer of which a host has an older one | `splice.rs`, `tasks/kin.rs`; `host/ctr/placing.rs`, `host/ctr/script.rs` |
//! | a kind of host or cluster | `host/node.rs`, `host/cluster.rs`: one trait each |
//! | messages about mistakes | `config`, `report/mistakes.rs` |
//! | what a run prints | `report/story.rs`, `report/lines.rs` |
#![forbid(unsafe_code)]

mod build;
mod cache;
pub mod cli;
mod config;
mod digest;
mod error;
mod explain;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod glob;
mod graph;
mod host;
mod key;
mod manifest;
mod memo;
mod oci;
mod patch;
mod pins;
mod recipe;
mod report;
mod schedule;
mod splice;
mod step;
mod step_effect;
mod tasks;
mod work;
mod worker;
