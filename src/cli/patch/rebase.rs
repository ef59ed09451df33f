//! `patch rebase`: all patches of a task onto the tree that is now below them. Nothing is written before
//! the last one is done; then everything is, from a list on disk that survives an interruption.

use std::path::Path;

use super::super::place::Project;
use super::back::replace;
use super::merging::{Merging, Stopped};
use super::open::open;
use super::rebase_state::{Came, Done, Home, Open, State};
use super::{Desk, Halt, order, rebase_old, scratch, tasks};
use crate::digest::Digest;
use crate::error::{Failure, Mistake, Result};
use crate::host::fs;
use crate::patch::{is_marked, show};
use crate::report::text::count;
use crate::schedule::TaskId;
use crate::tasks::patch_set;

/// Arguments of `patch rebase`
#[derive(clap::Args)]
pub struct Rebase {
    /// The patch task; all if none is given
    task: Option<String>,
    /// Go on after conflicts were resolved
    #[arg(long = "continue", conflicts_with = "abort")]
    go_on: bool,
    /// Give up: all patch files are as they were before
    #[arg(long)]
    abort: bool,
    /// The revision of the clone that the patches were made for [default: that of the last good run]
    #[arg(long, value_name = "REV", conflicts_with_all = ["go_on", "abort"])]
    from: Option<String>,
}

impl Rebase {
    /// Runs the verb.
    pub fn run(&self, desk: &Desk<'_>) -> Result<u8, Halt> {
        let project = desk.session.place.load()?;
        let ids = tasks(&project, self.task.as_deref())?;
        let named = |id: &TaskId| project.graph.node(*id).name.0.clone();
        let mut names: Vec<String> = ids.iter().map(named).collect();
        let mut any = false;
        if self.go_on || self.abort {
            names.retain(|name| {
                Home::take(desk.cache, desk.root(), name)
                    .is_ok_and(|home| matches!(home.state(), Ok(Some(_)) | Err(_)))
            });
        }
        for name in &names {
            let home = Home::take(desk.cache, desk.root(), name)?;
            match (home.state()?, self.abort, self.go_on) {
                (None, true, _) | (None, _, true) => continue,
                (Some(state), true, _) => abort(desk, home, &state)?,
                (Some(state), _, true) => go(desk, home, name, Some(state), None)?,
                (Some(state), ..) => return Err(unfinished(&state).into()),
                (None, ..) => go(desk, home, name, None, self.from.as_deref())?,
            }
            any = true;
        }
        if !any {
            return Err(Mistake::new("no rebase is under way").into());
        }
        Ok(0)
    }
}

fn unfinished(state: &State) -> Failure {
    let what = match &state.open {
        Some(open) => format!("`{}` is in conflict", open.name),
        None => "its files are not all written".into(),
    };
    Failure::new(format!("a rebase of `{}` is not finished: {what}", state.task))
        .hint("`vcbuild patch rebase --continue` goes on, `vcbuild patch rebase --abort` gives up")
}

/// Takes everything back.
fn abort(desk: &Desk<'_>, home: Home, state: &State) -> Result<(), Halt> {
    if state.open.is_none() {
        for done in &state.done {
            match patch_set::text(desk.root(), &done.name)? {
                text if text == done.was => {}
                text if text == done.now => replace(desk, &done.name, &done.was)?,
                _ => return Err(changed(&done.name).into()),
            }
        }
    }
    home.clear()?;
    desk.remark(format!("`{}` is as it was before", state.task));
    Ok(())
}

fn changed(name: &str) -> Failure {
    Failure::new(format!("`{name}` was changed by somebody else meanwhile"))
        .hint("put it back as it was; `--abort` gives up")
}

/// Rebases the patches of one task.
fn go(
    desk: &Desk<'_>,
    home: Home,
    task: &str,
    state: Option<State>,
    from: Option<&str>,
) -> Result<(), Halt> {
    let mut opened = scratch::opened(desk.cache, desk.root()).into_iter();
    if let (Some((_, file)), None) = (opened.find(|(other, _)| other == task), &state) {
        let message = format!("`{file}` has an open work tree");
        let hint = format!(
            "`vcbuild patch refresh {file}` writes it back, `vcbuild patch edit {file} --discard` drops it"
        );
        return Err(Failure::new(message).hint(hint).into());
    }
    if let Some(State { open: None, done, .. }) = &state {
        return finish(desk, home, done);
    }
    if let Some(open) = state.as_ref().and_then(|state| state.open.as_ref()) {
        resolved(&home.folder(), open)?;
    }
    let mut old = state.as_ref().and_then(|state| state.old.clone());
    let mut looked = false;
    loop {
        let (mut project, id) = find(desk, task)?;
        let (resume, folder, known) = (state.clone(), home.folder(), old.clone());
        let merged = open(desk, &mut project, id, move |opened| {
            if let Some(state) = &resume {
                unmoved(opened.root, state, opened.set.tree)?;
            }
            Merging { opened, resume: resume.as_ref(), folder: &folder, old: known.as_ref() }.run()
        })?;
        match merged.stopped {
            Stopped::No => {
                let is_many = merged.done.iter().filter(|done| done.was != done.now).count() > 1;
                if is_many {
                    home.put(desk.cache, merged.tree, old, &merged.done, None)?;
                }
                return finish(desk, home, &merged.done);
            }
            Stopped::NeedsOld(name, why) => {
                let found = match std::mem::replace(&mut looked, true) {
                    false => rebase_old::find(desk, task, &merged.tree, from)?,
                    true => None,
                };
                old = Some(found.ok_or_else(|| rebase_old::unknown(&name, &why))?);
            }
            Stopped::Conflict { open, now, whys } => {
                let place = home.folder();
                let mut failure =
                    Failure::new(format!("`{}` does not go together with what is below it now", open.name));
                for (path, why) in open.paths.iter().zip(&whys) {
                    failure = failure.detail([format!("`{}`: {why}", show(path))]);
                }
                home.put(desk.cache, merged.tree, old, &merged.done, Some((open, now)))?;
                return Err(Halt::Failed(
                    failure
                        .hint(format!("change the files in `{}` to what they should be", place.display()))
                        .hint("then `vcbuild patch rebase --continue`; `--abort` gives up, nothing is written yet"),
                ));
            }
        }
    }
}

fn find(desk: &Desk<'_>, task: &str) -> Result<(Project, TaskId), Halt> {
    let project = desk.session.place.load()?;
    let missing = || Mistake::new(format!("there is no task `{task}` any more"));
    let id = project.graph.find(task).ok_or_else(missing)?;
    // A file that is listed and not there is a mistake.
    order(desk, &project, id, None)?;
    Ok((project, id))
}

/// Checks that no mark of a conflict is left.
fn resolved(folder: &Path, open: &Open) -> Result<()> {
    use std::os::unix::ffi::OsStrExt;
    for path in &open.paths {
        let file = folder.join(std::ffi::OsStr::from_bytes(path));
        let status = fs::status(&file, fs::Links::Keep).ok().flatten();
        if status.is_none_or(|found| found.kind != fs::Kind::File) {
            continue;
        }
        let content = fs::read(&file, patch_set::LONGEST)?.unwrap_or_default();
        if is_marked(&content) {
            return Err(Failure::new(format!("`{}` still has the marks of a conflict", show(path)))
                .hint(format!("it is in `{}`", folder.display()))
                .into());
        }
    }
    Ok(())
}

/// Checks that nothing has changed below a rebase that goes on.
fn unmoved(root: &Path, state: &State, tree: Digest) -> Result<()> {
    if tree != state.tree {
        return Err(Failure::new("the tree below the patches has changed since the rebase began")
            .hint("`vcbuild patch rebase --abort`, then start again")
            .into());
    }
    for done in &state.done {
        if patch_set::text(root, &done.name)? != done.was {
            return Err(changed(&done.name).into());
        }
    }
    let Some(open) = &state.open else { return Ok(()) };
    match Digest::of(&patch_set::text(root, &open.name)?) == open.was {
        true => Ok(()),
        false => Err(changed(&open.name).into()),
    }
}

/// Writes what is not written yet, and says what became of each patch.
fn finish(desk: &Desk<'_>, home: Home, all: &[Done]) -> Result<(), Halt> {
    for done in all.iter().filter(|done| done.was != done.now) {
        match patch_set::text(desk.root(), &done.name)? {
            text if text == done.now => {}
            text if text == done.was => replace(desk, &done.name, &done.now)?,
            _ => return Err(changed(&done.name).into()),
        }
    }
    home.clear()?;
    for done in all {
        let line = match done.came {
            Came::Same => continue,
            Came::Renewed => format!("`{}`: places renewed", done.name),
            Came::Merged => format!("`{}`: merged", done.name),
            Came::Decided => format!("`{}`: as decided", done.name),
            Came::Taken => {
                desk.warn(&[
                    format!("warning: `{}`: the tree has all of it now", done.name),
                    "hint: remove the file, and its line in vcbuild.toml if it has one".into(),
                ]);
                continue;
            }
        };
        desk.remark(line);
    }
    let same = all.iter().filter(|done| done.came == Came::Same).count();
    match same == all.len() {
        true => desk.remark("all patches apply as they are".into()),
        false if same > 0 => desk.remark(format!("{} as before", count(same, "file"))),
        false => {}
    }
    Ok(())
}
