//! Folders as plain data: listed, compared, copied, damaged.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// All regular files and links below a folder, relative to it, sorted.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(next) = open.pop() {
        let Ok(entries) = fs::read_dir(&next) else { continue };
        for entry in entries {
            let entry = entry.unwrap();
            match entry.file_type().unwrap().is_dir() {
                true => open.push(entry.path()),
                false => found.push(entry.path().strip_prefix(folder).unwrap().to_path_buf()),
            }
        }
    }
    found.sort();
    found
}

/// Path, permission bits and content of each file below a folder; locks are not content.
pub fn contents(folder: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let content = |name: PathBuf| {
        let path = folder.join(&name);
        let status = fs::symlink_metadata(&path).unwrap();
        let bytes = match status.is_symlink() {
            true => fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes(),
            false => fs::read(&path).unwrap(),
        };
        (name, (status.permissions().mode() & 0o7777, bytes))
    };
    files(folder).into_iter().filter(|name| name.file_name().unwrap() != "lock").map(content).collect()
}

/// Holds two folders to be the same, byte for byte.
#[track_caller]
pub fn assert_same(one: &Path, other: &Path) {
    let (one, other) = (contents(one), contents(other));
    assert_eq!(one.keys().collect::<Vec<_>>(), other.keys().collect::<Vec<_>>(), "other files");
    for (name, content) in &one {
        assert!(other[name] == *content, "`{}` differs", name.display());
    }
}

/// Copies a folder whole, with modes and links.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            copy(&path, &target);
        } else if kind.is_symlink() {
            symlink(fs::read_link(&path).unwrap(), &target).unwrap();
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// What a failing disk does to a file.
#[derive(Clone, Copy, Debug)]
pub enum Damage {
    /// It is gone.
    Deleted,
    /// One bit in the middle is another.
    Flipped,
    /// The second half is missing.
    Torn,
}

/// Damages a file.
pub fn damage(path: &Path, damage: Damage) {
    let mut bytes = fs::read(path).unwrap();
    let half = bytes.len() / 2;
    match damage {
        Damage::Deleted => return fs::remove_file(path).unwrap(),
        Damage::Flipped if bytes.is_empty() => bytes.push(b'?'),
        Damage::Flipped => bytes[half] ^= 1,
        Damage::Torn => bytes.truncate(half),
    }
    let mode = fs::metadata(path).unwrap().permissions().mode();
    fs::set_permissions(path, fs::Permissions::from_mode(mode | 0o200)).unwrap();
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}
