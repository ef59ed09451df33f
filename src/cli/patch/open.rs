//! Opens the patches of a task: the engine makes the tree that they go to, as for a run, and what is then
//! read of it is read inside of a step, so that what the cache lost is made again.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::super::engine::Engine;
use super::super::get::{Written, run_reading};
use super::super::place::Project;
use super::super::run::{self, Faces, How};
use super::{Desk, Halt};
use crate::cache::Cache;
use crate::error::{Error, Failure, Result};
use crate::graph::Node;
use crate::host::stop::Stop;
use crate::schedule::TaskId;
use crate::tasks::names::{Declare, Names, Outputs};
use crate::tasks::patch_set::Set;
use crate::work::{Class, Inputs, Task, TaskName, Work};

/// Patches whose tree is there.
pub struct Opened<'a> {
    /// The cache, with everything that the tree refers to.
    pub cache: &'a Cache,
    /// The patches.
    pub set: Set,
    /// The project folder.
    pub root: &'a Path,
}

type Read<T> = Box<dyn Fn(&Opened<'_>) -> Result<T> + Send + Sync>;

/// Has `read` look at the patches of a task; it may be called again. The task itself does not run, and
/// cannot afterwards.
pub fn open<T: Send + 'static>(
    desk: &Desk<'_>,
    project: &mut Project,
    id: TaskId,
    read: impl Fn(&Opened<'_>) -> Result<T> + Send + Sync + 'static,
) -> Result<T, Halt> {
    let slot = Arc::new(Mutex::new(None));
    let graph = &mut project.graph;
    let Some(node) = graph.nodes.get_mut(id.0 as usize) else { panic!("BUG: a task that is not there") };
    let patches = std::mem::replace(&mut node.task, Box::new(Away));
    let (name, reads) = (TaskName(format!("edit.{}", node.name)), node.reads.clone());
    let opening = Opening { patches, read: Box::new(read), slot: slot.clone() };
    let opening = graph.add(Node::new(name, Box::new(opening), reads));
    let (how, stop) = (How::usual(), Stop::new(Stop::GRACE)?);
    stop.listen()?;
    let mut faces = Faces::new(desk.session, None)?;
    let engine = Engine::new(&desk.session.place, desk.cache, project, &how, &stop);
    let (verdict, _) = run_reading(&engine, opening, &mut faces.tee())?;
    // What the stamps remember saves time and nothing else.
    let _ = desk.cache.cas.stamps.flush();
    let found = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (found, run::exit(verdict)) {
        (Some(Ok(found)), 0) => Ok(found),
        (Some(Err(failure)), 0) => Err(Halt::Failed(failure)),
        (_, code) => Err(Halt::Code(code.max(1))),
    }
}

struct Opening<T> {
    patches: Box<dyn Declare>,
    read: Read<T>,
    slot: Arc<Mutex<Option<Result<T, Failure>>>>,
}

impl<T: Send> Declare for Opening<T> {
    fn resolve(&mut self, _names: &mut dyn Names) {}

    fn outputs(&self) -> Outputs {
        Outputs::Contents
    }
}

impl<T: Send> Task for Opening<T> {
    fn class(&self) -> Class {
        Class::Effect
    }

    fn needs(&self) -> Vec<TaskName> {
        self.patches.needs()
    }

    fn work(&self, inputs: &Inputs<'_>) -> Result<Work> {
        let Some(set) = self.patches.patch_set(inputs) else { panic!("BUG: this is no patch task") };
        let (set, cache) = (set?, inputs.session.cache);
        inputs.look(|_, _, seen| {
            for (blob, stamp, path) in &seen.sources {
                if !cache.cas.has(blob) {
                    cache.cas.put_known(path, stamp, blob)?;
                }
            }
            Ok(())
        })?;
        let opened = Opened { cache, set, root: inputs.session.local.root() };
        let found = match (self.read)(&opened) {
            Ok(found) => Ok(found),
            // That is the verb's to tell: no task has failed.
            Err(Error::Failed(failure)) => Err(failure),
            Err(other) => return Err(other),
        };
        *self.slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
        // A line, so that it counts as something that was done.
        Ok(Work::Effect(Box::new(Written { lines: vec![String::new()] })))
    }
}

/// Stands where a task was that has been opened.
struct Away;

impl Declare for Away {
    fn resolve(&mut self, _names: &mut dyn Names) {}

    fn outputs(&self) -> Outputs {
        Outputs::Contents
    }
}

impl Task for Away {
    fn class(&self) -> Class {
        Class::Action
    }

    fn needs(&self) -> Vec<TaskName> {
        Vec::new()
    }

    fn work(&self, _inputs: &Inputs<'_>) -> Result<Work> {
        panic!("BUG: a task that was opened does not run")
    }
}
