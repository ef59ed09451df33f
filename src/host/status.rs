//! What one `statx` tells of a path: its kind, its mode, and the stamp by which a later look sees that
//! it is unchanged. Reads no content.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{AtFlags, CWD, StatxFlags};

/// Cheap evidence that a file is unchanged. Times are nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// Device number.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Length in bytes.
    pub size: u64,
    /// Time of the last change of content.
    pub mtime: i64,
    /// Time of the last change of content or inode.
    pub ctime: i64,
}

/// Files change their stamp at least this often while they are being changed (nanoseconds): the
/// tick of the kernel's clock for files is at most 10 ms, and we take twice that.
pub const TICK: i64 = 20_000_000;

/// The same for file systems that count in seconds, or, as FAT, in twos of them.
const COARSE_TICK: i64 = 2_000_000_000 + TICK;

impl Stamp {
    /// Whether a change after the moment `at` could leave this stamp as it is (git's racy rule).
    pub fn is_racy(&self, at: i64) -> bool {
        // A whole second is most likely the work of a file system that knows nothing finer.
        let tick = if self.ctime % 1_000_000_000 == 0 { COARSE_TICK } else { TICK };
        self.mtime.max(self.ctime) >= at - tick
    }
}

/// What kind of thing a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Link,
    /// A socket, pipe or device.
    Other,
}

/// What one `statx` tells.
#[derive(Clone, Copy, Debug)]
pub struct Status {
    /// The stamp.
    pub stamp: Stamp,
    /// File, folder, link or other.
    pub kind: Kind,
    /// Permission bits, with setuid, setgid and sticky.
    pub mode: u32,
}

/// Whether a link at the end of a path is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// The link's target counts.
    Follow,
    /// The link itself counts.
    Keep,
}

/// The status of a path; `None` if there is nothing.
pub fn status(path: impl rustix::path::Arg, links: Links) -> io::Result<Option<Status>> {
    status_at(CWD, path, links)
}

/// The status of a path below an open folder; `None` if there is nothing.
pub fn status_at(
    folder: impl std::os::fd::AsFd,
    path: impl rustix::path::Arg,
    links: Links,
) -> io::Result<Option<Status>> {
    let flags = match links {
        Links::Follow => AtFlags::empty(),
        Links::Keep => AtFlags::SYMLINK_NOFOLLOW,
    };
    let wanted = StatxFlags::TYPE
        | StatxFlags::MODE
        | StatxFlags::INO
        | StatxFlags::SIZE
        | StatxFlags::MTIME
        | StatxFlags::CTIME;
    match rustix::fs::statx(folder, path, flags, wanted) {
        Ok(found) => {
            let nanoseconds = |t: rustix::fs::StatxTimestamp| {
                t.tv_sec.saturating_mul(1_000_000_000).saturating_add(i64::from(t.tv_nsec))
            };
            Ok(Some(Status {
                stamp: Stamp {
                    dev: u64::from(found.stx_dev_major) << 32 | u64::from(found.stx_dev_minor),
                    ino: found.stx_ino,
                    size: found.stx_size,
                    mtime: nanoseconds(found.stx_mtime),
                    ctime: nanoseconds(found.stx_ctime),
                },
                kind: match rustix::fs::FileType::from_raw_mode(u32::from(found.stx_mode)) {
                    rustix::fs::FileType::RegularFile => Kind::File,
                    rustix::fs::FileType::Directory => Kind::Folder,
                    rustix::fs::FileType::Symlink => Kind::Link,
                    _ => Kind::Other,
                },
                mode: u32::from(found.stx_mode) & 0o7777,
            }))
        }
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// The status of an open file.
pub fn status_of(file: &File) -> io::Result<Status> {
    let found = file.metadata()?;
    let nanoseconds = |s: i64, ns: i64| s.saturating_mul(1_000_000_000).saturating_add(ns);
    let kind = found.file_type();
    Ok(Status {
        stamp: Stamp {
            dev: u64::from(rustix::fs::major(found.dev())) << 32
                | u64::from(rustix::fs::minor(found.dev())),
            ino: found.ino(),
            size: found.size(),
            mtime: nanoseconds(found.mtime(), found.mtime_nsec()),
            ctime: nanoseconds(found.ctime(), found.ctime_nsec()),
        },
        kind: match () {
            () if kind.is_file() => Kind::File,
            () if kind.is_dir() => Kind::Folder,
            () if kind.is_symlink() => Kind::Link,
            () => Kind::Other,
        },
        mode: found.mode() & 0o7777,
    })
}
