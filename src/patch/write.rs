//! Writes whole changes of files in git's format: headers with names, modes and exact renames, hunks,
//! binary data. `index` lines only where other tools need them: binary data and links. Knows no patch
//! that was there before.

use zlib_rs::{Deflate, DeflateFlush, Status};

use super::diff::{Carried, blocks, edits};
use super::text::Text;
use super::{Entry, Options, binary};
use crate::error::{Failure, Result};

/// How names are written, so that reading them with the same options gives the paths.
pub struct Names<'a> {
    /// How they will be read.
    pub options: &'a Options,
    /// The folders below the first, if more than one is stripped.
    pub inner: Vec<u8>,
}

impl Names<'_> {
    /// A path as it stands in a header, with `a` or `b` as its first folder; unquoted.
    fn with(&self, first: &[u8], path: &[u8]) -> Result<Vec<u8>> {
        let path = self.bare(path)?;
        Ok(match self.options.strip {
            0 => path,
            _ => [first, b"/", &path].concat(),
        })
    }

    /// The same without the first folder, as in the lines of a rename.
    fn bare(&self, path: &[u8]) -> Result<Vec<u8>> {
        let inside = match &self.options.basedir {
            Some(base) if !base.is_empty() => {
                let inside = path.strip_prefix(&base[..]).and_then(|path| path.strip_prefix(b"/"));
                inside.ok_or_else(|| {
                    let shown = super::show(path);
                    let base = super::show(base);
                    Failure::new(format!("`{shown}` was changed, but it lies outside of `{base}`"))
                        .hint("the task's `basedir` says where the names in its patches start")
                })?
            }
            _ => path,
        };
        Ok(if self.options.strip > 1 { [&self.inner[..], b"/", inside].concat() } else { inside.to_vec() })
    }

    /// The lines that name a file and its changed modes.
    fn header(&self, from: &[u8], to: &[u8], extra: &[String]) -> Result<Vec<u8>> {
        let (old, new) = (quoted(&self.with(b"a", from)?), quoted(&self.with(b"b", to)?));
        let mut out = [b"diff --git ", &old[..], b" ", &new, b"\n"].concat();
        for line in extra {
            out.extend_from_slice(line.as_bytes());
            out.push(b'\n');
        }
        Ok(out)
    }

    /// A `---` or `+++` line.
    fn side(&self, mark: &[u8], first: &[u8], path: Option<&[u8]>) -> Result<Vec<u8>> {
        let Some(path) = path else { return Ok([mark, b" /dev/null\n"].concat()) };
        let name = self.with(first, path)?;
        // A TAB ends a name with blanks.
        let tab: &[u8] = if name.contains(&b' ') && !is_quoted(&name) { b"\t" } else { b"" };
        Ok([mark, b" ", &quoted(&name), tab, b"\n"].concat())
    }

    /// The change of the file at `path`, header and all; at least one side is there, and they differ.
    pub fn section(&self, path: &[u8], old: Option<&Entry>, new: Option<&Entry>) -> Result<Vec<u8>> {
        let kind = |entry: Option<&Entry>| entry.map(|entry| matches!(entry, Entry::Link(_)));
        if let (Some(was), Some(is)) = (kind(old), kind(new))
            && was != is
        {
            return Ok([self.section(path, old, None)?, self.section(path, None, new)?].concat());
        }
        let mut out = self.head(path, path, old, new)?;
        let (before, after) = (content(old), content(new));
        if before == after {
            return Ok(out);
        }
        if is_binary(before) || is_binary(after) {
            out.extend_from_slice(b"GIT binary patch\n");
            binary::write(after, &deflated(after), &mut out);
            binary::write(before, &deflated(before), &mut out);
            return Ok(out);
        }
        out.extend(self.sides(old.map(|_| path), new.map(|_| path))?);
        let (before, after) = (Text::new(before), Text::new(after));
        for block in blocks(&edits(content(old), content(new)), &before, &after) {
            block.write(Carried::Plain, &mut out);
        }
        Ok(out)
    }

    /// The lines up to the `---` line: names, modes, and for binary data and links what they were made of.
    pub fn head(
        &self,
        from: &[u8],
        to: &[u8],
        old: Option<&Entry>,
        new: Option<&Entry>,
    ) -> Result<Vec<u8>> {
        let mut extra = Vec::new();
        match (old, new) {
            (None, Some(new)) => extra.push(format!("new file mode {}", mode(new))),
            (Some(old), None) => extra.push(format!("deleted file mode {}", mode(old))),
            (Some(old), Some(new)) if mode(old) != mode(new) => {
                extra.push(format!("old mode {}", mode(old)));
                extra.push(format!("new mode {}", mode(new)));
            }
            _ => {}
        }
        if from != to {
            if content(old) == content(new) {
                extra.push("similarity index 100%".into());
            }
            for (word, path) in [("from", from), ("to", to)] {
                let name = quoted(&self.bare(path)?);
                extra.push(format!("rename {word} {}", String::from_utf8_lossy(&name)));
            }
        }
        let (before, after) = (content(old), content(new));
        let is_link = matches!(old.or(new), Some(Entry::Link(_)));
        if before != after && (is_link || is_binary(before) || is_binary(after)) {
            // GNU patch learns from this line that it is a link; git applies no binary data without it.
            let mut line = format!("index {}..{}", object(old), object(new));
            if let (Some(old), Some(new)) = (old, new)
                && mode(old) == mode(new)
            {
                line.push_str(&format!(" {}", mode(new)));
            }
            extra.push(line);
        }
        self.header(from, to, &extra)
    }

    /// The `---` and `+++` lines.
    pub fn sides(&self, from: Option<&[u8]>, to: Option<&[u8]>) -> Result<Vec<u8>> {
        Ok([self.side(b"---", b"a", from)?, self.side(b"+++", b"b", to)?].concat())
    }
}

/// The bytes of a file or the text of a link; nothing if there is none.
pub fn content(entry: Option<&Entry>) -> &[u8] {
    match entry {
        Some(Entry::File { content, .. }) => content,
        Some(Entry::Link(target)) => target,
        Some(Entry::Folder) | None => b"",
    }
}

/// Whether git would show no lines of it.
pub fn is_binary(content: &[u8]) -> bool {
    content[..content.len().min(8000)].contains(&0)
}

fn mode(entry: &Entry) -> &'static str {
    match entry {
        Entry::File { executable: true, .. } => "100755",
        Entry::Link(_) => "120000",
        Entry::File { .. } | Entry::Folder => "100644",
    }
}

/// The name of a content as git has it; zeros if there is none.
fn object(entry: Option<&Entry>) -> String {
    let Some(entry) = entry else { return "0".repeat(40) };
    match git2::Oid::hash_object(git2::ObjectType::Blob, content(Some(entry))) {
        Ok(id) => id.to_string(),
        Err(error) => panic!("BUG: bytes without a hash: {error}"),
    }
}

fn deflated(bytes: &[u8]) -> Vec<u8> {
    let mut deflate = Deflate::new(9, true, 15);
    let (mut packed, mut chunk, mut read) = (Vec::new(), vec![0; 64 * 1024], 0);
    loop {
        let (before_in, before_out) = (deflate.total_in(), deflate.total_out());
        let status = match deflate.compress(&bytes[read..], &mut chunk, DeflateFlush::Finish) {
            Ok(status) => status,
            Err(error) => panic!("BUG: bytes that cannot be packed: {error:?}"),
        };
        read += (deflate.total_in() - before_in) as usize;
        packed.extend_from_slice(&chunk[..(deflate.total_out() - before_out) as usize]);
        if status == Status::StreamEnd {
            return packed;
        }
    }
}

fn is_quoted(name: &[u8]) -> bool {
    name.iter().any(|byte| *byte < b' ' || *byte >= 0x7f || matches!(byte, b'"' | b'\\'))
}

/// A name in C quotes, if it needs them.
fn quoted(name: &[u8]) -> Vec<u8> {
    if !is_quoted(name) {
        return name.to_vec();
    }
    let mut out = vec![b'"'];
    for byte in name {
        match byte {
            b'"' | b'\\' => out.extend([b'\\', *byte]),
            b'\n' => out.extend(b"\\n"),
            b'\t' => out.extend(b"\\t"),
            b'\r' => out.extend(b"\\r"),
            0..0x20 | 0x7f.. => out.extend(format!("\\{byte:03o}").bytes()),
            _ => out.push(*byte),
        }
    }
    out.push(b'"');
    out
}
