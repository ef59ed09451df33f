//! The embedded node: a folder here that is a host like any other. `files/<path>` holds its files,
//! `images/` its blobs and names (an image layout, readable by others), `lock` is held while it is
//! changed. Does not know what its blobs are.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::digest::{Blob, Digest, PIECE};
use crate::error::{At, Error, Failure, Result};
use crate::host::absent::absent;
use crate::host::fs::{self, Kind};
use crate::host::index::{self, Index};
use crate::host::inside::{self, Inside, Missing};
use crate::host::machine;
use crate::host::node::{
    Answer, Found, Gone, Image, Listing, Load, Memory, Node, Question, Shape, Standing, Trace, Trouble,
    Watch,
};
use crate::host::passing::{Arrival, Departure, Hash};
use crate::recipe::{Content, Part, Recipe, Sink};

const FILES: &str = "files";
const IMAGES: &str = "images";
const INDEX: [&str; 2] = [IMAGES, "index.json"];
const LAYOUT: [&str; 2] = [IMAGES, "oci-layout"];
const LAYOUT_TEXT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
const LOCK: &str = "lock";
/// The longest list of names that is read, in bytes.
const LONGEST_INDEX: u64 = 64 << 20;
/// A wait for the lock is worth a word after this time: a wait for another task of this run is not.
const PATIENCE: Duration = Duration::from_secs(1);

/// A folder that is a host.
pub struct Embedded<'a> {
    name: String,
    path: PathBuf,
    shown: PathBuf,
    inside: OnceCell<Inside>,
    memory: &'a dyn Memory,
    watch: &'a dyn Watch,
}

impl<'a> Embedded<'a> {
    /// Reaches the node. A folder that is not there is an empty node. Unreachable are a link that leads
    /// nowhere, a missing folder above an absolute path, and a file system that does not answer: what
    /// looks like that is not mounted.
    pub fn open(
        name: &str,
        folder: &str,
        root: &Path,
        memory: &'a dyn Memory,
        watch: &'a dyn Watch,
    ) -> Result<Self, Trouble> {
        let (path, shown) = (root.join(folder), PathBuf::from(folder));
        let inside = match Inside::open(&path, &shown) {
            Ok(inside) => OnceCell::from(inside),
            Err(error) => {
                absent(name, &path, &shown, &error)?;
                OnceCell::new()
            }
        };
        Ok(Self { name: name.to_string(), path, shown, inside, memory, watch })
    }

    /// The node's folder, made if need be.
    fn make(&self) -> Result<&Inside> {
        if let Some(inside) = self.inside.get() {
            inside.forget();
            return Ok(inside);
        }
        fs::make_folder(&self.path)?;
        let inside = Inside::open(&self.path, &self.shown).at("open", &self.shown)?;
        Ok(self.inside.get_or_init(|| inside))
    }

    /// Waits for the lock, then clears away what was left by somebody who had it and is gone.
    fn lock(&self, inside: &Inside) -> Result<std::fs::File> {
        let (lock, start, mut told) = (inside.lock_file(LOCK)?, Instant::now(), false);
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(std::fs::TryLockError::WouldBlock) => {}
                Err(std::fs::TryLockError::Error(error)) => {
                    return Err(error).at("lock", &inside.shown(&[LOCK]));
                }
            }
            self.watch.check()?;
            if !told && start.elapsed() >= PATIENCE {
                told = true;
                self.watch.waits();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        inside.clear()?;
        Ok(lock)
    }

    /// What is at a path, hashed only if it has the size that is wanted and its stamp is new.
    fn look(&self, inside: &Inside, names: &[&str], wanted: Option<u64>) -> Result<Found> {
        let shown = inside.shown(names);
        let Some(spot) = inside.spot(names, Missing::Leave)? else { return Ok(Found::Nothing) };
        for _ in 0..20 {
            let Some(found) = spot.status().at("look at", &shown)? else { return Ok(Found::Nothing) };
            match found.kind {
                Kind::File => {}
                Kind::Folder => return Ok(Found::Folder { mode: found.mode, owner: None }),
                Kind::Link => return Ok(Found::Link { target: inside.target(names)?, owner: None }),
                Kind::Other => return Ok(Found::Other),
            }
            if wanted.is_some_and(|size| size != found.stamp.size) {
                return Ok(Found::Differs);
            }
            if let Some(digest) = self.memory.recall(&found.stamp) {
                let blob = Blob { digest, size: found.stamp.size };
                return Ok(Found::File { blob, mode: found.mode, owner: None });
            }
            let at = fs::now();
            let file = match spot.open() {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                file => file.at("read", &shown)?,
            };
            let before = fs::status_of(&file).at("read", &shown)?;
            let mut hash = Hash::sha256();
            self.stream(&file, &shown, &mut hash)?;
            let blob = hash.finish();
            let after = fs::status_of(&file).at("read", &shown)?;
            if after.stamp == before.stamp && blob.size == before.stamp.size {
                self.memory.remember(&before.stamp, blob.digest, at);
                return Ok(Found::File { blob, mode: before.mode, owner: None });
            }
        }
        Err(Error::failed(format!("read `{}`: it keeps changing", shown.display())))
    }

    fn has(&self, inside: &Inside, blob: &Blob) -> Result<bool> {
        let found = self.look(inside, &blob_path(&blob.digest.hex()), Some(blob.size))?;
        Ok(matches!(found, Found::File { blob: there, .. } if there == *blob))
    }

    fn stream(&self, mut file: &std::fs::File, shown: &Path, sink: &mut dyn Sink) -> Result<()> {
        let mut buffer = vec![0; PIECE];
        loop {
            self.watch.check()?;
            match file.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => sink.bytes(&buffer[..n])?,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).at("read", shown),
            }
        }
    }

    /// Streams what is at a path, from a byte on.
    fn depart(&self, what: &str, names: &[&str], from: u64, sink: &mut dyn Sink) -> Result<(), Trouble> {
        let missing = || Failure::new(format!("there is no `{what}` on `{}`", self.name));
        let inside = self.inside.get().ok_or_else(missing)?;
        inside.forget();
        let shown = inside.shown(names);
        let spot = inside.spot(names, Missing::Leave)?.ok_or_else(missing)?;
        let mut file = match spot.open() {
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(missing().into()),
            file => file.at("read", &shown)?,
        };
        file.seek(SeekFrom::Start(from)).at("read", &shown)?;
        Ok(self.stream(&file, &shown, &mut Departure { sink, watch: self.watch })?)
    }

    /// Writes content to a path and sees that it is what it should be.
    fn place(
        &self,
        inside: &Inside,
        names: &[&str],
        (mode, trace): (u32, Trace),
        (blob, part): (&Blob, &Part),
        content: &dyn Content,
    ) -> Result<()> {
        let shown = inside.shown(names);
        let placed = inside.place(names, mode, |file| {
            let mut arrival = Arrival { file, hash: Hash::sha256(), shown: &shown, watch: self.watch };
            let mut recipe = Recipe::new();
            recipe.push(part);
            recipe.send(content, &mut arrival)?;
            let came = arrival.hash.finish();
            if came == *blob {
                return Ok(());
            }
            if trace == Trace::None {
                let message = format!("write `{}`: other bytes came than were sent", shown.display());
                return Err(Failure::new(message).hint("run again").into());
            }
            Err(Error::failed(format!(
                "write `{}`: `{}` of {} bytes came, not `{}` of {} bytes",
                shown.display(),
                came.digest,
                came.size,
                blob.digest,
                blob.size
            )))
        })?;
        self.memory.wrote(inside.path(names), placed.stamp, blob.digest);
        Ok(())
    }

    /// Removes what is in the way, or is wanted no more.
    fn remove(inside: &Inside, all: &[Gone]) -> Result<()> {
        for gone in all {
            inside.remove(&file_path(&format!("{}/{}", gone.root, gone.inside))?, gone.is_folder)?;
        }
        Ok(())
    }

    fn put(&self, inside: &Inside, load: &Load<'_>, content: &dyn Content) -> Result<()> {
        Self::remove(inside, &load.before)?;
        for bare in &load.bare {
            let names = file_path(&bare.path)?;
            match &bare.shape {
                Shape::Folder(_) => inside.make_folder(&names)?,
                Shape::Link(target) => inside.place_link(&names, target)?,
            }
        }
        let mut last: Option<Vec<&str>> = None;
        for (file, part) in &load.files {
            let names = file_path(&file.path)?;
            if let Some(last) = last.filter(|last| last[..last.len() - 1] != names[..names.len() - 1]) {
                inside.settle(&last)?;
            }
            self.place(inside, &names, (file.mode, load.trace), (&file.blob, part), content)?;
            last = Some(names);
        }
        if let Some(last) = last {
            inside.settle(&last)?;
        }
        for file in &load.modes {
            let names = file_path(&file.path)?;
            if let Some(found) = inside.set_mode(&names, file.mode)? {
                self.memory.wrote(inside.path(&names), found.stamp, file.blob.digest);
            }
        }
        for folder in load.folders.iter().rev() {
            if let Shape::Folder(mode) = folder.shape {
                inside.set_folder_mode(&file_path(&folder.path)?, mode)?;
            }
        }
        Self::remove(inside, &load.after)?;
        for (blob, part) in &load.blobs {
            let usual = (0o644, Trace::Left);
            self.place(inside, &blob_path(&blob.digest.hex()), usual, (blob, part), content)?;
        }
        if let Some((blob, _)) = load.blobs.last() {
            inside.settle(&blob_path(&blob.digest.hex()))?;
        }
        let names = names(&load.images, |image| &image.content_tags);
        for image in &load.images {
            self.complete(inside, image)?;
        }
        if names.is_empty() { Ok(()) } else { self.put_names(inside, &names) }
    }

    /// Sees that all of an image is there.
    fn complete(&self, inside: &Inside, image: &Image) -> Result<()> {
        for blob in &own(image).blobs {
            if !self.has(inside, blob)? {
                let (name, node, digest) = (image.shown(), &self.name, blob.digest);
                return Err(Error::failed(format!(
                    "`{name}` cannot be given: `{digest}` is not on `{node}`"
                )));
            }
        }
        Ok(())
    }

    fn put_names(&self, inside: &Inside, names: &BTreeMap<String, Value>) -> Result<()> {
        let mut index = read_index(inside)?;
        // Both are wanted, whatever the first says.
        if index.put(names) | !is_layout(inside)? {
            let write = |path: &[&str], bytes: &[u8]| {
                inside.place(path, 0o644, |mut file| file.write_all(bytes).at("write", &inside.shown(path)))
            };
            write(&LAYOUT, LAYOUT_TEXT)?;
            write(&INDEX, &index.encode())?;
            inside.settle(&INDEX)?;
        }
        Ok(())
    }

    /// Changes the node alone, and leaves nothing behind, also after a failure.
    fn alone(&self, change: impl FnOnce(&Inside) -> Result<()>) -> Result<(), Trouble> {
        let inside = self.make()?;
        let _lock = self.lock(inside)?;
        let changed = change(inside);
        let cleared = inside.clear();
        Ok(changed.and(cleared)?)
    }
}

impl Node for Embedded<'_> {
    fn ask(&self, question: &Question<'_>) -> Result<Answer, Trouble> {
        let mut answer = Answer::default();
        let paths: Vec<_> =
            question.files.iter().map(|asked| file_path(&asked.path)).collect::<Result<_>>()?;
        let Some(inside) = self.inside.get() else {
            answer.files.resize(paths.len(), Found::Nothing);
            answer.folders.resize(question.folders.len(), Listing::Nothing);
            answer.images = question.images.iter().map(|image| nothing(&own(image))).collect();
            return Ok(answer);
        };
        inside.forget();
        if inside.has_leftovers()
            && let Ok(lock) = inside.lock_file(LOCK)
            && lock.try_lock().is_ok()
        {
            // Whoever may not clear is told so when it wants to write.
            let _ = inside.clear();
        }
        for (names, asked) in paths.iter().zip(&question.files) {
            answer.files.push(self.look(inside, names, asked.size)?);
        }
        for folder in &question.folders {
            answer.folders.push(list(inside, folder)?);
        }
        let index = match !question.images.is_empty() && is_layout(inside)? {
            true => read_index(inside)?,
            false => Index::new(),
        };
        for image in question.images {
            let image = &*own(image);
            let mut standing = Standing::default();
            for blob in &image.blobs {
                if !self.has(inside, blob)? {
                    standing.missing.push(*blob);
                }
            }
            let all: Vec<String> = image.content_tags.iter().chain(&image.tags).cloned().collect();
            let behind = index.behind(&all);
            standing
                .names
                .extend(all.into_iter().filter(|name| behind.get(name) != Some(&image.descriptor)));
            answer.images.push(standing);
        }
        Ok(answer)
    }

    fn send(&self, load: &Load<'_>, content: &dyn Content) -> Result<u64, Trouble> {
        self.alone(|inside| self.put(inside, load, content))?;
        let files = load.files.iter().map(|(file, _)| file.blob.size);
        Ok(files.chain(load.blobs.iter().map(|(blob, _)| blob.size)).sum())
    }

    fn name(&self, images: &[&Image]) -> Result<(), Trouble> {
        self.alone(|inside| {
            for image in images {
                self.complete(inside, image)?;
            }
            self.put_names(inside, &names(images, |image| &image.tags))
        })
    }

    fn read(&self, path: &str, from: u64, sink: &mut dyn Sink) -> Result<(), Trouble> {
        self.depart(path, &file_path(path)?, from, sink)
    }

    fn given(&self, name: &str) -> Result<Option<Digest>, Trouble> {
        let Some(inside) = self.inside.get() else { return Ok(None) };
        inside.forget();
        if !is_layout(inside)? {
            return Ok(None);
        }
        let behind = read_index(inside)?.behind(&[name.to_string()]);
        Ok(behind.get(name).map(index::blob).transpose()?.map(|blob| blob.digest))
    }

    fn blob(&self, digest: &Digest, sink: &mut dyn Sink) -> Result<(), Trouble> {
        self.depart(&digest.to_string(), &blob_path(&digest.hex()), 0, sink)
    }
}

/// What an embedded node takes of an image: what this machine could run.
fn own(image: &Image) -> Cow<'_, Image> {
    image.only(machine::here())
}

/// What an empty node has of an image.
fn nothing(image: &Image) -> Standing {
    let names = image.content_tags.iter().chain(&image.tags).cloned().collect();
    Standing { missing: image.blobs.clone(), names }
}

/// Names of images with what they are given to.
fn names(images: &[&Image], which: impl Fn(&Image) -> &[String]) -> BTreeMap<String, Value> {
    let one = |image: &&Image| {
        let descriptor = own(image).descriptor.clone();
        which(image).iter().map(|name| (name.clone(), descriptor.clone())).collect::<Vec<_>>()
    };
    images.iter().flat_map(one).collect()
}

/// What is in a folder.
fn list(inside: &Inside, folder: &str) -> Result<Listing> {
    let names = file_path(folder)?;
    match inside.status(&names)? {
        None => Ok(Listing::Nothing),
        Some(found) if found.kind == Kind::Folder => {
            Ok(Listing::Folder { real: folder.to_string(), inside: inside.list(&names)? })
        }
        Some(_) => Ok(Listing::Other),
    }
}

fn read_index(inside: &Inside) -> Result<Index> {
    let Some(bytes) = inside.read(&INDEX, LONGEST_INDEX)? else { return Ok(Index::new()) };
    Index::decode(&bytes).ok_or_else(|| {
        Failure::new(format!("`{}` is not a list of images", inside.shown(&INDEX).display()))
            .hint(format!("remove `{}` to have it filled again", inside.shown(&[IMAGES]).display()))
            .into()
    })
}

/// Whether the folder of images says that it is one.
fn is_layout(inside: &Inside) -> Result<bool> {
    let Some(bytes) = inside.read(&LAYOUT, 4096)? else { return Ok(false) };
    let Ok(layout) = serde_json::from_slice::<Value>(&bytes) else { return Ok(false) };
    match layout.get("imageLayoutVersion").and_then(Value::as_str) {
        Some("1.0.0") => Ok(true),
        Some(other) => Err(Error::failed(format!(
            "`{}` is an image layout of version `{other}`, which is not known",
            inside.shown(&[IMAGES]).display()
        ))),
        None => Ok(false),
    }
}

fn file_path(path: &str) -> Result<Vec<&str>> {
    let wrong = || Failure::new(format!("`{path}` cannot be the path of a file on a host"));
    let mut names = inside::names(path).ok_or_else(wrong)?;
    names.insert(0, FILES);
    Ok(names)
}

fn blob_path(hex: &str) -> [&str; 4] {
    [IMAGES, "blobs", "sha256", hex]
}

#[cfg(test)]
#[path = "embedded_tests.rs"]
mod tests;
