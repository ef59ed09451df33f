//! vcbuild takes upstream source to running pods.
#![forbid(unsafe_code)]

mod digest;
mod error;
mod recipe;
mod report;
