//! Git: the network by the `git` program, under the user's own configuration; what is local by libgit2.
//! One bare mirror for each address. Knows no task and no cache but the mirror's folder.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::process::{self, Captured, Command, Exit};
use super::stop::Stop;
use crate::error::{At, Error, Failure, Result};

/// Where a repository is, and how to get at it.
pub struct Remote<'a> {
    /// An address as git takes it, or an absolute path to a repository or a bundle.
    pub url: &'a str,
    /// The user's environment.
    pub env: Vec<(OsString, OsString)>,
    /// The user's wish to stop.
    pub stop: &'a Stop,
}

/// A transfer that takes longer than this is ended.
const LONGEST: Duration = Duration::from_secs(3600);
/// What `git ls-remote` may print, in bytes.
const MOST_REFS: usize = 64 << 20;

/// Whether an address is a path on this machine: no scheme, and no `host:path`.
pub fn is_path(url: &str) -> bool {
    let scp = url.split_once(':').is_some_and(|(host, _)| !host.contains('/'));
    !url.contains("://") && !scp
}

impl Remote<'_> {
    /// Runs git with the user's configuration, but without hooks, prompts and foreign `GIT_*` variables.
    fn git(&self, arguments: &[&str]) -> Result<Captured> {
        let mut argv: Vec<OsString> = vec!["git".into()];
        for setting in
            ["core.hooksPath=/dev/null", "core.fsmonitor=false", "gc.auto=0", "maintenance.auto=0"]
        {
            argv.extend(["-c".into(), setting.into()]);
        }
        argv.extend(arguments.iter().map(OsString::from));
        let kept = |name: &OsString| {
            let name = name.to_string_lossy();
            (!name.starts_with("GIT_") || name.starts_with("GIT_SSH") || name == "GIT_ASKPASS")
                && name != "LC_ALL"
        };
        let mut env: Vec<_> = self.env.iter().filter(|(name, _)| kept(name)).cloned().collect();
        env.push(("GIT_TERMINAL_PROMPT".into(), "0".into()));
        env.push(("LC_ALL".into(), "C".into()));
        let command = Command { argv, dir: "/".into(), env, timeout: Some(LONGEST) };
        process::capture(&command, MOST_REFS, self.stop)
    }

    /// The object that a branch, a tag or a whole name of a reference means there now.
    pub fn resolve(&self, rev: &str) -> Result<String> {
        let done = self.git(&["ls-remote", "--", self.url])?;
        if done.exit != Exit::Code(0) {
            return Err(self.failed("ask", &done));
        }
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        let refs: Vec<(&str, &str)> = text.lines().filter_map(|line| line.split_once('\t')).collect();
        let named =
            |name: &str| refs.iter().find(|(_, known)| *known == name).map(|(id, _)| id.to_string());
        let branch = named(&format!("refs/heads/{rev}"));
        let tag = named(&format!("refs/tags/{rev}"));
        match (branch, tag, named(rev)) {
            (Some(branch), Some(tag), _) if branch != tag => {
                let message = format!("`{rev}` of `{}` is both a branch and a tag", self.url);
                let hint = format!("write `refs/heads/{rev}` or `refs/tags/{rev}`");
                Err(Failure::new(message).hint(hint).into())
            }
            (Some(id), ..) | (_, Some(id), _) | (.., Some(id)) => Ok(id),
            (None, None, None) => {
                let short = |name: &'_ str| -> Option<String> {
                    let name = name.strip_prefix("refs/heads/").or(name.strip_prefix("refs/tags/"))?;
                    Some(name.to_string())
                };
                let names: Vec<String> = refs.iter().filter_map(|(_, name)| short(name)).collect();
                let mut failure = Failure::new(format!("`{}` has no branch and no tag `{rev}`", self.url));
                failure.hints.extend(crate::error::did_you_mean(rev, names.iter().map(String::as_str)));
                Err(failure.into())
            }
        }
    }

    fn failed(&self, doing: &str, done: &Captured) -> Error {
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        let lines: Vec<String> = said.lines().map(str::to_string).collect();
        let from = lines.len().saturating_sub(10);
        Failure::new(format!("git could not {doing} `{}`: {}", self.url, done.exit))
            .detail(lines[from..].iter().cloned())
            .into()
    }
}

/// Removes git's lock files and half-written objects below a folder: the next git would give up because
/// of the first, and never clear away the others.
fn clear(folder: &Path) -> Result<()> {
    for name in super::fs::list(folder).at("list", folder)? {
        let (path, text) = (folder.join(&name), name.to_string_lossy());
        let half = ["tmp_pack_", "tmp_idx_", "tmp_rev_", "tmp_obj_", "tmp_objdir-", "incoming-"];
        if text.ends_with(".lock") || half.iter().any(|start| text.starts_with(start)) {
            super::fs::remove_tree(&path)?;
        } else if path.is_dir() && !path.is_symlink() {
            clear(&path)?;
        }
    }
    Ok(())
}

/// A bare repository of our own that holds what was fetched from one address.
pub struct Mirror {
    path: PathBuf,
    repository: git2::Repository,
}

/// What is in a folder of a commit.
pub struct Item {
    /// Its name.
    pub name: Vec<u8>,
    /// Its object.
    pub id: git2::Oid,
    /// Its mode as git has it: 0o100644, 0o100755, 0o120000, 0o040000 or 0o160000.
    pub mode: i32,
}

fn wrong(error: &git2::Error) -> Error {
    Error::failed(error.message().to_lowercase())
}

impl Mirror {
    /// Opens a mirror, making it if need be; one that is damaged is made anew.
    pub fn open(path: &Path) -> Result<Self> {
        let repository = match git2::Repository::open_bare(path) {
            Ok(repository) => repository,
            Err(_) => {
                super::fs::remove_tree(path)?;
                super::fs::make_folder(path)?;
                git2::Repository::init_bare(path).map_err(|error| wrong(&error))?
            }
        };
        Ok(Self { path: path.to_path_buf(), repository })
    }

    /// The commit behind an object, if it is here: a tag is followed.
    pub fn commit(&self, id: &str) -> Option<String> {
        let object = self.repository.find_object(git2::Oid::from_str(id).ok()?, None).ok()?;
        Some(object.peel_to_commit().ok()?.id().to_string())
    }

    /// Whether a commit is here with all its trees and files.
    pub fn is_whole(&self, commit: &str) -> bool {
        let whole = || -> Result<bool, git2::Error> {
            let tree = self.repository.find_commit(git2::Oid::from_str(commit)?)?.tree()?;
            let odb = self.repository.odb()?;
            let mut missing = false;
            tree.walk(git2::TreeWalkMode::PreOrder, |_, entry| {
                let here = entry.kind() == Some(git2::ObjectType::Commit) || odb.exists(entry.id());
                missing |= !here;
                if here { git2::TreeWalkResult::Ok } else { git2::TreeWalkResult::Abort }
            })?;
            Ok(!missing)
        };
        whole().unwrap_or(false)
    }

    /// Fetches what `id` names: from another machine just that, if the server allows it; otherwise
    /// everything there is.
    ///
    /// Nobody else may use the mirror meanwhile: what a git that was killed left behind is removed first.
    pub fn fetch(&self, remote: &Remote<'_>, id: &str) -> Result<()> {
        clear(&self.path)?;
        let path = self.path.to_string_lossy().into_owned();
        let base =
            ["--git-dir", &path, "fetch", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules"];
        if !is_path(remote.url) {
            let one = [&base[..], &["--depth=1", "--", remote.url, id]].concat();
            let whole = |id: &str| self.commit(id).is_some_and(|commit| self.is_whole(&commit));
            if remote.git(&one)?.exit == Exit::Code(0) && whole(id) {
                return Ok(());
            }
        }
        let all = [&base[..], &["--prune", "--force", "--", remote.url, "+refs/*:refs/vcbuild/*"]].concat();
        let done = remote.git(&all)?;
        if done.exit != Exit::Code(0) {
            return Err(remote.failed("fetch from", &done));
        }
        Ok(())
    }

    /// The tree of a commit.
    pub fn tree(&self, commit: &str) -> Result<git2::Oid> {
        let found = git2::Oid::from_str(commit).and_then(|id| self.repository.find_commit(id));
        Ok(found.map_err(|error| wrong(&error))?.tree_id())
    }

    /// What is in a tree.
    pub fn list(&self, tree: git2::Oid) -> Result<Vec<Item>> {
        let tree = self.repository.find_tree(tree).map_err(|error| wrong(&error))?;
        let item = |entry: git2::TreeEntry<'_>| Item {
            name: entry.name_bytes().to_vec(),
            id: entry.id(),
            mode: entry.filemode(),
        };
        Ok(tree.iter().map(item).collect())
    }

    /// The bytes of a file.
    pub fn blob(&self, id: git2::Oid) -> Result<Vec<u8>> {
        let blob = self.repository.find_blob(id).map_err(|error| wrong(&error))?;
        Ok(blob.content().to_vec())
    }

    /// Takes the mirror away, to be made anew: something in it is damaged.
    pub fn discard(self) -> Result<()> {
        drop(self.repository);
        super::fs::remove_tree(&self.path)
    }
}

/// What is committed of the files in a folder that may be a part of a larger work tree.
pub struct Committed {
    repository: std::sync::Mutex<git2::Repository>,
    /// The path of the folder in the work tree.
    inside: PathBuf,
}

impl Committed {
    /// Looks at the last commit; nothing if the folder is in no work tree.
    pub fn open(folder: &Path) -> Option<Self> {
        let repository = git2::Repository::discover(folder).ok()?;
        let top = repository.workdir()?.canonicalize().ok()?;
        let inside = folder.canonicalize().ok()?.strip_prefix(top).ok()?.to_path_buf();
        Some(Self { repository: std::sync::Mutex::new(repository), inside })
    }

    /// The bytes of a file in the folder.
    pub fn file(&self, name: &str) -> Option<Vec<u8>> {
        let repository = self.repository.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let tree = repository.head().ok()?.peel_to_tree().ok()?;
        let blob = tree
            .get_path(&self.inside.join(name))
            .ok()?
            .to_object(&repository)
            .ok()?
            .peel_to_blob()
            .ok()?;
        Some(blob.content().to_vec())
    }
}
