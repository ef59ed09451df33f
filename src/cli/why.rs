//! `why`: the leaf that changed since the last run (or, if nothing has, between the last two), and the
//! chain from it to the task.

use std::collections::{BTreeMap, BTreeSet};

use super::engine::Engine;
use super::forecast::{self, State};
use super::run::{How, one_task};
use super::{Halt, Session, say};
use crate::cache::history::Ending;
use crate::digest::Digest;
use crate::error::Failure;
use crate::explain::{self, Reason};
use crate::host::stop::Stop;
use crate::key;
use crate::schedule::TaskId;
use crate::work::Network;

/// Arguments of `why`
#[derive(clap::Args)]
pub struct WhyVerb {
    /// The task
    task: String,
    /// Print the preimage of its key instead
    #[arg(long)]
    key: bool,
}

impl WhyVerb {
    /// Runs the verb.
    pub fn run(&self, session: &Session) -> Result<u8, Halt> {
        let cache = session.place.cache()?;
        let project = session.place.load()?;
        let id = one_task(&project.graph, &self.task)?;
        let how = How { network: Network::Offline, locked: true, ..How::usual() };
        let stop = Stop::new(Stop::GRACE)?;
        let engine = Engine::new(&session.place, &cache, &project, &how, &stop);
        let selected = project.graph.closure(&BTreeSet::from([id]));
        let states = forecast::forecast(&engine, &selected).into_iter().collect();
        let history = cache.history(&session.place.root).read();
        let story = Story { engine: &engine, states, history };
        if self.key {
            return story.key(id);
        }
        let mut out = String::new();
        story.tell(id, 0, &mut out);
        say(&out);
        Ok(0)
    }
}

struct Story<'a> {
    engine: &'a Engine<'a>,
    states: BTreeMap<TaskId, State>,
    history: BTreeMap<String, (Ending, Option<Ending>)>,
}

impl Story<'_> {
    fn name(&self, id: TaskId) -> &str {
        &self.engine.project.graph.node(id).name.0
    }

    fn key(&self, id: TaskId) -> Result<u8, Halt> {
        let preimage = match self.states.get(&id) {
            Some(State::Hit(_, record)) => record.preimage.clone(),
            Some(State::Runs(_, preimage)) => preimage.clone(),
            Some(State::Asks(wants, _)) => wants.clone(),
            Some(state) => {
                let why = state.line().unwrap_or_default();
                return Err(Halt::Failed(Failure::new(format!(
                    "`{}` has no key now: {why}",
                    self.name(id)
                ))));
            }
            None => panic!("BUG: a selected task without a forecast"),
        };
        if let Some(State::Hit(key, _) | State::Runs(key, _)) = self.states.get(&id) {
            say(&format!("{key}\n"));
        }
        say(&format!("{}\n", serde_json::to_string_pretty(&preimage).unwrap_or_default()));
        Ok(0)
    }

    fn preimage(&self, key: Option<Digest>) -> Option<serde_json::Value> {
        Some(self.engine.cache.lookup(&key?)?.preimage)
    }

    /// What is compared: the word for it, the preimage before, and the one after.
    fn sides(&self, id: TaskId) -> Result<(&'static str, serde_json::Value, serde_json::Value), String> {
        let Some((last, before)) = self.history.get(self.name(id)) else {
            return Err("it has not run before".into());
        };
        let gone = || "its earlier result is not in the cache any more".to_string();
        let now = match self.states.get(&id) {
            Some(State::Hit(key, record)) => Some((Some(*key), record.preimage.clone())),
            Some(State::Runs(key, preimage)) => Some((Some(*key), preimage.clone())),
            Some(State::Asks(wants, _)) => Some((None, wants.clone())),
            _ => None,
        };
        let old = |ending: &Ending| ending.wants.clone().or_else(|| self.preimage(ending.key));
        if let Some((key, now)) = now
            && (key != last.key || key.is_none() && last.wants.as_ref() != Some(&now))
        {
            let word =
                if matches!(self.states.get(&id), Some(State::Hit(..))) { "changed" } else { "would run" };
            return Ok((word, old(last).ok_or_else(gone)?, now));
        }
        if let Some(State::Blocked(why)) = self.states.get(&id) {
            return Err(format!("not known: {why}"));
        }
        let Some(before) = before else { return Err("nothing has changed since it first ran".into()) };
        Ok(("last ran", old(before).ok_or_else(gone)?, old(last).ok_or_else(gone)?))
    }

    fn tell(&self, id: TaskId, depth: usize, out: &mut String) {
        let indent = "  ".repeat(depth);
        let graph = &self.engine.project.graph;
        if let Some(State::Unknown(_)) = self.states.get(&id) {
            out.push_str(&format!("{indent}{}: what it reads would be made anew\n", self.name(id)));
            let moving = |id: &&TaskId| !matches!(self.states.get(id), Some(State::Hit(..)));
            for read in graph.node(id).reads.iter().filter(moving) {
                self.tell(*read, depth + 1, out);
            }
            return;
        }
        match self.sides(id) {
            Err(why) => out.push_str(&format!("{indent}{}: {why}\n", self.name(id))),
            Ok((word, before, now)) => {
                let reasons = match graph.node(id).task.class() {
                    crate::work::Class::Action => explain::reasons(&self.engine.cache.cas, &before, &now),
                    crate::work::Class::Effect => wants(&before, &now),
                };
                out.push_str(&format!("{indent}{}: {word}:\n", self.name(id)));
                for reason in &reasons {
                    out.push_str(&format!("{indent}  {}\n", reason.text));
                }
                for read in &graph.node(id).reads {
                    if self.moved(*read, &now) {
                        self.tell(*read, depth + 1, out);
                    }
                }
            }
        }
    }

    /// Whether a task that was read gave something else than the last time, as `now` read it.
    fn moved(&self, id: TaskId, now: &serde_json::Value) -> bool {
        let Some((last, before)) = self.history.get(self.name(id)) else { return false };
        match self.states.get(&id) {
            Some(State::Hit(key, record)) if Some(*key) != last.key => last.value != Some(record.value),
            Some(State::Hit(_, record)) => {
                let text = now.to_string();
                let differs = before.as_ref().is_some_and(|before| before.value != Some(record.value));
                differs && (text.contains(&record.value.to_string()) || before.is_some())
            }
            _ => true,
        }
    }
}

/// What differs in what an effect wants.
fn wants(before: &serde_json::Value, now: &serde_json::Value) -> Vec<Reason> {
    let words = |difference: key::Difference| {
        let path = difference.path.join(".");
        let text = match (difference.before, difference.now) {
            (Some(_), Some(_)) => format!("`{path}` changed"),
            (None, _) => format!("`{path}` is new"),
            (_, None) => format!("`{path}` is gone"),
        };
        Reason { text, value: None }
    };
    key::differences(before, now).into_iter().map(words).collect()
}
