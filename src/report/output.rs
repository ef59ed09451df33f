//! Where text goes, the clock, and what the surroundings allow. A reader that went away is no error:
//! the build goes on in silence. Reads no environment itself: it is given what was found there.

use std::io::{ErrorKind, Write};
use std::time::{Duration, Instant};

use super::text::Colours;

/// How much is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Errors, warnings and how a run ended if it did not end well (`-q`).
    Quiet,
    /// A line for each task that did something.
    Normal,
    /// A line for each task, and what the tasks printed (`-v`).
    Verbose,
}

/// How much is told, and whether in colours.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How much is told.
    pub verbosity: Verbosity,
    /// Whether in colours.
    pub colours: Colours,
}

/// The value of `--color`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// As the surroundings say.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What is known about the stream that is written to, and about the environment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// The stream is a terminal.
    pub terminal: bool,
    /// The terminal can do nothing (`TERM` is `dumb` or not set).
    pub dumb: bool,
    /// `CI` is set and neither empty nor `false`.
    pub ci: bool,
    /// `NO_COLOR` is set and not empty (no-color.org).
    pub no_color: bool,
    /// `CLICOLOR_FORCE` is set and neither empty nor `0` (bixense.com/clicolors).
    pub force_color: bool,
}

/// Which of the two faces for people is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Face {
    /// `plain::Plain`.
    Plain,
    /// `progress::Live`.
    Live,
}

impl Surroundings {
    /// Whether to write in colours; `--color always` and `never` win, then `NO_COLOR`.
    pub fn colours(&self, when: When) -> Colours {
        let auto = !self.no_color && (self.force_color || self.terminal && !self.dumb);
        match when {
            When::Always => Colours::On,
            When::Auto if auto => Colours::On,
            When::Auto | When::Never => Colours::Off,
        }
    }

    /// Which face fits: the live one only on a terminal that can draw and outside CI.
    pub fn face(&self) -> Face {
        if self.terminal && !self.dumb && !self.ci { Face::Live } else { Face::Plain }
    }
}

/// Time since some moment, for elapsed times and rates.
pub struct Clock(Box<dyn FnMut() -> Duration + Send>);

impl Clock {
    /// The monotonic clock of this machine.
    pub fn real() -> Self {
        let start = Instant::now();
        Self(Box::new(move || start.elapsed()))
    }

    #[cfg(test)]
    /// A clock that says what `now` says.
    pub fn of(now: impl FnMut() -> Duration + Send + 'static) -> Self {
        Self(Box::new(now))
    }

    /// The time now.
    pub fn now(&mut self) -> Duration {
        (self.0)()
    }
}

/// A writer that falls silent when its reader is gone.
pub struct Output<W> {
    writer: W,
    gone: bool,
}

/// How long a full terminal or pipe in non-blocking mode is waited for. Programs that share the
/// stream, such as ssh, may have put it into that mode.
const PATIENCE: Duration = Duration::from_secs(5);

impl<W: Write> Output<W> {
    /// Writes to `writer`, which should not buffer lines of its own.
    pub fn new(writer: W) -> Self {
        Self { writer, gone: false }
    }

    /// Writes all of `text` and flushes it; after a failure, nothing any more.
    pub fn put(&mut self, text: &str) {
        let mut rest = text.as_bytes();
        let mut waited = Duration::ZERO;
        while !rest.is_empty() && !self.gone {
            match self.writer.write(rest) {
                Ok(0) => self.gone = true,
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock && waited < PATIENCE => {
                    let pause = Duration::from_millis(5);
                    std::thread::sleep(pause);
                    waited += pause;
                }
                Err(_) => self.gone = true,
            }
        }
        if !self.gone && self.writer.flush().is_err() {
            self.gone = true;
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use std::io;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Arc, Mutex};

    /// Bytes that a test can read while a report writes them.
    #[derive(Clone, Default)]
    pub struct Page(Arc<Mutex<Vec<u8>>>);

    impl Page {
        /// What was written since the last call.
        pub fn take(&self) -> String {
            String::from_utf8(std::mem::take(&mut self.0.lock().unwrap())).unwrap()
        }
    }

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A clock that a test sets, in milliseconds.
    #[derive(Clone, Default)]
    pub struct Hand(Arc<AtomicU64>);

    impl Hand {
        pub fn set(&self, millis: u64) {
            self.0.store(millis, Ordering::Relaxed);
        }
        pub fn clock(&self) -> Clock {
            let millis = self.0.clone();
            Clock::of(move || Duration::from_millis(millis.load(Ordering::Relaxed)))
        }
    }

    struct Stubborn {
        answers: Vec<io::Result<usize>>,
        seen: usize,
    }

    impl Write for Stubborn {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            self.seen += 1;
            self.answers.remove(0)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_went_away_is_left_alone() {
        let answers = vec![Ok(2), Err(ErrorKind::BrokenPipe.into())];
        let mut output = Output::new(Stubborn { answers, seen: 0 });
        output.put("hello");
        output.put("again");
        assert_eq!(output.writer.seen, 2);
    }

    #[test]
    fn a_full_pipe_is_waited_for() {
        let answers =
            vec![Err(ErrorKind::WouldBlock.into()), Ok(2), Err(ErrorKind::Interrupted.into()), Ok(3)];
        let mut output = Output::new(Stubborn { answers, seen: 0 });
        output.put("hello");
        assert_eq!((output.writer.seen, output.gone), (4, false));
    }

    #[test]
    fn surroundings_decide() {
        let terminal = Surroundings { terminal: true, ..Surroundings::default() };
        assert_eq!((terminal.colours(When::Auto), terminal.face()), (Colours::On, Face::Live));
        let ci = Surroundings { ci: true, ..terminal };
        assert_eq!((ci.colours(When::Auto), ci.face()), (Colours::On, Face::Plain));
        let dumb = Surroundings { dumb: true, ..terminal };
        assert_eq!((dumb.colours(When::Auto), dumb.face()), (Colours::Off, Face::Plain));
        let pipe = Surroundings::default();
        assert_eq!((pipe.colours(When::Auto), pipe.face()), (Colours::Off, Face::Plain));
        assert_eq!(Surroundings { force_color: true, ..pipe }.colours(When::Auto), Colours::On);
        let neither = Surroundings { force_color: true, no_color: true, ..terminal };
        assert_eq!(neither.colours(When::Auto), Colours::Off);
        assert_eq!(neither.colours(When::Always), Colours::On);
        assert_eq!(terminal.colours(When::Never), Colours::Off);
    }
}
