//! The wish to stop: set by a signal or by the engine, seen at once by everything that waits.
//! Does not know who waits, and stops nothing itself.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::error::{Error, Result, io_words};
use crate::host::below;

/// How urgently the user wants to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asked {
    /// Not at all.
    No,
    /// Commands get SIGTERM, and SIGKILL when the grace is over.
    Once,
    /// Commands get SIGKILL at once.
    Twice,
}

/// A handle on the wish to stop; clones share it. A wish is never taken back.
#[derive(Clone, Debug)]
pub struct Stop(Arc<Wish>);

#[derive(Debug)]
struct Wish {
    times: AtomicUsize,
    // One per level, readable for ever once that level is reached: any number of threads can poll it.
    reached: [OwnedFd; 2],
    grace: Duration,
}

impl Stop {
    /// The time that commands usually get between SIGTERM and SIGKILL.
    pub const GRACE: Duration = Duration::from_secs(2);

    /// A handle that nobody has asked anything of. Commands that are to end, for whatever reason, have
    /// `grace` to do so by themselves.
    pub fn new(grace: Duration) -> Result<Self> {
        let event = || {
            eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
                .map_err(|error| Error::failed(format!("make an event: {}", io_words(&error.into()))))
        };
        Ok(Self(Arc::new(Wish { times: AtomicUsize::new(0), reached: [event()?, event()?], grace })))
    }

    /// Asks once more; the second time is `Asked::Twice`, and more change nothing.
    pub fn ask(&self) {
        let before = self.0.times.fetch_add(1, Ordering::SeqCst);
        if let Some(reached) = self.0.reached.get(before) {
            // Fails only when the counter would overflow, and then it is readable anyway.
            let _ = rustix::io::write(reached, &1_u64.to_ne_bytes());
        }
    }

    /// What was asked until now.
    pub fn asked(&self) -> Asked {
        match self.0.times.load(Ordering::SeqCst) {
            0 => Asked::No,
            1 => Asked::Once,
            _ => Asked::Twice,
        }
    }

    /// `Error::Interrupted` if it was asked to stop: for loops that can end at any turn.
    pub fn check(&self) -> Result<()> {
        if self.asked() == Asked::No { Ok(()) } else { Err(Error::Interrupted) }
    }

    /// The time between SIGTERM and SIGKILL.
    pub fn grace(&self) -> Duration {
        self.0.grace
    }

    /// Asks at every SIGINT, SIGTERM and SIGHUP from now on, from a thread of its own. A signal that was
    /// ignored when the program started (`nohup`) stays ignored.
    pub fn listen(&self) -> Result<()> {
        let ignored = below::ignored_signals();
        let wanted = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| !ignored.contains(signal));
        let failed = |error| Error::failed(format!("listen for signals: {}", io_words(&error)));
        let mut signals = Signals::new(wanted).map_err(failed)?;
        let stop = self.clone();
        let listen = move || signals.forever().for_each(|_| stop.ask());
        std::thread::Builder::new().name("signals".into()).spawn(listen).map_err(failed)?;
        Ok(())
    }

    /// Readable once more than `known` was asked; nothing when no more can be.
    pub(super) fn beyond(&self, known: Asked) -> Option<BorrowedFd<'_>> {
        self.0.reached.get(known as usize).map(AsFd::as_fd)
    }
}
