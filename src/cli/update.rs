//! `update`: moves pins to what their names mean now, and says from where to where.

use std::collections::BTreeSet;

use super::engine::Engine;
use super::run::How;
use super::{Halt, Session, say};
use crate::host::stop::Stop;
use crate::pins::Pin;
use crate::tasks::{clone, image};

/// Arguments of `update`
#[derive(clap::Args)]
pub struct Update {
    /// Tasks whose pins move; all if none is given
    names: Vec<String>,
}

impl Update {
    /// Runs the verb.
    pub fn run(&self, session: &Session) -> Result<u8, Halt> {
        let cache = session.place.cache()?;
        let project = session.place.load()?;
        let graph = &project.graph;
        let ids: BTreeSet<_> = match self.names.is_empty() {
            true => graph.ids().collect(),
            false => graph.targets(&self.names)?,
        };
        let wanted: BTreeSet<Pin> = ids.iter().flat_map(|id| graph.node(*id).task.pins()).collect();
        let (how, stop) = (How::usual(), Stop::new(Stop::GRACE)?);
        stop.listen()?;
        let engine = Engine::new(&session.place, &cache, &project, &how, &stop);
        let mut pins = project.pins.clone();
        let mut moved = false;
        for pin in wanted {
            let now = match &pin {
                Pin::Git { url, rev } => clone::resolve(url, rev, &engine.session())?,
                Pin::Image { reference, .. } => {
                    let folder = reference.strip_prefix("oci:").unwrap_or(reference);
                    image::resolve(&session.place.root.join(folder))?
                }
            };
            let before = pins.pinned(&pin).map(str::to_string);
            let line = match &before {
                None => format!("{pin}: pinned to {now}"),
                Some(before) if *before == now => format!("{pin}: still {now}"),
                Some(before) => format!("{pin}: {before} -> {now}"),
            };
            say(&format!("{line}\n"));
            moved |= pins.set(pin, now);
        }
        if moved {
            pins.write(&session.place.root)?;
        }
        Ok(0)
    }
}
