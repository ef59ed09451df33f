//! The thin archive that goes to `ctr images import`: only some blobs, and last of all the list of names, so
//! that a stream that is cut off names nothing. Knows no connection.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::digest::{Blob, Digest};
use crate::error::{Error, Result};
use crate::recipe::{AtMost, Content, Part, Recipe, Sink};
use crate::splice::{Splice, Stretch};

const BLOCK: u64 = 512;

/// An archive to be streamed.
pub struct Archive<'a> {
    blobs: &'a [(Blob, Part)],
    splices: &'a BTreeMap<Digest, Arc<Splice>>,
    index: Vec<u8>,
}

/// What the host puts one after the other.
#[derive(Debug, PartialEq, Eq)]
enum Frame {
    /// So many bytes that come.
    Bytes(u64),
    /// Bytes of a blob that it has: which, from where on, how many.
    Blob(Digest, u64, u64),
}

/// Every blob is sent whole.
static WHOLE: BTreeMap<Digest, Arc<Splice>> = BTreeMap::new();

impl<'a> Archive<'a> {
    /// As `new`, but some blobs are made of others.
    pub fn spliced(self, splices: &'a BTreeMap<Digest, Arc<Splice>>) -> Self {
        Self { splices, ..self }
    }

    /// An archive of these blobs, that gives names to descriptors.
    pub fn new(blobs: &'a [(Blob, Part)], names: &[(String, &Value)]) -> Self {
        let entry = |(name, descriptor): &(String, &Value)| {
            let mut entry = (*descriptor).clone();
            entry["annotations"]["io.containerd.image.name"] = json!(name);
            entry["annotations"]["org.opencontainers.image.ref.name"] = json!(name);
            entry
        };
        let manifests: Vec<Value> = names.iter().map(entry).collect();
        let index = json!({ "schemaVersion": 2, "manifests": manifests }).to_string().into_bytes();
        Self { blobs, splices: &WHOLE, index }
    }

    fn splice(&self, blob: &Blob) -> Option<&Splice> {
        self.splices.get(&blob.digest).map(|splice| &**splice)
    }

    /// What it is put together of.
    fn frames(&self) -> VecDeque<Frame> {
        let mut frames = VecDeque::new();
        let mut add = |frame: Frame| match (frames.back_mut(), frame) {
            (_, Frame::Bytes(0)) => {}
            (Some(Frame::Bytes(last)), Frame::Bytes(size)) => *last += size,
            (_, frame) => frames.push_back(frame),
        };
        let padding = |size: u64| size.next_multiple_of(BLOCK) - size;
        add(Frame::Bytes(BLOCK + (LAYOUT.len() as u64).next_multiple_of(BLOCK)));
        for (blob, _) in self.blobs {
            add(Frame::Bytes(BLOCK));
            match self.splice(blob) {
                None => add(Frame::Bytes(blob.size)),
                Some(splice) => splice.stretches.iter().for_each(|stretch| match *stretch {
                    Stretch::New { size } => add(Frame::Bytes(size)),
                    Stretch::Old { from, size } => add(Frame::Blob(splice.of, from, size)),
                }),
            }
            add(Frame::Bytes(padding(blob.size)));
        }
        add(Frame::Bytes(BLOCK + (self.index.len() as u64).next_multiple_of(BLOCK) + 2 * BLOCK));
        frames
    }

    /// Streams it as the script of hosts reads it.
    pub fn dictate(&self, content: &dyn Content, sink: &mut dyn Sink) -> Result<()> {
        let mut framed = Framed { sink, frames: self.frames(), left: 0 };
        self.send(content, &mut framed)?;
        sink.bytes(b".\n")
    }

    /// Its length in bytes.
    pub fn size(&self) -> u64 {
        let member = |size: u64| BLOCK + size.next_multiple_of(BLOCK);
        let blobs: u64 = self.blobs.iter().map(|(blob, _)| member(blob.size)).sum();
        member(LAYOUT.len() as u64) + blobs + member(self.index.len() as u64) + 2 * BLOCK
    }

    /// Streams it; of blobs that are made of others only what is new.
    pub fn send(&self, content: &dyn Content, sink: &mut dyn Sink) -> Result<()> {
        member(sink, "oci-layout", LAYOUT.len() as u64)?;
        sink.bytes(LAYOUT)?;
        pad(sink, LAYOUT.len() as u64)?;
        for (blob, part) in self.blobs {
            member(sink, &format!("blobs/sha256/{}", blob.digest.hex()), blob.size)?;
            let longer = || Error::failed("a blob is longer than it should be");
            let mut exact = AtMost::new(sink, self.sent(blob), &longer);
            match self.splice(blob) {
                Some(splice) => splice.send(part, content, &mut exact)?,
                None => {
                    let mut recipe = Recipe::new();
                    recipe.push(part);
                    recipe.send(content, &mut exact)?;
                }
            }
            if exact.left > 0 {
                return Err(Error::failed(format!(
                    "`{}` is shorter than {} bytes",
                    blob.digest, blob.size
                )));
            }
            pad(sink, blob.size)?;
        }
        member(sink, "index.json", self.index.len() as u64)?;
        sink.bytes(&self.index)?;
        pad(sink, self.index.len() as u64)?;
        sink.bytes(&[0; 2 * BLOCK as usize])
    }

    /// The blobs in it.
    pub fn blobs(&self) -> impl Iterator<Item = &Blob> {
        self.blobs.iter().map(|(blob, _)| blob)
    }

    fn sent(&self, blob: &Blob) -> u64 {
        self.splice(blob).map_or(blob.size, Splice::size)
    }

    /// How much of it is content of blobs that is sent.
    pub fn payload(&self) -> u64 {
        self.blobs.iter().map(|(blob, _)| self.sent(blob)).sum()
    }
}

/// Says before bytes how many come, and in between what the host has.
struct Framed<'a> {
    sink: &'a mut dyn Sink,
    frames: VecDeque<Frame>,
    left: u64,
}

impl Sink for Framed<'_> {
    fn bytes(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            if self.left == 0 {
                match self.frames.pop_front() {
                    Some(Frame::Bytes(size)) => {
                        self.left = size;
                        self.sink.bytes(format!("bytes {size}\n").as_bytes())?;
                    }
                    Some(Frame::Blob(digest, from, size)) => {
                        self.sink
                            .bytes(format!("blob {} {} {size}\n", digest.hex(), from + 1).as_bytes())?;
                    }
                    None => panic!("BUG: an archive is longer than its frames"),
                }
                continue;
            }
            let most = usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
            self.sink.bytes(&bytes[..most])?;
            self.left -= most as u64;
            bytes = &bytes[most..];
        }
        Ok(())
    }
}

const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

fn member(sink: &mut dyn Sink, path: &str, size: u64) -> Result<()> {
    let mut header = tar::Header::new_ustar();
    let failed = |error: std::io::Error| Error::failed(format!("`{path}` in an archive: {error}"));
    header.set_path(path).map_err(failed)?;
    header.set_size(size);
    header.set_mode(0o644);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    sink.bytes(header.as_bytes())
}

fn pad(sink: &mut dyn Sink, size: u64) -> Result<()> {
    let rest = usize::try_from(size.next_multiple_of(BLOCK) - size).unwrap_or(0);
    sink.bytes(&[0; BLOCK as usize][..rest])
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    struct Nothing;

    impl Content for Nothing {
        fn send(&self, blob: Blob, _: &mut dyn Sink) -> Result<()> {
            Err(Error::Lost(blob.digest))
        }
    }

    #[test]
    fn an_archive_has_the_size_that_it_says_and_its_names_last() {
        let bytes = [7; 700];
        let blob = Blob { digest: crate::digest::Digest::sha256_of(&bytes), size: 700 };
        let descriptor = json!({ "digest": blob.digest, "size": 700 });
        let blobs = [(blob, Part::Inline(bytes.to_vec()))];
        let archive = Archive::new(&blobs, &[("a.b/c:1".into(), &descriptor)]);
        let mut out = Vec::new();
        archive.send(&Nothing, &mut out).unwrap();
        assert_eq!((out.len() as u64, archive.payload()), (archive.size(), 700));
        let mut read = tar::Archive::new(&out[..]);
        let mut names = Vec::new();
        for entry in read.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut text = Vec::new();
            entry.read_to_end(&mut text).unwrap();
            names.push((entry.path().unwrap().display().to_string(), text));
        }
        assert_eq!(names[0].0, "oci-layout");
        assert_eq!(names[1], (format!("blobs/sha256/{}", blob.digest.hex()), bytes.to_vec()));
        assert_eq!(names[2].0, "index.json");
        let index: Value = serde_json::from_slice(&names[2].1).unwrap();
        assert_eq!(index["manifests"][0]["annotations"]["io.containerd.image.name"], "a.b/c:1");
        let wrong = [(Blob { size: 701, ..blob }, Part::Inline(bytes.to_vec()))];
        assert!(Archive::new(&wrong, &[]).send(&Nothing, &mut Vec::new()).is_err());
    }

    /// What the script of hosts makes of a dictation.
    fn read_out(mut text: &[u8], held: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        loop {
            let end = text.iter().position(|byte| *byte == b'\n').unwrap();
            let line = String::from_utf8(text[..end].to_vec()).unwrap();
            text = &text[end + 1..];
            let words: Vec<&str> = line.split(' ').collect();
            let number = |at: usize| words[at].parse::<usize>().unwrap();
            match words[0] {
                "bytes" => {
                    out.extend_from_slice(&text[..number(1)]);
                    text = &text[number(1)..];
                }
                "blob" => out.extend_from_slice(&held[number(2) - 1..][..number(3)]),
                _ => {
                    assert_eq!((line.as_str(), text.len()), (".", 0));
                    return out;
                }
            }
        }
    }

    #[test]
    fn what_is_dictated_is_the_archive() {
        let (old, mut new) = (vec![3; 2000], vec![3; 1700]);
        new[1000] = 4;
        let blob = Blob { digest: Digest::sha256_of(&new), size: 1700 };
        let descriptor = json!({ "digest": blob.digest, "size": 1700 });
        let blobs = [(blob, Part::Inline(new))];
        let names = [("a.b/c:1".to_string(), &descriptor)];
        let mut whole = Vec::new();
        Archive::new(&blobs, &names).send(&Nothing, &mut whole).unwrap();
        let stretches = vec![
            Stretch::Old { from: 7, size: 900 },
            Stretch::New { size: 300 },
            Stretch::Old { from: 0, size: 500 },
        ];
        let splice = Splice { of: Digest::sha256_of(&old), stretches };
        let splices = BTreeMap::from([(blob.digest, Arc::new(splice))]);
        for (spliced, payload) in [(&splices, 300), (&WHOLE, 1700)] {
            let archive = Archive::new(&blobs, &names).spliced(spliced);
            assert_eq!(archive.payload(), payload);
            let mut text = Vec::new();
            archive.dictate(&Nothing, &mut text).unwrap();
            assert_eq!(read_out(&text, &old), whole);
        }
    }
}
