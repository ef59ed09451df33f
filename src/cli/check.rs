//! `check`: the configuration, patches against their tree, templates. Runs nothing: what is not in the
//! cache is said to be not checked.

use std::collections::BTreeMap;

use super::engine::Engine;
use super::forecast::{self, State};
use super::run::How;
use super::{Halt, Session, say};
use crate::error::{Error, Failure};
use crate::graph::Node;
use crate::host::stop::Stop;
use crate::patch::Overlay;
use crate::report::output::Verbosity;
use crate::tasks::patch;
use crate::tasks::patch_set::{self, Applies, PatchFile, Tree};
use crate::work::{Checked, Inputs, Network, TaskName};

/// Runs the verb.
pub fn run(session: &Session) -> Result<u8, Halt> {
    let cache = session.place.cache()?;
    let project = session.place.load()?;
    let how = How { network: Network::Offline, locked: true, ..How::usual() };
    let stop = Stop::new(Stop::GRACE)?;
    let engine = Engine::new(&session.place, &cache, &project, &how, &stop);
    let all = project.graph.ids().collect();
    let (mut out, mut wrong, mut unchecked) = (String::new(), 0, 0);
    let good = |node: &Node, file: &PatchFile| match session.settings.verbosity {
        Verbosity::Quiet => String::new(),
        _ => format!("{}: `{}` applies\n", node.name, file.name),
    };
    let warned = |node: &Node, note: &str| format!("{}: warning: {note}\n", node.name);
    let (values, shared) = (BTreeMap::new(), engine.session());
    for (id, state) in forecast::forecast(&engine, &all) {
        let node = project.graph.node(id);
        if matches!(state, State::Unknown(_) | State::Blocked(_)) {
            match node.task.check(&Inputs::new(&shared, &values, &forecast::Silent)) {
                Ok(Checked::All) if matches!(state, State::Unknown(_)) => continue,
                Err(Error::Failed(failure)) => {
                    wrong += 1;
                    out.push_str(&shown(&node.name, &failure));
                    continue;
                }
                _ => {}
            }
        }
        match state {
            State::Hit(_, record) => {
                let mut notes = record.warnings.clone();
                let is_patch = node.name.kind() == "patch";
                for file in is_patch.then(|| patch::set(&record.preimage).files).iter().flatten() {
                    out.push_str(&good(node, file));
                    for note in notes.extract_if(.., |note| is_about(note, file)) {
                        out.push_str(&warned(node, &note));
                    }
                }
                for note in notes {
                    out.push_str(&warned(node, &note));
                }
            }
            State::Runs(_, preimage) if node.name.kind() == "patch" => {
                let inputs = Inputs::new(&shared, &values, &forecast::Silent);
                if node.reads.is_empty() {
                    // The files of a project folder are read where they are. That they can be is known.
                    let _ = node.task.work(&inputs);
                }
                let sources = inputs.into_noted().seen.sources;
                let sources = sources.into_iter().map(|source| (source.0.digest, source)).collect();
                let set = patch::set(&preimage);
                let tree = Tree::over(&cache.cas, set.tree, sources);
                let mut now = Overlay::new(&tree);
                let root = project.local.root();
                let texts = set.files.iter().map(|file| Ok((file, patch_set::text(root, &file.name)?)));
                let texts = texts.collect::<Result<Vec<_>, Error>>()?;
                let all = patch_set::apply_all(texts, &mut now, &set.options);
                let left = set.files.len() - all.len();
                for (file, applies) in all {
                    match applies {
                        Applies::Yes(notes) => {
                            out.push_str(&good(node, file));
                            for note in notes {
                                out.push_str(&warned(node, &note));
                            }
                        }
                        Applies::No(Error::Failed(failure)) => {
                            wrong += 1;
                            out.push_str(&shown(&node.name, &failure));
                            if left > 0 {
                                let later = match left {
                                    1 => "the patch after it".to_string(),
                                    many => format!("the {many} patches after it"),
                                };
                                out.push_str(&format!("{}: not checked: {later}\n", node.name));
                            }
                        }
                        Applies::No(_) => {
                            unchecked += 1;
                            out.push_str(&format!("{}: not checked: not fetched\n", node.name));
                        }
                    }
                }
            }
            State::Blocked(why) => {
                wrong += usize::from(!why.contains("is not pinned"));
                unchecked += usize::from(why.contains("is not pinned"));
                let word = if why.contains("is not pinned") { "not checked" } else { "error" };
                out.push_str(&format!("{}: {word}: {why}\n", node.name));
            }
            State::Unknown(task) if node.name.kind() == "patch" => {
                unchecked += 1;
                let why = if task.kind() == "clone" {
                    "not fetched".to_string()
                } else {
                    format!("`{task}` has not run")
                };
                out.push_str(&format!("{}: not checked: {why}\n", node.name));
            }
            State::Runs(..) | State::Asks(..) | State::Unknown(_) => {}
        }
    }
    let tasks = crate::report::text::count(project.graph.nodes.len(), "task");
    out.push_str(&match (wrong, unchecked) {
        (0, 0) => format!("ok: {tasks}\n"),
        (0, n) => format!("ok as far as known: {tasks}, {n} not checked\n"),
        (n, _) => format!("{} in {tasks}\n", crate::report::text::count(n, "error")),
    });
    say(&out);
    Ok(u8::from(wrong > 0))
}

/// Whether a note is about a patch file, whose name it begins with.
fn is_about(note: &str, file: &PatchFile) -> bool {
    note.strip_prefix('`')
        .and_then(|note| note.strip_prefix(&file.name))
        .is_some_and(|rest| rest.starts_with("`:"))
}

fn shown(task: &TaskName, failure: &Failure) -> String {
    let mut text = format!("{task}: error: {}\n", failure.message);
    for line in &failure.detail {
        text.push_str(&format!("    {line}\n"));
    }
    for hint in &failure.hints {
        text.push_str(&format!("    hint: {hint}\n"));
    }
    text
}
