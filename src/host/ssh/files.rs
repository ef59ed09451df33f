//! Files on a host: looked at in one round trip, placed in one stream, read. Knows what the scripts say,
//! and no image.

use std::collections::BTreeMap;

use super::Talk;
use super::files_script::{ASK, PLACE, READ, RESUMED};
use super::links::Link;
use super::talk::said;
use super::wrapper::As;
use crate::digest::{Blob, Digest};
use crate::error::{Error, Failure, Result};
use crate::host::node::{Asked, File, Found, Load, Owner, Trouble, Watch};
use crate::host::passing::Departure;
use crate::recipe::{Content, Part, Recipe, Sink};

/// Files on a host.
pub struct Files<'a> {
    /// The connection.
    pub link: &'a Link,
    /// Who does it.
    pub who: As,
    /// Whoever watches.
    pub watch: &'a dyn Watch,
}

/// Bits of a mode, as the kernel has them.
const KIND: u32 = 0o170_000;

impl Files<'_> {
    fn start(&self, script: &str, arguments: &[&str]) -> Result<Talk<'_>, Trouble> {
        let argv = [&["sh", "-c", script, "vcbuild"][..], arguments].concat();
        Talk::start(self.link, &argv, self.who, self.watch)
    }

    fn path<'p>(&self, path: &'p str) -> Result<&'p str> {
        let message = match path {
            path if path.contains('\n') => "has a line feed in it",
            path if !path.starts_with('/') => "is not absolute",
            _ => return Ok(path),
        };
        let name = self.link.name();
        Err(Error::failed(format!("`{path}` cannot be the path of a file on `{name}`: it {message}")))
    }

    /// What is at paths.
    pub fn ask(&self, files: &[Asked]) -> Result<Vec<Found>, Trouble> {
        let mut list = String::new();
        for file in files {
            let size = file.size.map_or("-".to_string(), |size| size.to_string());
            list.push_str(&format!("{size} {}\n", self.path(&file.path)?));
        }
        let mut talk = self.start(ASK, &[])?;
        // A host that has ended does not read, and says why below.
        let written = talk.write(list.as_bytes());
        talk.close();
        let (mut stats, mut hashes) = (BTreeMap::new(), BTreeMap::new());
        let mut ends = 0;
        while let Some(line) = talk.line()? {
            match ends {
                _ if line == "==" => ends += 1,
                0 => {
                    if let Some((path, stat)) = Stat::read(&line) {
                        stats.insert(path, stat);
                    }
                }
                _ => {
                    if let Some((path, hash)) = read_hash(&line) {
                        hashes.insert(path, hash);
                    }
                }
            }
        }
        let ended = talk.finish()?;
        if ends != 2 || ended.status != 0 {
            let message = format!("`{}` did not say what it has", self.link.name());
            return Err(Failure::new(message).detail(ended.said.lines().map(str::to_string)).into());
        }
        written?;
        let mut found = Vec::new();
        for file in files {
            found.push(match stats.get(&file.path) {
                None => Found::Nothing,
                Some(stat) => match stat.mode & KIND {
                    0o100_000 if file.size.is_some_and(|size| size != stat.size) => Found::Differs,
                    0o100_000 => {
                        let Some(digest) = hashes.get(&file.path) else {
                            return Err(self.unread(&file.path, &ended.said).into());
                        };
                        let blob = Blob { digest: *digest, size: stat.size };
                        Found::File { blob, mode: stat.mode & 0o7777, owner: Some(stat.owner.clone()) }
                    }
                    0o040_000 => Found::Other("a folder"),
                    0o120_000 => Found::Link,
                    _ => Found::Other("a socket, pipe or device"),
                },
            });
        }
        Ok(found)
    }

    fn unread(&self, path: &str, errors: &str) -> Failure {
        let why = errors.lines().find(|line| line.contains(path)).and_then(said);
        let why = why.unwrap_or_else(|| "it keeps changing".into());
        Failure::new(format!("read `{path}` on `{}`: {why}", self.link.name()))
    }

    /// Places files, and sets modes and owners; returns the bytes of payload that went.
    pub fn place(&self, load: &Load<'_>, content: &dyn Content) -> Result<u64, Trouble> {
        let mut files: Vec<&(File, Part)> = load.files.iter().collect();
        for (file, _) in &files {
            self.path(&file.path)?;
        }
        // Files of one folder together: it is locked and synced once.
        files.sort_by_key(|(file, _)| file.path.rsplit_once('/').map(|(folder, _)| folder.to_string()));
        let resumed = RESUMED.to_string();
        let mut talk = self.start(PLACE, &[&resumed])?;
        let mut sent = 0;
        let (mut waiting, mut asked) = (Vec::new(), Vec::new());
        for (file, part) in files {
            let (owner, size) = (file.owner.as_deref().unwrap_or("-"), file.blob.size);
            let mode = format!("{:04o}", file.mode);
            let line = format!("put {size} {mode} {owner} {}\n{}\n", file.blob.digest.hex(), file.path);
            let mut step = || -> Result<(), Trouble> {
                talk.write(line.as_bytes())?;
                asked.push(file);
                // Small files go without waiting for what is said of the last.
                if size >= RESUMED || waiting.len() >= 64 {
                    self.hear(&mut talk, &mut waiting)?;
                }
                waiting.push(file);
                let from = match size >= RESUMED {
                    true => self.have(&mut talk)?,
                    false => 0,
                };
                let mut stream = Stream {
                    talk: &mut talk,
                    skip: from,
                    sent: &mut sent,
                    watch: self.watch,
                    trouble: None,
                };
                let mut recipe = Recipe::new();
                recipe.push(part);
                let done = recipe.send(content, &mut stream);
                match stream.trouble.take() {
                    Some(trouble) => Err(trouble),
                    None => Ok(done?),
                }
            };
            if let Err(trouble) = step() {
                return Err(self.why(talk, file, trouble));
            }
        }
        let mut rest = || -> Result<(), Trouble> {
            self.hear(&mut talk, &mut waiting)?;
            for file in &load.modes {
                let owner = file.owner.as_deref().unwrap_or("-");
                talk.write(
                    format!("set {:04o} {owner}\n{}\n", file.mode, self.path(&file.path)?).as_bytes(),
                )?;
                waiting.push(file);
                self.hear(&mut talk, &mut waiting)?;
            }
            talk.write(b"end\n")?;
            self.said_done(&mut talk)
        };
        let Some(last) = asked.last().copied().or(load.modes.last()) else { return Ok(0) };
        if let Err(trouble) = rest() {
            let file = waiting.first().copied().unwrap_or(last);
            return Err(self.why(talk, file, trouble));
        }
        match talk.finish()? {
            ended if ended.status == 0 => Ok(sent),
            ended => Err(self.failed(last, "sync", &ended.said).into()),
        }
    }

    /// Hears that all files that were sent are placed.
    fn hear(&self, talk: &mut Talk<'_>, waiting: &mut Vec<&File>) -> Result<(), Trouble> {
        while !waiting.is_empty() {
            self.said_done(talk)?;
            waiting.remove(0);
        }
        Ok(())
    }

    /// The next answer, which should be that something is done.
    fn said_done(&self, talk: &mut Talk<'_>) -> Result<(), Trouble> {
        loop {
            match talk.line()?.as_deref() {
                Some("done") => return Ok(()),
                Some("waits") => self.watch.waits(),
                Some(line) if line.starts_with("have ") => {}
                Some(line) if line.starts_with("fail ") => return Err(Error::failed(&line[5..]).into()),
                _ => return Err(Error::failed("it said nothing").into()),
            }
        }
    }

    /// How much of a file is there from an earlier time.
    fn have(&self, talk: &mut Talk<'_>) -> Result<u64, Trouble> {
        loop {
            let line = talk.line()?;
            match line.as_deref() {
                Some("waits") => self.watch.waits(),
                Some(line) if line.starts_with("fail ") => return Err(Error::failed(&line[5..]).into()),
                Some(line) => match line.strip_prefix("have ").and_then(|n| n.parse().ok()) {
                    Some(have) => return Ok(have),
                    None => return Err(Error::failed("it said something else").into()),
                },
                None => return Err(Error::failed("it said nothing").into()),
            }
        }
    }

    /// Why a file could not be placed, as the host tells it.
    fn why(&self, mut talk: Talk<'_>, file: &File, trouble: Trouble) -> Trouble {
        if !matches!(trouble, Trouble::Error(Error::Failed(_))) {
            return trouble;
        }
        talk.close();
        let mut step = match &trouble {
            Trouble::Error(Error::Failed(failure)) => failure.message.clone(),
            _ => String::new(),
        };
        while let Ok(Some(line)) = talk.line() {
            if let Some(said) = line.strip_prefix("fail ") {
                step = said.to_string();
            }
        }
        match talk.finish() {
            Ok(ended) => self.failed(file, &step, &ended.said).into(),
            Err(trouble) => trouble,
        }
    }

    fn failed(&self, file: &File, step: &str, errors: &str) -> Failure {
        let (path, host) = (&file.path, self.link.name());
        let why = said(errors);
        match step {
            "digest" => {
                Failure::new(format!("write `{path}` on `{host}`: other bytes came than were sent"))
                    .hint("run again")
            }
            "folder" => Failure::new(format!("`{path}` on `{host}` is a folder"))
                .hint("remove it, or choose another path"),
            "lock" => {
                Failure::new(format!("`{path}` on `{host}`: somebody else is writing there for an hour"))
            }
            "owner" => {
                let why = why.unwrap_or_default();
                let failure = Failure::new(format!("set the owner of `{path}` on `{host}`: {why}"));
                if self.who == As::User {
                    failure.hint("only root gives files away: `sudo = true`")
                } else {
                    failure
                }
            }
            _ => {
                let why = why.unwrap_or_else(|| step.to_string());
                let failure = Failure::new(format!("write `{path}` on `{host}`: {why}"));
                match why.as_str() {
                    "permission denied" if self.who == As::User => {
                        failure.hint("log in as a user who may write there, or become root: `sudo = true`")
                    }
                    _ => failure,
                }
            }
        }
    }

    /// Streams a file.
    pub fn read(&self, path: &str, from: u64, sink: &mut dyn Sink) -> Result<(), Trouble> {
        let mut talk = self.start(READ, &[&from.to_string(), self.path(path)?])?;
        talk.close();
        let mut departure = Departure { sink, watch: self.watch };
        talk.stream(&mut departure)?;
        match talk.finish()? {
            ended if ended.status == 0 => Ok(()),
            ended => {
                let why = said(&ended.said).unwrap_or_else(|| format!("exit status {}", ended.status));
                let host = self.link.name();
                let failure = match why.as_str() {
                    "no such file or directory" => {
                        Failure::new(format!("there is no `{path}` on `{host}`"))
                    }
                    _ => Failure::new(format!("read `{path}` on `{host}`: {why}")),
                };
                Err(failure.into())
            }
        }
    }
}

/// What `stat` says of a file.
struct Stat {
    mode: u32,
    size: u64,
    owner: Owner,
}

impl Stat {
    fn read(line: &str) -> Option<(String, Self)> {
        let mut words = line.splitn(7, ' ');
        let mode = u32::from_str_radix(words.next()?, 16).ok()?;
        let size = words.next()?.parse().ok()?;
        let mut next = || words.next().map(str::to_string);
        let (uid, gid, user, group) = (next()?, next()?, next()?, next()?);
        let owner = Owner { user: [user, uid], group: [group, gid] };
        Some((next()?, Self { mode, size, owner }))
    }
}

/// A line of `sha256sum`, which writes a backslash before it if there is one in the name.
fn read_hash(line: &str) -> Option<(String, Digest)> {
    let (line, escaped) = match line.strip_prefix('\\') {
        Some(line) => (line, true),
        None => (line, false),
    };
    let (hash, path) = line.split_once(" *").or_else(|| line.split_once("  "))?;
    let path = if escaped { path.replace("\\\\", "\\") } else { path.to_string() };
    Some((path, format!("sha256:{hash}").parse().ok()?))
}

/// Sends content, from a byte on.
pub struct Stream<'a, 'b> {
    /// To whom.
    pub talk: &'a mut Talk<'b>,
    /// What is there already.
    pub skip: u64,
    /// What went.
    pub sent: &'a mut u64,
    /// Whoever watches.
    pub watch: &'a dyn Watch,
    /// What stopped it, if it was the host.
    pub trouble: Option<Trouble>,
}

impl Sink for Stream<'_, '_> {
    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        let skipped = self.skip.min(bytes.len() as u64);
        self.skip -= skipped;
        let bytes = &bytes[usize::try_from(skipped).unwrap_or(bytes.len())..];
        if let Err(trouble) = self.talk.write(bytes) {
            self.trouble = Some(trouble);
            return Err(Error::failed("the host takes no more"));
        }
        *self.sent += bytes.len() as u64;
        self.watch.moved(bytes.len() as u64);
        Ok(())
    }
}
