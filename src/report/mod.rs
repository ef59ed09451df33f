//! What happened, as data, and the trait of those who show it. Knows no task, config or cache: it
//! sees `Event` only. The only folder that prints.

pub mod json;
mod lines;
pub mod mistakes;
pub mod output;
pub mod plain;
pub mod plan;
pub mod progress;
mod running;
#[cfg(test)]
mod scenes;
#[cfg(test)]
mod screen;
mod story;
pub mod text;

use serde::Serialize;

use crate::digest::Digest;
use crate::error::Failure;

/// How a task, or one destination of an effect, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The action's result was in the cache.
    Hit,
    /// The action ran.
    Ran,
    /// Everything was there already.
    Unchanged,
    /// What was missing was brought there.
    Applied,
    /// The destination could not be reached; the next run does it.
    Deferred,
    /// A task before it failed, or the run was stopped.
    Skipped,
    /// It failed.
    Failed,
}

impl Outcome {
    /// The outcome as it stands in files.
    pub fn word(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Ran => "ran",
            Self::Unchanged => "unchanged",
            Self::Applied => "applied",
            Self::Deferred => "deferred",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
        }
    }
}

/// What happened, in order. Task names are whole: `compile.bin[syncer]`.
#[derive(Clone, Debug)]
pub enum Event {
    /// The run begins: so many tasks are selected.
    Begin {
        /// The number of selected tasks.
        tasks: usize,
    },
    /// A task has work to do (an action runs, an effect applies); sent only when it really does.
    Start {
        /// The task.
        task: String,
    },
    /// Bytes moved by a running task; sent at most some ten times a second for each.
    Progress {
        /// The task.
        task: String,
        /// The destination, for effects.
        destination: Option<String>,
        /// Bytes so far.
        done: u64,
        /// Bytes in all, if known.
        total: Option<u64>,
    },
    /// Something worth a line while the run goes on: a pin was added, a lock is waited for.
    Note {
        /// The task, if it is about one.
        task: Option<String>,
        /// One line.
        text: String,
    },
    /// A warning: shown at once and never hidden.
    Warning {
        /// The task, if it is about one.
        task: Option<String>,
        /// One line.
        text: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// A task has its outcome; only the last one of a task counts.
    Done(Done),
    /// What a run would change at a destination (`plan`).
    Plan(Plan),
    /// The run is over.
    End(End),
}

/// How a task ended.
#[derive(Clone, Debug)]
pub struct Done {
    /// The task.
    pub task: String,
    /// Its outcome.
    pub outcome: Outcome,
    /// The key, for actions that got as far as having one.
    pub key: Option<Digest>,
    /// Wall-clock seconds that it took.
    pub seconds: f64,
    /// Why it ran or was skipped, in one line.
    pub why: Option<String>,
    /// It ran and its output is the same as last time, so nothing after it has to run.
    pub cut_off: bool,
    /// The destinations of an effect, in the order of their names.
    pub destinations: Vec<Destination>,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// What it printed, for those who asked to see it.
    pub log: Option<Vec<u8>>,
}

/// How one destination of an effect ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Destination {
    /// Its name in `vcbuild.toml`.
    pub name: String,
    /// Its outcome: unchanged, applied, failed or deferred.
    pub outcome: Outcome,
    /// Payload bytes that were sent.
    pub bytes_sent: u64,
    /// The payload that was to be sent, as it was planned.
    pub bytes_planned: u64,
    /// What was changed there, one line each.
    #[serde(skip)]
    pub changes: Vec<String>,
    /// Why it failed or was deferred.
    pub error: Option<String>,
}

/// What a run would bring to one destination: the bytes to send and the changes, one line each; or
/// why the destination could not be asked.
pub type Planned = Result<(u64, Vec<String>), String>;

/// What a run would change, for one task of a `plan`.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The task.
    pub task: String,
    /// The destinations by name.
    pub destinations: Vec<(String, Planned)>,
}

/// How the run ended.
#[derive(Clone, Debug)]
pub struct End {
    /// Whether anything failed, was deferred or was interrupted; the worst of all.
    pub verdict: Verdict,
    /// The number of tasks by their last outcome.
    pub counts: std::collections::BTreeMap<Outcome, usize>,
    /// Wall-clock seconds of the whole run.
    pub seconds: f64,
}

/// The end of a run in one word, and its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// All is done: exit 0.
    Ok,
    /// Done, but destinations were deferred: exit 3.
    Deferred,
    /// A task or a destination failed: exit 1.
    Failed,
    /// Stopped by the user: exit 130.
    Interrupted,
}

/// Shows events to somebody.
pub trait Report {
    /// Takes the next event.
    fn event(&mut self, event: &Event);
    /// Time has passed; called some ten times a second while the run goes on.
    fn tick(&mut self) {}
    /// What went wrong while showing, said once, for another report to show.
    fn trouble(&mut self) -> Option<String> {
        None
    }
}

/// Several reports at once. What goes wrong in one is a warning in the others.
pub struct Tee<'a>(pub Vec<&'a mut dyn Report>);

impl Tee<'_> {
    fn pass_on(&mut self) {
        for place in 0..self.0.len() {
            if let Some(text) = self.0[place].trouble() {
                let warning = Event::Warning { task: None, text, hint: None };
                for (_, other) in self.0.iter_mut().enumerate().filter(|(other, _)| *other != place) {
                    other.event(&warning);
                }
            }
        }
    }
}

impl Report for Tee<'_> {
    fn event(&mut self, event: &Event) {
        for report in &mut self.0 {
            report.event(event);
        }
        self.pass_on();
    }

    fn tick(&mut self) {
        for report in &mut self.0 {
            report.tick();
        }
        self.pass_on();
    }
}

/// For tests: keeps everything.
impl Report for Vec<Event> {
    fn event(&mut self, event: &Event) {
        self.push(event.clone());
    }
}
