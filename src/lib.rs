//! vcbuild takes upstream source to running pods.
#![forbid(unsafe_code)]

mod digest;
mod error;
mod host;
mod recipe;
mod report;

pub use host::launch::main as launch;
