//! Secrets on their way: from a file of the project or of a host, through memory, to hosts. Of what is in
//! them nothing is kept, no digest either: both ends are asked for theirs each time, and they are compared here
//! and forgotten. Knows no table.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::digest::{Blob, Digest};
use crate::error::{At, Error, Failure, Result, io_words};
use crate::host::fs;
use crate::host::node::{self, Asked, File, Forgetful, Found, Load, Node, Question, Spec, Trace, Watch};
use crate::host::passing::{Arrival, Hash};
use crate::recipe::{AtMost, Content, Part, Sink};
use crate::tasks::shipping::{self, Told};
use crate::work::{Change, Effect, Fault, Reach};

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A file of the project.
    Project(String),
    /// A file on a host.
    Host {
        /// The host.
        node: Spec,
        /// The path there.
        path: String,
    },
}

impl Source {
    /// What it is now: to be compared, not to be kept.
    pub fn look(&self, reach: &Reach<'_>) -> Result<Blob> {
        match self {
            Self::Project(path) => {
                let mut hash = Hash::sha256();
                stream(reach, path, &mut hash)?;
                Ok(hash.finish())
            }
            Self::Host { node, path } => {
                let asked = Asked { path: path.clone(), size: None };
                match found(node, asked, reach)? {
                    Found::File { blob, .. } => Ok(blob),
                    other => Err(no_file(node, path, &other).into()),
                }
            }
        }
    }

    /// Streams it.
    pub fn send(&self, reach: &Reach<'_>, sink: &mut dyn Sink) -> Result<()> {
        match self {
            Self::Project(path) => stream(reach, path, sink),
            Self::Host { node: spec, path } => {
                shipping::allowed(spec, reach.network)?;
                let watch = Told::source(&spec.name, reach.stop, &Quiet, None);
                reach.links.set_beside(&spec.name);
                node::open(spec, reach.root, reach.links, &Forgetful, &watch)
                    .and_then(|node| node.read(path, 0, sink))
                    .map_err(|trouble| shipping::failed(&spec.name, trouble))
            }
        }
    }

    /// Writes it into a file that only its owner may read.
    pub fn place(&self, reach: &Reach<'_>, to: &Path) -> Result<()> {
        let wanted = self.look(reach)?;
        let folder = to.parent().unwrap_or(Path::new("."));
        fs::make_folder(folder)?;
        let temporary = fs::temporary(folder)?;
        let watch = Told::source("", reach.stop, &Quiet, None);
        let hash = Hash::sha256();
        let mut arrival = Arrival { file: temporary.as_file(), hash, shown: to, watch: &watch };
        self.send(reach, &mut arrival)?;
        if arrival.hash.finish() != wanted {
            return Err(Failure::new("the secret changed while it was read").hint("run again").into());
        }
        temporary.as_file().sync_all().at("write", to)?;
        fs::publish(temporary, to, 0o600, fs::Existing::Replace)
    }

    /// Its last name.
    pub fn name(&self) -> &str {
        let (Self::Project(path) | Self::Host { path, .. }) = self;
        path.rsplit('/').next().unwrap_or(path)
    }
}

/// Nobody is told how a secret is read.
struct Quiet;

impl crate::work::Tell for Quiet {
    fn start(&self) {}
    fn progress(&self, _: Option<&str>, _: u64, _: Option<u64>) {}
    fn note(&self, _: String) {}
    fn warn(&self, _: String, _: Option<String>) {}
}

/// Streams a file of the project, no link on the way to it.
fn stream(reach: &Reach<'_>, path: &str, sink: &mut dyn Sink) -> Result<()> {
    let failed = |why: &str| Failure::new(format!("read the secret `{path}`: {why}"));
    let ways = path.match_indices('/').map(|(at, _)| &path[..at]).chain([path]);
    for way in ways {
        match fs::status(reach.path(way), fs::Links::Keep).at("look at", Path::new(way))? {
            None => return Err(failed(&format!("there is no `{way}`")).into()),
            Some(found) if found.kind == fs::Kind::Link => {
                return Err(failed(&format!("`{way}` is a link")).into());
            }
            Some(found) if way == path && found.kind != fs::Kind::File => {
                return Err(failed("it is not a file").hint("a secret is one file").into());
            }
            Some(_) => {}
        }
    }
    let file = fs::open_regular(&reach.path(path)).map_err(|error| failed(&io_words(&error)))?;
    let size = fs::status_of(&file).map_err(|error| failed(&io_words(&error)))?.stamp.size;
    sink.file(&file, size)
}

/// What is on a host at a path; nothing of it is remembered.
fn found(spec: &Spec, asked: Asked, reach: &Reach<'_>) -> Result<Found> {
    shipping::allowed(spec, reach.network)?;
    let watch = Told::source(&spec.name, reach.stop, &Quiet, None);
    let question = Question { files: vec![asked], ..Question::default() };
    let answer = node::open(spec, reach.root, reach.links, &Forgetful, &watch)
        .and_then(|node| node.ask(&question))
        .map_err(|trouble| shipping::failed(&spec.name, trouble))?;
    Ok(answer.files.into_iter().next().unwrap_or(Found::Nothing))
}

fn no_file(spec: &Spec, path: &str, found: &Found) -> Failure {
    match found {
        Found::Nothing => Failure::new(format!("there is no `{path}` on `{}`", spec.name)),
        other => Failure::new(format!("`{path}` on `{}` is {}, not a file", spec.name, other.words())),
    }
}

/// A secret as it is wanted on hosts; plain data, without anything about its content.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Secret {
    /// The path there.
    pub path: String,
    /// Permission bits.
    #[serde(with = "node::octal")]
    pub mode: u32,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Where it comes from.
    pub source: Source,
}

/// Secrets on hosts.
#[derive(Serialize, Deserialize)]
pub struct Secrets {
    destinations: Vec<Spec>,
    secrets: Vec<Secret>,
    /// What the secrets are in this run: asked once for all hosts.
    #[serde(skip)]
    looked: Mutex<BTreeMap<usize, Blob>>,
}

impl Secrets {
    /// These, on these hosts.
    pub fn new(destinations: Vec<Spec>, secrets: Vec<Secret>) -> Self {
        Self { destinations, secrets, looked: Mutex::default() }
    }

    /// A secret as a file.
    fn file(&self, index: usize, reach: &Reach<'_>) -> Result<File> {
        let Secret { path, mode, owner, source } = &self.secrets[index];
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let blob = match looked.get(&index) {
            Some(blob) => *blob,
            None => *looked.entry(index).or_insert(source.look(reach)?),
        };
        Ok(File { path: path.clone(), mode: *mode, blob, owner: owner.clone() })
    }

    fn node<'a>(
        &self,
        spec: &Spec,
        reach: &Reach<'a>,
        watch: &'a dyn Watch,
    ) -> Result<Box<dyn Node + 'a>, Fault> {
        shipping::allowed(spec, reach.network)?;
        Ok(node::open(spec, reach.root, reach.links, &Forgetful, watch)?)
    }
}

impl Effect for Secrets {
    fn wants(&self) -> Value {
        shipping::plain(self)
    }

    fn destinations(&self) -> Vec<String> {
        self.destinations.iter().map(|spec| spec.name.clone()).collect()
    }

    fn is_away(&self) -> bool {
        self.destinations.iter().any(|spec| !spec.is_here())
    }

    fn probe(&self, destination: usize, reach: &Reach<'_>) -> Result<Box<dyn Change + '_>, Fault> {
        let spec = &self.destinations[destination];
        let all = 0..self.secrets.len();
        let files: Vec<File> = all.map(|index| self.file(index, reach)).collect::<Result<_>>()?;
        let watch = Told::destination(spec, reach, 0);
        let asked = |file: &File| Asked { path: file.path.clone(), size: Some(file.blob.size) };
        let question = Question { files: files.iter().map(asked).collect(), ..Question::default() };
        let answer = self.node(spec, reach, &watch)?.ask(&question)?;
        let (mut missing, mut modes) = (Vec::new(), Vec::new());
        for (index, (file, found)) in files.iter().zip(answer.files).enumerate() {
            match found {
                found if file.is(&found) => {}
                Found::File { blob, .. } if blob == file.blob => modes.push(index),
                found @ (Found::Folder { .. } | Found::Other) => {
                    let message = format!("`{}` on `{}` is {}", file.path, spec.name, found.words());
                    return Err(Failure::new(message).hint("remove it, or choose another path").into());
                }
                _ => missing.push(index),
            }
        }
        Ok(Box::new(Bringing { secrets: self, spec, files, missing, modes }))
    }
}

/// What is missing at a destination.
struct Bringing<'a> {
    secrets: &'a Secrets,
    spec: &'a Spec,
    files: Vec<File>,
    missing: Vec<usize>,
    modes: Vec<usize>,
}

impl Change for Bringing<'_> {
    fn lines(&self) -> Vec<String> {
        let files = self.missing.iter().map(|index| format!("{} secret", self.files[*index].path));
        let modes = self.modes.iter().map(|index| {
            let file = &self.files[*index];
            format!("{} mode {:04o}", file.path, file.mode)
        });
        files.chain(modes).collect()
    }

    fn bytes(&self) -> u64 {
        self.missing.iter().map(|index| self.files[*index].blob.size).sum()
    }

    fn apply(&self, reach: &Reach<'_>) -> Result<u64, Fault> {
        let watch = Told::destination(self.spec, reach, self.bytes());
        let node = self.secrets.node(self.spec, reach, &watch)?;
        let mut load = Load { trace: Trace::None, ..Load::default() };
        let mut content = Streamed { reach, sources: BTreeMap::new() };
        for index in &self.missing {
            let file = self.files[*index].clone();
            content.sources.insert(file.blob.digest, &self.secrets.secrets[*index].source);
            load.files.push((file.clone(), Part::Blob(file.blob)));
        }
        load.modes.extend(self.modes.iter().map(|index| self.files[*index].clone()));
        let sent = node.send(&load, &content)?;
        node.check(&self.files, &[])?;
        Ok(sent)
    }
}

/// Secrets as content: by digests that nobody else gets to see.
struct Streamed<'a> {
    reach: &'a Reach<'a>,
    sources: BTreeMap<Digest, &'a Source>,
}

impl Content for Streamed<'_> {
    fn send(&self, blob: Blob, sink: &mut dyn Sink) -> Result<()> {
        let Some(source) = self.sources.get(&blob.digest) else {
            panic!("BUG: a secret is wanted that nobody has")
        };
        // What follows is not to be taken for a part of it.
        let mut most = AtMost::new(sink, blob.size, &changed);
        source.send(self.reach, &mut most)?;
        if most.left == 0 { Ok(()) } else { Err(changed()) }
    }
}

fn changed() -> Error {
    Failure::new("the secret changed while it was sent").hint("run again").into()
}

/// A secret on a host that others get: nothing is done but to see that it is there.
#[derive(Serialize, Deserialize)]
pub struct Fetching {
    /// Where it is.
    pub secret: Source,
}

/// The effect that wants this.
pub fn from_wants(wants: &Value) -> Option<Box<dyn Effect>> {
    Some(Box::new(Fetching::deserialize(wants).ok()?))
}

impl Effect for Fetching {
    fn wants(&self) -> Value {
        shipping::plain(self)
    }

    fn destinations(&self) -> Vec<String> {
        match &self.secret {
            Source::Host { node, .. } => vec![node.name.clone()],
            Source::Project(_) => vec!["here".into()],
        }
    }

    fn is_away(&self) -> bool {
        matches!(&self.secret, Source::Host { node, .. } if !node.is_here())
    }

    fn probe(&self, _: usize, reach: &Reach<'_>) -> Result<Box<dyn Change + '_>, Fault> {
        let Source::Host { node: spec, path } = &self.secret else { return Ok(Box::new(Nothing)) };
        let watch = Told::source(&spec.name, reach.stop, &Quiet, None);
        let question = Question { files: vec![Asked::kind(path)], ..Question::default() };
        shipping::allowed(spec, reach.network)?;
        let answer = node::open(spec, reach.root, reach.links, &Forgetful, &watch)?.ask(&question)?;
        match answer.files.into_iter().next().unwrap_or(Found::Nothing) {
            Found::File { .. } | Found::Differs => Ok(Box::new(Nothing)),
            other => Err(no_file(spec, path, &other).into()),
        }
    }
}

/// Nothing is to be done.
struct Nothing;

impl Change for Nothing {
    fn lines(&self) -> Vec<String> {
        Vec::new()
    }

    fn bytes(&self) -> u64 {
        0
    }

    fn apply(&self, _: &Reach<'_>) -> Result<u64, Fault> {
        Ok(0)
    }
}
