//! A bare repository of our own that holds what was fetched from one address: filled by git, read by
//! libgit2. Knows where it lies, not why.

use std::path::{Path, PathBuf};

use super::address;
use super::remote::Remote;
use crate::error::{At, Error, Result};
use crate::host::fs;
use crate::host::process::{Captured, Exit};

/// A mirror.
pub struct Mirror {
    path: PathBuf,
    repository: git2::Repository,
    is_new: bool,
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

/// Something in a mirror that should be there is not, or cannot be read.
#[derive(Debug)]
pub struct Damage(pub String);

impl From<git2::Error> for Damage {
    fn from(error: git2::Error) -> Self {
        Self(error.message().to_lowercase())
    }
}

/// Why something was not fetched.
#[derive(Debug)]
pub enum Unfetched {
    /// It is not there, or not for us.
    Missing,
    /// The other side was not reached, did not let us in, or broke off. Nothing else is worth a try.
    Unreached(Error),
    /// Anything else; the mirror may be to blame.
    Other(Error),
}

impl From<Error> for Unfetched {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

/// How much history comes with a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// So many commits, that one included.
    Commits(u32),
    /// All that is not here yet.
    New,
    /// All there is.
    All,
}

/// What git itself takes as "all", and what also brings in what an earlier shallow fetch left out.
const INFINITE: &str = "--depth=2147483647";

/// Removes git's lock files and half-written objects below a folder: the next git would give up because
/// of the first, and never clear away the others.
fn clear(folder: &Path) -> Result<()> {
    for name in fs::list(folder).at("list", folder)? {
        let (path, text) = (folder.join(&name), name.to_string_lossy());
        let half =
            ["tmp_pack_", "tmp_idx_", "tmp_rev_", "tmp_obj_", "tmp_objdir-", "incoming-", "shallow_"];
        if text.ends_with(".lock") || half.iter().any(|start| text.starts_with(start)) {
            fs::remove_tree(&path)?;
        } else if path.is_dir() && !path.is_symlink() {
            clear(&path)?;
        }
    }
    Ok(())
}

/// What git says when there is no other side, or it does not want us, or goes away.
const UNREACHED: [&str; 16] = [
    "Authentication failed",
    "Could not read from remote repository",
    "Could not resolve",
    "could not read Username",
    "could not read Password",
    "unable to access",
    "unable to connect",
    "unable to look up",
    "Connection refused",
    "Connection reset",
    "early EOF",
    "hung up unexpectedly",
    "unexpected disconnect",
    "' not allowed",
    "' not found",
    "access denied",
];

fn why(remote: &Remote<'_>, done: &Captured) -> Unfetched {
    let said = String::from_utf8_lossy(&done.stderr);
    let error = remote.failed("fetch from", done);
    if said.contains("not our ref") {
        return Unfetched::Missing;
    }
    let unreached = done.exit == Exit::TimedOut || UNREACHED.iter().any(|words| said.contains(words));
    if unreached { Unfetched::Unreached(error) } else { Unfetched::Other(error) }
}

impl Mirror {
    /// Opens a mirror, making it if need be; one that cannot be opened is made anew.
    pub fn open(path: &Path) -> Result<Self> {
        if let Ok(repository) = git2::Repository::open_bare(path) {
            return Ok(Self { path: path.to_path_buf(), repository, is_new: false });
        }
        fs::remove_tree(path)?;
        fs::make_folder(path)?;
        let made = git2::Repository::init_bare(path);
        let repository = made.map_err(|error| Error::failed(error.message().to_lowercase()))?;
        Ok(Self { path: path.to_path_buf(), repository, is_new: true })
    }

    /// Whether it was made when it was opened.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the history of something in it has an end that is not the real one.
    pub fn is_shallow(&self) -> bool {
        self.path.join("shallow").exists()
    }

    /// The commit behind an object, if it is here: a tag is followed.
    pub fn commit(&self, id: &str) -> Option<String> {
        let object = self.repository.find_object(git2::Oid::from_str(id).ok()?, None).ok()?;
        Some(object.peel_to_commit().ok()?.id().to_string())
    }

    /// Whether an object is here.
    pub fn has(&self, id: &str) -> bool {
        git2::Oid::from_str(id).is_ok_and(|id| self.repository.find_object(id, None).is_ok())
    }

    /// Fetches what `id` names, with so much history; where that is refused, everything there is.
    ///
    /// Nobody else may use the mirror meanwhile: what a git that was killed left behind is removed first.
    pub fn fetch(&self, remote: &Remote<'_>, id: &str, depth: Depth) -> Result<(), Unfetched> {
        clear(&self.path)?;
        let name = format!("+{id}:refs/kept/{id}");
        let depth = match depth {
            Depth::Commits(commits) => Some(format!("--depth={commits}")),
            Depth::New => None,
            Depth::All => self.is_shallow().then(|| INFINITE.to_string()),
        };
        // A bundle gives what it has, not what is asked for.
        let bundle = address::is_path(remote.url) && !Path::new(remote.url).is_dir();
        if !bundle {
            match self.fetch_with(remote, depth.as_deref(), &name) {
                Ok(()) if self.has(id) => return Ok(()),
                Err(gone @ (Unfetched::Missing | Unfetched::Unreached(_))) => return Err(gone),
                Err(Unfetched::Other(Error::Interrupted)) => return Err(Error::Interrupted.into()),
                Ok(()) | Err(Unfetched::Other(_)) => {}
            }
        }
        let depth = self.is_shallow().then_some(INFINITE);
        self.fetch_with(remote, depth, "+refs/*:refs/vcbuild/*")?;
        match self.has(id) {
            true => Ok(()),
            false if self.is_new => Err(Unfetched::Missing),
            // Git does not send what a mirror claims to have.
            false => Err(Error::failed(format!("the mirror did not get `{id}`")).into()),
        }
    }

    fn fetch_with(&self, remote: &Remote<'_>, depth: Option<&str>, what: &str) -> Result<(), Unfetched> {
        let mut arguments =
            vec!["fetch", "--progress", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules"];
        arguments.push("--force");
        if what.contains('*') {
            arguments.push("--prune");
        }
        arguments.extend(depth);
        arguments.extend(["--", remote.url, what]);
        let stuck = |error| match error {
            Error::Failed(_) => Unfetched::Unreached(error),
            error => Unfetched::Other(error),
        };
        let done = remote.git_in(&self.path, &arguments).map_err(stuck)?;
        if done.exit == Exit::Code(0) { Ok(()) } else { Err(why(remote, &done)) }
    }

    /// The tree of a commit.
    pub fn tree(&self, commit: &str) -> Result<git2::Oid, Damage> {
        Ok(self.repository.find_commit(git2::Oid::from_str(commit)?)?.tree_id())
    }

    /// What is in a tree.
    pub fn list(&self, tree: git2::Oid) -> Result<Vec<Item>, Damage> {
        let tree = self.repository.find_tree(tree)?;
        let item = |entry: git2::TreeEntry<'_>| Item {
            name: entry.name_bytes().to_vec(),
            id: entry.id(),
            mode: entry.filemode(),
        };
        Ok(tree.iter().map(item).collect())
    }

    /// The files in it, for many threads at once.
    pub fn objects(&self) -> Result<Objects<'_>, Damage> {
        Ok(Objects(self.repository.odb()?))
    }

    /// Takes the mirror away, to be made anew.
    pub fn discard(self) -> Result<()> {
        drop(self.repository);
        fs::remove_tree(&self.path)
    }
}

/// The objects of a mirror.
pub struct Objects<'a>(git2::Odb<'a>);

impl Objects<'_> {
    /// Reads a file; its bytes are what its name says.
    pub fn blob<T>(&self, id: git2::Oid, read: impl FnOnce(&[u8]) -> T) -> Result<T, Damage> {
        let object = self.0.read(id)?;
        match object.kind() {
            git2::ObjectType::Blob => Ok(read(object.data())),
            _ => Err(Damage(format!("`{id}` is not a file"))),
        }
    }
}
