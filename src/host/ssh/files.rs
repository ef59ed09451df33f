//! Files on a host: looked at in one round trip, placed in one stream, read. Knows what the scripts say,
//! and no image.

use std::collections::BTreeMap;

use super::Talk;
use super::files_script::{ASK, PLACE, READ, RESUMED};
use super::links::Link;
use super::packing::Unpacking;
use super::placing::{Placing, Stuck, is_small};
use super::talk::said;
use super::wrapper::As;
use crate::digest::{Blob, Digest};
use crate::error::{Error, Failure, Result};
use crate::host::node::{Asked, File, Found, Listing, Load, Owner, Trouble, Watch};
use crate::host::passing::Departure;
use crate::recipe::{Content, Part, Sink};

/// Files on a host.
pub struct Files<'a> {
    /// The connection.
    pub link: &'a Link,
    /// Who does it.
    pub who: As,
    /// Whoever watches.
    pub watch: &'a dyn Watch,
}

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

    /// What is at paths, and in folders.
    pub fn ask(&self, files: &[Asked], folders: &[String]) -> Result<(Vec<Found>, Vec<Listing>), Trouble> {
        let mut list = String::new();
        for file in files {
            let size = file.size.map_or("-".to_string(), |size| size.to_string());
            list.push_str(&format!("{size} {}\n", self.path(&file.path)?));
        }
        list.push('\n');
        let folders: Vec<&str> = folders.iter().map(|folder| self.path(folder)).collect::<Result<_>>()?;
        let mut talk = self.start(ASK, &folders)?;
        // A host that has ended does not read, and says why below.
        let written = talk.write(list.as_bytes());
        let mut heard = Vec::new();
        while let Some(section) = section(&mut talk)? {
            heard.push(section);
        }
        let ended = talk.finish()?;
        if heard.len() != 4 + folders.len() || ended.status != 0 {
            let message = format!("`{}` did not say what it has", self.link.name());
            return Err(Failure::new(message).detail(ended.said.lines().map(str::to_string)).into());
        }
        written?;
        let (listings, heard) = (heard.split_off(4), heard);
        self.link.know_zstd(heard[0].iter().any(|line| line == "zstd"));
        let stats: BTreeMap<String, Stat> = heard[1].iter().filter_map(|line| Stat::read(line)).collect();
        let targets: BTreeMap<&str, &str> =
            heard[2].chunks_exact(2).map(|pair| (pair[0].as_str(), pair[1].as_str())).collect();
        let hashes: BTreeMap<String, Digest> = heard[3].iter().filter_map(|line| read_hash(line)).collect();
        let mut found = Vec::new();
        for file in files {
            found.push(match stats.get(&file.path) {
                None => Found::Nothing,
                Some(stat) => match stat.kind {
                    'f' if file.size.is_some_and(|size| size != stat.size) => Found::Differs,
                    'f' => {
                        let Some(digest) = hashes.get(&file.path) else {
                            return Err(self.unread(&file.path, &ended.said).into());
                        };
                        let blob = Blob { digest: *digest, size: stat.size };
                        Found::File { blob, mode: stat.mode, owner: Some(stat.owner.clone()) }
                    }
                    'd' => Found::Folder { mode: stat.mode, owner: Some(stat.owner.clone()) },
                    'l' => Found::Link {
                        target: targets.get(file.path.as_str()).map(ToString::to_string),
                        owner: Some(stat.owner.clone()),
                    },
                    _ => Found::Other,
                },
            });
        }
        let listings = folders.iter().zip(listings).map(|(folder, lines)| self.listing(folder, lines));
        Ok((found, listings.collect::<Result<_, Trouble>>()?))
    }

    fn listing(&self, folder: &str, lines: Vec<String>) -> Result<Listing, Trouble> {
        let mut lines = lines.into_iter();
        let first = lines.next().unwrap_or_default();
        let real = match first.as_str() {
            "nothing" => return Ok(Listing::Nothing),
            "other" => return Ok(Listing::Other),
            line => line.strip_prefix("folder ").unwrap_or_default().to_string(),
        };
        let (mut inside, mut mounted) = (Vec::new(), Vec::new());
        for line in lines {
            if let Some(path) = line.strip_prefix("mount ") {
                mounted.push(format!("{}/", unescaped(path)));
                continue;
            }
            let path = line.get(2..).and_then(|path| path.strip_prefix(folder)?.strip_prefix('/'));
            match path {
                // Of the same file system or not: it lies somewhere else, too.
                Some(path) if mounted.iter().any(|mount| path.starts_with(mount)) => {}
                Some(path) if !path.contains('\0') => {
                    inside.push((path.to_string(), line.starts_with("d ")))
                }
                _ => {
                    let line = line.get(2..).unwrap_or_default().replace('\0', "\\n");
                    let message =
                        format!("`{line}` on `{}` has a name that cannot be dealt with", self.link.name());
                    return Err(Failure::new(message).hint("remove it there").into());
                }
            }
        }
        Ok(Listing::Folder { real, inside })
    }

    fn unread(&self, path: &str, errors: &str) -> Failure {
        let why = errors.lines().find(|line| line.contains(path)).and_then(said);
        let why = why.unwrap_or_else(|| "it keeps changing".into());
        Failure::new(format!("read `{path}` on `{}`: {why}", self.link.name()))
    }

    /// Does all that a load says of files; returns the bytes that went for their content.
    pub fn place(&self, load: &Load<'_>, content: &dyn Content) -> Result<u64, Trouble> {
        let mut files: Vec<&(File, Part)> = load.files.iter().collect();
        let all = load.files.iter().map(|(file, _)| file).chain(&load.modes).map(|file| &file.path);
        let bare = load.bare.iter().chain(&load.folders);
        for path in all.chain(bare.map(|bare| &bare.path)) {
            self.path(path)?;
        }
        // Files of one folder together: it is locked and synced once. Small ones after each other.
        files.sort_by_key(|(file, _)| {
            let folder = file.path.rsplit_once('/').map(|(folder, _)| folder.to_string());
            (folder, !is_small(file, load.trace))
        });
        let resumed = RESUMED.to_string();
        let talk = self.start(PLACE, &[&resumed])?;
        let mut placing = Placing {
            files: self,
            talk,
            trace: load.trace,
            sent: 0,
            waiting: Vec::new(),
            few: Vec::new(),
            at: "",
        };
        if let Err(stuck) = placing.all(load, &files, content) {
            let subject = placing.subject();
            return Err(self.why(placing.talk, subject, stuck));
        }
        let sent = placing.sent;
        match placing.talk.finish()? {
            ended if ended.status == 0 => Ok(sent),
            ended => Err(self.failed("", "sync", &ended.said).into()),
        }
    }

    /// Why a file could not be placed, as the host tells it.
    fn why(&self, mut talk: Talk<'_>, path: &str, stuck: Stuck) -> Trouble {
        let mut said = match stuck {
            Stuck::Trouble(trouble) => return trouble,
            Stuck::Said(said) => said,
        };
        if said.as_ref().is_some_and(|said| !said.starts_with("fail ")) {
            // It goes on, but not with us.
            talk.close();
        }
        loop {
            match talk.line() {
                Ok(Some(line)) => said = Some(line),
                Ok(None) => break,
                Err(trouble) => return trouble,
            }
        }
        let step = said.as_ref().map_or("end", |said| said.strip_prefix("fail ").unwrap_or(said));
        match talk.finish() {
            Ok(ended) => self.failed(path, step, &ended.said).into(),
            Err(trouble) => trouble,
        }
    }

    fn failed(&self, path: &str, step: &str, errors: &str) -> Failure {
        let host = self.link.name();
        let why = said(errors);
        match step {
            "digest" => {
                Failure::new(format!("write `{path}` on `{host}`: other bytes came than were sent"))
                    .hint("run again")
            }
            "folder" => Failure::new(format!("`{path}` on `{host}` is a folder"))
                .hint("remove it, or choose another path"),
            "gone" => {
                let why = why.unwrap_or_else(|| "there is a link on the way by now".into());
                Failure::new(format!("delete `{path}` on `{host}`: {why}"))
                    .hint("somebody else may have changed it: run again")
            }
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
        let way = talk.line()?;
        let mut departure = Departure { sink, watch: self.watch };
        if way.as_deref() == Some("zstd") {
            let mut unpacking = Unpacking::new(&mut departure)?;
            talk.stream(&mut unpacking)?;
            unpacking.finish()?;
        } else {
            talk.stream(&mut departure)?;
        }
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

/// The lines up to the next `==`; nothing if there are no more.
fn section(talk: &mut Talk<'_>) -> Result<Option<Vec<String>>, Trouble> {
    let mut lines = Vec::new();
    while let Some(line) = talk.line()? {
        if line == "==" {
            return Ok(Some(lines));
        }
        lines.push(line);
    }
    Ok(None)
}

/// A path as `/proc/self/mountinfo` writes it (proc(5)).
fn unescaped(path: &str) -> String {
    let signs = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    signs.iter().fold(path.to_string(), |path, (code, sign)| path.replace(code, sign))
}

/// What `find` says of a path.
struct Stat {
    kind: char,
    mode: u32,
    size: u64,
    owner: Owner,
}

impl Stat {
    fn read(line: &str) -> Option<(String, Self)> {
        let mut words = line.splitn(8, ' ');
        let kind = words.next()?.chars().next()?;
        let mode = u32::from_str_radix(words.next()?, 8).ok()?;
        let size = words.next()?.parse().ok()?;
        let mut next = || words.next().map(str::to_string);
        let (uid, gid, user, group) = (next()?, next()?, next()?, next()?);
        let owner = Owner { user: [user, uid], group: [group, gid] };
        Some((next()?, Self { kind, mode, size, owner }))
    }
}

/// A line of `sha256sum`, which writes a backslash before it if there is one, or a CR, in the name.
fn read_hash(line: &str) -> Option<(String, Digest)> {
    let (line, escaped) = match line.strip_prefix('\\') {
        Some(line) => (line, true),
        None => (line, false),
    };
    let (hash, path) = line.split_once(" *").or_else(|| line.split_once("  "))?;
    let path = match escaped {
        // What is between two backslashes that are meant has none that is.
        true => path.split("\\\\").map(|piece| piece.replace("\\r", "\r")).collect::<Vec<_>>().join("\\"),
        false => path.to_string(),
    };
    Some((path, format!("sha256:{hash}").parse().ok()?))
}
