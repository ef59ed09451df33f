//! A small world for the tests of kinds: a project with a cache and embedded nodes, in a temporary
//! folder, and somebody who is told things.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use crate::cache::Cache;
use crate::cache::local::Local;
use crate::digest::Digest;
use crate::error::Result;
use crate::host::fs::{self, Durability};
use crate::host::ssh::Links;
use crate::host::stop::Stop;
use crate::host::{cluster, node, registry};
use crate::pins::Pins;
use crate::tasks::names::{Declare, Filled, Names, Outputs, Placed, Reference, To, Want};
use crate::work::{
    Action, Change, Context, Effect, Env, Fault, Inputs, Network, Noted, Reach, Session, Task, TaskName,
    Tell, Work,
};

/// A project.
pub struct World {
    folder: tempfile::TempDir,
    /// Its cache.
    pub cache: Cache,
    /// Its folder, as tasks see it.
    local: Local,
    /// The environment.
    pub env: Env,
    pins: Pins,
    /// The user's wish to stop.
    pub stop: Stop,
    links: Links,
    /// Its hosts.
    pub hosts: Vec<node::Spec>,
    /// What is said of registries.
    pub registries: registry::Settings,
    /// The values of tasks.
    pub values: BTreeMap<TaskName, Digest>,
    /// The declared outputs of tasks.
    pub outputs: BTreeMap<TaskName, Vec<String>>,
    /// What was told.
    pub heard: Heard,
}

/// Bytes so far, and in all.
type Progress = (u64, Option<u64>);

/// Somebody who is told things.
#[derive(Default)]
pub struct Heard {
    /// The last progress for each destination.
    pub progress: Mutex<BTreeMap<Option<String>, Progress>>,
    /// Notes.
    pub notes: Mutex<Vec<String>>,
}

impl Tell for Heard {
    fn start(&self) {}

    fn progress(&self, destination: Option<&str>, done: u64, total: Option<u64>) {
        self.progress.lock().unwrap().insert(destination.map(str::to_string), (done, total));
    }

    fn note(&self, text: String) {
        self.notes.lock().unwrap().push(text);
    }

    fn warn(&self, text: String, _hint: Option<String>) {
        self.notes.lock().unwrap().push(text);
    }
}

impl World {
    /// A project with these embedded nodes, in folders of the same names that are not there yet.
    pub fn new(hosts: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(&folder.path().join("cache")).unwrap();
        let local = Local::new(folder.path().to_path_buf(), vec![folder.path().join("cache")]);
        let hosts = hosts.iter().map(|name| node::Spec::local(name, name)).collect();
        Self {
            cache,
            local,
            env: Env(BTreeMap::new()),
            pins: Pins::default(),
            stop: Stop::new(Duration::ZERO).unwrap(),
            links: Links::new([]),
            hosts,
            registries: registry::Settings::default(),
            values: BTreeMap::new(),
            outputs: BTreeMap::new(),
            heard: Heard::default(),
            folder,
        }
    }

    /// A path of the project.
    pub fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// Writes a file of the project.
    pub fn write(&self, path: &str, bytes: &[u8], mode: u32) {
        fs::write(&self.path(path), bytes, mode, Durability::Cache).unwrap();
    }

    /// Reads a file of the project.
    pub fn read(&self, path: &str) -> Option<Vec<u8>> {
        fs::read(&self.path(path), 1 << 30).unwrap()
    }

    /// Gives a task a value.
    pub fn value(&mut self, task: &str, value: Digest) {
        self.values.insert(TaskName(task.into()), value);
    }

    /// Resolves a table; the messages of what is wrong in it.
    pub fn resolve(&self, table: &mut dyn Declare) -> Vec<String> {
        let task = TaskName("test.task".into());
        let mut names = Known { world: self, task, mistakes: Vec::new() };
        table.resolve(&mut names);
        names.mistakes
    }

    /// Asks a task what is to be done.
    pub fn work(&self, task: &dyn Task) -> (Result<Work>, Noted) {
        self.with_inputs(|inputs| task.work(inputs))
    }

    /// Reads inputs as they are now.
    pub fn with_inputs<T>(&self, read: impl FnOnce(&Inputs<'_>) -> T) -> (T, Noted) {
        self.local.forget_listings();
        let session = Session {
            cache: &self.cache,
            local: &self.local,
            env: &self.env,
            pins: &self.pins,
            stop: &self.stop,
            links: &self.links,
            network: Network::Allowed,
            jobs: 1,
        };
        let inputs = Inputs::new(&session, &self.values, &self.heard);
        (read(&inputs), inputs.into_noted())
    }

    /// The effect that a task is.
    pub fn effect(&self, task: &dyn Task) -> Result<Box<dyn Effect>> {
        match self.work(task).0? {
            Work::Effect(effect) => Ok(effect),
            Work::Action(_) => panic!("not an effect"),
        }
    }

    /// Runs an action.
    pub fn run(&self, action: &dyn Action) -> Result<Digest> {
        let owner = TaskName("test.task".into());
        action.run(&Context {
            cache: &self.cache,
            stop: &self.stop,
            links: &self.links,
            network: Network::Allowed,
            env: &self.env,
            tell: &self.heard,
            owner: (self.folder.path(), &owner),
            lost: &[],
            log: RefCell::default(),
            warnings: RefCell::default(),
        })
    }

    /// What effects reach their destinations with.
    pub fn reach(&self) -> Reach<'_> {
        Reach {
            cache: &self.cache,
            root: self.folder.path(),
            stop: &self.stop,
            links: &self.links,
            network: Network::Allowed,
            env: &self.env,
            tell: &self.heard,
        }
    }

    /// Brings every destination to what is wanted, one after the other, as the engine does: the bytes
    /// sent to each, or `None` where nothing had to be done.
    pub fn ship(&self, effect: &dyn Effect) -> Result<Vec<Option<u64>>, Fault> {
        let reach = self.reach();
        let mut changes: Vec<Box<dyn Change + '_>> = Vec::new();
        for destination in 0..effect.destinations().len() {
            changes.push(effect.probe(destination, &reach)?);
        }
        let mut sent = Vec::new();
        for change in &changes {
            sent.push(match change.lines().is_empty() {
                true => None,
                false => Some(change.apply(&reach)?),
            });
            if let Some(sent) = sent.last().copied().flatten() {
                assert_eq!(sent, change.bytes());
            }
        }
        for (change, sent) in changes.iter().zip(&sent) {
            if sent.is_some() {
                change.finish(&reach)?;
            }
        }
        Ok(sent)
    }

    /// Makes the stamps of all that was written old enough to be trusted, as they are in a later run.
    pub fn later(&self) {
        std::thread::sleep(Duration::from_millis(30));
        self.cache.cas.stamps.flush().unwrap();
    }
}

struct Known<'a> {
    world: &'a World,
    task: TaskName,
    mistakes: Vec<String>,
}

impl Names for Known<'_> {
    fn project(&self) -> &str {
        "project"
    }

    fn task(&self) -> &TaskName {
        &self.task
    }

    fn place(&self) -> std::ops::Range<usize> {
        0..0
    }

    fn variables(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    fn reference(&mut self, reference: &mut Reference, kinds: &[&str], _want: Want) {
        let text = reference.text.value.clone();
        reference.to = match text.split_once('.') {
            Some((kind, _)) if kinds.contains(&kind) => {
                let task = TaskName(text);
                let outputs = self.world.outputs.get(&task).cloned();
                reference.outputs = vec![outputs.map_or(Outputs::Contents, Outputs::Named)];
                To::Tasks(vec![task])
            }
            _ => To::Path(text.trim_start_matches("./").to_string()),
        };
    }

    fn tasks(&mut self, reference: &mut Reference, kinds: &[&str], want: Want) {
        self.reference(reference, kinds, want);
    }

    fn hosts(&mut self, names: &[Placed<String>]) -> Vec<node::Spec> {
        let all = names.iter().any(|name| name.value == "all");
        let is_meant = |spec: &&node::Spec| all || names.iter().any(|name| name.value == spec.name);
        self.world.hosts.iter().filter(is_meant).cloned().collect()
    }

    fn registries(&self) -> registry::Settings {
        self.world.registries.clone()
    }

    fn cluster(&mut self, _name: &Placed<String>) -> Option<cluster::Spec> {
        None
    }

    fn contained(&mut self, _path: &Placed<String>) {}

    fn claim(&mut self, _thing: String, _place: Range<usize>) {}

    fn fill(&mut self, _host: &str, _path: &str, _filled: Filled, _place: Range<usize>) {}

    fn hidden_mistake(&mut self, message: String, _hint: String) {
        self.mistakes.push(message);
    }

    fn mistake(&mut self, _place: Range<usize>, message: String, _hint: Option<String>) {
        self.mistakes.push(message);
    }
}
