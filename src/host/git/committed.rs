//! What a user's own repository has committed of the files in a folder. Never writes to it.

use std::path::{Path, PathBuf};

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
