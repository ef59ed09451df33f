//! `upload`: outputs of tasks, and files of the project, as files on hosts; only what is missing or
//! differs is sent. Does not know what kind of host it is.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::secret::{self, Secret, Secrets};
use super::upload_change::{Uploading, Wants, may_be_owned};
use super::upload_gather::Gathered;
use crate::cache::tree::Entry;
use crate::digest::{Blob, Hasher};
use crate::error::{Error, Failure, Result};
use crate::glob;
use crate::host::node::{self, Bare, File, Shape, Spec, octal};
use crate::recipe::Part;
use crate::tasks::names::{Declare, Filled, Names, OneOrMany, Outputs, Placed, Reference, To, Want};
use crate::work::{Class, Effect, Inputs, Task, TaskName, Work};

/// Files on hosts.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Upload {
    /// What to upload: tasks, whose outputs go by their last names, or files and folders of the project.
    from: OneOrMany<Reference>,
    /// The hosts and groups that get it.
    hosts: OneOrMany<Placed<String>>,
    /// The folder on the hosts.
    dir: Option<Placed<String>>,
    /// A folder on the hosts if it ends in a slash; otherwise the path of the one file.
    to: Option<Placed<String>>,
    /// The permission bits, as in `"0755"`; without it those that the files have.
    mode: Option<Placed<String>>,
    /// Whose the files are: a user, or a user and a group, as in `"root:root"`; without it whoever logs in.
    owner: Option<Placed<String>>,
    /// Whether all that is in the folder on the hosts and not among this is deleted.
    #[serde(default)]
    delete: Placed<bool>,
    /// Whether the files are secret: nothing of them stays here but they themselves, and only their owner may
    /// read them there.
    #[serde(default)]
    secret: Placed<bool>,
    #[serde(skip)]
    secrets: Vec<(secret::Source, String)>,
    #[serde(skip)]
    destinations: Vec<Spec>,
    #[serde(skip)]
    outputs: BTreeMap<TaskName, Vec<String>>,
    #[serde(skip)]
    bits: Option<u32>,
}

const KINDS: [&str; 5] = ["clone", "patch", "compile", "save", "fetch"];

impl Declare for Upload {
    fn resolve(&mut self, names: &mut dyn Names) {
        for from in &mut self.from.0 {
            names.reference(from, &KINDS, Want::Any);
            for (task, outputs) in from.tasks().iter().zip(&from.outputs) {
                if let Outputs::Named(outputs) = outputs {
                    self.outputs.insert(task.clone(), outputs.clone());
                }
            }
        }
        self.resolve_secrets(names);
        self.destinations = names.hosts(&self.hosts.0);
        let (place, path) = match (&self.dir, &self.to) {
            (Some(dir), None) => (dir, dir.trim_end_matches('/')),
            (None, Some(to)) => (to, to.trim_end_matches('/')),
            (Some(place), Some(_)) => {
                let message = "`dir` and `to` exclude each other".to_string();
                return names.mistake(place.range(), message, None);
            }
            (None, None) => {
                let place = self.from.0.first().map_or(0..0, |from| from.text.range());
                let hint = "give the folder on the hosts: `dir = \"/var/cache/images\"`".to_string();
                return names.mistake(place, "neither `dir` nor `to` is given".to_string(), Some(hint));
            }
        };
        // `/` alone is a folder, too.
        if node::last_name(path).is_none() && place.value != "/" {
            let message = format!("`{}` cannot be a path on a host", place.value);
            names.mistake(place.range(), message, None);
        }
        if self.to.is_some() && !place.ends_with('/') {
            for host in &self.destinations {
                names.claim(format!("the file `{path}` on `{}`", host.name), place.range());
            }
        }
        let machine = self.destinations.iter().find(|host| !host.is_here());
        if let Some(host) = machine.filter(|_| !place.starts_with('/')) {
            let message = format!("`{}` is not absolute, as paths on `{}` are", place.value, host.name);
            names.mistake(place.range(), message, Some(format!("write `/{}`", place.value)));
        }
        let filled = if self.delete.value { Filled::Alone } else { Filled::Shared };
        for host in &self.destinations {
            names.fill(&host.name, path, filled, place.range());
        }
        if self.delete.value {
            let file = self.to.is_some() && !place.ends_with('/');
            if file || !may_be_owned(path) {
                let message = match file {
                    true => format!("`{}` is one file: there is nothing to delete beside it", place.value),
                    false => {
                        format!("`{}` is not a folder of one's own: nothing is deleted in it", place.value)
                    }
                };
                let hint = "give a folder that only this upload fills, or take `delete` away".to_string();
                names.mistake(self.delete.range(), message, Some(hint));
            }
            for host in &self.destinations {
                names.claim(format!("the folder `{path}` on `{}`", host.name), place.range());
            }
        }
        if let Some(owner) = &self.owner {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
            let parts: Vec<&str> = owner.split(':').collect();
            let is_name =
                |part: &&str| !part.is_empty() && !part.starts_with('-') && part.bytes().all(plain);
            if parts.len() > 2 || !parts.iter().all(is_name) {
                let hint = "write a user, or a user and a group: `owner = \"root:root\"`".to_string();
                names.mistake(owner.range(), format!("`{}` is not an owner", **owner), Some(hint));
            }
            if let Some(host) = self.destinations.iter().find(|host| host.is_here()) {
                let message = format!("`{}` is an embedded node: its files have no owner", host.name);
                names.mistake(owner.range(), message, None);
            }
        }
        if let Some(mode) = &self.mode {
            self.bits = octal::parse(mode);
            if self.bits.is_none() {
                let hint = "write permission bits as octal digits: `mode = \"0644\"`".to_string();
                names.mistake(mode.range(), format!("`{}` is not a mode", **mode), Some(hint));
            }
            if self.secret.value && self.bits.is_some_and(|bits| !matches!(bits, 0o600 | 0o400)) {
                let hint = "take `mode` away, or write `mode = \"0400\"`".to_string();
                names.mistake(mode.range(), "a secret is for its owner alone".to_string(), Some(hint));
            }
        }
    }

    fn follows(&self) -> Vec<TaskName> {
        if self.secret.value { Reference::all_tasks(&self.from.0) } else { Vec::new() }
    }

    fn outputs(&self) -> Outputs {
        Outputs::Contents
    }
}

impl Upload {
    /// Finds where secrets are, and what is secret in one place and not in the other.
    fn resolve_secrets(&mut self, names: &mut dyn Names) {
        for from in &self.from.0 {
            let text = &from.text;
            let mut wrong = |message: String, hint: &str| {
                names.mistake(text.range(), message, Some(hint.to_string()));
            };
            match (&from.to, self.secret.value) {
                (To::Nothing, _) => {}
                (To::Path(path), true) if glob::is_pattern(path) => {
                    wrong(format!("`{path}` is a glob, and a secret is one file"), "list the files");
                }
                (To::Path(path), true) => {
                    let name = path.rsplit('/').next().unwrap_or(path).to_string();
                    self.secrets.push((secret::Source::Project(path.clone()), name));
                }
                (To::Path(_), false) => {}
                (To::Tasks(_), is_secret) => {
                    for outputs in &from.outputs {
                        match (outputs, is_secret) {
                            (Outputs::Secret { host, path }, true) => {
                                let name = node::last_name(path).unwrap_or_default().to_string();
                                if let Some(node) = names.hosts(std::slice::from_ref(host)).pop() {
                                    let path = path.clone();
                                    self.secrets.push((secret::Source::Host { node, path }, name));
                                }
                            }
                            (Outputs::Secret { .. }, false) => {
                                let message = format!("`{}` is secret, and this upload is not", text.value);
                                let hint = "write `secret = true` here, too".to_string();
                                names.mistake(text.range(), message, Some(hint));
                            }
                            (_, true) => {
                                let message =
                                    format!("what `{}` makes is in the cache, and no secret", text.value);
                                let hint =
                                    "a secret is a file of the project, or a `fetch` with `secret = true`";
                                names.mistake(text.range(), message, Some(hint.to_string()));
                            }
                            (_, false) => {}
                        }
                    }
                }
            }
        }
        if self.secret.value && self.delete.value {
            let hint = "upload the secret by a task of its own".to_string();
            names.mistake(
                self.delete.range(),
                "`delete` is for folders, not for secrets".into(),
                Some(hint),
            );
        }
    }
}

impl Task for Upload {
    fn class(&self) -> Class {
        Class::Effect
    }

    fn needs(&self) -> Vec<TaskName> {
        if self.secret.value { Vec::new() } else { Reference::all_tasks(&self.from.0) }
    }

    fn work(&self, inputs: &Inputs<'_>) -> Result<Work> {
        if self.secret.value {
            return Ok(Work::Effect(Box::new(self.secrets()?)));
        }
        let mut gathered = Gathered::default();
        for from in &self.from.0 {
            match &from.to {
                To::Tasks(tasks) => {
                    for task in tasks {
                        let cas = &inputs.session.cache.cas;
                        gathered.outputs(cas, &inputs.value(task), self.outputs.get(task))?;
                    }
                }
                To::Path(path) => gathered.local(inputs, path)?,
                To::Nothing => panic!("BUG: an unresolved reference is to be uploaded"),
            }
        }
        let is_file = |(_, entry): &(String, Entry)| !matches!(entry, Entry::Folder { .. });
        if let (true, Some(folder)) = (self.delete.value, self.folder())
            && !gathered.found.iter().any(is_file)
        {
            let message = format!("there is no file to upload, and `delete` would empty `{folder}`");
            let hint = "if that is wanted, empty it by hand; otherwise see why there is none";
            return Err(Failure::new(message).hint(hint).into());
        }
        let (mut files, mut bare, mut parts) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let count = gathered.found.len();
        let owner = || self.owner.as_ref().map(|owner| owner.value.clone());
        let mut names: BTreeMap<&str, &Entry> = BTreeMap::new();
        for (name, entry) in &gathered.found {
            let path = self.path(name, count)?;
            let both =
                |other: &&Entry| matches!((other, entry), (Entry::Folder { .. }, Entry::Folder { .. }));
            if names.insert(name, entry).is_some_and(|other| !both(&other)) {
                return Err(Failure::new(format!("two files would be uploaded to `{path}`"))
                    .hint("put them into different folders, by two upload tasks")
                    .into());
            }
            let (mode, part) = match (entry, entry.part()) {
                (Entry::File { mode, .. } | Entry::Recipe { mode, .. }, Some(part)) => (*mode, part),
                (Entry::Link { target }, _) => {
                    let shape = Shape::Link(link_target(name, target)?);
                    bare.insert(path.clone(), Bare { path, shape, owner: owner() });
                    continue;
                }
                (Entry::Folder { mode, .. }, _) => {
                    let shape = Shape::Folder(*mode);
                    bare.insert(path.clone(), Bare { path, shape, owner: owner() });
                    continue;
                }
                _ => continue,
            };
            let blob = match part {
                Part::Blob(blob) if gathered.named.contains_key(&blob.digest) => {
                    gathered.named[&blob.digest]
                }
                _ => {
                    let digest = inputs.session.cache.content_digest(&part, Hasher::sha256())?;
                    Blob { digest, size: entry.size().unwrap_or_default() }
                }
            };
            parts.insert(blob.digest, part);
            let file = File { path: path.clone(), mode: self.bits.unwrap_or(mode), blob, owner: owner() };
            files.insert(path, file);
        }
        self.add_folders(&names, count, &mut bare)?;
        let wants = Wants {
            destinations: self.destinations.clone(),
            files: files.into_values().collect(),
            bare: bare.into_values().collect(),
            only: if self.delete.value { self.folder().map(str::to_string) } else { None },
        };
        Ok(Work::Effect(Box::new(Uploading { wants, parts, sources: gathered.sources })))
    }
}

/// The target of a link, as far as a host can be told of it.
fn link_target(name: &str, target: &[u8]) -> Result<String> {
    match std::str::from_utf8(target) {
        Ok(target) if !target.contains('\n') && !target.is_empty() => Ok(target.to_string()),
        _ => {
            let target = String::from_utf8_lossy(target);
            Err(Error::failed(format!("the link `{name}` to `{target}` cannot be uploaded")))
        }
    }
}

impl Upload {
    /// The folder on the hosts, without a slash at its end; nothing for one file.
    fn folder(&self) -> Option<&str> {
        match (&self.dir, &self.to) {
            (_, Some(to)) if !to.ends_with('/') => None,
            (Some(folder), _) | (_, Some(folder)) => Some(folder.trim_end_matches('/')),
            (None, None) => None,
        }
    }

    /// Adds the folders above what is uploaded where they count, and takes away those that come by themselves:
    /// usual folders with something in them, which a host makes on the way.
    fn add_folders(
        &self,
        names: &BTreeMap<&str, &Entry>,
        count: usize,
        bare: &mut BTreeMap<String, Bare>,
    ) -> Result<()> {
        let mut filled = std::collections::BTreeSet::new();
        for name in names.keys() {
            for (at, _) in name.match_indices('/') {
                let above = &name[..at];
                if names.get(above).is_some_and(|entry| !matches!(entry, Entry::Folder { .. })) {
                    let message = format!("`{above}` would be a file or link, and a folder for `{name}`");
                    return Err(Error::failed(message));
                }
                filled.insert(self.path(above, count.max(2))?);
            }
        }
        let owner = self.owner.as_ref().map(|owner| owner.value.clone());
        if self.delete.value || owner.is_some() {
            for path in &filled {
                let shape = Shape::Folder(0o755);
                let folder = Bare { path: path.clone(), shape, owner: owner.clone() };
                bare.entry(path.clone()).or_insert(folder);
            }
        } else {
            bare.retain(|path, bare| bare.shape != Shape::Folder(0o755) || !filled.contains(path));
        }
        Ok(())
    }

    /// The secrets, and where they go.
    fn secrets(&self) -> Result<Secrets> {
        let mut all: Vec<Secret> = Vec::new();
        for (source, name) in &self.secrets {
            let path = self.path(name, self.secrets.len())?;
            if all.iter().any(|other| other.path == path) {
                return Err(Failure::new(format!("two files would be uploaded to `{path}`")).into());
            }
            let owner = self.owner.as_ref().map(|owner| owner.value.clone());
            let (source, mode) = (source.clone(), self.bits.unwrap_or(0o600));
            all.push(Secret { path, mode, owner, source });
        }
        Ok(Secrets::new(self.destinations.clone(), all))
    }

    /// Where a file goes: by its last name, or to the path that is given.
    fn path(&self, name: &str, count: usize) -> Result<String> {
        match (&self.dir, &self.to) {
            (_, Some(to)) if !to.ends_with('/') => {
                if count != 1 || name.contains('/') {
                    return Err(Failure::new(format!(
                        "`to = \"{}\"` is one file, but there is more",
                        **to
                    ))
                    .hint("end it with a slash to make it a folder")
                    .into());
                }
                Ok(to.value.clone())
            }
            (Some(folder), _) | (_, Some(folder)) => Ok(format!("{}/{name}", folder.trim_end_matches('/'))),
            (None, None) => panic!("BUG: an upload without a place is to be done"),
        }
    }
}

/// The effect that wants this. Without its inputs it can only probe, if it is not about secrets.
pub fn from_wants(wants: &Value) -> Option<Box<dyn Effect>> {
    if let Ok(secrets) = Secrets::deserialize(wants) {
        return Some(Box::new(secrets));
    }
    let wants = Wants::deserialize(wants).ok()?;
    Some(Box::new(Uploading { wants, parts: BTreeMap::new(), sources: BTreeMap::new() }))
}
