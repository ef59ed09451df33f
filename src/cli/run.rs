//! `run` and `plan`: the memo first, and if it does not hold, the engine. Also what every verb shares
//! that runs tasks.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::engine::Engine;
use super::part::{self, Part};
use super::place::Place;
use super::{Halt, Session, forecast, remember, say};
use crate::build::{Carried, Logs};
use crate::cache::Cache;
use crate::error::{At, Mistake};
use crate::graph::Graph;
use crate::host::fs;
use crate::host::stop::Stop;
use crate::memo::{self, Changes, Memo, Outline};
use crate::report::json::Lines;
use crate::report::output::{Clock, Face, Verbosity};
use crate::report::plain::Plain;
use crate::report::plan::Plans;
use crate::report::progress::{Live, stderr_size};
use crate::report::{Done, End, Event, Outcome, Report, Tee, Verdict};
use crate::schedule::{OnFailure, TaskId};
use crate::step::Effects;
use crate::tasks;
use crate::work::{Network, Reach};

/// Arguments of `run`
#[derive(clap::Args)]
pub struct Run {
    /// Tasks: `kind.name`, an instance `kind.name[x]`, a bare name, or a kind for all of its tasks
    targets: Vec<String>,
    /// Start nothing new after a failure
    #[arg(long)]
    fail_fast: bool,
    /// How many actions run at once [default: the number of cores]
    #[arg(short, value_name = "N")]
    jobs: Option<std::num::NonZeroUsize>,
    /// Write what happens to a file, as JSON lines
    #[arg(long, value_name = "FILE")]
    events: Option<PathBuf>,
    /// Use no network
    #[arg(long)]
    offline: bool,
    /// Add no pin to vcbuild.lock
    #[arg(long)]
    locked: bool,
    /// Agree to whatever would be asked
    #[arg(long)]
    yes: bool,
    /// Run nothing: show what would run, as far as known
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// Arguments of `plan`
#[derive(clap::Args)]
pub struct PlanVerb {
    /// Tasks, as for `run`
    targets: Vec<String>,
    /// Write what would happen to a file, as JSON lines
    #[arg(long, value_name = "FILE")]
    events: Option<PathBuf>,
    /// Use no network
    #[arg(long)]
    offline: bool,
}

/// How to run tasks.
pub struct How {
    /// After a failure.
    pub on_failure: OnFailure,
    /// Whether effects change anything.
    pub effects: Effects,
    /// How many actions at once.
    pub jobs: usize,
    /// Whether the network may be used.
    pub network: Network,
    /// Whether pins may be added.
    pub locked: bool,
}

impl How {
    /// The usual way.
    pub fn usual() -> Self {
        let jobs = std::thread::available_parallelism().map_or(2, usize::from);
        let network = Network::Allowed;
        Self { on_failure: OnFailure::GoOn, effects: Effects::Apply, jobs, network, locked: false }
    }
}

impl Run {
    /// Runs the verb.
    pub fn run(&self, session: &Session) -> Result<u8, Halt> {
        let mut how = How::usual();
        if self.fail_fast {
            how.on_failure = OnFailure::Stop;
        }
        if let Some(jobs) = self.jobs {
            how.jobs = jobs.get();
        }
        if self.offline {
            how.network = Network::Offline;
        }
        how.locked = self.locked;
        if self.dry_run {
            return dry_run(session, &self.targets, &how);
        }
        let mut faces = Faces::new(session, self.events.as_ref())?;
        go(session, &self.targets, &how, &mut faces)
    }
}

impl PlanVerb {
    /// Runs the verb.
    pub fn run(&self, session: &Session) -> Result<u8, Halt> {
        let mut how = How { effects: Effects::Plan, ..How::usual() };
        if self.offline {
            how.network = Network::Offline;
        }
        let mut faces = Faces::new(session, self.events.as_ref())?;
        faces.all.push(Box::new(Plans::new(std::io::stdout(), session.settings)));
        go(session, &self.targets, &how, &mut faces)
    }
}

/// The reports of one run.
pub struct Faces {
    all: Vec<Box<dyn Report>>,
}

impl Faces {
    /// The face for people that fits, and the events' file.
    pub fn new(session: &Session, events: Option<&PathBuf>) -> Result<Self, Halt> {
        let stderr = std::io::stderr();
        let people: Box<dyn Report> = match (session.surroundings.face(), session.settings.verbosity) {
            (Face::Live, Verbosity::Normal | Verbosity::Verbose) => {
                Box::new(Live::new(stderr, session.settings, Clock::real(), stderr_size))
            }
            _ => Box::new(Plain::new(stderr, session.settings, Clock::real())),
        };
        let mut all = vec![people];
        if let Some(path) = events {
            let file = fs::create(path).at("write", path)?;
            all.push(Box::new(Lines::<File>::new(file)));
        }
        Ok(Self { all })
    }

    /// All of them as one.
    pub fn tee(&mut self) -> Tee<'_> {
        Tee(self.all.iter_mut().map(|report| &mut **report as &mut dyn Report).collect())
    }

    /// Whether somebody wants every task told.
    fn wants_all(&self, session: &Session) -> bool {
        self.all.len() > 1 || session.settings.verbosity == Verbosity::Verbose
    }
}

/// The exit code of a run.
pub fn exit(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Ok => 0,
        Verdict::Failed => 1,
        Verdict::Deferred => 3,
        Verdict::Interrupted => 130,
    }
}

fn go(session: &Session, targets: &[String], how: &How, faces: &mut Faces) -> Result<u8, Halt> {
    let clock = std::time::Instant::now();
    let (place, began) = (&session.place, fs::now());
    let cache = place.cache()?;
    let flags = format!("{} {:?}", place.flags(), how.effects);
    let path = memo::path(&cache, &place.root, targets, &flags);
    let memo = Memo::read(&path);
    let changes = memo.as_ref().map_or(Changes::All, |memo| memo.changes(&place.root, &place.env));
    let stop = Stop::new(Stop::GRACE)?;
    // Connections are to be ended, not left.
    let listens = memo.as_ref().is_some_and(is_away);
    if listens {
        stop.listen()?;
    }
    if let (Some(memo), Changes::None) = (&memo, &changes)
        && memo.head.complete
        && holds(memo, place, &cache, how, &stop)
        && let Some(told) = told(memo, faces, session)
    {
        unchanged(memo, told, faces, clock);
        return Ok(0);
    }
    if !listens {
        stop.listen()?;
    }
    let common = place.common();
    let written = place.read()?;
    let known = match (&memo, &changes) {
        (Some(memo), Changes::None) => memo.known(&BTreeSet::new()),
        (Some(memo), Changes::Inputs(changed)) => memo.known(changed),
        _ => None,
    };
    // The configuration may have been edited since it was looked at.
    let known = known.filter(|known| Outline::sum(&known.outline) == Some(written.sum));
    let was_complete = memo.as_ref().is_some_and(|memo| memo.head.complete);
    let part = known.as_ref().filter(|_| was_complete).and_then(|known| part::load(place, &written, known));
    let is_part = part.is_some();
    let Part { mut project, selected, apart } = match part {
        Some(part) => part,
        None => {
            let project = place.project(&written, written.text.clone())?;
            let selected = project.graph.closure(&project.graph.targets(targets)?);
            Part { project, selected, apart: Carried::new() }
        }
    };
    project.pins.locked = how.locked;
    let entries = known.as_ref().map(|known| &known.entries);
    let outline = match &known {
        Some(known) if is_part => known.outline.clone(),
        _ => Outline::new(&written.text, written.sum, &project.graph).encode(),
    };
    let run = Engine { known: entries, apart, ..Engine::new(place, &cache, &project, how, &stop) };
    let logs = if session.settings.verbosity == Verbosity::Verbose { Logs::Tell } else { Logs::Keep };
    let summary = run.run(&selected, logs, &mut faces.tee())?;
    let code = exit(summary.verdict);
    let any =
        summary.tasks.values().any(|ended| !matches!(ended.outcome, Outcome::Hit | Outcome::Unchanged));
    std::thread::scope(|scope| {
        // What the stamps remember saves time and nothing else.
        scope.spawn(|| cache.cas.stamps.flush());
        if how.effects == Effects::Apply {
            let to = remember::To { memo: memo.as_ref(), known: entries, path, began, common, outline };
            // Everything is done: what cannot be remembered only costs time in the next run.
            if let Err(error) = remember::remember(summary, &project.graph, &selected, to, place) {
                let text = format!("what this run saw could not be remembered: {error}");
                faces.tee().event(&Event::Warning { task: None, text, hint: None });
            }
        }
    });
    if any {
        fs::sync_later(&cache.path(""));
    }
    // The process ends now: taking all this apart first would only take time.
    std::mem::forget((project, known));
    Ok(code)
}

/// Whether the memo leads to other machines.
fn is_away(memo: &Memo) -> bool {
    let mut effects = memo.head.effects.iter();
    !memo.head.remote.is_empty()
        || effects.any(|(kind, wants)| tasks::effect(kind, wants).is_some_and(|effect| effect.is_away()))
}

/// Whether destinations and hosts are still as the memo says.
fn holds(memo: &Memo, place: &Place, cache: &Cache, how: &How, stop: &Stop) -> bool {
    let (root, links, env, network) = (&place.root, &place.links, &place.env, how.network);
    let reach = Reach { cache, root, stop, links, network, env, tell: &forecast::Silent };
    links.set_parallel(memo.head.parallel);
    let mut effects = Vec::new();
    for (kind, wants) in &memo.head.effects {
        let Some(effect) = tasks::effect(kind, wants) else { return false };
        effects.push(effect);
    }
    let facts = memo.head.remote.len();
    let asked = |index: usize, destination: usize| {
        let probed = effects[index].probe(destination, &reach);
        probed.is_ok_and(|change| change.lines().is_empty())
    };
    let places = effects.iter().enumerate();
    let places: Vec<(usize, usize)> = places
        .flat_map(|(index, effect)| (0..effect.destinations().len()).map(move |d| (index, d)))
        .collect();
    let count = places.len() + facts;
    let at_once =
        if effects.iter().any(|effect| effect.is_away()) { links.parallel().min(count) } else { 1 };
    let (next, same) = (AtomicUsize::new(0), AtomicBool::new(true));
    let work = || {
        while same.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let still = match (places.get(number), number.checked_sub(places.len())) {
                (Some((index, destination)), _) => asked(*index, *destination),
                (None, Some(fact)) if fact < facts => tasks::still(&memo.head.remote[fact], &reach),
                _ => return,
            };
            if !still {
                same.store(false, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..at_once {
            scope.spawn(work);
        }
        work();
    });
    same.into_inner()
}

/// The tasks that are told of when there was nothing to do; `None` if the memo does not know them.
fn told(memo: &Memo, faces: &Faces, session: &Session) -> Option<BTreeMap<String, memo::Entry>> {
    match faces.wants_all(session) {
        true => memo.known(&BTreeSet::new()).map(|known| known.entries),
        false => Some(BTreeMap::new()),
    }
}

/// Tells that there was nothing to do.
fn unchanged(
    memo: &Memo,
    told: BTreeMap<String, memo::Entry>,
    faces: &mut Faces,
    clock: std::time::Instant,
) {
    let mut tee = faces.tee();
    tee.event(&Event::Begin { tasks: memo.head.tasks });
    let mut counts = BTreeMap::new();
    let effects = memo.head.effects.len();
    for (outcome, count) in [(Outcome::Hit, memo.head.tasks - effects), (Outcome::Unchanged, effects)] {
        if count > 0 {
            counts.insert(outcome, count);
        }
    }
    for (task, entry) in told {
        let effect = entry.wants.as_ref().and_then(|wants| tasks::effect(task.split('.').next()?, wants));
        let outcome = if entry.key.is_some() { Outcome::Hit } else { Outcome::Unchanged };
        let names = effect.map(|effect| effect.destinations()).unwrap_or_default();
        let destination = |name| crate::report::Destination {
            name,
            outcome: Outcome::Unchanged,
            bytes_sent: 0,
            bytes_planned: 0,
            changes: Vec::new(),
            error: None,
        };
        tee.event(&Event::Done(Done {
            task,
            outcome,
            key: entry.key,
            seconds: 0.0,
            why: None,
            cut_off: false,
            destinations: names.into_iter().map(destination).collect(),
            failure: None,
            log: None,
        }));
    }
    tee.event(&Event::End(End { verdict: Verdict::Ok, counts, seconds: clock.elapsed().as_secs_f64() }));
}

fn dry_run(session: &Session, targets: &[String], how: &How) -> Result<u8, Halt> {
    let cache = session.place.cache()?;
    let project = session.place.load()?;
    let selected = project.graph.closure(&project.graph.targets(targets)?);
    let stop = Stop::new(Stop::GRACE)?;
    let engine = Engine::new(&session.place, &cache, &project, how, &stop);
    let forecast = forecast::forecast(&engine, &selected);
    let mut text = String::new();
    let mut nothing = 0;
    for (id, state) in &forecast {
        let name = &project.graph.node(*id).name;
        match state.line() {
            Some(line) => text.push_str(&format!("{name}: {line}\n")),
            None => nothing += 1,
        }
    }
    if text.is_empty() {
        text = format!("nothing would run: {nothing} tasks are up to date\n");
    }
    say(&text);
    Ok(0)
}

/// The one task that a target means.
pub fn one_task(graph: &Graph, target: &str) -> Result<TaskId, Halt> {
    let found = graph.target(target)?;
    match found.as_slice() {
        [one] => Ok(*one),
        many => {
            let names: Vec<String> = many.iter().map(|id| format!("`{}`", graph.node(*id).name)).collect();
            let message = format!("`{target}` is {} tasks, and one is wanted", many.len());
            Err(Mistake::new(message).hint(format!("one of {}", names.join(", "))).into())
        }
    }
}
