//! Pieces of `vcbuild.toml` that many tests use.

use snapbox::data::Inline;

use super::Project;

/// Holds a configuration to be refused with exactly these words.
#[track_caller]
pub fn refused(config: &str, words: Inline) {
    Project::new().config(config).call("list").failure(2).stderr(words);
}

/// A compile that needs nothing.
const MAKE: &str = "inputs = ['vcbuild.toml']\nrun = [['touch', 'o']]\noutputs = ['o']\n";

pub fn compile(name: &str, more: &str) -> String {
    format!("[compile.{name}]\n{MAKE}{more}\n")
}
