//! One session on a connection: bytes to what runs there, lines and bytes from it, and how it ended. While
//! it waits for one it serves the others, and the wish to stop. Does not know what runs.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use openssh::{Child, Session, Stdio};
use rustix::event::{PollFd, PollFlags};

use super::links::Link;
use super::wrapper::{self, As, BEAT, BEGIN, END};
use crate::digest::PIECE;
use crate::error::{Error, Failure, io_words};
use crate::host::launch;
use crate::host::node::{Trouble, Watch};
use crate::recipe::Sink;

/// A host that has not even said that it lives for so long is gone.
const IDLE: Duration = Duration::from_secs(20);
/// How long anything may take in all.
const TOTAL: Duration = Duration::from_secs(6 * 3600);
/// How long the host may take to open a session.
const OPENING: Duration = Duration::from_secs(30);
/// How often it is looked whether the user wants to stop.
const TICK: Duration = Duration::from_millis(100);
/// How many bytes go at once where there is a limit.
const STRIDE: usize = 16 << 10;
/// The longest line, in bytes.
const LONGEST_LINE: usize = 1 << 20;
/// What is kept of standard error, in bytes.
const ERRORS: usize = 64 << 10;

/// What runs on a host.
pub struct Talk<'a> {
    link: &'a Link,
    watch: &'a dyn Watch,
    /// Dropped last but one: closes the session.
    _child: Child<Arc<Session>>,
    _place: super::links::Place<'a>,
    input: Option<File>,
    output: File,
    errors: File,
    open: [bool; 2],
    /// What came and was not yet taken.
    came: Vec<u8>,
    begun: bool,
    said: Vec<u8>,
    status: Option<i32>,
    heard: Instant,
    until: Instant,
}

/// How it ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit status; 128 and more is a signal.
    pub status: i32,
    /// What it said on standard error.
    pub said: String,
}

impl<'a> Talk<'a> {
    /// Starts `argv` on the host.
    pub fn start(link: &'a Link, argv: &[&str], who: As, watch: &'a dyn Watch) -> Result<Self, Trouble> {
        let place = link.place(watch)?;
        let pipes = || -> io::Result<_> { Ok([io::pipe()?, io::pipe()?, io::pipe()?]) };
        let [(stdin, input), (output, stdout), (errors, stderr)] = pipes().map_err(broken)?;
        let line = wrapper::line(argv, who, TOTAL.as_secs());
        let child = link.block_on(async {
            let mut command = link.session().arc_raw_command(&line);
            command.stdin(Stdio::from(OwnedFd::from(stdin)));
            command.stdout(Stdio::from(OwnedFd::from(stdout)));
            command.stderr(Stdio::from(OwnedFd::from(stderr)));
            let spawning = command.spawn();
            tokio::pin!(spawning);
            let until = Instant::now() + OPENING;
            loop {
                // A host may be silent here too, and whoever wants to stop does not wait for it.
                match tokio::time::timeout(TICK, &mut spawning).await {
                    Ok(spawned) => return Ok(Some(spawned)),
                    Err(_) if Instant::now() > until => return Ok(None),
                    Err(_) => watch.check()?,
                }
            }
        });
        let child = match child {
            Ok(Some(Ok(child))) => child,
            Ok(Some(Err(error))) => return Err(link.lost(&chain(&error))),
            Ok(None) => return Err(link.lost("it opens no session")),
            Err(stop) => return Err(Trouble::Error(stop)),
        };
        let (input, output, errors): (OwnedFd, OwnedFd, OwnedFd) =
            (input.into(), output.into(), errors.into());
        for fd in [&input, &output, &errors] {
            rustix::io::ioctl_fionbio(fd, true).map_err(|error| broken(error.into()))?;
        }
        let now = Instant::now();
        Ok(Self {
            link,
            watch,
            _child: child,
            _place: place,
            input: Some(input.into()),
            output: output.into(),
            errors: errors.into(),
            open: [true; 2],
            came: Vec::new(),
            begun: false,
            said: Vec::new(),
            status: None,
            heard: now,
            until: now + TOTAL,
        })
    }

    /// Sends bytes. Fails if nobody there reads them any more; `finish` says why.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<(), Trouble> {
        while !bytes.is_empty() {
            let Some(input) = &mut self.input else {
                return Err(Error::failed("it reads no more").into());
            };
            let most = if self.link.is_limited() { bytes.len().min(STRIDE) } else { bytes.len() };
            match input.write(&bytes[..most]) {
                Ok(n) => {
                    bytes = &bytes[n..];
                    // It may have ended while there is still room in the pipe.
                    self.serve_for(false, Duration::ZERO)?;
                    if let Some(delay) = self.link.delay(n as u64) {
                        let until = Instant::now() + delay;
                        while let Some(rest) = until.checked_duration_since(Instant::now()) {
                            self.serve_for(false, rest.min(TICK))?;
                        }
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.serve(true)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    self.input = None;
                    return Err(Error::failed("it reads no more").into());
                }
                Err(error) => return Err(broken(error)),
            }
        }
        Ok(())
    }

    /// Whether it reads no more.
    pub fn is_over(&self) -> bool {
        self.input.is_none() || self.status.is_some()
    }

    /// Ends its input before it has ended: how it ends may then not be heard.
    pub fn close(&mut self) {
        self.input = None;
    }

    /// The next line; `None` when there is no more.
    pub fn line(&mut self) -> Result<Option<String>, Trouble> {
        let mut looked = 0;
        loop {
            if self.begun
                && let Some(end) = self.came[looked..].iter().position(|byte| *byte == b'\n')
            {
                let rest = self.came.split_off(looked + end + 1);
                let mut line = std::mem::replace(&mut self.came, rest);
                line.pop();
                return match String::from_utf8(line) {
                    Ok(line) => Ok(Some(line)),
                    Err(_) => {
                        Err(Error::failed(format!("`{}` says what is not text", self.link.name())).into())
                    }
                };
            }
            looked = if self.begun { self.came.len() } else { 0 };
            if self.came.len() > LONGEST_LINE {
                return Err(Error::failed(format!("`{}` says an endless line", self.link.name())).into());
            }
            if !self.open[0] {
                return Ok(None);
            }
            self.serve(false)?;
        }
    }

    /// Hands on the next `size` bytes; whether there were as many.
    pub fn exact(&mut self, size: u64, sink: &mut dyn Sink) -> Result<bool, Trouble> {
        let mut left = size;
        while left > 0 {
            if self.begun && !self.came.is_empty() {
                let most = usize::try_from(left).unwrap_or(usize::MAX).min(self.came.len());
                let rest = self.came.split_off(most);
                let now = std::mem::replace(&mut self.came, rest);
                left -= now.len() as u64;
                sink.bytes(&now)?;
            } else if self.open[0] {
                self.serve(false)?;
            } else {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Hands on all that comes before a mark, as it comes; whether the mark came. What may be the beginning
    /// of the mark waits.
    pub fn until(&mut self, mark: &[u8], output: &mut dyn FnMut(&[u8])) -> Result<bool, Trouble> {
        loop {
            if self.begun {
                if let Some(at) = self.came.windows(mark.len()).position(|window| window == mark) {
                    output(&self.came[..at]);
                    self.came.drain(..at + mark.len());
                    return Ok(true);
                }
                let most = self.came.len().min(mark.len() - 1);
                let held = (0..=most).rev().find(|held| self.came.ends_with(&mark[..*held])).unwrap_or(0);
                let sure = self.came.len() - held;
                output(&self.came[..sure]);
                self.came.drain(..sure);
            }
            if !self.open[0] {
                output(&std::mem::take(&mut self.came));
                return Ok(false);
            }
            self.serve(false)?;
        }
    }

    /// Hands on all that comes, to the end.
    pub fn stream(&mut self, sink: &mut dyn Sink) -> Result<(), Trouble> {
        loop {
            if self.begun && !self.came.is_empty() {
                sink.bytes(&std::mem::take(&mut self.came))?;
            }
            if !self.open[0] {
                return Ok(());
            }
            self.serve(false)?;
        }
    }

    /// Waits until it has ended, and says how. What it still prints is thrown away. Its input stays open:
    /// it must end by itself.
    pub fn finish(mut self) -> Result<Ended, Trouble> {
        self.ended()
    }

    /// As `finish`, for those who do not own it.
    pub fn ended(&mut self) -> Result<Ended, Trouble> {
        while self.open != [false; 2] {
            self.came.clear();
            self.serve(false)?;
        }
        let said = String::from_utf8_lossy(&self.said).into_owned();
        match self.status {
            Some(status) => Ok(Ended { status, said }),
            None => Err(self.link.never_ended(&said)),
        }
    }

    /// Waits until something came, or, if `writes`, until something can be sent.
    fn serve(&mut self, writes: bool) -> Result<(), Trouble> {
        self.serve_for(writes, TICK)
    }

    /// As `serve`, for at most so long.
    fn serve_for(&mut self, writes: bool, tick: Duration) -> Result<(), Trouble> {
        self.watch.check()?;
        let mut fds = Vec::new();
        for (file, open) in [&self.output, &self.errors].into_iter().zip(self.open) {
            if open {
                fds.push(PollFd::from_borrowed_fd(file.as_fd(), PollFlags::IN));
            }
        }
        if let Some(input) = self.input.as_ref().filter(|_| writes) {
            fds.push(PollFd::from_borrowed_fd(input.as_fd(), PollFlags::OUT));
        }
        launch::wait(&mut fds, Some(Instant::now() + tick)).map_err(broken)?;
        if fds.iter().all(|fd| fd.revents().is_empty()) && tick.is_zero() {
            return Ok(());
        }
        drop(fds);
        let mut buffer = vec![0; PIECE];
        for index in 0..2 {
            let file = if index == 0 { &mut self.output } else { &mut self.errors };
            if !self.open[index] {
                continue;
            }
            match file.read(&mut buffer) {
                Ok(0) => self.open[index] = false,
                Ok(n) => {
                    self.heard = Instant::now();
                    match index {
                        0 => self.take(&buffer[..n]),
                        _ => self.overhear(&buffer[..n]),
                    }
                }
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) => return Err(broken(error)),
            }
        }
        if self.heard.elapsed() > IDLE {
            return Err(self.link.lost(&format!("nothing was heard of it for {} s", IDLE.as_secs())));
        }
        if Instant::now() > self.until {
            return Err(Failure::new(format!(
                "`{}` took more than {} h",
                self.link.name(),
                TOTAL.as_secs() / 3600
            ))
            .into());
        }
        Ok(())
    }

    /// Takes output, and throws away what a login shell said before it began.
    fn take(&mut self, bytes: &[u8]) {
        self.came.extend_from_slice(bytes);
        if self.begun {
            return;
        }
        match self.came.windows(BEGIN.len()).position(|window| window == BEGIN) {
            Some(at) => {
                self.came.drain(..at + BEGIN.len());
                self.begun = true;
            }
            None => {
                let keep = self.came.len().min(BEGIN.len() - 1);
                self.came.drain(..self.came.len() - keep);
            }
        }
    }

    /// Takes errors; signs of life and the end are not among them.
    fn overhear(&mut self, bytes: &[u8]) {
        self.said.extend(bytes.iter().filter(|byte| **byte != BEAT));
        if let Some(at) = self.said.iter().position(|byte| *byte == END)
            && let Some(end) = self.said[at..].iter().position(|byte| *byte == b'\n')
        {
            let text = String::from_utf8_lossy(&self.said[at + 1..at + end]).into_owned();
            self.status = text.parse().ok().or(self.status);
            self.input = None;
            self.said.drain(at..=at + end);
        }
        let more = self.said.len().saturating_sub(ERRORS);
        self.said.drain(..more);
    }
}

fn broken(error: io::Error) -> Trouble {
    Error::failed(format!("talk to ssh: {}", io_words(&error))).into()
}

/// An error with all that caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// The last thing that a program said, as one phrase: `No space left on device` as
/// `no space left on device`.
pub fn said(text: &str) -> Option<String> {
    let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
    let phrase = line.rsplit(": ").next().unwrap_or(line);
    let mut chars = phrase.chars();
    let first = chars.next()?.to_lowercase().to_string();
    Some(format!("{first}{}", chars.as_str()))
}
