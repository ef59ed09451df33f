//! `clone` against real servers and hostile repositories. What is taken is held to what git itself checks out.

mod files;
mod pins;
mod reach;
mod submodules;

use std::path::PathBuf;

use crate::support::Project;

/// The configuration of one clone, `clone.c`.
fn config(url: &str, rev: &str, more: &str) -> String {
    format!("[clone.c]\nurl = '{url}'\nrev = '{rev}'\n{more}\n")
}

/// Sets the user's configuration of git.
fn user_config(project: &Project, text: &str) {
    std::fs::write(project.beside("home/.gitconfig"), text).unwrap();
}

/// The folders of the mirrors.
fn mirrors(project: &Project) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(project.cache("git")).unwrap();
    entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect()
}

/// Runs the clone, which must work, and puts what it gave into the folder `got`.
#[track_caller]
fn get(project: &Project) {
    project.run("c").success();
    project.call("get clone.c -o got --force").success();
}
