//! Connections to hosts: at most one to each, held while it is of use, and never more than so many at
//! once. Does not know what is done with them.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use openssh::Session;
use tempfile::TempDir;

use super::Address;
use super::folder;
use super::limit::Limit;
use super::master::{self, Master};
use super::ways::{self, Making};
use crate::error::{Error, Failure, io_words};
use crate::host::node::{Trouble, Watch};

/// How many hosts are worked on at once, unless the project says otherwise.
pub const PARALLEL: usize = 32;
/// Sessions on a connection: sshd allows ten.
const SESSIONS: usize = 8;
/// How often it is looked whether the user wants to stop.
const TICK: Duration = Duration::from_millis(100);

/// The connections of a run. Making one starts nothing.
pub struct Links {
    env: Vec<(OsString, OsString)>,
    parallel: AtomicUsize,
    /// For all hosts together.
    limit: Arc<OnceLock<Limit>>,
    runtime: OnceLock<tokio::runtime::Runtime>,
    folder: Mutex<Option<TempDir>>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    links: BTreeMap<String, Entry>,
    making: Making,
    /// Hosts that do not count: somebody who is at another one needs them.
    beside: BTreeSet<String>,
    turn: u64,
}

enum Entry {
    Connecting,
    Held {
        link: Arc<Link>,
        users: usize,
        turn: u64,
    },
    /// It did not answer: it is not asked again.
    Absent(String),
}

/// A connection in use.
pub struct Guard<'a> {
    links: &'a Links,
    link: Arc<Link>,
}

impl std::ops::Deref for Guard<'_> {
    type Target = Link;
    fn deref(&self) -> &Link {
        &self.link
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        let mut state = self.links.state();
        state.turn += 1;
        let now = state.turn;
        let mut ended = None;
        if let Some(Entry::Held { link, users, turn }) = state.links.get_mut(&self.link.name)
            && Arc::ptr_eq(link, &self.link)
        {
            *users -= 1;
            *turn = now;
            if *users == 0 && !link.is_whole() {
                ended = state.links.remove(&self.link.name);
            }
        }
        drop(state);
        drop(ended);
        self.links.changed.notify_all();
    }
}

impl Links {
    /// No connection yet. `ssh` gets this environment.
    pub fn new(env: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        Self {
            env: env.into_iter().collect(),
            parallel: AtomicUsize::new(PARALLEL),
            limit: Arc::default(),
            runtime: OnceLock::new(),
            folder: Mutex::default(),
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// At most so many hosts at once.
    pub fn set_parallel(&self, parallel: usize) {
        self.parallel.store(parallel.max(1), Ordering::SeqCst);
    }

    /// At most so many bytes in a second to all hosts together.
    pub fn set_limit(&self, rate: Option<u64>) {
        if let Some(rate) = rate {
            // The first that is set holds: a run reads one configuration.
            self.limit.get_or_init(|| Limit::new(rate));
        }
    }

    /// A host is read from while others are written to: it is held besides as many as there may be, because
    /// they could all wait for it.
    pub fn set_beside(&self, name: &str) {
        self.state().beside.insert(name.to_string());
    }

    /// How many hosts at once.
    pub fn parallel(&self) -> usize {
        self.parallel.load(Ordering::SeqCst)
    }

    /// The environment that `ssh` gets.
    pub fn env(&self) -> &[(OsString, OsString)] {
        &self.env
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection to a host, made if there is none. Configurations of ssh are relative to `root`.
    pub fn link(
        &self,
        name: &str,
        address: &Address,
        root: &Path,
        watch: &dyn Watch,
    ) -> Result<Guard<'_>, Trouble> {
        let mut state = self.state();
        loop {
            watch.check()?;
            state.turn += 1;
            let now = state.turn;
            match state.links.get_mut(name) {
                Some(Entry::Absent(why)) => return Err(Trouble::Unreachable(why.clone())),
                Some(Entry::Connecting) => {}
                Some(Entry::Held { link, users, turn }) if link.is_whole() => {
                    *users += 1;
                    *turn = now;
                    return Ok(Guard { links: self, link: link.clone() });
                }
                Some(Entry::Held { users: 1.., .. }) => {}
                Some(Entry::Held { .. }) => {
                    // It broke, and nobody uses it.
                    let broken = state.links.remove(name);
                    drop(state);
                    drop(broken);
                    state = self.state();
                    continue;
                }
                None => {
                    if state.making.may(name) {
                        if let Some(idle) = self.room(name, &mut state) {
                            state.links.insert(name.to_string(), Entry::Connecting);
                            state.making.begin(name, address);
                            drop(state);
                            drop(idle);
                            break;
                        }
                    } else if let Some((host, address)) = state.making.unknown(name, address) {
                        drop(state);
                        let way = ways::ask(&address, root, &self.env);
                        state = self.state();
                        state.making.know(host, way);
                        self.changed.notify_all();
                        continue;
                    }
                }
            }
            state = self.changed.wait_timeout(state, TICK).unwrap_or_else(PoisonError::into_inner).0;
        }
        let connected = self.connect(name, address, root, watch);
        let mut state = self.state();
        state.making.end(name);
        state.links.remove(name);
        let guard = match connected {
            Ok(link) => {
                let link = Arc::new(link);
                let entry = Entry::Held { link: link.clone(), users: 1, turn: state.turn };
                state.links.insert(name.to_string(), entry);
                Ok(Guard { links: self, link })
            }
            Err(Trouble::Unreachable(why)) => {
                state.links.insert(name.to_string(), Entry::Absent(why.clone()));
                Err(Trouble::Unreachable(why))
            }
            Err(other) => Err(other),
        };
        drop(state);
        self.changed.notify_all();
        guard
    }

    /// Room for one more connection, if there is any; the one that was idle longest makes way.
    fn room(&self, name: &str, state: &mut State) -> Option<Option<Entry>> {
        let counts = |(name, entry): &(&String, &Entry)| {
            !matches!(entry, Entry::Absent(_)) && !state.beside.contains(*name)
        };
        let held = state.links.iter().filter(counts).count();
        if held < self.parallel() || state.beside.contains(name) {
            return Some(None);
        }
        let idle = state.links.iter().filter_map(|(name, entry)| match entry {
            Entry::Held { users: 0, turn, .. } if !state.beside.contains(name) => {
                Some((*turn, name.clone()))
            }
            _ => None,
        });
        let (_, name) = idle.min()?;
        Some(state.links.remove(&name))
    }

    fn connect(
        &self,
        name: &str,
        address: &Address,
        root: &Path,
        watch: &dyn Watch,
    ) -> Result<Link, Trouble> {
        let failed =
            |error: std::io::Error| Error::failed(format!("make a folder for ssh: {}", io_words(&error)));
        let folder = {
            let mut held = self.folder.lock().unwrap_or_else(PoisonError::into_inner);
            match &*held {
                Some(folder) => folder.path().to_path_buf(),
                None => held.insert(folder::make().map_err(failed)?).path().to_path_buf(),
            }
        };
        let runtime = match self.runtime.get() {
            Some(runtime) => runtime,
            None => {
                let made =
                    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
                let _ = self.runtime.set(made.map_err(failed)?);
                self.runtime.get().unwrap_or_else(|| panic!("BUG: what was set is not there"))
            }
        };
        let master = Master::start(name, address, root, &folder, &self.env, watch)?;
        let session = Arc::new(Session::resume_mux(master.socket().into(), None));
        Ok(Link {
            name: name.to_string(),
            handle: runtime.handle().clone(),
            session,
            limit: address.limit.map(Limit::new),
            total: self.limit.clone(),
            master,
            broken: AtomicBool::new(false),
            zstd: AtomicBool::new(false),
            heard: Mutex::default(),
            places: Mutex::new(SESSIONS),
            freed: Condvar::new(),
        })
    }

    /// Ends all connections, and leaves nothing behind.
    pub fn close(&self) {
        let links = std::mem::take(&mut self.state().links);
        for entry in links.values() {
            if let Entry::Held { link, .. } = entry {
                link.master.end();
            }
        }
        drop(links);
        drop(self.folder.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.close();
    }
}

/// A connection to a host.
pub struct Link {
    name: String,
    handle: tokio::runtime::Handle,
    session: Arc<Session>,
    /// For this host.
    limit: Option<Limit>,
    /// For all hosts together, if there is one.
    total: Arc<OnceLock<Limit>>,
    master: Master,
    broken: AtomicBool,
    zstd: AtomicBool,
    /// What it said first about what answers to a command there.
    heard: Mutex<BTreeMap<String, String>>,
    places: Mutex<usize>,
    freed: Condvar,
}

/// The right to one session.
pub struct Place<'a>(&'a Link);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        *self.0.places.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}

impl Link {
    /// The host's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The session, for those who speak on it.
    pub fn session(&self) -> Arc<Session> {
        self.session.clone()
    }

    /// Waits for something of ssh's library.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.handle.block_on(future)
    }

    /// How long to wait before more may go after so many bytes; `None` is not at all.
    pub fn delay(&self, bytes: u64) -> Option<Duration> {
        let now = Instant::now();
        self.limit.iter().chain(self.total.get()).map(|limit| limit.take(bytes, now)).max()
    }

    /// Whether nothing may go faster than some rate.
    pub fn is_limited(&self) -> bool {
        self.limit.is_some() || self.total.get().is_some()
    }

    /// What the host said of a command there, if it was asked in this run.
    pub fn heard(&self, command: &str) -> Option<String> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).get(command).cloned()
    }

    /// The host said this of a command there.
    pub fn hear(&self, command: &str, said: &str) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.insert(command.to_string(), said.to_string());
    }

    /// Whether the host has zstd; not so before it was asked.
    pub fn has_zstd(&self) -> bool {
        self.zstd.load(Ordering::Relaxed)
    }

    /// The host said whether it has zstd.
    pub fn know_zstd(&self, has: bool) {
        self.zstd.store(has, Ordering::Relaxed);
    }

    /// Whether it can still be used.
    pub fn is_whole(&self) -> bool {
        !self.broken.load(Ordering::SeqCst) && self.master.is_alive()
    }

    /// Waits for the right to a session.
    pub fn place(&self, watch: &dyn Watch) -> Result<Place<'_>, Trouble> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        while *places == 0 {
            watch.check()?;
            places = self.freed.wait_timeout(places, TICK).unwrap_or_else(PoisonError::into_inner).0;
        }
        *places -= 1;
        Ok(Place(self))
    }

    /// The connection broke: why, in words.
    pub fn lost(&self, why: &str) -> Trouble {
        self.broken.store(true, Ordering::SeqCst);
        let said = self.master.said();
        let why = match master::last_words(&said) {
            Some(words) => words,
            None => why.to_string(),
        };
        Trouble::Cut(Failure::new(format!("the connection to `{}` was lost: {why}", self.name)))
    }

    /// Something ended there without saying how: it never began, or the connection is gone.
    pub fn never_ended(&self, said: &str) -> Trouble {
        let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
        let is = |words: &str| said.contains(words);
        if is("a password is required")
            || is("a terminal is required")
            || is("is not in the sudoers")
            || is("is not allowed to")
        {
            let user = "USER ALL=(root) NOPASSWD: /bin/sh, /usr/bin/sh";
            return Failure::new(format!("`{}` lets us not become root: `sudo` refuses", self.name))
                .detail(lines.iter().map(ToString::to_string))
                .hint(format!("add to its sudoers, with your user there: `{user}`"))
                .into();
        }
        if is("sudo: not found") || is("sudo: command not found") || is("Unknown command: sudo") {
            return Failure::new(format!("`{}` has no `sudo`", self.name))
                .hint("log in as root, without `sudo = true`")
                .into();
        }
        // A shell that cannot run the wrapper says so and lives on; a connection that broke says nothing.
        if !lines.is_empty() && self.master.stays_alive() {
            let failure = Failure::new(format!("`{}` could not run a shell", self.name));
            return failure.detail(lines.iter().map(ToString::to_string)).into();
        }
        self.master.stays_alive();
        self.lost("it ended without a word")
    }
}
