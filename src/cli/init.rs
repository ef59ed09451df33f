//! `init`: a `vcbuild.toml` to begin with, which runs as it is. Replaces nothing.

use std::path::Path;

use super::place::CONFIG;
use super::{Global, Halt, remark};
use crate::error::{At, Mistake};
use crate::host::fs::{self, Durability};

/// Starts a project: a vcbuild.toml that runs as it is
#[derive(clap::Args)]
pub struct Init {}

const TEXT: &str = include_str!("init.toml");

/// A file of the first image.
const MOTD: (&str, &str) = ("rootfs/etc/motd", "made by vcbuild\n");

/// What git should not see: all of it can be made again.
const IGNORED: [&str; 2] = ["/cache/", "/nodes/"];

impl Init {
    /// Runs the verb.
    #[expect(clippy::disallowed_methods, reason = "there is no project yet that knows its place")]
    pub fn run(&self, global: &Global) -> Result<u8, Halt> {
        let here = std::env::current_dir().at("find", Path::new("."))?;
        let root = global.dir.as_ref().map_or_else(|| here.clone(), |dir| here.join(dir));
        if fs::status(root.join(CONFIG), fs::Links::Keep).at("read", &root)?.is_some() {
            let message = format!("there is a `{CONFIG}` in `{}` already", root.display());
            return Err(Mistake::new(message).into());
        }
        fs::make_folder(&root)?;
        let name = name(&root.canonicalize().at("find", &root)?);
        let mut said = Vec::new();
        let (path, text) = MOTD;
        if fs::read(&root.join(path), 1 << 20)?.is_none() {
            fs::make_folder(&root.join("rootfs/etc"))?;
            fs::write(&root.join(path), text.as_bytes(), 0o644, Durability::Cache)?;
            said.push(format!("wrote `{path}`"));
        }
        let ignored = root.join(".gitignore");
        let old = String::from_utf8_lossy(&fs::read(&ignored, 1 << 20)?.unwrap_or_default()).into_owned();
        let new = with_ignored(&old);
        if new != old {
            fs::write(&ignored, new.as_bytes(), 0o644, Durability::Cache)?;
            said.push("wrote `.gitignore`".to_string());
        }
        // Last: with it there is a project.
        fs::write(&root.join(CONFIG), TEXT.replace("NAME", &name).as_bytes(), 0o644, Durability::Cache)?;
        said.push(format!("wrote `{CONFIG}`; `vcbuild run` does what it says"));
        remark(&said);
        Ok(0)
    }
}

/// The folder's name, as far as an image may have it.
fn name(folder: &Path) -> String {
    let name = folder.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let words = name.split(|letter: char| !letter.is_ascii_alphanumeric());
    let name = words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join("-");
    if name.is_empty() { "app".to_string() } else { name }
}

/// A `.gitignore` with what is made here.
fn with_ignored(old: &str) -> String {
    let mut new = old.to_string();
    for line in IGNORED {
        if old.lines().any(|there| there.trim() == line) {
            continue;
        }
        if !new.is_empty() && !new.ends_with('\n') {
            new.push('\n');
        }
        new.push_str(line);
        new.push('\n');
    }
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_an_image_may_have() {
        for (folder, want) in
            [("/x/My Project", "my-project"), ("/", "app"), ("/a/_b..c_", "b-c"), ("/é", "app")]
        {
            assert_eq!(name(Path::new(folder)), want, "{folder}");
        }
    }

    #[test]
    fn ignored_files_are_added_once() {
        assert_eq!(with_ignored(""), "/cache/\n/nodes/\n");
        assert_eq!(with_ignored("/cache/\nx"), "/cache/\nx\n/nodes/\n");
        assert_eq!(with_ignored(&with_ignored("y\n")), with_ignored("y\n"));
    }
}
