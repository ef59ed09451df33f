//! `get`: a task's outputs as a file or folder. It runs through the engine as one more effect, so that
//! what the cache lost is made again.

use std::path::{Path, PathBuf};

use super::engine::Engine;
use super::run::{Faces, How, one_task};
use super::{Halt, Session};
use crate::build::Logs;
use crate::cache::Cache;
use crate::cache::folder;
use crate::cache::tree::Entry;
use crate::digest::Digest;
use crate::error::{At, Error, Failure, Mistake, Result};
use crate::glob::Globs;
use crate::graph::{Graph, Node};
use crate::host::fs::{self, Durability, Kind, Links};
use crate::host::stop::Stop;
use crate::oci::attached::Attached;
use crate::oci::sbom::SPDX;
use crate::report::output::Verbosity;
use crate::report::{End, Event, Outcome, Report, Verdict};
use crate::schedule::TaskId;
use crate::tasks::layout;
use crate::tasks::names::{Declare, Names, Outputs};
use crate::tasks::secret::Source;
use crate::work::{Change, Class, Effect, Fault, Inputs, Reach, Task, TaskName, Work};

/// Arguments of `get`
#[derive(clap::Args)]
pub struct Get {
    /// The task
    task: String,
    /// The file or folder to write
    #[arg(short, long, value_name = "PATH")]
    output: PathBuf,
    /// Replace a folder that `get` did not make
    #[arg(long)]
    force: bool,
    /// Write the list of what an image with `sbom = true` is made of, as SPDX JSON; for several platforms
    /// a folder of them
    #[arg(long)]
    sbom: bool,
    /// Use no network
    #[arg(long)]
    offline: bool,
    /// Add no pin to vcbuild.lock
    #[arg(long)]
    locked: bool,
}

impl Get {
    /// Runs the verb.
    pub fn run(&self, session: &Session) -> Result<u8, Halt> {
        let cache = session.place.cache()?;
        let mut project = session.place.load()?;
        project.pins.locked = self.locked;
        let id = one_task(&project.graph, &self.task)?;
        let to = destination(&self.output)?;
        let force = if self.force { Force::Yes } else { Force::No };
        let is_image = project.graph.node(id).name.kind() == "image";
        if self.sbom && !is_image {
            return Err(Mistake::new(format!("`{}` is no image: `--sbom` is for images", self.task)).into());
        }
        let sbom = self.sbom;
        let goal = to.clone();
        let read = move |cache: &Cache, value: &Digest| match sbom {
            true => place_sbom(cache, value, &goal),
            false => place(cache, value, &goal, force),
        };
        let mut how = How::usual();
        if self.offline {
            how.network = crate::work::Network::Offline;
        }
        let mut faces = Faces::new(session, None)?;
        let stop = Stop::new(Stop::GRACE)?;
        stop.listen()?;
        if let Some(secret) = project.graph.node(id).task.secret() {
            let (root, env, links) = (&session.place.root, &session.place.env, &session.place.links);
            let (stop, network, tell) = (&stop, how.network, &super::forecast::Silent);
            let reach = Reach { cache: &cache, root, stop, links, network, env, tell };
            let written = place_secret(secret, &reach, to)?;
            if session.settings.verbosity > Verbosity::Quiet {
                super::remark(&[written]);
            }
            return Ok(0);
        }
        let reading = reading(&mut project.graph, id, Box::new(read))?;
        let engine = Engine::new(&session.place, &cache, &project, &how, &stop);
        let (verdict, written) = run_reading(&engine, reading, &mut faces.tee())?;
        if session.settings.verbosity > Verbosity::Quiet {
            super::remark(&written);
        }
        // What the stamps remember saves time and nothing else.
        let _ = cache.cas.stamps.flush();
        Ok(super::run::exit(verdict))
    }
}

/// Where something is to be written. What is there and is replaced must be a file or a folder: `/dev/null` would be gone.
pub fn destination(output: &Path) -> Result<PathBuf> {
    let to = std::path::absolute(output).at("find", output)?;
    let there = fs::status(&to, Links::Follow).at("look at", &to)?;
    let is_device = to.parent() == Some(Path::new("/dev"));
    match there.map(|found| found.kind) {
        Some(Kind::Folder) => Ok(to),
        Some(kind) if kind == Kind::Other || is_device => {
            let message = format!("`{}` is no file that could be replaced", to.display());
            Err(Failure::new(message).hint("name a file or a folder").into())
        }
        _ => Ok(to),
    }
}

/// Runs a task that `reading` made, and all it needs; gives what it wrote. That it could not read is a
/// failure of the verb; what its predecessors do is told.
pub fn run_reading(
    engine: &Engine<'_>,
    reading: TaskId,
    report: &mut dyn Report,
) -> Result<(Verdict, Vec<String>), Halt> {
    let graph = &engine.project.graph;
    let name = &graph.node(reading).name;
    let mut modest = Modest { task: name, inner: report, written: Vec::new(), failure: None };
    let summary = engine.run(&graph.closure(&[reading].into()), Logs::Keep, &mut modest)?;
    match modest.failure {
        Some(failure) => Err(Halt::Failed(failure)),
        None => Ok((summary.verdict, modest.written)),
    }
}

/// Tells what the engine tells, but nothing of the task that reads, nor how a good run ended.
struct Modest<'a> {
    /// The task that reads.
    task: &'a TaskName,
    /// Who is told the rest.
    inner: &'a mut dyn Report,
    /// The lines that reading gave.
    written: Vec<String>,
    /// Why it could not read.
    failure: Option<Failure>,
}

impl Report for Modest<'_> {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Done(done) if done.task == self.task.0 => {
                let lines = done.destinations.iter().flat_map(|destination| destination.changes.clone());
                self.written = lines.collect();
                self.failure = done.failure.clone();
            }
            Event::Start { task } if *task == self.task.0 => {}
            Event::End(_) if self.failure.is_some() => {}
            Event::End(end) => {
                let mut counts = end.counts.clone();
                let own = if end.verdict == Verdict::Ok { Outcome::Applied } else { Outcome::Skipped };
                if let Some(count) = counts.get_mut(&own) {
                    *count -= 1;
                }
                counts.retain(|_, count| *count > 0);
                if end.verdict == Verdict::Ok && !counts.contains_key(&Outcome::Ran) {
                    counts.clear();
                }
                self.inner.event(&Event::End(End { counts, ..end.clone() }));
            }
            other => self.inner.event(other),
        }
    }

    fn tick(&mut self) {
        self.inner.tick();
    }
}

/// What is done with a task's value.
pub type Read = dyn Fn(&Cache, &Digest) -> Result<Vec<String>> + Send + Sync;

/// Adds a task that reads the value of another one.
pub fn reading(graph: &mut Graph, of: TaskId, read: Box<Read>) -> Result<TaskId, Halt> {
    let node = graph.node(of);
    if node.task.class() == Class::Effect {
        let failure = Failure::new(format!("`{}` changes destinations and has no outputs", node.name));
        return Err(Halt::Failed(failure));
    }
    let task = Reading { of: node.name.clone(), read };
    let name = TaskName(format!("get.{}", node.name));
    Ok(graph.add(Node::new(name, Box::new(task), vec![of])))
}

/// Whether a folder that `get` did not make may be replaced.
#[derive(Clone, Copy, PartialEq)]
enum Force {
    No,
    Yes,
}

struct Reading {
    of: TaskName,
    read: Box<Read>,
}

impl Declare for Reading {
    fn resolve(&mut self, _names: &mut dyn Names) {}

    fn outputs(&self) -> Outputs {
        Outputs::Contents
    }
}

impl Task for Reading {
    fn class(&self) -> Class {
        Class::Effect
    }

    fn needs(&self) -> Vec<TaskName> {
        vec![self.of.clone()]
    }

    fn work(&self, inputs: &Inputs<'_>) -> Result<Work> {
        let value = inputs.value(&self.of);
        let lines = (self.read)(inputs.session.cache, &value)?;
        Ok(Work::Effect(Box::new(Written { lines })))
    }
}

/// What has been written already, while inputs were read: content that is lost is reported from there.
pub struct Written {
    /// One line each.
    pub lines: Vec<String>,
}

impl Effect for Written {
    fn wants(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    fn destinations(&self) -> Vec<String> {
        vec!["here".into()]
    }

    fn probe(&self, _destination: usize, _reach: &Reach<'_>) -> Result<Box<dyn Change + '_>, Fault> {
        Ok(Box::new(Lines(&self.lines)))
    }
}

struct Lines<'a>(&'a [String]);

impl Change for Lines<'_> {
    fn lines(&self) -> Vec<String> {
        self.0.to_vec()
    }

    fn bytes(&self) -> u64 {
        0
    }

    fn apply(&self, _reach: &Reach<'_>) -> Result<u64, Fault> {
        Ok(0)
    }
}

/// Writes a value to `to`: one file as a file, anything else as a folder.
fn place(cache: &Cache, value: &Digest, to: &Path, force: Force) -> Result<Vec<String>> {
    let mut files: Vec<(Vec<u8>, Entry)> = Vec::new();
    cache.cas.walk(value, &mut |path, entry| {
        if !matches!(entry, Entry::Folder { .. }) {
            files.push((path.to_vec(), entry.clone()));
        }
        Ok(())
    })?;
    let there = fs::status(to, Links::Follow).at("look at", to)?;
    let is_folder = there.is_some_and(|found| found.kind == Kind::Folder);
    if let [(path, entry)] = files.as_slice()
        && let Some(part) = entry.part()
    {
        use std::os::unix::ffi::OsStrExt;
        let last = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
        let to = if is_folder { to.join(std::ffi::OsStr::from_bytes(last)) } else { to.to_path_buf() };
        let mode = match entry {
            Entry::File { mode, .. } | Entry::Recipe { mode, .. } => *mode,
            Entry::Link { .. } | Entry::Folder { .. } => 0o644,
        };
        folder::place(&cache.cas, &to, &part, mode)?;
        return Ok(vec![format!("wrote `{}`", to.display())]);
    }
    if there.is_some() && !is_folder {
        return Err(Failure::new(format!("`{}` is a file, and there are several to write", to.display()))
            .hint("name a folder")
            .into());
    }
    let empty = !is_folder || fs::list(to).at("list", to)?.is_empty();
    if !empty && force == Force::No && !made(cache, to)? {
        let message = format!("`{}` is not empty, and `get` did not make it", to.display());
        return Err(Failure::new(message).hint("`--force` replaces all that is in it").into());
    }
    fs::make_folder(to)?;
    remember(cache, to)?;
    let none = Globs::new::<&str>(&[]).map_err(Error::failed)?;
    folder::bring(&cache.cas, value, to, &none)?;
    Ok(vec![format!("wrote `{}`", to.display())])
}

/// Writes a secret, straight from where it is, into a file that only its owner may read.
fn place_secret(secret: &Source, reach: &Reach<'_>, to: PathBuf) -> Result<String> {
    let there = fs::status(&to, Links::Follow).at("look at", &to)?;
    let is_folder = there.is_some_and(|found| found.kind == Kind::Folder);
    let to = if is_folder { to.join(secret.name()) } else { to };
    secret.place(reach, &to)?;
    Ok(format!("wrote `{}`", to.display()))
}

/// Writes the list of what an image is made of; for several platforms `to` is a folder of them.
fn place_sbom(cache: &Cache, value: &Digest, to: &Path) -> Result<Vec<String>> {
    let attached = layout::attached(&cache.cas, value)?;
    let lists: Vec<_> = attached.into_iter().filter(|document| document.kind == SPDX).collect();
    let wrote = |to: &Path, bytes: &[u8]| {
        fs::write(to, bytes, 0o644, Durability::Cache).map(|()| format!("wrote `{}`", to.display()))
    };
    match lists.as_slice() {
        [] => Err(Failure::new("the image has no list of what it is made of")
            .hint("write `sbom = true` in its table")
            .into()),
        [list] => Ok(vec![wrote(to, &list.bytes)?]),
        lists => {
            fs::make_folder(to)?;
            let named = layout::read_all(&cache.cas, value)?;
            let image = |list: &Attached| {
                named.images().find(|image| image.descriptor().digest == list.subject.digest)
            };
            let platform = |list: &Attached| image(list).map(|image| image.config().platform.to_string());
            let name = |list: &Attached| platform(list).unwrap_or_default().replace('/', "-");
            lists
                .iter()
                .map(|list| wrote(&to.join(format!("{}.spdx.json", name(list))), &list.bytes))
                .collect()
        }
    }
}

/// The folders that `get` made, by device and inode.
fn list_of_made(cache: &Cache) -> PathBuf {
    cache.path("runs").join("got")
}

fn identity(folder: &Path) -> Result<String> {
    let found = fs::status(folder, Links::Follow).at("look at", folder)?;
    Ok(found.map(|found| format!("{}:{}", found.stamp.dev, found.stamp.ino)).unwrap_or_default())
}

fn made(cache: &Cache, folder: &Path) -> Result<bool> {
    let known = fs::read(&list_of_made(cache), 64 << 20)?.unwrap_or_default();
    let identity = identity(folder)?;
    Ok(String::from_utf8_lossy(&known).lines().any(|line| line == identity))
}

fn remember(cache: &Cache, folder: &Path) -> Result<()> {
    if !made(cache, folder)? {
        use std::io::Write;
        let path = list_of_made(cache);
        let line = format!("{}\n", identity(folder)?);
        fs::open_append(&path)?.write_all(line.as_bytes()).at("write", &path)?;
    }
    Ok(())
}
