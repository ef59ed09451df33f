//! Writes a tar as a recipe: ustar, with PAX records only where ustar cannot say it (POSIX.1-2017,
//! pax). Knows no rules about names or order: `layer` and `archive` decide them.

use std::collections::BTreeMap;

use tar::{EntryType, Header};

use crate::recipe::{Part, Recipe};

/// The size of a header, and what content is padded to, in bytes.
const BLOCK: u64 = 512;

/// What a tar entry says beside its name and content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits with set-user-id, set-group-id and sticky; at most 0o7777.
    pub mode: u32,
    /// The owner's number.
    pub uid: u64,
    /// The group's number.
    pub gid: u64,
    /// Seconds since the epoch.
    pub mtime: u64,
}

/// Extended attributes by name.
pub type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// What extended attributes are called in PAX records.
pub const XATTR: &[u8] = b"SCHILY.xattr.";

/// A tar that is being made.
#[derive(Default)]
pub struct Writer {
    recipe: Recipe,
}

impl Writer {
    /// Adds a file.
    pub fn file(&mut self, path: &[u8], attributes: Attributes, content: &Part) {
        self.file_with(path, attributes, &Xattrs::new(), content);
    }

    /// Adds a file with extended attributes.
    pub fn file_with(&mut self, path: &[u8], attributes: Attributes, xattrs: &Xattrs, content: &Part) {
        let named = Named { path, target: b"", xattrs };
        self.header(EntryType::Regular, named, content.size(), attributes);
        self.recipe.push(content);
        self.pad(content.size());
    }

    /// Adds a folder; `path` comes without a slash at its end.
    pub fn folder(&mut self, path: &[u8], attributes: Attributes) {
        self.folder_with(path, attributes, &Xattrs::new());
    }

    /// Adds a folder with extended attributes.
    pub fn folder_with(&mut self, path: &[u8], attributes: Attributes, xattrs: &Xattrs) {
        let mut path = path.to_vec();
        path.push(b'/');
        let named = Named { path: &path, target: b"", xattrs };
        self.header(EntryType::Directory, named, 0, attributes);
    }

    /// Adds a symbolic link; its mode is 0777 everywhere.
    pub fn link(&mut self, path: &[u8], attributes: Attributes, target: &[u8]) {
        let named = Named { path, target, xattrs: &Xattrs::new() };
        self.header(EntryType::Symlink, named, 0, Attributes { mode: 0o777, ..attributes });
    }

    /// Ends the tar with two zero blocks.
    pub fn finish(mut self) -> Recipe {
        self.recipe.inline(&[0; 2 * BLOCK as usize]);
        self.recipe
    }

    fn pad(&mut self, size: u64) {
        let zeros = [0; BLOCK as usize];
        self.recipe.inline(&zeros[..(BLOCK - 1 - (size + BLOCK - 1) % BLOCK) as usize]);
    }

    fn header(&mut self, kind: EntryType, named: Named<'_>, size: u64, attributes: Attributes) {
        let Named { path, target, xattrs } = named;
        let mut records = Records::default();
        let (prefix, name) = split(path).unwrap_or_else(|| {
            records.add("path", path);
            (b"", path)
        });
        if target.len() > 100 || !target.is_ascii() {
            records.add("linkpath", target);
        }
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(attributes.mode);
        header.set_uid(records.number("uid", attributes.uid, 7));
        header.set_gid(records.number("gid", attributes.gid, 7));
        header.set_mtime(records.number("mtime", attributes.mtime, 11));
        header.set_size(records.number("size", size, 11));
        for (name, value) in xattrs {
            records.add([XATTR, name].concat(), value);
        }
        if !records.0.is_empty() {
            let mut extra = Header::new_ustar();
            extra.set_entry_type(EntryType::XHeader);
            extra.set_mode(0o644);
            extra.set_size(records.0.len() as u64);
            self.put(extra, b"", b"PaxHeaders.0/entry", b"");
            self.recipe.inline(&records.0);
            self.pad(records.0.len() as u64);
        }
        self.put(header, prefix, name, target);
    }

    /// Adds a header with these names; what is too long or not ASCII is in a PAX record already, and
    /// what is put here for it is for readers that know no PAX.
    fn put(&mut self, mut header: Header, prefix: &[u8], name: &[u8], target: &[u8]) {
        let bytes = header.as_mut_bytes();
        for (start, length, text) in [(0, 100, name), (157, 100, target), (345, 155, prefix)] {
            for (slot, byte) in bytes[start..start + length].iter_mut().zip(text) {
                *slot = if byte.is_ascii() { *byte } else { b'_' };
            }
        }
        bytes[329..337].copy_from_slice(b"0000000\0");
        bytes[337..345].copy_from_slice(b"0000000\0");
        header.set_cksum();
        self.recipe.inline(header.as_bytes());
    }
}

/// What of an entry may be too much for ustar.
struct Named<'a> {
    path: &'a [u8],
    target: &'a [u8],
    xattrs: &'a Xattrs,
}

/// Divides a path into ustar's prefix (155 bytes) and name (100 bytes), if that can hold it.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if !path.is_ascii() {
        return None;
    }
    if path.len() <= 100 {
        return Some((b"", path));
    }
    let last = path.len().min(156).min(path.len() - 1);
    let slash = path[..last].iter().rposition(|&byte| byte == b'/').filter(|&at| at > 0)?;
    let name = &path[slash + 1..];
    (name.len() <= 100).then_some((&path[..slash], name))
}

/// The records of one PAX header, in the order in which they are added.
#[derive(Default)]
struct Records(Vec<u8>);

impl Records {
    fn add(&mut self, key: impl AsRef<[u8]>, value: &[u8]) {
        let key = key.as_ref();
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while rest + length.to_string().len() != length {
            length = rest + length.to_string().len();
        }
        self.0.extend_from_slice(format!("{length} ").as_bytes());
        for bytes in [key, b"=", value, b"\n"] {
            self.0.extend_from_slice(bytes);
        }
    }

    /// What the header's field of so many octal digits holds: the number, or 0 beside a record.
    fn number(&mut self, key: &str, number: u64, digits: u32) -> u64 {
        if number >> (3 * digits) == 0 {
            return number;
        }
        self.add(key, number.to_string().as_bytes());
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_lengths_count_themselves() {
        for length in [1, 2, 80, 86, 87, 88, 89, 90, 91, 92, 93, 980, 985, 986, 987, 988, 989, 990, 9980] {
            let mut records = Records::default();
            records.add("path", &vec![b'x'; length]);
            let text = String::from_utf8(records.0).unwrap();
            let said: usize = text.split(' ').next().unwrap().parse().unwrap();
            assert_eq!(said, text.len(), "{length}");
        }
    }

    #[test]
    fn padding_reaches_the_next_block() {
        for (size, expected) in [(0, 0), (1, 511), (511, 1), (512, 0), (513, 511)] {
            let mut writer = Writer::default();
            writer.pad(size);
            assert_eq!(writer.recipe.size(), expected, "{size}");
        }
    }

    #[test]
    fn names_split_at_the_last_slash_that_fits() {
        let long = [vec![b'a'; 90], b"/".to_vec(), vec![b'b'; 60], b"/".to_vec(), vec![b'c'; 99]].concat();
        let (prefix, name) = split(&long).unwrap();
        assert_eq!((prefix.len(), name.len()), (151, 99));
        assert_eq!(split(&[b'a'; 101]), None);
        assert_eq!(split(&[vec![b'a'; 100], b"/".to_vec()].concat()), None);
        assert_eq!(split(&[vec![b'a'; 156], b"/b".to_vec()].concat()), None);
        assert!(split(&[vec![b'a'; 155], b"/b".to_vec()].concat()).is_some());
        assert_eq!(split("ä".as_bytes()), None);
    }
}
