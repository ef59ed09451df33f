//! Writes the memo of a run: what its steps saw, and what was carried over from the run before.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::place::Place;
use crate::build::Summary;
use crate::cache::local::Fact;
use crate::graph::Graph;
use crate::memo::{self, Entry, Memo};
use crate::report::Verdict;
use crate::schedule::TaskId;

/// The memo of the run before, and where the new one goes.
pub struct To<'a> {
    /// The memo of the run before.
    pub memo: Option<&'a Memo>,
    /// What still held of it.
    pub known: Option<&'a BTreeMap<String, Entry>>,
    /// Where it goes.
    pub path: PathBuf,
    /// The moment before the run looked at anything.
    pub began: i64,
    /// What holds for all tasks.
    pub common: Vec<Fact>,
    /// The encoded outline of the configuration.
    pub outline: Vec<u8>,
}

/// Writes the memo of a run.
pub fn remember(
    summary: Summary<'_>,
    graph: &Graph,
    selected: &BTreeSet<TaskId>,
    to: To<'_>,
    place: &Place,
) -> crate::error::Result<()> {
    let mut draft = memo::Draft::new(to.began, &to.common);
    draft.set_parallel(place.links.parallel());
    let names: BTreeSet<&str> = selected.iter().map(|id| graph.node(*id).name.0.as_str()).collect();
    let (mut effects, mut remote, mut complete) = (Vec::new(), Vec::new(), summary.verdict == Verdict::Ok);
    // Those that were left apart may have read what is another thing now.
    let some_are_apart = || summary.carried.keys().any(|name| graph.find(name).is_none());
    complete &= !(to.known.is_some_and(|known| is_another(&summary, known)) && some_are_apart());
    let carried = summary.carried;
    let mut kept: BTreeSet<String> = BTreeSet::new();
    for (task, ended) in summary.tasks {
        let Some((entry, noted)) = ended.memo else { continue };
        if let Some(wants) = &entry.wants {
            let kind = task.split('.').next().unwrap_or_default();
            effects.push((kind.to_string(), wants.clone()));
        }
        remote.extend(noted.remote);
        draft.task(&task, &entry, &noted.seen.facts, &place.env, &noted.variables);
        kept.insert(task);
    }
    complete &= names.iter().all(|name| kept.contains(*name) || carried.contains_key(*name));
    let tasks = names.len() + carried.keys().filter(|name| !names.contains(*name)).count();
    if let Some(memo) = to.memo {
        draft.carry(&carried, memo, &place.env);
    }
    draft.write(&to.path, complete, tasks, effects, remote, &to.outline)
}

/// Whether a task made something else of the same: its result was lost, and it is not the same twice.
fn is_another(summary: &Summary<'_>, known: &BTreeMap<String, Entry>) -> bool {
    summary.tasks.iter().any(|(task, ended)| {
        let before = known.get(task).filter(|before| before.key.is_some());
        before.is_some_and(|before| before.key == ended.ending.key && before.value != ended.ending.value)
    })
}
