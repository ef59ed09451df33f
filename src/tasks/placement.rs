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
    /// With this, names are whole paths in `from`, less this folder at their beginning
    pub strip_prefix: Option<Placed<String>>,
    /// Permission bits of the files, in octal: `0755`
    pub mode: Option<Placed<String>>,
}

/// What is placed: where, and names with entries from there.
pub struct Taken {
    /// The path of a folder, plain; empty for the root.
    pub to: Vec<u8>,
    /// What goes into it, by paths from there.
    pub found: Vec<(Vec<u8>, Entry)>,
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
        check_to(&self.to, names);
        check_mode(self.mode.as_ref(), names);
        if let Some(prefix) = &self.strip_prefix
            && (prefix.starts_with('/') || prefix.split('/').any(|name| name == ".."))
        {
            let message = format!("`{}` is not a folder in `{}`", prefix.value, self.from.text.value);
            names.mistake(prefix.range(), message, Some("paths are relative, without `..`".into()));
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
        let Taken { to, found } = self.take(inputs)?;
        for (name, entry) in found {
            let path = if to.is_empty() { name } else { [&to, &b"/"[..], &name].concat() };
            insert(draft, &path, entry)?;
        }
        Ok(())
    }

    /// What it stands for.
    pub fn take(&self, inputs: &Inputs<'_>) -> Result<Taken> {
        let cas = &inputs.session.cache.cas;
        let names = match self.strip_prefix {
            Some(_) => By::Path,
            None => By::LastName,
        };
        let mut found: Vec<(Vec<u8>, Entry)> = Vec::new();
        match &self.from.to {
            To::Nothing => panic!("BUG: `{}` was not resolved", self.from.text.value),
            To::Path(path) => local(path, names, inputs, &mut found)?,
            To::Tasks(tasks) => {
                for (task, outputs) in tasks.iter().zip(&self.from.outputs) {
                    offered(cas, task, &inputs.value(task), outputs, names, &mut found)?;
                }
            }
        }
        let found = self.with_mode(cas, self.stripped(cas, self.chosen(cas, found)?)?)?;
        let from = &self.from.text.value;
        if found.is_empty() {
            return Err(Error::failed(format!("`{from}` gives no file to place at `{}`", self.to.value)));
        }
        let to = plain(self.to.as_bytes());
        if !self.to.ends_with('/') {
            let [(_, entry)] = found.as_slice() else {
                let names: Vec<_> = found.iter().map(|(name, _)| String::from_utf8_lossy(name)).collect();
                let message =
                    format!("`{}` can take one file, and `{from}` gives {}", self.to.value, found.len());
                let failure =
                    Failure::new(message).detail(names.iter().take(10).map(|name| name.to_string()));
                return Err(failure.hint(format!("write `{}/` for a folder", self.to.value)).into());
            };
            let name = last_name(&to).to_vec();
            let above = &to[..to.len() - name.len()];
            let above = above.strip_suffix(b"/").unwrap_or(above).to_vec();
            return Ok(Taken { to: above, found: vec![(name, entry.clone())] });
        }
        let found = found.into_iter().map(|(name, entry)| (plain(&name), entry)).collect();
        Ok(Taken { to, found })
    }

    /// Gives the files their mode, also those in folders.
    fn with_mode(&self, cas: &Cas, found: Vec<(Vec<u8>, Entry)>) -> Result<Vec<(Vec<u8>, Entry)>> {
        let Some(mode) = self.mode.as_ref().and_then(|mode| parse_mode(mode)) else { return Ok(found) };
        let give = |entry: &Entry| match entry.clone() {
            Entry::File { blob, .. } => Entry::File { mode, blob },
            Entry::Recipe { recipe, size, .. } => Entry::Recipe { mode, recipe, size },
            other => other,
        };
        let mut all = Vec::new();
        for (name, entry) in found {
            let Entry::Folder { mode, tree } = entry else {
                all.push((name, give(&entry)));
                continue;
            };
            let mut draft = Draft::of(cas, tree);
            cas.walk(&tree, &mut |path, entry| match entry {
                Entry::Folder { .. } => Ok(()),
                _ => draft.insert(path, give(entry)),
            })?;
            all.push((name, Entry::Folder { mode, tree: draft.store()? }));
        }
        Ok(all)
    }

    /// Takes `strip_prefix` from the names; what is not below it is a failure.
    fn stripped(&self, cas: &Cas, found: Vec<(Vec<u8>, Entry)>) -> Result<Vec<(Vec<u8>, Entry)>> {
        let prefix = match &self.strip_prefix {
            Some(prefix) => plain(prefix.as_bytes()),
            None => return Ok(found),
        };
        if prefix.is_empty() {
            return Ok(found);
        }
        let (mut left, mut stripped) = (found, Vec::new());
        let start = [&prefix, &b"/"[..]].concat();
        while let Some((name, entry)) = left.pop() {
            match (name.strip_prefix(&start[..]), &entry) {
                (Some(rest), _) => stripped.push((rest.to_vec(), entry)),
                (None, Entry::Folder { tree, .. })
                    if name == prefix || start.starts_with(&[&name, &b"/"[..]].concat()) =>
                {
                    for (inner, entry) in cas.node(tree)?.entries {
                        left.push(([&name, &b"/"[..], &inner].concat(), entry));
                    }
                }
                (None, _) => {
                    let (name, from) = (String::from_utf8_lossy(&name), &self.from.text.value);
                    let prefix = String::from_utf8_lossy(&prefix);
                    let message = format!("`{name}` of `{from}` is not below `{prefix}`");
                    return Err(Failure::new(message).hint("`path` picks what is to be placed").into());
                }
            }
        }
        stripped.sort_by(|one, other| one.0.cmp(&other.0));
        Ok(stripped)
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

/// Puts an entry into a draft; fails if another file is there.
pub fn insert(draft: &mut Draft<'_>, path: &[u8], entry: Entry) -> Result<()> {
    if draft.entry(path)?.is_some_and(|old| old != entry && !matches!(old, Entry::Folder { .. })) {
        let path = String::from_utf8_lossy(path);
        return Err(Error::failed(format!("two different files are placed at `{path}`")));
    }
    draft.insert(path, entry)
}

/// How files are called where they are placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// By their last name.
    LastName,
    /// By their whole path.
    Path,
}

impl By {
    fn name(self, path: &[u8]) -> &[u8] {
        match self {
            Self::LastName => last_name(path),
            Self::Path => path,
        }
    }
}

/// Files of the project: a folder gives its contents, a file or a glob's matches their names.
pub fn local(path: &str, by: By, inputs: &Inputs<'_>, found: &mut Vec<(Vec<u8>, Entry)>) -> Result<()> {
    let missing = || Error::failed(format!("`{path}` does not exist"));
    inputs.look(|local, stamps, seen| {
        if glob::is_pattern(path) {
            let globs = Globs::new(&[path]).map_err(Error::failed)?;
            for (path, entry) in local.select(".", &globs, stamps, seen)? {
                found.push((by.name(&path).to_vec(), entry));
            }
            return Ok(());
        }
        match local.entry(path, stamps, seen)?.ok_or_else(missing)? {
            Entry::Folder { .. } => found.extend(local.select(path, &Globs::all(), stamps, seen)?),
            entry => found.push((by.name(path.as_bytes()).to_vec(), entry)),
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
    by: By,
    found: &mut Vec<(Vec<u8>, Entry)>,
) -> Result<()> {
    match outputs {
        Outputs::Contents => found.extend(cas.node(value)?.entries),
        Outputs::Named(paths) => {
            for path in paths {
                match cas.entry(value, path)? {
                    Some(entry) => found.push((by.name(path.as_bytes()).to_vec(), entry)),
                    None => return Err(Error::failed(format!("`{task}` has no `{path}`"))),
                }
            }
        }
        Outputs::Image | Outputs::Secret { .. } => panic!("BUG: `{task}` was to be placed"),
    }
    Ok(())
}

/// The last name of a path.
pub fn last_name(path: &[u8]) -> &[u8] {
    let path = path.strip_suffix(b"/").unwrap_or(path);
    path.rsplit(|&byte| byte == b'/').next().unwrap_or(path)
}

/// A path without empty names and `.`.
pub fn plain(path: &[u8]) -> Vec<u8> {
    let names = path.split(|&byte| byte == b'/').filter(|name| !name.is_empty() && *name != b".");
    names.collect::<Vec<_>>().join(&b'/')
}

/// Notes a mistake if nothing can be placed at a path.
pub fn check_to(to: &Placed<String>, names: &mut dyn Names) {
    if to.split('/').any(|name| name == "..") || to.contains('\0') || to.is_empty() {
        names.mistake(to.range(), format!("`{}` is not a place for a file", to.value), None);
    }
}

/// Notes a mistake if a mode is none.
pub fn check_mode(mode: Option<&Placed<String>>, names: &mut dyn Names) {
    if let Some(mode) = mode
        && parse_mode(mode).is_none()
    {
        let hint = Some("write it as octal text: `\"0755\"`".to_string());
        names.mistake(mode.range(), format!("`{}` is not a mode", mode.value), hint);
    }
}

/// Octal permission bits.
pub fn parse_mode(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let fits = (3..=4).contains(&digits.len()) && digits.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    if fits { u32::from_str_radix(digits, 8).ok() } else { None }
}
