//! The members of a tar that can be sought in: where each one's bytes are. Only headers are read, and
//! memory is bounded whatever comes. Knows no image.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use tar::EntryType;

use crate::error::{Error, Result, io_words};
use crate::oci::quoted;
use crate::oci::untar::{Member as Header, Untar, Visitor};
use crate::recipe::Sink;

/// Members of an archive, at most: an image has a few for each layer.
const MOST: usize = 100_000;
/// Links from one name to the next, at most.
const MOST_LINKS: usize = 8;

/// A member.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Member {
    /// Its bytes: where they begin, and how many there are.
    File(u64, u64),
    /// Another name.
    Link(String),
}

/// The members of an archive, by their paths.
#[derive(Debug, Default)]
pub struct Members {
    all: BTreeMap<String, Member>,
    count: usize,
}

fn unread(why: &str) -> Error {
    Error::failed(format!("the archive cannot be read: {why}"))
}

impl Visitor for Members {
    /// A name that is there twice means the last.
    fn member(&mut self, header: Header) -> Result<usize> {
        self.count += 1;
        if self.count > MOST {
            return Err(Error::failed(format!("the archive has more than {MOST} members")));
        }
        let Header { path, target, kind, size, at, whole, .. } = header;
        if !whole {
            return Err(Error::failed(format!("the archive has the sparse member {}", quoted(&path))));
        }
        let Ok(path) = String::from_utf8(path) else { return Ok(0) };
        let target = String::from_utf8_lossy(&target);
        let member = match kind {
            EntryType::Regular | EntryType::Continuous => Member::File(at, size),
            EntryType::Link => Member::Link(plain(&target)),
            EntryType::Symlink => Member::Link(beside(&plain(&path), &target)),
            _ => return Ok(0),
        };
        self.all.insert(plain(&path), member);
        Ok(0)
    }
}

impl Members {
    /// Lists an archive.
    pub fn list(file: &File) -> Result<Self> {
        let mut members = Self::default();
        let mut tar = Untar::new(&mut members);
        let length = file.metadata().map_err(|error| Error::failed(io_words(&error)))?.len();
        tar.file(file, length).and_then(|()| tar.finish()).map_err(|error| error.context("the archive"))?;
        Ok(members)
    }

    /// Whether there is such a member.
    pub fn has(&self, path: &str) -> bool {
        self.find(path).is_some()
    }

    /// Where a member's bytes are: the first, and how many. Links are followed.
    pub fn find(&self, path: &str) -> Option<(u64, u64)> {
        let mut path = plain(path);
        for _ in 0..MOST_LINKS {
            match self.all.get(&path)? {
                Member::File(at, size) => return Some((*at, *size)),
                Member::Link(target) => path = target.clone(),
            }
        }
        None
    }

    /// A small member whole. Fails, without reading it, if it has more than `most` bytes.
    pub fn read(&self, file: &File, path: &str, most: u64) -> Result<Vec<u8>> {
        let missing = || Error::failed(format!("the archive has no {}", quoted(path)));
        let (at, size) = self.find(path).ok_or_else(missing)?;
        if size > most {
            return Err(Error::failed(format!("{} has more than {most} bytes", quoted(path))));
        }
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut bytes, at).map_err(|error| unread(&io_words(&error)))?;
        Ok(bytes)
    }

    /// Shows a member's bytes piece by piece.
    pub fn stream(
        &self,
        file: &File,
        (at, size): (u64, u64),
        visit: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let (mut buffer, mut done) = (vec![0; crate::digest::PIECE], 0);
        while done < size {
            let most = buffer.len().min(usize::try_from(size - done).unwrap_or(usize::MAX));
            match file.read_at(&mut buffer[..most], at + done) {
                Ok(0) => return Err(unread("it became shorter")),
                Ok(read) => {
                    visit(&buffer[..read])?;
                    done += read as u64;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(unread(&io_words(&error))),
            }
        }
        Ok(())
    }
}

/// A path without what is only decoration; `..` goes up, and never out.
fn plain(path: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => {
                names.pop();
            }
            name => names.push(name),
        }
    }
    names.join("/")
}

/// What a link at `path` means.
fn beside(path: &str, target: &str) -> String {
    match (target.starts_with('/'), path.rsplit_once('/')) {
        (false, Some((folder, _))) => plain(&format!("{folder}/{target}")),
        _ => plain(target),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn read(bytes: &[u8], path: &str) -> Result<Vec<u8>> {
        use std::io::Seek;
        let mut file = file(bytes);
        file.rewind().unwrap();
        Members::list(&file)?.read(&file, path, 1000)
    }

    fn header(kind: EntryType, size: u64) -> tar::Header {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_cksum();
        header
    }

    #[test]
    fn members_are_found() {
        let mut tar = tar::Builder::new(Vec::new());
        let long = format!("{}/x", "a".repeat(150));
        for path in ["./a/file", "b/file", &long] {
            tar.append_data(&mut header(EntryType::Regular, 3), path, &b"abc"[..]).unwrap();
        }
        tar.append_link(&mut header(EntryType::Symlink, 0), "b/link", "../a/file").unwrap();
        tar.append_link(&mut header(EntryType::Symlink, 0), "b/again", "link").unwrap();
        tar.append_link(&mut header(EntryType::Link, 0), "hard", "b/again").unwrap();
        tar.append_link(&mut header(EntryType::Symlink, 0), "round", "round").unwrap();
        tar.append_link(&mut header(EntryType::Symlink, 0), "out", "../../../etc/passwd").unwrap();
        tar.append_data(&mut header(EntryType::Regular, 3), "b/file", &b"new"[..]).unwrap();
        let bytes = tar.into_inner().unwrap();
        for path in ["a/file", "/a/file", "b/link", "b/again", "hard", &long] {
            assert_eq!(read(&bytes, path).unwrap(), b"abc", "{path}");
        }
        assert_eq!(read(&bytes, "b/file").unwrap(), b"new");
        for path in ["round", "out", "gone", "a"] {
            read(&bytes, path).unwrap_err();
        }
        for end in [100, 513] {
            read(&bytes[..end], "a/file").unwrap_err();
        }
    }

    #[test]
    fn hostile_archives_end() {
        let mut tar = tar::Builder::new(Vec::new());
        tar.append(&header(EntryType::XHeader, 2 << 20), &vec![b'1'; 2 << 20][..]).unwrap();
        let error = read(&tar.into_inner().unwrap(), "x").unwrap_err().to_string();
        assert!(error.starts_with("the archive: a member's names and attributes have 2097152 bytes"));
        let mut huge = header(EntryType::Regular, 1 << 60);
        huge.set_path("x").unwrap();
        huge.set_cksum();
        let error = read(&[huge.as_bytes(), &[0; 2048][..]].concat(), "x").unwrap_err().to_string();
        assert_eq!(error, "the archive: the tar is damaged: it ends too early");
        assert!(read(&[7; 4096], "x").is_err());
        let (mut tar, records) = (tar::Builder::new(Vec::new()), b"21 GNU.sparse.size=9\n");
        tar.append(&header(EntryType::XHeader, 21), &records[..]).unwrap();
        tar.append_data(&mut header(EntryType::Regular, 3), "x", &b"abc"[..]).unwrap();
        assert!(read(&tar.into_inner().unwrap(), "x").unwrap_err().to_string().contains("sparse"));
        // What is said before a member counts more than what it says itself.
        let mut tar = tar::Builder::new(Vec::new());
        tar.append(&header(EntryType::XHeader, 9), &b"9 size=3\n"[..]).unwrap();
        let mut small = header(EntryType::Regular, 0);
        small.set_path("x").unwrap();
        small.set_cksum();
        let bytes = [&tar.get_ref()[..], small.as_bytes(), b"abc", &[0; 509 + 1024][..]].concat();
        assert_eq!(read(&bytes, "x").unwrap(), b"abc");
    }
}
