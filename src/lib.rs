//! vcbuild takes upstream source to running pods.
#![forbid(unsafe_code)]

mod cache;
mod digest;
mod error;
mod glob;
mod host;
mod recipe;
mod report;
