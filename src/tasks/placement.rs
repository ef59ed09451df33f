//! `files = [{ from, to }]`: which entries of which trees go where. Shared by the kinds that place
//! files. Knows no key and no layer.

use schemars::JsonSchema;
use serde::Deserialize;

use super::names::{Names, Outputs, Placed, Reference, To, Want};
use crate::cache::cas::Cas;
use crate::cache::draft::Draft;
use crate::cache::tree::Entry;
use crate::digest::Digest;
use crate::error::{Error, Failure, Result};
use crate::glob::{self, Globs};
use crate::work::{Inputs, TaskName};

/// One entry of `files`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Placement {
    /// A task, or a file, folder or glob of the project
    pub from: Reference,
    /// Where it goes: a folder if it ends in `/`, otherwise the path of exactly one file
    pub to: Placed<String>,
    /// Which of the outputs, as a glob; all if it is absent
    pub path: Option<Placed<String>>,
    /// Permission bits of the files, in octal: `0755`
    pub mode: Option<Placed<String>>,
}

/// The tasks whose values can be placed.
const KINDS: [&str; 5] = ["clone", "patch", "compile", "save", "fetch"];

impl Placement {
    /// Resolves the names in it and checks what can be checked.
    pub fn resolve(&mut self, names: &mut dyn Names) {
        if self.from.text.starts_with("image.") {
            let hint = "an image is a `base`, or goes into `save`, `import` or `deploy`";
            let message = format!("`{}` is an image and cannot be placed as files", self.from.text.value);
            names.mistake(self.from.text.range(), message, Some(hint.into()));
        } else {
            names.reference(&mut self.from, &KINDS, Want::Many);
        }
        let to = self.to.trim_start_matches('/');
        if to.split('/').any(|name| name == "..") || self.to.contains('\0') || self.to.is_empty() {
            names.mistake(self.to.range(), format!("`{}` is not a place for a file", self.to.value), None);
        }
        if let Some(mode) = &self.mode
            && parse_mode(mode).is_none()
        {
            let hint = Some("write it as octal text: `\"0755\"`".to_string());
            names.mistake(mode.range(), format!("`{}` is not a mode", mode.value), hint);
        }
        if let Some(path) = &self.path
            && let Err(why) = Globs::new(&[path.as_str()])
        {
            names.mistake(path.range(), why, None);
        }
    }

    /// The tasks that it reads.
    pub fn needs(&self) -> &[TaskName] {
        self.from.tasks()
    }

    /// Puts what it stands for into a draft.
    pub fn place(&self, inputs: &Inputs<'_>, draft: &mut Draft<'_>) -> Result<()> {
        let cas = &inputs.session.cache.cas;
        let mut found: Vec<(Vec<u8>, Entry)> = Vec::new();
        match &self.from.to {
            To::Nothing => panic!("BUG: `{}` was not resolved", self.from.text.value),
            To::Path(path) => local(path, inputs, &mut found)?,
            To::Tasks(tasks) => {
                for (task, outputs) in tasks.iter().zip(&self.from.outputs) {
                    offered(cas, task, &inputs.value(task), outputs, &mut found)?;
                }
            }
        }
        let found = self.chosen(cas, found)?;
        let from = &self.from.text.value;
        if found.is_empty() {
            return Err(Error::failed(format!("`{from}` gives no file to place at `{}`", self.to.value)));
        }
        let to = self.to.trim_start_matches('/');
        if !self.to.ends_with('/') {
            let [(_, entry)] = found.as_slice() else {
                let names: Vec<_> = found.iter().map(|(name, _)| String::from_utf8_lossy(name)).collect();
                let message =
                    format!("`{}` can take one file, and `{from}` gives {}", self.to.value, found.len());
                let failure =
                    Failure::new(message).detail(names.iter().take(10).map(|name| name.to_string()));
                return Err(failure.hint(format!("write `{}/` for a folder", self.to.value)).into());
            };
            return self.put(draft, to.as_bytes(), entry.clone());
        }
        for (name, entry) in found {
            self.put(draft, &[to.as_bytes(), &name].concat(), entry)?;
        }
        Ok(())
    }

    fn put(&self, draft: &mut Draft<'_>, path: &[u8], entry: Entry) -> Result<()> {
        let names = path.split(|&byte| byte == b'/').filter(|name| !name.is_empty() && *name != b".");
        let path = names.collect::<Vec<_>>().join(&b'/');
        if draft.entry(&path)?.is_some_and(|old| old != entry && !matches!(old, Entry::Folder { .. })) {
            let path = String::from_utf8_lossy(&path);
            return Err(Error::failed(format!("two different files are placed at `{path}`")));
        }
        let mode = self.mode.as_ref().and_then(|mode| parse_mode(mode));
        let entry = match (entry, mode) {
            (Entry::File { blob, .. }, Some(mode)) => Entry::File { mode, blob },
            (Entry::Recipe { recipe, size, .. }, Some(mode)) => Entry::Recipe { mode, recipe, size },
            (entry, _) => entry,
        };
        draft.insert(&path, entry)
    }

    /// What `path` takes of it: the glob looks at what would be placed.
    fn chosen(&self, cas: &Cas, found: Vec<(Vec<u8>, Entry)>) -> Result<Vec<(Vec<u8>, Entry)>> {
        let Some(path) = &self.path else { return Ok(found) };
        let globs = Globs::new(&[path.as_str()]).map_err(Error::failed)?;
        let mut draft = Draft::empty(cas);
        for (name, entry) in found {
            draft.insert(&name, entry)?;
        }
        draft.keep(&globs)?;
        let mut chosen = Vec::new();
        cas.walk(&draft.store()?, &mut |path, entry| {
            if !matches!(entry, Entry::Folder { .. }) {
                chosen.push((path.to_vec(), entry.clone()));
            }
            Ok(())
        })?;
        Ok(chosen)
    }
}

/// Files of the project: a folder gives its contents, a file or a glob's matches their last names.
pub fn local(path: &str, inputs: &Inputs<'_>, found: &mut Vec<(Vec<u8>, Entry)>) -> Result<()> {
    let missing = || Error::failed(format!("`{path}` does not exist"));
    inputs.look(|local, stamps, seen| {
        if glob::is_pattern(path) {
            let globs = Globs::new(&[path]).map_err(Error::failed)?;
            for (path, entry) in local.select(".", &globs, stamps, seen)? {
                found.push((last_name(&path).to_vec(), entry));
            }
            return Ok(());
        }
        match local.entry(path, stamps, seen)?.ok_or_else(missing)? {
            Entry::Folder { .. } => found.extend(local.select(path, &Globs::all(), stamps, seen)?),
            entry => found.push((last_name(path.as_bytes()).to_vec(), entry)),
        }
        Ok(())
    })
}

/// What a task's value offers to be placed: names and entries.
pub fn offered(
    cas: &Cas,
    task: &TaskName,
    value: &Digest,
    outputs: &Outputs,
    found: &mut Vec<(Vec<u8>, Entry)>,
) -> Result<()> {
    match outputs {
        Outputs::Contents => found.extend(cas.node(value)?.entries),
        Outputs::Named(paths) => {
            for path in paths {
                match cas.entry(value, path)? {
                    Some(entry) => found.push((last_name(path.as_bytes()).to_vec(), entry)),
                    None => return Err(Error::failed(format!("`{task}` has no `{path}`"))),
                }
            }
        }
        Outputs::Image => panic!("BUG: the image `{task}` was to be placed"),
    }
    Ok(())
}

/// The last name of a path.
pub fn last_name(path: &[u8]) -> &[u8] {
    let path = path.strip_suffix(b"/").unwrap_or(path);
    path.rsplit(|&byte| byte == b'/').next().unwrap_or(path)
}

/// Octal permission bits.
pub fn parse_mode(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let fits = (3..=4).contains(&digits.len()) && digits.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    if fits { u32::from_str_radix(digits, 8).ok() } else { None }
}
