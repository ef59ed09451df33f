//! All tests from outside, one binary: each runs the real `vcbuild` on a project of its own.
#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]
#![expect(clippy::disallowed_methods, reason = "tests read, write and start what they like")]
#![forbid(unsafe_code)]

mod support;

mod cache;
mod clone;
mod compile;
mod config;
mod deploy;
mod faults;
mod full_disk;
mod golden;
mod hello;
mod hosts;
mod image;
mod init;
mod inputs;
mod layers;
mod licences;
mod memo;
mod patch;
mod registry;
mod rig;
mod style;
mod targets;
mod vars;
mod verbs;
mod virtualcluster;
mod writing;
