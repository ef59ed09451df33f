//! The loop: gives ready tasks to worker threads, takes their ends, tells what happened. It only
//! schedules; what a task is lies in `step`. One owner thread, one channel, no lock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::cache::history::Ending;
use crate::digest::Digest;
use crate::error::Failure;
use crate::graph::Graph;
use crate::host::fs;
use crate::host::stop::Asked;
use crate::memo;
use crate::pins::Pin;
use crate::report::{self, Done, Event, Outcome, Report, Verdict};
use crate::schedule::{
    Class, Entry, Finish, Limits, Loss, Mode, OnFailure, Restored, Schedule, TaskId, Unhealed, Why,
};
use crate::step::{self, Earlier, Effects, End, Job, Remade, Stepped};
use crate::work::{self, Noted, Session, TaskName};
use crate::worker::{self, Message, Outbox};

/// How to run.
pub struct Options<'a, 'k> {
    /// What a failure means for the others.
    pub on_failure: OnFailure,
    /// Whether effects change anything.
    pub effects: Effects,
    /// Whether what tasks print is told with their end.
    pub logs: Logs,
    /// The endings of earlier runs.
    pub earlier: &'a Earlier,
    /// Tasks whose inputs are known not to have changed.
    pub known: Option<&'k BTreeMap<String, memo::Entry>>,
    /// Tasks that are taken over and are not in the graph: nothing in it reads them or is read by them.
    pub apart: Carried<'k>,
}

/// Whether what tasks print is told with their end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logs {
    /// It is.
    Tell,
    /// It is only kept.
    Keep,
}

/// What came of a run.
pub struct Summary<'k> {
    /// The end in one word.
    pub verdict: Verdict,
    /// What became of each task that was looked at in a step.
    pub tasks: BTreeMap<String, Ended>,
    /// Tasks that were taken over without a step.
    pub carried: Carried<'k>,
}

/// Tasks that were taken over from the memo, by name.
pub type Carried<'k> = BTreeMap<&'k str, &'k memo::Entry>;

/// What became of a task.
pub struct Ended {
    /// Its outcome.
    pub outcome: Outcome,
    /// What to remember of it; nothing if it must be looked at again.
    pub memo: Option<(memo::Entry, Noted)>,
    /// What goes into the history.
    pub ending: Ending,
}

/// Effects that run at once; each works on its destinations at once by itself.
const EFFECTS: usize = 4;
/// How often the report is told that time passes.
const TICK: Duration = Duration::from_millis(100);

/// Runs tasks and all that they need. `pinned` is called with pins that were missing.
pub fn run<'k>(
    graph: &Graph,
    selected: &BTreeSet<TaskId>,
    session: &Session<'_>,
    options: &Options<'_, 'k>,
    report: &mut dyn Report,
    pinned: &mut dyn FnMut(Vec<(Pin, String)>) -> Vec<String>,
) -> Summary<'k> {
    let began = Instant::now();
    report.event(&Event::Begin { tasks: selected.len() + options.apart.len() });
    for (name, entry) in &options.apart {
        let name = TaskName(name.to_string());
        report.event(&Event::Done(Done { key: entry.key, ..done(&name, Outcome::Hit) }));
    }
    let limits = Limits { jobs: session.jobs, effects: EFFECTS, pools: graph.pools.clone() };
    let entries = selected.iter().map(|id| {
        let node = graph.node(*id);
        let class = match node.task.class() {
            work::Class::Action => Class::Action,
            work::Class::Effect => Class::Effect,
        };
        let (reads, after) = (node.reads.clone(), node.after.clone());
        (*id, Entry { reads, after, class, pool: node.pool })
    });
    let schedule = Schedule::new(entries, limits, options.on_failure);
    let (messages, inbox) = channel();
    let mut owner = Owner {
        graph,
        session,
        options,
        report,
        pinned,
        schedule,
        tasks: BTreeMap::new(),
        carried: options.apart.clone(),
        stopping: false,
    };
    std::thread::scope(|scope| {
        let most = session.jobs + EFFECTS;
        let mut start = |number: usize| {
            if number >= most {
                panic!("BUG: more tasks run than may run at once");
            }
            let (jobs, received) = channel::<(TaskId, Job<'_>)>();
            let messages = messages.clone();
            scope.spawn(move || worker::work(number, &received, &messages, session, options.earlier));
            jobs
        };
        owner.go(&mut start, &inbox);
    });
    owner.summary(began)
}

struct Owner<'a, 'r, 'k> {
    graph: &'a Graph,
    session: &'a Session<'a>,
    options: &'a Options<'a, 'k>,
    report: &'r mut dyn Report,
    pinned: &'r mut dyn FnMut(Vec<(Pin, String)>) -> Vec<String>,
    schedule: Schedule<Option<Digest>, Digest>,
    tasks: BTreeMap<String, Ended>,
    carried: Carried<'k>,
    stopping: bool,
}

impl<'a, 'k> Owner<'a, '_, 'k> {
    /// Runs everything; `start` starts the worker of a number, when there is no idle one.
    fn go(&mut self, start: &mut dyn FnMut(usize) -> Outbox<'a>, inbox: &Receiver<Message>) {
        let (mut workers, mut idle): (Vec<Outbox<'a>>, Vec<usize>) = Default::default();
        loop {
            while let Some(next) = self.schedule.next() {
                let Some(job) = self.job(next.id, next.mode) else { continue };
                let worker = idle.pop().unwrap_or_else(|| {
                    workers.push(start(workers.len()));
                    workers.len() - 1
                });
                if workers[worker].send((next.id, job)).is_err() {
                    panic!("BUG: a worker has ended");
                }
            }
            self.tell_ended();
            if self.schedule.is_over() {
                return;
            }
            match inbox.recv_timeout(TICK) {
                Ok(Message::Start(id)) => {
                    let task = self.graph.node(id).name.0.clone();
                    self.report.event(&Event::Start { task });
                }
                Ok(Message::Tell(event)) => self.report.event(&event),
                Ok(Message::End(worker, id, end)) => {
                    idle.push(worker);
                    self.ended(id, *end);
                }
                Err(RecvTimeoutError::Timeout) => self.report.tick(),
                Err(RecvTimeoutError::Disconnected) => panic!("BUG: all workers have ended"),
            }
            if !self.stopping && self.session.stop.asked() != Asked::No {
                self.stopping = true;
                self.schedule.stop();
                let text = "stopping: what runs is being ended; once more kills it".to_string();
                self.report.event(&Event::Note { task: None, text });
            }
        }
    }

    /// What a worker has to do; nothing if the task's result is known without a step.
    fn job(&mut self, id: TaskId, mode: Mode<Digest>) -> Option<Job<'a>> {
        let node = self.graph.node(id);
        let value = |read: &TaskId| {
            let value = self.schedule.value(*read).copied().flatten()?;
            Some((self.graph.node(*read).name.clone(), value))
        };
        let values: BTreeMap<TaskName, Digest> = node.reads.iter().filter_map(value).collect();
        if mode == Mode::LookUp
            && let Some((name, entry)) =
                self.options.known.and_then(|known| known.get_key_value(&node.name.0))
            && let (Some(key), Some(value), false) = (entry.key, entry.value, entry.is_remote)
            && entry
                .values
                .iter()
                .map(|(name, value)| (name.as_str(), value))
                .eq(values.iter().map(|(name, value)| (name.0.as_str(), value)))
        {
            let finish = Finish::Done { value: Some(value), outcome: Outcome::Hit, restored: Vec::new() };
            self.schedule.finished(id, finish);
            self.carried.insert(name, entry);
            self.tasks.remove(&node.name.0);
            let done = Done { key: Some(key), ..done(&node.name, Outcome::Hit) };
            self.report.event(&Event::Done(done));
            return None;
        }
        Some(Job { name: &node.name, task: &*node.task, values, mode, effects: self.options.effects })
    }

    fn ended(&mut self, id: TaskId, end: Result<Stepped, String>) {
        let name = &self.graph.node(id).name;
        let mut stepped = end.unwrap_or_else(|text| {
            let failure = Failure::new(format!("a bug in vcbuild: {text}"))
                .hint("please report it, with the output of `vcbuild --version` and this message");
            Stepped::new(End::Failed(failure))
        });
        if !stepped.pins.is_empty() {
            // If they do not get into the lock, the next run has to ask again.
            stepped.noted = None;
            for line in (self.pinned)(std::mem::take(&mut stepped.pins)) {
                self.report.event(&Event::Note { task: Some(name.0.clone()), text: line });
            }
        }
        for text in std::mem::take(&mut stepped.warnings) {
            self.report.event(&Event::Warning { task: Some(name.0.clone()), text, hint: None });
        }
        if let Some(plan) = stepped.plan.take() {
            self.report.event(&Event::Plan(plan));
        }
        let mut done = done(name, Outcome::Failed);
        done.key = stepped.key;
        done.seconds = stepped.seconds;
        done.destinations = std::mem::take(&mut stepped.destinations);
        if self.options.logs == Logs::Tell
            && let Some(log) = &stepped.log
        {
            done.log = step::read_log(self.session, log);
        }
        let values = self.values_of(id);
        let mut value = None;
        let finish = match std::mem::replace(&mut stepped.end, End::Interrupted) {
            End::Done(made, outcome, remade) => {
                value = made;
                done.outcome = outcome;
                done.why = stepped.why.take();
                done.cut_off = stepped.cut_off;
                let restored = remade.into_iter().map(|(digest, remade)| (digest, self.restored(remade)));
                Finish::Done { value: made, outcome, restored: restored.collect() }
            }
            End::Unreached => {
                done.outcome = Outcome::Deferred;
                Finish::Unreached
            }
            End::Lost(digest, owner) => {
                let owner = owner.and_then(|owner| self.graph.find(&owner.0)).unwrap_or(id);
                self.schedule.finished(id, Finish::Lost(vec![Loss { digest, owner }]));
                return;
            }
            End::Failed(failure) => {
                done.failure = Some(failure);
                Finish::Failed
            }
            End::Interrupted => {
                done.outcome = Outcome::Skipped;
                done.why = Some("interrupted".into());
                Finish::Failed
            }
        };
        if self.schedule.finished(id, finish) == crate::schedule::Verdict::Dropped {
            return;
        }
        self.carried.remove(name.0.as_str());
        self.tasks.insert(name.0.clone(), ended(&mut stepped, &done, value, values));
        self.report.event(&Event::Done(done));
    }

    fn values_of(&self, id: TaskId) -> BTreeMap<String, Digest> {
        let value = |read: &TaskId| {
            let value = self.schedule.value(*read).copied().flatten()?;
            Some((self.graph.node(*read).name.0.clone(), value))
        };
        self.graph.node(id).reads.iter().filter_map(value).collect()
    }

    fn restored(&self, remade: Remade) -> Restored {
        match remade {
            Remade::Written => Restored::Written,
            Remade::Gone => Restored::Gone,
            Remade::PassedThrough(holders) => {
                let ids = holders.iter().filter_map(|name| self.graph.find(&name.0));
                Restored::PassedThrough { holders: ids.collect() }
            }
        }
    }

    /// Tells of the tasks that the schedule skipped, or failed by itself.
    fn tell_ended(&mut self) {
        for id in self.schedule.take_ended() {
            let name = &self.graph.node(id).name;
            let mut done = done(name, Outcome::Skipped);
            match (self.schedule.unhealed(id), self.schedule.why_skipped(id)) {
                (Some(unhealed), _) => {
                    done.outcome = Outcome::Failed;
                    done.failure = Some(unhealed_words(unhealed));
                }
                (None, Some(Why::Task(root))) => {
                    let root = &self.graph.node(root).name;
                    done.why = Some(format!("because of `{root}`"));
                }
                (None, _) => done.why = Some("the run was stopped".into()),
            }
            self.carried.remove(name.0.as_str());
            let mut stepped = Stepped::new(End::Interrupted);
            self.tasks.insert(name.0.clone(), ended(&mut stepped, &done, None, BTreeMap::new()));
            self.report.event(&Event::Done(done));
        }
    }

    fn summary(self, began: Instant) -> Summary<'k> {
        let mut counts = self.schedule.counts();
        if !self.options.apart.is_empty() {
            *counts.entry(Outcome::Hit).or_default() += self.options.apart.len();
        }
        let any = |outcome: Outcome| counts.get(&outcome).is_some_and(|count| *count > 0);
        let verdict = match () {
            () if self.stopping => Verdict::Interrupted,
            () if any(Outcome::Failed) || any(Outcome::Skipped) && !any(Outcome::Deferred) => {
                Verdict::Failed
            }
            () if any(Outcome::Deferred) => Verdict::Deferred,
            () => Verdict::Ok,
        };
        let seconds = began.elapsed().as_secs_f64();
        self.report.event(&Event::End(report::End { verdict, counts, seconds }));
        Summary { verdict, tasks: self.tasks, carried: self.carried }
    }
}

fn done(name: &TaskName, outcome: Outcome) -> Done {
    Done {
        task: name.0.clone(),
        outcome,
        key: None,
        seconds: 0.0,
        why: None,
        cut_off: false,
        destinations: Vec::new(),
        failure: None,
        log: None,
    }
}

fn ended(
    stepped: &mut Stepped,
    done: &Done,
    value: Option<Digest>,
    values: BTreeMap<String, Digest>,
) -> Ended {
    let ending = Ending {
        key: stepped.key,
        value,
        wants: stepped.wants.clone(),
        outcome: done.outcome.word().into(),
        log: stepped.log,
        time: fs::now() / 1_000_000_000,
        seconds: done.seconds,
    };
    let memo = stepped.noted.take().map(|noted| {
        let mut entry = memo::Entry::new(stepped.key, value, values);
        entry.wants = stepped.wants.take();
        entry.is_remote = !noted.remote.is_empty();
        (entry, noted)
    });
    Ended { outcome: done.outcome, memo, ending }
}

fn unhealed_words(unhealed: &Unhealed<Digest>) -> Failure {
    let hint = "is the disk full or failing? `vcbuild cache verify` reads everything once";
    match unhealed {
        Unhealed::Again(digest) => {
            Failure::new(format!("it wrote `{}` again, and the cache lost it again", digest.short()))
                .hint(hint)
        }
        Unhealed::Changing(digest) => Failure::new(format!(
            "the cache lost `{}`, and each time it is made again the result is another",
            digest.short()
        ))
        .hint("the commands do not give the same output twice"),
        Unhealed::Nowhere(digest) => {
            Failure::new(format!("the cache lost `{}`, and no task makes it", digest.short()))
                .hint("`vcbuild cache clear` begins anew")
        }
    }
}

#[cfg(test)]
#[path = "build_tests.rs"]
mod tests;
