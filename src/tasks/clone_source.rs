//! A repository and its mirror in the cache: asked, fetched from and healed. What the two say of a pin is
//! said here. Knows no task and no tree.

use std::path::PathBuf;

use super::clone_tree::Trouble;
use crate::cache::{Cache, Lock};
use crate::digest::Digest;
use crate::error::{Error, Failure, Result};
use crate::host::fs;
use crate::host::git::{self, Between, Depth, Found, Kind, Mirror, Remote, Trust, Unfetched, shown};
use crate::host::stop::Stop;
use crate::work::{Context, Env, Network, Session, Tell};

/// A repository, and what it takes to get at it.
pub struct Source<'a> {
    /// The address as git gets it: paths are absolute.
    pub url: String,
    /// Who has named the address.
    pub trust: Trust,
    /// How much history comes along.
    pub depth: Depth,
    /// The cache, for the mirror.
    pub cache: &'a Cache,
    /// The environment, for git.
    pub env: &'a Env,
    /// The user's wish to stop.
    pub stop: &'a Stop,
    /// Whether the network may be used.
    pub network: Network,
    /// Where to tell that somebody else is at the mirror.
    pub tell: Option<&'a dyn Tell>,
}

/// What a name is pinned to.
pub struct Pinned {
    /// A commit.
    pub commit: String,
    /// What the name is.
    pub kind: Kind,
}

impl<'a> Source<'a> {
    /// A repository that the user names, for a task that runs.
    pub fn of_context(url: String, depth: Depth, context: &'a Context<'_>) -> Self {
        let Context { cache, env, stop, network, tell, .. } = *context;
        Self { url, trust: Trust::User, depth, cache, env, stop, network, tell: Some(tell) }
    }

    /// A repository that the user names, before anything runs.
    pub fn of_session(url: String, session: &Session<'a>) -> Self {
        let Session { cache, env, stop, network, .. } = *session;
        Self { url, trust: Trust::User, depth: Depth::Commits(1), cache, env, stop, network, tell: None }
    }

    fn path(&self) -> PathBuf {
        self.cache.path("git").join(Digest::of(self.url.as_bytes()).hex())
    }

    fn lock(&self) -> Result<Lock> {
        let waiting = || {
            let text = format!("waiting for another fetch of `{}`", shown(&self.url));
            self.tell.into_iter().for_each(|tell| tell.note(text.clone()));
        };
        self.cache.lock(&self.path().with_extension("lock"), self.stop, waiting)
    }

    /// The repository as git is asked for it.
    pub fn remote(&self) -> Remote<'_> {
        let env = self.env.0.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        Remote { url: &self.url, trust: self.trust, env, stop: self.stop }
    }

    fn allowed(&self) -> Result<()> {
        if self.network == Network::Offline && !git::is_here(&self.url) {
            let url = shown(&self.url);
            let message = format!("`{url}` would have to be asked, and `--offline` forbids it");
            return Err(Error::failed(message));
        }
        Ok(())
    }

    /// A commit read from the mirror by `read`; fetched before if it is not here, and once more into a fresh
    /// mirror if this one turns out to be damaged. `rev` is the name that was pinned to the commit.
    pub fn read<T>(
        &self,
        commit: &str,
        rev: Option<&str>,
        read: impl Fn(&Mirror) -> Result<T, Trouble>,
    ) -> Result<T> {
        let _lock = self.lock()?;
        let mut mirror = Mirror::open(&self.path())?;
        let here = mirror.commit(commit).is_some();
        if !here {
            mirror = self.fetched(mirror, commit, rev)?;
        }
        match read(&mirror) {
            Ok(read) => return Ok(read),
            Err(Trouble::Other(error)) => return Err(error),
            Err(Trouble::Damage(why)) => {
                let damaged = |error: Error| {
                    error.context(format!("the mirror of `{}` is damaged ({why})", shown(&self.url)))
                };
                self.allowed().map_err(damaged)?;
                mirror = self.fresh(mirror, commit, self.depth).map_err(|unfetched| match unfetched {
                    Unfetched::Missing => damaged(self.gone(commit, rev, None)),
                    Unfetched::Unreached(error) | Unfetched::Other(error) => damaged(error),
                })?;
            }
        }
        match read(&mirror) {
            Ok(read) => Ok(read),
            Err(Trouble::Other(error)) => Err(error),
            Err(Trouble::Damage(why)) => {
                Err(Error::failed(format!("`{}` cannot be read: {why}", shown(&self.url))))
            }
        }
    }

    /// The mirror after a fetch of a commit, which must still be what `rev` was pinned to if that is a tag.
    fn fetched(&self, mirror: Mirror, commit: &str, rev: Option<&str>) -> Result<Mirror> {
        self.allowed()?;
        let found = match rev {
            Some(rev) => self.remote().find(rev)?,
            None => None,
        };
        let fetched = self.healed(mirror, commit, self.depth);
        if let (Some(rev), Some(Found { kind: Kind::Tag, id, commit: now })) = (rev, &found) {
            let peeled = || fetched.as_ref().ok().and_then(|mirror| mirror.commit(id));
            let now = now.clone().or_else(peeled).unwrap_or_else(|| id.clone());
            if now != commit {
                return Err(moved(rev, &self.url, commit, &now)
                    .hint("`vcbuild update NAME`, with the name of the task, moves the pin after it")
                    .into());
            }
        }
        fetched.map_err(|unfetched| match unfetched {
            Unfetched::Missing => self.gone(commit, rev, found.as_ref()),
            Unfetched::Unreached(error) | Unfetched::Other(error) => error,
        })
    }

    /// The mirror after a fetch; one that is in the way is made anew.
    fn healed(&self, mirror: Mirror, id: &str, depth: Depth) -> Result<Mirror, Unfetched> {
        match mirror.fetch(&self.remote(), id, depth) {
            Ok(()) => Ok(mirror),
            Err(Unfetched::Other(_)) if !mirror.is_new() && self.stop.check().is_ok() => {
                self.fresh(mirror, id, depth)
            }
            Err(unfetched) => Err(unfetched),
        }
    }

    /// A fresh mirror in place of this one, which stays until the new one is complete: the other side may be
    /// to blame.
    fn fresh(&self, mirror: Mirror, id: &str, depth: Depth) -> Result<Mirror, Unfetched> {
        let (path, beside) = (self.path(), self.path().with_extension("new"));
        fs::remove_tree(&beside)?;
        let new = Mirror::open(&beside)?;
        if let Err(unfetched) = new.fetch(&self.remote(), id, depth) {
            new.discard()?;
            return Err(unfetched);
        }
        drop(new);
        mirror.discard()?;
        fs::rename(&beside, &path)?;
        Ok(Mirror::open(&path)?)
    }

    fn gone(&self, commit: &str, rev: Option<&str>, found: Option<&Found>) -> Error {
        let url = shown(&self.url);
        let Some(rev) = rev else {
            return Error::failed(format!("`{url}` does not have the commit `{commit}`"));
        };
        let message = format!("`{url}` no longer has the commit `{commit}`, to which `{rev}` is pinned");
        let now = found.map(|found| format!("; `{rev}` is at `{}` now", found.id));
        let hint = format!("`vcbuild update` moves the pin{}", now.unwrap_or_default());
        Failure::new(message).hint(hint).into()
    }

    /// The commit that a branch or tag means now. Fetches it only if nobody says which commit it is.
    pub fn resolve(&self, rev: &str) -> Result<Pinned> {
        self.allowed()?;
        let Found { kind, id, commit } = self.remote().resolve(rev)?;
        let commit = match commit {
            Some(commit) => commit,
            None => {
                let _lock = self.lock()?;
                let mut mirror = Mirror::open(&self.path())?;
                if !mirror.has(&id) {
                    mirror = self.healed(mirror, &id, self.depth).map_err(|unfetched| match unfetched {
                        Unfetched::Missing => self.gone(&id, None, None),
                        Unfetched::Unreached(error) | Unfetched::Other(error) => error,
                    })?;
                }
                let wrong = || format!("`{rev}` of `{}` is not a commit: it is `{id}`", shown(&self.url));
                mirror.commit(&id).ok_or_else(|| Error::failed(wrong()))?
            }
        };
        if commit.len() != 40 {
            let message = format!("`{}` names its objects by SHA-256, which is not read", shown(&self.url));
            return Err(Error::failed(message));
        }
        Ok(Pinned { commit, kind })
    }

    /// What lies between two commits. `None` if it cannot be found out: the old one may be gone, or nobody
    /// answers; that is not worth a failure.
    pub fn between(&self, old: &str, new: &str, most: usize) -> Result<Option<Between>> {
        let _lock = self.lock()?;
        let mut mirror = Mirror::open(&self.path())?;
        for (commit, depth) in [(old, Depth::Commits(1)), (new, Depth::New)] {
            if mirror.commit(commit).is_none() {
                mirror = match self.healed(mirror, commit, depth) {
                    Ok(mirror) => mirror,
                    Err(_) => return self.stop.check().map(|()| None),
                };
            }
        }
        mirror.between(&self.remote(), old, new, most)
    }
}

/// A tag that is not where it was.
pub fn moved(rev: &str, url: &str, old: &str, new: &str) -> Failure {
    let message = format!("the tag `{rev}` of `{}` has moved: it was `{old}`, and is `{new}`", shown(url));
    Failure::new(message)
}
