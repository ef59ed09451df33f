//! The story of one task, on a worker thread: inputs, work, key, look-up or run, check, record; or
//! probe, apply, verify (in `step_effect`). Knows no order and no other task but through their values.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Instant;

use rayon::prelude::*;

use crate::cache::actions::{self, Record};
use crate::cache::bulk::Bulk;
use crate::cache::history::{Ending, History, Past};
use crate::cache::tree::Holds;
use crate::digest::{Blob, Digest};
use crate::error::{At, Error, Failure, Result};
use crate::explain;
use crate::host::fs;
use crate::key;
use crate::pins::Pin;
use crate::recipe::Content;
use crate::report::{Destination, Outcome, Plan};
use crate::schedule::Mode;
use crate::tasks;
use crate::work::{Action, Context, Effect, Inputs, Noted, Reach, Session, Task, TaskName, Tell, Work};

/// Whether effects change anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effects {
    /// They do.
    Apply,
    /// They are only planned.
    Plan,
}

/// What a step is given.
pub struct Job<'a> {
    /// The task's name.
    pub name: &'a TaskName,
    /// The task.
    pub task: &'a dyn Task,
    /// The trees of the tasks it needs.
    pub values: BTreeMap<TaskName, Digest>,
    /// Whether a recorded result will do.
    pub mode: Mode<Digest>,
    /// Whether effects change anything.
    pub effects: Effects,
}

/// How a step ended.
pub struct Stepped {
    /// The end as the scheduler sees it.
    pub end: End,
    /// What was looked at; nothing if the result must not be remembered.
    pub noted: Option<Noted>,
    /// Pins that were missing.
    pub pins: Vec<(Pin, String)>,
    /// The key, for actions that got as far.
    pub key: Option<Digest>,
    /// What an effect wants.
    pub wants: Option<serde_json::Value>,
    /// The destinations of an effect.
    pub destinations: Vec<Destination>,
    /// What an effect would change.
    pub plan: Option<Plan>,
    /// Why it ran.
    pub why: Option<String>,
    /// It ran, and its value is the one of the last time.
    pub cut_off: bool,
    /// What it printed.
    pub log: Option<Blob>,
    /// What it warned of.
    pub warnings: Vec<String>,
    /// Wall-clock seconds.
    pub seconds: f64,
}

/// The end of a step.
pub enum End {
    /// It has a value (none for effects), and for each lost digest what became of it.
    Done(Option<Digest>, Outcome, Vec<(Digest, Remade)>),
    /// No destination was reached.
    Unreached,
    /// Content was lost; with the task whose value holds it, or none if it was its own input.
    Lost(Digest, Option<TaskName>),
    /// It failed.
    Failed(Failure),
    /// The user stopped it.
    Interrupted,
}

/// What became of a lost digest when its owner was made again.
pub enum Remade {
    /// It is there again.
    Written,
    /// The value still refers to it; these tasks' values hold it.
    PassedThrough(Vec<TaskName>),
    /// The value refers to it no more.
    Gone,
}

impl Stepped {
    /// A step that has ended and has nothing more to tell.
    pub fn new(end: End) -> Self {
        Self {
            end,
            noted: None,
            pins: Vec::new(),
            key: None,
            wants: None,
            destinations: Vec::new(),
            plan: None,
            why: None,
            cut_off: false,
            log: None,
            warnings: Vec::new(),
            seconds: 0.0,
        }
    }
}

/// The endings of earlier runs, read when the first task has to run.
pub struct Earlier {
    history: History,
    past: OnceLock<Past>,
}

impl Earlier {
    /// The endings in a history.
    pub fn new(history: History) -> Self {
        Self { history, past: OnceLock::new() }
    }

    /// The last ending of a task.
    pub fn last(&self, task: &str) -> Option<Ending> {
        self.past.get_or_init(|| self.history.past()).last(task)
    }
}

/// How often a step begins again because its local inputs changed under its hands.
const TRIES: usize = 5;

/// Does one task.
pub fn step(job: &Job<'_>, session: &Session<'_>, earlier: &Earlier, tell: &dyn Tell) -> Stepped {
    let began = Instant::now();
    let mut stepped = Stepped::new(End::Interrupted);
    let mut result = Ok(Again::Yes);
    for _ in 0..TRIES {
        result = attempt(job, session, earlier, tell, &mut stepped);
        if !matches!(result, Ok(Again::Yes)) {
            break;
        }
    }
    match result {
        Ok(Again::No) => {}
        Ok(Again::Yes) => stepped.end = End::Failed(Failure::new("its local inputs keep changing")),
        Err(Error::Interrupted) => stepped.end = End::Interrupted,
        Err(Error::Lost(digest)) => stepped.end = End::Lost(digest, owner(job, session, &digest)),
        Err(Error::Failed(failure)) => stepped.end = End::Failed(failure),
    }
    if let End::Failed(failure) = &mut stepped.end
        && let Some(log) = failure.log.take()
    {
        // A log that cannot be kept must not hide the failure.
        stepped.log = session.cache.cas.put(&log).ok();
        let hint = format!("`vcbuild log {}` shows all of its output", job.name);
        if stepped.log.is_some() && !log.is_empty() {
            failure.hints.push(hint);
        }
    }
    stepped.seconds = began.elapsed().as_secs_f64();
    stepped
}

/// Whether a step has to begin again.
enum Again {
    No,
    Yes,
}

/// The task whose value holds a digest; none if it is the task's own.
fn owner(job: &Job<'_>, session: &Session<'_>, digest: &Digest) -> Option<TaskName> {
    let held = job.values.iter().map(|(name, value)| (name, session.cache.cas.holds(value, digest)));
    let best = held.filter(|(_, holds)| *holds != Holds::No).max_by_key(|(_, holds)| *holds);
    best.map(|(name, _)| name.clone())
}

fn attempt(
    job: &Job<'_>,
    session: &Session<'_>,
    earlier: &Earlier,
    tell: &dyn Tell,
    stepped: &mut Stepped,
) -> Result<Again> {
    session.stop.check()?;
    let inputs = Inputs::new(session, &job.values, tell);
    let work = job.task.work(&inputs);
    let mut noted = inputs.into_noted();
    stepped.pins = std::mem::take(&mut noted.pins);
    match work? {
        Work::Action(action) => action_step(job, session, earlier, tell, &*action, noted, stepped),
        Work::Effect(effect) => {
            effect_step(job, session, tell, &*effect, noted, stepped)?;
            Ok(Again::No)
        }
    }
}

fn action_step(
    job: &Job<'_>,
    session: &Session<'_>,
    earlier: &Earlier,
    tell: &dyn Tell,
    action: &dyn Action,
    noted: Noted,
    stepped: &mut Stepped,
) -> Result<Again> {
    let cache = session.cache;
    let preimage = key::preimage(action);
    let key = key::key(&preimage);
    stepped.key = Some(key);
    let look_up = || match job.mode {
        Mode::LookUp => cache.lookup(&key),
        Mode::Remake { .. } => None,
    };
    if let Some(record) = look_up() {
        return hit(record, noted, stepped);
    }
    if store_sources(job, session, &noted)? {
        return Ok(Again::Yes);
    }
    let waiting = || tell.note("waiting for another process that does the same".into());
    let _lock = cache.lock_key(&key, session.stop, waiting)?;
    if let Some(record) = look_up() {
        return hit(record, noted, stepped);
    }
    session.stop.check()?;
    tell.start();
    let began = Instant::now();
    let last = earlier.last(&job.name.0);
    stepped.why = Some(why(job, session, last.as_ref(), &preimage));
    let lost: &[Digest] = match &job.mode {
        Mode::LookUp => &[],
        Mode::Remake { lost } => lost,
    };
    let context = Context {
        cache,
        stop: session.stop,
        links: session.links,
        network: session.network,
        env: session.env,
        tell,
        owner: (session.local.root(), job.name),
        lost,
        log: RefCell::default(),
        warnings: RefCell::default(),
    };
    let there: Vec<Digest> =
        lost.iter().filter(|digest| session.cache.cas.is_there(digest)).copied().collect();
    let value = action.run(&context)?;
    session.stop.check()?;
    let (log, warnings) = (context.log.into_inner(), context.warnings.into_inner());
    stepped.warnings.clone_from(&warnings);
    let log = if log.is_empty() { None } else { Some(cache.cas.put(&log)?) };
    let milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let fate = |digest: &Digest| match there.contains(digest) {
        // Somebody else has made it meanwhile.
        true => Remade::Gone,
        false => remade(job, session, &value, digest),
    };
    let remade = lost.iter().map(|digest| (*digest, fate(digest))).collect();
    stepped.cut_off = last.is_some_and(|last| last.value == Some(value) && last.key != Some(key));
    stepped.log = log;
    stepped.end = End::Done(Some(value), Outcome::Ran, remade);
    let Some(noted) = unmoved(job, session, tell, noted, &key)? else {
        tell.warn(
            "an input changed while it ran: the result is used, but not remembered".into(),
            Some("run again".into()),
        );
        return Ok(Again::No);
    };
    let record = Record { version: actions::VERSION, value, log, warnings, milliseconds, preimage };
    cache.record(&key, &record)?;
    stepped.noted = Some(noted);
    Ok(Again::No)
}

fn hit(record: Record, noted: Noted, stepped: &mut Stepped) -> Result<Again> {
    stepped.end = End::Done(Some(record.value), Outcome::Hit, Vec::new());
    stepped.log = record.log;
    stepped.noted = Some(noted);
    Ok(Again::No)
}

/// Fewer files are stored faster than threads are woken.
const MANY: usize = 64;

/// Stores the local inputs, now that somebody will read them. Returns whether one of them is not what
/// its stamp said.
fn store_sources(job: &Job<'_>, session: &Session<'_>, noted: &Noted) -> Result<bool> {
    let bulk = Bulk::new(&session.cache.cas);
    let store = |(blob, stamp, path): &(Blob, fs::Stamp, PathBuf)| {
        session.stop.check()?;
        if job.mode == Mode::LookUp {
            return Ok(!bulk.put_known(path, stamp, blob)?);
        }
        let file = fs::open_regular(path).at("read", path)?;
        let is_same = bulk.put_file(&file, path)? == *blob;
        if !is_same {
            bulk.cas.stamps.forget(stamp);
        }
        Ok(!is_same)
    };
    let sources = &noted.seen.sources;
    let changed: Result<Vec<bool>> = match sources.len() {
        0..MANY => sources.iter().map(store).collect(),
        _ => sources.par_iter().map(store).collect(),
    };
    bulk.finish()?;
    let changed = changed?.contains(&true);
    if changed {
        session.local.forget_listings();
    }
    Ok(changed)
}

/// What was looked at, if it still decides for the same key; nothing if an input has changed.
fn unmoved(
    job: &Job<'_>,
    session: &Session<'_>,
    tell: &dyn Tell,
    noted: Noted,
    key: &Digest,
) -> Result<Option<Noted>> {
    use std::os::unix::ffi::OsStrExt;
    let reach = Reach {
        cache: session.cache,
        root: session.local.root(),
        stop: session.stop,
        links: session.links,
        network: session.network,
        env: session.env,
        tell,
    };
    // A host's tools may have been replaced between the question and the run.
    if !noted.remote.iter().all(|seen| tasks::held(seen, &reach)) {
        session.stop.check()?;
        return Ok(None);
    }
    let mut folders = false;
    for fact in &noted.seen.facts {
        let path = session.local.root().join(std::ffi::OsStr::from_bytes(&fact.path));
        let now = fs::status(&path, fact.look.links()).at("look at", &path)?;
        match now {
            _ if fact.look.stamp(now) == fact.stamp => {}
            // A folder changes with every file that an editor puts into it, input or not.
            Some(now) if now.kind == fs::Kind::Folder => folders = true,
            _ => return Ok(None),
        }
    }
    if !folders {
        return Ok(Some(noted));
    }
    session.local.forget_listings();
    let inputs = Inputs::new(session, &job.values, tell);
    let same = match job.task.work(&inputs) {
        Ok(Work::Action(action)) => key::key(&key::preimage(&*action)) == *key,
        _ => false,
    };
    Ok(same.then(|| inputs.into_noted()))
}

fn remade(job: &Job<'_>, session: &Session<'_>, value: &Digest, digest: &Digest) -> Remade {
    let cas = &session.cache.cas;
    if cas.is_there(digest) {
        return Remade::Written;
    }
    let holds = cas.holds(value, digest);
    let holders = job.values.iter().filter(|(_, value)| cas.holds(value, digest) != Holds::No);
    let holders: Vec<TaskName> = holders.map(|(name, _)| name.clone()).collect();
    match holds {
        Holds::No => Remade::Gone,
        // What cannot be read was lost meanwhile too, and whoever reads it will find that out.
        Holds::Perhaps if holders.is_empty() => Remade::Gone,
        Holds::Perhaps | Holds::Yes => Remade::PassedThrough(holders),
    }
}

/// Why a task has to run, in one line.
fn why(
    job: &Job<'_>,
    session: &Session<'_>,
    last: Option<&Ending>,
    preimage: &serde_json::Value,
) -> String {
    if let Mode::Remake { lost } = &job.mode {
        let first = lost.first().map(Digest::short).unwrap_or_default();
        return format!("the cache lost `{first}`");
    }
    let Some((last, before)) = last.and_then(|last| Some((last, last.key?))) else {
        return "it has not run before".into();
    };
    let Some(record) = session.cache.lookup(&before) else {
        let failed = last.outcome == Outcome::Failed.word();
        return if failed { "it failed the last time" } else { "its last result is not in the cache" }
            .into();
    };
    let reasons = explain::reasons(&session.cache.cas, &record.preimage, preimage);
    // A value that was read whole is named by its task; of one that was read in part, the file is.
    let text = |reason: &explain::Reason| {
        let made = job.values.iter().find(|(_, value)| Some(**value) == reason.value);
        made.map_or_else(|| reason.text.clone(), |(name, _)| format!("`{name}` changed"))
    };
    match reasons.as_slice() {
        [] => "its result is not in the cache".into(),
        [one] => text(one),
        [one, rest @ ..] => format!("{}, and {} more", text(one), rest.len()),
    }
}

fn effect_step(
    job: &Job<'_>,
    session: &Session<'_>,
    tell: &dyn Tell,
    effect: &dyn Effect,
    noted: Noted,
    stepped: &mut Stepped,
) -> Result<()> {
    stepped.wants = Some(effect.wants());
    let done = crate::step_effect::run(job, session, tell, effect)?;
    stepped.destinations = done.destinations;
    stepped.plan = done.plan;
    let worst = stepped.destinations.iter().map(|destination| destination.outcome).max();
    let reached = stepped.destinations.iter().any(|destination| destination.outcome != Outcome::Deferred);
    stepped.end = match worst {
        Some(Outcome::Failed) => End::Failed(done.failure.unwrap_or_default()),
        Some(Outcome::Deferred) if !reached => End::Unreached,
        Some(outcome) => End::Done(None, outcome, Vec::new()),
        None => End::Done(None, Outcome::Unchanged, Vec::new()),
    };
    if matches!(worst, Some(Outcome::Unchanged | Outcome::Applied) | None) {
        stepped.noted = Some(noted);
    }
    Ok(())
}

/// The output of a task, whole.
pub fn read_log(session: &Session<'_>, log: &Blob) -> Option<Vec<u8>> {
    session.cache.cas.read(*log).ok()
}
