//! The hidden verbs: the launcher, which stays above one command, is the reaper of everything below it
//! and ends all of that; and the stage that becomes the command. Does not know what the command is for.
//!
//! The launcher learns that vcbuild is gone by the end of its socket, which, unlike a death signal, does
//! not depend on a thread. The command learns that the launcher is gone by SIGKILL as its death signal:
//! only a process can set that for itself, and it survives `exec`; hence the second stage. (It is lost
//! when the command is a set-user-id program.)
#![expect(clippy::disallowed_methods, reason = "starts processes")]

use std::ffi::OsStr;
use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Resource, Rlimit, Signal, WaitOptions, WaitStatus};
use signal_hook::consts::{FORBIDDEN, SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM};

use crate::error::io_words;
use crate::host::below;
use crate::host::wire::{self, Report};

/// The verb of the launcher.
pub const LAUNCH: &str = "__launch";
/// The verb of the stage that becomes the command.
const EXEC: &str = "__launch-exec";
/// How long what a command left behind may take to end by itself: the rest of a pipeline does.
const DRAIN: Duration = Duration::from_millis(200);
/// How long killing may take; only processes that the kernel does not let die, or that run as another
/// user, need more.
pub const KILLING: Duration = Duration::from_secs(10);
/// How often to look for more processes to kill.
const AGAIN: Duration = Duration::from_millis(10);
/// How long dead processes may be taken in at a stretch: enough for tens of thousands.
const REAPING: Duration = Duration::from_millis(200);

/// This program again, under a hidden verb and with an empty environment. In unit tests this program is
/// the test harness, where the ignored test `entry` stands in for `main`.
pub fn command(verb: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("vcbuild").arg(verb).env_clear().stdout(Stdio::null());
    #[cfg(test)]
    command.args(["host::launch::tests::entry", "--exact", "--ignored", "--test-threads=1", "--nocapture"]);
    command
}

/// Does what a hidden verb says and returns the exit code; `None` if `verb` is not a hidden verb.
pub fn main(verb: &OsStr) -> Option<u8> {
    let work = match verb.to_str() {
        Some(LAUNCH) => launch,
        Some(EXEC) => exec,
        _ => return None,
    };
    // Whatever vcbuild was started with beyond the three streams is nobody's below.
    close_fds::set_fds_cloexec(3, &[]);
    let done = rustix::stdio::stdin().try_clone_to_owned().map(UnixStream::from).and_then(|socket| {
        let report = work(&socket).unwrap_or_else(|error| Report::Failed(io_words(&error)));
        (&socket).write_all(&serde_json::to_vec(&report)?)
    });
    Some(if done.is_ok() { 0 } else { 1 })
}

/// Says what could not be done.
fn failed(doing: impl fmt::Display, error: impl Into<io::Error>) -> io::Error {
    io::Error::other(format!("{doing}: {}", io_words(&error.into())))
}

/// Becomes the command; returns only if it cannot.
fn exec(socket: &UnixStream) -> io::Result<Report> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let (spec, [stdin, stdout, stderr]) = wire::receive(socket)?;
    if rustix::process::getppid().map(Pid::as_raw_pid) != Some(spec.launcher) {
        // The launcher ended before the death signal was set.
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    // A session of its own: the scheduler may weigh sessions against each other, and the launcher must be
    // heard when hundreds of processes below it want to run.
    rustix::process::setsid().map_err(|error| failed("start a session", error))?;
    rustix::process::umask(rustix::fs::Mode::WGRP | rustix::fs::Mode::WOTH);
    let limit = rustix::process::getrlimit(Resource::Core);
    rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), ..limit })?;
    // A signal with a handler gets its default back by `exec`, an ignored one stays ignored. That cannot
    // be done for the two signals that belong to the C library.
    for signal in below::ignored_signals().into_iter().filter(|signal| !FORBIDDEN.contains(signal)) {
        let _ = signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)));
    }
    let dir = Path::new(&spec.dir);
    std::env::set_current_dir(dir).map_err(|error| failed(format!("enter `{}`", dir.display()), error))?;
    let program = Path::new(&spec.argv[0]);
    let error = Command::new(program)
        .args(&spec.argv[1..])
        .env_clear()
        .envs(spec.env)
        .stdin(stdin)
        .stdout(stdout)
        .stderr(stderr)
        .exec();
    let what = format!("start `{}`", program.display());
    if error.kind() == io::ErrorKind::NotFound && program.components().count() > 1 && program.is_file() {
        return Err(io::Error::other(format!("{what}: its interpreter does not exist")));
    }
    Err(failed(what, error))
}

/// Runs the command that comes over `socket` and ends everything below.
fn launch(socket: &UnixStream) -> io::Result<Report> {
    let (mut spec, streams) = wire::receive(socket)?;
    let program = Path::new(&spec.argv[0]).display().to_string();
    rustix::process::setsid().map_err(|error| failed("start a session", error))?;
    let me = rustix::process::getpid();
    rustix::process::set_child_subreaper(Some(me)).map_err(|error| failed("become a reaper", error))?;
    spec.launcher = me.as_raw_pid();
    let (wake, waker) = UnixStream::pair()?;
    wake.set_nonblocking(true)?;
    socket.set_nonblocking(true)?;
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTERM] {
        signal_hook::flag::register(signal, ended.clone())?;
        signal_hook::low_level::pipe::register(signal, waker.try_clone()?)?;
    }
    signal_hook::low_level::pipe::register(SIGCHLD, waker)?;

    let (stage, theirs) = UnixStream::pair()?;
    let child = command(EXEC)
        .stdin(OwnedFd::from(theirs))
        .spawn()
        .map_err(|error| failed(format!("start `{program}`"), error))?;
    let leader = Pid::from_child(&child);
    let mut out = socket;
    out.write_all(&serde_json::to_vec(&Report::Started(leader.as_raw_pid()))?)?;
    let mut family = Family {
        leader,
        status: None,
        cause: None,
        phase: Phase::Running(spec.timeout.and_then(|timeout| Instant::now().checked_add(timeout))),
        grace: spec.grace,
    };
    // Fails only when the stage has ended, which is seen below.
    let _ = wire::send(&stage, &spec, streams.each_ref().map(AsFd::as_fd));
    drop((streams, spec));
    let left = family.watch(socket, &wake, &ended)?;

    if !left.is_empty() {
        let left: Vec<String> = left.iter().map(ToString::to_string).collect();
        let left = left.join(", ");
        return Ok(Report::Failed(format!("end what `{program}` started: still running: {left}")));
    }
    if let Some(cause) = family.cause {
        return Ok(cause);
    }
    // The stage's end is closed by `exec`: only a stage that failed has written to it.
    let mut said = Vec::new();
    (&stage).read_to_end(&mut said)?;
    let status = family.status.unwrap_or_else(|| panic!("BUG: the command was never reaped"));
    Ok(match (serde_json::from_slice(&said), status.exit_status(), status.terminating_signal()) {
        (Ok(report), ..) => report,
        (Err(_), Some(code), _) => Report::Code(code),
        (Err(_), None, signal) => Report::Signal(signal.unwrap_or_default()),
    })
}

/// Where the launcher is in the life of a command.
#[derive(Clone, Copy, PartialEq)]
enum Phase {
    /// The command runs, perhaps not beyond that time.
    Running(Option<Instant>),
    /// The command has ended, others have until then.
    Draining(Instant),
    /// All have got SIGTERM and have until then.
    Terminating(Instant),
    /// All get SIGKILL until none is left, or until then.
    Killing(Instant),
}

/// The command and all that it started.
struct Family {
    leader: Pid,
    status: Option<WaitStatus>,
    cause: Option<Report>,
    phase: Phase,
    grace: Duration,
}

impl Family {
    /// Waits until nothing is left below, and sees to it. Returns the process ids that would not go.
    fn watch(
        &mut self,
        socket: &UnixStream,
        wake: &UnixStream,
        ended: &AtomicBool,
    ) -> io::Result<Vec<i32>> {
        let mut listening = true;
        while self.reap()? {
            let now = Instant::now();
            if self.phase_is_over(now) {
                return Ok(below::alive());
            }
            let until = match self.phase {
                Phase::Running(until) => until,
                Phase::Draining(until) | Phase::Terminating(until) => Some(until),
                Phase::Killing(_) => Some(now + AGAIN),
            };
            let mut fds = vec![PollFd::new(wake, PollFlags::IN)];
            if listening {
                fds.push(PollFd::new(socket, PollFlags::IN));
            }
            wait(&mut fds, until)?;
            let mut bytes = [0; 64];
            // Only wakes; a failure means that there is nothing to read.
            let _ = (&*wake).read(&mut bytes);
            if ended.load(Ordering::SeqCst) {
                self.terminate();
            }
            if listening {
                match (&*socket).read(&mut bytes) {
                    Ok(n) if n > 0 && bytes[..n].contains(&wire::KILL) => self.kill(),
                    Ok(n) if n > 0 => self.terminate(),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    // vcbuild is gone.
                    _ => {
                        listening = false;
                        self.terminate();
                    }
                }
            }
        }
        Ok(Vec::new())
    }

    /// Takes in those that have ended; whether anything is left below.
    fn reap(&mut self) -> io::Result<bool> {
        // Processes that fork and end for ever must not keep it from ending them.
        let end = Instant::now() + REAPING;
        while Instant::now() < end {
            match rustix::process::wait(WaitOptions::NOHANG) {
                // Once the leader is reaped its process id may come again.
                Ok(Some((pid, status))) if pid == self.leader && self.status.is_none() => {
                    self.status = Some(status);
                }
                Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
                Ok(None) => return Ok(true),
                Err(rustix::io::Errno::CHILD) => return Ok(false),
                Err(error) => return Err(failed("wait for processes", error)),
            }
        }
        Ok(true)
    }

    /// Goes to the next phase when its time has come; whether there is none.
    fn phase_is_over(&mut self, now: Instant) -> bool {
        match self.phase {
            Phase::Running(_) if self.status.is_some() => self.phase = Phase::Draining(now + DRAIN),
            Phase::Running(Some(until)) if now >= until => {
                self.cause = Some(Report::TimedOut);
                self.enter_terminating(now);
            }
            Phase::Draining(until) if now >= until => self.enter_terminating(now),
            Phase::Terminating(until) if now >= until => self.enter_killing(now),
            Phase::Killing(until) if now >= until => return true,
            Phase::Killing(until) => below::kill(until),
            Phase::Running(_) | Phase::Draining(_) | Phase::Terminating(_) => {}
        }
        false
    }

    /// Somebody wishes that all end soon.
    fn terminate(&mut self) {
        if matches!(self.phase, Phase::Running(_) | Phase::Draining(_)) {
            self.stopped();
            self.enter_terminating(Instant::now());
        }
    }

    /// Somebody wishes that all end now.
    fn kill(&mut self) {
        if !matches!(self.phase, Phase::Killing(_)) {
            self.stopped();
            self.enter_killing(Instant::now());
        }
    }

    /// Notes why the command ends, if it has not ended and nothing else was the cause.
    fn stopped(&mut self) {
        if self.status.is_none() && self.cause.is_none() {
            self.cause = Some(Report::Stopped);
        }
    }

    fn enter_terminating(&mut self, now: Instant) {
        self.phase = Phase::Terminating(now + self.grace);
        below::terminate();
    }

    fn enter_killing(&mut self, now: Instant) {
        let until = now + KILLING;
        self.phase = Phase::Killing(until);
        below::kill(until);
    }
}

/// Waits until something can be read from one of `fds`, at the longest until `until`; may return early.
pub fn wait(fds: &mut [PollFd<'_>], until: Option<Instant>) -> io::Result<()> {
    let rest = until.map(|until| until.saturating_duration_since(Instant::now()));
    // An absurdly long time does not fit, and is as good as none.
    let rest = rest.and_then(|rest| Timespec::try_from(rest).ok());
    match poll(fds, rest.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(failed("wait for a command", error)),
    }
}

#[cfg(test)]
mod tests {
    /// Not a test: what `command` starts in unit tests.
    #[test]
    #[ignore = "stands in for `main`"]
    fn entry() {
        let verb = std::env::args_os().nth(1).unwrap();
        if let Some(code) = super::main(&verb) {
            std::process::exit(code.into());
        }
    }
}
