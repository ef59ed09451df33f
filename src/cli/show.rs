//! `show`: what a task is: its action as JSON, an image's config and layers, rendered manifests.

use super::engine::Engine;
use super::forecast::{self, State};
use super::get::{reading, run_reading};
use super::run::{Faces, How, one_task};
use super::{Halt, Session, say};
use crate::build::Logs;
use crate::cache::Cache;
use crate::digest::Digest;
use crate::error::{Failure, Result};
use crate::host::stop::Stop;
use crate::report::{Verdict, text};
use crate::tasks::layout;

/// Arguments of `show`
#[derive(clap::Args)]
pub struct Show {
    /// The task
    task: String,
}

impl Show {
    /// Runs the verb.
    pub fn run(&self, session: &Session) -> Result<u8, Halt> {
        let cache = session.place.cache()?;
        let mut project = session.place.load()?;
        let id = one_task(&project.graph, &self.task)?;
        let kind = project.graph.node(id).name.kind().to_string();
        let stop = Stop::new(Stop::GRACE)?;
        stop.listen()?;
        let how = How::usual();
        let mut faces = Faces::new(session, None)?;
        if kind == "image" {
            let read = |cache: &Cache, value: &Digest| image(cache, value).map(|text| vec![text]);
            let reading = reading(&mut project.graph, id, Box::new(read))?;
            let engine = Engine::new(&session.place, &cache, &project, &how, &stop);
            let mut told: Vec<crate::report::Event> = Vec::new();
            let (verdict, lines) = run_reading(&engine, reading, &mut told)?;
            if verdict != Verdict::Ok {
                let mut tee = faces.tee();
                told.iter().for_each(|event| crate::report::Report::event(&mut tee, event));
                return Ok(super::run::exit(verdict));
            }
            say(&lines.concat());
            return Ok(0);
        }
        let engine = Engine::new(&session.place, &cache, &project, &how, &stop);
        // What it reads has to be there before it can be shown.
        let selected = project.graph.closure(&project.graph.node(id).reads.iter().copied().collect());
        if !selected.is_empty() {
            let summary = engine.run(&selected, Logs::Keep, &mut faces.tee())?;
            if summary.verdict != Verdict::Ok {
                return Ok(super::run::exit(summary.verdict));
            }
        }
        let all = project.graph.closure(&[id].into());
        let states = forecast::forecast(&engine, &all);
        let Some((_, state)) = states.into_iter().find(|(task, _)| *task == id) else {
            panic!("BUG: a selected task without a forecast")
        };
        match state {
            State::Hit(key, record) => say(&action(&key, &record.preimage)),
            State::Runs(key, preimage) => say(&action(&key, &preimage)),
            State::Asks(_, Some(text)) => say(&text),
            State::Asks(wants, None) => say(&pretty(&wants)),
            State::Unknown(_) | State::Blocked(_) => {
                let why = state.line().unwrap_or_default();
                return Err(Halt::Failed(Failure::new(format!("`{}`: {why}", self.task))));
            }
        }
        Ok(0)
    }
}

fn pretty(value: &serde_json::Value) -> String {
    format!("{}\n", serde_json::to_string_pretty(value).unwrap_or_default())
}

fn action(key: &Digest, preimage: &serde_json::Value) -> String {
    pretty(&serde_json::json!({ "key": key, "action": preimage }))
}

/// An image's digest, names, layers and config.
fn image(cache: &Cache, value: &Digest) -> Result<String> {
    let found = layout::read(&cache.cas, value)?;
    let mut out = format!("digest    {}\n", found.image.descriptor().digest);
    for name in &found.names {
        out.push_str(&format!("name      {name}\n"));
    }
    for layer in found.image.layers() {
        let size = text::bytes(layer.descriptor.size);
        out.push_str(&format!(
            "layer     {}  {size}  {}\n",
            layer.descriptor.digest, layer.descriptor.media_type
        ));
    }
    let config: serde_json::Value = serde_json::from_slice(found.image.config_bytes()).unwrap_or_default();
    out.push_str(&pretty(&config));
    Ok(out)
}
