//! What the engine and the kinds say to each other: a `Task` is declared, reads inputs and becomes an
//! `Action` (pure, cached by its *what*) or an `Effect` (a change on destinations, always probed).
//! Knows no kind, no configuration and no order.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cache::Cache;
use crate::cache::local::{Local, Seen};
use crate::cache::stamps::Stamps;
use crate::digest::Digest;
use crate::error::{Error, Failure, Result};
use crate::host::machine;
use crate::host::ssh::Links;
use crate::host::stop::Stop;
use crate::pins::{Pin, Pins};

/// The whole name of a task: `compile.bin`, or `compile.bin[syncer]` for an instance.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskName(pub String);

impl fmt::Display for TaskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::borrow::Borrow<str> for TaskName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl TaskName {
    /// The kind: the text before the first dot.
    pub fn kind(&self) -> &str {
        self.0.split('.').next().unwrap_or_default()
    }

    /// The name without the kind and without the instance.
    pub fn bare(&self) -> &str {
        let rest = self.0.split_once('.').map_or("", |(_, rest)| rest);
        rest.split('[').next().unwrap_or_default()
    }
}

/// Whether a task becomes an action or an effect; known before its inputs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Pure and cached.
    Action,
    /// Changes destinations.
    Effect,
}

/// A declared step.
pub trait Task: Send + Sync {
    /// Action or effect.
    fn class(&self) -> Class;

    /// The tasks whose values this one reads, each once.
    fn needs(&self) -> Vec<TaskName>;

    /// Reads the inputs and says what is to be done, so fully that equal descriptions mean equal
    /// results. May fail with `Lost` if a node of a tree is not there.
    fn work(&self, inputs: &Inputs<'_>) -> Result<Work>;

    /// Where the parts of its value come from, for people, in the order in which its *what* has them.
    fn origins(&self) -> Vec<String> {
        Vec::new()
    }

    /// Checks what can be checked while what it needs is not known; reads no values. Says whether
    /// that was all there is to check.
    fn check(&self, _inputs: &Inputs<'_>) -> Result<Checked> {
        Ok(Checked::Nothing)
    }
}

/// How much of a task could be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    /// All that can be wrong before it runs.
    All,
    /// Nothing.
    Nothing,
}

/// What a task has become, once its inputs are known.
pub enum Work {
    /// A pure step.
    Action(Box<dyn Action>),
    /// A change on destinations.
    Effect(Box<dyn Effect>),
}

/// A pure step: what it does depends on its *what* and nothing else.
pub trait Action: Send {
    /// The kind, as in `vcbuild.toml`.
    fn kind(&self) -> &'static str;

    /// The machine that it runs on, as images name it.
    fn platform(&self) -> &str {
        machine::here()
    }

    /// Raised when the code would make something else of the same *what*.
    fn revision(&self) -> u32;

    /// What decides the bytes: plain data, without names of tasks, absolute paths, hosts or times.
    fn what(&self) -> serde_json::Value;

    /// Does it and stores the tree that is its value.
    fn run(&self, context: &Context<'_>) -> Result<Digest>;
}

/// A change on destinations.
pub trait Effect: Send + Sync {
    /// What is wanted where: plain data (names, digests, sizes, modes) from which the kind can probe
    /// again without its inputs.
    fn wants(&self) -> serde_json::Value;

    /// What is wanted, as people read it, if that is more than plain data.
    fn shown(&self) -> Option<String> {
        None
    }

    /// The names of the destinations, in order.
    fn destinations(&self) -> Vec<String>;

    /// Writes what it brings into one file that brings it elsewhere, and returns the size of that.
    fn bundle(&self, _cache: &Cache, _to: &Path) -> Result<u64> {
        Err(Failure::new("only images are bundled").into())
    }

    /// Whether some destination is not on this machine, so that it pays to ask several at once.
    fn is_away(&self) -> bool {
        false
    }

    /// Asks one destination what is missing there. Changes nothing.
    fn probe(&self, destination: usize, reach: &Reach<'_>) -> Result<Box<dyn Change + '_>, Fault>;
}

/// What is missing at one destination.
pub trait Change: Send + Sync {
    /// What would be changed, one line each; empty if all is there.
    fn lines(&self) -> Vec<String>;

    /// The payload in bytes that would be sent.
    fn bytes(&self) -> u64;

    /// Does just that, then sees that it is so. Returns the payload in bytes that was sent.
    fn apply(&self, reach: &Reach<'_>) -> Result<u64, Fault>;

    /// What is done last, after every destination that could be reached is complete.
    fn finish(&self, _reach: &Reach<'_>) -> Result<(), Fault> {
        Ok(())
    }
}

/// Why a destination could not be brought to what is wanted.
#[derive(Debug)]
pub enum Fault {
    /// It does not answer: the next run does it.
    Unreachable(String),
    /// It was cut off, or things moved there meanwhile: probed again, it may be done.
    Again(Failure),
    /// Everything else, also lost content.
    Error(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        Self::Error(failure.into())
    }
}

/// Whether the network may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Yes.
    Allowed,
    /// No clone, base or registry traffic, and no destination that is not on this machine.
    Offline,
}

/// The environment that vcbuild was started with, read once.
pub struct Env(pub BTreeMap<OsString, OsString>);

impl Env {
    /// The value of a variable.
    pub fn value(&self, name: &str) -> Option<&OsStr> {
        self.0.get(OsStr::new(name)).map(OsString::as_os_str)
    }
}

/// What all steps of a run share.
pub struct Session<'a> {
    /// The cache.
    pub cache: &'a Cache,
    /// The project folder.
    pub local: &'a Local,
    /// The environment.
    pub env: &'a Env,
    /// The pins as they were when the run began.
    pub pins: &'a Pins,
    /// The user's wish to stop.
    pub stop: &'a Stop,
    /// Connections to hosts.
    pub links: &'a Links,
    /// Whether the network may be used.
    pub network: Network,
    /// How many actions run at once: how many threads one of them may use.
    pub jobs: usize,
}

/// What a step tells while it goes on.
pub trait Tell: Sync {
    /// It has work to do.
    fn start(&self);
    /// Bytes moved so far, of so many.
    fn progress(&self, destination: Option<&str>, done: u64, total: Option<u64>);
    /// One line for people.
    fn note(&self, text: String);
    /// A warning, with what to do about it.
    fn warn(&self, text: String, hint: Option<String>);
}

/// What a task may read to say what is to be done. Everything it looks at is noted.
pub struct Inputs<'a> {
    /// What all steps share.
    pub session: &'a Session<'a>,
    /// The trees of the tasks it needs.
    pub values: &'a BTreeMap<TaskName, Digest>,
    /// Where to tell what is going on.
    pub tell: &'a dyn Tell,
    noted: RefCell<Noted>,
}

/// What a step has looked at, besides the values of other tasks.
#[derive(Default)]
pub struct Noted {
    /// Local files and folders.
    pub seen: Seen,
    /// Variables of the environment, by name.
    pub variables: BTreeSet<String>,
    /// What was seen on hosts: asked again by the next run.
    pub remote: Vec<serde_json::Value>,
    /// Pins that were missing.
    pub pins: Vec<(Pin, String)>,
}

impl<'a> Inputs<'a> {
    /// Inputs of which nothing has been read yet.
    pub fn new(
        session: &'a Session<'a>,
        values: &'a BTreeMap<TaskName, Digest>,
        tell: &'a dyn Tell,
    ) -> Self {
        Self { session, values, tell, noted: RefCell::default() }
    }

    /// What was looked at.
    pub fn into_noted(self) -> Noted {
        self.noted.into_inner()
    }

    /// The tree that a needed task made.
    pub fn value(&self, task: &TaskName) -> Digest {
        match self.values.get(task) {
            Some(value) => *value,
            None => panic!("BUG: `{task}` was read but not needed"),
        }
    }

    /// Looks at local files through `look`, which gets the project, the stamps and the list of what
    /// was seen.
    pub fn look<T>(&self, look: impl FnOnce(&Local, &Stamps, &mut Seen) -> Result<T>) -> Result<T> {
        look(self.session.local, &self.session.cache.cas.stamps, &mut self.noted.borrow_mut().seen)
    }

    /// The value of a variable of the environment.
    pub fn variable(&self, name: &str) -> Option<&'a OsStr> {
        self.noted.borrow_mut().variables.insert(name.to_string());
        self.session.env.value(name)
    }

    /// Notes what was seen on a host.
    pub fn saw_remote(&self, fact: serde_json::Value) {
        self.noted.borrow_mut().remote.push(fact);
    }

    /// The pin for something that moves; if there is none, `resolve` finds what it is now, and the pin
    /// is added.
    pub fn pin(&self, pin: &Pin, resolve: impl FnOnce() -> Result<String>) -> Result<String> {
        if let Some(pinned) = self.session.pins.pinned(pin) {
            return Ok(pinned.to_string());
        }
        if self.session.pins.locked {
            return Err(Failure::new(format!("{pin} is not pinned in `vcbuild.lock`"))
                .hint("run once without `--locked` to add the pin")
                .into());
        }
        let pinned = resolve()?;
        self.noted.borrow_mut().pins.push((pin.clone(), pinned.clone()));
        Ok(pinned)
    }
}

/// What a running action may touch.
pub struct Context<'a> {
    /// The cache: content to read and to store.
    pub cache: &'a Cache,
    /// The user's wish to stop.
    pub stop: &'a Stop,
    /// Connections to hosts.
    pub links: &'a Links,
    /// Whether the network may be used.
    pub network: Network,
    /// The environment: for programs that find the user's settings in it (git).
    pub env: &'a Env,
    /// Where to tell what is going on.
    pub tell: &'a dyn Tell,
    /// The project folder and the instance: the owner of a work folder.
    pub owner: (&'a Path, &'a TaskName),
    /// What the cache lost of this action's earlier result: to be made again, whatever was skipped
    /// before.
    pub lost: &'a [Digest],
    /// What is printed.
    pub log: RefCell<Vec<u8>>,
    /// Warnings that belong to the result.
    pub warnings: RefCell<Vec<String>>,
}

impl<'a> Context<'a> {
    /// The same for somebody who is to make this again.
    pub fn missing(&self, lost: &'a [Digest]) -> Self {
        let Self { cache, stop, network, env, tell, owner, links, .. } = *self;
        let (log, warnings) = (RefCell::default(), RefCell::default());
        Self { cache, stop, network, env, tell, owner, links, lost, log, warnings }
    }
}

/// What an effect may use to get at a destination.
pub struct Reach<'a> {
    /// The cache: content to read.
    pub cache: &'a Cache,
    /// The project folder: embedded destinations are relative to it.
    pub root: &'a Path,
    /// The user's wish to stop.
    pub stop: &'a Stop,
    /// Connections to hosts.
    pub links: &'a Links,
    /// Whether the network may be used.
    pub network: Network,
    /// The environment: for credentials, proxies and the like.
    pub env: &'a Env,
    /// Where to tell what is going on.
    pub tell: &'a dyn Tell,
}

impl Reach<'_> {
    /// A path of the project, or an absolute one.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }
}
