//! Writes the memo of a run: what its steps saw, and what was carried over from the run before.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::place::Place;
use crate::build::Summary;
use crate::cache::local::Fact;
use crate::graph::Graph;
use crate::memo::{self, Memo};
use crate::report::Verdict;
use crate::schedule::TaskId;

/// The memo of the run before, and where the new one goes.
pub struct To<'a> {
    /// The memo of the run before.
    pub memo: Option<&'a Memo>,
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
    let names: BTreeSet<&str> = selected.iter().map(|id| graph.node(*id).name.0.as_str()).collect();
    let (mut effects, mut remote, mut complete) = (Vec::new(), Vec::new(), summary.verdict == Verdict::Ok);
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
