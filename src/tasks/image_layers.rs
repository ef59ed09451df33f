//! Makes the layers of an image: what it removes, its users, its certificates and its files, each put
//! on what is below as a container would see it. Knows no config and no table.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::image::{Way, What};
use super::image_files::{Gives, Piece};
use super::image_users::{Accounts, Owner, User};
use super::{base, image_fetch};
use crate::cache::Cache;
use crate::cache::cas::Cas;
use crate::cache::tree::Entry;
use crate::digest::{Blob, Hasher};
use crate::error::{Error, Failure, Result};
use crate::oci::image::{Image, NewLayer};
use crate::oci::layer::{self, Attributes, Kind, Xattrs};
use crate::oci::stack::{Held, PLAIN_FOLDER, Stack, Standing};
use crate::oci::{capability, split};
use crate::recipe::{Content, Part};
use crate::work::Context;

/// Files that nobody gave an owner.
const ROOT: Attributes = Attributes { mode: 0o644, uid: 0, gid: 0, mtime: 0 };
/// Where programs look for certificates first.
const CERTIFICATES: &[u8] = b"etc/ssl/certs/ca-certificates.crt";
/// Folders that a base is likely to have in its root: to put a file there is likely a mistake, and the
/// base is looked at. Other names in the root need no look, and spare the fetching of a base's layers.
const FOLDERS: [&str; 21] = [
    "bin", "boot", "dev", "etc", "home", "lib", "lib32", "lib64", "libx32", "media", "mnt", "opt", "proc",
    "root", "run", "sbin", "srv", "sys", "tmp", "usr", "var",
];
/// The longest list of certificates, in bytes.
const LONGEST_CERTIFICATES: u64 = 16 << 20;

/// The layers that an image puts on its base.
pub fn layers(
    what: &What,
    way: &Way,
    base: Option<&Image>,
    parts: base::Parts<'_>,
    context: &Context<'_>,
) -> Result<Vec<NewLayer>> {
    let stack = match base {
        Some(base) if needs_base(what, way, &context.cache.cas)? => {
            base::stack(base, parts.0, parts.1, context)?
        }
        _ => Stack::default(),
    };
    let mut maker = Maker { cas: &context.cache.cas, accounts: accounts(&stack)?, stack, made: Vec::new() };
    if !what.remove.is_empty() {
        maker.remove(&what.remove)?;
    }
    if !what.users.is_empty() {
        maker.users(&what.users)?;
    }
    if let Some(certificates) = &what.ca_certificates {
        maker.certificates(certificates)?;
    }
    for pieces in &way.layers {
        maker.files(pieces, what, context)?;
    }
    context.stop.check()?;
    let cache = context.cache;
    match maker.made.as_slice() {
        // Threads for one layer would only wait.
        [one] => Ok(vec![pack(cache, one)?]),
        all => all.par_iter().map(|entries| pack(cache, entries)).collect(),
    }
}

/// Whether it matters what the base has: something goes below a folder, or is called by a name.
fn needs_base(what: &What, way: &Way, cas: &Cas) -> Result<bool> {
    let pieces = || way.layers.iter().flatten();
    let said = !what.remove.is_empty()
        || !what.users.is_empty()
        || what.ca_certificates.is_some()
        || pieces().any(|piece| piece.owner.as_ref().is_some_and(Owner::is_named));
    if said {
        return Ok(true);
    }
    for piece in pieces() {
        let below = match &piece.gives {
            Gives::Tree(tree) if piece.to.is_empty() => {
                let node = cas.node(tree)?;
                let in_base = |name: &[u8]| FOLDERS.iter().any(|folder| folder.as_bytes() == name);
                node.entries
                    .iter()
                    .any(|(name, entry)| matches!(entry, Entry::Folder { .. }) || in_base(name))
            }
            Gives::Tree(_) | Gives::Folder { .. } => true,
            Gives::Fetched { .. } => piece.to.contains('/') || FOLDERS.contains(&&piece.to[..]),
        };
        if below {
            return Ok(true);
        }
    }
    Ok(false)
}

fn accounts(stack: &Stack) -> Result<Accounts> {
    let text = |path: &str| {
        let place = stack.place(path.as_bytes())?;
        match stack.at(&place).map(|standing| &standing.kind) {
            None => Ok(String::new()),
            Some(Held::File(Some(bytes))) => Ok(String::from_utf8_lossy(bytes).into_owned()),
            Some(_) => Err(Error::failed(format!("`/{path}` of the base is not a plain file"))),
        }
    };
    Ok(Accounts { passwd: text("etc/passwd")?, group: text("etc/group")? })
}

/// Layers that are being made.
struct Maker<'a> {
    cas: &'a Cas,
    stack: Stack,
    accounts: Accounts,
    made: Vec<Vec<layer::Entry>>,
}

/// The entries of one layer by their places.
type Entries = BTreeMap<Vec<u8>, layer::Entry>;

impl Maker<'_> {
    fn remove(&mut self, paths: &[String]) -> Result<()> {
        let mut layer = Entries::new();
        for path in paths {
            let place = self.stack.place(path.as_bytes())?;
            if self.stack.at(&place).is_none() {
                return Err(Failure::new(format!("the base has no `/{path}` that could be removed")).into());
            }
            self.stack.remove(&place);
            let entry = layer::Entry {
                path: place.clone(),
                kind: Kind::Nothing,
                attributes: ROOT,
                xattrs: Xattrs::new(),
            };
            layer.insert(place, entry);
        }
        self.finish(layer, None);
        Ok(())
    }

    fn users(&mut self, users: &[User]) -> Result<()> {
        let mut layer = Entries::new();
        for user in users {
            self.accounts.add(user)?;
        }
        for (path, text) in [("etc/passwd", &self.accounts.passwd), ("etc/group", &self.accounts.group)] {
            let place = self.stack.place(path.as_bytes())?;
            let attributes =
                self.stack.at(&place).map_or(ROOT, |old| Attributes { mtime: 0, ..old.attributes });
            let kind = Kind::File(Part::Blob(self.cas.put(text.as_bytes())?));
            put(&mut self.stack, &mut layer, path.as_bytes(), kind, attributes, &Xattrs::new())?;
        }
        for user in users {
            let Some(home) = &user.home else { continue };
            let owner = (u64::from(user.uid), u64::from(user.gid));
            folder(
                &mut self.stack,
                &mut layer,
                &super::placement::plain(home.as_bytes()),
                Some(0o700),
                Some(owner),
            )?;
        }
        self.finish(layer, None);
        Ok(())
    }

    fn certificates(&mut self, blob: &Blob) -> Result<()> {
        if blob.size > LONGEST_CERTIFICATES {
            return Err(Error::failed(format!(
                "the certificates have more than {LONGEST_CERTIFICATES} bytes"
            )));
        }
        let bytes = self.cas.read(*blob)?;
        let start = b"-----BEGIN CERTIFICATE-----";
        if !bytes.windows(start.len()).any(|window| window == start) {
            return Err(Failure::new("what `ca_certificates` names has no certificate in it")
                .hint("a file in PEM format, with `-----BEGIN CERTIFICATE-----`")
                .into());
        }
        let mut layer = Entries::new();
        put(
            &mut self.stack,
            &mut layer,
            CERTIFICATES,
            Kind::File(Part::Blob(*blob)),
            ROOT,
            &Xattrs::new(),
        )?;
        self.finish(layer, None);
        Ok(())
    }

    fn files(&mut self, pieces: &[Piece], what: &What, context: &Context<'_>) -> Result<()> {
        let mut layer = Entries::new();
        for piece in pieces {
            self.piece(piece, &mut layer, context)?;
        }
        let accounts = [&b"etc/passwd"[..], b"etc/group"].map(|path| self.stack.place(path));
        for place in accounts.into_iter().flatten() {
            if !what.users.is_empty() && layer.contains_key(&place) {
                let place = String::from_utf8_lossy(&place).into_owned();
                return Err(Failure::new(format!(
                    "`/{place}` comes from `files`, and `users` adds to the base's"
                ))
                .hint("write the users into the file, or leave it out")
                .into());
            }
        }
        self.finish(layer, what.layer_size);
        Ok(())
    }

    fn piece(&mut self, piece: &Piece, layer: &mut Entries, context: &Context<'_>) -> Result<()> {
        let owner = match &piece.owner {
            None => None,
            Some(owner) => {
                let (uid, gid) = self.accounts.resolve(owner)?;
                Some((u64::from(uid), u64::from(gid)))
            }
        };
        let (uid, gid) = owner.unwrap_or((0, 0));
        let mut xattrs = Xattrs::new();
        if !piece.capabilities.is_empty() {
            let value = capability::value(piece.capabilities.iter().map(String::as_str));
            xattrs.insert(capability::XATTR.to_vec(), value);
        }
        let to = piece.to.as_bytes();
        let with_mode = |mode| Attributes { mode, uid, gid, mtime: 0 };
        match &piece.gives {
            Gives::Folder { mode } => folder(&mut self.stack, layer, to, *mode, owner),
            Gives::Fetched { sha256, mode, url } => {
                let blob = image_fetch::file(url, sha256, context)?;
                put(&mut self.stack, layer, to, Kind::File(Part::Blob(blob)), with_mode(*mode), &xattrs)
            }
            Gives::Tree(tree) => {
                let (cas, stack) = (self.cas, &mut self.stack);
                cas.walk(tree, &mut |path, entry| {
                    let path = match to.is_empty() {
                        true => path.to_vec(),
                        false => [to, b"/", path].concat(),
                    };
                    match entry {
                        Entry::Link { target } => put(
                            stack,
                            layer,
                            &path,
                            Kind::Link(target.clone()),
                            with_mode(0o777),
                            &Xattrs::new(),
                        ),
                        // Folders that are there already stay as they are.
                        Entry::Folder { mode, .. } => match stack.follow(&path)? {
                            place if stack.at(&place).is_some() => Ok(()),
                            _ => folder(stack, layer, &path, Some(*mode), owner),
                        },
                        file => {
                            let (Some(part), Entry::File { mode, .. } | Entry::Recipe { mode, .. }) =
                                (file.part(), file)
                            else {
                                panic!("BUG: neither link, folder nor file")
                            };
                            put(stack, layer, &path, Kind::File(part), with_mode(*mode), &xattrs)
                        }
                    }
                })
            }
        }
    }

    /// Adds a layer, divided if it is larger than `most`, with the folders above as they are.
    fn finish(&mut self, layer: Entries, most: Option<u64>) {
        let entries: Vec<layer::Entry> = layer.into_values().collect();
        let size = |entry: &layer::Entry| match &entry.kind {
            Kind::File(part) => part.size().saturating_add(1024),
            _ => 512,
        };
        let runs = match most {
            Some(most) => {
                let sizes: Vec<(&[u8], u64)> =
                    entries.iter().map(|entry| (&entry.path[..], size(entry))).collect();
                split::runs(&sizes, most)
            }
            None => std::iter::once(0..entries.len()).collect(),
        };
        for run in runs {
            let mut with_parents: BTreeMap<&[u8], layer::Entry> =
                entries[run.clone()].iter().map(|entry| (&entry.path[..], entry.clone())).collect();
            for entry in &entries[run] {
                for (at, _) in entry.path.iter().enumerate().rev().filter(|(_, byte)| **byte == b'/') {
                    let above = &entry.path[..at];
                    if with_parents.contains_key(above) {
                        break;
                    }
                    if let Some(Standing { attributes, xattrs, .. }) = self.stack.at(above) {
                        let (path, attributes, xattrs) = (above.to_vec(), *attributes, xattrs.clone());
                        with_parents
                            .insert(above, layer::Entry { path, kind: Kind::Folder, attributes, xattrs });
                    }
                }
            }
            self.made.push(with_parents.into_values().collect());
        }
    }
}

/// Puts a file or link at a path.
fn put(
    stack: &mut Stack,
    layer: &mut Entries,
    path: &[u8],
    kind: Kind,
    attributes: Attributes,
    xattrs: &Xattrs,
) -> Result<()> {
    let place = stack.place(path)?;
    let shown = || String::from_utf8_lossy(&place).into_owned();
    let entry = layer::Entry { path: place.clone(), kind, attributes, xattrs: xattrs.clone() };
    match layer.get(&place) {
        Some(old) if *old == entry => return Ok(()),
        Some(_) => return Err(Error::failed(format!("two different files are placed at `{}`", shown()))),
        None => {}
    }
    let held = match &entry.kind {
        Kind::Link(target) => Held::Link(target.clone()),
        _ => Held::File(None),
    };
    if stack.at(&place).is_some_and(|old| old.kind == Held::Folder) {
        let what = if matches!(entry.kind, Kind::Link(_)) { "a link" } else { "a file" };
        let message = format!("`/{}` is a folder, and {what} would take its place", shown());
        return Err(Failure::new(message).hint("`remove` takes what the base has away").into());
    }
    stack.put(&place, Standing { kind: held, attributes, xattrs: entry.xattrs.clone() });
    layer.insert(place, entry);
    Ok(())
}

/// Makes a folder, or changes the one that is there; what is not said stays, or is root's with 0755.
fn folder(
    stack: &mut Stack,
    layer: &mut Entries,
    path: &[u8],
    mode: Option<u32>,
    owner: Option<(u64, u64)>,
) -> Result<()> {
    let place = stack.follow(path)?;
    if place.is_empty() {
        return Err(Error::failed(format!("`/{}` is the root", String::from_utf8_lossy(path))));
    }
    let (mut attributes, xattrs) = match stack.at(&place) {
        Some(old) => (old.attributes, old.xattrs.clone()),
        None => (PLAIN_FOLDER, Xattrs::new()),
    };
    attributes.mode = mode.unwrap_or(attributes.mode);
    (attributes.uid, attributes.gid) = owner.unwrap_or((attributes.uid, attributes.gid));
    let kind = Kind::Folder;
    stack.put(&place, Standing { kind: Held::Folder, attributes, xattrs: xattrs.clone() });
    layer.insert(place.clone(), layer::Entry { path: place, kind, attributes, xattrs });
    Ok(())
}

/// A layer as a recipe; its SHA-256 is remembered by the recipe.
fn pack(cache: &Cache, entries: &[layer::Entry]) -> Result<NewLayer> {
    let recipe = layer::pack(entries, PLAIN_FOLDER)?;
    let part = cache.cas.put_recipe(&recipe)?;
    let digest = cache.content_digest(&part, Hasher::sha256())?;
    Ok(NewLayer { part, digest, created_by: created_by(entries) })
}

/// The first thing in a layer, and how much more there is.
fn created_by(entries: &[layer::Entry]) -> String {
    let told = |entry: &&layer::Entry| entry.kind != Kind::Folder;
    let count = entries.iter().filter(told).count();
    let Some(first) = entries.iter().find(told).or(entries.last()) else {
        return "vcbuild: nothing".into();
    };
    let verb = if first.kind == Kind::Nothing { "remove " } else { "" };
    let path = String::from_utf8_lossy(&first.path);
    match count {
        0 | 1 => format!("vcbuild: {verb}/{path}"),
        _ => format!("vcbuild: {verb}/{path} and {} more", count - 1),
    }
}
