//! `log`: what a task printed when it last ran.

use super::run::one_task;
use super::{Halt, Session, say_bytes};
use crate::error::Failure;
use crate::recipe::Content;

/// Arguments of `log`
#[derive(clap::Args)]
pub struct Log {
    /// The task
    task: String,
}

impl Log {
    /// Runs the verb.
    pub fn run(&self, session: &Session) -> Result<u8, Halt> {
        let cache = session.place.cache()?;
        let project = session.place.load()?;
        let name = &project.graph.node(one_task(&project.graph, &self.task)?).name;
        let history = cache.history(&session.place.root).read();
        let Some((last, _)) = history.get(&name.0) else {
            return Err(Halt::Failed(Failure::new(format!("`{name}` has not run yet"))));
        };
        if let Some(log) = &last.log {
            match cache.cas.read(*log) {
                Ok(bytes) => say_bytes(&bytes),
                Err(_) => {
                    return Err(Halt::Failed(Failure::new(format!(
                        "the log of `{name}` is not in the cache any more"
                    ))));
                }
            }
        }
        Ok(0)
    }
}
