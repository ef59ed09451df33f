//! The face for a terminal: below the lines that stay, a few that move: how far the run is, what runs
//! and for how long. The cursor is never hidden and rests on the first moving line, so an end at any
//! moment leaves a terminal that works, and a terminal that wraps lines anew takes it along.

use std::fmt::Write as _;
use std::io::Write;
use std::time::Duration;

use super::output::{Clock, Output, Settings, Verbosity};
use super::running::Running;
use super::story::Story;
use super::text::{self, Style, clean, elapsed};
use super::{Event, Outcome, Report};

/// The size of a terminal in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Columns.
    pub columns: usize,
    /// Rows.
    pub rows: usize,
}

/// The size of the terminal at standard error; 80 × 24 if it does not say.
pub fn stderr_size() -> Size {
    match rustix::termios::tcgetwinsize(rustix::stdio::stderr()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
            Size { columns: size.ws_col.into(), rows: size.ws_row.into() }
        }
        _ => Size { columns: 80, rows: 24 },
    }
}

/// So many running tasks are shown at most.
const TASKS_SHOWN: usize = 16;
/// A run that is over sooner shows nothing that moves.
const PATIENCE: Duration = Duration::from_millis(150);
const SPINNER: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
/// Goes to the first column and clears from there to the end of the screen (ECMA-48).
const CLEAR: &str = "\r\x1b[J";

/// Shows what runs.
pub struct Live<W: Write> {
    output: Output<W>,
    story: Story,
    running: Running,
    clock: Clock,
    size: Box<dyn FnMut() -> Size + Send>,
    stage: Stage,
    tasks: usize,
    /// Outcomes so far; a task that ended twice counts twice, but never more than `tasks` are shown.
    ended: usize,
    failed: usize,
    turn: usize,
}

/// What is on the screen below the lines that stay.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The run has not begun, or is over.
    Empty,
    /// The run began then, and nothing moves yet.
    Waiting(Duration),
    /// The moving lines of a run that began then.
    Drawn(Duration),
}

impl<W: Write> Live<W> {
    /// Writes to `writer`, a terminal (normally standard error) whose size `size` tells.
    pub fn new(
        writer: W,
        settings: Settings,
        clock: Clock,
        size: impl FnMut() -> Size + Send + 'static,
    ) -> Self {
        Self {
            output: Output::new(writer),
            story: Story::new(settings),
            running: Running::default(),
            clock,
            size: Box::new(size),
            stage: Stage::Empty,
            tasks: 0,
            ended: 0,
            failed: 0,
            turn: 0,
        }
    }

    /// Writes `text` where the moving lines were and draws them anew below, at once.
    fn draw(&mut self, text: &str, began: Duration) {
        let now = self.clock.now();
        let lines = self.moving(now, now.saturating_sub(began));
        let mut frame = String::from("\x1b[?2026h");
        if text.is_empty() {
            frame.push('\r');
        } else {
            frame.push_str(CLEAR);
            frame.push_str(text);
        }
        // What was there is overwritten, not cleared first: nothing flickers.
        frame.push_str(&lines.join("\x1b[K\n"));
        frame.push_str("\x1b[K");
        if lines.len() > 1 {
            write!(frame, "\x1b[J\x1b[{}A", lines.len() - 1).ok();
        } else {
            frame.push_str("\x1b[J");
        }
        frame.push_str("\r\x1b[?2026l");
        self.output.put(&frame);
        self.stage = Stage::Drawn(began);
    }

    /// The moving lines, none wider than the terminal, fewer than it has rows.
    fn moving(&mut self, now: Duration, since: Duration) -> Vec<String> {
        let size = (self.size)();
        // The last column stays free: some terminals wrap when it is filled.
        let columns = size.columns.saturating_sub(1);
        let tasks = self.running.tasks();
        let room = TASKS_SHOWN.min(size.rows.saturating_sub(2));
        let shown = if tasks.len() <= room { tasks.len() } else { room.saturating_sub(1) };

        let mut head = format!("[{}/{}] {} running", self.ended.min(self.tasks), self.tasks, tasks.len());
        if self.failed > 0 {
            write!(head, ", {} failed", self.failed).ok();
        }
        write!(head, "  {}", elapsed(since)).ok();
        let colours = self.story.settings().colours;
        let mut lines = vec![text::fit(&head, columns).into_owned()];
        let spinner = SPINNER[self.turn % SPINNER.len()];
        for task in &tasks[..shown] {
            let mut line = format!("{} {}", clean(&task.name), elapsed(now.saturating_sub(task.since)));
            let transfer = task.transfer(now);
            if !transfer.is_empty() {
                write!(line, "  {transfer}").ok();
            }
            let line = text::fit(&line, columns.saturating_sub(2));
            lines.push(format!("{} {line}", colours.paint(Style::Good, spinner)));
        }
        if shown < tasks.len() && room > 0 {
            let more = format!("  … and {} more", tasks.len() - shown);
            lines.push(text::fit(&more, columns).into_owned());
        }
        lines
    }
}

impl<W: Write> Report for Live<W> {
    fn event(&mut self, event: &Event) {
        let now = self.clock.now();
        self.running.event(event, now);
        match event {
            Event::Begin { tasks } => {
                self.tasks = *tasks;
                (self.ended, self.failed) = (0, 0);
                if self.story.settings().verbosity > Verbosity::Quiet {
                    self.stage = Stage::Waiting(now);
                }
            }
            Event::Done(done) => {
                self.ended += 1;
                self.failed += usize::from(done.outcome == Outcome::Failed);
            }
            _ => {}
        }
        let text = self.story.tell(event);
        let over = matches!(event, Event::End(_));
        match self.stage {
            Stage::Drawn(_) if over => self.output.put(&format!("{CLEAR}{text}")),
            Stage::Drawn(began) if !text.is_empty() => self.draw(&text, began),
            Stage::Empty | Stage::Waiting(_) if !text.is_empty() => self.output.put(&text),
            _ => {}
        }
        if over {
            self.stage = Stage::Empty;
        }
    }

    fn tick(&mut self) {
        let now = self.clock.now();
        match self.stage {
            Stage::Waiting(began) if now.saturating_sub(began) < PATIENCE => {}
            Stage::Waiting(began) | Stage::Drawn(began) => {
                self.turn = self.turn.wrapping_add(1);
                self.draw("", began);
            }
            Stage::Empty => {}
        }
    }
}

/// A run that did not come to its end leaves no moving line behind.
impl<W: Write> Drop for Live<W> {
    fn drop(&mut self) {
        if let Stage::Drawn(_) = self.stage {
            self.output.put(CLEAR);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use proptest::prelude::*;
    use snapbox::{assert_data_eq, str};

    use super::*;
    use crate::report::Verdict;
    use crate::report::output::tests::{Hand, Page};
    use crate::report::scenes::*;

    /// What a terminal shows, as far as the live face asks it to.
    #[derive(Default)]
    struct Screen {
        rows: Vec<Vec<char>>,
        row: usize,
        column: usize,
    }

    impl Screen {
        /// Takes bytes; panics at a sequence that the face has no reason to write, and where a line
        /// that moves would have been wrapped.
        fn write(&mut self, text: &str) {
            let mut chars = text.chars();
            while let Some(c) = chars.next() {
                self.rows.resize(self.rows.len().max(self.row + 1), Vec::new());
                match c {
                    '\r' => self.column = 0,
                    '\n' => (self.row, self.column) = (self.row + 1, 0),
                    '\x1b' => self.sequence(&mut chars),
                    c => {
                        assert!(!c.is_control());
                        let row = &mut self.rows[self.row];
                        row.resize(row.len().max(self.column + 1), ' ');
                        row[self.column] = c;
                        self.column += 1;
                    }
                }
            }
        }

        fn sequence(&mut self, chars: &mut std::str::Chars<'_>) {
            assert_eq!(chars.next(), Some('['));
            let mut sequence = String::new();
            while !sequence.ends_with(|c: char| c.is_ascii_alphabetic()) {
                sequence.push(chars.next().unwrap());
            }
            match sequence.as_str() {
                "K" => self.rows[self.row].truncate(self.column),
                "J" => {
                    self.rows[self.row].truncate(self.column);
                    self.rows.truncate(self.row + 1);
                }
                "?2026h" | "?2026l" => {}
                up => {
                    let up: usize = up.strip_suffix('A').unwrap().parse().unwrap();
                    self.row = self.row.checked_sub(up).unwrap();
                }
            }
        }

        fn text(&self) -> String {
            let lines: Vec<String> = self.rows.iter().map(|row| row.iter().collect()).collect();
            lines.join("\n")
        }
    }

    struct Stage {
        page: Page,
        hand: Hand,
        screen: Screen,
        columns: Arc<AtomicUsize>,
        rows: Arc<AtomicUsize>,
        live: Live<Page>,
    }

    impl Stage {
        fn new(settings: Settings, columns: usize, rows: usize) -> Self {
            let (page, hand) = (Page::default(), Hand::default());
            let (columns, rows) = (Arc::new(AtomicUsize::new(columns)), Arc::new(AtomicUsize::new(rows)));
            let (now_columns, now_rows) = (columns.clone(), rows.clone());
            let size = move || Size {
                columns: now_columns.load(Ordering::Relaxed),
                rows: now_rows.load(Ordering::Relaxed),
            };
            let live = Live::new(page.clone(), settings, hand.clock(), size);
            Self { page, hand, screen: Screen::default(), columns, rows, live }
        }

        fn event(&mut self, event: &Event) {
            self.live.event(event);
            self.screen.write(&self.page.take());
        }

        fn tick(&mut self, millis: u64) {
            self.hand.set(millis);
            self.live.tick();
            self.screen.write(&self.page.take());
        }
    }

    fn done(task: &str) -> Event {
        Event::Done(why(ended(task, Outcome::Ran), "new"))
    }

    #[test]
    fn lines_that_move_below_lines_that_stay() {
        let mut stage = Stage::new(NORMAL, 60, 24);
        stage.event(&Event::Begin { tasks: 40 });
        stage.tick(100);
        assert_eq!(stage.screen.text(), "");
        for task in ["clone.source", "compile.bin[greet]", "import.nodes"] {
            stage.event(&start(task));
        }
        for second in 0..=10 {
            stage.event(&progress("import.nodes", "node1", second * 1_000_000, 40_000_000));
            stage.event(&progress("import.nodes", "node2", second * 2_000_000, 40_000_000));
            stage.tick(seconds(second) + 200);
        }
        assert_data_eq!(stage.screen.text(), str![[r#"
[0/40] 3 running  10 s
⠙ clone.source 10 s
⠙ compile.bin[greet] 10 s
⠙ import.nodes 10 s  30.0 MB of 80.0 MB, 2.5 MB/s, 20 s le…
"#]]);
        stage.event(&done("clone.source"));
        stage.event(&Event::Done(ended("patch.patched", Outcome::Failed)));
        assert_data_eq!(stage.screen.text(), str![[r#"
     ran clone.source  0.31 s  new
  failed patch.patched  0.31 s
error: `patch.patched` failed
[2/40] 2 running, 1 failed  10 s
⠙ compile.bin[greet] 10 s
⠙ import.nodes 10 s  30.0 MB of 80.0 MB, 2.5 MB/s, 20 s le…
"#]]);
        assert_eq!((stage.screen.row, stage.screen.column), (2, 0));
        stage.tick(seconds(70));
        stage.event(&end(Verdict::Failed, &[(Outcome::Failed, 1), (Outcome::Ran, 1)], 70.0));
        stage.tick(seconds(71));
        assert_data_eq!(stage.screen.text(), str![]);
    }

    #[test]
    fn few_rows_and_columns_are_kept_to() {
        let mut stage = Stage::new(NORMAL, 24, 7);
        stage.event(&Event::Begin { tasks: 9 });
        for n in 1..=9 {
            stage.event(&start(&format!("compile.日本語の部品[{n}]")));
        }
        stage.tick(1000);
        assert_data_eq!(stage.screen.text(), str![[r#"
[0/9] 9 running  1 s
⠙ compile.日本語の部品…
⠙ compile.日本語の部品…
⠙ compile.日本語の部品…
⠙ compile.日本語の部品…
  … and 5 more
"#]]);
        stage.rows.store(1, Ordering::Relaxed);
        stage.columns.store(8, Ordering::Relaxed);
        stage.tick(1100);
        assert_data_eq!(stage.screen.text(), str!["[0/9] …"]);
    }

    #[test]
    fn a_short_run_moves_nothing() {
        let mut stage = Stage::new(NORMAL, 80, 24);
        for event in idle() {
            stage.live.event(&event);
            stage.live.tick();
        }
        assert_eq!(stage.page.take(), "nothing to do: 3 tasks up to date (0.01 s)\n");
    }

    #[test]
    fn quiet_moves_nothing() {
        let mut stage = Stage::new(QUIET, 80, 24);
        stage.event(&Event::Begin { tasks: 1 });
        stage.event(&start("compile.a"));
        stage.tick(5000);
        assert_eq!(stage.screen.text(), "");
    }

    #[test]
    fn an_unfinished_run_leaves_no_moving_line() {
        let mut stage = Stage::new(NORMAL, 80, 24);
        stage.event(&Event::Begin { tasks: 1 });
        stage.event(&start("compile.a"));
        stage.tick(5000);
        assert_ne!(stage.screen.text(), "");
        drop(stage.live);
        stage.screen.write(&stage.page.take());
        assert_eq!(stage.screen.text(), "");
    }

    proptest! {
        /// Whatever happens in whatever order and size: at the end exactly the lines that stay are there.
        #[test]
        fn what_stays_is_what_plain_writes(
            steps in prop::collection::vec((0_usize..5, 0_usize..6, 1_usize..90, 1_usize..30), 0..60),
        ) {
            let mut stage = Stage::new(NORMAL, 80, 24);
            let (page, hand) = (Page::default(), Hand::default());
            let mut plain = crate::report::plain::Plain::new(page.clone(), NORMAL, hand.clock());
            let mut events = vec![Event::Begin { tasks: 6 }];
            for (what, task, _, _) in &steps {
                let task = format!("compile.t{task}");
                events.push(match what {
                    0 | 1 => start(&task),
                    2 => done(&task),
                    3 => progress(&task, "n", 1000, 2000),
                    _ => Event::Done(ended(&task, Outcome::Failed)),
                });
            }
            events.push(end(Verdict::Failed, &[(Outcome::Failed, 1)], 1.0));
            for (place, event) in events.iter().enumerate() {
                if let Some((_, _, columns, rows)) = steps.get(place) {
                    stage.columns.store(*columns, Ordering::Relaxed);
                    stage.rows.store(*rows, Ordering::Relaxed);
                }
                stage.event(event);
                plain.event(event);
                stage.tick(200 * (place as u64 + 1));
                prop_assert!(stage.screen.rows.len() - stage.screen.row <= 17);
            }
            prop_assert_eq!(stage.screen.text(), page.take());
        }
    }
}
