//! A work tree of git for people: one commit with the files as they were, and whatever is changed after
//! that is what `git diff` shows. Written by git2, so that no hook, filter or setting of the user changes a
//! byte. Knows no cache and no patch.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use git2::{FileMode, ObjectType, Oid, Repository, RepositoryInitOptions, Signature, Time};

use super::fs::{self, Durability};
use crate::error::{Error, Result};

/// What is in a commit.
pub struct File {
    /// Its path.
    pub path: Vec<u8>,
    /// All its bytes, or a link's text.
    pub content: Vec<u8>,
    /// What it is.
    pub mode: Mode,
}

/// What a file of a commit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A file.
    Plain,
    /// A file that may be run.
    Executable,
    /// A link.
    Link,
}

/// Nothing that a tree says about its files, such as `text=auto`, may make git see changes where there
/// are none.
const ATTRIBUTES: &[u8] = b"* -text !eol -ident -filter !working-tree-encoding\n";

fn wrong(error: &git2::Error) -> Error {
    Error::failed(format!("make a git work tree: {}", error.message().to_lowercase()))
}

/// Takes one file of a commit.
pub type Put<'a> = dyn FnMut(File) -> Result<()> + 'a;

/// Makes a repository in `folder` with one commit that holds all files that `each` gives. The files
/// themselves are the caller's to write.
pub fn make(folder: &Path, message: &str, each: &mut dyn FnMut(&mut Put<'_>) -> Result<()>) -> Result<()> {
    let mut options = RepositoryInitOptions::new();
    options.external_template(false).initial_head("vcbuild");
    let repository = Repository::init_opts(folder, &options).map_err(|error| wrong(&error))?;
    let settings = |repository: &Repository| -> Result<(), git2::Error> {
        let mut config = repository.config()?;
        config.set_bool("core.autocrlf", false)?;
        config.set_bool("core.fileMode", true)?;
        config.set_str("core.hooksPath", "/dev/null")
    };
    settings(&repository).map_err(|error| wrong(&error))?;
    fs::write(&folder.join(".git/info/attributes"), ATTRIBUTES, 0o644, Durability::Cache)?;
    let odb = repository.odb().map_err(|error| wrong(&error))?;
    // One pack instead of as many files as the tree has.
    let pack = odb.add_new_mempack_backend(999).map_err(|error| wrong(&error))?;
    let mut root = Folder::default();
    each(&mut |file| {
        let id = odb.write(ObjectType::Blob, &file.content).map_err(|error| wrong(&error))?;
        root.put(&file.path, id, file.mode);
        Ok(())
    })?;
    let commit = || -> Result<(), git2::Error> {
        let tree = repository.find_tree(root.write(&repository)?)?;
        let who = Signature::new("vcbuild", "vcbuild@localhost", &Time::new(0, 0))?;
        let commit = repository.commit(None, &who, &who, message, &tree, &[])?;
        let mut bytes = git2::Buf::new();
        pack.dump(&repository, &mut bytes)?;
        let mut writer = odb.packwriter()?;
        writer.write_all(&bytes).map_err(|error| git2::Error::from_str(&error.to_string()))?;
        writer.commit()?;
        repository.reference("refs/heads/vcbuild", commit, true, "the tree below")?;
        let mut index = repository.index()?;
        index.read_tree(&tree)?;
        index.write()
    };
    commit().map_err(|error| wrong(&error))
}

#[derive(Default)]
struct Folder {
    files: BTreeMap<Vec<u8>, (Oid, Mode)>,
    folders: BTreeMap<Vec<u8>, Self>,
}

impl Folder {
    fn put(&mut self, path: &[u8], id: Oid, mode: Mode) {
        match path.iter().position(|byte| *byte == b'/') {
            None => drop(self.files.insert(path.to_vec(), (id, mode))),
            Some(at) => self.folders.entry(path[..at].to_vec()).or_default().put(&path[at + 1..], id, mode),
        }
    }

    fn write(&self, repository: &Repository) -> Result<Oid, git2::Error> {
        let mut tree = repository.treebuilder(None)?;
        for (name, (id, mode)) in &self.files {
            let mode = match mode {
                Mode::Plain => FileMode::Blob,
                Mode::Executable => FileMode::BlobExecutable,
                Mode::Link => FileMode::Link,
            };
            tree.insert(&name[..], *id, mode.into())?;
        }
        for (name, folder) in &self.folders {
            tree.insert(&name[..], folder.write(repository)?, FileMode::Tree.into())?;
        }
        tree.write()
    }
}

/// Which files of a work tree git passes over: ignored, and not added all the same.
pub struct Ignored(Option<(Repository, git2::Index)>);

impl Ignored {
    /// Looks at the work tree in `folder`; without a repository nothing is ignored.
    pub fn of(folder: &Path) -> Self {
        let repository = Repository::open(folder).ok();
        Self(repository.and_then(|repository| {
            let index = repository.index().ok()?;
            Some((repository, index))
        }))
    }

    /// Whether a file that is new there is passed over.
    pub fn is(&self, path: &[u8]) -> bool {
        use std::os::unix::ffi::OsStrExt;
        let Some((repository, index)) = &self.0 else { return false };
        let path = Path::new(std::ffi::OsStr::from_bytes(path));
        index.get_path(path, 0).is_none() && repository.is_path_ignored(path).unwrap_or(false)
    }
}
