//! Between trees and real folders: `capture` reads a folder into a tree, `bring` makes a folder equal
//! to a tree by changing only what differs. Files are copied, never linked to the cache.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::bulk::Bulk;
use super::cas::Cas;
use super::draft::Draft;
use super::stamps::Algorithm;
use super::tree::Entry;
use crate::digest::{Blob, Digest};
use crate::error::{At, Error, Result};
use crate::glob::{Globs, Progress};
use crate::host::behind;
use crate::host::fs::{self, FileSink, Kind, Links, Stamp, Status};
use crate::recipe::{Content, Part, Recipe};

/// A name inside a folder.
fn join(folder: &Path, name: &[u8]) -> PathBuf {
    folder.join(OsStr::from_bytes(name))
}

/// Reads what is at `path` (a file, link or folder) into the draft at `to`, with its permission bits.
/// Sockets, pipes and devices are refused; `None` if there is nothing at `path`.
pub fn capture(bulk: &Bulk<'_>, path: &Path, draft: &mut Draft, to: &[u8]) -> Result<Option<()>> {
    let Some(found) = fs::status(path, Links::Keep).at("look at", path)? else { return Ok(None) };
    let mode = found.mode & 0o777;
    match found.kind {
        Kind::File => {
            let stamps = &bulk.cas.stamps;
            let blob = match stamps.blob(&found.stamp, Algorithm::Blake3).filter(|blob| bulk.cas.has(blob))
            {
                Some(blob) => blob,
                None => {
                    let file = fs::open_regular(path).at("read", path)?;
                    let at = fs::now();
                    let blob = bulk.put_file(&file, path)?;
                    let after = fs::status_of(&file).at("read", path)?.stamp;
                    if after != found.stamp {
                        return Err(Error::failed(format!("read `{}`: it keeps changing", path.display())));
                    }
                    stamps.remember(&found.stamp, blob.digest, at);
                    blob
                }
            };
            draft.insert(to, Entry::File { mode, blob })?;
        }
        Kind::Link => draft.insert(to, Entry::Link { target: fs::link_target(path).at("read", path)? })?,
        Kind::Folder => {
            draft.make_folder(to, mode)?;
            for name in fs::list(path).at("list", path)? {
                let inside = [to, b"/", name.as_bytes()].concat();
                capture(bulk, &path.join(&name), draft, &inside)?;
            }
        }
        Kind::Other => {
            return Err(Error::failed(format!(
                "`{}` is a socket, pipe or device: only files, folders and links can be kept",
                String::from_utf8_lossy(to)
            )));
        }
    }
    Ok(Some(()))
}

/// Makes `folder` equal to a tree. What is there already stays as it is, with its times; what is not
/// in the tree is removed, unless `spare` takes it.
pub fn bring(cas: &Cas, tree: &Digest, folder: &Path, spare: &Globs) -> Result<()> {
    make_real_folder(folder, None)?;
    let written = bring_folder(cas, tree, folder, spare, &spare.start())?;
    // From now on others may change them, so those that were written just now may look the same then.
    let at = fs::now();
    for (stamp, digest) in written {
        cas.stamps.remember(&stamp, digest, at);
    }
    Ok(())
}

/// Files that were written, by their stamps.
type Written = Vec<(Stamp, Digest)>;

/// With fewer folders in a folder than that, waking threads costs more than it saves.
const MANY: usize = 8;

/// Brings what is in a folder that is there.
fn bring_folder(cas: &Cas, tree: &Digest, folder: &Path, spare: &Globs, at: &Progress) -> Result<Written> {
    let node = cas.node(tree)?;
    let (open, names) = fs::open_folder(folder).at("list", folder)?;
    let here = open.fd().at("list", folder)?;
    for name in names {
        let name = name.as_bytes();
        if node.entry(name).is_none() {
            clear(&join(folder, name), spare, &spare.enter(at, name))?;
        }
    }
    let (mut written, mut folders) = (Written::new(), Vec::new());
    for (name, entry) in &node.entries {
        let path = join(folder, name);
        match entry {
            Entry::Folder { mode, tree } => folders.push((path, *mode, tree, spare.enter(at, name))),
            Entry::Link { target } => bring_link(&path, target)?,
            Entry::File { mode, blob } => {
                let found =
                    fs::status_at(here, OsStr::from_bytes(name), Links::Keep).at("look at", &path)?;
                written.extend(bring_file(cas, found, &path, *mode, blob)?);
            }
            Entry::Recipe { mode, recipe, size } => {
                replace(cas, &path, &Part::Recipe { recipe: *recipe, size: *size }, *mode)?;
            }
        }
    }
    drop(open);
    let inner = |(path, mode, tree, at): &(PathBuf, u32, &Digest, Progress)| {
        make_real_folder(path, Some(*mode))?;
        let written = bring_folder(cas, tree, path, spare, at)?;
        if mode & 0o700 != 0o700 {
            fs::set_mode(path, *mode)?;
        }
        Ok(written)
    };
    let more: Result<Vec<Written>> = match folders.len() {
        0..MANY => folders.iter().map(inner).collect(),
        _ => folders.par_iter().map(inner).collect(),
    };
    written.extend(more?.into_iter().flatten());
    Ok(written)
}

/// Makes a file, of which `found` is known, have this content and mode. Returns its stamp if it was written.
fn bring_file(
    cas: &Cas,
    found: Option<Status>,
    path: &Path,
    mode: u32,
    blob: &Blob,
) -> Result<Option<(Stamp, Digest)>> {
    let known = found.and_then(|found| Some((found, cas.stamps.blob(&found.stamp, Algorithm::Blake3)?)));
    let known = match known {
        Some(known) => Some(known),
        None => cas.stamps.digest(path, Algorithm::Blake3)?,
    };
    match known {
        Some((found, known)) if found.kind == Kind::File && known == *blob => {
            if found.mode != mode {
                fs::set_mode(path, mode)?;
            }
            Ok(None)
        }
        _ => {
            replace(cas, path, &Part::Blob(*blob), mode)?;
            let found = fs::status(path, Links::Keep).at("look at", path)?;
            Ok(found.map(|found| (found.stamp, blob.digest)))
        }
    }
}

/// Removes what is at `path` inside of a folder. What is reached only through a link is not inside.
pub fn remove(folder: &Path, path: &Path) -> Result<()> {
    let mut here = folder.to_path_buf();
    for name in path.parent().into_iter().flat_map(Path::components) {
        here.push(name);
        match fs::status(&here, Links::Keep).at("look at", &here)? {
            Some(found) if found.kind == Kind::Folder => {}
            _ => return Ok(()),
        }
    }
    fs::remove_tree(&folder.join(path))
}

/// Removes a path, but for what is spared inside. Returns whether nothing is left.
fn clear(path: &Path, spare: &Globs, at: &Progress) -> Result<bool> {
    if at.takes() {
        return Ok(false);
    }
    let is_folder =
        fs::status(path, Links::Keep).at("look at", path)?.is_some_and(|s| s.kind == Kind::Folder);
    if is_folder && !at.takes_none() {
        let mut empty = true;
        for name in fs::list(path).at("list", path)? {
            empty &= clear(&path.join(&name), spare, &spare.enter(at, name.as_bytes()))?;
        }
        if !empty {
            return Ok(false);
        }
    }
    fs::remove_tree(path)?;
    Ok(true)
}

/// Makes a folder that can be worked in, with this mode if one is given and it can.
fn make_real_folder(folder: &Path, mode: Option<u32>) -> Result<()> {
    let wanted = |found: u32| mode.unwrap_or(found) | 0o700;
    match fs::status(folder, Links::Keep).at("look at", folder)? {
        Some(found) if found.kind == Kind::Folder => {
            return match found.mode == wanted(found.mode) {
                true => Ok(()),
                false => fs::set_mode(folder, wanted(found.mode)),
            };
        }
        Some(_) => fs::remove_file(folder)?,
        None => {}
    }
    fs::make_folder(folder)?;
    mode.map_or(Ok(()), |mode| fs::set_mode(folder, mode | 0o700))
}

fn bring_link(path: &Path, target: &[u8]) -> Result<()> {
    match fs::status(path, Links::Keep).at("look at", path)? {
        Some(found) if found.kind == Kind::Link && fs::link_target(path).at("read", path)? == target => {
            Ok(())
        }
        None => fs::make_link(target, path),
        Some(_) => {
            fs::remove_tree(path)?;
            fs::make_link(target, path)
        }
    }
}

fn replace(cas: &Cas, path: &Path, content: &Part, mode: u32) -> Result<()> {
    fs::remove_tree(path)?;
    place(cas, path, content, mode)
}

/// Writes content to a new file at `path`, whole or not at all; replaces a file that is there.
pub fn place(cas: &Cas, path: &Path, content: &Part, mode: u32) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let file = fs::temporary(folder)?;
    match content {
        Part::Blob(blob) => cas.send(*blob, &mut FileSink { file: file.as_file(), path })?,
        part => {
            let mut recipe = Recipe::new();
            recipe.push(part);
            behind::write(file.as_file(), path, |sink| recipe.send(cas, sink))?;
        }
    }
    fs::publish(file, path, mode, fs::Existing::Replace)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::super::stamps::Stamps;
    use super::*;
    use crate::host::fs::Durability;

    fn cas(folder: &Path) -> Cas {
        fs::make_folder(&folder.join("tmp")).unwrap();
        Cas::new(folder.join("cas"), folder.join("tmp"), Stamps::new(folder.join("stamps")))
    }

    fn read(cas: &Cas, folder: &Path) -> Digest {
        let (mut draft, bulk) = (Draft::empty(cas), Bulk::new(cas));
        for name in fs::list(folder).unwrap() {
            capture(&bulk, &folder.join(&name), &mut draft, name.as_bytes()).unwrap();
        }
        bulk.finish().unwrap();
        draft.store().unwrap()
    }

    fn write(path: &Path, bytes: &[u8], mode: u32) {
        fs::write(path, bytes, mode, Durability::Cache).unwrap();
    }

    #[test]
    fn capture_then_bring_is_the_identity() {
        let home = tempfile::tempdir().unwrap();
        let cas = cas(home.path());
        let from = home.path().join("from");
        write(&from.join("a/b/c"), b"text", 0o640);
        write(&from.join("a/run"), b"#!/bin/sh", 0o755);
        write(&from.join("empty file"), b"", 0o444);
        write(&join(&from, b"odd \xff\n\"name"), &vec![1; 1 << 20], 0o600);
        fs::make_folder(&from.join("empty/inside")).unwrap();
        fs::set_mode(&from.join("empty"), 0o711).unwrap();
        fs::make_link(b"../nowhere", &from.join("a/link")).unwrap();
        let tree = read(&cas, &from);
        let to = home.path().join("to");
        bring(&cas, &tree, &to, &Globs::new::<&str>(&[]).unwrap()).unwrap();
        assert_eq!(read(&cas, &to), tree);
    }

    #[test]
    fn only_what_differs_is_touched() {
        let home = tempfile::tempdir().unwrap();
        let cas = cas(home.path());
        let from = home.path().join("from");
        for name in ["same", "edited", "replaced", "folder/x"] {
            write(&from.join(name), name.as_bytes(), 0o644);
        }
        let tree = read(&cas, &from);
        let to = home.path().join("to");
        let spare = Globs::new(&["build/**", "folder/keep"]).unwrap();
        bring(&cas, &tree, &to, &spare).unwrap();
        let ino = |name: &str| std::fs::symlink_metadata(to.join(name)).unwrap().ino();
        let before = ino("same");
        write(&to.join("edited"), b"edltad", 0o644);
        write(&to.join("foreign/x"), b"", 0o644);
        write(&to.join("build/cache"), b"", 0o644);
        write(&to.join("folder/keep"), b"", 0o644);
        write(&to.join("folder/drop"), b"", 0o644);
        fs::remove_file(&to.join("replaced")).unwrap();
        fs::make_folder(&to.join("replaced/inside")).unwrap();
        bring(&cas, &tree, &to, &spare).unwrap();
        assert_eq!(ino("same"), before);
        assert_eq!(fs::read(&to.join("edited"), 99).unwrap().unwrap(), b"edited");
        for (name, there) in
            [("foreign", false), ("build/cache", true), ("folder/keep", true), ("folder/drop", false)]
        {
            assert_eq!(to.join(name).exists(), there, "{name}");
        }
        fs::remove_tree(&to.join("build")).unwrap();
        fs::remove_file(&to.join("folder/keep")).unwrap();
        assert_eq!(read(&cas, &to), tree);
    }

    #[test]
    fn an_edit_right_after_is_seen() {
        let home = tempfile::tempdir().unwrap();
        let cas = cas(home.path());
        let (from, to) = (home.path().join("from"), home.path().join("to"));
        write(&from.join("x"), b"before", 0o644);
        let tree = read(&cas, &from);
        let none = Globs::new::<&str>(&[]).unwrap();
        for _ in 0..50 {
            bring(&cas, &tree, &to, &none).unwrap();
            // In place, of the same size, most likely within the same tick of the clock.
            let file = std::fs::File::options().write(true).truncate(true).open(to.join("x")).unwrap();
            std::io::Write::write_all(&mut &file, b"edited").unwrap();
            assert_ne!(read(&cas, &to), tree);
            bring(&cas, &tree, &to, &none).unwrap();
            assert_eq!(std::fs::read(to.join("x")).unwrap(), b"before");
        }
    }

    #[test]
    fn nothing_is_removed_through_a_link() {
        let home = tempfile::tempdir().unwrap();
        let (work, other) = (home.path().join("work"), home.path().join("other"));
        write(&other.join("a/x"), b"precious", 0o644);
        write(&work.join("real/a/x"), b"old", 0o644);
        fs::make_link(b"../other", &work.join("link")).unwrap();
        for path in ["link/a/x", "link/a", "missing/x", "real/a/x/y", "real/a/x", "link"] {
            remove(&work, Path::new(path)).unwrap();
        }
        assert_eq!(std::fs::read(other.join("a/x")).unwrap(), b"precious");
        assert!(work.join("real/a").is_dir() && !work.join("real/a/x").exists());
        assert!(std::fs::symlink_metadata(work.join("link")).is_err());
    }

    #[test]
    fn a_socket_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let cas = cas(home.path());
        let path = home.path().join("socket");
        let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let error = capture(&Bulk::new(&cas), &path, &mut Draft::empty(&cas), b"socket").unwrap_err();
        assert_eq!(
            error.to_string(),
            "`socket` is a socket, pipe or device: only files, folders and links can be kept"
        );
    }
}
