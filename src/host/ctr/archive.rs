//! The thin archive that goes to `ctr images import`: only some blobs, and last of all the list of names, so
//! that a stream that is cut off names nothing. Knows no connection.

use serde_json::{Value, json};

use crate::digest::Blob;
use crate::error::{Error, Result};
use crate::recipe::{AtMost, Content, Part, Recipe, Sink};

const BLOCK: u64 = 512;

/// An archive to be streamed.
pub struct Archive<'a> {
    blobs: Vec<&'a (Blob, Part)>,
    index: Vec<u8>,
}

impl<'a> Archive<'a> {
    /// An archive of these blobs, that gives names to descriptors.
    pub fn new(blobs: impl IntoIterator<Item = &'a (Blob, Part)>, names: &[(String, &Value)]) -> Self {
        let entry = |(name, descriptor): &(String, &Value)| {
            let mut entry = (*descriptor).clone();
            entry["annotations"]["io.containerd.image.name"] = json!(name);
            entry["annotations"]["org.opencontainers.image.ref.name"] = json!(name);
            entry
        };
        let manifests: Vec<Value> = names.iter().map(entry).collect();
        let index = json!({ "schemaVersion": 2, "manifests": manifests }).to_string().into_bytes();
        Self { blobs: blobs.into_iter().collect(), index }
    }

    /// An archive of names alone.
    pub fn of_names(names: &[(String, &Value)]) -> Self {
        Self::new([], names)
    }

    /// Its length in bytes.
    pub fn size(&self) -> u64 {
        let member = |size: u64| BLOCK + size.next_multiple_of(BLOCK);
        let blobs: u64 = self.blobs.iter().map(|(blob, _)| member(blob.size)).sum();
        member(LAYOUT.len() as u64) + blobs + member(self.index.len() as u64) + 2 * BLOCK
    }

    /// Streams it.
    pub fn send(&self, content: &dyn Content, sink: &mut dyn Sink) -> Result<()> {
        member(sink, "oci-layout", LAYOUT.len() as u64)?;
        sink.bytes(LAYOUT)?;
        pad(sink, LAYOUT.len() as u64)?;
        for (blob, part) in &self.blobs {
            member(sink, &format!("blobs/sha256/{}", blob.digest.hex()), blob.size)?;
            exactly(blob, blob.size, sink, |sink| {
                let mut recipe = Recipe::new();
                recipe.push(part);
                recipe.send(content, sink)
            })?;
            pad(sink, blob.size)?;
        }
        member(sink, "index.json", self.index.len() as u64)?;
        sink.bytes(&self.index)?;
        pad(sink, self.index.len() as u64)?;
        sink.bytes(&[0; 2 * BLOCK as usize])
    }

    /// How much of it is content of blobs.
    pub fn payload(&self) -> u64 {
        self.blobs.iter().map(|(blob, _)| blob.size).sum()
    }
}

/// Sends so many bytes of a blob, and sees that they are no more and no less.
pub fn exactly(
    blob: &Blob,
    size: u64,
    sink: &mut dyn Sink,
    send: impl FnOnce(&mut dyn Sink) -> Result<()>,
) -> Result<()> {
    let longer = || Error::failed(format!("`{}` is longer than {} bytes", blob.digest, blob.size));
    let mut most = AtMost::new(sink, size, &longer);
    send(&mut most)?;
    match most.left {
        0 => Ok(()),
        _ => Err(Error::failed(format!("`{}` is shorter than {} bytes", blob.digest, blob.size))),
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
    use crate::recipe::Nothing;

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
}
