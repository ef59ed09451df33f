//! Back from a work tree to the patch file, and what that means for the patches that come after it.

use std::collections::BTreeSet;
use std::ffi::OsString;

use super::edit::kept;
use super::open::{Opened, open};
use super::scratch::{self, Scratch, State};
use super::{Desk, Halt, Target, order};
use crate::cache::Cache;
use crate::cli::place::CONFIG;
use crate::digest::Digest;
use crate::error::{Error, Failure, Result};
use crate::host::fs::{self, Durability};
use crate::patch::{Applied, Change, Files, Keep, Options, Overlay, Rewriting};
use crate::report::text::count;
use crate::tasks::names::Placed;
use crate::tasks::patch_set::{self, Applies, PatchFile, Tree};

/// What becomes of the work tree when all is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// It goes.
    Close,
    /// It stays open.
    Keep,
}

/// What a patch text makes of a tree.
pub fn apply(name: &str, text: &[u8], tree: &dyn Files, options: &Options) -> Result<Applied> {
    crate::patch::apply(&crate::patch::parse(name, text, options)?, tree, options)
}

/// The text files in a work tree that differ from the tree before the patch.
pub fn touched(desk: &Desk<'_>, state: &State) -> Vec<OsString> {
    use std::os::unix::ffi::OsStringExt;
    let changes = scratch::changes(&desk.cache.cas, state.before, &state.folder, &BTreeSet::new());
    let text = |change: &Change| matches!(change, Change::Write { content, .. } if !content.contains(&0));
    let changes = changes.unwrap_or_default().into_iter().filter(|(_, change)| text(change));
    changes.map(|(path, _)| OsString::from_vec(path)).collect()
}

/// Writes a patch file whole or not at all; it keeps its mode.
pub fn replace(desk: &Desk<'_>, file: &str, text: &[u8]) -> Result<()> {
    let path = desk.root().join(file);
    let there = fs::status(&path, fs::Links::Keep).ok().flatten();
    let mode = there.map_or(0o644, |found| found.mode & 0o777);
    fs::write(&path, text, mode, Durability::Synced)
}

/// What a work tree comes to.
struct Made {
    old: Option<Vec<u8>>,
    text: Vec<u8>,
    files: usize,
    /// Whether what is below the patch is not what the work tree was made of.
    moved: bool,
    later: Vec<(String, Applies)>,
}

/// Writes what was changed in a work tree back to its patch file. If that cannot be, nothing is written and
/// the work tree stays.
pub fn write(desk: &Desk<'_>, target: &Target, mut scratch: Scratch, after: After) -> Result<u8, Halt> {
    let mut project = desk.session.place.load()?;
    let patterns: Vec<Placed<String>> = project.graph.node(target.task).task.patches().to_vec();
    let task = project.graph.node(target.task).name.clone();
    let names = order(desk, &project, target.task, Some(&target.file))?;
    let others = sharing(desk, &project, target)?;
    let state = scratch.state.clone();
    let listed_names = names.clone();
    let made = open(desk, &mut project, target.task, move |opened| make(opened, &state, &listed_names));
    let folder = scratch.state.folder.clone();
    let made = match made {
        Ok(made) => made,
        Err(Halt::Failed(failure)) => {
            let hints = kept(String::new(), target, &folder).hints;
            return Err(Halt::Failed(hints.into_iter().fold(failure, Failure::hint)));
        }
        Err(other) => return Err(other),
    };
    if made.old.is_none()
        && let Some((name, Applies::No(Error::Failed(failure)))) = made.later.last()
    {
        let message =
            format!("`{name}`, which comes after it, would not apply any more; nothing was written");
        let mut failed = kept(message, target, &folder);
        failed.detail = [vec![failure.message.clone()], failure.detail.clone()].concat();
        return Err(Halt::Failed(failed.hint("give the new patch a name that comes last")));
    }
    if made.old.as_ref() == Some(&made.text) {
        desk.remark(format!("`{}` did not change", target.file));
    } else {
        if let Err(Error::Failed(failure)) = replace(desk, &target.file, &made.text) {
            let hints = kept(String::new(), target, &folder).hints;
            return Err(Halt::Failed(hints.into_iter().fold(failure, Failure::hint)));
        }
        desk.remark(format!("wrote `{}`: {}", target.file, count(made.files, "file")));
    }
    scratch.written(Digest::of(&made.text))?;
    if made.old.is_none() {
        list(desk, target, &task.0, &patterns)?;
    }
    if after == After::Close {
        scratch.close()?;
    }
    tell(desk, &made, &others);
    Ok(0)
}

/// The other tasks that have the same patch file.
fn sharing(
    desk: &Desk<'_>,
    project: &crate::cli::place::Project,
    target: &Target,
) -> Result<Vec<String>, Halt> {
    let mut names = Vec::new();
    for id in project.graph.ids().filter(|id| *id != target.task) {
        let node = project.graph.node(id);
        if !node.task.patches().is_empty() && order(desk, project, id, None)?.contains(&target.file) {
            names.push(format!("`{}`", node.name));
        }
    }
    Ok(names)
}

fn tell(desk: &Desk<'_>, made: &Made, others: &[String]) {
    let mut lines = Vec::new();
    for (name, applies) in &made.later {
        match applies {
            Applies::Yes(notes) => lines.extend(notes.iter().map(|note| format!("warning: {note}"))),
            Applies::No(error) => {
                lines.push(format!("warning: `{name}` does not apply any more: {error}"));
            }
        }
    }
    if !lines.is_empty() {
        lines.push("hint: `vcbuild patch rebase` brings the later patches in line".into());
    }
    if made.moved {
        lines.push("warning: what is below the patch has changed since its work tree was made".into());
        lines
            .push("hint: `vcbuild check` says whether it applies, `vcbuild patch rebase` merges it".into());
    }
    if !others.is_empty() {
        lines.push(format!("warning: it is also a patch of {}", others.join(", ")));
        lines.push("hint: `vcbuild check` says whether it applies there".into());
    }
    desk.warn(&lines);
}

/// Makes the new text of a patch.
fn make(opened: &Opened<'_>, state: &State, names: &[String]) -> Result<Made> {
    let (cas, options) = (&opened.cache.cas, &opened.set.options);
    let is_moved = moved(opened, state, names)?;
    let old = fs::read(&opened.root.join(&state.file), patch_set::LONGEST)?;
    if old.as_deref().map(Digest::of) != state.patch {
        let message = match (&old, &state.patch) {
            (None, _) => format!("`{}` was removed while it was edited", state.file),
            (Some(_), None) => format!("`{}` was made by somebody else meanwhile", state.file),
            _ => format!("`{}` was changed by somebody else while it was edited", state.file),
        };
        let hint =
            "put the file back as it was, or take what you need from the work tree and `--discard` it";
        return Err(Failure::new(message).hint(hint).into());
    }
    let tree = Tree::new(cas, state.before);
    let paths = |applied: Applied| applied.changes.into_iter().map(|(path, _)| path).collect();
    let applied = old.as_ref().map(|text| apply(&state.file, text, &tree, options));
    let known: BTreeSet<Vec<u8>> = match applied {
        Some(Ok(applied)) => paths(applied),
        _ => BTreeSet::new(),
    };
    let wanted = scratch::changes(cas, state.before, &state.folder, &known)?;
    if wanted.is_empty() {
        return Err(Failure::new(format!(
            "nothing is changed in the work tree, so `{}` would be empty",
            state.file
        ))
        .hint(match old {
            Some(_) => "to drop the patch remove its file; to drop the work tree use `--discard`".into(),
            None => format!("`vcbuild patch edit {} --discard` drops the work tree", state.file),
        })
        .into());
    }
    let text = old.clone().unwrap_or_else(|| state.message.clone().into_bytes());
    let asked = Rewriting {
        name: &state.file,
        text: &text,
        options,
        before: &tree,
        wanted: &wanted,
        keep: Keep::All,
    };
    let text = asked.rewrite()?;
    let files = wanted.len();
    let mut now = Overlay::new(&tree);
    now.lay(wanted);
    let later = names.iter().skip_while(|name| **name != state.file).skip(1);
    let later = later.map(|name| {
        let file = PatchFile { name: name.clone(), digest: Digest::of(b""), size: 0 };
        Ok((file, patch_set::text(opened.root, name)?))
    });
    let later: Vec<(PatchFile, Vec<u8>)> = later.collect::<Result<_>>()?;
    let later = later.iter().map(|(file, text)| (file, text.clone()));
    let later = patch_set::apply_all(later, &mut now, options);
    let later = later.into_iter().map(|(file, applies)| (file.name.clone(), applies)).collect();
    Ok(Made { old, text, files, moved: is_moved, later })
}

/// Whether the tree before the patch is another now. If it is the same, it is in the cache afterwards.
fn moved(opened: &Opened<'_>, state: &State, names: &[String]) -> Result<bool> {
    let (cache, set): (&Cache, _) = (opened.cache, &opened.set);
    let tree = Tree::new(&cache.cas, set.tree);
    let mut now = Overlay::new(&tree);
    for name in names.iter().take_while(|name| **name != state.file) {
        let text = patch_set::text(opened.root, name)?;
        match apply(name, &text, &now, &set.options) {
            Ok(applied) => now.lay(applied.changes),
            Err(Error::Failed(_)) => return Ok(true),
            Err(other) => return Err(other),
        }
    }
    Ok(patch_set::store(&cache.cas, set.tree, now.into_changes())? != state.before)
}

/// Adds a patch to the list of its task, if no glob takes it.
fn list(desk: &Desk<'_>, target: &Target, task: &str, patterns: &[Placed<String>]) -> Result<(), Halt> {
    let globs = crate::glob::Globs::new(&patterns.iter().map(|one| one.as_str()).collect::<Vec<_>>());
    if globs.is_ok_and(|globs| globs.takes(target.file.as_bytes())) {
        return Ok(());
    }
    let written = desk.session.place.read()?;
    let new = patterns.last().and_then(|last| added(&written.text, last, &target.file));
    if let Some(new) = new
        && let Ok(project) = desk.session.place.project(&written, new.clone())
        && let Some(id) = project.graph.find(task)
        && project.graph.node(id).task.patches().last().is_some_and(|last| last.value == target.file)
    {
        replace(desk, CONFIG, new.as_bytes())?;
        desk.remark(format!("added it to `files` of `{task}` in `{CONFIG}`"));
        return Ok(());
    }
    desk.warn(&[format!(
        "warning: no line of `{CONFIG}` takes it: add `\"{}\"` to `files` of `{task}`",
        target.file
    )]);
    Ok(())
}

/// The configuration with one more patch at the end of a list; nothing if its last one is not plainly there.
fn added(text: &str, last: &Placed<String>, file: &str) -> Option<String> {
    let written = text.get(last.range())?;
    let quote = written.chars().next().filter(|quote| ['"', '\''].contains(quote))?;
    let plain = |path: &str| !path.contains(['"', '\'', '\\', '{']) && !path.contains(char::is_control);
    if *written != format!("{quote}{}{quote}", last.value) || !plain(file) {
        return None;
    }
    let line = text[..last.span.0].rsplit('\n').next().unwrap_or_default();
    let between = match line.trim().is_empty() {
        true => format!(",\n{line}"),
        false => ", ".into(),
    };
    let (head, tail) = text.split_at(last.span.1);
    Some(format!("{head}{between}{quote}{file}{quote}{tail}"))
}
