//! `patch`: edits the patch files of a project: new ones, changes, refreshed places, a new tree below.
//! Here are the verbs, and which patch of which task a name means.

mod back;
mod edit;
mod merging;
mod open;
mod rebase;
mod rebase_old;
mod rebase_state;
mod scratch;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::place::Project;
use super::run::one_task;
use super::{Halt, Session};
use crate::cache::Cache;
use crate::cache::local::Seen;
use crate::error::{Mistake, did_you_mean};
use crate::glob::{self, Globs};
use crate::schedule::TaskId;
use crate::tasks::patch::listed;
use crate::tasks::patch_set;

/// The loop, as `--help` shows it.
const LOOP: &str = "\
The loop:
  vcbuild patch edit fix-x              your editor on the patch's files, in a git work tree;
                                        when it ends with 0 the patch file is written back
  vcbuild patch edit fix-x -- make      any command instead of the editor
  vcbuild patch edit fix-x --open       for an IDE: prints the work tree, which stays open
  vcbuild patch refresh fix-x           writes that back; without one, corrects line numbers
  vcbuild patch new fix-y               the same for a patch that does not exist yet
  vcbuild check                         do all patches apply, and where?
  vcbuild update; vcbuild patch rebase  a new upstream: merges all patches, conflicts as in git
  vcbuild patch rebase --continue       after they are resolved (--abort: nothing was written)
";

/// Arguments of `patch`
#[derive(clap::Args)]
#[command(after_help = LOOP)]
pub struct PatchVerb {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Makes a new patch: opens the patched tree, and writes what you change to a new file
    New(New),
    /// Changes a patch: opens the tree with the patches up to this one, and writes back what you change
    Edit(Edit),
    /// Writes back what was changed in an open work tree; without one, gives hunks their true places
    Refresh(Refresh),
    /// Moves all patches of a task to the tree that is now below them
    Rebase(rebase::Rebase),
}

/// Arguments of `patch new`
#[derive(clap::Args)]
pub struct New {
    /// The new patch: a file name, or a path of the project
    name: String,
    /// The text before its first diff
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    #[command(flatten)]
    how: How,
}

/// Arguments of `patch edit`
#[derive(clap::Args)]
pub struct Edit {
    /// The patch: its file name, with or without extension, or its path
    name: String,
    /// Throw away an open work tree of this patch, with all changes in it
    #[arg(long, conflicts_with_all = ["open", "command", "at"])]
    discard: bool,
    #[command(flatten)]
    how: How,
}

/// How a patch is edited.
#[derive(clap::Args)]
pub struct How {
    /// The patch task, if the name alone does not say which
    #[arg(long, value_name = "TASK")]
    task: Option<String>,
    /// Make the work tree here [default: in the cache]
    #[arg(long, value_name = "DIR")]
    at: Option<PathBuf>,
    /// Only make the work tree and print where it is; `patch refresh` writes back
    #[arg(long, conflicts_with = "command")]
    open: bool,
    /// The command to run there [default: $VISUAL or $EDITOR with the patch's files, else $SHELL]
    #[arg(last = true)]
    command: Vec<OsString>,
}

/// Arguments of `patch refresh`
#[derive(clap::Args)]
pub struct Refresh {
    /// The patch: its file name, with or without extension, or its path
    name: String,
    /// The patch task, if the name alone does not say which
    #[arg(long, value_name = "TASK")]
    task: Option<String>,
    /// Leave the work tree open
    #[arg(long)]
    keep: bool,
}

impl PatchVerb {
    /// Runs the verb.
    pub fn run(&self, session: &Session) -> Result<u8, Halt> {
        let cache = session.place.cache()?;
        let desk = Desk { session, cache: &cache };
        match &self.verb {
            Verb::New(verb) => verb.run(&desk),
            Verb::Edit(verb) => verb.run(&desk),
            Verb::Refresh(verb) => verb.run(&desk),
            Verb::Rebase(verb) => verb.run(&desk),
        }
    }
}

/// What all these verbs work with.
#[derive(Clone, Copy)]
pub struct Desk<'a> {
    /// Where the project is, and how to talk.
    pub session: &'a Session,
    /// The cache.
    pub cache: &'a Cache,
}

impl Desk<'_> {
    /// The project folder.
    pub fn root(&self) -> &Path {
        &self.session.place.root
    }

    /// Says what was done, unless only what goes wrong is wanted.
    pub fn remark(&self, line: String) {
        if self.session.settings.verbosity > crate::report::output::Verbosity::Quiet {
            super::remark(&[line]);
        }
    }

    /// Says what may be wrong.
    pub fn warn(&self, lines: &[String]) {
        super::remark(lines);
    }
}

/// A patch of a task.
#[derive(Clone)]
pub struct Target {
    /// The task.
    pub task: TaskId,
    /// The file's path in the project.
    pub file: String,
}

/// The patch tasks that may be meant.
fn tasks(project: &Project, named: Option<&str>) -> Result<Vec<TaskId>, Halt> {
    let is_patch = |id: &TaskId| !project.graph.node(*id).task.patches().is_empty();
    if let Some(name) = named {
        let id = one_task(&project.graph, name)?;
        if !is_patch(&id) {
            let message = format!("`{}` is no patch task", project.graph.node(id).name);
            return Err(Mistake::new(message).into());
        }
        return Ok(vec![id]);
    }
    let all: Vec<TaskId> = project.graph.ids().filter(is_patch).collect();
    if all.is_empty() {
        let hint = "`[patch.NAME]` in vcbuild.toml with `tree` and `files` makes one";
        return Err(Mistake::new("the project has no patch task").hint(hint).into());
    }
    Ok(all)
}

/// The patch files of a task in their order, with `also` among them, if that is to become one: where a
/// glob takes it, otherwise last.
pub fn order(
    desk: &Desk<'_>,
    project: &Project,
    id: TaskId,
    also: Option<&str>,
) -> Result<Vec<String>, Halt> {
    let stamps = &desk.cache.cas.stamps;
    let mut all: Vec<String> = Vec::new();
    let mut placed = also.is_none();
    for pattern in project.graph.node(id).task.patches() {
        let found = listed(pattern, &project.local, stamps, &mut Seen::default());
        let mut names: Vec<String> = match found {
            Ok(found) => found.into_iter().map(|file| file.name).collect(),
            Err(_) if glob::is_pattern(pattern) => Vec::new(),
            Err(_) if also == Some(pattern.as_str()) => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        let takes = |path: &str| match glob::is_pattern(pattern) {
            true => Globs::new(&[pattern.as_str()]).is_ok_and(|globs| globs.takes(path.as_bytes())),
            false => pattern.as_str() == path,
        };
        if let Some(path) = also
            && takes(path)
        {
            placed = true;
            if !names.iter().any(|name| name == path) {
                names.push(path.to_string());
                names.sort_unstable();
            }
        }
        all.extend(names);
    }
    if let (Some(path), false) = (also, placed) {
        all.push(path.to_string());
    }
    Ok(all)
}

/// The last part of a path, and the same without its extension.
fn names_of(path: &str) -> [&str; 2] {
    let last = path.rsplit('/').next().unwrap_or(path);
    [last, last.rsplit_once('.').map_or(last, |(stem, _)| if stem.is_empty() { last } else { stem })]
}

/// The patch that a name means, among the files of all patch tasks and the open work trees of new ones.
fn target(desk: &Desk<'_>, project: &Project, name: &str, task: Option<&str>) -> Result<Target, Halt> {
    let wanted = name.strip_prefix("./").unwrap_or(name);
    let ids = tasks(project, task)?;
    let (mut all, mut found): (Vec<String>, Vec<Target>) = (Vec::new(), Vec::new());
    let opened = scratch::opened(desk.cache, desk.root());
    for id in ids {
        let name = &project.graph.node(id).name;
        let mut files = order(desk, project, id, None)?;
        let new = opened.iter().filter(|(task, _)| *task == name.0).map(|(_, file)| file.clone());
        files.extend(new);
        files.dedup();
        for file in files {
            if (file == wanted || names_of(&file).contains(&wanted))
                && !found.iter().any(|known| known.task == id && known.file == file)
            {
                found.push(Target { task: id, file: file.clone() });
            }
            all.push(file);
        }
    }
    // The whole path or name says more than a name without its extension.
    for better in
        [|file: &str, name: &str| file == name, |file: &str, name: &str| names_of(file)[0] == name]
    {
        if found.iter().any(|target| better(&target.file, wanted)) {
            found.retain(|target| better(&target.file, wanted));
            break;
        }
    }
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => {
            let names = all.iter().flat_map(|file| names_of(file));
            let begins = |name: &&str| !wanted.is_empty() && name.starts_with(wanted);
            let hint = did_you_mean(wanted, names.clone())
                .or_else(|| names.clone().find(begins).map(|name| format!("did you mean `{name}`?")))
                .or_else(|| Some(format!("`vcbuild patch new {name}` makes one")));
            Err(Mistake::new(format!("no patch task has a patch `{name}`")).hint_maybe(hint).into())
        }
        [first, rest @ ..] => {
            let task = |target: &Target| project.graph.node(target.task).name.to_string();
            let one_file = rest.iter().all(|other| other.file == first.file);
            let (message, list): (_, Vec<String>) = match one_file {
                true => (
                    format!("several tasks have `{}`", first.file),
                    found.iter().map(|target| format!("`--task {}`", task(target))).collect(),
                ),
                false => (
                    format!("`{name}` is the name of several patches"),
                    found.iter().map(|target| format!("`{}`", target.file)).collect(),
                ),
            };
            Err(Mistake::new(message).hint(format!("say which: {}", list.join(" or "))).into())
        }
    }
}
