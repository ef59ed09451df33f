//! `clone`: the files of one commit. Branches and tags are pinned in `vcbuild.lock`; the commit alone
//! is in the key, so that an address may change. Knows no working copy: objects go straight into the
//! cache. `clone_source` gets at the repository, `clone_tree` reads a commit.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::clone_source::Source;
use super::clone_tree::{Lfs, Link, Submodules, Taken, Wanted, take};
use super::names::{Declare, Names, Outputs, Placed};
use crate::cache::draft::Draft;
use crate::cache::tree::Entry;
use crate::digest::Digest;
use crate::error::{Error, Failure, Result};
use crate::glob::{Globs, Progress, is_contained};
use crate::host::git::{self, Depth, Mirror, Trust, Wrong, shown};
use crate::pins::Pin;
use crate::work::{Action, Class, Context, Inputs, Session, Task, TaskName, Work};

pub use super::clone_source::{Pinned, moved};
pub use crate::host::git::{Between, Kind};

/// `[clone.NAME]`: the files of one commit of a git repository
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Clone {
    /// The address as git takes it (https, ssh, git, …), without a password; or a repository or bundle on
    /// this machine, relative to the project
    url: Placed<String>,
    /// A branch, a tag or a commit (all 40 digits); a branch or tag is pinned to its commit in
    /// `vcbuild.lock`, and only `vcbuild update` moves the pin
    rev: Placed<String>,
    /// How many commits of history are fetched with the commit, itself included; 0: all. Only the files of the
    /// commit are ever used
    #[serde(default = "one")]
    depth: u32,
    /// What of the commit is taken: globs from its root, a folder with all below it; the last match wins, `!`
    /// excludes. Each must match something [default: all]
    paths: Option<Vec<Placed<String>>>,
    /// Whether submodules are cloned too, and theirs; otherwise they are empty folders
    #[serde(default)]
    submodules: bool,
    /// `false`: pointer files of git-LFS are taken as they are. Otherwise they are refused; what they point to
    /// is never fetched
    lfs: Option<Placed<bool>>,
}

fn one() -> u32 {
    1
}

impl Declare for Clone {
    fn resolve(&mut self, names: &mut dyn Names) {
        let url = format!("`{}` is not an address or revision", self.url.value);
        match git::wrong(&self.url) {
            None => {}
            Some(Wrong::Form) => names.mistake(self.url.range(), url, None),
            Some(Wrong::Command) => {
                names.mistake(self.url.range(), format!("`{}` would run a command", self.url.value), None);
            }
            Some(Wrong::Secret) => {
                let message = format!("the `url` of `{}` holds a password or token", names.task());
                let hint = "write it without, and give it to git: `git config credential.helper`, or `ssh`";
                names.hidden_mistake(message, hint.to_string());
            }
        }
        if !is_rev(&self.rev) {
            let message = format!("`{}` is not an address or revision", self.rev.value);
            names.mistake(self.rev.range(), message, None);
        }
        for path in self.paths.iter().flatten() {
            names.contained(path);
            let inside = is_contained(path.trim_start_matches('!'));
            if inside && Globs::new(&[path.as_str()]).is_err() {
                names.mistake(path.range(), format!("`{}` is not a glob", path.value), None);
            }
        }
        let nothing = |paths: &Vec<Placed<String>>| paths.iter().all(|path| path.starts_with('!'));
        if self.paths.as_ref().is_some_and(nothing) {
            let place = self.paths.iter().flatten().next().map_or_else(|| self.url.range(), Placed::range);
            let hint = "begin with `**` to exclude from everything".to_string();
            names.mistake(place, "`paths` takes nothing".to_string(), Some(hint));
        }
        if let Some(lfs) = self.lfs.as_ref().filter(|lfs| lfs.value) {
            let message = "what git-LFS keeps is not fetched".to_string();
            let hint = "`lfs = false` takes the pointer files as they are; without it they are refused";
            names.mistake(lfs.range(), message, Some(hint.to_string()));
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
        Some(Box::new(Self { rev, ..self.clone() }))
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
        let (session, pins) = (inputs.session, self.pins());
        let commit = match pins.first() {
            None => self.rev.value.clone(),
            Some(pin) => inputs.pin(pin, || Ok(resolve(&self.url, &self.rev, session)?.commit))?,
        };
        let what = What {
            commit,
            paths: self.paths.iter().flatten().map(|path| path.value.clone()).collect(),
            submodules: self.submodules,
            pointers: self.lfs.as_ref().is_some_and(|lfs| !lfs.value),
        };
        let how = How {
            url: address(&self.url, session.local.root()),
            rev: pins.first().map(|_| self.rev.value.clone()),
            depth: if self.depth == 0 { Depth::All } else { Depth::Commits(self.depth) },
        };
        Ok(Work::Action(Box::new(CloneAction { what, how })))
    }
}

/// Whether a revision is a whole commit id.
fn is_commit(rev: &str) -> bool {
    rev.len() == 40 && rev.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Whether git could have a reference of this name (git, `check-ref-format`).
fn is_rev(rev: &str) -> bool {
    let never = |c: char| c.is_control() || " ~^:?*[\\".contains(c);
    !(rev.is_empty()
        || rev.starts_with('-')
        || rev.contains(never)
        || rev.contains("..")
        || rev.contains("@{"))
}

/// An address as git gets it: paths are made absolute.
fn address(url: &str, root: &Path) -> String {
    match git::is_path(url) {
        true => root.join(url).to_string_lossy().into_owned(),
        false => url.to_string(),
    }
}

/// The commit that a branch or tag means now.
pub fn resolve(url: &str, rev: &str, session: &Session<'_>) -> Result<Pinned> {
    Source::of_session(address(url, session.local.root()), session).resolve(rev)
}

/// What lies between two commits of a repository, as far as it can be found out; at most `most` of the
/// commits are listed.
pub fn between(
    url: &str,
    old: &str,
    new: &str,
    most: usize,
    session: &Session<'_>,
) -> Result<Option<Between>> {
    Source::of_session(address(url, session.local.root()), session).between(old, new, most)
}

#[derive(Serialize)]
struct What {
    commit: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    paths: Vec<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    submodules: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pointers: bool,
}

struct How {
    url: String,
    /// The name that was pinned to the commit.
    rev: Option<String>,
    depth: Depth,
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
        let globs = match self.what.paths.as_slice() {
            [] => Globs::all(),
            paths => Globs::new(paths).map_err(Error::failed)?,
        };
        let source = Source::of_context(self.how.url.clone(), self.how.depth, context);
        let whole = Whole { what: &self.what, globs: &globs, context };
        let tree = whole.tree(&source, &self.what.commit, self.how.rev.as_deref(), &globs.start(), 0)?;
        self.all_match(tree, context)?;
        Ok(tree)
    }
}

impl CloneAction {
    /// Fails if one of the paths takes nothing.
    fn all_match(&self, tree: Digest, context: &Context<'_>) -> Result<()> {
        let mut open = Vec::new();
        for path in self.what.paths.iter().filter(|path| !path.starts_with('!')) {
            open.push((path, Globs::new(&[path.as_str()]).map_err(Error::failed)?));
        }
        if open.is_empty() {
            return Ok(());
        }
        context.cache.cas.walk(&tree, &mut |name, _| {
            open.retain(|(_, globs)| !globs.takes(name));
            context.stop.check()
        })?;
        match open.first() {
            None => Ok(()),
            Some((path, _)) => {
                let url = shown(&self.how.url);
                let message =
                    format!("`{path}` matches nothing in commit `{}` of `{url}`", self.what.commit);
                Err(Failure::new(message).hint("paths are relative to the root of the commit").into())
            }
        }
    }
}

/// How deep submodules may be in each other.
const DEEPEST: usize = 16;

/// A commit with its submodules.
struct Whole<'a> {
    what: &'a What,
    globs: &'a Globs,
    context: &'a Context<'a>,
}

impl Whole<'_> {
    /// The tree of a commit with what is wanted of it, stored. The mirrors are used one after the other.
    fn tree(
        &self,
        source: &Source<'_>,
        commit: &str,
        rev: Option<&str>,
        at: &Progress,
        deep: usize,
    ) -> Result<Digest> {
        let submodules = if self.what.submodules { Submodules::Given } else { Submodules::Empty };
        let lfs = if self.what.pointers { Lfs::Pointers } else { Lfs::Refused };
        let wanted = Wanted { globs: self.globs, at, submodules, lfs };
        let (cas, stop) = (&self.context.cache.cas, self.context.stop);
        let (taken, addresses) = source.read(commit, rev, |mirror| {
            let taken = take(mirror, commit, &wanted, cas, stop)?;
            let addresses = addresses(mirror, commit, source, &taken.links)?;
            Ok((taken, addresses))
        })?;
        let Taken { tree, links } = taken;
        if links.is_empty() {
            return Ok(tree);
        }
        if deep == DEEPEST {
            return Err(Error::failed(format!("submodules are nested more than {DEEPEST} deep")));
        }
        let mut draft = Draft::of(cas, tree);
        for (link, (url, trust)) in links.into_iter().zip(addresses) {
            let path = PathBuf::from(String::from_utf8_lossy(&link.path).into_owned());
            let inner =
                Source { url, trust, ..Source::of_context(String::new(), Depth::Commits(1), self.context) };
            let tree = self
                .tree(&inner, &link.commit, None, &link.at, deep + 1)
                .map_err(|error| error.context(format!("submodule `{}`", path.display())))?;
            if link.at.takes() || !cas.node(&tree)?.entries.is_empty() {
                draft.insert(&link.path, Entry::Folder { mode: 0o755, tree })?;
            }
        }
        draft.store()
    }
}

/// Where the submodules of a commit are, in the order of the links, and who says so.
fn addresses(
    mirror: &Mirror,
    commit: &str,
    source: &Source<'_>,
    links: &[Link],
) -> Result<Vec<(String, Trust)>, super::clone_tree::Trouble> {
    if links.is_empty() {
        return Ok(Vec::new());
    }
    let remote = source.remote();
    let root = mirror.list(mirror.tree(commit)?)?;
    let file =
        root.iter().find(|item| item.name == b".gitmodules" && matches!(item.mode, 0o100644 | 0o100755));
    let known = match file {
        Some(file) => mirror.modules(&remote, file.id)?,
        None => std::collections::BTreeMap::new(),
    };
    let address = |link: &Link| {
        let path = String::from_utf8_lossy(&link.path).into_owned();
        let Some(url) = known.get(&link.path) else {
            return Err(Error::failed(format!("the commit has no address for its submodule `{path}`")));
        };
        let wrong = |wrong| {
            let why = match wrong {
                Wrong::Form => format!("its address `{}` is not taken", shown(url).escape_debug()),
                Wrong::Command => format!("its address `{}` would run a command", url.escape_debug()),
                Wrong::Secret => "its address holds a password or token".to_string(),
            };
            Error::failed(format!("submodule `{path}`: {why}"))
        };
        let url_there = git::beside(&source.url, url).map_err(wrong)?;
        // Beside a repository that the user has named by a path, a path is the user's own.
        let beside = url.starts_with('.') && git::is_here(&source.url);
        let trust = if beside { source.trust } else { Trust::Repository };
        Ok((url_there, trust))
    };
    Ok(links.iter().map(address).collect::<Result<_>>()?)
}
