//! `upload`: outputs of tasks, and files of the project, as files on hosts; only what is missing or
//! differs is sent. Does not know what kind of host it is.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cache::Cache;
use crate::cache::stamps::Algorithm;
use crate::cache::tree::Entry;
use crate::digest::{Blob, Digest, Hasher};
use crate::error::{Error, Failure, Result};
use crate::glob::Globs;
use crate::host::fs::Stamp;
use crate::host::node::{self, Asked, File, Found, Load, Question, Spec, Trouble, octal};
use crate::recipe::Part;
use crate::tasks::names::{Declare, Names, OneOrMany, Outputs, Placed, Reference, To, Want};
use crate::tasks::shipping::{self, Told, size_text};
use crate::work::{Change, Class, Effect, Fault, Inputs, Reach, Task, TaskName, Work};

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
            names.reference(from, &KINDS, Want::Many);
            for (task, outputs) in from.tasks().iter().zip(&from.outputs) {
                if let Outputs::Named(outputs) = outputs {
                    self.outputs.insert(task.clone(), outputs.clone());
                }
            }
        }
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
        }
    }

    fn outputs(&self) -> Outputs {
        Outputs::Contents
    }
}

impl Task for Upload {
    fn class(&self) -> Class {
        Class::Effect
    }

    fn needs(&self) -> Vec<TaskName> {
        Reference::all_tasks(&self.from.0)
    }

    fn work(&self, inputs: &Inputs<'_>) -> Result<Work> {
        let mut gathered = Gathered::default();
        for from in &self.from.0 {
            match &from.to {
                To::Tasks(tasks) => {
                    for task in tasks {
                        gathered.outputs(
                            &inputs.session.cache.cas,
                            &inputs.value(task),
                            self.outputs.get(task),
                        )?;
                    }
                }
                To::Path(path) => gathered.local(inputs, path)?,
                To::Nothing => panic!("BUG: an unresolved reference is to be uploaded"),
            }
        }
        let (mut files, mut parts) = (BTreeMap::new(), BTreeMap::new());
        let count = gathered.found.len();
        for (name, entry) in gathered.found {
            let (mode, part) = match (&entry, entry.part()) {
                (Entry::File { mode, .. } | Entry::Recipe { mode, .. }, Some(part)) => (*mode, part),
                (Entry::Link { .. }, _) => {
                    return Err(Failure::new(format!("`{name}` is a link: only files are uploaded")).into());
                }
                _ => continue,
            };
            let path = self.path(&name, count)?;
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
            let owner = self.owner.as_ref().map(|owner| owner.value.clone());
            let file = File { path: path.clone(), mode: self.bits.unwrap_or(mode), blob, owner };
            if files.insert(path.clone(), file).is_some() {
                return Err(Failure::new(format!("two files would be uploaded to `{path}`"))
                    .hint("put them into different folders, by two upload tasks")
                    .into());
            }
        }
        let wants = Wants { destinations: self.destinations.clone(), files: files.into_values().collect() };
        Ok(Work::Effect(Box::new(Uploading { wants, parts, sources: gathered.sources })))
    }
}

impl Upload {
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

/// Where the content of a local file can be read.
type Source = (Blob, Stamp, PathBuf);

/// What is to be uploaded, by its name in the folder that it goes to.
#[derive(Default)]
struct Gathered {
    found: Vec<(String, Entry)>,
    /// Local files by BLAKE3.
    sources: BTreeMap<Digest, Source>,
    /// Their SHA-256.
    named: BTreeMap<Digest, Blob>,
}

impl Gathered {
    /// Takes the outputs in a task's value.
    fn outputs(
        &mut self,
        cas: &crate::cache::cas::Cas,
        value: &Digest,
        declared: Option<&Vec<String>>,
    ) -> Result<()> {
        let Some(declared) = declared else {
            for (name, entry) in cas.node(value)?.entries {
                self.add(cas, text(&name)?, entry)?;
            }
            return Ok(());
        };
        for path in declared {
            let path = path.trim_end_matches('/');
            let missing = || Failure::new(format!("the output `{path}` is not there"));
            let entry = cas.entry(value, path)?.ok_or_else(missing)?;
            self.add(cas, last_name(path).to_string(), entry)?;
        }
        Ok(())
    }

    fn add(&mut self, cas: &crate::cache::cas::Cas, name: String, entry: Entry) -> Result<()> {
        let Entry::Folder { tree, .. } = entry else {
            self.found.push((name, entry));
            return Ok(());
        };
        cas.walk(&tree, &mut |path, entry| {
            if !matches!(entry, Entry::Folder { .. }) {
                self.found.push((format!("{name}/{}", text(path)?), entry.clone()));
            }
            Ok(())
        })
    }

    /// Takes a file of the project by its last name, the contents of a folder, or what a glob matches.
    fn local(&mut self, inputs: &Inputs<'_>, path: &str) -> Result<()> {
        let path = path.trim_end_matches('/');
        inputs.look(|local, stamps, seen| {
            let first = seen.sources.len();
            match local.entry(path, stamps, seen)? {
                Some(Entry::Folder { .. }) => {
                    for (name, entry) in local.select(path, &Globs::all(), stamps, seen)? {
                        self.found.push((text(&name)?, entry));
                    }
                }
                Some(entry) => self.found.push((last_name(path).to_string(), entry)),
                None if path.contains(['*', '?', '[', '{']) => {
                    let globs = Globs::new(&[path]).map_err(Error::failed)?;
                    let found = local.select("", &globs, stamps, seen)?;
                    if found.is_empty() {
                        return Err(Error::failed(format!("`{path}` matches nothing")));
                    }
                    for (name, entry) in found {
                        self.found.push((last_name(&text(&name)?).to_string(), entry));
                    }
                }
                None => return Err(Error::failed(format!("there is no `{path}` in the project"))),
            }
            for (blob, stamp, path) in &seen.sources[first..] {
                let same = stamps.digest(path, Algorithm::Sha256)?.filter(|(now, _)| now.stamp == *stamp);
                let changed = || Failure::new(format!("read `{}`: it keeps changing", path.display()));
                let (_, named) = same.ok_or_else(changed)?;
                self.named.insert(blob.digest, named);
                self.sources.insert(blob.digest, (*blob, *stamp, path.clone()));
            }
            Ok(())
        })
    }
}

fn last_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn text(name: &[u8]) -> Result<String> {
    String::from_utf8(name.to_vec()).map_err(|_| {
        Error::failed(format!("`{}` is not UTF-8 and cannot be uploaded", String::from_utf8_lossy(name)))
    })
}

/// What is wanted where.
#[derive(Serialize, Deserialize)]
struct Wants {
    destinations: Vec<Spec>,
    files: Vec<File>,
}

struct Uploading {
    wants: Wants,
    /// Where the content comes from, by SHA-256.
    parts: BTreeMap<Digest, Part>,
    sources: BTreeMap<Digest, Source>,
}

/// The effect that wants this. Without its inputs it can only probe.
pub fn from_wants(wants: &Value) -> Option<Box<dyn Effect>> {
    let wants = Wants::deserialize(wants).ok()?;
    Some(Box::new(Uploading { wants, parts: BTreeMap::new(), sources: BTreeMap::new() }))
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
        let asked = |file: &File| Asked { path: file.path.clone(), size: Some(file.blob.size) };
        let files = self.wants.files.iter().map(asked).collect();
        let question = Question { files, ..Question::default() };
        let answer = shipping::open(spec, reach, &watch)?.ask(&question)?;
        let mut bringing = Bringing { effect: self, spec, missing: Vec::new(), modes: Vec::new() };
        for (file, found) in self.wants.files.iter().zip(answer.files) {
            match found {
                found if file.is(&found) => {}
                Found::File { blob, .. } if blob == file.blob => bringing.modes.push(file),
                Found::Other(what) => {
                    let message = format!("`{}` on `{}` is {what}", file.path, spec.name);
                    return Err(Failure::new(message).hint("remove it, or choose another path").into());
                }
                _ => bringing.missing.push(file),
            }
        }
        Ok(Box::new(bringing))
    }
}

/// What is missing at a destination.
struct Bringing<'a> {
    effect: &'a Uploading,
    spec: &'a Spec,
    missing: Vec<&'a File>,
    modes: Vec<&'a File>,
}

impl Change for Bringing<'_> {
    fn lines(&self) -> Vec<String> {
        let files = self.missing.iter().map(|file| format!("{} {}", file.path, size_text(file.blob.size)));
        let modes = self.modes.iter().map(|file| match &file.owner {
            None => format!("{} mode {:04o}", file.path, file.mode),
            Some(owner) => format!("{} mode {:04o}, owner {owner}", file.path, file.mode),
        });
        files.chain(modes).collect()
    }

    fn bytes(&self) -> u64 {
        self.missing.iter().map(|file| file.blob.size).sum()
    }

    fn apply(&self, reach: &Reach<'_>) -> Result<u64, Fault> {
        let watch = Told::destination(self.spec, reach, self.bytes());
        let node = shipping::open(self.spec, reach, &watch)?;
        let mut load = Load::default();
        for file in &self.missing {
            let part = self.effect.parts.get(&file.blob.digest);
            let Some(part) = part else { panic!("BUG: what only probes is to be applied") };
            self.effect.keep(part, reach.cache)?;
            load.files.push(((*file).clone(), part.clone()));
        }
        load.modes.extend(self.modes.iter().copied().cloned());
        let sent = match node.send(&load, &reach.cache.cas) {
            // A local file that the cache had wrong is still there to be stored again.
            Err(Trouble::Error(Error::Lost(lost))) if self.effect.sources.contains_key(&lost) => {
                for (_, part) in &load.files {
                    self.effect.keep(part, reach.cache)?;
                }
                node.send(&load, &reach.cache.cas)?
            }
            sent => sent?,
        };
        node.check(&self.effect.wants.files, &[])?;
        Ok(sent)
    }
}

impl Uploading {
    /// Stores a local file's content, if the part is one.
    fn keep(&self, part: &Part, cache: &Cache) -> Result<()> {
        let Part::Blob(blob) = part else { return Ok(()) };
        let Some((blob, stamp, path)) = self.sources.get(&blob.digest) else { return Ok(()) };
        if cache.cas.put_known(path, stamp, blob)? {
            return Ok(());
        }
        let message = format!("`{}` changed while it was uploaded", path.display());
        Err(Failure::new(message).hint("run again").into())
    }
}
