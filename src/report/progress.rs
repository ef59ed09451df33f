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
    /// The size that the moving lines were drawn for.
    drawn_for: Size,
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
            drawn_for: Size { columns: 0, rows: 0 },
            tasks: 0,
            ended: 0,
            failed: 0,
            turn: 0,
        }
    }

    /// Writes `text` where the moving lines were and draws them anew below, at once.
    fn draw(&mut self, text: &str, began: Duration) {
        let now = self.clock.now();
        let size = (self.size)();
        let resized = std::mem::replace(&mut self.drawn_for, size) != size;
        let lines = self.moving(size, now, now.saturating_sub(began));
        let mut frame = String::from("\x1b[?2026h");
        // What is there is overwritten, not cleared first, and nothing flickers; but a terminal that
        // was made narrower remembers which rows it wrapped until they are cleared.
        frame.push_str(if text.is_empty() && !resized { "\r" } else { CLEAR });
        frame.push_str(text);
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

    /// The moving lines: none wider than the terminal, and about half of its rows at most, so that they
    /// do not leave the screen when it becomes smaller.
    fn moving(&self, size: Size, now: Duration, since: Duration) -> Vec<String> {
        // The last column stays free: some terminals wrap when it is filled.
        let columns = size.columns.saturating_sub(1);
        let tasks = self.running.tasks();
        let room = TASKS_SHOWN.min(size.rows / 2);
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
            let mut tail = format!(" {}", elapsed(now.saturating_sub(task.since)));
            let transfer = task.transfer(now);
            if !transfer.is_empty() {
                write!(tail, "  {transfer}").ok();
            }
            // A long name is cut before the time is, down to half of the line.
            let room = columns.saturating_sub(2);
            let name = clean(&task.name);
            let name = text::fit(&name, room.saturating_sub(text::width(&tail)).max(room / 2));
            let line = format!("{name}{tail}");
            let line = text::fit(&line, room);
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
    use crate::report::screen::Screen;

    struct Scene {
        page: Page,
        hand: Hand,
        screen: Screen,
        columns: Arc<AtomicUsize>,
        rows: Arc<AtomicUsize>,
        live: Live<Page>,
    }

    impl Scene {
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
        let mut scene = Scene::new(NORMAL, 60, 24);
        scene.event(&Event::Begin { tasks: 40 });
        scene.tick(100);
        assert_eq!(scene.screen.text(), "");
        for task in ["clone.source", "compile.bin[greet]", "import.nodes"] {
            scene.event(&start(task));
        }
        for second in 0..=10 {
            scene.event(&progress("import.nodes", "node1", second * 1_000_000, 40_000_000));
            scene.event(&progress("import.nodes", "node2", second * 2_000_000, 40_000_000));
            scene.tick(seconds(second) + 200);
        }
        assert_data_eq!(
            scene.screen.text(),
            str![[r#"
[0/40] 3 running  10 s
⠙ clone.source 10 s
⠙ compile.bin[greet] 10 s
⠙ import.nodes 10 s  2 destinations: 30.0 MB of 80.0 MB, 2…
"#]]
        );
        scene.event(&done("clone.source"));
        scene.event(&Event::Done(ended("patch.patched", Outcome::Failed)));
        assert_data_eq!(
            scene.screen.text(),
            str![[r#"
     ran clone.source  0.31 s  new
  failed patch.patched  0.31 s
error: `patch.patched` failed
[2/40] 2 running, 1 failed  10 s
⠙ compile.bin[greet] 10 s
⠙ import.nodes 10 s  2 destinations: 30.0 MB of 80.0 MB, 2…
"#]]
        );
        assert_eq!((scene.screen.row, scene.screen.column), (3, 0));
        scene.tick(seconds(70));
        scene.event(&end(Verdict::Failed, &[(Outcome::Failed, 1), (Outcome::Ran, 1)], 70.0));
        scene.tick(seconds(71));
        assert_data_eq!(
            scene.screen.text(),
            str![[r#"
     ran clone.source  0.31 s  new
  failed patch.patched  0.31 s
error: `patch.patched` failed
error: 1 task failed:
    `patch.patched`
failed: 1 failed, 1 ran (1 min 10 s)
"#]]
        );
    }

    #[test]
    fn few_rows_and_columns_are_kept_to() {
        let mut scene = Scene::new(NORMAL, 24, 7);
        scene.event(&Event::Begin { tasks: 9 });
        for n in 1..=9 {
            scene.event(&start(&format!("compile.日本語の部品[{n}]")));
        }
        scene.tick(1000);
        assert_data_eq!(
            scene.screen.text(),
            str![[r#"
[0/9] 9 running  1 s
⠙ compile.日本語の… 1 s
⠙ compile.日本語の… 1 s
  … and 7 more
"#]]
        );
        scene.rows.store(1, Ordering::Relaxed);
        scene.columns.store(8, Ordering::Relaxed);
        scene.tick(1100);
        assert_data_eq!(scene.screen.text(), str!["[0/9] …"]);
    }

    #[test]
    fn a_short_run_moves_nothing() {
        let mut scene = Scene::new(NORMAL, 80, 24);
        for event in idle() {
            scene.live.event(&event);
            scene.live.tick();
        }
        assert_eq!(scene.page.take(), "nothing to do: 3 tasks up to date (0.01 s)\n");
    }

    #[test]
    fn quiet_moves_nothing() {
        let mut scene = Scene::new(QUIET, 80, 24);
        scene.event(&Event::Begin { tasks: 1 });
        scene.event(&start("compile.a"));
        scene.tick(5000);
        assert_eq!(scene.screen.text(), "");
    }

    #[test]
    fn an_unfinished_run_leaves_no_moving_line() {
        let mut scene = Scene::new(NORMAL, 80, 24);
        scene.event(&Event::Begin { tasks: 1 });
        scene.event(&start("compile.a"));
        scene.tick(5000);
        assert_ne!(scene.screen.text(), "");
        drop(scene.live);
        scene.screen.write(&scene.page.take());
        assert_eq!(scene.screen.text(), "");
    }

    proptest! {
        /// Whatever happens in whatever order and size: at the end exactly the lines that stay are there.
        #[test]
        fn what_stays_is_what_plain_writes(
            steps in prop::collection::vec((0_usize..5, 0_usize..6, 1_usize..90, 1_usize..30), 0..60),
        ) {
            let mut scene = Scene::new(NORMAL, 80, 24);
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
                    scene.columns.store(*columns, Ordering::Relaxed);
                    scene.rows.store(*rows, Ordering::Relaxed);
                }
                scene.event(event);
                plain.event(event);
                scene.tick(200 * (place as u64 + 1));
                prop_assert!(scene.screen.rows.len() - scene.screen.row <= 17);
            }
            prop_assert_eq!(scene.screen.text() + "\n", page.take());
        }
    }
}
