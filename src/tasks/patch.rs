//! `patch`: a tree and unified diffs give a tree. Knows no file system: what the diffs do is worked out
//! in memory, and nothing is stored unless all of them go in.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::names::{Declare, Names, Outputs, Placed, Reference, To, Want};
use super::patch_set::{self, PatchFile, Set, Tree};
use crate::cache::draft::Draft;
use crate::cache::local::{Local, Seen};
use crate::cache::stamps::Stamps;
use crate::cache::tree::Entry;
use crate::digest::{Blob, Digest};
use crate::error::{Error, Result};
use crate::glob::{self, Globs};
use crate::patch::{AlreadyApplied, Options, Overlay, ZeroContext};
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

    fn patches(&self) -> &[Placed<String>] {
        &self.files
    }

    fn patch_set(&self, inputs: &Inputs<'_>) -> Option<Result<Set>> {
        let files = self.files.iter().map(|file| match listed_by(file, inputs) {
            // What is not there yet may be about to be made.
            Err(Error::Failed(_)) => Ok(Vec::new()),
            other => other,
        });
        let files = files.collect::<Result<Vec<_>>>();
        Some(files.and_then(|files| Ok(self.what(files, inputs)?.set())))
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
        let files = self.files.iter().map(|file| listed_by(file, inputs)).collect::<Result<_>>()?;
        let what = self.what(files, inputs)?;
        Ok(Work::Action(Box::new(PatchAction { what })))
    }
}

impl Patch {
    fn what(&self, files: Vec<Vec<PatchFile>>, inputs: &Inputs<'_>) -> Result<What> {
        Ok(What {
            tree: read_tree(&self.tree, &Globs::all(), inputs)?,
            files: files.into_iter().flatten().collect(),
            strip: self.strip,
            fuzz: self.fuzz,
            already_applied: self.already_applied,
            zero_context: self.zero_context,
            basedir: self.basedir.as_ref().map(|dir| dir.value.clone()),
        })
    }
}

fn listed_by(file: &Placed<String>, inputs: &Inputs<'_>) -> Result<Vec<PatchFile>> {
    inputs.look(|local, stamps, seen| listed(file, local, stamps, seen))
}

/// The patch files that one line of a list means, in order.
pub fn listed(
    file: &Placed<String>,
    local: &Local,
    stamps: &Stamps,
    seen: &mut Seen,
) -> Result<Vec<PatchFile>> {
    let found = if glob::is_pattern(file) {
        let globs = Globs::new(&[file.as_str()]).map_err(Error::failed)?;
        local.select(".", &globs, stamps, seen)?
    } else {
        let entry = local.entry(file, stamps, seen)?;
        entry.map(|entry| (file.value.clone().into_bytes(), entry)).into_iter().collect()
    };
    if found.is_empty() {
        let what = if glob::is_pattern(file) { "matches no file" } else { "does not exist" };
        return Err(Error::failed(format!("`{}` {what}", file.value)));
    }
    let patch = |(path, entry): (Vec<u8>, Entry)| {
        let name = String::from_utf8_lossy(&path).into_owned();
        match entry {
            Entry::File { blob, .. } => Ok(PatchFile { name, digest: blob.digest, size: blob.size }),
            _ => Err(Error::failed(format!("`{name}` is not a file"))),
        }
    };
    found.into_iter().map(patch).collect()
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

#[derive(Clone, Deserialize, Serialize)]
struct What {
    tree: Digest,
    files: Vec<PatchFile>,
    strip: usize,
    fuzz: u32,
    already_applied: Already,
    zero_context: bool,
    basedir: Option<String>,
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
        let set = self.what.clone().set();
        let tree = Tree::new(cas, set.tree);
        let mut now = Overlay::new(&tree);
        for file in &set.files {
            context.stop.check()?;
            let bytes = cas.read(Blob { digest: file.digest, size: file.size })?;
            let applied = file.apply(&bytes, &now, &set.options)?;
            context.warnings.borrow_mut().extend(applied.notes.iter().map(ToString::to_string));
            now.lay(applied.changes);
        }
        patch_set::store(cas, set.tree, now.into_changes())
    }
}

impl What {
    fn set(self) -> Set {
        let options = Options {
            strip: self.strip,
            fuzz: self.fuzz,
            already_applied: match self.already_applied {
                Already::Fail => AlreadyApplied::Fail,
                Already::Skip => AlreadyApplied::Skip,
            },
            zero_context: if self.zero_context { ZeroContext::Allow } else { ZeroContext::Refuse },
            basedir: self.basedir.map(Into::into),
        };
        Set { tree: self.tree, files: self.files, options }
    }
}

/// The patches of a preimage.
pub fn set(preimage: &serde_json::Value) -> Set {
    match serde_json::from_value::<What>(preimage["what"].clone()) {
        Ok(what) => what.set(),
        Err(error) => panic!("BUG: a preimage that is none: {error}"),
    }
}
