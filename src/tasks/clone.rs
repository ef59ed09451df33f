//! `clone`: the files of one commit. Branches and tags are pinned in `vcbuild.lock`; the commit alone
//! is in the key, so that an address may change. Knows no working copy: objects go straight into the
//! cache.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::names::{Declare, Names, Outputs, Placed};
use crate::cache::Cache;
use crate::cache::tree::{Entry, Node, is_name};
use crate::digest::Digest;
use crate::error::{Error, Failure, Result};
use crate::host::fs;
use crate::host::git::{self, Mirror, Remote};
use crate::host::stop::Stop;
use crate::pins::Pin;
use crate::work::{Action, Class, Context, Env, Inputs, Network, Session, Task, TaskName, Work};

/// `[clone.NAME]`: the files of one commit of a git repository
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Clone {
    /// The address as git takes it; or a repository or bundle on this machine, relative to the project
    url: Placed<String>,
    /// A branch, a tag or a commit
    rev: Placed<String>,
}

impl Declare for Clone {
    fn resolve(&mut self, names: &mut dyn Names) {
        for text in [&self.url, &self.rev] {
            if text.is_empty() || text.starts_with('-') || text.bytes().any(|byte| byte < 0x20) {
                names.mistake(
                    text.range(),
                    format!("`{}` is not an address or revision", text.value),
                    None,
                );
            }
        }
        if self.url.starts_with("ext::") || self.url.starts_with("fd::") {
            names.mistake(self.url.range(), format!("`{}` would run a command", self.url.value), None);
        }
    }

    fn outputs(&self) -> Outputs {
        Outputs::Contents
    }

    fn pins(&self) -> Vec<Pin> {
        match is_commit(&self.rev) {
            true => Vec::new(),
            false => vec![Pin::Git { url: self.url.value.clone(), rev: self.rev.value.clone() }],
        }
    }

    fn at(&self, rev: &str) -> Option<Box<dyn Declare>> {
        let rev = Placed { value: rev.to_string(), span: self.rev.span };
        Some(Box::new(Self { url: self.url.clone(), rev }))
    }
}

impl Task for Clone {
    fn class(&self) -> Class {
        Class::Action
    }

    fn needs(&self) -> Vec<TaskName> {
        Vec::new()
    }

    fn work(&self, inputs: &Inputs<'_>) -> Result<Work> {
        let commit = match self.pins().first() {
            None => self.rev.value.clone(),
            Some(pin) => inputs.pin(pin, || resolve(&self.url, &self.rev, inputs.session))?,
        };
        let how = How { url: self.url.value.clone(), root: inputs.session.local.root().to_path_buf() };
        Ok(Work::Action(Box::new(CloneAction { what: What { commit }, how })))
    }
}

/// Whether a revision is a whole commit id.
fn is_commit(rev: &str) -> bool {
    rev.len() == 40 && rev.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// The commit that a branch or tag means now. Fetches it: a tag says its commit only then.
pub fn resolve(url: &str, rev: &str, session: &Session<'_>) -> Result<String> {
    let how = How { url: url.to_string(), root: session.local.root().to_path_buf() };
    let source = Source { how: &how, cache: session.cache, env: session.env, stop: session.stop };
    source.allowed(session.network)?;
    let address = how.address();
    let remote = source.remote(&address);
    let id = remote.resolve(rev)?;
    let path = source.mirror();
    let _lock = session.cache.lock(&path.with_extension("lock"), session.stop, || {})?;
    source
        .fetched(&id, session.network, |mirror| mirror.commit(&id).is_some())?
        .commit(&id)
        .ok_or_else(|| Error::failed(format!("`{rev}` of `{url}` is not a commit: it is `{id}`")))
}

#[derive(Serialize)]
struct What {
    commit: String,
}

struct How {
    url: String,
    root: PathBuf,
}

impl How {
    /// The address as git gets it: paths are made absolute.
    fn address(&self) -> String {
        if git::is_path(&self.url) {
            return self.root.join(&self.url).to_string_lossy().into_owned();
        }
        self.url.clone()
    }
}

/// A repository and its mirror in the cache.
struct Source<'a> {
    how: &'a How,
    cache: &'a Cache,
    env: &'a Env,
    stop: &'a Stop,
}

impl Source<'_> {
    fn mirror(&self) -> PathBuf {
        self.cache.path("git").join(Digest::of(self.how.url.as_bytes()).hex())
    }

    fn remote<'u>(&'u self, address: &'u str) -> Remote<'u> {
        let env = self.env.0.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        Remote { url: address, env, stop: self.stop }
    }

    fn allowed(&self, network: Network) -> Result<()> {
        if network == Network::Offline && !git::is_path(&self.how.url) {
            let message = format!("`{}` would have to be asked, and `--offline` forbids it", self.how.url);
            return Err(Error::failed(message));
        }
        Ok(())
    }

    /// The mirror, after a fetch of `id` if it has not `enough` yet. Whether it has then is for the caller to
    /// see.
    fn fetched(&self, id: &str, network: Network, enough: impl Fn(&Mirror) -> bool) -> Result<Mirror> {
        let path = self.mirror();
        let mirror = Mirror::open(&path)?;
        if enough(&mirror) {
            return Ok(mirror);
        }
        self.allowed(network)?;
        let address = self.how.address();
        let remote = self.remote(&address);
        let fetched = mirror.fetch(&remote, id);
        if fetched.is_ok() && enough(&mirror) {
            return Ok(mirror);
        }
        self.stop.check()?;
        // Git gives up on a damaged mirror, and does not send what a mirror claims to have. A fresh one
        // tells; until it is complete the old one stays, for the network may be to blame.
        let beside = path.with_extension("new");
        fs::remove_tree(&beside)?;
        let fresh = Mirror::open(&beside)?;
        if let Err(error) = fresh.fetch(&remote, id) {
            fresh.discard()?;
            return Err(fetched.err().unwrap_or(error));
        }
        drop(fresh);
        mirror.discard()?;
        fs::rename(&beside, &path)?;
        Mirror::open(&path)
    }

    /// A mirror that has the whole commit.
    fn with_commit(&self, commit: &str, network: Network) -> Result<Mirror> {
        let mirror = self.fetched(commit, network, |mirror| mirror.is_whole(commit))?;
        if mirror.is_whole(commit) {
            return Ok(mirror);
        }
        let failure = Failure::new(format!("`{}` does not have the commit `{commit}`", self.how.url));
        Err(failure.hint("if upstream has dropped it, `vcbuild update` moves the pin").into())
    }
}

struct CloneAction {
    what: What,
    how: How,
}

impl Action for CloneAction {
    fn kind(&self) -> &'static str {
        "clone"
    }

    fn revision(&self) -> u32 {
        1
    }

    fn what(&self) -> serde_json::Value {
        serde_json::json!(self.what)
    }

    fn run(&self, context: &Context<'_>) -> Result<Digest> {
        let source = Source { how: &self.how, cache: context.cache, env: context.env, stop: context.stop };
        let lock = source.mirror().with_extension("lock");
        let waiting = || context.tell.note(format!("waiting for another fetch of `{}`", self.how.url));
        let _lock = context.cache.lock(&lock, context.stop, waiting)?;
        let mirror = source.with_commit(&self.what.commit, context.network)?;
        let reading = Reading { mirror: &mirror, context };
        let tree = mirror.tree(&self.what.commit).and_then(|tree| reading.folder(tree, Path::new("")));
        match tree {
            // An object that is there and cannot be read: only a fresh mirror heals it.
            Err(Error::Failed(_)) => {
                source.allowed(context.network)?;
                mirror.discard()?;
                let mirror = source.with_commit(&self.what.commit, context.network)?;
                Reading { mirror: &mirror, context }.folder(mirror.tree(&self.what.commit)?, Path::new(""))
            }
            other => other,
        }
    }
}

struct Reading<'a> {
    mirror: &'a Mirror,
    context: &'a Context<'a>,
}

impl Reading<'_> {
    /// Stores a tree of git as a tree of ours, with git's modes.
    fn folder(&self, tree: git2::Oid, path: &Path) -> Result<Digest> {
        use std::os::unix::ffi::OsStrExt;
        self.context.stop.check()?;
        let cas = &self.context.cache.cas;
        let mut node = Node::default();
        for item in self.mirror.list(tree)? {
            let inside = path.join(std::ffi::OsStr::from_bytes(&item.name));
            if !is_name(&item.name) || item.name.eq_ignore_ascii_case(b".git") {
                return Err(Error::failed(format!("the commit has a file `{}`", inside.display())));
            }
            let entry = match item.mode {
                0o040000 => Entry::Folder { mode: 0o755, tree: self.folder(item.id, &inside)? },
                0o120000 => Entry::Link { target: self.mirror.blob(item.id)? },
                // A submodule that nobody asked for is an empty folder, as in a checkout.
                0o160000 => Entry::Folder { mode: 0o755, tree: cas.put(&Node::default().encode())?.digest },
                mode => {
                    let mode = if mode & 0o100 == 0 { 0o644 } else { 0o755 };
                    Entry::File { mode, blob: cas.put(&self.mirror.blob(item.id)?)? }
                }
            };
            node.entries.push((item.name, entry));
        }
        // Git sorts folders as if their names ended in a slash.
        node.entries.sort_by(|(a, _), (b, _)| a.cmp(b));
        if node.entries.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(Error::failed(format!("the commit has a name twice in `{}`", path.display())));
        }
        Ok(cas.put(&node.encode())?.digest)
    }
}
