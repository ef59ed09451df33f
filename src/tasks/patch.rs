//! `patch`: a tree and unified diffs give a tree. Knows no file system: what the diffs do is worked out
//! in memory, and nothing is stored unless all of them go in.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::names::{Declare, Names, Outputs, Placed, Reference, To, Want};
use crate::cache::Cache;
use crate::cache::cas::Cas;
use crate::cache::draft::Draft;
use crate::cache::local::Local;
use crate::cache::stamps::Algorithm;
use crate::cache::tree::Entry;
use crate::digest::{Blob, Digest};
use crate::error::{Error, Result};
use crate::glob::{self, Globs};
use crate::host::stop::Stop;
use crate::patch::{self, AlreadyApplied, Change, Options, Overlay, ZeroContext};
use crate::recipe::Content;
use crate::work::{Action, Class, Context, Inputs, Task, TaskName, Work};

/// `[patch.NAME]`: applies unified diffs to a tree
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Patch {
    /// The tree: a task, or a folder of the project
    tree: Reference,
    /// Patch files of the project, in order; of a glob the matches in the order of their names
    files: Vec<Placed<String>>,
    /// How many leading folders are cut from the names in the patches
    #[serde(default = "one")]
    strip: usize,
    /// How many outer context lines of a hunk may differ, 0 to 2
    #[serde(default = "two")]
    fuzz: u32,
    /// What a change that is there already means
    #[serde(default)]
    already_applied: Already,
    /// Whether a hunk that only inserts, without any context, is taken at its line number
    #[serde(default)]
    zero_context: bool,
    /// The folder of the tree that the names in the patches start from
    basedir: Option<Placed<String>>,
}

/// What a change that is there already means
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Already {
    /// It is an error
    #[default]
    Fail,
    /// It is passed over
    Skip,
}

fn one() -> usize {
    1
}

fn two() -> u32 {
    2
}

impl Declare for Patch {
    fn resolve(&mut self, names: &mut dyn Names) {
        names.reference(&mut self.tree, &["clone", "patch", "compile", "fetch"], Want::One);
        for file in self.files.iter().chain(&self.basedir) {
            names.contained(file);
        }
        if self.fuzz > 2 {
            let hint = "with more than 2 lines left out a hunk may go anywhere".to_string();
            let place = self.tree.text.range();
            names.mistake(place, format!("`fuzz = {}` is too much", self.fuzz), Some(hint));
        }
        let mut inside = self.files.iter().filter(|file| glob::is_contained(file));
        if let Some(first) = inside.find(|file| Globs::new(&[file.as_str()]).is_err()) {
            names.mistake(first.range(), format!("`{}` is not a glob", first.value), None);
        }
    }

    fn outputs(&self) -> Outputs {
        Outputs::Contents
    }
}

impl Task for Patch {
    fn class(&self) -> Class {
        Class::Action
    }

    fn needs(&self) -> Vec<TaskName> {
        self.tree.tasks().to_vec()
    }

    fn work(&self, inputs: &Inputs<'_>) -> Result<Work> {
        let mut files = Vec::new();
        for file in &self.files {
            let found = inputs.look(|local, stamps, seen| {
                if glob::is_pattern(file) {
                    let globs = Globs::new(&[file.as_str()]).map_err(Error::failed)?;
                    return local.select(".", &globs, stamps, seen);
                }
                let entry = local.entry(file, stamps, seen)?;
                Ok(entry.map(|entry| (file.value.clone().into_bytes(), entry)).into_iter().collect())
            })?;
            if found.is_empty() {
                let what = if glob::is_pattern(file) { "matches no file" } else { "does not exist" };
                return Err(Error::failed(format!("`{}` {what}", file.value)));
            }
            for (path, entry) in found {
                let name = String::from_utf8_lossy(&path).into_owned();
                let Entry::File { blob, .. } = entry else {
                    return Err(Error::failed(format!("`{name}` is not a file")));
                };
                files.push(PatchFile { name, digest: blob.digest, size: blob.size });
            }
        }
        let what = What {
            tree: read_tree(&self.tree, &Globs::all(), inputs)?,
            files,
            strip: self.strip,
            fuzz: self.fuzz,
            already_applied: self.already_applied,
            zero_context: self.zero_context,
            basedir: self.basedir.as_ref().map(|dir| dir.value.clone()),
        };
        Ok(Work::Action(Box::new(PatchAction { what })))
    }
}

/// The tree behind `tree = …`, less what the globs do not take: a task's, or a folder's of the project.
/// Its new nodes are stored: they are small, and whoever runs needs them.
pub fn read_tree(from: &Reference, globs: &Globs, inputs: &Inputs<'_>) -> Result<Digest> {
    let cas = &inputs.session.cache.cas;
    match &from.to {
        To::Nothing => panic!("BUG: `{}` was not resolved", from.text.value),
        To::Tasks(_) => {
            let Some(task) = from.task() else { panic!("BUG: `{}` has no task", from.text.value) };
            let mut draft = Draft::of(cas, inputs.value(task));
            draft.keep(globs)?;
            draft.store()
        }
        To::Path(path) => read_folder(path, globs, inputs),
    }
}

/// The tree of a folder of the project, less what the globs do not take.
pub fn read_folder(path: &str, globs: &Globs, inputs: &Inputs<'_>) -> Result<Digest> {
    let mut draft = Draft::empty(&inputs.session.cache.cas);
    for (path, entry) in inputs.look(|local, stamps, seen| local.select(path, globs, stamps, seen))? {
        draft.insert(&path, entry)?;
    }
    draft.store()
}

#[derive(Deserialize, Serialize)]
struct What {
    tree: Digest,
    files: Vec<PatchFile>,
    strip: usize,
    fuzz: u32,
    already_applied: Already,
    zero_context: bool,
    basedir: Option<String>,
}

/// A patch file. Its name is part of the warnings that are kept with the result.
#[derive(Deserialize, Serialize)]
struct PatchFile {
    name: String,
    digest: Digest,
    size: u64,
}

struct PatchAction {
    what: What,
}

impl Action for PatchAction {
    fn kind(&self) -> &'static str {
        "patch"
    }

    fn revision(&self) -> u32 {
        1
    }

    fn what(&self) -> serde_json::Value {
        serde_json::json!(self.what)
    }

    fn run(&self, context: &Context<'_>) -> Result<Digest> {
        let cas = &context.cache.cas;
        let tree = Tree { cas, root: self.what.tree };
        let (now, notes) = self.what.apply(cas, &tree, context.stop)?;
        context.warnings.borrow_mut().extend(notes);
        let mut draft = Draft::of(cas, self.what.tree);
        for (path, change) in now.into_changes() {
            match change {
                Change::Remove => draft.remove(&path)?,
                Change::Link(target) => draft.insert(&path, Entry::Link { target })?,
                Change::Write { content, executable } => {
                    draft.put_file(&path, if executable { 0o755 } else { 0o644 }, &content)?;
                }
            }
        }
        draft.store()
    }
}

impl What {
    /// Lays all patches over the tree, and what is worth a warning.
    fn apply<'t>(&self, cas: &Cas, tree: &'t Tree<'_>, stop: &Stop) -> Result<(Overlay<'t>, Vec<String>)> {
        let options = Options {
            strip: self.strip,
            fuzz: self.fuzz,
            already_applied: match self.already_applied {
                Already::Fail => AlreadyApplied::Fail,
                Already::Skip => AlreadyApplied::Skip,
            },
            zero_context: if self.zero_context { ZeroContext::Allow } else { ZeroContext::Refuse },
            basedir: self.basedir.clone().map(Into::into),
        };
        let (mut now, mut notes) = (Overlay::new(tree), Vec::new());
        for file in &self.files {
            stop.check()?;
            let bytes = cas.read(Blob { digest: file.digest, size: file.size })?;
            let applied = patch::apply(&patch::parse(&file.name, &bytes, &options)?, &now, &options)?;
            notes.extend(applied.notes.iter().map(ToString::to_string));
            now.lay(applied.changes);
        }
        Ok((now, notes))
    }
}

/// Whether the patches of a preimage go in, and with which warnings. Patch files that are not in the
/// cache are read from the project in `root`.
pub fn check(
    cache: &Cache,
    preimage: &serde_json::Value,
    local: &Local,
    stop: &Stop,
) -> Result<Vec<String>> {
    let what: What = match serde_json::from_value(preimage["what"].clone()) {
        Ok(what) => what,
        Err(error) => panic!("BUG: a preimage that is none: {error}"),
    };
    for file in &what.files {
        let path = local.root().join(&file.name);
        if let Some((found, blob)) = cache.cas.stamps.digest(&path, Algorithm::Blake3)? {
            cache.cas.put_known(&path, &found.stamp, &blob)?;
        }
    }
    let tree = Tree { cas: &cache.cas, root: what.tree };
    Ok(what.apply(&cache.cas, &tree, stop)?.1)
}

/// A stored tree as patching sees it.
struct Tree<'a> {
    cas: &'a Cas,
    root: Digest,
}

impl patch::Files for Tree<'_> {
    fn entry(&self, path: &[u8]) -> Result<Option<patch::Entry>> {
        Ok(match self.cas.entry(&self.root, path)? {
            None => None,
            Some(Entry::Folder { .. }) => Some(patch::Entry::Folder),
            Some(Entry::Link { target }) => Some(patch::Entry::Link(target)),
            Some(Entry::File { mode, blob }) => {
                Some(patch::Entry::File { content: self.cas.read(blob)?, executable: mode & 0o100 != 0 })
            }
            Some(Entry::Recipe { mode, recipe, .. }) => {
                let mut content = Vec::new();
                self.cas.recipe(recipe)?.send(self.cas, &mut content)?;
                Some(patch::Entry::File { content, executable: mode & 0o100 != 0 })
            }
        })
    }

    fn names(&self, folder: &[u8]) -> Result<Vec<Vec<u8>>> {
        let Some(Entry::Folder { tree, .. }) = self.cas.entry(&self.root, folder)? else {
            return Ok(Vec::new());
        };
        Ok(self.cas.node(&tree)?.entries.into_iter().map(|(name, _)| name).collect())
    }
}
