//! The tree that patches were made for, before the pin moved: of a run that went well, of a revision that
//! the user names, or of what git has committed of the project.

use super::super::engine::Engine;
use super::super::run::How;
use super::open::open;
use super::rebase_state::Old;
use super::{Desk, Halt};
use crate::cli::place::CONFIG;
use crate::digest::{Blob, Digest};
use crate::error::{Error, Failure, Mistake, Result};
use crate::host::git;
use crate::host::stop::Stop;
use crate::patch::Overlay;
use crate::pins::{self, Pin, Pins};
use crate::recipe::Content;
use crate::tasks::patch_set::{self, PatchFile, Set, Tree};
use crate::tasks::{clone, patch};

/// What the patches of a task were made for; nothing if that is not known. `now` is the tree below them.
pub fn find(desk: &Desk<'_>, task: &str, now: &Digest, from: Option<&str>) -> Result<Option<Old>, Halt> {
    if let Some(rev) = from {
        return of_revision(desk, task, rev).map(Some);
    }
    if let Some(old) = of_runs(desk, task, now) {
        return Ok(Some(old));
    }
    of_commit(desk, task, now)
}

/// The last run with other patches or another tree in which all went in.
fn of_runs(desk: &Desk<'_>, task: &str, now: &Digest) -> Option<Old> {
    let keys = desk.cache.history(desk.root()).keys(task);
    let sets = keys.iter().filter_map(|key| Some(patch::set(&desk.cache.lookup(key)?.preimage)));
    let differs = |set: &Set| {
        let same = |file: &PatchFile| {
            patch_set::text(desk.root(), &file.name).is_ok_and(|text| Digest::of(&text) == file.digest)
        };
        set.tree != *now || !set.files.iter().all(same)
    };
    sets.filter(differs).find_map(|set| readable(desk, set).ok())
}

/// A recorded set, if all of it is still in the cache.
fn readable(desk: &Desk<'_>, set: Set) -> Result<Old> {
    let cas = &desk.cache.cas;
    let mut patches = Vec::new();
    for file in &set.files {
        let text = cas.read(Blob { digest: file.digest, size: file.size })?;
        patches.push((file.name.clone(), text));
    }
    let tree = Tree::new(cas, set.tree);
    let mut now = Overlay::new(&tree);
    for (file, (_, text)) in set.files.iter().zip(&patches) {
        now.lay(file.apply(text, &now, &set.options)?.changes);
    }
    Ok(Old { tree: set.tree, patches })
}

/// The tree of a revision of the clone that a task's tree comes from, with the patches as they are.
fn of_revision(desk: &Desk<'_>, task: &str, rev: &str) -> Result<Old, Halt> {
    let mut project = desk.session.place.load()?;
    let Some(id) = project.graph.find(task) else { panic!("BUG: a task that is not there") };
    let below = project.graph.closure(&[id].into());
    let clones: Vec<_> =
        below.into_iter().filter(|id| project.graph.node(*id).task.at(rev).is_some()).collect();
    let [source] = clones[..] else {
        let message = format!("`{task}` is made of {} clones, and `--from` needs one", clones.len());
        return Err(Mistake::new(message).into());
    };
    let Some(at) = project.graph.node(source).task.at(rev) else { panic!("BUG: this was a clone") };
    let commit = match at.pins().first() {
        Some(Pin::Git { url, rev }) => {
            let (how, stop) = (How::usual(), Stop::new(Stop::GRACE)?);
            let engine = Engine::new(&desk.session.place, desk.cache, &project, &how, &stop);
            clone::resolve(url, rev, &engine.session())?.commit
        }
        _ => rev.to_string(),
    };
    if let (Some(task), Some(node)) = (at.at(&commit), project.graph.nodes.get_mut(source.0 as usize)) {
        node.task = task;
    }
    open(desk, &mut project, id, |opened| {
        let text = |file: &PatchFile| Ok((file.name.clone(), patch_set::text(opened.root, &file.name)?));
        let patches = opened.set.files.iter().map(text).collect::<Result<_>>()?;
        Ok(Old { tree: opened.set.tree, patches })
    })
}

/// What the configuration, the lock and the patches that git has committed come to.
fn of_commit(desk: &Desk<'_>, task: &str, now: &Digest) -> Result<Option<Old>, Halt> {
    let Some(committed) = git::Committed::open(desk.root()) else { return Ok(None) };
    let text = |name: &str| committed.file(name).and_then(|bytes| String::from_utf8(bytes).ok());
    let (Some(config), Some(lock)) = (text(CONFIG), text(pins::NAME)) else { return Ok(None) };
    let Ok(pins) = Pins::parse(&lock) else { return Ok(None) };
    let place = &desk.session.place;
    let Ok(mut project) = place.project_of(&place.read()?, config, pins) else { return Ok(None) };
    let Some(id) = project.graph.find(task) else { return Ok(None) };
    if project.graph.node(id).task.patches().is_empty() {
        return Ok(None);
    }
    let old = open(desk, &mut project, id, move |opened| {
        let text = |file: &PatchFile| {
            let text = committed.file(&file.name);
            Ok((file.name.clone(), text.map_or_else(|| patch_set::text(opened.root, &file.name), Ok)?))
        };
        let patches = opened.set.files.iter().map(text).collect::<Result<_>>()?;
        Ok(Old { tree: opened.set.tree, patches })
    })?;
    Ok(Some(old).filter(|old| old.tree != *now))
}

/// Says that it is not known.
pub fn unknown(name: &str, why: &Failure) -> Error {
    let message = format!("`{name}` does not go into the tree, and what it was made for is not known");
    Failure::new(message)
        .detail([vec![why.message.clone()], why.detail.clone()].concat())
        .hint("`--from REV` names the revision of the clone that it was made for")
        .into()
}
