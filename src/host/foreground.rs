//! Runs a command in the foreground: it has our terminal, and what is typed there belongs to it. Does not
//! know what the command is for.
#![expect(clippy::disallowed_methods, reason = "starts a process")]

use std::os::unix::process::ExitStatusExt;

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use super::process::{Command, Exit};
use crate::error::{Error, Result, io_words};

/// Runs a command to its end with our standard streams, in our process group, so that the terminal is its
/// own: Ctrl-C and Ctrl-Z reach it, and Ctrl-C does not end us meanwhile. A SIGTERM or SIGHUP to us is
/// handed on. What it leaves running goes on. Its timeout is not looked at.
pub fn run(command: &Command) -> Result<Exit> {
    let Some((program, arguments)) = command.argv.split_first() else {
        panic!("BUG: a command without a program")
    };
    let failed = |doing: &str, error: &std::io::Error| {
        Error::failed(format!("{doing} `{}`: {}", program.display(), io_words(error)))
    };
    // Ignoring them would be inherited; a handler is not.
    let mut signals =
        Signals::new([SIGINT, SIGQUIT, SIGTERM, SIGHUP]).map_err(|error| failed("start", &error))?;
    let mut child = std::process::Command::new(program)
        .args(arguments)
        .current_dir(&command.dir)
        .env_clear()
        .envs(command.env.iter().map(|(name, value)| (name, value)))
        .spawn()
        .map_err(|error| failed("start", &error))?;
    let (handle, pid) = (signals.handle(), Pid::from_child(&child));
    let status = std::thread::scope(|scope| {
        scope.spawn(|| {
            for signal in signals.forever() {
                let signal = match signal {
                    SIGTERM => Signal::TERM,
                    SIGHUP => Signal::HUP,
                    _ => continue,
                };
                // Fails only when it has just ended.
                let _ = kill_process(pid, signal);
            }
        });
        let status = child.wait();
        handle.close();
        status
    });
    let status = status.map_err(|error| failed("wait for", &error))?;
    Ok(match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, signal) => Exit::Signal(signal.unwrap_or_default()),
    })
}
