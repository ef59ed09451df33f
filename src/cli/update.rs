//! `update`: moves pins to what their names mean now, and says from where to where. A tag that has moved is
//! followed only when its task is named.

use std::collections::{BTreeMap, BTreeSet};

use super::engine::Engine;
use super::forecast::Silent;
use super::run::How;
use super::{Halt, Session, say};
use crate::error::{Error, Failure};
use crate::host::stop::Stop;
use crate::pins::Pin;
use crate::report::text::clean;
use crate::tasks::clone::{self, Between};

/// Arguments of `update`
#[derive(clap::Args)]
pub struct Update {
    /// Tasks whose pins move; all if none is given, but then no pin of a tag that was moved
    names: Vec<String>,
}

impl Update {
    /// Runs the verb.
    pub fn run(&self, session: &Session) -> Result<u8, Halt> {
        let place = &session.place;
        let cache = place.cache()?;
        let project = place.load()?;
        let graph = &project.graph;
        let ids: BTreeSet<_> = match self.names.is_empty() {
            true => graph.ids().collect(),
            false => graph.targets(&self.names)?,
        };
        let pins = |id| graph.node(id).task.pins().into_iter().map(move |pin| (pin, id));
        let wanted: BTreeMap<Pin, _> = ids.iter().flat_map(|id| pins(*id)).collect();
        let (how, stop) = (How::usual(), Stop::new(Stop::GRACE)?);
        stop.listen()?;
        let engine = Engine::new(place, &cache, &project, &how, &stop);
        let (session, named) = (engine.session(), !self.names.is_empty());
        let (mut pins, mut moved, mut tags) = (project.pins.clone(), false, Vec::new());
        for (pin, owner) in wanted {
            let before = pins.pinned(&pin).map(str::to_string);
            let (now, kind) = match &pin {
                Pin::Git { url, rev } => {
                    let found = clone::resolve(url, rev, &session)?;
                    (found.commit, found.kind)
                }
                Pin::Image { .. } => {
                    let now = graph.node(owner).task.image_now(&pin, &session, &Silent)?;
                    (now, clone::Kind::Branch)
                }
            };
            let text = match (&before, &pin) {
                (None, _) => format!("{pin}: pinned to {now}\n"),
                (Some(before), _) if *before == now => format!("{pin}: still {now}\n"),
                (Some(before), Pin::Git { url, rev }) if kind == clone::Kind::Tag && !named => {
                    tags.push(clone::moved(rev, url, before, &now).message);
                    continue;
                }
                (Some(before), Pin::Git { url, .. }) => {
                    let tag = if kind == clone::Kind::Tag { "the tag has moved: " } else { "" };
                    let between = clone::between(url, before, &now, LISTED, &session)?;
                    format!("{pin}: {tag}{before} -> {now}{}", way(between.as_ref()))
                }
                (Some(before), Pin::Image { .. }) => format!("{pin}: {before} -> {now}\n"),
            };
            say(&text);
            moved |= pins.set(pin, now);
        }
        if moved {
            pins.write(&place.root)?;
        }
        if let Some(first) = tags.first() {
            let failure = Failure::new(first.clone()).detail(tags[1..].iter().cloned());
            let hint = "a tag should not move: ask upstream, and name the task to move its pin: `vcbuild update NAME`";
            return Err(Error::from(failure.hint(hint)).into());
        }
        Ok(0)
    }
}

/// How many commits are listed between the old and the new one.
const LISTED: usize = 20;

/// The rest of the line about a pin that moved, and the commits in between.
fn way(between: Option<&Between>) -> String {
    let Some(Between { is_forward, commits, count }) = between else {
        return ", what is in between cannot be found out\n".to_string();
    };
    let mut text = match is_forward {
        true => "\n".to_string(),
        false => ", not a fast-forward: the old commit is no longer part of it\n".to_string(),
    };
    for commit in commits {
        text.push_str(&format!("    {}\n", clean(commit)));
    }
    if *count > commits.len() {
        text.push_str(&format!("    and {} more\n", count - commits.len()));
    }
    text
}
