//! `list`: tasks and instances, with their last outcome.

use super::{Halt, Session, say};
use crate::error::{Mistake, did_you_mean};
use crate::host::fs;
use crate::report::text;
use crate::tasks::KINDS;

/// Arguments of `list`
#[derive(clap::Args)]
pub struct List {
    /// Only tasks of this kind
    kind: Option<String>,
}

impl List {
    /// Runs the verb.
    pub fn run(&self, session: &Session) -> Result<u8, Halt> {
        if let Some(kind) = &self.kind
            && !KINDS.contains(&kind.as_str())
        {
            let hint =
                did_you_mean(kind, KINDS).or_else(|| Some(format!("kinds are {}", KINDS.join(", "))));
            return Err(Mistake::new(format!("there is no kind `{kind}`")).hint_maybe(hint).into());
        }
        let cache = session.place.cache()?;
        let project = session.place.load()?;
        let history = cache.history(&session.place.root).read();
        let names: Vec<&str> = project
            .graph
            .nodes
            .iter()
            .map(|node| node.name.0.as_str())
            .filter(|name| self.kind.as_ref().is_none_or(|kind| name.split('.').next() == Some(kind)))
            .collect();
        let width = names.iter().map(|name| name.len()).max().unwrap_or(0);
        let now = fs::now() / 1_000_000_000;
        let mut out = String::new();
        for name in names {
            match history.get(name) {
                Some((last, _)) => {
                    let ago = text::seconds((now - last.time).max(0) as f64);
                    out.push_str(&format!("{name:width$}  {}  {ago} ago\n", last.outcome));
                }
                None => out.push_str(&format!("{name:width$}  never run\n")),
            }
        }
        say(&out);
        Ok(0)
    }
}
