//! The story of one effect: probe every destination at once, apply only the difference, and, when
//! every destination that could be reached is complete, finish. Knows no kind of destination.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Failure, Result};
use crate::report::{Destination, Outcome, Plan};
use crate::step::{Effects, Job};
use crate::work::{Change, Effect, Fault, Reach, Session, Tell};

/// How an effect ended.
pub struct Done {
    /// Its destinations.
    pub destinations: Vec<Destination>,
    /// What it would change, if it was only planned.
    pub plan: Option<Plan>,
    /// The first failure.
    pub failure: Option<Failure>,
}

/// Brings all destinations to what is wanted. Fails only with lost content, or when it was stopped.
pub fn run(job: &Job<'_>, session: &Session<'_>, tell: &dyn Tell, effect: &dyn Effect) -> Result<Done> {
    let reach = Reach {
        cache: session.cache,
        root: session.local.root(),
        stop: session.stop,
        network: session.network,
        links: session.links,
        env: session.env,
        tell,
    };
    let at_once = session.links.parallel();
    let names = effect.destinations();
    let probed = parallel(names.len(), at_once, |index| match effect.probe(index, &reach) {
        // One that breaks off twice does not answer.
        Err(Fault::Again(_)) => effect.probe(index, &reach).map_err(|fault| match fault {
            Fault::Again(failure) => Fault::Unreachable(failure.message),
            other => other,
        }),
        probed => probed,
    });
    let mut ways: Vec<Way<'_>> = Vec::new();
    for (name, probed) in names.iter().zip(probed) {
        ways.push(Way::new(name, probed)?);
    }
    if job.effects == Effects::Plan {
        return Ok(planned(job, ways));
    }
    if ways.iter().any(|way| way.change.as_ref().is_some_and(|change| !change.lines().is_empty())) {
        tell.start();
    }
    session.stop.check()?;
    let applied = parallel(ways.len(), at_once, |index| {
        let Some(change) = ways[index].change.as_ref().filter(|change| !change.lines().is_empty()) else {
            return (Ok(None), 0);
        };
        let counting = Counting { tell, moved: AtomicU64::new(0) };
        let reach = Reach { tell: &counting, ..reach };
        let first = match change.apply(&reach) {
            Err(Fault::Again(_)) => counting.take(),
            applied => return counting.with(applied),
        };
        let again = effect.probe(index, &reach).and_then(|change| change.apply(&reach));
        let (applied, vain) = counting.with(again);
        (applied, vain + first)
    });
    for (way, (applied, vain)) in ways.iter_mut().zip(applied) {
        way.end.bytes_sent += vain;
        way.take(applied)?;
    }
    // What is only a name moves last, and only when all that could be reached is complete.
    if ways.iter().all(|way| way.end.outcome != Outcome::Failed) {
        let finished =
            parallel(ways.len(), at_once, |index| match (&ways[index].change, ways[index].end.outcome) {
                (Some(change), Outcome::Applied) => match change.finish(&reach) {
                    Err(Fault::Again(_)) => change.finish(&reach).map(|()| None),
                    finished => finished.map(|()| None),
                },
                _ => Ok(None),
            });
        for (way, finished) in ways.iter_mut().zip(finished) {
            way.take(finished)?;
        }
    }
    let failure = failure(&ways);
    Ok(Done { destinations: ways.into_iter().map(|way| way.end).collect(), plan: None, failure })
}

/// Counts what moves to a destination, so that it is also known of what came to nothing.
struct Counting<'a> {
    tell: &'a dyn Tell,
    moved: AtomicU64,
}

impl Counting<'_> {
    /// What moved since it was asked last.
    fn take(&self) -> u64 {
        self.moved.swap(0, Ordering::Relaxed)
    }

    /// How it went, with what was sent in vain.
    fn with(&self, applied: Result<u64, Fault>) -> (Result<Option<u64>, Fault>, u64) {
        let vain = if applied.is_ok() { 0 } else { self.take() };
        (applied.map(Some), vain)
    }
}

impl Tell for Counting<'_> {
    fn start(&self) {
        self.tell.start();
    }

    fn progress(&self, destination: Option<&str>, done: u64, total: Option<u64>) {
        if destination.is_some() {
            self.moved.store(done, Ordering::Relaxed);
        }
        self.tell.progress(destination, done, total);
    }

    fn note(&self, text: String) {
        self.tell.note(text);
    }

    fn warn(&self, text: String, hint: Option<String>) {
        self.tell.warn(text, hint);
    }
}

/// One destination on its way.
struct Way<'a> {
    change: Option<Box<dyn Change + 'a>>,
    end: Destination,
    failure: Option<Failure>,
}

impl<'a> Way<'a> {
    fn new(name: &str, probed: Result<Box<dyn Change + 'a>, Fault>) -> Result<Self> {
        let end = Destination {
            name: name.to_string(),
            outcome: Outcome::Unchanged,
            bytes_sent: 0,
            bytes_planned: 0,
            changes: Vec::new(),
            error: None,
        };
        let mut way = Self { change: None, end, failure: None };
        match probed {
            Ok(change) => {
                way.end.changes = change.lines();
                way.end.bytes_planned = change.bytes();
                way.change = Some(change);
            }
            Err(Fault::Unreachable(why)) => {
                way.end.outcome = Outcome::Deferred;
                way.end.error = Some(why);
            }
            Err(Fault::Again(failure)) => way.fail(failure.into())?,
            Err(Fault::Error(error)) => way.fail(error)?,
        }
        Ok(way)
    }

    /// Takes in the end of applying or finishing: bytes sent, nothing to do, or a fault.
    fn take(&mut self, result: Result<Option<u64>, Fault>) -> Result<()> {
        match result {
            Ok(None) => {}
            Ok(Some(bytes)) => {
                self.end.outcome = Outcome::Applied;
                self.end.bytes_sent += bytes;
            }
            Err(Fault::Error(error)) => self.fail(error)?,
            Err(Fault::Again(failure)) => self.fail(failure.into())?,
            // It answered before: that it does no more is a failure of what was begun.
            Err(Fault::Unreachable(why)) => self.fail(Error::failed(why))?,
        }
        Ok(())
    }

    fn fail(&mut self, error: Error) -> Result<()> {
        let Error::Failed(failure) = error else { return Err(error) };
        self.end.outcome = Outcome::Failed;
        self.end.error = Some(failure.message.clone());
        self.failure = Some(failure);
        Ok(())
    }
}

fn failure(ways: &[Way<'_>]) -> Option<Failure> {
    let first = ways.iter().find(|way| way.failure.is_some())?;
    let failure = first.failure.clone()?;
    let others = ways.iter().filter(|way| way.failure.is_some()).count() - 1;
    let more = if others == 0 { String::new() } else { format!(" (and {others} more)") };
    Some(Failure { message: format!("`{}`{more}: {}", first.end.name, failure.message), ..failure })
}

fn planned(job: &Job<'_>, ways: Vec<Way<'_>>) -> Done {
    let failure = failure(&ways);
    let destinations = ways.iter().map(|way| {
        let found = match (&way.change, &way.end.error) {
            (_, Some(error)) => Err(error.clone()),
            (Some(change), None) => Ok((change.bytes(), change.lines())),
            (None, None) => Ok((0, Vec::new())),
        };
        (way.end.name.clone(), found)
    });
    let plan = Plan { task: job.name.0.clone(), destinations: destinations.collect() };
    Done { destinations: ways.into_iter().map(|way| way.end).collect(), plan: Some(plan), failure }
}

/// The results of `each` for 0, 1, …, with at most so many at once.
fn parallel<T: Send>(count: usize, at_once: usize, each: impl Fn(usize) -> T + Sync) -> Vec<T> {
    if count <= 1 {
        return (0..count).map(each).collect();
    }
    let next = Mutex::new(0..count);
    let take = || next.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next();
    let mut all: Vec<(usize, T)> = std::thread::scope(|scope| {
        let worker = || {
            let mut done = Vec::new();
            while let Some(index) = take() {
                done.push((index, each(index)));
            }
            done
        };
        let workers: Vec<_> = (0..count.min(at_once)).map(|_| scope.spawn(worker)).collect();
        let joined = workers.into_iter().map(|worker| match worker.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        joined.flatten().collect()
    });
    all.sort_by_key(|(index, _)| *index);
    all.into_iter().map(|(_, result)| result).collect()
}
