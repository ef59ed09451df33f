//! A folder on a host in which commands run: what is in it, bringing it to something else by what differs, running
//! there, and what was made. All of it is one session, and the folder is nobody else's as long. Knows no tree.

use std::io::{self, Read};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::node::Remote;
use super::talk::Talk;
use super::toolbox::exports;
pub use super::workplace_data::{Found, Given, Kind, Made, Piece, Which};
use super::workplace_data::{failed, orders, padded, read_found, read_made, unclear};
use super::workplace_script::WORK;
use super::wrapper::quote;
use crate::digest::Digest;
use crate::error::{Error, Failure, Result, io_words};
use crate::host::node::{Trouble, Watch};
use crate::host::passing::Hash;
use crate::host::process::Exit;
use crate::recipe::{Content, Recipe, Sink};

/// Somebody who watches, and a time at which it is enough.
pub struct Deadline<'a> {
    watch: &'a dyn Watch,
    until: Mutex<Option<Instant>>,
}

impl<'a> Deadline<'a> {
    /// No end yet.
    pub fn new(watch: &'a dyn Watch) -> Self {
        Self { watch, until: Mutex::new(None) }
    }

    fn is_over(&self) -> bool {
        let until = *self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() >= until)
    }

    fn set(&self, until: Option<Instant>) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }
}

impl Watch for Deadline<'_> {
    fn moved(&self, bytes: u64) {
        self.watch.moved(bytes);
    }

    fn check(&self) -> Result<()> {
        self.watch.check()?;
        if self.is_over() { Err(Error::failed("it took too long")) } else { Ok(()) }
    }

    fn waits(&self) {
        self.watch.waits();
    }
}

/// The folder, in use.
pub struct Workplace<'a> {
    talk: Talk<'a>,
    watch: &'a Deadline<'a>,
    host: String,
    /// Its path there.
    pub path: String,
    /// What was brought last, as it was called then, if it is known.
    pub state: Option<String>,
}

/// Takes the content of a file: its place among all, from whom, how much. Returns its SHA-256 unless less came.
type Keep<'k> = &'k mut dyn FnMut(usize, &mut dyn FnMut(&mut dyn Sink) -> Result<()>) -> Result<()>;

/// How much goes before it is noted: after a cut it need not go again.
const BATCH: u64 = 64 << 20;
/// How many pieces go before they are noted.
const PIECES: usize = 4096;

impl<'a> Workplace<'a> {
    /// Takes the first folder of these names that nobody else has; who has the first is waited for a moment, because a
    /// connection that was cut may not have ended there yet.
    pub fn take(node: &'a Remote<'_>, names: &[String], watch: &'a Deadline<'a>) -> Result<Self, Trouble> {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let talk = node.start(WORK, &names)?;
        let host = node.name().to_string();
        let mut taken = Self { talk, watch, host, path: String::new(), state: None };
        taken.path = taken.answer("place")?;
        let state = taken.answer("state")?;
        taken.state = (state != "-").then_some(state);
        Ok(taken)
    }

    /// The next answer, unless it is why there is none.
    fn next(&mut self) -> Result<String, Trouble> {
        loop {
            match self.talk.line()? {
                Some(line) if line == "waits" => self.watch.waits(),
                Some(line) if !line.starts_with("fail ") => return Ok(line),
                line => return Err(self.why(line)),
            }
        }
    }

    /// The next answer, which should begin with a word; the rest of it.
    fn answer(&mut self, word: &str) -> Result<String, Trouble> {
        let line = self.next()?;
        match line.strip_prefix(word).map(|rest| (rest, rest.trim_start())) {
            Some((rest, trimmed)) if rest.is_empty() || rest != trimmed => Ok(trimmed.to_string()),
            _ => Err(self.why(Some(line))),
        }
    }

    /// The next answer, which is so many bytes.
    fn bytes(&mut self, word: &str) -> Result<Vec<u8>, Trouble> {
        let size = self.answer(word)?;
        let mut bytes = Vec::new();
        match size.parse() {
            Ok(size) if self.talk.exact(size, &mut bytes)? => Ok(bytes),
            _ => Err(self.why(None)),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        match self.talk.write(bytes) {
            // It has ended, and says why.
            Err(Trouble::Error(Error::Failed(_))) if self.talk.is_over() => Err(self.why(None)),
            done => done,
        }
    }

    fn order(&mut self, order: &str, payload: &[u8]) -> Result<(), Trouble> {
        self.write(format!("{order} {}\n", payload.len()).as_bytes())?;
        self.write(payload)
    }

    /// Why it does not go on, as the host tells it.
    fn why(&mut self, mut said: Option<String>) -> Trouble {
        if said.as_ref().is_some_and(|said| !said.starts_with("fail ")) {
            // It goes on, but not with us.
            self.talk.close();
        }
        while !said.as_ref().is_some_and(|said| said.starts_with("fail ")) {
            match self.talk.line() {
                Ok(Some(line)) => said = Some(line),
                Ok(None) => break,
                Err(trouble) => return trouble,
            }
        }
        let errors = match self.talk.ended() {
            Ok(ended) => ended.said,
            Err(trouble) => return trouble,
        };
        let step = said.as_deref().and_then(|said| said.strip_prefix("fail ")).unwrap_or_default();
        failed(&self.host, step, &errors).into()
    }

    /// What is there.
    pub fn look(&mut self, which: Which) -> Result<Vec<Found>, Trouble> {
        let word = if which == Which::All { "all" } else { "changed" };
        self.write(format!("{word}\n").as_bytes())?;
        let bytes = self.bytes("listing")?;
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let found: Option<Vec<Found>> = lines.map(read_found).collect();
        found.ok_or_else(|| unclear(&self.host).into())
    }

    /// Removes paths.
    pub fn drop(&mut self, paths: &[Vec<u8>]) -> Result<(), Trouble> {
        let mut list = Vec::new();
        for path in paths {
            list.extend([b"./", path.as_slice(), b"\n"].concat());
        }
        self.order("drop", &list)?;
        self.answer("ok").map(drop)
    }

    /// Brings pieces, whose paths nothing is at but folders where folders are brought.
    pub fn put(&mut self, pieces: &[Piece], content: &dyn Content) -> Result<(), Trouble> {
        let mut rest = pieces;
        while !rest.is_empty() {
            let (mut count, mut size) = (0, 0);
            while count < rest.len().min(PIECES) && (count == 0 || size < BATCH) {
                size += rest[count].size();
                count += 1;
            }
            self.put_batch(&rest[..count], content)?;
            rest = &rest[count..];
        }
        Ok(())
    }

    fn put_batch(&mut self, pieces: &[Piece], content: &dyn Content) -> Result<(), Trouble> {
        let heads = pieces.iter().map(Piece::head).collect::<Result<Vec<_>>>()?;
        let total: u64 =
            pieces.iter().zip(&heads).map(|(piece, head)| head.len() as u64 + padded(piece.size())).sum();
        let end = [0; 1024];
        self.write(format!("put {}\n", total + end.len() as u64).as_bytes())?;
        let mut list = Vec::new();
        for (piece, head) in pieces.iter().zip(&heads) {
            self.write(head)?;
            let mut hash = "-".to_string();
            if let Kind::File(_, part) = &piece.kind {
                let mut stream = Upward { place: self, hash: Hash::sha256(), trouble: None };
                let mut recipe = Recipe::new();
                recipe.push(part);
                let sent = recipe.send(content, &mut stream);
                let (trouble, digest) = (stream.trouble, stream.hash.finish());
                if let Some(trouble) = trouble {
                    return Err(trouble);
                }
                sent?;
                let padding = usize::try_from(padded(digest.size) - digest.size).unwrap_or_default();
                self.write(&end[..padding])?;
                hash = digest.digest.hex();
            }
            list.extend(
                [hash.as_bytes(), b" ", piece.called.as_bytes(), b" ", &piece.path, b"\n"].concat(),
            );
        }
        self.write(&end)?;
        self.answer("ok")?;
        self.order("check", &list)?;
        self.answer("ok").map(drop)
    }

    /// Notes that all of something is there, by this name.
    pub fn settle(&mut self, state: &str) -> Result<(), Trouble> {
        self.write(format!("settle {state}\n").as_bytes())?;
        self.answer("ok").map(drop)
    }

    /// Calls functions of the script there.
    pub fn call(&mut self, calls: &[Vec<&str>]) -> Result<(), Trouble> {
        self.order("do", orders(calls).as_bytes())?;
        self.answer("ok").map(drop)
    }

    /// Runs a command in a folder there, and hands on what it prints as it comes. `Exit::TimedOut` if that took until
    /// `until`. It gets these variables and no others.
    pub fn run(
        &mut self,
        argv: &[String],
        dir: &str,
        env: &std::collections::BTreeMap<String, String>,
        until: Option<Instant>,
        output: &mut dyn FnMut(&[u8]),
    ) -> Result<Exit, Trouble> {
        let words: Vec<String> = argv.iter().map(|word| quote(word)).collect();
        let call =
            format!("{}cd -- {} || exit 126\nset -- {}\n", exports(env), quote(dir), words.join(" "));
        let mark =
            mark().map_err(|error| Error::failed(format!("read random bytes: {}", io_words(&error))))?;
        self.write(format!("run {} {mark}\n", call.len()).as_bytes())?;
        self.write(call.as_bytes())?;
        let end = format!("\n\x02{mark} ");
        self.watch.set(until);
        let mut done = self.talk.until(end.as_bytes(), output);
        let timed_out = done.is_err() && self.watch.is_over() && self.watch.watch.check().is_ok();
        self.watch.set(None);
        if timed_out {
            self.write(b"stop\n")?;
            done = self.talk.until(end.as_bytes(), output);
        }
        if !done? {
            return Err(self.why(None));
        }
        let status = self.next()?;
        match status.parse() {
            Ok(_) if timed_out => Ok(Exit::TimedOut),
            Ok(status @ 129..=192) => Ok(Exit::Signal(status - 128)),
            Ok(status) => Ok(Exit::Code(status)),
            Err(_) => Err(unclear(&self.host).into()),
        }
    }

    /// What is at paths in a folder there, with all below, and the content of files.
    pub fn give(&mut self, dir: &str, paths: &[String], keep: Keep<'_>) -> Result<Given, Trouble> {
        let paths: Vec<String> = paths.iter().map(|path| format!("./{path}")).collect();
        let call = [vec!["give", dir], paths.iter().map(String::as_str).collect()].concat();
        self.order("do", orders(&[call]).as_bytes())?;
        let line = self.next()?;
        let (word, size) = line.split_once(' ').unwrap_or((&line, ""));
        let Some(size) = size.parse().ok().filter(|_| ["given", "missing"].contains(&word)) else {
            return Err(self.why(Some(line)));
        };
        let mut bytes = Vec::new();
        if !self.talk.exact(size, &mut bytes)? {
            return Err(self.why(None));
        }
        if word == "missing" {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let mut lines = text.lines().map(str::to_string);
            return Ok(Given::Missing(lines.next().unwrap_or_default(), lines.collect()));
        }
        let (links, hashes) = (self.bytes("links")?, self.bytes("hashes")?);
        let made = read_made(&bytes, &links).ok_or_else(|| Trouble::from(unclear(&self.host)))?;
        let hashes = String::from_utf8_lossy(&hashes).into_owned();
        let mut hashes = hashes.lines();
        for (index, (path, one)) in made.iter().enumerate() {
            let Made::File(_, size) = one else { continue };
            let mut trouble = None;
            let mut hash = Hash::sha256();
            let mut read = |sink: &mut dyn Sink| {
                let mut stream = Downward { sink, hash: &mut hash, watch: self.watch };
                match self.talk.exact(*size, &mut stream) {
                    Ok(true) => Ok(()),
                    Ok(false) => Err(Error::failed("less came than was there")),
                    Err(error) => {
                        trouble = Some(error);
                        Err(Error::failed("the host gives no more"))
                    }
                }
            };
            let kept = keep(index, &mut read);
            if let Some(trouble) = trouble {
                return Err(trouble);
            }
            kept?;
            let came = hash.finish().digest;
            if hashes.next() != Some(&came.hex()) {
                let path = String::from_utf8_lossy(path).into_owned();
                let message = format!("`{path}` changed on `{}` while it was read", self.host);
                return Err(Failure::new(message).hint("run again").into());
            }
        }
        self.answer("ok")?;
        Ok(Given::All(made))
    }

    /// Leaves it to others.
    pub fn leave(mut self) -> Result<(), Trouble> {
        self.write(b"end\n")?;
        // Its end is not waited for: somebody who could not be found may hold its output.
        self.answer("bye").map(drop)
    }
}

/// A word that no command knows.
fn mark() -> io::Result<String> {
    let mut bytes = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(Digest::of(&bytes).hex())
}

/// Sends content, and names it.
struct Upward<'a, 'b> {
    place: &'a mut Workplace<'b>,
    hash: Hash,
    trouble: Option<Trouble>,
}

impl Sink for Upward<'_, '_> {
    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.hash.bytes(bytes)?;
        if let Err(trouble) = self.place.write(bytes) {
            self.trouble = Some(trouble);
            return Err(Error::failed("the host takes no more"));
        }
        self.place.watch.moved(bytes.len() as u64);
        Ok(())
    }
}

/// Takes content, and names it.
struct Downward<'a> {
    sink: &'a mut dyn Sink,
    hash: &'a mut Hash,
    watch: &'a dyn Watch,
}

impl Sink for Downward<'_> {
    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.hash.bytes(bytes)?;
        self.sink.bytes(bytes)?;
        self.watch.moved(bytes.len() as u64);
        Ok(())
    }
}
