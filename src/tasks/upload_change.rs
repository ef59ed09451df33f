//! Files, links and folders as an upload wants them on hosts: what differs is found by one question for each
//! host, and only that is sent, or removed. Does not know what kind of host it is.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::upload_gather::Source;
use crate::cache::Cache;
use crate::cache::bulk::Bulk;
use crate::digest::Digest;
use crate::error::{Error, Failure, Result};
use crate::host::node::{
    self, Asked, Bare, File, Found, Gone, Listing, Load, Node, Question, Shape, Spec, Trouble,
};
use crate::recipe::Part;
use crate::tasks::shipping::{self, Told, size_text};
use crate::work::{Change, Effect, Fault, Reach};

/// What is wanted where.
#[derive(Serialize, Deserialize)]
pub struct Wants {
    /// The hosts.
    pub destinations: Vec<Spec>,
    /// Files.
    pub files: Vec<File>,
    /// Links and folders; a folder comes before what is in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bare: Vec<Bare>,
    /// A folder in which nothing else may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<String>,
}

/// An upload.
pub struct Uploading {
    /// What is wanted.
    pub wants: Wants,
    /// Where the content comes from, by SHA-256.
    pub parts: BTreeMap<Digest, Part>,
    /// Local files, by BLAKE3.
    pub sources: BTreeMap<Digest, Source>,
}

/// Whether a folder on a host may be one in which only one upload's files are: not the root, not a folder
/// that a system is made of, nobody's home.
pub fn may_be_owned(path: &str) -> bool {
    let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty() && *name != ".").collect();
    match names.as_slice() {
        [] | [_] => false,
        ["home" | "Users" | "usr", _] | ["proc" | "sys" | "dev", ..] => false,
        ["var", name] => !matches!(
            *name,
            "lib"
                | "log"
                | "cache"
                | "run"
                | "spool"
                | "tmp"
                | "mail"
                | "opt"
                | "local"
                | "lock"
                | "backups"
        ),
        ["var", "lib", name] => !matches!(*name, "containerd" | "docker" | "kubelet" | "etcd" | "dpkg"),
        ["usr", "local", name] => !matches!(
            *name,
            "bin" | "sbin" | "lib" | "libexec" | "etc" | "share" | "src" | "include" | "man" | "games"
        ),
        ["etc", name] => {
            !name.ends_with(".d")
                && !matches!(*name, "ssh" | "ssl" | "systemd" | "kubernetes" | "containerd" | "pki")
        }
        _ => true,
    }
}

impl Effect for Uploading {
    fn wants(&self) -> Value {
        shipping::plain(&self.wants)
    }

    fn destinations(&self) -> Vec<String> {
        self.wants.destinations.iter().map(|spec| spec.name.clone()).collect()
    }

    fn is_away(&self) -> bool {
        self.wants.destinations.iter().any(|spec| !spec.is_here())
    }

    fn probe(&self, destination: usize, reach: &Reach<'_>) -> Result<Box<dyn Change + '_>, Fault> {
        let spec = &self.wants.destinations[destination];
        let watch = Told::destination(spec, reach, 0);
        Ok(Box::new(self.compare(spec, &*shipping::open(spec, reach, &watch)?)?))
    }
}

impl Uploading {
    /// What a host has, less what is wanted, and the other way round.
    fn compare<'a>(&'a self, spec: &'a Spec, node: &dyn Node) -> Result<Bringing<'a>, Fault> {
        let asked = |file: &File| Asked { path: file.path.clone(), size: Some(file.blob.size) };
        let wants = &self.wants;
        let files = wants.files.iter().map(asked);
        let files = files.chain(wants.bare.iter().map(|bare| Asked::kind(&bare.path))).collect();
        let folders = wants.only.iter().cloned().collect();
        let answer = node.ask(&Question { files, folders, ..Question::default() })?;
        let mut found = answer.files.into_iter();
        let files: Vec<(&File, Found)> = wants.files.iter().zip(found.by_ref()).collect();
        let bare: Vec<(&Bare, Found)> = wants.bare.iter().zip(found).collect();
        let mut bringing = Bringing::new(self, spec);
        let inside = match (&wants.only, answer.folders.into_iter().next()) {
            (Some(only), Some(listing)) => Inside::new(spec, only, listing)?,
            _ => Inside::default(),
        };
        for (bare, found) in bare {
            bringing.bare(bare, &found, &inside)?;
        }
        for (file, found) in files {
            bringing.file(file, &found, &inside)?;
        }
        bringing.rest(&inside);
        Ok(bringing)
    }

    /// Stores the content of the parts that are local files.
    fn keep<'a>(&self, parts: impl IntoIterator<Item = &'a Part>, cache: &Cache) -> Result<()> {
        let bulk = Bulk::new(&cache.cas);
        for part in parts {
            let Part::Blob(blob) = part else { continue };
            let Some((blob, stamp, path)) = self.sources.get(&blob.digest) else { continue };
            if !bulk.put_known(path, stamp, blob)? {
                let message = format!("`{}` changed while it was uploaded", path.display());
                return Err(Failure::new(message).hint("run again").into());
            }
        }
        bulk.finish()
    }
}

/// What there is in the folder in which nothing else may be.
#[derive(Default)]
struct Inside {
    only: Option<String>,
    real: String,
    /// Paths from there, and whether each is a folder.
    all: BTreeMap<String, bool>,
}

impl Inside {
    fn new(spec: &Spec, only: &str, listing: Listing) -> Result<Self> {
        let refused = |what: String| {
            let message = format!("`{only}` on `{}` {what}: nothing is deleted in it", spec.name);
            Failure::new(message).hint("choose another folder, or take `delete` away")
        };
        match listing {
            Listing::Nothing => Ok(Self { only: Some(only.to_string()), ..Self::default() }),
            Listing::Other => Err(refused("is a link or a file".into()).into()),
            Listing::Folder { real, inside } => {
                if !may_be_owned(&real) {
                    return Err(refused(format!("is `{real}`")).into());
                }
                Ok(Self { only: Some(only.to_string()), real, all: inside.into_iter().collect() })
            }
        }
    }

    /// A path from the folder; nothing if it is not in there.
    fn relative<'p>(&self, path: &'p str) -> Option<&'p str> {
        path.strip_prefix(self.only.as_ref()?)?.strip_prefix('/')
    }

    fn gone(&self, inside: &str, is_folder: bool) -> Gone {
        let only = self.only.as_deref().unwrap_or_default();
        let (path, root) = (format!("{only}/{inside}"), self.real.clone());
        Gone { path, root, inside: inside.to_string(), is_folder }
    }
}

/// What is missing at a destination, or there and not wanted.
struct Bringing<'a> {
    effect: &'a Uploading,
    spec: &'a Spec,
    missing: Vec<&'a File>,
    modes: Vec<&'a File>,
    bare: Vec<&'a Bare>,
    /// Folders with other permission bits or owners.
    folders: Vec<&'a Bare>,
    /// Paths of what stands in the way.
    replaced: BTreeSet<String>,
    before: Vec<Gone>,
    after: Vec<Gone>,
}

impl<'a> Bringing<'a> {
    fn new(effect: &'a Uploading, spec: &'a Spec) -> Self {
        let (missing, modes, bare, folders) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (replaced, before, after) = (BTreeSet::new(), Vec::new(), Vec::new());
        Self { effect, spec, missing, modes, bare, folders, replaced, before, after }
    }

    /// What is at a path stands in the way of what is wanted there: it goes if it may.
    fn replace(&mut self, path: &str, found: &Found, inside: &Inside) -> Result<()> {
        let (Some(relative), false) = (inside.relative(path), matches!(found, Found::Other)) else {
            let message = format!("`{path}` on `{}` is {}", self.spec.name, found.words());
            return Err(Failure::new(message).hint("remove it, or choose another path").into());
        };
        let below = format!("{relative}/");
        let all = inside.all.iter().rev();
        let these = all.filter(|(path, _)| *path == relative || path.starts_with(&below));
        self.before.extend(these.map(|(path, is_folder)| inside.gone(path, *is_folder)));
        self.replaced.insert(path.to_string());
        Ok(())
    }

    /// Whether something above a path is replaced, so that whatever is at the path goes or is elsewhere.
    fn is_new(&self, path: &str) -> bool {
        !self.replaced.is_empty()
            && path.match_indices('/').any(|(at, _)| self.replaced.contains(&path[..at]))
    }

    fn bare(&mut self, bare: &'a Bare, found: &Found, inside: &Inside) -> Result<()> {
        let owner = |found: &Option<node::Owner>| node::is_owner(bare.owner.as_deref(), found.as_ref());
        let owned = inside.relative(&bare.path).is_some();
        if self.is_new(&bare.path) {
            self.add(bare);
            return Ok(());
        }
        match (&bare.shape, found) {
            (Shape::Link(wanted), Found::Link { target: Some(target), owner: whose })
                if wanted == target && owner(whose) => {}
            (Shape::Folder(mode), Found::Folder { mode: there, owner: whose }) => {
                if owned && (mode != there || !owner(whose)) {
                    self.folders.push(bare);
                }
            }
            // Whoever put a link there wants it so, as long as nothing is removed.
            (Shape::Folder(_), Found::Link { .. }) if !owned => {}
            (Shape::Folder(_), Found::Nothing)
            | (Shape::Link(_), Found::Nothing | Found::Link { .. } | Found::File { .. } | Found::Differs) =>
            {
                self.add(bare);
            }
            _ => {
                self.replace(&bare.path, found, inside)?;
                self.add(bare);
            }
        }
        Ok(())
    }

    fn add(&mut self, bare: &'a Bare) {
        self.bare.push(bare);
        if let Shape::Folder(_) = bare.shape {
            self.folders.push(bare);
        }
    }

    fn file(&mut self, file: &'a File, found: &Found, inside: &Inside) -> Result<()> {
        match found {
            _ if self.is_new(&file.path) => self.missing.push(file),
            found if file.is(found) => {}
            Found::File { blob, .. } if *blob == file.blob => self.modes.push(file),
            Found::Folder { .. } | Found::Other => {
                self.replace(&file.path, found, inside)?;
                self.missing.push(file);
            }
            _ => self.missing.push(file),
        }
        Ok(())
    }

    /// What is there and not wanted goes.
    fn rest(&mut self, inside: &Inside) {
        let wants = &self.effect.wants;
        let paths =
            wants.files.iter().map(|file| &file.path).chain(wants.bare.iter().map(|bare| &bare.path));
        let wanted: BTreeSet<&str> = paths.filter_map(|path| inside.relative(path)).collect();
        let before: BTreeSet<&str> = self.before.iter().map(|gone| gone.inside.as_str()).collect();
        let rest = inside.all.iter().rev();
        let rest =
            rest.filter(|(path, _)| !wanted.contains(path.as_str()) && !before.contains(path.as_str()));
        let after = rest.map(|(path, is_folder)| inside.gone(path, *is_folder)).collect();
        self.after = after;
    }
}

/// Lines about what goes: a folder that goes with all that is in it is one.
fn gone_lines<'g>(all: impl Iterator<Item = &'g Gone>) -> Vec<String> {
    let mut all: Vec<&Gone> = all.collect();
    all.sort_by(|one, other| one.path.cmp(&other.path));
    let mut tops: Vec<(&Gone, usize)> = Vec::new();
    let folders: BTreeSet<&str> =
        all.iter().filter(|gone| gone.is_folder).map(|gone| gone.path.as_str()).collect();
    for gone in all {
        let above = gone.path.match_indices('/').find(|(at, _)| folders.contains(&gone.path[..*at]));
        match above {
            None => tops.push((gone, 0)),
            Some((at, _)) => {
                let top = tops.iter_mut().rev().find(|(top, _)| top.path == gone.path[..at]);
                if let Some((_, count)) = top {
                    *count += 1;
                }
            }
        }
    }
    let line = |(gone, count): &(&Gone, usize)| match (gone.is_folder, count) {
        (false, _) => format!("{} deleted", gone.path),
        (true, 0) => format!("{}/ deleted", gone.path),
        (true, count) => format!("{}/ deleted with {count} in it", gone.path),
    };
    tops.iter().map(line).collect()
}

fn mode_line(path: &str, mode: u32, owner: Option<&String>) -> String {
    match owner {
        None => format!("{path} mode {mode:04o}"),
        Some(owner) => format!("{path} mode {mode:04o}, owner {owner}"),
    }
}

impl Change for Bringing<'_> {
    fn lines(&self) -> Vec<String> {
        let files = self.missing.iter().map(|file| format!("{} {}", file.path, size_text(file.blob.size)));
        let made = self.bare.iter().map(|bare| match &bare.shape {
            Shape::Link(target) => format!("{} link to {target}", bare.path),
            Shape::Folder(_) => format!("{}/ folder", bare.path),
        });
        let modes = self.modes.iter().map(|file| mode_line(&file.path, file.mode, file.owner.as_ref()));
        let folders = self.folders.iter().filter(|folder| !self.bare.contains(folder));
        let folders = folders.filter_map(|folder| match folder.shape {
            Shape::Folder(mode) => {
                Some(mode_line(&format!("{}/", folder.path), mode, folder.owner.as_ref()))
            }
            Shape::Link(_) => None,
        });
        let gone = gone_lines(self.before.iter().chain(&self.after));
        made.chain(files).chain(modes).chain(folders).chain(gone).collect()
    }

    fn bytes(&self) -> u64 {
        self.missing.iter().map(|file| file.blob.size).sum()
    }

    fn apply(&self, reach: &Reach<'_>) -> Result<u64, Fault> {
        let watch = Told::destination(self.spec, reach, self.bytes());
        let node = shipping::open(self.spec, reach, &watch)?;
        let mut load = Load { before: self.before.clone(), after: self.after.clone(), ..Load::default() };
        for file in &self.missing {
            let part = self.effect.parts.get(&file.blob.digest);
            let Some(part) = part else { panic!("BUG: what only probes is to be applied") };
            load.files.push(((*file).clone(), part.clone()));
        }
        let keep = || self.effect.keep(load.files.iter().map(|(_, part)| part), reach.cache);
        keep()?;
        load.modes.extend(self.modes.iter().copied().cloned());
        load.bare.extend(self.bare.iter().copied().cloned());
        load.folders.extend(self.folders.iter().copied().cloned());
        let sent = match node.send(&load, &reach.cache.cas) {
            // A local file that the cache had wrong is still there to be stored again.
            Err(Trouble::Error(Error::Lost(lost))) if self.effect.sources.contains_key(&lost) => {
                keep()?;
                node.send(&load, &reach.cache.cas)?
            }
            sent => sent?,
        };
        let rest = self.effect.compare(self.spec, &*node)?;
        match rest.lines().into_iter().next() {
            None => Ok(sent),
            Some(line) => {
                let message = format!("`{}` is not as it was sent: {line}", self.spec.name);
                Err(Failure::new(message).hint("somebody else may have changed it: run again").into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_folders_of_ones_own_are_emptied() {
        for path in [
            "/",
            "",
            "/etc",
            "/usr",
            "/var",
            "/srv",
            "/home/me",
            "/root",
            "/usr/bin",
            "/usr/lib",
            "/var/lib",
            "/var/log/",
            "/etc/ssh",
            "/etc/cron.d",
            "//etc//",
            "/./opt",
            "/proc/1/x",
            "/usr/local/bin",
        ] {
            assert!(!may_be_owned(path), "{path}");
        }
        for path in ["/srv/www", "/opt/app/", "/var/lib/app", "/etc/app", "/home/me/app", "/usr/local/app"]
        {
            assert!(may_be_owned(path), "{path}");
        }
    }

    #[test]
    fn what_goes_with_its_folder_is_one_line() {
        let gone = |path: &str, is_folder| Gone {
            path: path.into(),
            root: "/r".into(),
            inside: path[3..].into(),
            is_folder,
        };
        let all = [gone("/r/b/c/d", false), gone("/r/b/c", true), gone("/r/b", true), gone("/r/a", false)];
        let all = [&all[..], &[gone("/r/e", true)]].concat();
        assert_eq!(gone_lines(all.iter()), ["/r/a deleted", "/r/b/ deleted with 2 in it", "/r/e/ deleted"]);
    }
}
