//! A machine as a host like any other: files by `files`, images by `ctr`. Knows no script.

use std::path::Path;

use super::files::Files;
use super::links::{Guard, Links};
use super::wrapper::As;
use super::{Address, Talk};
use crate::digest::Digest;
use crate::error::Result;
use crate::host::ctr::{Containerd, Name};
use crate::host::node::{Answer, Image, Load, Node, Question, Trouble, Watch};
use crate::recipe::{Content, Sink};

/// A machine, reached.
pub struct Remote<'a> {
    link: Guard<'a>,
    address: Address,
    watch: &'a dyn Watch,
}

impl<'a> Remote<'a> {
    /// Reaches a machine.
    pub fn open(
        name: &str,
        address: &Address,
        root: &Path,
        links: &'a Links,
        watch: &'a dyn Watch,
    ) -> Result<Self, Trouble> {
        let link = links.link(name, address, root, watch)?;
        Ok(Self { link, address: address.clone(), watch })
    }

    fn who(&self) -> As {
        if self.address.sudo { As::Root } else { As::User }
    }

    fn files(&self) -> Files<'_> {
        Files { link: &self.link, who: self.who(), watch: self.watch }
    }

    fn containerd(&self) -> Containerd<'_> {
        Containerd { link: &self.link, who: self.who(), address: &self.address, watch: self.watch }
    }

    /// The host's name.
    pub fn name(&self) -> &str {
        self.link.name()
    }

    /// Starts a script with arguments.
    pub fn start(&self, script: &str, arguments: &[&str]) -> Result<Talk<'_>, Trouble> {
        let argv = [&["sh", "-c", script, "vcbuild"][..], arguments].concat();
        Talk::start(&self.link, &argv, self.who(), self.watch)
    }

    /// The content tags in its containerd, and these names if they are there.
    pub fn names(&self, declared: &[String]) -> Result<Vec<Name>, Trouble> {
        self.containerd().names(declared)
    }

    /// Runs a script with arguments and returns what it prints and its exit status.
    pub fn run(&self, script: &str, arguments: &[&str]) -> Result<(String, i32), Trouble> {
        let mut talk = self.start(script, arguments)?;
        let mut text = Vec::new();
        talk.stream(&mut text)?;
        let ended = talk.finish()?;
        Ok((String::from_utf8_lossy(&text).into_owned(), ended.status))
    }
}

impl Node for Remote<'_> {
    fn ask(&self, question: &Question<'_>) -> Result<Answer, Trouble> {
        let mut answer = Answer::default();
        if !question.files.is_empty() || !question.folders.is_empty() {
            (answer.files, answer.folders) = self.files().ask(&question.files, &question.folders)?;
        }
        if !question.images.is_empty() {
            (answer.images, answer.held) = self.containerd().ask(question.images)?;
        }
        Ok(answer)
    }

    fn send(&self, load: &Load<'_>, content: &dyn Content) -> Result<u64, Trouble> {
        let mut sent = 0;
        if load.has_files() {
            sent += self.files().place(load, content)?;
        }
        if !load.images.is_empty() {
            sent += self.containerd().deliver(load, content)?;
        }
        Ok(sent)
    }

    fn name(&self, images: &[&Image]) -> Result<(), Trouble> {
        self.containerd().name(images)
    }

    fn read(&self, path: &str, from: u64, sink: &mut dyn Sink) -> Result<(), Trouble> {
        self.files().read(path, from, sink)
    }

    fn given(&self, name: &str) -> Result<Option<Digest>, Trouble> {
        self.containerd().given(name)
    }

    fn blob(&self, digest: &Digest, sink: &mut dyn Sink) -> Result<(), Trouble> {
        self.containerd().blob(digest, sink)
    }
}
