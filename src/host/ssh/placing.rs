//! One stream of files to a host, and what it says to each: placed, or why not. Knows no connection but as
//! somebody to talk to.

use super::Talk;
use super::files::Files;
use super::files_script::RESUMED;
use super::packing::{self, Packing, Wire};
use crate::error::{Error, Result};
use crate::host::node::{Bare, File, Gone, Load, Shape, Trace, Trouble, Watch};
use crate::recipe::{Content, Part, Recipe, Sink};

/// Files below this size are placed many at once, in bytes.
const SMALL: u64 = 32 << 10;
/// So many at most, and so many bytes of them.
const FEW: usize = 256;
/// Answers that are not waited for, at most.
const WAITING: usize = 64;

/// Whether a file is placed together with others.
pub fn is_small(file: &File, trace: Trace) -> bool {
    // A name with a backslash is written otherwise in a list of digests, and one that ends with a CR cannot be.
    file.blob.size < SMALL && trace == Trace::Left && !file.path.contains(['\\', '\r'])
}

/// A stream of files on its way.
pub struct Placing<'a, 'f> {
    /// Where to.
    pub files: &'a Files<'a>,
    /// The conversation.
    pub talk: Talk<'a>,
    /// Whether it may leave traces.
    pub trace: Trace,
    /// What went for content, in bytes.
    pub sent: u64,
    /// The paths of what was sent and not yet answered.
    pub waiting: Vec<&'f str>,
    /// Small files that are to be placed at once.
    pub few: Vec<&'f File>,
    /// What it is at.
    pub at: &'f str,
}

fn owner(owner: Option<&String>) -> &str {
    owner.map_or("-", String::as_str)
}

impl<'f> Placing<'_, 'f> {
    /// Does all of it.
    pub fn all(
        &mut self,
        load: &'f Load<'_>,
        files: &[&'f (File, Part)],
        content: &dyn Content,
    ) -> Result<(), Stuck> {
        self.gone(&load.before)?;
        for bare in &load.bare {
            let (path, owner) = (&bare.path, owner(bare.owner.as_ref()));
            let line = match &bare.shape {
                Shape::Folder(_) => format!("folder {owner}\n{path}\n"),
                Shape::Link(target) => format!("link {owner}\n{path}\n{target}\n"),
            };
            self.order(path, &line)?;
        }
        for (file, part) in files {
            self.at = &file.path;
            self.file(file, part, content)?;
        }
        self.placed()?;
        for file in &load.modes {
            let line = format!("set {:04o} {}\n{}\n", file.mode, owner(file.owner.as_ref()), file.path);
            self.order(&file.path, &line)?;
        }
        // From the inside out: a folder may take the right to change what is in it.
        for Bare { path, shape, owner: whose } in load.folders.iter().rev() {
            if let Shape::Folder(mode) = shape {
                let line = format!("set {mode:04o} {}\n{path}\n", owner(whose.as_ref()));
                self.order(path, &line)?;
            }
        }
        self.gone(&load.after)?;
        self.hear()?;
        self.write(b"end\n")?;
        self.said_done()
    }

    /// What the trouble is with.
    pub fn subject(&self) -> &'f str {
        self.waiting.first().copied().unwrap_or(self.at)
    }

    fn gone(&mut self, all: &'f [Gone]) -> Result<(), Stuck> {
        for Gone { path, root, inside, is_folder } in all {
            let kind = if *is_folder { 'd' } else { 'f' };
            self.order(path, &format!("gone {kind}\n{root}\n{inside}\n"))?;
        }
        Ok(())
    }

    /// Sends an order, and hears of earlier ones if there are many.
    fn order(&mut self, path: &'f str, line: &str) -> Result<(), Stuck> {
        self.at = path;
        if self.waiting.len() >= WAITING {
            self.hear()?;
        }
        self.waiting.push(path);
        self.write(line.as_bytes())
    }

    fn file(&mut self, file: &'f File, part: &Part, content: &dyn Content) -> Result<(), Stuck> {
        let folder = |file: &File| file.path.rsplit_once('/').map(|(folder, _)| folder.to_string());
        let small = is_small(file, self.trace);
        let fits = |first: &&File| folder(first) == folder(file) && first.owner == file.owner;
        if self.few.first().is_some_and(|first| !small || !fits(first)) || self.few.len() >= FEW {
            self.placed()?;
        }
        let (size, hex) = (file.blob.size, file.blob.digest.hex());
        if small {
            let line = format!("few {size} {:04o} {hex}\n{}\n", file.mode, file.path);
            self.few.push(file);
            self.write(line.as_bytes())?;
            return self.send(part, content, size, 0, Way::Plain);
        }
        let packs = self.files.link.has_zstd() && size >= packing::LEAST;
        let (way, word) = match self.trace {
            Trace::None => (Way::Plain, "secret"),
            Trace::Left if packs => (Way::Packed, "packed"),
            Trace::Left => (Way::Plain, "plain"),
        };
        let whose = owner(file.owner.as_ref());
        let line = format!("put {size} {:04o} {whose} {hex} {word}\n{}\n", file.mode, file.path);
        // Small files go without waiting for what is said of the last.
        if size >= RESUMED || self.waiting.len() >= WAITING {
            self.hear()?;
        }
        self.waiting.push(&file.path);
        self.write(line.as_bytes())?;
        let from = if size >= RESUMED { self.have()? } else { 0 };
        self.send(part, content, size, from, way)
    }

    /// Sends content from a byte on.
    fn send(
        &mut self,
        part: &Part,
        content: &dyn Content,
        size: u64,
        from: u64,
        way: Way,
    ) -> Result<(), Stuck> {
        let watch = self.files.watch;
        let mut recipe = Recipe::new();
        recipe.push(part);
        let skip = if way == Way::Plain { from } else { 0 };
        let mut stream = Stream { talk: &mut self.talk, skip, sent: &mut self.sent, watch, trouble: None };
        let done = match way {
            Way::Plain => recipe.send(content, &mut stream),
            Way::Packed => {
                let mut packing = Packing::new(&mut stream, size, from);
                recipe.send(content, &mut packing).and_then(|()| packing.finish())
            }
        };
        match stream.trouble.take() {
            Some(trouble) => Err(Stuck::of(trouble, stream.talk)),
            None => Ok(done.map_err(Trouble::from)?),
        }
    }

    /// Has the small files placed that were sent.
    fn placed(&mut self) -> Result<(), Stuck> {
        let few = std::mem::take(&mut self.few);
        let Some(first) = few.first() else { return Ok(()) };
        if self.waiting.len() >= WAITING {
            self.hear()?;
        }
        self.waiting.push(&first.path);
        self.write(format!("placed {}\n", owner(first.owner.as_ref())).as_bytes())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Stuck> {
        let written = self.talk.write(bytes);
        written.map_err(|trouble| Stuck::of(trouble, &self.talk))
    }

    /// Hears that all that was sent is done.
    fn hear(&mut self) -> Result<(), Stuck> {
        while !self.waiting.is_empty() {
            self.said_done()?;
            self.waiting.remove(0);
        }
        Ok(())
    }

    /// The next answer, which should be that something is done.
    fn said_done(&mut self) -> Result<(), Stuck> {
        loop {
            match self.talk.line()? {
                Some(line) if line == "done" => return Ok(()),
                Some(line) if line == "waits" => self.files.watch.waits(),
                Some(line) if line.starts_with("have ") => {}
                line => return Err(Stuck::Said(line)),
            }
        }
    }

    /// How much of a file is there from an earlier time.
    fn have(&mut self) -> Result<u64, Stuck> {
        loop {
            match self.talk.line()? {
                Some(line) if line == "waits" => self.files.watch.waits(),
                line => match line.as_deref().and_then(|line| line.strip_prefix("have ")?.parse().ok()) {
                    Some(have) => return Ok(have),
                    None => return Err(Stuck::Said(line)),
                },
            }
        }
    }
}

/// How content goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Plain,
    Packed,
}

/// Why it does not go on.
pub enum Stuck {
    /// The host said something else than that it is done, or nothing more.
    Said(Option<String>),
    /// Something else.
    Trouble(Trouble),
}

impl From<Trouble> for Stuck {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

impl Stuck {
    /// What stopped writing: if the other end is over, that will say why.
    pub fn of(trouble: Trouble, talk: &Talk<'_>) -> Self {
        match trouble {
            Trouble::Error(Error::Failed(_)) if talk.is_over() => Self::Said(None),
            other => Self::Trouble(other),
        }
    }
}

/// Sends content, from a byte on.
struct Stream<'a, 'b> {
    /// To whom.
    talk: &'a mut Talk<'b>,
    /// What is there already.
    skip: u64,
    /// What went.
    sent: &'a mut u64,
    /// Whoever watches.
    watch: &'a dyn Watch,
    /// What stopped it, if it was the host.
    trouble: Option<Trouble>,
}

impl Stream<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.talk.write(bytes).map_err(|trouble| {
            self.trouble = Some(trouble);
            Error::failed("the host takes no more")
        })
    }
}

impl Wire for Stream<'_, '_> {
    fn words(&mut self, words: &str) -> Result<()> {
        self.write(words.as_bytes())
    }
}

impl Sink for Stream<'_, '_> {
    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        let skipped = self.skip.min(bytes.len() as u64);
        self.skip -= skipped;
        let bytes = &bytes[usize::try_from(skipped).unwrap_or(bytes.len())..];
        self.write(bytes)?;
        *self.sent += bytes.len() as u64;
        self.watch.moved(bytes.len() as u64);
        Ok(())
    }
}
