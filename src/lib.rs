//! vcbuild takes upstream source to running pods.
#![forbid(unsafe_code)]

mod cache;
mod digest;
mod error;
mod glob;
mod host;
mod key;
mod manifest;
mod pins;
mod recipe;
mod report;
mod tasks;
mod work;

pub use host::launch::main as launch;
