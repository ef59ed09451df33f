//! What may run next. Pure: ids in, ids out; knows no file, clock, thread or task name, and compares
//! values without looking into them. `node.rs` says which states there are, `rules.rs` what moves a
//! task from one to the next, `words.rs` what goes in and comes out; here is what the loop talks to.

mod node;
mod rules;
#[cfg(test)]
mod stories;
mod words;
#[cfg(test)]
mod world;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::report::Outcome;
use node::{Node, Nodes, Rank, State, Tick};
pub use words::*;

/// The state of a run.
///
/// `V` is a task's value, only compared; `L` names what may be lost.
#[derive(Debug)]
pub struct Schedule<V, L> {
    nodes: Nodes<V, L>,
    /// Ready tasks by class and pool, so that a full pool never hides what may start.
    lanes: Vec<Lane>,
    limits: Limits,
    on_failure: OnFailure,
    running_actions: usize,
    running_effects: usize,
    running_in: Vec<usize>,
    /// How many tasks are open.
    open: usize,
    now: Tick,
    halted: Option<Why>,
    /// Tasks whose state may have to follow a change beside them; empty between calls.
    review: VecDeque<TaskId>,
    ended: Vec<TaskId>,
    /// How often a task was looked at; the measure of what all this costs.
    #[cfg(test)]
    nudges: usize,
}

/// The ready tasks of one class and pool.
#[derive(Debug)]
struct Lane {
    class: Class,
    pool: Option<PoolId>,
    ready: BTreeSet<Rank>,
}

impl<V: PartialEq, L: Ord + Clone> Schedule<V, L> {
    /// A run in which nothing has started. All edges lead to tasks of `entries`, without cycles.
    pub fn new(
        entries: impl IntoIterator<Item = (TaskId, Entry)>,
        limits: Limits,
        on_failure: OnFailure,
    ) -> Self {
        assert!(
            limits.jobs > 0 && limits.effects > 0 && !limits.pools.contains(&0),
            "BUG: a limit of 0 would wait for ever"
        );
        let pools = limits.pools.len();
        let mut nodes = Nodes(Vec::new());
        let mut after_of = Vec::new();
        for (id, Entry { mut reads, mut after, class, pool }) in entries {
            reads.sort_unstable();
            reads.dedup();
            after.sort_unstable();
            after.dedup();
            let column = pool.map_or(0, |pool| pool.0 as usize + 1);
            assert!(column <= pools, "BUG: no such pool");
            let slot = id.0 as usize;
            if nodes.0.len() <= slot {
                nodes.0.resize_with(slot + 1, || None);
            }
            assert!(nodes.0[slot].is_none(), "BUG: task {} is there twice", id.0);
            nodes.0[slot] = Some(Node {
                lane: column + if class == Class::Action { 0 } else { pools + 1 },
                rank: (Reverse(0), id),
                reads_open: reads.len(),
                after_open: after.len(),
                reads,
                readers: Vec::new(),
                followers: Vec::new(),
                state: State::Waiting,
                blocked: None,
                stale: false,
                result: None,
                started: 0,
                changed: 0,
                lost: BTreeMap::new(),
                moved: BTreeMap::new(),
                healed: BTreeMap::new(),
                upsets: 0,
            });
            after_of.push((id, after));
        }
        for (id, after) in &after_of {
            for before in after {
                nodes[*before].followers.push(*id);
            }
            for at in 0..nodes[*id].reads.len() {
                let read = nodes[*id].reads[at];
                nodes[read].readers.push(*id);
            }
        }
        let after_of: BTreeMap<_, _> = after_of.into_iter().collect();
        rank(&mut nodes, &after_of);
        let lanes = [Class::Action, Class::Effect].into_iter().flat_map(|class| {
            let columns = std::iter::once(None).chain((0..pools).map(|pool| Some(PoolId(pool as u32))));
            columns.map(move |pool| Lane { class, pool, ready: BTreeSet::new() })
        });
        let mut schedule = Self {
            lanes: lanes.collect(),
            running_in: vec![0; pools],
            limits,
            on_failure,
            running_actions: 0,
            running_effects: 0,
            open: after_of.len(),
            now: 0,
            halted: None,
            review: after_of.keys().copied().collect(),
            ended: Vec::new(),
            #[cfg(test)]
            nudges: 0,
            nodes,
        };
        schedule.settle();
        schedule
    }

    /// The next task to start, which counts as running from now on; to be called until it gives
    /// nothing. Of all tasks that may start it is the one with the longest chain of dependents, then
    /// the lowest id.
    pub fn next(&mut self) -> Option<Start<L>> {
        let free = |lane: &&Lane| {
            let class = match lane.class {
                Class::Action => self.running_actions < self.limits.jobs,
                Class::Effect => self.running_effects < self.limits.effects,
            };
            let place =
                |pool: PoolId| self.running_in[pool.0 as usize] < self.limits.pools[pool.0 as usize];
            class && lane.pool.is_none_or(place)
        };
        let (_, id) = *self.lanes.iter().filter(free).filter_map(|lane| lane.ready.first()).min()?;
        Some(self.start(id))
    }

    /// Takes in how the last run of `id`, which is running, ended.
    pub fn finished(&mut self, id: TaskId, finish: Finish<V, L>) -> Verdict {
        let State::Running { asked } = &self.nodes[id].state else {
            panic!("BUG: task {} finished and was not running", id.0)
        };
        let asked = asked.clone();
        self.now += 1;
        let verdict = match finish {
            Finish::Lost(losses) => self.end_in_loss(id, asked, &losses),
            _ if self.nodes[id].stale => self.run_again(id, asked),
            Finish::Done { value, outcome, restored } => {
                self.end_in_value(id, &asked, (value, outcome), &restored)
            }
            Finish::Unreached => self.end(id, State::Unreached),
            Finish::Failed => self.end(id, State::Failed(None)),
        };
        self.settle();
        verdict
    }

    /// Starts nothing new: what runs may end, the rest is skipped.
    pub fn stop(&mut self) {
        self.halt(Why::Stopped);
        self.settle();
    }

    /// Whether every task has its last outcome; nothing runs then, and nothing will.
    pub fn is_over(&self) -> bool {
        self.open == 0
    }

    #[cfg(test)]
    /// The outcome of a task; nothing while it is open.
    pub fn outcome(&self, id: TaskId) -> Option<Outcome> {
        self.nodes[id].outcome()
    }

    /// The value that the last kept run of a task gave.
    pub fn value(&self, id: TaskId) -> Option<&V> {
        self.nodes[id].result.as_ref().map(|(value, _)| value)
    }

    /// Why a task was skipped, if it was.
    pub fn why_skipped(&self, id: TaskId) -> Option<Why> {
        match self.nodes[id].state {
            State::Skipped(why) => Some(why),
            _ => None,
        }
    }

    /// Why the schedule failed a task by itself, if it did.
    pub fn unhealed(&self, id: TaskId) -> Option<&Unhealed<L>> {
        match &self.nodes[id].state {
            State::Failed(unhealed) => unhealed.as_ref(),
            _ => None,
        }
    }

    /// The tasks that were skipped, or failed as in `unhealed`, since this was last called; each
    /// comes once, and stays so.
    pub fn take_ended(&mut self) -> Vec<TaskId> {
        std::mem::take(&mut self.ended)
    }

    /// How many tasks have which outcome.
    pub fn counts(&self) -> BTreeMap<Outcome, usize> {
        let mut counts = BTreeMap::new();
        for outcome in self.nodes.iter().filter_map(Node::outcome) {
            *counts.entry(outcome).or_default() += 1;
        }
        counts
    }
}

impl<V, L> Node<V, L> {
    /// As `Schedule::outcome`.
    fn outcome(&self) -> Option<Outcome> {
        match &self.state {
            State::Waiting | State::Ready | State::Running { .. } | State::Held => None,
            State::Done => self.result.as_ref().map(|(_, outcome)| *outcome),
            State::Unreached => Some(Outcome::Deferred),
            State::Failed(_) => Some(Outcome::Failed),
            State::Skipped(_) => Some(Outcome::Skipped),
        }
    }
}

/// Gives each task the length of the longest chain of dependents behind it.
fn rank<V, L>(nodes: &mut Nodes<V, L>, after_of: &BTreeMap<TaskId, Vec<TaskId>>) {
    let mut behind: BTreeMap<TaskId, usize> =
        after_of.keys().map(|id| (*id, nodes[*id].readers.len() + nodes[*id].followers.len())).collect();
    let mut last: Vec<TaskId> = behind.iter().filter(|(_, left)| **left == 0).map(|(id, _)| *id).collect();
    let mut ranked = 0;
    while let Some(id) = last.pop() {
        ranked += 1;
        let (Reverse(height), _) = nodes[id].rank;
        let before: Vec<TaskId> = nodes[id].reads.iter().chain(&after_of[&id]).copied().collect();
        for before in before {
            let (Reverse(known), _) = &mut nodes[before].rank;
            *known = (*known).max(height + 1);
            if let Some(left) = behind.get_mut(&before) {
                *left -= 1;
                if *left == 0 {
                    last.push(before);
                }
            }
        }
    }
    assert!(ranked == after_of.len(), "BUG: the tasks form a cycle");
}
