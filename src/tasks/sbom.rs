//! The list of what an image is made of: programs in layers that were packed here, and the package
//! databases of all layers, remembered by the layers' digests. Knows no key.

use std::collections::BTreeMap;

use crate::cache::Cache;
use crate::cache::draft::Draft;
use crate::cache::tree::Entry;
use crate::digest::Digest;
use crate::error::Result;
use crate::oci::attached::Attached;
use crate::oci::contents::{self, Item, Kind, Reader};
use crate::oci::elf;
use crate::oci::image::{Image, Layer};
use crate::oci::sbom::{self, Built, Package, SPDX};
use crate::recipe::{Content, Part};

/// A database that is longer is not read, in bytes.
const LONGEST: u64 = 64 << 20;
/// The version of what is remembered.
const FORM: u32 = 1;

/// The SPDX document about an image with this name.
///
/// Errors: `Lost` if a layer is not there and nobody has read it before.
pub fn of(cache: &Cache, image: &Image, name: &str) -> Result<Attached> {
    let mut files: BTreeMap<Vec<u8>, Option<Vec<u8>>> = BTreeMap::new();
    let mut programs: BTreeMap<Vec<u8>, Built> = BTreeMap::new();
    for layer in image.layers() {
        files.extend(databases(cache, layer)?);
        if matches!(layer.part, Part::Recipe { .. }) {
            let mut found = Programs { cache, found: &mut programs };
            contents::read(layer, &cache.cas, &mut found)?;
        }
    }
    let built: Vec<Built> = programs.into_values().collect();
    let config = image.manifest().config.digest;
    let created = image.config().created.clone().unwrap_or_else(|| "1970-01-01T00:00:00Z".into());
    let bytes = sbom::document(name, &config, &created, &packages(&files), &built);
    Ok(Attached { kind: SPDX.into(), subject: image.descriptor(), bytes })
}

fn packages(files: &BTreeMap<Vec<u8>, Option<Vec<u8>>>) -> Vec<Package> {
    let file = |path: &str| files.get(path.as_bytes()).and_then(|bytes| bytes.as_deref());
    let release = file("etc/os-release").or_else(|| file("usr/lib/os-release")).unwrap_or_default();
    let release = sbom::distribution(release);
    let mut all = Vec::new();
    for (path, bytes) in files {
        let Some(bytes) = bytes else { continue };
        if path.starts_with(b"var/lib/dpkg/") {
            all.extend(sbom::dpkg(bytes, &release));
        } else if path.ends_with(b"lib/apk/db/installed") {
            all.extend(sbom::apk(bytes, &release));
        }
    }
    all.sort();
    all.dedup();
    all
}

/// Whether a file says what is installed.
fn is_database(path: &[u8]) -> bool {
    let exact: [&[u8]; 5] = [
        b"etc/os-release",
        b"usr/lib/os-release",
        b"var/lib/dpkg/status",
        b"lib/apk/db/installed",
        b"usr/lib/apk/db/installed",
    ];
    let below = path.strip_prefix(b"var/lib/dpkg/status.d/");
    exact.contains(&path) || below.is_some_and(|name| !name.contains(&b'/') && !name.ends_with(b".md5sums"))
}

/// The databases that a layer has, and those that it takes away.
fn databases(cache: &Cache, layer: &Layer) -> Result<BTreeMap<Vec<u8>, Option<Vec<u8>>>> {
    let preimage = serde_json::json!({ "databases": layer.descriptor.digest, "form": FORM });
    if let Some(value) = cache.known(&preimage)
        && let Ok(known) = remembered(cache, &value)
    {
        return Ok(known);
    }
    let mut found = Databases { draft: Draft::empty(&cache.cas) };
    contents::read(layer, &cache.cas, &mut found)?;
    let value = found.draft.store()?;
    cache.remember(preimage, value)?;
    remembered(cache, &value)
}

fn remembered(cache: &Cache, value: &Digest) -> Result<BTreeMap<Vec<u8>, Option<Vec<u8>>>> {
    let mut files = BTreeMap::new();
    cache.cas.walk(value, &mut |path, entry| {
        match entry {
            Entry::File { blob, .. } => {
                files.insert(path.to_vec(), Some(cache.cas.read(*blob)?));
            }
            Entry::Link { .. } => {
                files.insert(path.to_vec(), None);
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok(files)
}

/// Keeps databases; what is taken away is kept as a link.
struct Databases<'a> {
    draft: Draft<'a>,
}

impl Reader for Databases<'_> {
    fn item(&mut self, item: &Item) -> Result<usize> {
        if !is_database(&item.path) || item.size > LONGEST {
            return Ok(0);
        }
        match item.kind {
            Kind::File => Ok(item.size as usize),
            Kind::Removed => {
                self.draft.insert(&item.path, Entry::Link { target: b"nothing".to_vec() })?;
                Ok(0)
            }
            _ => Ok(0),
        }
    }

    fn content(&mut self, item: &Item, bytes: &[u8]) -> Result<()> {
        self.draft.put_file(&item.path, 0o644, bytes).map(drop)
    }
}

/// Finds programs that say what they were built from.
struct Programs<'a> {
    cache: &'a Cache,
    found: &'a mut BTreeMap<Vec<u8>, Built>,
}

impl Reader for Programs<'_> {
    fn item(&mut self, item: &Item) -> Result<usize> {
        self.found.remove(&item.path);
        Ok(0)
    }

    fn part(&mut self, item: &Item, part: &Part) -> Result<()> {
        let Part::Blob(blob) = part else { return Ok(()) };
        if item.kind != Kind::File || item.attributes.mode & 0o111 == 0 {
            return Ok(());
        }
        let open = || self.cache.cas.open(blob);
        let path = String::from_utf8_lossy(&item.path);
        let built = match elf::section(open()?, ".go.buildinfo") {
            Some(section) => {
                let memory = |at, most| elf::memory(open().ok()?, at, most);
                sbom::go(&path, &section, &memory)
            }
            None => elf::section(open()?, ".dep-v0").and_then(|section| sbom::cargo(&path, &section)),
        };
        if let Some(built) = built {
            self.found.insert(item.path.clone(), built);
        }
        Ok(())
    }
}
