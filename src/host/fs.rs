//! Files here: stamps, listings, copies by the kernel, and writes that are whole or not at all.
//! Knows no cache and no digest's meaning.
#![expect(clippy::disallowed_methods, reason = "writes")]

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};
use tempfile::NamedTempFile;

use crate::error::{At, Error, Result, io_words};
use crate::recipe::Sink;

pub use super::status::{Kind, Links, Stamp, Status, status, status_at, status_of};

/// Nanoseconds since 1970.
pub fn now() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    now.tv_sec.saturating_mul(1_000_000_000).saturating_add(now.tv_nsec)
}

/// The names in a folder, sorted by their bytes.
pub fn list(folder: &Path) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        names.push(entry?.file_name());
    }
    names.sort_unstable();
    Ok(names)
}

/// The bytes of a link's target.
pub fn link_target(path: &Path) -> io::Result<Vec<u8>> {
    Ok(std::fs::read_link(path)?.into_os_string().into_vec())
}

/// Opens a regular file for reading, without following a link at the end and without hanging on a pipe.
pub fn open_regular(path: &Path) -> io::Result<File> {
    open_known(path).map(|(file, _)| file)
}

/// The same, with the status that the open file has.
pub fn open_known(path: &Path) -> io::Result<(File, Status)> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let found = status_of(&file)?;
    match found.kind {
        Kind::File => Ok((file, found)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
    }
}

/// Opens a folder, to look at names in it without a walk along the path; with the names, sorted by their
/// bytes. A link at the end is not followed.
pub fn open_folder(path: &Path) -> io::Result<(rustix::fs::Dir, Vec<OsString>)> {
    use rustix::fs::{Dir, Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut open = Dir::new(rustix::fs::open(path, flags, Mode::empty())?)?;
    let mut names = Vec::new();
    while let Some(entry) = open.read() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name.to_vec()));
        }
    }
    names.sort_unstable();
    Ok((open, names))
}

/// Makes a folder and those above it.
pub fn make_folder(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).at("make the folder", path)
}

/// Removes a file if it is there.
pub fn remove_file(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).at("remove", path),
        _ => Ok(()),
    }
}

/// Removes a file, link or folder with all below it, also folders that nobody may write to.
/// Links are never followed.
pub fn remove_tree(path: &Path) -> Result<()> {
    match status(path, Links::Keep).at("look at", path)? {
        None => Ok(()),
        Some(found) if found.kind == Kind::Folder => {
            if found.mode & 0o700 != 0o700 {
                set_mode(path, 0o700)?;
            }
            for name in list(path).at("list", path)? {
                remove_tree(&path.join(name))?;
            }
            match std::fs::remove_dir(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).at("remove", path),
                _ => Ok(()),
            }
        }
        Some(_) => remove_file(path),
    }
}

/// Sets permission bits.
pub fn set_mode(path: &Path, mode: u32) -> Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).at("set the mode of", path)
}

/// Renames; replaces what is there.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    std::fs::rename(from, to).at("rename to", to)
}

/// Gives a folder the name of another, which gets its old name if it is there; in one step where the file
/// system can.
pub fn exchange(new: &Path, name: &Path) -> Result<()> {
    match rustix::fs::renameat_with(CWD, new, CWD, name, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::NOENT) => rename(new, name),
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            let aside = new.with_extension("old");
            rename(name, &aside)?;
            rename(new, name)?;
            rename(&aside, new)
        }
        Err(errno) => Err(errno).at("rename to", name),
    }
}

/// Makes a symbolic link; what is there already is an error.
pub fn make_link(target: &[u8], path: &Path) -> Result<()> {
    std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(target), path).at("link", path)
}

/// What the names of temporary files and folders begin with.
const TEMPORARY: &str = "tmp.";
/// What was touched within this time (nanoseconds) may be about to be locked.
const YOUNG: i64 = 60_000_000_000;

/// A new temporary file in `folder`, mode 0600, removed unless it is published. It is locked until it is
/// closed, so that others can see that somebody is still at it.
pub fn temporary(folder: &Path) -> Result<NamedTempFile> {
    let file =
        tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(folder).at("make a file in", folder)?;
    // Without the lock the worst is that it is cleared away and this run fails.
    let _ = file.as_file().try_lock();
    Ok(file)
}

/// A temporary folder, removed with all that is in it when it is dropped.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    _lock: File,
}

impl Scratch {
    /// A new empty folder in `folder`.
    pub fn new(folder: &Path) -> Result<Self> {
        let made = tempfile::Builder::new().prefix(TEMPORARY).tempdir_in(folder);
        let path = made.at("make a folder in", folder)?.keep();
        let lock = File::open(&path).at("open", &path)?;
        let _ = lock.try_lock();
        Ok(Self { path, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed now is cleared away later.
        let _ = remove_tree(&self.path);
    }
}

/// Removes the temporary files and folders in `folder` that nobody is at any more: their makers were
/// killed. What cannot be removed stays.
pub fn clear_temporary(folder: &Path) {
    let old = now() - YOUNG;
    for name in list(folder).unwrap_or_default() {
        let path = folder.join(&name);
        if !name.as_bytes().starts_with(TEMPORARY.as_bytes())
            || !matches!(status(&path, Links::Keep), Ok(Some(found)) if found.stamp.mtime < old)
        {
            continue;
        }
        if File::open(&path).is_ok_and(|file| file.try_lock().is_ok()) {
            let _ = remove_tree(&path);
        }
    }
}

/// What the names of files begin with that wait for the rest of their content.
pub const PARTIAL: &str = "part.";
/// What has waited for so long (nanoseconds) is waited for no more.
const STALE: i64 = 7 * 24 * 3_600_000_000_000;

/// Removes files in `folder` that have waited too long for the rest of their content.
pub fn clear_partial(folder: &Path) {
    let old = now() - STALE;
    for name in list(folder).unwrap_or_default() {
        let path = folder.join(&name);
        if name.as_bytes().starts_with(PARTIAL.as_bytes())
            && matches!(status(&path, Links::Keep), Ok(Some(found)) if found.stamp.mtime < old)
            && File::open(&path).is_ok_and(|file| file.try_lock().is_ok())
        {
            let _ = remove_file(&path);
        }
    }
}

/// What publishing does with a file that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// It stays, and the new one is dropped.
    Keep,
    /// It is replaced in one step.
    Replace,
}

/// Gives a temporary file its mode and its name, making the folder above if need be.
pub fn publish(file: NamedTempFile, to: &Path, mode: u32, existing: Existing) -> Result<()> {
    rustix::fs::fchmod(file.as_file(), rustix::fs::Mode::from_raw_mode(mode)).at("set the mode of", to)?;
    let path = file.into_temp_path();
    let flags = match existing {
        Existing::Keep => RenameFlags::NOREPLACE,
        Existing::Replace => RenameFlags::empty(),
    };
    let mut result = rustix::fs::renameat_with(CWD, &*path, CWD, to, flags);
    if result == Err(rustix::io::Errno::NOENT)
        && let Some(folder) = to.parent()
    {
        make_folder(folder)?;
        result = rustix::fs::renameat_with(CWD, &*path, CWD, to, flags);
    }
    match result {
        Ok(()) => {
            // It has its name: the guard has nothing left to remove.
            let _ = path.keep();
            Ok(())
        }
        Err(rustix::io::Errno::EXIST) if existing == Existing::Keep => Ok(()),
        Err(errno) => Err(errno).at("rename to", to),
    }
}

/// Whether a write must survive a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The cache: what is lost is made again.
    Cache,
    /// What cannot be made again: synced before its rename.
    Synced,
}

/// Writes a file whole or not at all.
pub fn write(path: &Path, bytes: &[u8], mode: u32, durability: Durability) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    make_folder(folder)?;
    let mut file = temporary(folder)?;
    file.write_all(bytes).at("write", path)?;
    if durability == Durability::Synced {
        file.as_file().sync_all().at("write", path)?;
    }
    if durability == Durability::Cache {
        // Some file systems write a file's bytes to the disk before its name replaces another, and we would
        // wait. For a moment there is none: in the cache that is allowed.
        remove_file(path)?;
    }
    publish(file, path, mode, Existing::Replace)?;
    if durability == Durability::Synced {
        File::open(folder).and_then(|folder| folder.sync_all()).at("sync", folder)?;
    }
    Ok(())
}

/// Copies the first `size` bytes of `from` to the end of `to`, by the kernel where it can. Returns
/// whether all of them were there.
pub fn copy(from: &File, to: &File, size: u64) -> io::Result<bool> {
    let (mut offset, mut left) = (0, size);
    while left > 0 {
        let step = usize::try_from(left).unwrap_or(usize::MAX).min(1 << 30);
        match rustix::fs::copy_file_range(from, Some(&mut offset), to, None, step) {
            Ok(0) => return Ok(false),
            Ok(n) => left -= n as u64,
            Err(rustix::io::Errno::INTR) => {}
            Err(
                rustix::io::Errno::XDEV
                | rustix::io::Errno::INVAL
                | rustix::io::Errno::NOSYS
                | rustix::io::Errno::OPNOTSUPP
                | rustix::io::Errno::PERM,
            ) => return copy_by_hand(from, to, offset, left),
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(true)
}

fn copy_by_hand(from: &File, mut to: &File, mut offset: u64, mut left: u64) -> io::Result<bool> {
    use std::os::unix::fs::FileExt;
    let mut buffer = vec![0; crate::digest::PIECE];
    while left > 0 {
        let step = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        match from.read_at(&mut buffer[..step], offset) {
            Ok(0) => return Ok(false),
            Ok(n) => {
                to.write_all(&buffer[..n])?;
                (offset, left) = (offset + n as u64, left - n as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// A sink that writes to an open file, by the kernel where it can.
pub struct FileSink<'a> {
    /// The file, written from its current position.
    pub file: &'a File,
    /// The name to show in errors.
    pub path: &'a Path,
}

impl Sink for FileSink<'_> {
    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).at("write", self.path)
    }

    fn file(&mut self, file: &File, size: u64) -> Result<()> {
        match copy(file, self.file, size) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::failed("a file became shorter while it was read")),
            Err(error) => Err(error).at("write", self.path),
        }
    }
}

/// Reads a file whole, if it is at most `limit` bytes long; `None` if it is not there.
pub fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.at("read", path)?,
    };
    let expected = file.metadata().map_or(0, |found| found.len().min(limit));
    let mut bytes = Vec::with_capacity(usize::try_from(expected).unwrap_or(0) + 1);
    file.take(limit + 1).read_to_end(&mut bytes).at("read", path)?;
    if bytes.len() as u64 > limit {
        return Err(Error::failed(format!("read `{}`: it is over {limit} bytes long", path.display())));
    }
    Ok(Some(bytes))
}

/// How many processors this process may use, by one system call. A quota of a control group does not
/// count: for short work it does not matter.
pub fn processors() -> usize {
    rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count() as usize).max(1)
}

/// The name of this boot of the machine: what was written before it may be torn.
pub fn boot_id() -> String {
    match std::fs::read_to_string("/proc/sys/kernel/random/boot_id") {
        Ok(text) => text.trim().to_string(),
        Err(error) => io_words(&error),
    }
}

/// How many files there are below a folder, and their bytes. What cannot be read counts as nothing.
pub fn usage(folder: &Path) -> (usize, u64) {
    let (mut files, mut bytes) = (0, 0);
    for name in list(folder).unwrap_or_default() {
        let path = folder.join(name);
        match status(&path, Links::Keep) {
            Ok(Some(found)) if found.kind == Kind::Folder => {
                let (more, size) = usage(&path);
                (files, bytes) = (files + more, bytes + size);
            }
            Ok(Some(found)) => (files, bytes) = (files + 1, bytes + found.stamp.size),
            _ => {}
        }
    }
    (files, bytes)
}

/// Opens a file that is only there to be locked, making it and its folder if need be.
pub fn open_lock(path: &Path) -> Result<File> {
    let open = || File::options().read(true).write(true).create(true).truncate(false).open(path);
    match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_folder(path.parent().unwrap_or(Path::new(".")))?;
            open().at("open", path)
        }
        file => file.at("open", path),
    }
}

/// Opens a file to add to its end, making it and its folder if need be.
pub fn open_append(path: &Path) -> Result<File> {
    make_folder(path.parent().unwrap_or(Path::new(".")))?;
    File::options().append(true).create(true).open(path).at("open", path)
}

/// A file without a name that holds these bytes and takes no place on the disk.
pub fn in_memory(bytes: &[u8]) -> io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("blob", rustix::fs::MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    Ok(file)
}

/// Makes a file, or empties the one that is there.
pub fn create(path: &Path) -> io::Result<File> {
    File::create(path)
}

/// The hidden verb that writes a file system's changes to the disk.
pub const SYNC_LATER: &str = "__sync";

/// Starts a child that has the file system of `folder` written to the disk. Nobody waits for it: what a
/// power cut takes from the cache is made again.
pub fn sync_later(folder: &Path) {
    use std::process::{Command, Stdio};
    let mut command = Command::new("/proc/self/exe");
    command.arg(SYNC_LATER).arg(folder).env_clear().current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    // If it cannot be started the kernel writes by itself, a little later.
    let _ = command.spawn();
}

/// Does the work of the hidden verb; returns its exit code.
pub fn sync_now(folder: &Path) -> u8 {
    let synced = File::open(folder).map(rustix::fs::syncfs);
    u8::from(!matches!(synced, Ok(Ok(()))))
}
