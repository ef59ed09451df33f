//! What the tests share: a project in a folder of its own, and what came of running vcbuild on it.

pub mod config;
pub mod daemons;
pub mod done;
pub mod folder;
pub mod memory;
pub mod project;
pub mod registry;
pub mod repository;
pub mod servers;
pub mod web;

pub use done::Done;
pub use project::Project;
