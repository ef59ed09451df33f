//! `patch new`, `patch edit`, `patch refresh`: a work tree, a command in it, and back to the patch file.

use std::ffi::OsString;
use std::io::IsTerminal;

use super::super::place::Project;
use super::back::{self, After};
use super::open::{Opened, open};
use super::scratch::{Making, Scratch};
use super::{Desk, Edit, Halt, How, New, Refresh, Target, order, target, tasks};
use crate::digest::Digest;
use crate::error::{Error, Failure, Mistake, Result};
use crate::glob::{self, Globs};
use crate::host::foreground;
use crate::host::fs;
use crate::host::process::{Command, Exit};
use crate::patch::{Files, Keep, Overlay, Rewriting};
use crate::report::text::count;
use crate::schedule::TaskId;
use crate::tasks::patch_set::{self, Tree};

impl New {
    /// Runs the verb.
    pub fn run(&self, desk: &Desk<'_>) -> Result<u8, Halt> {
        let project = desk.session.place.load()?;
        let ids = tasks(&project, self.how.task.as_deref())?;
        let [id] = ids[..] else {
            let names: Vec<String> =
                ids.iter().map(|id| format!("`--task {}`", project.graph.node(*id).name)).collect();
            let hint = format!("say which: {}", names.join(" or "));
            return Err(Mistake::new("there are several patch tasks").hint(hint).into());
        };
        let file = path_of_new(desk, &project, id, &self.name)?;
        if fs::status(desk.root().join(&file), fs::Links::Keep).ok().flatten().is_some() {
            let message = format!("`{file}` exists already");
            return Err(Mistake::new(message)
                .hint(format!("`vcbuild patch edit {}` changes it", self.name))
                .into());
        }
        let all = order(desk, &project, id, Some(&file))?;
        let later: Vec<String> = all.into_iter().skip_while(|name| *name != file).skip(1).collect();
        if let Some(next) = later.first() {
            let line = format!("`{file}` comes before `{next}`, which has to apply on top of it");
            desk.warn(&[format!("warning: {line}")]);
        }
        let message = match self.message.as_deref() {
            Some(text) if !text.is_empty() => format!("{}\n\n", text.trim_end()),
            _ => String::new(),
        };
        let target = Target { task: id, file };
        self.how.edit(desk, project, &target, Some(message))
    }
}

/// The path that a new patch gets: beside the others.
fn path_of_new(desk: &Desk<'_>, project: &Project, id: TaskId, name: &str) -> Result<String, Halt> {
    let name = name.strip_prefix("./").unwrap_or(name);
    if !glob::is_contained(name) || name.is_empty() || name.ends_with('/') || glob::is_pattern(name) {
        let message = format!("`{name}` is not a file of the project");
        return Err(Mistake::new(message)
            .hint("name the patch, or its path from the project's folder")
            .into());
    }
    let patterns = project.graph.node(id).task.patches();
    for pattern in patterns.iter().rev().filter(|pattern| glob::is_pattern(pattern)) {
        let fixed: Vec<&str> = pattern.split('/').take_while(|part| !glob::is_pattern(part)).collect();
        let last = pattern.rsplit('/').next().unwrap_or_default();
        let extension = last.rsplit_once('.').map_or("patch", |(_, extension)| extension);
        let Ok(globs) = Globs::new(&[pattern.as_str()]) else { continue };
        let beside = |name: &str| match fixed.is_empty() || name.contains('/') {
            true => name.to_string(),
            false => format!("{}/{name}", fixed.join("/")),
        };
        let with = format!("{name}.{extension}");
        let found = [beside(name), beside(&with)].into_iter().find(|path| globs.takes(path.as_bytes()));
        if let Some(path) = found {
            inside(desk, &path)?;
            return Ok(path);
        }
    }
    let path = match (name.contains('/'), patterns.last().and_then(|last| last.rsplit_once('/'))) {
        (false, Some((folder, _))) if !glob::is_pattern(folder) => format!("{folder}/{name}"),
        _ => name.to_string(),
    };
    let path = if super::names_of(&path)[0].contains('.') { path } else { format!("{path}.patch") };
    inside(desk, &path)?;
    Ok(path)
}

/// Refuses a path that a link leads out of the project.
fn inside(desk: &Desk<'_>, path: &str) -> Result<(), Halt> {
    for (at, _) in path.match_indices('/') {
        let above = desk.root().join(&path[..at]);
        let found = fs::status(&above, fs::Links::Keep).ok().flatten();
        if found.is_some_and(|found| found.kind != fs::Kind::Folder) {
            let message = format!("`{path}` goes through `{}`, which is not a folder", &path[..at]);
            return Err(Mistake::new(message).into());
        }
    }
    Ok(())
}

impl Edit {
    /// Runs the verb.
    pub fn run(&self, desk: &Desk<'_>) -> Result<u8, Halt> {
        let project = desk.session.place.load()?;
        let target = target(desk, &project, &self.name, self.how.task.as_deref())?;
        if self.discard {
            let task = &project.graph.node(target.task).name;
            let Some(scratch) = Scratch::find(desk.cache, desk.root(), &task.0, &target.file)? else {
                return Err(Failure::new(format!("`{}` has no open work tree", target.file)).into());
            };
            let folder = scratch.state.folder.clone();
            scratch.close()?;
            desk.remark(format!("threw away `{}`", folder.display()));
            return Ok(0);
        }
        self.how.edit(desk, project, &target, None)
    }
}

impl From<Failure> for Halt {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl How {
    /// Opens the work tree, runs the command, writes back. `new` is the text of a patch that does not exist.
    fn edit(
        &self,
        desk: &Desk<'_>,
        mut project: Project,
        target: &Target,
        new: Option<String>,
    ) -> Result<u8, Halt> {
        let task = project.graph.node(target.task).name.clone();
        let can_ask = std::io::stdin().is_terminal();
        if self.command.is_empty() && !self.open && !can_ask {
            let hint = "give a command after `--`, or `--open` to make the work tree only";
            return Err(Mistake::new("there is no terminal to edit in").hint(hint).into());
        }
        let known = Scratch::find(desk.cache, desk.root(), &task.0, &target.file)?;
        let again = known.is_some();
        if known.is_none() {
            let at = match &self.at {
                Some(at) => {
                    Some(std::path::absolute(at).map_err(|error| Error::failed(error.to_string()))?)
                }
                None => None,
            };
            let making = Making {
                root: desk.root().to_path_buf(),
                task: task.0.clone(),
                file: target.file.clone(),
                patch: None,
                message: new.clone().unwrap_or_default(),
                at,
            };
            let names = order(desk, &project, target.task, Some(&target.file))?;
            let is_new = new.is_some();
            open(desk, &mut project, target.task, move |opened| make(opened, &making, &names, is_new))?;
        } else if self.at.is_some() {
            let message = format!("`{}` has a work tree already", target.file);
            let hint = format!("`vcbuild patch edit {}` opens it again", target.file);
            return Err(Failure::new(message).hint(hint).into());
        }
        let scratch = match known {
            Some(scratch) => scratch,
            None => Scratch::find(desk.cache, desk.root(), &task.0, &target.file)?
                .ok_or_else(|| Error::failed("the work tree has just been removed"))?,
        };
        let folder = scratch.state.folder.clone();
        if again {
            let text = fs::read(&desk.root().join(&target.file), patch_set::LONGEST)?;
            if text.as_deref().map(Digest::of) != scratch.state.patch {
                let message = format!("`{}` has changed since its work tree was made", target.file);
                return Err(Failure::new(message)
                    .hint(format!("take what you need from `{}`", folder.display()))
                    .hint(format!("then `vcbuild patch edit {} --discard`", target.file))
                    .into());
            }
            desk.remark(format!("`{}` is open, with what was changed before", target.file));
        }
        if self.open {
            super::super::say(&format!("{}\n", folder.display()));
            desk.remark(format!(
                "`vcbuild patch refresh {}` writes back what is changed there",
                target.file
            ));
            return Ok(0);
        }
        let argv = match self.command.is_empty() {
            true => self.usual(desk, &back::touched(desk, &scratch.state)),
            false => self.command.clone(),
        };
        if self.command.is_empty() {
            desk.remark(format!("work tree: {}", folder.display()));
            desk.remark(
                "leave with status 0 to write back, with another to keep it open (`exit 1`)".into(),
            );
        }
        let env = desk.session.place.env.0.iter().filter(|(name, _)| !git_place(name));
        let env = env.map(|(name, value)| (name.clone(), value.clone())).collect();
        let command = Command { argv: argv.clone(), dir: folder.clone(), env, timeout: None };
        let exit = foreground::run(&command);
        if !matches!(exit, Ok(Exit::Code(0))) {
            let program = argv.first().map(|program| program.display().to_string()).unwrap_or_default();
            let message = match exit {
                Ok(Exit::Signal(signal_hook::consts::SIGINT)) => {
                    let failure =
                        kept(format!("`{program}` was interrupted; nothing was written"), target, &folder);
                    let hints = failure.hints.iter().map(|hint| format!("hint: {hint}"));
                    desk.warn(&[vec![failure.message.clone()], hints.collect()].concat());
                    return Ok(130);
                }
                Ok(exit) => format!("`{program}`: {exit}; nothing was written"),
                Err(Error::Failed(failure)) => failure.message,
                Err(other) => return Err(other.into()),
            };
            return Err(Halt::Failed(kept(message, target, &folder)));
        }
        back::write(desk, target, scratch, After::Close)
    }

    /// The command that a user expects: the editor for what the patch touches, or a shell.
    fn usual(&self, desk: &Desk<'_>, touched: &[OsString]) -> Vec<OsString> {
        let set = |name: &str| desk.session.place.env.value(name).filter(|value| !value.is_empty());
        match set("VISUAL").or(set("EDITOR")) {
            Some(editor) if !touched.is_empty() => {
                // A command line, as git takes it: it may hold arguments.
                let mut line = editor.to_os_string();
                line.push(" \"$@\"");
                let head = ["/bin/sh".into(), "-c".into(), line, editor.to_os_string()];
                head.into_iter().chain(touched.iter().cloned()).collect()
            }
            _ => vec![set("SHELL").map_or("/bin/sh".into(), Into::into)],
        }
    }
}

/// Whether a variable tells git of another place than where it is.
fn git_place(name: &OsString) -> bool {
    ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_OBJECT_DIRECTORY"]
        .iter()
        .any(|known| name == known)
}

/// A failure after which the work tree is still there.
pub fn kept(message: String, target: &Target, folder: &std::path::Path) -> Failure {
    let file = &target.file;
    Failure::new(message)
        .hint(format!("all changes are kept in `{}`", folder.display()))
        .hint(format!("`vcbuild patch edit {file}` goes on, `vcbuild patch refresh {file}` writes back"))
}

/// Makes the work tree of a patch.
fn make(opened: &Opened<'_>, making: &Making, names: &[String], is_new: bool) -> Result<()> {
    let tree = Tree::new(&opened.cache.cas, opened.set.tree);
    let mut now = Overlay::new(&tree);
    for name in names.iter().take_while(|name| **name != making.file) {
        lay(opened, name, &mut now).map_err(|error| stuck(error, name))?;
    }
    let cas = &opened.cache.cas;
    let before = patch_set::store(cas, opened.set.tree, now.changes().clone())?;
    if is_new {
        return making.make(opened.cache, before, before);
    }
    let text = patch_set::text(opened.root, &making.file)?;
    lay(opened, &making.file, &mut now).map_err(|error| stuck(error, &making.file))?;
    let after = patch_set::store(cas, opened.set.tree, now.into_changes())?;
    let making = Making { patch: Some(Digest::of(&text)), ..making.clone() };
    making.make(opened.cache, before, after)
}

/// Lays what a patch file does over a tree.
fn lay(opened: &Opened<'_>, name: &str, now: &mut Overlay<'_>) -> Result<()> {
    let text = patch_set::text(opened.root, name)?;
    let applied = back::apply(name, &text, now, &opened.set.options)?;
    now.lay(applied.changes);
    Ok(())
}

fn stuck(error: Error, name: &str) -> Error {
    match error {
        Error::Failed(failure) => {
            let hint = format!("`vcbuild patch rebase` merges `{name}` with the tree that is below it now");
            Error::Failed(failure.hint(hint))
        }
        other => other,
    }
}

impl Refresh {
    /// Runs the verb.
    pub fn run(&self, desk: &Desk<'_>) -> Result<u8, Halt> {
        let mut project = desk.session.place.load()?;
        let target = target(desk, &project, &self.name, self.task.as_deref())?;
        let task = project.graph.node(target.task).name.clone();
        if let Some(scratch) = Scratch::find(desk.cache, desk.root(), &task.0, &target.file)? {
            let after = if self.keep { After::Keep } else { After::Close };
            return back::write(desk, &target, scratch, after);
        }
        let names = order(desk, &project, target.task, None)?;
        let file = target.file.clone();
        let (old, new, hunks) = open(desk, &mut project, target.task, move |opened| {
            let tree = Tree::new(&opened.cache.cas, opened.set.tree);
            let mut before = Overlay::new(&tree);
            for name in names.iter().take_while(|name| **name != file) {
                lay(opened, name, &mut before).map_err(|error| stuck(error, name))?;
            }
            let (text, options) = (patch_set::text(opened.root, &file)?, &opened.set.options);
            let applied =
                back::apply(&file, &text, &before, options).map_err(|error| stuck(error, &file))?;
            let hunks = applied.notes.len();
            if hunks == 0 {
                return Ok((text.clone(), text, 0));
            }
            let wanted = crate::patch::real(applied.changes, &before as &dyn Files)?;
            if wanted.is_empty() {
                return Err(Failure::new(format!("the tree has all changes of `{file}` already"))
                    .hint("remove the patch")
                    .into());
            }
            let asked = Rewriting {
                name: &file,
                text: &text,
                options,
                before: &before,
                wanted: &wanted,
                keep: Keep::Exact,
            };
            let new = asked.rewrite()?;
            Ok((text, new, hunks))
        })?;
        if new == old {
            desk.remark(format!("`{}` applies as it is", target.file));
            return Ok(0);
        }
        back::replace(desk, &target.file, &new)?;
        desk.remark(format!("wrote `{}`: {} renewed", target.file, count(hunks, "place")));
        Ok(0)
    }
}
