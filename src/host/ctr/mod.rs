//! Images in containerd on a host, by nothing but `ctr`: one question, one stream of only what is missing
//! under a name that nobody uses, a look whether all of it is there, and only then the names. What was cut
//! off is cleared away at the next contact. Knows no task.

mod archive;
pub mod bundle;
mod content;
mod delivery;
mod explain;
mod names;
mod placing;
mod script;
mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::digest::Digest;
use crate::error::{Error, Failure, Result};
use crate::host::node::{Image, Load, Standing, Trouble, Variant, Watch};
use crate::host::ssh::{Address, As, Link, Talk, quote, said};
use crate::host::{fs, machine};
use crate::recipe::Content;
use crate::splice::Splice;
use delivery::Pin;
pub use names::Name;
use script::{COMMON, SCRIPT, STAGING};
use state::{List, State, fixed_names};

/// Containerd on a host.
pub struct Containerd<'a> {
    /// The connection.
    pub link: &'a Link,
    /// Who does it.
    pub who: As,
    /// Where it is.
    pub address: &'a Address,
    /// Whoever watches.
    pub watch: &'a dyn Watch,
}

/// A conversation with the script.
struct Call<'a> {
    on: &'a Containerd<'a>,
    talk: Talk<'a>,
    /// As in `linux/amd64`.
    platform: String,
    snapshotter: String,
    /// How many bytes are free for images, where that is known.
    free: Option<u64>,
    /// The first number of the version of `ctr`.
    version: u32,
    /// Whether blobs can be read as files there.
    reads: bool,
    /// The staging names that were given.
    staged: Vec<String>,
}

/// What others are changing is waited for, or not.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lock {
    Try,
    Wait,
}

impl Containerd<'_> {
    fn call(&self, lock: Lock) -> Result<Call<'_>, Trouble> {
        let command = command(self.address, "10s");
        let folder = self.address.containerd.rsplit_once('/').map_or("/", |(folder, _)| folder);
        let lock = if lock == Lock::Wait { "wait" } else { "try" };
        let heard = self.link.heard(&command);
        let snapshotter = heard.as_deref().and_then(|hello| hello.split(' ').nth(1)).unwrap_or_default();
        let script = format!("{COMMON}{SCRIPT}");
        let argv = ["sh", "-c", &script, "vcbuild", &command, folder, lock, snapshotter];
        let talk = Talk::start(self.link, &argv, self.who, self.watch)?;
        let mut call = Call {
            on: self,
            talk,
            platform: String::new(),
            snapshotter: String::new(),
            free: None,
            version: 0,
            reads: false,
            staged: Vec::new(),
        };
        let hello = match heard {
            Some(hello) => hello,
            None => {
                let line = call.talk.line()?;
                let hello = line.as_deref().and_then(|line| line.strip_prefix("hello "));
                let Some(hello) = hello else { return Err(call.failed(line.as_deref())) };
                self.link.hear(&command, hello);
                hello.to_string()
            }
        };
        let mut words = hello.splitn(5, ' ');
        let (machine, snapshotter) = (words.next(), words.next());
        call.free = words.next().and_then(|free| free.parse().ok());
        call.reads = words.next() == Some("blobs");
        let version = words.next().unwrap_or_default();
        call.platform = machine::named(machine.unwrap_or_default());
        call.snapshotter = snapshotter.unwrap_or_default().to_string();
        let digits = version.trim_start_matches('v').split('.').next();
        call.version = digits.and_then(|digits| digits.parse().ok()).unwrap_or(1);
        loop {
            let line = call.talk.line()?;
            match line.as_deref() {
                Some("ready") => return Ok(call),
                Some("waits") => self.watch.waits(),
                other => return Err(call.failed(other)),
            }
        }
    }

    /// What there is of images, and, if something is missing, of which blobs others can be made.
    pub fn ask(&self, images: &[Image]) -> Result<(Vec<Standing>, BTreeSet<Digest>), Trouble> {
        let mut call = self.call(Lock::Try)?;
        let all: Vec<&Image> = images.iter().collect();
        let state = call.list(&all)?;
        let mut standings = Vec::new();
        for image in images {
            let variant = call.variant(image)?;
            standings.push(state.standing(image, variant, &call.snapshotter));
        }
        let lacks = call.reads && standings.iter().any(|standing: &Standing| !standing.missing.is_empty());
        call.end()?;
        Ok((standings, if lacks { state.held() } else { BTreeSet::new() }))
    }

    /// Sends blobs, sees that the images are whole, and gives them the names that never move. What cannot be
    /// made of other blobs is sent whole.
    pub fn deliver(&self, load: &Load<'_>, content: &dyn Content) -> Result<u64, Trouble> {
        match self.deliver_as(load, &load.splices, content) {
            Err(Trouble::Cut(_)) if !load.splices.is_empty() && self.link.is_whole() => {
                self.deliver_as(load, &BTreeMap::new(), content)
            }
            done => done,
        }
    }

    fn deliver_as(
        &self,
        load: &Load<'_>,
        splices: &BTreeMap<Digest, Arc<Splice>>,
        content: &dyn Content,
    ) -> Result<u64, Trouble> {
        let mut call = self.call(Lock::Wait)?;
        let mut variants = Vec::new();
        for image in &load.images {
            variants.push((*image, call.variant(image)?.clone()));
        }
        let mut sent = 0;
        let state = if load.blobs.is_empty() { Some(call.content()?) } else { None };
        let whole = |state: &State, snapshotter: &str| {
            variants
                .iter()
                .find(|(_, variant)| !state.is_complete(variant, snapshotter))
                .map(|(image, _)| *image)
        };
        if state.is_none_or(|state| whole(&state, &call.snapshotter).is_some()) {
            let token = token();
            let names: Vec<_> = variants
                .iter()
                .enumerate()
                .map(|(number, (_, variant))| (format!("{STAGING}{token}-{number}"), &variant.descriptor))
                .collect();
            call.staged = names.iter().map(|(name, _)| name.clone()).collect();
            call.has_room(&load.blobs, variants.iter().map(|(_, variant)| variant))?;
            sent += call.bring(&load.blobs, splices, &names, content)?;
            call.order("sync")?;
        }
        let state = call.content()?;
        if let Some(image) = whole(&state, &call.snapshotter) {
            let message = format!(
                "`{}` was sent to `{}`, but it is not whole there",
                image.shown(),
                self.link.name()
            );
            return Err(Trouble::Cut(
                Failure::new(message).hint("somebody else may be removing images: run again"),
            ));
        }
        let mut names = Vec::new();
        for (image, variant) in &variants {
            let fixed = image.content_tags.iter().flat_map(|tag| fixed_names(tag, variant));
            names.extend(fixed.map(|name| (name, variant)));
        }
        call.give(&names, Pin::Yes, &load.images)?;
        call.end()?;
        Ok(sent)
    }

    /// Gives images their declared names.
    pub fn name(&self, images: &[&Image]) -> Result<(), Trouble> {
        let mut call = self.call(Lock::Wait)?;
        let mut variants = Vec::new();
        for image in images {
            variants.push((*image, call.variant(image)?.clone()));
        }
        let names: Vec<_> = variants
            .iter()
            .flat_map(|(image, variant)| image.tags.iter().map(move |tag| (tag.clone(), variant)))
            .collect();
        call.give(&names, Pin::No, images)?;
        call.end()
    }
}

impl Call<'_> {
    /// What an image is on this host.
    fn variant<'i>(&self, image: &'i Image) -> Result<&'i Variant> {
        image.variant(&self.platform).ok_or_else(|| {
            let all: Vec<&str> = image.variants.iter().map(|variant| variant.platform.as_str()).collect();
            let (name, host, platform) = (image.shown(), self.on.link.name(), &self.platform);
            Error::failed(format!("`{name}` is for {}, and `{host}` is {platform}", all.join(", ")))
        })
    }

    /// What is there, and what the names of images are given to.
    fn list(&mut self, images: &[&Image]) -> Result<State, Trouble> {
        self.listed("list\n", images)
    }

    /// What is there.
    fn content(&mut self) -> Result<State, Trouble> {
        self.listed("list content\n", &[])
    }

    /// What the names of images are given to.
    fn named(&mut self, images: &[&Image]) -> Result<State, Trouble> {
        self.listed("list names\n", images)
    }

    fn listed(&mut self, order: &str, images: &[&Image]) -> Result<State, Trouble> {
        let mut text = order.to_string();
        for image in images {
            let fixed = image
                .content_tags
                .iter()
                .flat_map(|tag| image.variants.iter().flat_map(move |variant| fixed_names(tag, variant)));
            for name in fixed.chain(image.tags.iter().cloned()) {
                text.push_str(&name);
                text.push('\n');
            }
        }
        text.push('\n');
        self.write(text.as_bytes())?;
        let (mut state, mut list) = (State::default(), None);
        loop {
            let line = self.talk.line()?;
            match line.as_deref() {
                Some("== content") => list = Some(List::Content),
                Some("== snapshots") => list = Some(List::Snapshots),
                Some("== images") => list = Some(List::Images),
                Some("== end") => return Ok(state),
                Some(line) if !line.starts_with("fail ") => {
                    if let Some(list) = list {
                        state.take(list, line);
                    }
                }
                other => return Err(self.failed(other)),
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        match self.talk.write(bytes) {
            Err(Trouble::Error(Error::Failed(_))) if self.talk.is_over() => Err(self.failed(None)),
            done => done,
        }
    }

    /// Hears that something is done.
    fn done(&mut self) -> Result<(), Trouble> {
        let line = self.talk.line()?;
        match line.as_deref() {
            Some("done") => Ok(()),
            other => Err(self.failed(other)),
        }
    }

    fn order(&mut self, line: &str) -> Result<(), Trouble> {
        self.write(format!("{line}\n").as_bytes())?;
        self.done()
    }

    fn end(mut self) -> Result<(), Trouble> {
        let names = std::mem::take(&mut self.staged).join(" ");
        self.order(format!("end {names}").trim_end())?;
        let ended = self.talk.finish()?;
        match ended.status {
            0 => Ok(()),
            _ => Err(Error::failed(said(&ended.said).unwrap_or_default()).into()),
        }
    }

    /// Why it did not go on; ends the conversation.
    fn failed(&mut self, line: Option<&str>) -> Trouble {
        let mut step = line.and_then(|line| line.strip_prefix("fail ")).map(str::to_string);
        if line.is_some() && step.is_none() {
            // It goes on, but not with us.
            self.talk.close();
        }
        loop {
            match self.talk.line() {
                Ok(Some(line)) => {
                    if let Some(said) = line.strip_prefix("fail ") {
                        step = Some(said.to_string());
                    }
                }
                Ok(None) => break,
                Err(trouble) => return trouble,
            }
        }
        match self.talk.ended() {
            Ok(ended) => self.on.explain(step.as_deref().unwrap_or_default(), &ended.said),
            Err(trouble) => trouble,
        }
    }
}

/// The command `ctr` for the images of Kubernetes, quoted for `sh`.
pub fn command(address: &Address, patience: &str) -> String {
    let words = address.ctr.iter().map(String::as_str);
    let rest = ["--connect-timeout", patience, "--address", &address.containerd, "-n", "k8s.io"];
    words.chain(rest).map(quote).collect::<Vec<_>>().join(" ")
}

/// A text that is nowhere else: never was a staging name given twice.
fn token() -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("{:x}-{:x}-{number:x}", fs::now(), std::process::id())
}
