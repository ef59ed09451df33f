//! `bundle`: what an import brings, as one file that brings it to a machine that nobody reaches.

use std::path::{Path, PathBuf};

use super::engine::Engine;
use super::get::{Written, destination, run_reading};
use super::place::Project;
use super::run::{Faces, How, exit, one_task};
use super::{Halt, Session};
use crate::error::{Failure, Result};
use crate::graph::Node;
use crate::host::stop::Stop;
use crate::report::output::Verbosity;
use crate::report::text;
use crate::schedule::TaskId;
use crate::tasks::names::{Declare, Names, Outputs};
use crate::work::{Class, Inputs, Task, TaskName, Work};

/// Arguments of `bundle`
#[derive(clap::Args)]
pub struct Bundle {
    /// The import
    task: String,
    /// The file to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

impl Bundle {
    /// Runs the verb.
    pub fn run(&self, session: &Session) -> Result<u8, Halt> {
        let cache = session.place.cache()?;
        let (mut project, inner) = (session.place.load()?, session.place.load()?);
        let id = one_task(&project.graph, &self.task)?;
        let node = project.graph.node(id);
        if node.name.kind() != "import" {
            let failure = Failure::new(format!("`{}` is not an import", node.name));
            return Err(Halt::Failed(failure.hint("only images are bundled: name an import")));
        }
        let to = destination(&self.output)?;
        let (reads, name) = (node.reads.clone(), TaskName(format!("bundle.{}", node.name)));
        let task = Bundling { inner, id, to };
        let bundling = project.graph.add(Node::new(name, Box::new(task), reads));
        let stop = Stop::new(Stop::GRACE)?;
        stop.listen()?;
        let how = How::usual();
        let mut faces = Faces::new(session, None)?;
        let engine = Engine::new(&session.place, &cache, &project, &how, &stop);
        let (verdict, written) = run_reading(&engine, bundling, &mut faces.tee())?;
        if session.settings.verbosity > Verbosity::Quiet {
            super::remark(&written);
        }
        // What the stamps remember saves time and nothing else.
        let _ = cache.cas.stamps.flush();
        Ok(exit(verdict))
    }
}

/// An import that writes a file in place of changing hosts.
struct Bundling {
    inner: Project,
    id: TaskId,
    to: PathBuf,
}

impl Bundling {
    fn import(&self) -> &dyn Declare {
        &*self.inner.graph.node(self.id).task
    }

    fn shown(&self) -> &Path {
        &self.to
    }
}

impl Declare for Bundling {
    fn resolve(&mut self, _names: &mut dyn Names) {}

    fn outputs(&self) -> Outputs {
        Outputs::Contents
    }
}

impl Task for Bundling {
    fn class(&self) -> Class {
        Class::Effect
    }

    fn needs(&self) -> Vec<TaskName> {
        self.import().needs()
    }

    fn work(&self, inputs: &Inputs<'_>) -> Result<Work> {
        let Work::Effect(effect) = self.import().work(inputs)? else {
            panic!("BUG: an import is no effect")
        };
        let size = effect.bundle(inputs.session.cache, &self.to)?;
        let line = format!("wrote {} ({})", self.shown().display(), text::bytes(size));
        Ok(Work::Effect(Box::new(Written { lines: vec![line] })))
    }
}
