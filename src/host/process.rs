//! Runs a command to its end, with all that it starts, below a launcher of its own. Does not know what
//! the command is for, and holds no output.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::process::Pid;

use crate::error::{Error, Result, io_words};
use crate::host::stop::{Asked, Stop};
use crate::host::wire::{self, Report, Spec};
use crate::host::{below, launch};

/// How many pieces to take from a pipe after the end: a pipe holds one, and what could not be ended might
/// write for ever.
const LAST_PIECES: usize = 16;

/// A command to run. It reads nothing, and gets umask 022, default signals, no terminal, and no descriptor but its streams.
#[derive(Clone, Debug)]
pub struct Command {
    /// The program, looked up in the PATH of `env` unless it holds a slash, and its arguments.
    pub argv: Vec<OsString>,
    /// The folder to run in.
    pub dir: PathBuf,
    /// The whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// How long it may take before it is ended.
    pub timeout: Option<Duration>,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this status.
    Code(i32),
    /// By this signal, which vcbuild did not send.
    Signal(i32),
    /// It took longer than its timeout, and was ended.
    TimedOut,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit status {code}"),
            Self::Signal(number) => match signal_hook::low_level::signal_name(*number) {
                Some(name) => write!(f, "ended by {name}"),
                None => write!(f, "ended by signal {number}"),
            },
            Self::TimedOut => f.write_str("timed out"),
        }
    }
}

/// What a command printed, and how it ended.
#[derive(Clone, Debug)]
pub struct Captured {
    /// How it ended.
    pub exit: Exit,
    /// All of its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error; of more than the limit, the end.
    pub stderr: Vec<u8>,
}

/// Runs a command and hands on what it prints, output and errors in one stream as they come, in pieces
/// of up to 64 KiB. While `output` does not return, the command waits.
///
/// When this returns nothing that the command started is left, even what changed its session. What is
/// still there when the command itself has ended gets 200 ms, then SIGTERM, then, after the grace of
/// `stop`, SIGKILL; a timeout and a first wish to stop go on at the SIGTERM, a second wish at the
/// SIGKILL. All that also happens if this program is killed.
///
/// Fails if the command could not be started, or if something that it started could not be ended;
/// `Error::Interrupted` if it was ended because of `stop`.
pub fn run(command: &Command, output: &mut dyn FnMut(&[u8]), stop: &Stop) -> Result<Exit> {
    let failed = |error| command.failed(&error);
    let (reader, writer) = io::pipe().map_err(failed)?;
    let second = writer.try_clone().map_err(failed)?;
    let mut sink = |_, bytes: &[u8]| {
        output(bytes);
        Ok(())
    };
    follow(command, vec![reader], [writer.into(), second.into()], &mut sink, None, stop)
}

/// Runs a command as `run` does and returns what it printed. Fails, and ends it, as soon as it has printed
/// more than `limit` bytes on its standard output.
pub fn capture(command: &Command, limit: usize, stop: &Stop) -> Result<Captured> {
    capture_while_heard(command, limit, None, stop)
}

/// As `capture`; a command that prints nothing for as long as `silence` is taken for stuck: it is ended, and
/// that is a failure.
pub fn capture_while_heard(
    command: &Command,
    limit: usize,
    silence: Option<Duration>,
    stop: &Stop,
) -> Result<Captured> {
    let failed = |error| command.failed(&error);
    let (stdout, stdout_end) = io::pipe().map_err(failed)?;
    let (stderr, stderr_end) = io::pipe().map_err(failed)?;
    let mut texts = [Vec::new(), Vec::new()];
    let mut sink = |index: usize, bytes: &[u8]| {
        let text = &mut texts[index];
        text.extend_from_slice(bytes);
        if index == 0 && text.len() > limit {
            let program = command.program();
            return Err(Error::failed(format!("`{program}` printed more than {limit} bytes")));
        }
        if text.len() > limit.saturating_mul(2) {
            text.drain(..text.len() - limit);
        }
        Ok(())
    };
    let ends = [stdout_end.into(), stderr_end.into()];
    let exit = follow(command, vec![stdout, stderr], ends, &mut sink, silence, stop)?;
    let [stdout, mut stderr] = texts;
    stderr.drain(..stderr.len().saturating_sub(limit));
    Ok(Captured { exit, stdout, stderr })
}

impl Command {
    fn program(&self) -> impl fmt::Display {
        Path::new(self.argv.first().unwrap_or_else(|| panic!("BUG: a command without a program"))).display()
    }

    fn failed(&self, error: &io::Error) -> Error {
        Error::failed(format!("start `{}`: {}", self.program(), io_words(error)))
    }

    /// Starts a launcher and gives it the command and the writing ends of its output.
    fn launch(&self, ends: [OwnedFd; 2], grace: Duration) -> io::Result<(Child, UnixStream)> {
        let input = OwnedFd::from(File::open("/dev/null")?);
        let (socket, theirs) = UnixStream::pair()?;
        let child = launch::command(launch::LAUNCH).stdin(OwnedFd::from(theirs)).spawn()?;
        let spec = Spec {
            argv: self.argv.clone(),
            dir: self.dir.clone().into(),
            env: self.env.clone(),
            timeout: self.timeout,
            grace,
            launcher: 0,
        };
        // Fails only when the launcher has ended, which is seen by the end of its socket.
        let _ = wire::send(&socket, &spec, [input.as_fd(), ends[0].as_fd(), ends[1].as_fd()]);
        socket.set_nonblocking(true)?;
        Ok((child, socket))
    }
}

/// Runs a command whose output comes out of `pipes`; `sink` takes a pipe's index and the next bytes, and
/// its failure ends the command.
fn follow(
    command: &Command,
    mut pipes: Vec<PipeReader>,
    ends: [OwnedFd; 2],
    sink: &mut dyn FnMut(usize, &[u8]) -> Result<()>,
    silence: Option<Duration>,
    stop: &Stop,
) -> Result<Exit> {
    stop.check()?;
    let failed = |error| command.failed(&error);
    for pipe in &pipes {
        rustix::io::ioctl_fionbio(pipe, true).map_err(|error| failed(error.into()))?;
    }
    let (mut child, socket) = command.launch(ends, stop.grace()).map_err(failed)?;
    let mut run =
        Run { socket, said: Vec::new(), open: true, refused: None, give_up: None, heard: Instant::now() };
    if let Some(timeout) = command.timeout {
        run.expect_end_within(timeout.saturating_add(stop.grace()));
    }
    let outcome = run.follow(&mut pipes, sink, silence, stop);
    // Only a launcher that was killed or stopped from outside does not say how the command ended.
    let (session, end) = run.reports();
    if outcome.is_err() || end.is_none() {
        let _ = child.kill();
        session.into_iter().for_each(below::kill_session);
    }
    let _ = child.wait();
    outcome.map_err(failed)?;
    match (run.refused, end) {
        (Some(refused), _) => Err(refused),
        (None, Some(Report::Code(code))) => Ok(Exit::Code(code)),
        (None, Some(Report::Signal(number))) => Ok(Exit::Signal(number)),
        (None, Some(Report::TimedOut)) => Ok(Exit::TimedOut),
        (None, Some(Report::Failed(message))) => Err(Error::failed(message)),
        (None, Some(Report::Stopped | Report::Started(_)) | None) if stop.asked() > Asked::No => {
            Err(Error::Interrupted)
        }
        (None, Some(Report::Stopped | Report::Started(_)) | None) => {
            Err(Error::failed(format!("the launcher of `{}` was ended from outside", command.program())))
        }
    }
}

/// A launcher at work.
struct Run {
    socket: UnixStream,
    said: Vec<u8>,
    open: bool,
    refused: Option<Error>,
    give_up: Option<Instant>,
    /// When something was last printed.
    heard: Instant,
}

impl Run {
    /// Hands on output until the launcher has ended, and then what is left in the pipes.
    fn follow(
        &mut self,
        pipes: &mut [PipeReader],
        sink: &mut dyn FnMut(usize, &[u8]) -> Result<()>,
        mut silence: Option<Duration>,
        stop: &Stop,
    ) -> io::Result<()> {
        let mut buffer = vec![0; 64 << 10];
        let mut open = vec![true; pipes.len()];
        let mut known = Asked::No;
        while self.open && self.give_up.is_none_or(|end| Instant::now() < end) {
            let mut fds = vec![PollFd::new(&self.socket, PollFlags::IN)];
            fds.extend(stop.beyond(known).map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
            let live = pipes.iter().zip(&open).filter(|(_, open)| **open);
            fds.extend(live.map(|(pipe, _)| PollFd::new(pipe, PollFlags::IN)));
            let stuck = silence.and_then(|silence| self.heard.checked_add(silence));
            launch::wait(&mut fds, [self.give_up, stuck].into_iter().flatten().min())?;
            drop(fds);
            if stop.asked() > known {
                known = stop.asked();
                self.wish(if known == Asked::Twice { wire::KILL } else { wire::TERMINATE });
                self.expect_end_within(stop.grace());
            }
            for (index, pipe) in
                pipes.iter_mut().enumerate().filter(|(index, _)| open[*index]).collect::<Vec<_>>()
            {
                open[index] = self.take(index, pipe, &mut buffer, sink)? != Taken::End;
            }
            self.listen()?;
            if let Some(time) = silence.filter(|time| self.heard.elapsed() >= *time) {
                silence = None;
                let message = format!("it said nothing for {} s, and was ended", time.as_secs());
                self.refused.get_or_insert(Error::failed(message));
                self.wish(wire::TERMINATE);
                self.expect_end_within(stop.grace());
            }
        }
        // Whoever could still write is dead, so what is there now is all.
        for (index, pipe) in pipes.iter_mut().enumerate() {
            for _ in 0..LAST_PIECES {
                if self.take(index, pipe, &mut buffer, sink)? != Taken::Bytes {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Hands on one piece from a pipe.
    fn take(
        &mut self,
        index: usize,
        pipe: &mut PipeReader,
        buffer: &mut [u8],
        sink: &mut dyn FnMut(usize, &[u8]) -> Result<()>,
    ) -> io::Result<Taken> {
        match pipe.read(buffer) {
            Ok(0) => Ok(Taken::End),
            Ok(n) => {
                self.heard = Instant::now();
                if self.refused.is_none() {
                    self.refused = sink(index, &buffer[..n]).err();
                    if self.refused.is_some() {
                        self.wish(wire::KILL);
                        self.expect_end_within(Duration::ZERO);
                    }
                }
                Ok(Taken::Bytes)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Taken::Nothing),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Taken::Bytes),
            Err(error) => Err(error),
        }
    }

    /// Takes in what the launcher says.
    fn listen(&mut self) -> io::Result<()> {
        match self.socket.read_to_end(&mut self.said) {
            Ok(_) => self.open = false,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // It ended without having read all that was sent.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => self.open = false,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The session of the command and how it ended, as far as the launcher has said.
    fn reports(&self) -> (Option<Pid>, Option<Report>) {
        let (mut session, mut end) = (None, None);
        for report in serde_json::Deserializer::from_slice(&self.said).into_iter().map_while(Result::ok) {
            match report {
                Report::Started(leader) => session = Pid::from_raw(leader),
                report => end = Some(report),
            }
        }
        (session, end)
    }

    /// Tells the launcher what it should do.
    fn wish(&mut self, wish: u8) {
        // Fails only when the launcher has ended.
        let _ = self.socket.write_all(&[wish]);
    }

    /// Gives the launcher that time, and what it may need to kill, before it is taken for stuck.
    fn expect_end_within(&mut self, time: Duration) {
        let time = time.saturating_add(launch::KILLING).saturating_add(Duration::from_secs(5));
        let end = Instant::now().checked_add(time);
        self.give_up = end.map(|end| self.give_up.map_or(end, |before| before.min(end))).or(self.give_up);
    }
}

/// What came out of a pipe.
#[derive(PartialEq)]
enum Taken {
    Bytes,
    Nothing,
    End,
}
