//! Reads a tar that comes in pieces: headers, PAX records, long names, sparse files (POSIX.1-2017, pax;
//! GNU tar's extensions). Memory is bounded whatever comes. Knows no layer and no rule about names.

use std::fs::File;
use std::os::unix::fs::FileExt;

use tar::{EntryType, Header};

use crate::error::{Error, Result, io_words};
use crate::oci::tar::{Attributes, XATTR, Xattrs};
use crate::recipe::{Part, Sink};

/// The size of a header, and what content is padded to, in bytes.
const BLOCK: usize = 512;
/// The PAX records and long names of one member are together at most this long, as in Go.
const LONGEST_EXTRA: u64 = 1 << 20;
/// A tar with more members than this is refused.
pub const MOST_MEMBERS: u64 = 2_000_000;

/// One member of a tar, as it is written there.
#[derive(Clone, Debug)]
pub struct Member {
    /// The path.
    pub path: Vec<u8>,
    /// The target of a link.
    pub target: Vec<u8>,
    /// What it is.
    pub kind: EntryType,
    /// Mode, owner and time; a time before the epoch is the epoch.
    pub attributes: Attributes,
    /// Extended attributes.
    pub xattrs: Xattrs,
    /// The length of its content in bytes, holes counted.
    pub size: u64,
    /// Where in the tar its content begins.
    pub at: u64,
    /// Whether its bytes in the tar are its content; those of a sparse file are not.
    pub whole: bool,
}

/// Who is told what a tar holds.
pub trait Visitor {
    /// A member; says how many bytes from the start of its content it wants.
    fn member(&mut self, member: Member) -> Result<usize>;

    /// The wanted bytes of the last member, all that it has of them.
    fn content(&mut self, _bytes: &[u8]) -> Result<()> {
        Ok(())
    }

    /// The whole content of the last member, where it is at hand as a part and nothing of it was wanted.
    fn part(&mut self, _part: &Part) -> Result<()> {
        Ok(())
    }
}

/// A tar that is being read.
pub struct Untar<'a> {
    visitor: &'a mut dyn Visitor,
    state: State,
    /// A header, or something longer, that is not there as a whole yet.
    held: Vec<u8>,
    next: Extra,
    members: u64,
    /// How many bytes of the tar are done.
    at: u64,
    /// The size of the last member's content, while nothing has come of it.
    begins: Option<u64>,
}

enum State {
    /// A header comes.
    Header,
    /// So many bytes are collected for something, and then so many do not matter.
    Collect { what: Collect, size: usize, rest: u64 },
    /// So many bytes do not matter.
    Skip(u64),
    /// Nothing matters any more.
    End,
}

#[derive(Clone, Copy)]
enum Collect {
    Pax,
    LongName,
    LongTarget,
    Content,
    /// More of a sparse file's map, before so many bytes of content.
    Sparse {
        skip: u64,
    },
}

/// What is said of the next member before its own header.
#[derive(Default)]
struct Extra {
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    size: Option<u64>,
    real_size: Option<u64>,
    sparse: bool,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<u64>,
    xattrs: Xattrs,
    /// How many bytes it took to say it.
    bytes: u64,
}

fn wrong(why: &str) -> Error {
    Error::failed(format!("the tar is damaged: {why}"))
}

/// Content with its padding.
fn padded(size: u64) -> Result<u64> {
    size.checked_next_multiple_of(BLOCK as u64).ok_or_else(|| wrong("a member has no possible size"))
}

impl<'a> Untar<'a> {
    /// Reads for somebody.
    pub fn new(visitor: &'a mut dyn Visitor) -> Self {
        let (state, held, next) = (State::Header, Vec::new(), Extra::default());
        Self { visitor, state, held, next, members: 0, at: 0, begins: None }
    }

    /// How many of the next bytes need not be shown.
    pub fn skippable(&self) -> u64 {
        match self.state {
            State::Skip(left) => left,
            State::End => u64::MAX,
            State::Header | State::Collect { .. } => 0,
        }
    }

    /// Goes on after so many bytes, at most as many as can be skipped.
    pub fn skip(&mut self, size: u64) {
        self.begins = None;
        self.at += size;
        if let State::Skip(left) = &mut self.state {
            *left -= size;
            if *left == 0 {
                self.state = State::Header;
            }
        }
    }

    /// Goes on after a part, at most as long as what can be skipped.
    pub fn skip_part(&mut self, part: &Part) -> Result<()> {
        if self.begins == Some(part.size()) {
            self.visitor.part(part)?;
        }
        self.skip(part.size());
        Ok(())
    }

    /// Ends the tar; fails if it stops inside a member.
    pub fn finish(self) -> Result<()> {
        match self.state {
            State::End => Ok(()),
            // Two zero blocks are wanted at the end, but nobody insists on them.
            State::Header if self.held.is_empty() => Ok(()),
            _ => Err(wrong("it ends too early")),
        }
    }

    fn feed(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let wanted = match &self.state {
                State::End => return Ok(()),
                State::Skip(left) => {
                    let size = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    self.skip(size as u64);
                    bytes = &bytes[size..];
                    continue;
                }
                State::Header => BLOCK,
                State::Collect { size, .. } => *size,
            };
            let (now, after) = bytes.split_at(bytes.len().min(wanted - self.held.len()));
            self.held.extend_from_slice(now);
            self.at += now.len() as u64;
            bytes = after;
            if self.held.len() == wanted {
                let held = std::mem::take(&mut self.held);
                self.whole(&held)?;
                self.held = held;
                self.held.clear();
                self.held.shrink_to(BLOCK);
            }
        }
        Ok(())
    }

    /// Takes a header, or what was collected.
    fn whole(&mut self, held: &[u8]) -> Result<()> {
        let State::Collect { what, rest, .. } = self.state else { return self.header(held) };
        self.state = if rest == 0 { State::Header } else { State::Skip(rest) };
        match what {
            Collect::Pax => return self.pax(held),
            Collect::Content => return self.visitor.content(held),
            Collect::LongName => self.next.path = Some(until_zero(held).to_vec()),
            Collect::LongTarget => self.next.target = Some(until_zero(held).to_vec()),
            Collect::Sparse { skip } => self.sparse_map(skip, held[504] != 0),
        }
        Ok(())
    }

    /// What comes after a part of a sparse file's map.
    fn sparse_map(&mut self, skip: u64, more: bool) {
        self.state = match (more, skip) {
            (true, _) => State::Collect { what: Collect::Sparse { skip }, size: BLOCK, rest: 0 },
            (false, 0) => State::Header,
            (false, _) => State::Skip(skip),
        };
    }

    fn header(&mut self, block: &[u8]) -> Result<()> {
        if block == [0; BLOCK] {
            self.state = State::End;
            return Ok(());
        }
        let header = Header::from_byte_slice(block);
        let mut right = header.clone();
        right.set_cksum();
        if header.cksum().ok() != right.cksum().ok() {
            return Err(wrong("a header has another check sum"));
        }
        let number = |number: std::io::Result<u64>| number.map_err(|error| wrong(&io_words(&error)));
        let said = number(header.entry_size())?;
        let kind = header.entry_type();
        let extra = match kind {
            EntryType::XHeader => Some(Collect::Pax),
            EntryType::GNULongName => Some(Collect::LongName),
            EntryType::GNULongLink => Some(Collect::LongTarget),
            EntryType::XGlobalHeader => {
                let size = padded(said)?;
                self.state = if size == 0 { State::Header } else { State::Skip(size) };
                return Ok(());
            }
            _ => None,
        };
        self.members += 1;
        if self.members > MOST_MEMBERS {
            return Err(Error::failed(format!("the tar has more than {MOST_MEMBERS} members")));
        }
        if let Some(what) = extra {
            self.next.bytes = self.next.bytes.saturating_add(said);
            if self.next.bytes > LONGEST_EXTRA {
                let words = format!("a member's names and attributes have {} bytes", self.next.bytes);
                return Err(Error::failed(format!("{words}; at most {LONGEST_EXTRA} are read")));
            }
            self.collect(what, said as usize, padded(said)?);
            return Ok(());
        }
        let next = std::mem::take(&mut self.next);
        let path = next.path.unwrap_or_else(|| header.path_bytes().into_owned());
        // A name that ends in a slash was a folder before there was a type for it.
        let kind = match kind {
            EntryType::Regular if path.ends_with(b"/") => EntryType::Directory,
            kind => kind,
        };
        let in_tar = match kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => next.size.unwrap_or(said),
            _ => 0,
        };
        let mut size = next.real_size.unwrap_or(in_tar);
        let mut map_goes_on = false;
        if kind == EntryType::GNUSparse {
            let gnu = header.as_gnu().ok_or_else(|| wrong("a sparse file has no map"))?;
            size = number(gnu.real_size())?;
            map_goes_on = gnu.is_extended();
        }
        let target = match kind {
            EntryType::Link | EntryType::Symlink => {
                next.target.or_else(|| header.link_name_bytes().map(|name| name.into_owned()))
            }
            _ => None,
        };
        // What is not said is nought, as in Go.
        let own = |field: &[u8], number| if field.iter().all(|&byte| byte == 0) { Ok(0) } else { number };
        let old = header.as_old();
        let attributes = Attributes {
            mode: own(&old.mode, number(header.mode().map(u64::from)))? as u32 & 0o7777,
            uid: next.uid.map_or_else(|| own(&old.uid, number(header.uid())), Ok)?,
            gid: next.gid.map_or_else(|| own(&old.gid, number(header.gid())), Ok)?,
            mtime: next.mtime.or_else(|| header.mtime().ok()).unwrap_or(0),
        };
        let whole = kind != EntryType::GNUSparse && !next.sparse;
        let (target, xattrs, at) = (target.unwrap_or_default(), next.xattrs, self.at);
        let member = Member { path, target, kind, attributes, xattrs, size, at, whole };
        let wanted = self.visitor.member(member)?;
        if whole && wanted > 0 && in_tar > 0 {
            let wanted = wanted.min(usize::try_from(in_tar).unwrap_or(usize::MAX));
            self.collect(Collect::Content, wanted, padded(in_tar)?);
        } else {
            self.sparse_map(padded(in_tar)?, map_goes_on);
            self.begins = Some(in_tar).filter(|_| whole);
        }
        Ok(())
    }

    /// Collects `size` bytes of `padded` ones.
    fn collect(&mut self, what: Collect, size: usize, padded: u64) {
        self.state = match size {
            0 => State::Header,
            _ => State::Collect { what, size, rest: padded - size as u64 },
        };
    }

    /// Reads `length key=value` lines.
    fn pax(&mut self, mut bytes: &[u8]) -> Result<()> {
        let odd = || wrong("a PAX record is none");
        while !bytes.is_empty() {
            let space = bytes.iter().take(20).position(|&byte| byte == b' ').ok_or_else(odd)?;
            let length =
                std::str::from_utf8(&bytes[..space]).ok().and_then(|text| text.parse::<usize>().ok());
            let length =
                length.filter(|&length| length > space + 1 && length <= bytes.len()).ok_or_else(odd)?;
            let record = bytes[space + 1..length].strip_suffix(b"\n").ok_or_else(odd)?;
            let equals = record.iter().position(|&byte| byte == b'=').ok_or_else(odd)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            let text = || std::str::from_utf8(value).map_err(|_| odd());
            let number = || text()?.parse().map_err(|_| odd());
            match key {
                b"path" => self.next.path = Some(value.to_vec()),
                b"linkpath" => self.next.target = Some(value.to_vec()),
                b"size" => self.next.size = Some(number()?),
                b"uid" => self.next.uid = Some(number()?),
                b"gid" => self.next.gid = Some(number()?),
                // `-1.5`: nothing else here can say what was before the epoch, or parts of a second.
                b"mtime" => {
                    let seconds = text()?.split('.').next().unwrap_or_default();
                    let seconds = seconds.parse::<i64>().map_err(|_| odd())?;
                    self.next.mtime = Some(seconds.max(0).cast_unsigned());
                }
                b"GNU.sparse.realsize" | b"GNU.sparse.size" => self.next.real_size = Some(number()?),
                _ => {
                    if let Some(name) = key.strip_prefix(XATTR) {
                        self.next.xattrs.insert(name.to_vec(), value.to_vec());
                    }
                }
            }
            if key.starts_with(b"GNU.sparse.") {
                self.next.sparse = true;
                if key == b"GNU.sparse.name" {
                    self.next.path = Some(value.to_vec());
                }
            }
            bytes = &bytes[length..];
        }
        Ok(())
    }
}

fn until_zero(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == 0).next().unwrap_or_default()
}

impl Sink for Untar<'_> {
    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.feed(bytes)
    }

    /// Reads headers and what is wanted, and nothing in between.
    fn file(&mut self, file: &File, size: u64) -> Result<()> {
        let (mut buffer, mut at) = (vec![0; 64 * BLOCK], 0);
        while at < size {
            let skip = self.skippable().min(size - at);
            if skip > 0 {
                self.skip(skip);
                at += skip;
                continue;
            }
            let length = buffer.len().min(usize::try_from(size - at).unwrap_or(usize::MAX));
            let read = file.read_at(&mut buffer[..length], at);
            match read.map_err(|error| Error::failed(io_words(&error)))? {
                0 => return Err(Error::failed("a file became shorter while it was read")),
                read => {
                    self.feed(&buffer[..read])?;
                    at += read as u64;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_an_end_of_members() {
        struct Count(u64);
        impl Visitor for Count {
            fn member(&mut self, _: Member) -> Result<usize> {
                self.0 += 1;
                Ok(0)
            }
        }
        let mut header = Header::new_gnu();
        header.set_mode(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        header.set_cksum();
        let mut count = Count(0);
        let mut tar = Untar::new(&mut count);
        tar.members = MOST_MEMBERS - 2;
        tar.bytes(header.as_bytes()).unwrap();
        tar.bytes(header.as_bytes()).unwrap();
        let error = tar.bytes(header.as_bytes()).unwrap_err().to_string();
        assert_eq!(error, "the tar has more than 2000000 members");
        assert_eq!(count.0, 2);
    }
}
