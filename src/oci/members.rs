//! The members of a tar that can be sought in: where each one's bytes are. Only headers are read, and
//! memory is bounded whatever comes. Knows no image.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::os::unix::fs::FileExt;

use tar::{Archive, EntryType};

use crate::error::{Error, Result, io_words};
use crate::oci::quoted;

/// Members of an archive, at most: an image has a few for each layer.
const MOST: usize = 100_000;
/// Records about a member, at most, in bytes.
const LONGEST_RECORDS: u64 = 1 << 20;
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
pub struct Members(BTreeMap<String, Member>);

fn damaged(why: impl std::fmt::Display) -> Error {
    Error::failed(format!("the archive is damaged: {why}"))
}

fn unread(error: &std::io::Error) -> Error {
    let words = io_words(error);
    damaged(quoted(words).trim_matches('`'))
}

impl Members {
    /// Lists an archive. A name that is there twice means the last.
    pub fn list(file: &File) -> Result<Self> {
        let mut archive = Archive::new(BufReader::new(file));
        let (mut all, mut next, mut count) = (BTreeMap::new(), Records::default(), 0);
        // As they are written: what the records say is read here, with a bound.
        let entries = archive.entries_with_seek().map_err(|error| unread(&error))?.raw(true);
        let length = file.metadata().map_err(|error| unread(&error))?.len();
        for entry in entries {
            let mut entry = entry.map_err(|error| unread(&error))?;
            count += 1;
            if count > MOST {
                return Err(Error::failed(format!("the archive has more than {MOST} members")));
            }
            let (kind, size) = (entry.header().entry_type(), entry.header().entry_size());
            let size = size.map_err(|error| unread(&error))?;
            let at = entry.raw_file_position();
            if at.checked_add(size).is_none_or(|end| end > length) {
                return Err(damaged("it ends too early"));
            }
            if kind.is_gnu_longname() || kind.is_gnu_longlink() || kind.is_pax_local_extensions() {
                if size > LONGEST_RECORDS {
                    return Err(damaged("a name is too long"));
                }
                let mut text = Vec::new();
                entry.read_to_end(&mut text).map_err(|error| unread(&error))?;
                next.take(kind, &text)?;
                continue;
            }
            let records = std::mem::take(&mut next);
            if records.size.is_some_and(|said| said != size) || kind.is_gnu_sparse() {
                return Err(Error::failed(
                    "the archive has a member that is sparse or has a size only in its records",
                ));
            }
            let path = records.path.unwrap_or_else(|| entry.path_bytes().into_owned());
            let Ok(path) = String::from_utf8(path) else { continue };
            let member = match kind {
                EntryType::Regular | EntryType::Continuous => Member::File(at, size),
                EntryType::Link | EntryType::Symlink => {
                    let own =
                        || entry.link_name_bytes().map(std::borrow::Cow::into_owned).unwrap_or_default();
                    let target = String::from_utf8_lossy(&records.target.unwrap_or_else(own)).into_owned();
                    match kind {
                        EntryType::Link => Member::Link(plain(&target)),
                        _ => Member::Link(beside(&plain(&path), &target)),
                    }
                }
                _ => continue,
            };
            all.insert(plain(&path), member);
        }
        Ok(Self(all))
    }

    /// Whether there is such a member.
    pub fn has(&self, path: &str) -> bool {
        self.find(path).is_some()
    }

    /// Where a member's bytes are: the first, and how many. Links are followed.
    pub fn find(&self, path: &str) -> Option<(u64, u64)> {
        let mut path = plain(path);
        for _ in 0..MOST_LINKS {
            match self.0.get(&path)? {
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
        file.read_exact_at(&mut bytes, at).map_err(|error| unread(&error))?;
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
                Ok(0) => return Err(damaged("it became shorter")),
                Ok(read) => {
                    visit(&buffer[..read])?;
                    done += read as u64;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(unread(&error)),
            }
        }
        Ok(())
    }
}

/// What is said of the next member before its own header.
#[derive(Default)]
struct Records {
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    size: Option<u64>,
}

impl Records {
    fn take(&mut self, kind: EntryType, text: &[u8]) -> Result<()> {
        if !kind.is_pax_local_extensions() {
            let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
            let slot = if kind.is_gnu_longname() { &mut self.path } else { &mut self.target };
            *slot = Some(text[..end].to_vec());
            return Ok(());
        }
        for record in tar::PaxExtensions::new(text) {
            let record = record.map_err(|error| unread(&error))?;
            let value = record.value_bytes().to_vec();
            match record.key_bytes() {
                b"path" => self.path = Some(value),
                b"linkpath" => self.target = Some(value),
                b"size" => {
                    let number = std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok());
                    self.size = Some(number.ok_or_else(|| damaged("a size is no number"))?);
                }
                _ => {}
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
        assert_eq!(error, "the archive is damaged: a name is too long");
        let mut huge = header(EntryType::Regular, 1 << 60);
        huge.set_path("x").unwrap();
        huge.set_cksum();
        let error = read(&[huge.as_bytes(), &[0; 2048][..]].concat(), "x").unwrap_err().to_string();
        assert_eq!(error, "the archive is damaged: it ends too early");
        assert!(read(&[7; 4096], "x").is_err());
        let mut tar = tar::Builder::new(Vec::new());
        tar.append(&header(EntryType::XHeader, 10), &b"10 size=9\n"[..]).unwrap();
        tar.append_data(&mut header(EntryType::Regular, 3), "x", &b"abc"[..]).unwrap();
        assert!(read(&tar.into_inner().unwrap(), "x").unwrap_err().to_string().contains("sparse"));
    }
}
