//! What a layer holds, read from its tar: names and attributes, and the content of a few files. Reads
//! what other people wrote, with bounded memory; knows no order of layers.

use std::io::Read;

use crate::error::{Error, Result, io_words};
use crate::oci::layer::WHITEOUT;
use crate::oci::quoted;
use crate::oci::tar::{Attributes, Writer, XATTR, Xattrs};
use crate::recipe::{Part, Recipe};

/// Entries of one layer, at most.
pub const MOST_ENTRIES: usize = 2_000_000;
/// The longest PAX or GNU header in bytes.
const LONGEST_HEADER: u64 = 1 << 20;
/// The longest file whose content is kept, in bytes.
const LONGEST_KEPT: u64 = 8 << 20;
/// Says below a folder that nothing of lower layers is seen in it.
pub(super) const OPAQUE: &[u8] = b".wh..wh..opq";

/// One entry of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The path from the root, plain; empty for the root itself.
    pub path: Vec<u8>,
    /// What is there.
    pub kind: Held,
    /// Mode, owner and time.
    pub attributes: Attributes,
    /// Extended attributes.
    pub xattrs: Xattrs,
}

/// What an entry of a layer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// A file, or anything else that is neither folder nor link; with its content if that is kept.
    File(Option<Vec<u8>>),
    /// A folder.
    Folder,
    /// A symbolic link.
    Link(Vec<u8>),
    /// What lower layers have under this path is gone.
    Gone,
    /// What lower layers have below this path is gone.
    Opaque,
}

/// Where a tar is read from, of which most is passed over.
pub trait Source: Read {
    /// Passes over bytes; fails if there are not so many.
    fn pass(&mut self, count: u64) -> std::io::Result<()> {
        let (mut left, mut buffer) = (count, [0; 16 * 1024]);
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            match self.read(&mut buffer[..most]) {
                Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => left -= read as u64,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A source that has to be read to be passed over.
pub struct Plain<R>(
    /// The bytes.
    pub R,
);

impl<R: Read> Read for Plain<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<R: Read> Source for Plain<R> {}

/// What the headers before an entry say of it.
#[derive(Default)]
struct Said {
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<u64>,
    xattrs: Xattrs,
}

impl Said {
    /// Takes the records of a PAX header.
    fn records(&mut self, mut rest: &[u8]) -> Option<()> {
        while !rest.is_empty() {
            let space = rest.iter().position(|&byte| byte == b' ')?;
            let length: usize = std::str::from_utf8(&rest[..space]).ok()?.parse().ok()?;
            let record = rest.get(space + 1..length)?.strip_suffix(b"\n")?;
            let equals = record.iter().position(|&byte| byte == b'=')?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            let number = || {
                let text = std::str::from_utf8(value).ok()?.split('.').next()?;
                // Times may be before the epoch, which nothing else here can say.
                if key == b"mtime" && text.starts_with('-') { Some(0) } else { text.parse().ok() }
            };
            match key {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.target = Some(value.to_vec()),
                b"size" => self.size = Some(number()?),
                b"uid" => self.uid = Some(number()?),
                b"gid" => self.gid = Some(number()?),
                b"mtime" => self.mtime = Some(number()?),
                _ => {
                    if let Some(name) = key.strip_prefix(XATTR) {
                        self.xattrs.insert(name.to_vec(), value.to_vec());
                    }
                }
            }
            rest = &rest[length..];
        }
        Some(())
    }
}

/// Calls `visit` with every entry of a layer's tar, in its order. The content of files whose plain path
/// `keeps` likes is kept, up to 8 MiB.
///
/// Fails on what is no tar, on paths with `..`, on headers of more than 1 MiB and on more than
/// `MOST_ENTRIES` entries.
pub fn list(
    source: &mut dyn Source,
    keeps: &dyn Fn(&[u8]) -> bool,
    visit: &mut dyn FnMut(Item) -> Result<()>,
) -> Result<()> {
    let (mut said, mut block, mut count) = (Said::default(), [0; 512], 0);
    loop {
        match fill(source, &mut block)? {
            Filled::Whole if block.iter().any(|&byte| byte != 0) => {}
            // Some tars end without the blocks that say so.
            Filled::Whole | Filled::Nothing => return Ok(()),
            Filled::Part => return Err(wrong("it ends within a header")),
        }
        let header = tar::Header::from_byte_slice(&block);
        let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum::<u64>()
            - block[148..156].iter().map(|&byte| u64::from(byte)).sum::<u64>()
            + 8 * u64::from(b' ');
        if header.cksum().ok().map(u64::from) != Some(sum) {
            return Err(wrong("a header's sum is not right"));
        }
        let own = header.entry_size().map_err(|_| wrong("a size is no number"))?;
        let special = matches!(block[156], b'x' | b'g' | b'L' | b'K');
        if special {
            if own > LONGEST_HEADER {
                return Err(wrong("a header has more than 1 MiB"));
            }
            let bytes = content(source, own)?;
            let text = || bytes.split(|&byte| byte == 0).next().unwrap_or_default().to_vec();
            match block[156] {
                b'L' => said.path = Some(text()),
                b'K' => said.target = Some(text()),
                b'x' => said.records(&bytes).ok_or_else(|| wrong("a PAX header is not as it should be"))?,
                // Global headers are comments in all that is known.
                _ => {}
            }
            continue;
        }
        count += 1;
        if count > MOST_ENTRIES {
            return Err(wrong(&format!("it has more than {MOST_ENTRIES} entries")));
        }
        let Said { path, target, size, uid, gid, mtime, xattrs } = std::mem::take(&mut said);
        let path = plain(&path.unwrap_or_else(|| header.path_bytes().into_owned()))?;
        let attributes = Attributes {
            mode: header.mode().unwrap_or(0) & 0o7777,
            uid: uid.or_else(|| header.uid().ok()).unwrap_or(0),
            gid: gid.or_else(|| header.gid().ok()).unwrap_or(0),
            mtime: mtime.or_else(|| header.mtime().ok()).unwrap_or(0),
        };
        sparse(source, &mut block)?;
        let size = if matches!(block[156], b'1'..=b'6') { 0 } else { size.unwrap_or(own) };
        let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        let above = &path[..path.len() - name.len()];
        let (path, kind, xattrs) = match block[156] {
            b'5' => (path, Held::Folder, xattrs),
            b'2' => {
                let target = target.unwrap_or_else(|| header_target(&block));
                (path, Held::Link(target), xattrs)
            }
            _ if name == OPAQUE => {
                (above.strip_suffix(b"/").unwrap_or(above).to_vec(), Held::Opaque, xattrs)
            }
            _ if name.starts_with(WHITEOUT) => {
                ([above, &name[WHITEOUT.len()..]].concat(), Held::Gone, xattrs)
            }
            b'0' | 0 if keeps(&path) && size <= LONGEST_KEPT => {
                let bytes = content(source, size)?;
                visit(Item { path, kind: Held::File(Some(bytes)), attributes, xattrs })?;
                continue;
            }
            _ => (path, Held::File(None), xattrs),
        };
        pass(source, size)?;
        visit(Item { path, kind, attributes, xattrs })?;
    }
}

fn header_target(block: &[u8; 512]) -> Vec<u8> {
    block[157..257].split(|&byte| byte == 0).next().unwrap_or_default().to_vec()
}

/// A layer of these items without the content of its files, to be listed again in no time.
pub fn skeleton(items: impl Iterator<Item = Item>) -> Recipe {
    let mut tar = Writer::default();
    for Item { path, kind, attributes, xattrs } in items {
        let (above, name) =
            path.split_at(path.iter().rposition(|&byte| byte == b'/').map_or(0, |at| at + 1));
        let nothing = Part::Inline(Vec::new());
        match kind {
            Held::File(content) => {
                tar.file_with(&path, attributes, &xattrs, &Part::Inline(content.unwrap_or_default()));
            }
            Held::Folder => tar.folder_with(&path, attributes, &xattrs),
            Held::Link(target) => tar.link(&path, attributes, &target),
            Held::Gone => tar.file(&[above, WHITEOUT, name].concat(), attributes, &nothing),
            Held::Opaque if path.is_empty() => tar.file(OPAQUE, attributes, &nothing),
            Held::Opaque => tar.file(&[&path, &b"/"[..], OPAQUE].concat(), attributes, &nothing),
        }
    }
    tar.finish()
}

/// A path without `.`, empty names and slashes at either end.
fn plain(path: &[u8]) -> Result<Vec<u8>> {
    let names: Vec<&[u8]> =
        path.split(|&byte| byte == b'/').filter(|name| !name.is_empty() && *name != b".").collect();
    if names.contains(&&b".."[..]) || path.contains(&0) {
        return Err(wrong(&format!("it has the path {}", quoted(path))));
    }
    Ok(names.join(&b'/'))
}

enum Filled {
    Whole,
    Part,
    Nothing,
}

fn fill(source: &mut dyn Source, block: &mut [u8; 512]) -> Result<Filled> {
    let mut filled = 0;
    while filled < block.len() {
        match source.read(&mut block[filled..]) {
            Ok(0) if filled == 0 => return Ok(Filled::Nothing),
            Ok(0) => return Ok(Filled::Part),
            Ok(count) => filled += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(wrong(&io_words(&error))),
        }
    }
    Ok(Filled::Whole)
}

/// Passes over the blocks that continue an old GNU header of a sparse file.
fn sparse(source: &mut dyn Source, block: &mut [u8; 512]) -> Result<()> {
    if block[156] != b'S' || block[482] == 0 {
        return Ok(());
    }
    let mut more = [0; 512];
    for _ in 0..LONGEST_HEADER / 512 {
        match fill(source, &mut more)? {
            Filled::Whole if more[504] == 0 => return Ok(()),
            Filled::Whole => {}
            _ => return Err(wrong("it ends within a header")),
        }
    }
    Err(wrong("a header has more than 1 MiB"))
}

fn content(source: &mut dyn Source, size: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = Read::take(&mut *source, size).read_to_end(&mut bytes);
    read.map_err(|error| wrong(&io_words(&error)))?;
    if bytes.len() as u64 != size {
        return Err(wrong("it ends within a file"));
    }
    source.pass((512 - size % 512) % 512).map_err(|_| wrong("it ends within a file"))?;
    Ok(bytes)
}

fn pass(source: &mut dyn Source, size: u64) -> Result<()> {
    let size = size.checked_next_multiple_of(512).ok_or_else(|| wrong("a size is too large"))?;
    source.pass(size).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => wrong("it ends within a file"),
        _ => wrong(&io_words(&error)),
    })
}

fn wrong(why: &str) -> Error {
    Error::failed(format!("the layer cannot be read: {why}"))
}
