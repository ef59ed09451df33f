//! The rules that move a task from one state to the next. Every state goes through `set`, which keeps
//! the counts; `review` then lets the tasks beside it follow.
//!
//! Why a run ends: edges form no cycle, so something is ready or runs while anything is open; and a
//! task is made again for a digest that it wrote once at most, and otherwise `MOST_UPSETS` times.

use std::collections::BTreeMap;

use super::node::{Healed, Healer, Moved, Node, State, Tick};
use super::{Class, Loss, Mode, OnFailure, Restored, Schedule, Start, TaskId, Unhealed, Verdict, Why};
use crate::report::Outcome;

/// How often a task may be made again without giving the value that it had: a cache that loses what
/// was just written, under a task that writes something new each time, would keep a run going for ever.
pub const MOST_UPSETS: u32 = 8;

impl<V: PartialEq, L: Ord + Clone> Schedule<V, L> {
    /// Gives out a task. Before: it is `Ready`, and its limits have a place. After: it is `Running`,
    /// and has to make again what was lost of it.
    pub(super) fn start(&mut self, id: TaskId) -> Start<L> {
        self.now += 1;
        let node = &mut self.nodes[id];
        node.started = self.now;
        node.stale = false;
        let asked = std::mem::take(&mut node.lost);
        let mode = match asked.is_empty() {
            true => Mode::LookUp,
            false => Mode::Remake { lost: asked.keys().cloned().collect() },
        };
        self.set(id, State::Running { asked });
        Start { id, mode }
    }

    /// Ends a run for good. Before: `Running`, and no value that it read has changed.
    pub(super) fn end(&mut self, id: TaskId, state: State<L>) -> Verdict {
        self.set(id, state);
        Verdict::Kept
    }

    /// Forgets a run. Before: `Running`. After: `Waiting`, with all that is still lost of it.
    pub(super) fn run_again(&mut self, id: TaskId, asked: BTreeMap<L, Tick>) -> Verdict {
        for (digest, seen) in asked {
            self.nodes[id].note(digest, seen);
        }
        self.set(id, State::Waiting);
        self.review.push_back(id);
        Verdict::Dropped
    }

    /// Takes in a value. Before: `Running`, no value that it read has changed, and `restored` answers
    /// for all that was asked. After: `Held`, so that `review` makes it `Done` if nothing before it is
    /// open; readers of another value are stale; losses that only pass through are its holders'.
    pub(super) fn end_in_value(
        &mut self,
        id: TaskId,
        asked: &BTreeMap<L, Tick>,
        result: (V, Outcome),
        restored: &[(L, Restored)],
    ) -> Verdict {
        let answers: BTreeMap<&L, &Restored> = restored.iter().map(|(digest, how)| (digest, how)).collect();
        assert!(answers.keys().copied().eq(asked.keys()), "BUG: task {} did not answer as asked", id.0);
        let nowhere =
            |how: &Restored| matches!(how, Restored::PassedThrough { holders } if holders.is_empty());
        if let Some((digest, _)) = answers.iter().find(|(_, how)| nowhere(how)) {
            self.set(id, State::Failed(Some(Unhealed::Nowhere((*digest).clone()))));
            return Verdict::Dropped;
        }
        let node = &mut self.nodes[id];
        let outcome = result.1;
        let same = node.result.as_ref().map(|(value, _)| *value == result.0);
        node.result = Some(result);
        // What was found lost while it ran: a run that wrote has most likely written that too, and
        // who found it tries again anyway; a recorded result has not.
        let late = std::mem::take(&mut node.lost);
        if same != Some(true) {
            node.changed = self.now;
            self.tell_readers(id);
        }
        self.set(id, State::Held);
        self.review.push_back(id);
        for (digest, how) in answers {
            let seen = asked[digest];
            let node = &mut self.nodes[id];
            match how {
                Restored::Written => node.heal(digest.clone(), self.now, Healer::Itself),
                Restored::Gone => {}
                Restored::PassedThrough { holders } => {
                    node.moved.insert(digest.clone(), Moved { seen, holders: holders.clone() });
                    for holder in holders {
                        self.expect_read(id, *holder);
                        self.lose(*holder, digest, seen);
                    }
                }
            }
        }
        let gone = restored.iter().any(|(_, how)| *how == Restored::Gone);
        if !asked.is_empty() && (same == Some(false) || gone) {
            self.nodes[id].upsets += 1;
        }
        if same == Some(true) && outcome == Outcome::Hit {
            for (digest, seen) in late {
                self.lose(id, &digest, seen);
            }
        }
        Verdict::Kept
    }

    /// Takes in that a run could not read something. Before: `Running`. After: `Waiting`, with all
    /// that is still lost of it, or `Failed`; the owners are open, unless the loss is old news.
    pub(super) fn end_in_loss(
        &mut self,
        id: TaskId,
        asked: BTreeMap<L, Tick>,
        losses: &[Loss<L>],
    ) -> Verdict {
        assert!(!losses.is_empty(), "BUG: task {} lost nothing", id.0);
        let started = self.nodes[id].started;
        let again = losses.iter().find(|loss| loss.owner == id && asked.contains_key(&loss.digest));
        if let Some(loss) = again {
            // It stored that anew in the very run that could not read it.
            self.set(id, State::Failed(Some(Unhealed::Again(loss.digest.clone()))));
            return Verdict::Dropped;
        }
        self.run_again(id, asked);
        for Loss { digest, owner } in losses.iter().filter(|loss| loss.owner == id) {
            self.lose(*owner, digest, started);
        }
        if losses.iter().any(|loss| loss.owner == id) {
            self.nodes[id].upsets += 1;
        }
        for Loss { digest, owner } in losses.iter().filter(|loss| loss.owner != id) {
            self.expect_read(id, *owner);
            // A later value need not hold it: the next try will show.
            if self.nodes[*owner].changed < started && !self.nodes[id].state.is_dead() {
                self.lose(*owner, digest, started);
            }
        }
        Verdict::Dropped
    }

    /// Notes that `digest` was missing from the value of `owner` for somebody who started at `seen`.
    /// After: `owner` is open and will be made again, or is dead; or it has been healed since `seen`;
    /// or it runs, and who found the loss tries again when it has finished.
    fn lose(&mut self, owner: TaskId, digest: &L, seen: Tick) {
        let node = &mut self.nodes[owner];
        let healed = node.healed.get(digest).copied();
        if node.state.is_dead() || healed.is_some_and(|healed| healed.at > seen) {
            return;
        }
        match &node.state {
            State::Running { .. } => return node.note(digest.clone(), seen),
            State::Held if node.moved.contains_key(digest) => return,
            _ => {}
        }
        let unhealed = match healed {
            Some(Healed { by: Healer::Itself, .. }) => Some(Unhealed::Again(digest.clone())),
            _ if node.upsets >= MOST_UPSETS => Some(Unhealed::Changing(digest.clone())),
            _ => None,
        };
        if unhealed.is_some() {
            return self.set(owner, State::Failed(unhealed));
        }
        node.note(digest.clone(), seen);
        if matches!(node.state, State::Held | State::Done) {
            for (digest, Moved { seen, .. }) in std::mem::take(&mut node.moved) {
                node.note(digest, seen);
            }
            self.set(owner, State::Waiting);
            self.review.push_back(owner);
        }
    }

    /// Lets every task follow what changed beside it, until nothing moves.
    pub(super) fn settle(&mut self) {
        while let Some(id) = self.review.pop_front() {
            #[cfg(test)]
            {
                self.nudges += 1;
            }
            self.review_one(id);
        }
    }

    /// Moves a task to the state that its neighbours leave it.
    fn review_one(&mut self, id: TaskId) {
        let node = &mut self.nodes[id];
        match node.state {
            State::Waiting | State::Ready => {
                let next = match node.blocked.or(self.halted) {
                    Some(why) => State::Skipped(why),
                    None if node.reads_open + node.after_open == 0 => State::Ready,
                    None => State::Waiting,
                };
                if next != node.state {
                    self.set(id, next);
                }
            }
            State::Held if node.stale => {
                self.set(id, State::Waiting);
                self.review.push_back(id);
            }
            State::Held if node.reads_open == 0 => self.release(id),
            State::Done if node.reads_open > 0 => self.set(id, State::Held),
            _ => {}
        }
    }

    /// Ends a doubt. Before: `Held`, not stale, and none of its reads is open. After: `Done`, or
    /// `Skipped` if content that it passes on could not be restored.
    fn release(&mut self, id: TaskId) {
        let moved = std::mem::take(&mut self.nodes[id].moved);
        for Moved { holders, .. } in moved.values() {
            let mut dead = holders.iter().filter_map(|holder| self.why_dead(*holder));
            if let Some(why) = dead.next().filter(|_| dead.count() + 1 == holders.len()) {
                return self.set(id, State::Skipped(why));
            }
        }
        for digest in moved.into_keys() {
            self.nodes[id].heal(digest, self.now, Healer::Another);
        }
        self.set(id, State::Done);
    }

    /// Halts the run, once. After: `settle` skips all that is waiting or ready.
    pub(super) fn halt(&mut self, why: Why) {
        if self.halted.is_none() {
            self.halted = Some(why);
            let ids = self.nodes.iter().map(|node| node.rank.1);
            self.review.extend(ids);
        }
    }

    /// The one place where a state changes. Keeps the lanes, the running and open counts and what
    /// dependents know about the task; those that may have to follow come to `review`.
    fn set(&mut self, id: TaskId, state: State<L>) {
        let node = &mut self.nodes[id];
        let was = std::mem::replace(&mut node.state, state);
        assert!(!was.is_dead(), "BUG: task {} was at its end", id.0);
        if node.state != State::Held {
            node.moved.clear();
        }
        let lane = &mut self.lanes[node.lane];
        let (class, pool) = (lane.class, lane.pool);
        match was {
            State::Ready => assert!(lane.ready.remove(&node.rank), "BUG: task {} was in no lane", id.0),
            State::Running { .. } => {
                *running(class, &mut self.running_actions, &mut self.running_effects) -= 1;
                pool.into_iter().for_each(|pool| self.running_in[pool.0 as usize] -= 1);
            }
            _ => {}
        }
        match node.state {
            State::Ready => assert!(lane.ready.insert(node.rank), "BUG: task {} was in its lane", id.0),
            State::Running { .. } => {
                *running(class, &mut self.running_actions, &mut self.running_effects) += 1;
                pool.into_iter().for_each(|pool| self.running_in[pool.0 as usize] += 1);
            }
            State::Skipped(_) | State::Failed(Some(_)) => self.ended.push(id),
            _ => {}
        }
        let (was_open, is_open) = (was.is_open(), node.state.is_open());
        let failed = matches!(node.state, State::Failed(_));
        let dead = self.why_dead(id);
        if was_open != is_open || dead.is_some() {
            self.open = self.open + usize::from(is_open) - usize::from(was_open);
            self.tell_dependents(id, usize::from(was_open), usize::from(is_open), dead);
        }
        if failed && self.on_failure == OnFailure::Stop {
            self.halt(Why::Task(id));
        }
    }

    /// Brings the counts of all dependents up to date.
    fn tell_dependents(&mut self, id: TaskId, was_open: usize, is_open: usize, dead: Option<Why>) {
        let readers = std::mem::take(&mut self.nodes[id].readers);
        let followers = std::mem::take(&mut self.nodes[id].followers);
        for reader in &readers {
            let node = &mut self.nodes[*reader];
            node.reads_open = node.reads_open + is_open - was_open;
        }
        for follower in &followers {
            let node = &mut self.nodes[*follower];
            node.after_open = node.after_open + is_open - was_open;
        }
        for dependent in readers.iter().chain(&followers) {
            let node = &mut self.nodes[*dependent];
            node.blocked = node.blocked.or(dead);
            self.review.push_back(*dependent);
        }
        self.nodes[id].readers = readers;
        self.nodes[id].followers = followers;
    }

    /// Marks the readers that have a result, or are about to have one, of an earlier value.
    fn tell_readers(&mut self, id: TaskId) {
        let readers = std::mem::take(&mut self.nodes[id].readers);
        for reader in &readers {
            let node = &mut self.nodes[*reader];
            if matches!(node.state, State::Running { .. } | State::Held) {
                node.stale = true;
                self.review.push_back(*reader);
            }
        }
        self.nodes[id].readers = readers;
    }

    /// What a dependent of this task is skipped for, if it has to be.
    fn why_dead(&self, id: TaskId) -> Option<Why> {
        match self.nodes[id].state {
            State::Unreached | State::Failed(_) => Some(Why::Task(id)),
            State::Skipped(why) => Some(why),
            _ => None,
        }
    }

    fn expect_read(&self, id: TaskId, read: TaskId) {
        let found = self.nodes[id].reads.binary_search(&read).is_ok();
        assert!(found, "BUG: task {} does not read task {}", id.0, read.0);
    }
}

impl<V, L: Ord> Node<V, L> {
    /// Notes a loss for the next start; of several, the newest counts.
    fn note(&mut self, digest: L, seen: Tick) {
        let known = self.lost.entry(digest).or_insert(seen);
        *known = seen.max(*known);
    }

    /// Notes that a lost digest is there again.
    fn heal(&mut self, digest: L, at: Tick, by: Healer) {
        self.healed.insert(digest, Healed { at, by });
    }
}

/// The count that a class belongs to.
fn running<'a>(class: Class, actions: &'a mut usize, effects: &'a mut usize) -> &'a mut usize {
    match class {
        Class::Action => actions,
        Class::Effect => effects,
    }
}
