//! What goes to and comes from a folder on a host in which commands run, as plain data: pieces to bring, what is
//! found, what was made, and what went wrong, in words. Knows no session.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::talk::said;
use super::wrapper::quote;
use crate::error::{Error, Failure, Result, io_words};
use crate::recipe::Part;

/// Which files are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Those that are not what was brought last.
    Changed,
    /// All.
    All,
}

/// What is known of a path there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The path, from the folder.
    pub path: Vec<u8>,
    /// What it is; nothing is gone.
    pub kind: Option<u8>,
    /// Permission bits.
    pub mode: u32,
    /// What its content was called when it was brought, if it is still that.
    pub called: Option<String>,
}

/// Something to be brought; folders come before what is in them.
pub struct Piece {
    /// The path, from the folder.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// What its content is called: one word.
    pub called: String,
}

/// What something to be brought is.
pub enum Kind {
    /// A folder, with its permission bits.
    Folder(u32),
    /// A file, with its permission bits.
    File(u32, Part),
    /// A link and its target.
    Link(Vec<u8>),
}

/// What commands have made.
pub enum Made {
    /// A folder, with its permission bits.
    Folder(u32),
    /// A file: permission bits and size.
    File(u32, u64),
    /// A link and its target.
    Link(Vec<u8>),
}

/// What commands have made, by path: a folder before what is in it.
pub type AllMade = Vec<(Vec<u8>, Made)>;

/// What came of asking for what commands have made.
pub enum Given {
    /// All of it.
    All(AllMade),
    /// One thing is not there; these are beside where it should be.
    Missing(String, Vec<String>),
}

impl Piece {
    /// The size of its content.
    pub fn size(&self) -> u64 {
        if let Kind::File(_, part) = &self.kind { part.size() } else { 0 }
    }

    /// What stands before its content in an archive.
    pub fn head(&self) -> Result<Vec<u8>> {
        let path = Path::new(std::ffi::OsStr::from_bytes(&self.path));
        let mut header = tar::Header::new_gnu();
        header.set_size(self.size());
        let mut archive = tar::Builder::new(Vec::new());
        let done = match &self.kind {
            Kind::Folder(mode) => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_mode(*mode);
                archive.append_data(&mut header, path, io::empty())
            }
            Kind::File(mode, _) => {
                header.set_mode(*mode);
                archive.append_data(&mut header, path, io::empty())
            }
            Kind::Link(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_mode(0o777);
                archive.append_link(&mut header, path, Path::new(std::ffi::OsStr::from_bytes(target)))
            }
        };
        let failed = |error| Error::failed(format!("pack `{}`: {}", path.display(), io_words(&error)));
        done.map_err(failed)?;
        // Its end is written only when it is finished.
        Ok(std::mem::take(archive.get_mut()))
    }
}

/// The size of a file in an archive.
pub fn padded(size: u64) -> u64 {
    size.div_ceil(512) * 512
}

/// Calls of functions there.
pub fn orders(calls: &[Vec<&str>]) -> String {
    let line = |call: &Vec<&str>| call.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ") + "\n";
    calls.iter().map(line).collect()
}

/// What a host says is nothing that the script there says.
pub fn unclear(host: &str) -> Failure {
    Failure::new(format!("`{host}` says what is not understood"))
}

/// Reads a line of a listing.
pub fn read_found(line: &[u8]) -> Option<Found> {
    let mut words = line.splitn(4, |byte| *byte == b' ');
    let mut next = || words.next();
    let (called, kind, mode, path) = (next()?, next()?, next()?, next()?);
    let called = std::str::from_utf8(called).ok()?;
    let mode = std::str::from_utf8(mode).ok()?;
    Some(Found {
        path: path.to_vec(),
        kind: (called != "!").then_some(*kind.first()?),
        mode: u32::from_str_radix(mode, 8).unwrap_or(0),
        called: (called != "?" && called != "!").then(|| called.to_string()),
    })
}

/// Reads what `find` says of files, with the targets of the links among them.
pub fn read_made(listing: &[u8], links: &[u8]) -> Option<AllMade> {
    let mut targets = links.split(|byte| *byte == b'\n');
    let lines = listing.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let one = |line: &[u8]| {
        let mut words = line.splitn(4, |byte| *byte == b' ');
        let mut next = || words.next();
        let (kind, mode, size, path) = (next()?, next()?, next()?, next()?);
        let mode = u32::from_str_radix(std::str::from_utf8(mode).ok()?, 8).ok()? & 0o777;
        let made = match kind {
            b"d" => Made::Folder(mode),
            b"f" => Made::File(mode, std::str::from_utf8(size).ok()?.parse().ok()?),
            b"l" => Made::Link(targets.next()?.to_vec()),
            _ => return None,
        };
        Some((path.strip_prefix(b"./")?.to_vec(), made))
    };
    lines.map(one).collect()
}

/// What could not be done there, in words.
pub fn failed(host: &str, step: &str, errors: &str) -> Failure {
    let (step, what) = step.split_once(' ').unwrap_or((step, ""));
    let lines = || errors.lines().filter(|line| !line.trim().is_empty()).map(str::to_string);
    let full = ["No space left on device", "Disk quota exceeded", ": Wrote only "];
    if full.iter().any(|words| errors.contains(words)) {
        let message = format!("the disk of `{host}` is full: the work folder cannot be written there");
        return Failure::new(message).hint("make room there; `~/.cache/vcbuild` may be removed");
    }
    match step {
        "need" => Failure::new(format!("`{host}` has no `{what}`, and nothing is compiled there without"))
            .hint(if what == "flock" {
                "install util-linux there".into()
            } else {
                format!("install `{what}` there")
            }),
        "home" => Failure::new(format!("`HOME` is not set on `{host}`: there is no place to compile in")),
        "busy" => Failure::new(format!("too many compile this task on `{host}` at once")),
        "digest" => Failure::new(format!("other bytes came to `{host}` than were sent"))
            .detail(lines())
            .hint("run again"),
        "dir" => Failure::new(format!("the input tree has no folder `{what}`")),
        "special" => Failure::new(format!(
            "`{what}` is a socket, pipe or device: only files, folders and links can be kept"
        )),
        "newline" => {
            Failure::new(format!("`{what}` has a line feed in its name or target: it cannot be kept"))
        }
        "unreadable" => Failure::new(format!("read `{what}` on `{host}`: permission denied")),
        "running" => Failure::new(format!("what was started on `{host}` cannot be ended: process {what}")),
        _ => {
            let errors = errors.replace("tar: Exiting with failure status due to previous errors", "");
            let why = said(&errors).unwrap_or_else(|| "it ended without a word".into());
            Failure::new(format!("the work folder on `{host}` cannot be used: {why}")).detail(lines())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let found = read_found(b"? f 644 a b").unwrap();
        assert_eq!((found.path.as_slice(), found.kind, found.mode), (&b"a b"[..], Some(b'f'), 0o644));
        assert_eq!(found.called, None);
        assert_eq!(read_found(b"! - - x").unwrap().kind, None);
        assert_eq!(read_found(b"abc l 777 x").unwrap().called.as_deref(), Some("abc"));
        assert_eq!(read_found(b"? f"), None);
        let made = read_made(b"d 755 0 ./o\nl 777 3 ./o/l m\nf 4750 12 ./o/f\n", b"to where\n").unwrap();
        assert!(matches!(&made[1], (path, Made::Link(to)) if path == b"o/l m" && to == b"to where"));
        assert!(matches!(made[2].1, Made::File(0o750, 12)));
        assert!(read_made(b"s 755 0 ./o\n", b"").is_none());
    }

    #[test]
    fn heads_of_archives_have_the_size_that_is_said() {
        let long = "d/".repeat(120);
        for path in ["a", long.trim_end_matches('/')] {
            for kind in [
                Kind::Folder(0o755),
                Kind::Link(long.clone().into_bytes()),
                Kind::File(0o600, Part::Inline(vec![1; 7])),
            ] {
                let piece = Piece { path: path.into(), kind, called: "x".into() };
                let head = piece.head().unwrap();
                assert_eq!(head.len() % 512, 0);
                let mut archive = head;
                if piece.size() > 0 {
                    archive.extend([1; 7]);
                    archive.extend([0; 505]);
                }
                archive.extend([0; 1024]);
                let mut archive = tar::Archive::new(archive.as_slice());
                let entry = archive.entries().unwrap().next().unwrap().unwrap();
                assert_eq!(entry.path_bytes().as_ref(), path.as_bytes());
                assert_eq!(entry.size(), piece.size());
            }
        }
    }
}
