//! A project, its cache and how to run it: what every verb shares that runs tasks. Knows no memo's file
//! and no arguments.

use std::collections::{BTreeMap, BTreeSet};

use super::Halt;
use super::place::{Place, Project};
use super::run::How;
use crate::build::{self, Carried, Logs, Summary};
use crate::cache::Cache;
use crate::host::stop::Stop;
use crate::memo;
use crate::pins::{Pin, Pins};
use crate::report::{Event, Outcome, Report};
use crate::schedule::TaskId;
use crate::step::{Earlier, Effects};
use crate::work;

/// A project and how to run it.
pub struct Engine<'a> {
    /// Where it is.
    pub place: &'a Place,
    /// Its cache.
    pub cache: &'a Cache,
    /// The project.
    pub project: &'a Project,
    /// How to run.
    pub how: &'a How,
    /// The user's wish to stop.
    pub stop: &'a Stop,
    /// Tasks whose inputs are known not to have changed.
    pub known: Option<&'a BTreeMap<String, memo::Entry>>,
    /// Tasks that are taken over and are not in the project as it was read.
    pub apart: Carried<'a>,
}

impl<'a> Engine<'a> {
    /// An engine that knows nothing of earlier runs but what is in the cache.
    pub fn new(
        place: &'a Place,
        cache: &'a Cache,
        project: &'a Project,
        how: &'a How,
        stop: &'a Stop,
    ) -> Self {
        Self { place, cache, project, how, stop, known: None, apart: Carried::new() }
    }

    /// What all steps share.
    pub fn session(&self) -> work::Session<'_> {
        work::Session {
            cache: self.cache,
            local: &self.project.local,
            env: &self.place.env,
            pins: &self.project.pins,
            stop: self.stop,
            links: &self.place.links,
            network: self.how.network,
            jobs: self.how.jobs,
        }
    }

    /// Runs tasks, writes pins and the history.
    pub fn run(
        &self,
        selected: &BTreeSet<TaskId>,
        logs: Logs,
        report: &mut dyn Report,
    ) -> Result<Summary<'a>, Halt> {
        let session = self.session();
        let earlier = Earlier::new(self.cache.history(&self.place.root));
        let options = build::Options {
            on_failure: self.how.on_failure,
            effects: self.how.effects,
            logs,
            earlier: &earlier,
            known: self.known,
            apart: self.apart.clone(),
        };
        let mut pins = self.project.pins.clone();
        let mut write = |added: Vec<(Pin, String)>| add_pins(&mut pins, added, self.place);
        let graph = &self.project.graph;
        let summary = build::run(graph, selected, &session, &options, report, &mut write);
        let endings: BTreeMap<String, _> = summary
            .tasks
            .iter()
            .filter(|(task, ended)| tells(ended, task, &earlier) && graph.find(task).is_some())
            .map(|(task, ended)| (task.clone(), ended.ending.clone()))
            .collect();
        if !endings.is_empty()
            && self.how.effects == Effects::Apply
            && let Err(error) = self.cache.history(&self.place.root).append(&endings)
        {
            let text = format!("the history could not be written: {error}");
            report.event(&Event::Warning { task: None, text, hint: None });
        }
        Ok(summary)
    }
}

/// Whether an ending is news: a hit on the key of the last time is not.
fn tells(ended: &build::Ended, task: &str, earlier: &Earlier) -> bool {
    match ended.outcome {
        Outcome::Ran | Outcome::Applied | Outcome::Failed => true,
        Outcome::Skipped | Outcome::Deferred => false,
        Outcome::Hit | Outcome::Unchanged => {
            let last = earlier.last(task);
            last.is_none_or(|last| !last.same_work(&ended.ending))
        }
    }
}

fn add_pins(pins: &mut Pins, added: Vec<(Pin, String)>, place: &Place) -> Vec<String> {
    let mut lines = Vec::new();
    // Another process may have added pins meanwhile: they stay.
    if let Ok(text) = Pins::text(&place.root)
        && let Ok(now) = Pins::parse(&text)
    {
        *pins = now;
    }
    for (pin, to) in added {
        let line = format!("pinned {pin} to `{to}`");
        if pins.pinned(&pin).is_none() && pins.set(pin, to) {
            lines.push(line);
        }
    }
    if !lines.is_empty()
        && let Err(error) = pins.write(&place.root)
    {
        lines.push(format!("the pin could not be written: {error}"));
    }
    lines
}
