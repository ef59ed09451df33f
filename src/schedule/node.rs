//! One task as the scheduler sees it: its edges, its state, what is known to be lost of its value.
//! Data and documentation only; the rules that move a task are in `rules.rs`.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::{Index, IndexMut};

use super::{TaskId, Unhealed, Why};
use crate::report::Outcome;

/// A moment: raised by one with every start and every finish, so that no two are equal.
pub type Tick = u64;

/// Where a task stands.
///
/// A state is *open* (`Waiting`, `Ready`, `Running`, `Held`) or *settled* (the others), and *dead* if
/// it is settled and no dependent may start (`Unreached`, `Failed`, `Skipped`). Dead is for good; a
/// task that is `Done` may be opened again.
///
/// ```text
///            +--------- lost, or a value that it read changed ---------+
///            v                                                         |
///         Waiting <-> Ready -> Running -> Held <-> Done ---------------+
///            ^                    |         |
///            +---- lost, stale ---+---------+
/// ```
///
/// `Waiting`, `Ready` and `Held` also lead to `Skipped`, `Running` to `Failed` and `Unreached`, and
/// everything that is open or done to `Failed` when its content cannot be healed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State<L> {
    /// It has to run, and something before it is open. Not blocked, and the run is not halted.
    Waiting,
    /// It has to run and may: all that it reads and follows is `Done`. It stands in its lane.
    Ready,
    /// It was given out by `next` and has not finished. When it was, all that it reads and follows
    /// was `Done`; this need not hold any more. `asked` are the digests that it has to make again,
    /// each with the newest moment at which it was known to be lost; empty: it may look up.
    Running {
        /// What is to be made again.
        asked: BTreeMap<L, Tick>,
    },
    /// It has a result that is in doubt: something that it reads is open, and may come out
    /// different, or has to restore content that passes through (`moved`). It does not run; it is
    /// `Done` as soon as its reads are settled, unless one of them changed.
    Held,
    /// It has a result, made from the values that its reads have now, and nothing of it is known to
    /// be lost. None of its reads is open.
    Done,
    /// An effect none of whose destinations could be reached.
    Unreached,
    /// It failed; by itself, or because its content cannot be healed.
    Failed(Option<Unhealed<L>>),
    /// It had to run and cannot.
    Skipped(Why),
}

impl<L> State<L> {
    /// Whether the task has not come to an end.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Waiting | Self::Ready | Self::Running { .. } | Self::Held)
    }

    /// Whether the task came to an end after which no dependent may start.
    pub fn is_dead(&self) -> bool {
        matches!(self, Self::Unreached | Self::Failed(_) | Self::Skipped(_))
    }
}

/// A lost digest that a task only passes on: its inputs have to restore it.
#[derive(Clone, Debug)]
pub struct Moved {
    /// The newest moment at which it was known to be lost.
    pub seen: Tick,
    /// The reads that hold it; not empty.
    pub holders: Vec<TaskId>,
}

/// A digest that was lost from a task's value and is there again.
#[derive(Clone, Copy, Debug)]
pub struct Healed {
    /// When.
    pub at: Tick,
    /// Who brought it back.
    pub by: Healer,
}

/// Who brought a lost digest back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Healer {
    /// The task wrote it again itself: it may not lose it a second time.
    Itself,
    /// An input wrote it, and the task passes it on.
    Another,
}

/// The order in which ready tasks start: the longest chain of dependents first, then by id.
pub type Rank = (Reverse<u32>, TaskId);

/// One task.
#[derive(Debug)]
pub struct Node<V, L> {
    /// Its data edges; sorted and distinct.
    pub reads: Vec<TaskId>,
    /// The tasks that read it.
    pub readers: Vec<TaskId>,
    /// The tasks that come after it without reading it.
    pub followers: Vec<TaskId>,
    /// The queue that it stands in when it is ready.
    pub lane: usize,
    /// Its place in that queue.
    pub rank: Rank,
    /// Where it stands.
    pub state: State<L>,
    /// How many of its reads are open.
    pub reads_open: usize,
    /// How many of the tasks that it only follows are open.
    pub after_open: usize,
    /// Why it may never start again: set once something that it reads or follows is dead.
    pub blocked: Option<Why>,
    /// A value that it read has changed since it was started.
    pub stale: bool,
    /// What its last accepted run gave.
    pub result: Option<(V, Outcome)>,
    /// When it was last started.
    pub started: Tick,
    /// When its value last became a different one.
    pub changed: Tick,
    /// What is lost of its value, for its next start. If it is running: what else was found lost
    /// since.
    pub lost: BTreeMap<L, Tick>,
    /// What its inputs have to restore; empty unless `Held`.
    pub moved: BTreeMap<L, Moved>,
    /// What was lost and is there again.
    pub healed: BTreeMap<L, Healed>,
    /// How often being made again did not bring the same value, or not even an end.
    pub upsets: u32,
}

/// All tasks by id; ids need not be dense.
#[derive(Debug)]
pub struct Nodes<V, L>(pub Vec<Option<Node<V, L>>>);

impl<V, L> Nodes<V, L> {
    /// The tasks in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = &Node<V, L>> {
        self.0.iter().flatten()
    }
}

impl<V, L> Index<TaskId> for Nodes<V, L> {
    type Output = Node<V, L>;

    fn index(&self, id: TaskId) -> &Self::Output {
        match self.0.get(id.0 as usize) {
            Some(Some(node)) => node,
            _ => panic!("BUG: task {} is not part of the schedule", id.0),
        }
    }
}

impl<V, L> IndexMut<TaskId> for Nodes<V, L> {
    fn index_mut(&mut self, id: TaskId) -> &mut Self::Output {
        match self.0.get_mut(id.0 as usize) {
            Some(Some(node)) => node,
            _ => panic!("BUG: task {} is not part of the schedule", id.0),
        }
    }
}
