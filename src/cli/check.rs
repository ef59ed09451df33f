//! `check`: the configuration, patches against their tree, templates. Runs nothing: what is not in the
//! cache is said to be not checked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::engine::Engine;
use super::forecast::{self, State};
use super::run::How;
use super::{Halt, Session, say};
use crate::error::{Error, Failure, Result};
use crate::graph::Node;
use crate::host::stop::Stop;
use crate::patch::Overlay;
use crate::report::output::Verbosity;
use crate::report::text::count;
use crate::tasks::patch;
use crate::tasks::patch_set::{self, PatchFile, Set, Tree};
use crate::work::{Checked, Inputs, Network};

/// Runs the verb.
pub fn run(session: &Session) -> Result<u8, Halt> {
    let cache = session.place.cache()?;
    let project = session.place.load()?;
    let how = How { network: Network::Offline, locked: true, ..How::usual() };
    let stop = Stop::new(Stop::GRACE)?;
    let engine = Engine::new(&session.place, &cache, &project, &how, &stop);
    let all = project.graph.ids().collect();
    let verbosity = session.settings.verbosity;
    let mut found = Findings { text: String::new(), wrong: 0, unchecked: 0, verbosity };
    let (values, shared) = (BTreeMap::new(), engine.session());
    for (id, state) in forecast::forecast(&engine, &all) {
        let node = project.graph.node(id);
        if matches!(state, State::Unknown(_) | State::Blocked(_)) {
            match node.task.check(&Inputs::new(&shared, &values, &forecast::Silent)) {
                Ok(Checked::All) if matches!(state, State::Unknown(_)) => continue,
                Err(Error::Failed(failure)) => {
                    found.wrong(node, &failure);
                    continue;
                }
                _ => {}
            }
        }
        let is_patch = node.name.kind() == "patch";
        match state {
            State::Hit(_, record) => {
                let mut notes = record.warnings.clone();
                for file in is_patch.then(|| patch::set(&record.preimage).files).iter().flatten() {
                    let own: Vec<String> = notes.extract_if(.., |note| is_about(note, file)).collect();
                    found.applies(node, file, &[], &own);
                }
                found.warned(node, &notes);
            }
            State::Runs(_, preimage) if is_patch => {
                let inputs = Inputs::new(&shared, &values, &forecast::Silent);
                if node.reads.is_empty() {
                    // The files of a project folder are read where they are. That they can be is known.
                    let _ = node.task.work(&inputs);
                }
                let sources = inputs.into_noted().seen.sources;
                let sources = sources.into_iter().map(|source| (source.0.digest, source)).collect();
                let set = patch::set(&preimage);
                let tree = Tree::over(&cache.cas, set.tree, sources);
                found.patches(node, &set, &tree, project.local.root())?;
            }
            State::Blocked(why) if why.contains("is not pinned") => found.unchecked(node, &why),
            State::Blocked(why) => found.wrong(node, &Failure::new(why)),
            State::Unknown(task) if is_patch => match task.kind() {
                "clone" => found.unchecked(node, "not fetched"),
                _ => found.unchecked(node, &format!("`{task}` has not run")),
            },
            State::Runs(..) | State::Asks(..) | State::Unknown(_) => {}
        }
    }
    let tasks = count(project.graph.nodes.len(), "task");
    let Findings { mut text, wrong, unchecked, .. } = found;
    text.push_str(&match (wrong, unchecked) {
        (0, 0) => format!("ok: {tasks}\n"),
        (0, n) => format!("ok as far as known: {tasks}, {n} not checked\n"),
        (n, _) => format!("{} in {tasks}\n", count(n, "error")),
    });
    say(&text);
    Ok(u8::from(wrong > 0))
}

/// What was found, as text and in numbers.
struct Findings {
    text: String,
    wrong: usize,
    unchecked: usize,
    verbosity: Verbosity,
}

impl Findings {
    /// Applies all patches of a task, each over those before it that can be applied.
    fn patches(&mut self, node: &Node, set: &Set, tree: &Tree<'_>, root: &Path) -> Result<()> {
        let mut now = Overlay::new(tree);
        let mut refused: Vec<(&PatchFile, BTreeSet<Vec<u8>>)> = Vec::new();
        for file in &set.files {
            let text = patch_set::text(root, &file.name)?;
            let without: Vec<&PatchFile> = refused.iter().map(|(file, _)| *file).collect();
            match file.apply(&text, &now, &set.options) {
                Ok(applied) => {
                    let notes: Vec<String> = applied.notes.iter().map(ToString::to_string).collect();
                    self.applies(node, file, &without, &notes);
                    now.lay(applied.changes);
                }
                Err(Error::Failed(failure)) => {
                    let paths = file.paths(&text, &set.options);
                    match refused.iter().find(|(_, other)| !other.is_disjoint(&paths)) {
                        Some((first, _)) => {
                            let why = format!(
                                "`{}` changes files of `{}`, which does not apply",
                                file.name, first.name
                            );
                            self.unchecked(node, &why);
                        }
                        None => self.wrong(node, &failure),
                    }
                    refused.push((file, paths));
                }
                Err(_) => {
                    self.unchecked(node, "not fetched");
                    break;
                }
            }
        }
        Ok(())
    }

    fn applies(&mut self, node: &Node, file: &PatchFile, without: &[&PatchFile], notes: &[String]) {
        let without = match without {
            [] => String::new(),
            [one] => format!(" without `{}`", one.name),
            many => format!(" without the {} before it that do not", many.len()),
        };
        if self.verbosity > Verbosity::Quiet {
            self.text.push_str(&format!("{}: `{}` applies{without}\n", node.name, file.name));
        }
        self.warned(node, notes);
    }

    fn warned(&mut self, node: &Node, notes: &[String]) {
        for note in notes {
            self.text.push_str(&format!("{}: warning: {note}\n", node.name));
        }
    }

    fn unchecked(&mut self, node: &Node, why: &str) {
        self.unchecked += 1;
        self.text.push_str(&format!("{}: not checked: {why}\n", node.name));
    }

    fn wrong(&mut self, node: &Node, failure: &Failure) {
        self.wrong += 1;
        let mut text = format!("{}: error: {}\n", node.name, failure.message);
        for line in &failure.detail {
            text.push_str(&format!("    {line}\n"));
        }
        for hint in &failure.hints {
            text.push_str(&format!("    hint: {hint}\n"));
        }
        self.text.push_str(&text);
    }
}

/// Whether a note is about a patch file, whose name it begins with.
fn is_about(note: &str, file: &PatchFile) -> bool {
    let rest = note.strip_prefix('`').and_then(|note| note.strip_prefix(&file.name));
    rest.is_some_and(|rest| rest.starts_with("`:"))
}
