//! vcbuild takes upstream source to running pods.
#![forbid(unsafe_code)]

mod build;
mod cache;
pub mod cli;
mod config;
mod digest;
mod error;
mod explain;
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
mod step;
mod step_effect;
mod tasks;
mod work;
