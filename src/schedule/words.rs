//! What goes into the schedule and what comes out of it. Data only.

use crate::report::Outcome;

/// A task: its index in the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub u32);

/// A pool: its index in `Limits::pools`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolId(pub u32);

/// Which number bounds a running task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// `Limits::jobs`.
    Action,
    /// `Limits::effects`.
    Effect,
}

/// A selected task, as the graph gives it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The tasks whose values it reads.
    pub reads: Vec<TaskId>,
    /// The tasks that it comes after.
    pub after: Vec<TaskId>,
    /// Which number bounds it.
    pub class: Class,
    /// The pool that it takes a place of while it runs.
    pub pool: Option<PoolId>,
}

/// How many tasks may run at once; none of the numbers is 0.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Running actions.
    pub jobs: usize,
    /// Running effects.
    pub effects: usize,
    /// Running tasks of each pool.
    pub pools: Vec<usize>,
}

/// What a failure means for tasks that do not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// They go on.
    GoOn,
    /// Nothing new starts, what runs ends, the rest is skipped.
    Stop,
}

/// A task that has to run now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start<L> {
    /// The task.
    pub id: TaskId,
    /// How it has to run.
    pub mode: Mode<L>,
}

/// How a task has to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode<L> {
    /// A recorded result will do.
    LookUp,
    /// Recorded results and stamps of local inputs are not trusted: it has to run, and to store its
    /// local inputs. `lost` is what it is about, sorted, at least one; a finish with `Finish::Done`
    /// answers for each.
    Remake {
        /// What was lost of its value, or of its local inputs.
        lost: Vec<L>,
    },
}

/// How a run of a task ended.
#[derive(Clone, Debug)]
pub enum Finish<V, L> {
    /// It has a value. An effect that was deferred at some destinations and reached others is done.
    Done {
        /// Its value.
        value: V,
        /// `Hit` or `Ran`; `Unchanged`, `Applied` or `Deferred`.
        outcome: Outcome,
        /// What became of each digest of `Mode::Remake`; empty after `Mode::LookUp`.
        restored: Vec<(L, Restored)>,
    },
    /// An effect reached none of its destinations: what follows it is skipped.
    Unreached,
    /// It failed.
    Failed,
    /// It could not read these; at least one.
    Lost(Vec<Loss<L>>),
}

/// Content that a run needed and that was not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss<L> {
    /// Its name.
    pub digest: L,
    /// The task whose value was read: one of the reads, or the running task itself if it is one of
    /// its local inputs or part of its own recorded value.
    pub owner: TaskId,
}

/// What became of a lost digest when its owner was made again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Restored {
    /// This run wrote it: its output, or a local input that it stored. To be said only if it did; a
    /// second loss is then a failure of the task.
    Written,
    /// Its value refers to it and the task did not write it: these of its reads hold it.
    PassedThrough {
        /// At least one, otherwise the task is failed.
        holders: Vec<TaskId>,
    },
    /// Its value does not refer to it any more, and the run could do without it.
    Gone,
}

/// Whether a finish counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the task's last outcome, so far.
    Kept,
    /// It is forgotten: something was lost, or a value that was read has changed meanwhile. The task
    /// runs again, or is skipped.
    Dropped,
}

/// Why a task was skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The first task of the chain: it failed, or none of its destinations was reached.
    Task(TaskId),
    /// The run was stopped.
    Stopped,
}

/// Why the schedule failed a task by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unhealed<L> {
    /// The task wrote it again in this run, and it was lost again.
    Again(L),
    /// It is lost, and the task was made again too often without giving the same value twice.
    Changing(L),
    /// The task's value refers to it, and neither the task nor any of its reads makes it.
    Nowhere(L),
}
