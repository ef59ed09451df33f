//! What a run would do, as far as that is known without running anything: keys are made from what the
//! cache has, and what lies behind a task that would run is not known. Changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::engine::Engine;
use crate::cache::actions::Record;
use crate::digest::Digest;
use crate::error::Error;
use crate::key;
use crate::schedule::TaskId;
use crate::work::{Inputs, TaskName, Tell, Work};

/// What a run would do with a task.
pub enum State {
    /// Its result is in the cache.
    Hit(Digest, Box<Record>),
    /// It would run, under this key and preimage.
    Runs(Digest, serde_json::Value),
    /// It reads what is not there yet.
    Unknown(TaskName),
    /// It is an effect that wants this, here also as people read it; destinations would be asked.
    Asks(serde_json::Value, Option<String>),
    /// What it needs cannot be read now.
    Blocked(String),
}

impl State {
    /// The value, if it is known.
    pub fn value(&self) -> Option<Digest> {
        match self {
            Self::Hit(_, record) => Some(record.value),
            _ => None,
        }
    }

    /// One line, if there would be something to do.
    pub fn line(&self) -> Option<String> {
        match self {
            Self::Hit(..) => None,
            Self::Runs(..) => Some("would run".into()),
            Self::Unknown(task) => Some(format!("depends on what `{task}` gives")),
            Self::Asks(..) => Some("would ask its destinations".into()),
            Self::Blocked(why) => Some(format!("not known: {why}")),
        }
    }

    /// One word, for graphs.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Hit(..) => "hit",
            Self::Runs(..) => "runs",
            Self::Unknown(_) => "unknown",
            Self::Asks(..) => "asks",
            Self::Blocked(_) => "blocked",
        }
    }
}

/// Nobody is told.
pub struct Silent;

impl Tell for Silent {
    fn start(&self) {}
    fn progress(&self, _: Option<&str>, _: u64, _: Option<u64>) {}
    fn note(&self, _: String) {}
    fn warn(&self, _: String, _: Option<String>) {}
}

/// What a run of these tasks would do, in an order in which each comes after what it needs.
pub fn forecast(engine: &Engine<'_>, selected: &BTreeSet<TaskId>) -> Vec<(TaskId, State)> {
    let graph = &engine.project.graph;
    let mut states: BTreeMap<TaskId, State> = BTreeMap::new();
    let mut order = Vec::new();
    let mut open: Vec<(TaskId, bool)> = selected.iter().rev().map(|id| (*id, false)).collect();
    while let Some((id, ready)) = open.pop() {
        if states.contains_key(&id) {
            continue;
        }
        let node = graph.node(id);
        if !ready {
            open.push((id, true));
            open.extend(node.reads.iter().chain(&node.after).rev().map(|before| (*before, false)));
            continue;
        }
        states.insert(id, state(engine, id, &states));
        order.push(id);
    }
    order.into_iter().filter_map(|id| Some((id, states.remove(&id)?))).collect()
}

fn state(engine: &Engine<'_>, id: TaskId, states: &BTreeMap<TaskId, State>) -> State {
    let graph = &engine.project.graph;
    let node = graph.node(id);
    let mut values = BTreeMap::new();
    for read in &node.reads {
        let name = graph.node(*read).name.clone();
        match states.get(read).and_then(State::value) {
            Some(value) => {
                values.insert(name, value);
            }
            None => return State::Unknown(name),
        }
    }
    let session = engine.session();
    let inputs = Inputs::new(&session, &values, &Silent);
    match node.task.work(&inputs) {
        Ok(Work::Effect(effect)) => State::Asks(effect.wants(), effect.shown()),
        Ok(Work::Action(action)) => {
            let preimage = key::preimage(&*action);
            let key = key::key(&preimage);
            match engine.cache.lookup(&key) {
                Some(record) => State::Hit(key, Box::new(record)),
                None => State::Runs(key, preimage),
            }
        }
        Err(Error::Lost(_)) => State::Blocked("the cache has lost a part of what it reads".into()),
        Err(error) => State::Blocked(error.to_string()),
    }
}
