//! What the tests of this library share: content in memory, files on disk, other people's programs.

use std::collections::BTreeMap;
use std::path::Path;

use crate::digest::{Blob, Digest, Hasher};
use crate::error::{Error, Result};
use crate::oci::descriptor::Platform;
use crate::oci::image::{Image, NewLayer};
use crate::oci::layer::{Attributes, Entry, Kind, Xattrs, pack};
use crate::oci::settings::Settings;
use crate::recipe::{Content, Part, Recipe, Sink};

/// Content in memory.
#[derive(Default)]
pub struct Memory(pub BTreeMap<Digest, Vec<u8>>);

impl Content for Memory {
    fn send(&self, blob: Blob, sink: &mut dyn Sink) -> Result<()> {
        let bytes = self.0.get(&blob.digest).ok_or(Error::Lost(blob.digest))?;
        assert_eq!(bytes.len() as u64, blob.size);
        sink.bytes(bytes)
    }
}

impl Memory {
    /// Keeps bytes by their BLAKE3 and by their SHA-256.
    pub fn add(&mut self, bytes: &[u8]) -> Blob {
        self.0.insert(Digest::sha256_of(bytes), bytes.to_vec());
        self.0.insert(Digest::of(bytes), bytes.to_vec());
        Blob::of(bytes)
    }

    /// Keeps bytes as the content of a recipe.
    pub fn add_recipe(&mut self, bytes: &[u8]) -> Part {
        let mut recipe = Recipe::new();
        let (start, end) = bytes.split_at(bytes.len() / 2);
        recipe.inline(start);
        recipe.blob(self.add(end));
        self.keep(&recipe)
    }

    /// Keeps a recipe.
    pub fn keep(&mut self, recipe: &Recipe) -> Part {
        Part::Recipe { recipe: self.add(&recipe.encode()), size: recipe.size() }
    }

    /// All bytes of a recipe.
    pub fn bytes(&self, recipe: &Recipe) -> Vec<u8> {
        let mut bytes = Vec::new();
        recipe.send(self, &mut bytes).unwrap();
        bytes
    }

    /// All bytes of a part.
    pub fn part(&self, part: &Part) -> Vec<u8> {
        let mut recipe = Recipe::new();
        recipe.push(part);
        self.bytes(&recipe)
    }
}

/// A temporary folder with these files.
#[expect(clippy::disallowed_methods, reason = "a test's own temporary folder")]
pub fn folder_of<P: AsRef<str>>(files: &[(P, &Vec<u8>)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, bytes) in files {
        let path = folder.path().join(path.as_ref());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    folder
}

/// Runs somebody else's program in a folder; its output. Fails where it is missing or fails.
#[expect(clippy::disallowed_methods, reason = "other people's programs judge what is made here")]
pub fn tool(folder: &Path, command: &[&str]) -> String {
    let output = std::process::Command::new(command[0])
        .args(&command[1..])
        .current_dir(folder)
        .env("LC_ALL", "C.UTF-8")
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}; apt-get install tar skopeo umoci", command[0]));
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {out}{error}");
    out.into_owned()
}

/// `linux/amd64`.
pub fn amd64() -> Platform {
    Platform::linux("amd64")
}

/// A layer with files of mode 0755.
pub fn new_layer(memory: &mut Memory, files: &[(&str, &[u8])]) -> NewLayer {
    let attributes = Attributes { mode: 0o755, ..Attributes::default() };
    let entries: Vec<Entry> = files
        .iter()
        .map(|(path, bytes)| {
            let kind = Kind::File(Part::Blob(memory.add(bytes)));
            Entry { path: path.as_bytes().to_vec(), kind, attributes, xattrs: Xattrs::new() }
        })
        .collect();
    let recipe = pack(&entries, attributes).unwrap();
    let digest = recipe.digest(memory, Hasher::sha256()).unwrap();
    NewLayer { part: memory.keep(&recipe), digest, created_by: "files".to_string() }
}

/// Two layers from scratch.
pub fn plain_image(memory: &mut Memory) -> Image {
    let layers = [
        new_layer(
            memory,
            &[("usr/local/bin/manager", b"\x7fELF manager"), ("etc/manager.conf", b"a = 1\n")],
        ),
        new_layer(memory, &[("usr/local/bin/helper", b"#!/bin/sh\n")]),
    ];
    let settings = Settings {
        entrypoint: Some(vec!["/usr/local/bin/manager".to_string()]),
        cmd: Some(vec!["-v".to_string()]),
        user: Some("65532".to_string()),
        ..Settings::default()
    };
    Image::build(None, &amd64(), &layers, &settings).unwrap()
}

/// Streams every layer of an image once and fails unless each is what its descriptor names.
pub fn verify(image: &Image, content: &dyn Content) -> Result<()> {
    for layer in image.layers() {
        let mut recipe = Recipe::new();
        recipe.push(&layer.part);
        let is = recipe.digest(content, Hasher::sha256())?;
        if is != layer.descriptor.digest || recipe.size() != layer.descriptor.size {
            return Err(Error::failed(format!("layer `{}` is `{is}`", layer.descriptor.digest)));
        }
    }
    Ok(())
}
