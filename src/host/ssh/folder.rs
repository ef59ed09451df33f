//! The folder for sockets of a run: its path must be short, it is nobody else's, and what a run that was
//! killed has left is cleared away by the next. Knows no connection.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use tempfile::TempDir;

use crate::host::fs;

/// Where: a socket's path has about a hundred bytes.
const PLACE: &str = "/tmp";
const PREFIX: &str = "vcbuild-ssh-";

/// Makes the folder; it is gone when it is dropped.
pub fn make() -> io::Result<TempDir> {
    clear(Path::new(PLACE));
    let prefix = format!("{PREFIX}{}-", std::process::id());
    tempfile::Builder::new().prefix(&prefix).tempdir_in(PLACE)
}

/// Removes folders of our user whose process is gone.
fn clear(place: &Path) {
    let me = rustix::process::geteuid().as_raw();
    for name in fs::list(place).unwrap_or_default() {
        let name = name.to_string_lossy().into_owned();
        let Some(process) = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()) else {
            continue;
        };
        let path = place.join(&name);
        let ours = std::fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir() && found.uid() == me);
        if ours && process.parse::<u32>().is_ok() && !Path::new("/proc").join(process).exists() {
            // Another process may be doing the same.
            let _ = fs::remove_tree(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_left_of_the_dead_is_cleared() {
        let place = tempfile::tempdir().unwrap();
        let own = format!("{PREFIX}{}-x", std::process::id());
        for name in [own.as_str(), "vcbuild-ssh-4194999-x", "vcbuild-ssh-x-y", "other"] {
            fs::make_folder(&place.path().join(name)).unwrap();
        }
        clear(place.path());
        let left = fs::list(place.path()).unwrap();
        assert_eq!(left, ["other", own.as_str(), "vcbuild-ssh-x-y"]);
    }
}
