//! When only inputs have changed since a run: the part of the project that this concerns. All else was
//! done then, and is neither read nor scheduled. Falls back to the whole whenever anything is unclear.

use std::collections::BTreeSet;

use super::place::{Place, Project, Written};
use crate::build::Carried;
use crate::memo::{Entry, Known, Outline, table};
use crate::schedule::TaskId;

/// A part of a project.
pub struct Part<'k> {
    /// The tables that are concerned.
    pub project: Project,
    /// Their tasks that belong to the run.
    pub selected: BTreeSet<TaskId>,
    /// The other tasks of the run.
    pub apart: Carried<'k>,
}

/// Whether a task can be taken over without looking at anything but its inputs: neither an effect nor
/// something on a host.
fn is_local(entry: &Entry) -> bool {
    entry.key.is_some() && entry.value.is_some() && !entry.is_remote
}

/// Reads what concerns the tasks that changed since a run that did everything; `written` is the
/// configuration of that run. Nothing if that would be most of the project.
pub fn load<'k>(place: &Place, written: &Written, known: &'k Known) -> Option<Part<'k>> {
    let outline = Outline::decode(&known.outline)?;
    let open = known.entries.iter().filter(|(_, entry)| !is_local(entry)).map(|(name, _)| name);
    let open: BTreeSet<&str> = known.changed.iter().chain(open).map(String::as_str).collect();
    let concerned = outline.concerned(open.iter().copied())?;
    let project = place.project(written, outline.part(&written.text, &concerned)?).ok()?;
    let graph = &project.graph;
    let belongs = |name: &str| {
        concerned.contains(table(name))
            && (known.entries.contains_key(name) || known.changed.contains(name))
    };
    let selected: BTreeSet<TaskId> = graph.ids().filter(|id| belongs(&graph.node(*id).name.0)).collect();
    let apart: Carried<'k> = known
        .entries
        .iter()
        .filter(|(name, _)| !concerned.contains(table(name)))
        .map(|(name, entry)| (name.as_str(), entry))
        .collect();
    let whole = selected.len() + apart.len() == known.entries.len() + known.changed.len();
    (whole && !open.is_empty() && graph.closure(&selected) == selected).then_some(Part {
        project,
        selected,
        apart,
    })
}
