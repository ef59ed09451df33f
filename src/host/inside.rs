//! A folder that nothing gets out of: paths in it are followed name by name and links never are, so
//! that a planted link cannot lead a read or a write elsewhere. Files appear in it whole or not at all.
//! Knows no digest and no layout.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::error::{At, Error, Failure, Result};
use crate::host::fs::{self, Kind, Links, Status};

/// The folder for the file that is not whole yet, and the file; it is there only while one is written.
const TEMPORARY: &str = "tmp";
const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A folder to stay inside of.
pub struct Inside {
    root: Rc<OwnedFd>,
    /// Where it is.
    path: PathBuf,
    /// How people know it.
    shown: PathBuf,
    /// The folders on the way to the last path, outer ones first.
    way: RefCell<Vec<(String, Rc<OwnedFd>)>>,
}

/// What to do about folders that are not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// They are made, mode 0755.
    Make,
    /// They are left out.
    Leave,
}

/// A name in an open folder.
pub struct Spot {
    folder: Rc<OwnedFd>,
    name: String,
}

/// The names of a path; `None` if it is empty, leaves the folder or cannot be a file's.
pub fn names(path: &str) -> Option<Vec<&str>> {
    let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty() && *name != ".").collect();
    let wrong = names.is_empty() || path.ends_with('/') || names.contains(&"..") || path.contains('\0');
    (!wrong).then_some(names)
}

impl Inside {
    /// Opens a folder, following links on the way to it; errors call it `shown`.
    pub fn open(path: &Path, shown: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty())?;
        let (path, shown) = (path.to_path_buf(), shown.to_path_buf());
        Ok(Self { root: Rc::new(root), path, shown, way: RefCell::default() })
    }

    /// How people know a path in here.
    pub fn shown(&self, names: &[&str]) -> PathBuf {
        names.iter().fold(self.shown.clone(), |path, name| path.join(name))
    }

    /// Where a path in here is.
    pub fn path(&self, names: &[&str]) -> PathBuf {
        names.iter().fold(self.path.clone(), |path, name| path.join(name))
    }

    /// The place of a path; `None` if a folder above it is missing and is left out. Fails if something
    /// above it is a link or a file.
    pub fn spot(&self, names: &[&str], missing: Missing) -> Result<Option<Spot>> {
        let Some((last, above)) = names.split_last() else { panic!("BUG: a path without names") };
        Ok(self.folder(above, missing)?.map(|folder| Spot { folder, name: (*last).to_string() }))
    }

    fn folder(&self, names: &[&str], missing: Missing) -> Result<Option<Rc<OwnedFd>>> {
        let mut way = self.way.borrow_mut();
        let known = way.iter().zip(names).take_while(|((known, _), name)| known == *name).count();
        way.truncate(known);
        for (at, name) in names.iter().enumerate().skip(known) {
            let above = way.last().map_or(&self.root, |(_, folder)| folder).clone();
            let shown = || self.shown(&names[..=at]);
            let open = || rustix::fs::openat(&*above, *name, FOLDER, Mode::empty());
            let opened = match open() {
                Err(Errno::NOENT) if missing == Missing::Make => {
                    make(&above, name).at("make the folder", &shown())?;
                    open()
                }
                opened => opened,
            };
            match opened {
                Ok(folder) => way.push(((*name).to_string(), Rc::new(folder))),
                Err(Errno::NOENT) if missing == Missing::Leave => return Ok(None),
                Err(Errno::NOTDIR | Errno::LOOP) => return Err(not_a_folder(&above, name, &shown())),
                Err(errno) => return Err(errno).at("open", &shown()),
            }
        }
        Ok(Some(way.last().map_or(&self.root, |(_, folder)| folder).clone()))
    }

    /// Looks at everything anew from here on.
    pub fn forget(&self) {
        self.way.borrow_mut().clear();
    }

    /// The status of a path; `None` if there is nothing.
    pub fn status(&self, names: &[&str]) -> Result<Option<Status>> {
        match self.spot(names, Missing::Leave)? {
            None => Ok(None),
            Some(spot) => spot.status().at("look at", &self.shown(names)),
        }
    }

    /// Reads a small file whole; `None` if there is nothing.
    pub fn read(&self, names: &[&str], limit: u64) -> Result<Option<Vec<u8>>> {
        let shown = self.shown(names);
        let Some(spot) = self.spot(names, Missing::Leave)? else { return Ok(None) };
        let file = match spot.open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.at("read", &shown)?,
        };
        let mut bytes = Vec::new();
        file.take(limit + 1).read_to_end(&mut bytes).at("read", &shown)?;
        if bytes.len() as u64 > limit {
            return Err(Error::failed(format!(
                "read `{}`: it is over {limit} bytes long",
                shown.display()
            )));
        }
        Ok(Some(bytes))
    }

    /// Writes a file under a temporary name by `fill`, syncs it, gives it its mode and then its name,
    /// replacing what is there. Only for whoever has the lock.
    pub fn place(
        &self,
        names: &[&str],
        mode: u32,
        fill: impl FnOnce(&File) -> Result<()>,
    ) -> Result<Status> {
        let shown = self.shown(names);
        let Some(spot) = self.spot(names, Missing::Make)? else { panic!("BUG: folders were not made") };
        let temporary = Temporary::new(&self.root).at("write", &shown)?;
        fill(&temporary.file)?;
        rustix::fs::fchmod(&temporary.file, Mode::from_raw_mode(mode)).at("set the mode of", &shown)?;
        temporary.file.sync_all().at("write", &shown)?;
        rustix::fs::renameat(&temporary.folder, TEMPORARY, &*spot.folder, &*spot.name)
            .at("rename to", &shown)?;
        let gone = || Failure::new(format!("`{}` has just been removed", shown.display()));
        Ok(spot.status().at("look at", &shown)?.ok_or_else(gone)?)
    }

    /// Sets the permission bits of a regular file; `None` if there is nothing.
    pub fn set_mode(&self, names: &[&str], mode: u32) -> Result<Option<Status>> {
        let shown = self.shown(names);
        let Some(spot) = self.spot(names, Missing::Leave)? else { return Ok(None) };
        let file = spot.open().at("set the mode of", &shown)?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)).at("set the mode of", &shown)?;
        file.sync_all().at("set the mode of", &shown)?;
        fs::status_of(&file).map(Some).at("look at", &shown)
    }

    /// Makes a folder, and those above it, if it is not there; a new one has mode 0755.
    pub fn make_folder(&self, names: &[&str]) -> Result<()> {
        self.folder(names, Missing::Make).map(drop)
    }

    /// Sets the permission bits of a folder.
    pub fn set_folder_mode(&self, names: &[&str], mode: u32) -> Result<()> {
        let shown = self.shown(names);
        let Some(spot) = self.spot(names, Missing::Leave)? else { return Ok(()) };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let set = || {
            let folder = rustix::fs::openat(&*spot.folder, &*spot.name, flags, Mode::empty())?;
            rustix::fs::fchmod(folder, Mode::from_raw_mode(mode))
        };
        set().at("set the mode of", &shown)
    }

    /// Makes a symbolic link, replacing what is there. Only for whoever has the lock.
    pub fn place_link(&self, names: &[&str], target: &str) -> Result<()> {
        let shown = self.shown(names);
        let Some(spot) = self.spot(names, Missing::Make)? else { panic!("BUG: folders were not made") };
        let temporary = Temporary::new(&self.root).at("link", &shown)?;
        let link = || {
            rustix::fs::unlinkat(&temporary.folder, TEMPORARY, AtFlags::empty())?;
            rustix::fs::symlinkat(target, &temporary.folder, TEMPORARY)?;
            rustix::fs::renameat(&temporary.folder, TEMPORARY, &*spot.folder, &*spot.name)
        };
        link().at("link", &shown)
    }

    /// The target of a link.
    pub fn target(&self, names: &[&str]) -> Result<Option<String>> {
        let Some(spot) = self.spot(names, Missing::Leave)? else { return Ok(None) };
        let target = rustix::fs::readlinkat(&*spot.folder, &*spot.name, Vec::new());
        Ok(target.at("read", &self.shown(names))?.into_string().ok())
    }

    /// Removes a file or link, or an empty folder.
    pub fn remove(&self, names: &[&str], is_folder: bool) -> Result<()> {
        let Some(spot) = self.spot(names, Missing::Leave)? else { return Ok(()) };
        let flags = if is_folder { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        self.forget();
        match rustix::fs::unlinkat(&*spot.folder, &*spot.name, flags) {
            Err(Errno::NOENT) => Ok(()),
            removed => removed.at("remove", &self.shown(names)),
        }
    }

    /// The paths of all that is in a folder and below it, from there, and whether each is a folder. What is mounted
    /// there is not entered.
    pub fn list(&self, names: &[&str]) -> Result<Vec<(String, bool)>> {
        let (mut all, mut open) = (Vec::new(), vec![String::new()]);
        while let Some(above) = open.pop() {
            let below: Vec<&str> = above.split('/').filter(|name| !name.is_empty()).collect();
            let path = [names, &below].concat();
            let shown = self.shown(&path);
            let Some(folder) = self.folder(&path, Missing::Leave)? else { continue };
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let readable = rustix::fs::openat(&*folder, ".", flags, Mode::empty()).at("list", &shown)?;
            for entry in rustix::fs::Dir::new(readable).at("list", &shown)? {
                let name = entry.at("list", &shown)?.file_name().to_owned();
                if [&b"."[..], b".."].contains(&name.to_bytes()) {
                    continue;
                }
                let odd =
                    |_| Failure::new(format!("`{}` has a name in it that is not UTF-8", shown.display()));
                let name = name.into_string().map_err(odd)?;
                let found =
                    fs::status_at(&*folder, &*name, Links::Keep).at("look at", &shown.join(&name))?;
                let is_folder = found.is_some_and(|found| found.kind == Kind::Folder);
                let path = if above.is_empty() { name } else { format!("{above}/{name}") };
                let name = path.rsplit('/').next().unwrap_or(&path);
                if is_folder && !is_mounted(&folder, name) {
                    open.push(path.clone());
                }
                all.push((path, is_folder));
            }
        }
        Ok(all)
    }

    /// Syncs the names in the folder above a path, so that they survive a power cut.
    pub fn settle(&self, names: &[&str]) -> Result<()> {
        let Some(spot) = self.spot(names, Missing::Leave)? else { return Ok(()) };
        sync(&spot.folder).at("sync the folder of", &self.shown(names))
    }

    /// Opens a file that is only there to be locked, making it if need be.
    pub fn lock_file(&self, name: &str) -> Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let mode = Mode::from_raw_mode(0o644);
        rustix::fs::openat(&*self.root, name, flags, mode).map(File::from).at("open", &self.shown(&[name]))
    }

    /// Whether a write was cut off, or is going on.
    pub fn has_leftovers(&self) -> bool {
        matches!(fs::status_at(&*self.root, TEMPORARY, Links::Keep), Ok(Some(_)))
    }

    /// Removes what writes that were cut off have left. Only for whoever has the lock.
    pub fn clear(&self) -> Result<()> {
        let clear = || {
            let folder = match rustix::fs::openat(&*self.root, TEMPORARY, FOLDER, Mode::empty()) {
                Err(Errno::NOENT) => return Ok(()),
                folder => folder?,
            };
            match rustix::fs::unlinkat(&folder, TEMPORARY, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
            rustix::fs::unlinkat(&*self.root, TEMPORARY, AtFlags::REMOVEDIR)
        };
        clear().at("remove", &self.shown(&[TEMPORARY]))
    }
}

impl Spot {
    /// The status of what is here; `None` if there is nothing.
    pub fn status(&self) -> io::Result<Option<Status>> {
        fs::status_at(&*self.folder, &*self.name, Links::Keep)
    }

    /// Opens a regular file for reading.
    pub fn open(&self) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = File::from(rustix::fs::openat(&*self.folder, &*self.name, flags, Mode::empty())?);
        match fs::status_of(&file)?.kind {
            Kind::File => Ok(file),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
        }
    }
}

/// A file that goes unless it is renamed. There is one at a time, because whoever writes has the lock.
struct Temporary {
    folder: OwnedFd,
    file: File,
}

impl Temporary {
    fn new(root: &OwnedFd) -> io::Result<Self> {
        match rustix::fs::mkdirat(root, TEMPORARY, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        let folder = rustix::fs::openat(root, TEMPORARY, FOLDER, Mode::empty())?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&folder, TEMPORARY, flags, Mode::RUSR | Mode::WUSR)?;
        Ok(Self { folder, file: file.into() })
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After the rename there is nothing; what cannot be removed now goes at the next contact.
        let _ = rustix::fs::unlinkat(&self.folder, TEMPORARY, AtFlags::empty());
    }
}

/// Whether something is mounted at a name, of the same file system or not. A kernel that cannot say says no.
fn is_mounted(folder: &OwnedFd, name: &str) -> bool {
    let opened = rustix::fs::openat2(folder, name, FOLDER, Mode::empty(), ResolveFlags::NO_XDEV);
    matches!(opened, Err(Errno::XDEV))
}

/// Makes a folder whose name survives a power cut.
fn make(above: &OwnedFd, name: &str) -> io::Result<()> {
    match rustix::fs::mkdirat(above, name, Mode::RWXU) {
        Err(Errno::EXIST) => return Ok(()),
        made => made?,
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = rustix::fs::openat(above, name, flags, Mode::empty())?;
    rustix::fs::fchmod(folder, Mode::from_raw_mode(0o755))?;
    sync(above)
}

fn sync(folder: &OwnedFd) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::openat(folder, ".", flags, Mode::empty()) {
        Ok(readable) => Ok(rustix::fs::fsync(readable)?),
        // A folder that may be entered but not listed cannot be synced by itself.
        Err(Errno::ACCESS) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn not_a_folder(above: &OwnedFd, name: &str, shown: &Path) -> Error {
    let shown = shown.display();
    match fs::status_at(above, name, Links::Keep) {
        Ok(Some(found)) if found.kind == Kind::Link => {
            Failure::new(format!("`{shown}` is a link, and links inside an embedded node are not followed"))
                .hint("put a folder there, or choose another path")
                .into()
        }
        _ => Error::failed(format!("`{shown}` is not a folder")),
    }
}
