//! The face for pipes, files and CI: lines that stay, nothing that moves. A task that runs long is
//! mentioned now and then, so that nobody takes the run for dead.

use std::io::Write;

use super::output::{Clock, Output, Settings, Verbosity};
use super::running::Running;
use super::story::Story;
use super::text::{Style, clean, elapsed};
use super::{Event, Report};

/// Writes a line for each thing worth one.
pub struct Plain<W> {
    output: Output<W>,
    story: Story,
    running: Running,
    clock: Clock,
    /// Warnings of tasks: a task may have a thousand at once, and each write wakes whoever reads.
    held: String,
}

impl<W: Write> Plain<W> {
    /// Writes to `writer`, normally standard error.
    pub fn new(writer: W, settings: Settings, clock: Clock) -> Self {
        Self {
            output: Output::new(writer),
            story: Story::new(settings),
            running: Running::default(),
            clock,
            held: String::new(),
        }
    }

    fn put_held(&mut self) {
        if !self.held.is_empty() {
            self.output.put(&std::mem::take(&mut self.held));
        }
    }
}

impl<W: Write> Report for Plain<W> {
    fn event(&mut self, event: &Event) {
        self.running.event(event, self.clock.now());
        self.held.push_str(&self.story.tell(event));
        if !matches!(event, Event::Warning { task: Some(_), .. }) {
            self.put_held();
        }
    }

    fn tick(&mut self) {
        self.put_held();
        let now = self.clock.now();
        let settings = self.story.settings();
        for task in self.running.due(now) {
            if settings.verbosity > Verbosity::Quiet {
                let mut line = format!(
                    "{} {}  {}",
                    settings.colours.paint(Style::Faint, " running"),
                    clean(&task.name),
                    elapsed(now.saturating_sub(task.since))
                );
                let transfer = task.transfer(now);
                if !transfer.is_empty() {
                    line.push_str("  ");
                    line.push_str(&transfer);
                }
                line.push('\n');
                self.output.put(&line);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use snapbox::{assert_data_eq, str};

    use super::*;
    use crate::report::output::tests::{Hand, Page};
    use crate::report::scenes::*;
    use crate::report::text::Colours;
    use crate::report::{Done, Outcome, Verdict};

    fn shown(settings: Settings, events: &[Event]) -> String {
        let (page, hand) = (Page::default(), Hand::default());
        play(&mut Plain::new(page.clone(), settings, hand.clock()), &hand, events);
        page.take()
    }

    #[test]
    fn one_line_when_nothing_had_to_be_done() {
        assert_data_eq!(
            shown(NORMAL, &idle()),
            str![[r#"
nothing to do: 3 tasks up to date (0.01 s)

"#]]
        );
        assert_eq!(shown(QUIET, &idle()), "");
    }

    #[test]
    fn hits_are_named_when_asked_for() {
        assert_data_eq!(
            shown(VERBOSE, &idle()),
            str![[r#"
      hit clone.source  0.31 s  key 99f97894a7ed
      hit patch.patched  0.31 s  key 0c6eb1566837
unchanged import.nodes  0.31 s
nothing to do: 3 tasks up to date (0.01 s)

"#]]
        );
    }

    #[test]
    fn an_end_without_counts_is_told_by_somebody_else() {
        let events = [Event::Begin { tasks: 0 }, end(Verdict::Ok, &[], 0.0)];
        assert_eq!(shown(NORMAL, &events), "");
    }

    #[test]
    fn one_task_ran_and_another_was_cut_off() {
        assert_data_eq!(
            shown(NORMAL, &edited()),
            str![[r#"
note: `clone.source`: pinned `main` at 0123456789ab
warning: `patch.patched`: `patches/a.patch`: hunk 2 was found 3 lines below its place
hint: refresh the patch
     ran patch.patched  0.31 s  `patches/a.patch` changed
     ran compile.bin[clock]  0.31 s  `patch.patched` changed; same output: nothing after it has to run
     ran compile.bin[greet]  0.31 s  `patch.patched` changed
 applied import.nodes  1.2 s  node1 842.1 kB, node2 842.1 kB; 1 up to date
          node1, node2: name `greet:vc-0123456789abcdef`
 applied deploy.hello  0.31 s  here 1.2 kB
          change `deployment/default/greet`
done: 3 ran, 2 applied, 1 up to date (2.3 s)

"#]]
        );
    }

    #[test]
    fn logs_when_asked_for() {
        assert_data_eq!(
            shown(VERBOSE, &edited()),
            str![[r#"
      hit clone.source  0.31 s  key 99f97894a7ed
note: `clone.source`: pinned `main` at 0123456789ab
warning: `patch.patched`: `patches/a.patch`: hunk 2 was found 3 lines below its place
hint: refresh the patch
      ran patch.patched  0.31 s  `patches/a.patch` changed  key 0c6eb1566837
      ran compile.bin[clock]  0.31 s  `patch.patched` changed; same output: nothing after it has to run  key afa14b018856
    | cc -static
    | clock.c: warning: unused
      ran compile.bin[greet]  0.31 s  `patch.patched` changed  key 5b5818e3c26b
  applied import.nodes  1.2 s  node1 842.1 kB, node2 842.1 kB; 1 up to date
          node1, node2: name `greet:vc-0123456789abcdef`
  applied deploy.hello  0.31 s  here 1.2 kB
          change `deployment/default/greet`
done: 3 ran, 2 applied, 1 up to date (2.3 s)

"#]]
        );
    }

    #[test]
    fn quiet_still_warns() {
        assert_data_eq!(
            shown(QUIET, &edited()),
            str![[r#"
warning: `patch.patched`: `patches/a.patch`: hunk 2 was found 3 lines below its place
hint: refresh the patch

"#]]
        );
    }

    #[test]
    fn failures_are_repeated_at_the_end_in_their_order() {
        assert_data_eq!(
            shown(NORMAL, &failing()),
            str![[r#"
  failed compile.bin[greet]  0.31 s  `greet.c` changed
error: `compile.bin[greet]` failed: `cc -static greet.c` ended with status 1
    greet.c:3:1: error: expected `;`
hint: `vcbuild log compile.bin[greet]` shows all of it
 skipped image.component[greet]  `compile.bin[greet]` failed
 skipped deploy.hello  `image.component[greet]` was skipped
  failed upload.cp  5.0 s  node1 842.1 kB
          node3 deferred: no answer in 5 s
error: `upload.cp` failed on `node2`: the stream ended after 12.0 kB
deferred import.nodes  5.0 s  node1 842.1 kB
          node3 deferred: no answer in 5 s
error: 2 tasks failed, in this order:
    `compile.bin[greet]`: `cc -static greet.c` ended with status 1
    `upload.cp`: node2: the stream ended after 12.0 kB
warning: 1 task deferred; the next run does what is left:
    `import.nodes`: node3: no answer in 5 s
failed: 2 failed, 1 deferred, 2 skipped, 4 up to date (1 min 04 s)

"#]]
        );
    }

    #[test]
    fn quiet_shows_failures() {
        assert_data_eq!(
            shown(QUIET, &failing()),
            str![[r#"
error: `compile.bin[greet]` failed: `cc -static greet.c` ended with status 1
    greet.c:3:1: error: expected `;`
hint: `vcbuild log compile.bin[greet]` shows all of it
error: `upload.cp` failed on `node2`: the stream ended after 12.0 kB
error: 2 tasks failed, in this order:
    `compile.bin[greet]`: `cc -static greet.c` ended with status 1
    `upload.cp`: node2: the stream ended after 12.0 kB
warning: 1 task deferred; the next run does what is left:
    `import.nodes`: node3: no answer in 5 s
failed: 2 failed, 1 deferred, 2 skipped, 4 up to date (1 min 04 s)

"#]]
        );
    }

    #[test]
    fn deferred_alone() {
        let deferred = Done {
            seconds: 5.0,
            destinations: (1..=12)
                .map(|n| trouble(&format!("node{n}"), Outcome::Deferred, "no answer in 5 s"))
                .collect(),
            ..ended("import.nodes", Outcome::Deferred)
        };
        let counts = [(Outcome::Hit, 3), (Outcome::Deferred, 1)];
        let events =
            [Event::Begin { tasks: 4 }, Event::Done(deferred), end(Verdict::Deferred, &counts, 5.01)];
        assert_data_eq!(
            shown(NORMAL, &events),
            str![[r#"
deferred import.nodes  5.0 s
          node1, node2, node3, node4, node5, node6, node7, node8 … and 4 more deferred: no answer in 5 s
warning: 1 task deferred; the next run does what is left:
    `import.nodes`: node1: no answer in 5 s … and 11 more
deferred: 1 deferred, 3 up to date (5.0 s)

"#]]
        );
    }

    #[test]
    fn only_the_last_outcome_of_a_task_counts() {
        let failed = |task| Event::Done(why(ended(task, Outcome::Failed), "new"));
        let events = [
            Event::Begin { tasks: 3 },
            Event::Done(ended("clone.a", Outcome::Hit)),
            Event::Done(why(ended("patch.b", Outcome::Ran), "new")),
            failed("compile.c"),
            Event::Done(why(ended("clone.a", Outcome::Ran), "the cache lost its result")),
            Event::Done(ended("patch.b", Outcome::Hit)),
            Event::Done(why(ended("compile.c", Outcome::Ran), "new")),
            end(Verdict::Ok, &[(Outcome::Ran, 2), (Outcome::Hit, 1)], 1.0),
        ];
        assert_data_eq!(
            shown(NORMAL, &events),
            str![[r#"
     ran patch.b  0.31 s  new
  failed compile.c  0.31 s  new
error: `compile.c` failed
     ran clone.a  0.31 s  the cache lost its result
     hit patch.b  0.31 s  again
     ran compile.c  0.31 s  again: new
done: 2 ran, 1 up to date (1.0 s)

"#]]
        );
    }

    #[test]
    fn many_skipped_tasks_are_counted() {
        let mut events = vec![Event::Begin { tasks: 21 }];
        let skip = |n| why(ended(&format!("image.i[{n:02}]"), Outcome::Skipped), "`compile.bin` failed");
        events.extend((0..20).map(|n| Event::Done(skip(n))));
        // One that was skipped ran after all: the lost blob that failed it was made again.
        events.push(Event::Done(ended("image.i[19]", Outcome::Ran)));
        events.push(end(Verdict::Interrupted, &[(Outcome::Skipped, 19), (Outcome::Ran, 1)], 3.0));
        assert_data_eq!(
            shown(NORMAL, &events),
            str![[r#"
 skipped image.i[00]  `compile.bin` failed
 skipped image.i[01]  `compile.bin` failed
 skipped image.i[02]  `compile.bin` failed
 skipped image.i[03]  `compile.bin` failed
 skipped image.i[04]  `compile.bin` failed
 skipped image.i[05]  `compile.bin` failed
 skipped image.i[06]  `compile.bin` failed
 skipped image.i[07]  `compile.bin` failed
     ran image.i[19]  0.31 s
 skipped … and 11 more (-v names all)
interrupted: 19 skipped, 1 ran (3.0 s)

"#]]
        );
    }

    #[test]
    fn changes_are_grouped_and_bounded() {
        let changed = |name: &str, count: usize| crate::report::Destination {
            changes: (0..count).map(|n| format!("write `etc/{n}`")).collect(),
            ..destination(name, Outcome::Applied, 1000)
        };
        let mut destinations: Vec<_> = (1..=11).map(|n| changed(&format!("node{n}"), 2)).collect();
        destinations.push(changed("odd", 30));
        let done = Done { destinations, ..ended("upload.files", Outcome::Applied) };
        assert_data_eq!(
            shown(NORMAL, &[Event::Done(done)]),
            str![[r#"
 applied upload.files  0.31 s  node1 1.0 kB, node2 1.0 kB, node3 1.0 kB, node4 1.0 kB, node5 1.0 kB, node6 1.0 kB, node7 1.0 kB, node8 1.0 kB, and 4 more 4.0 kB
          node1, node2, node3, node4, node5, node6, node7, node8 … and 3 more: write `etc/0`
          node1, node2, node3, node4, node5, node6, node7, node8 … and 3 more: write `etc/1`
          odd: write `etc/0`
          odd: write `etc/1`
          odd: write `etc/2`
          odd: write `etc/3`
          odd: write `etc/4`
          odd: write `etc/5`
          … and 24 more changes (-v names all)

"#]]
        );
    }

    #[test]
    fn warnings_come_once_and_foreign_text_is_harmless() {
        let warning = Event::Warning { task: None, text: "a\u{1b}[2Jb\nc".into(), hint: None };
        let text = shown(QUIET, &[warning.clone(), warning]);
        assert_eq!(text, "warning: ab c\n");
    }

    #[test]
    fn warnings_of_tasks_wait_for_what_follows_or_a_tick() {
        let (page, hand) = (Page::default(), Hand::default());
        let mut plain = Plain::new(page.clone(), NORMAL, hand.clock());
        let warning =
            |text: &str| Event::Warning { task: Some("a.b".into()), text: text.into(), hint: None };
        plain.event(&warning("one"));
        assert_eq!(page.take(), "");
        plain.tick();
        assert_eq!(page.take(), "warning: `a.b`: one\n");
        plain.event(&warning("two"));
        plain.event(&Event::Note { task: None, text: "three".into() });
        assert_eq!(page.take(), "warning: `a.b`: two\nnote: three\n");
    }

    #[test]
    fn colours_when_wanted() {
        let settings = Settings { colours: Colours::On, ..NORMAL };
        let text = shown(settings, &[Event::Done(ended("compile.a", Outcome::Ran))]);
        assert_eq!(text, "     \x1b[1;32mran\x1b[0m compile.a  0.31 s\n");
    }

    #[test]
    fn long_tasks_are_mentioned_now_and_then() {
        let (page, hand) = (Page::default(), Hand::default());
        let mut plain = Plain::new(page.clone(), NORMAL, hand.clock());
        plain.event(&start("compile.slow"));
        plain.event(&start("import.nodes"));
        for second in 0..=95 {
            hand.set(seconds(second));
            plain.event(&progress("import.nodes", "node1", second * 1_000_000, 200_000_000));
            plain.tick();
        }
        plain.event(&Event::Done(ended("compile.slow", Outcome::Ran)));
        assert_data_eq!(
            page.take(),
            str![[r#"
 running compile.slow  30 s
 running import.nodes  30 s  node1: 30.0 MB of 200.0 MB, 1.0 MB/s, 2 min 50 s left
 running compile.slow  1 min 30 s
 running import.nodes  1 min 30 s  node1: 90.0 MB of 200.0 MB, 1.0 MB/s, 1 min 50 s left
     ran compile.slow  0.31 s

"#]]
        );
    }
}
