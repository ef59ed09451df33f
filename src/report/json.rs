//! Events for programs: one JSON object a line (`--events`). Fields are only ever added. Begins,
//! starts, notes and warnings are written as they come; what a task came to is written once, at the
//! end, because a task that ended may be opened again when the cache lost something.

use std::collections::BTreeMap;
use std::io::Write;

use serde::Serialize;

use super::{Destination, Done, End, Event, Outcome, Plan, Report, Verdict};
use crate::error::io_words;

/// Writes JSON lines.
pub struct Lines<W> {
    writer: W,
    /// The lines of `plan` and `done` that wait for the end, in order of their last coming.
    waiting: Vec<Option<String>>,
    places: BTreeMap<(&'static str, String), usize>,
    state: State,
}

/// How writing goes.
enum State {
    Fine,
    Broken(String),
    Told,
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Line<'a> {
    Begin {
        tasks: usize,
    },
    Start {
        task: &'a str,
    },
    Note {
        task: Option<&'a str>,
        text: &'a str,
    },
    Warning {
        task: Option<&'a str>,
        text: &'a str,
        hint: Option<&'a str>,
    },
    Plan {
        task: &'a str,
        destinations: Vec<PlannedAt<'a>>,
    },
    Done {
        task: &'a str,
        outcome: Outcome,
        key: Option<String>,
        seconds: f64,
        why: Option<&'a str>,
        cut_off: bool,
        error: Option<&'a str>,
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        destinations: &'a [Destination],
    },
    End {
        outcome: Verdict,
        counts: &'a BTreeMap<Outcome, usize>,
        seconds: f64,
    },
}

#[derive(Serialize)]
struct PlannedAt<'a> {
    name: &'a str,
    bytes_to_send: u64,
    changes: &'a [String],
    error: Option<&'a str>,
}

impl<W: Write> Lines<W> {
    /// Writes to `writer`, in whole lines, without a buffer between.
    pub fn new(writer: W) -> Self {
        Self { writer, waiting: Vec::new(), places: BTreeMap::new(), state: State::Fine }
    }

    fn write(&mut self, text: &str) {
        if matches!(self.state, State::Fine)
            && let Err(error) = self.writer.write_all(text.as_bytes()).and_then(|()| self.writer.flush())
        {
            let words = io_words(&error);
            self.state = State::Broken(format!("write events: {words}; the events are not complete"));
        }
    }

    /// Keeps a line for the end instead of an earlier one of the same kind and task.
    fn wait(&mut self, kind: &'static str, task: &str, line: String) {
        let place = self.waiting.len();
        if let Some(before) = self.places.insert((kind, task.to_string()), place) {
            self.waiting[before] = None;
        }
        self.waiting.push(Some(line));
    }

    fn end(&mut self, end: &End) {
        let mut text = String::new();
        self.places.clear();
        for line in self.waiting.drain(..).flatten() {
            text.push_str(&line);
        }
        let End { verdict, counts, seconds } = end;
        text.push_str(&line(&Line::End { outcome: *verdict, counts, seconds: rounded(*seconds) }));
        self.write(&text);
    }
}

impl<W: Write> Report for Lines<W> {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Begin { tasks } => self.write(&line(&Line::Begin { tasks: *tasks })),
            Event::Start { task } => self.write(&line(&Line::Start { task })),
            Event::Progress { .. } => {}
            Event::Note { task, text } => {
                self.write(&line(&Line::Note { task: task.as_deref(), text }));
            }
            Event::Warning { task, text, hint } => {
                self.write(&line(&Line::Warning { task: task.as_deref(), text, hint: hint.as_deref() }));
            }
            Event::Done(done) => self.wait("done", &done.task, line(&done_line(done))),
            Event::Plan(plan) => self.wait("plan", &plan.task, line(&plan_line(plan))),
            Event::End(end) => self.end(end),
        }
    }

    fn trouble(&mut self) -> Option<String> {
        match std::mem::replace(&mut self.state, State::Told) {
            State::Broken(text) => Some(text),
            State::Told => None,
            State::Fine => {
                self.state = State::Fine;
                None
            }
        }
    }
}

fn done_line(done: &Done) -> Line<'_> {
    Line::Done {
        task: &done.task,
        outcome: done.outcome,
        key: done.key.map(|key| key.hex()),
        seconds: rounded(done.seconds),
        why: done.why.as_deref(),
        cut_off: done.cut_off,
        error: done.failure.as_ref().map(|failure| failure.message.as_str()),
        destinations: &done.destinations,
    }
}

fn plan_line(plan: &Plan) -> Line<'_> {
    let destinations = plan
        .destinations
        .iter()
        .map(|(name, answer)| match answer {
            Ok((bytes, changes)) => PlannedAt { name, bytes_to_send: *bytes, changes, error: None },
            Err(error) => PlannedAt { name, bytes_to_send: 0, changes: &[], error: Some(error) },
        })
        .collect();
    Line::Plan { task: &plan.task, destinations }
}

fn line(line: &Line<'_>) -> String {
    let mut text =
        serde_json::to_string(line).unwrap_or_else(|error| panic!("BUG: an event as JSON: {error}"));
    text.push('\n');
    text
}

/// Microseconds are enough.
fn rounded(seconds: f64) -> f64 {
    (seconds * 1e6).round() / 1e6
}

#[cfg(test)]
mod tests {
    use std::io;

    use snapbox::{IntoData, assert_data_eq, str};

    use super::*;
    use crate::report::Tee;
    use crate::report::output::tests::{Hand, Page};
    use crate::report::plain::Plain;
    use crate::report::scenes::*;

    fn shown(events: &[Event]) -> String {
        let page = Page::default();
        play(&mut Lines::new(page.clone()), &Hand::default(), events);
        page.take()
    }

    #[test]
    fn a_run_that_failed() {
        assert_data_eq!(shown(&failing()), str![[r#"
{"event":"begin","tasks":9}
{"event":"start","task":"compile.bin[greet]"}
{"event":"start","task":"upload.cp"}
{"event":"done","task":"compile.bin[greet]","outcome":"failed","key":null,"seconds":0.31,"why":"`greet.c` changed","cut_off":false,"error":"`cc -static greet.c` ended with status 1"}
{"event":"done","task":"image.component[greet]","outcome":"skipped","key":null,"seconds":0.31,"why":"`compile.bin[greet]` failed","cut_off":false,"error":null}
{"event":"done","task":"deploy.hello","outcome":"skipped","key":null,"seconds":0.31,"why":"`image.component[greet]` was skipped","cut_off":false,"error":null}
{"event":"done","task":"upload.cp","outcome":"failed","key":null,"seconds":5.0,"why":null,"cut_off":false,"error":null,"destinations":[{"name":"node1","outcome":"applied","bytes_sent":842100,"bytes_planned":842100,"error":null},{"name":"node2","outcome":"failed","bytes_sent":0,"bytes_planned":0,"error":"the stream ended after 12.0 kB"},{"name":"node3","outcome":"deferred","bytes_sent":0,"bytes_planned":0,"error":"no answer in 5 s"}]}
{"event":"done","task":"import.nodes","outcome":"deferred","key":null,"seconds":5.0,"why":null,"cut_off":false,"error":null,"destinations":[{"name":"node1","outcome":"applied","bytes_sent":842100,"bytes_planned":842100,"error":null},{"name":"node3","outcome":"deferred","bytes_sent":0,"bytes_planned":0,"error":"no answer in 5 s"}]}
{"event":"end","outcome":"failed","counts":{"hit":4,"deferred":1,"skipped":2,"failed":2},"seconds":64.2}

"#]].raw());
    }

    #[test]
    fn a_run_that_went_well() {
        assert_data_eq!(shown(&edited()), str![[r#"
{"event":"begin","tasks":6}
{"event":"note","task":"clone.source","text":"pinned `main` at 0123456789ab"}
{"event":"start","task":"patch.patched"}
{"event":"warning","task":"patch.patched","text":"`patches/a.patch`: hunk 2 was found 3 lines below its place","hint":"refresh the patch"}
{"event":"start","task":"compile.bin[clock]"}
{"event":"start","task":"compile.bin[greet]"}
{"event":"start","task":"import.nodes"}
{"event":"done","task":"clone.source","outcome":"hit","key":"99f97894a7edf47c61edbb306c48029e76bcd0249375fce06676e24aa1b9f84d","seconds":0.31,"why":null,"cut_off":false,"error":null}
{"event":"done","task":"patch.patched","outcome":"ran","key":"0c6eb15668372a6057d6c15b9a8ca3e99271bde7163fc5180480de6cc63c36c4","seconds":0.31,"why":"`patches/a.patch` changed","cut_off":false,"error":null}
{"event":"done","task":"compile.bin[clock]","outcome":"ran","key":"afa14b01885637cfd69598a6333b865a0c2a7f3cca72c2f9ed54503b02da08c9","seconds":0.31,"why":"`patch.patched` changed","cut_off":true,"error":null}
{"event":"done","task":"compile.bin[greet]","outcome":"ran","key":"5b5818e3c26ba51b60e0816602c89496ba547fd7c106f57e6f9f2d73907a1a29","seconds":0.31,"why":"`patch.patched` changed","cut_off":false,"error":null}
{"event":"done","task":"import.nodes","outcome":"applied","key":null,"seconds":1.234,"why":null,"cut_off":false,"error":null,"destinations":[{"name":"node1","outcome":"applied","bytes_sent":842100,"bytes_planned":842100,"error":null},{"name":"node2","outcome":"applied","bytes_sent":842100,"bytes_planned":842100,"error":null},{"name":"node3","outcome":"unchanged","bytes_sent":0,"bytes_planned":0,"error":null}]}
{"event":"done","task":"deploy.hello","outcome":"applied","key":null,"seconds":0.31,"why":null,"cut_off":false,"error":null,"destinations":[{"name":"here","outcome":"applied","bytes_sent":1204,"bytes_planned":1204,"error":null}]}
{"event":"end","outcome":"ok","counts":{"hit":1,"ran":3,"applied":2},"seconds":2.3}

"#]].raw());
    }

    #[test]
    fn a_plan_is_written_once_for_each_task() {
        assert_data_eq!(shown(&plans()), str![[r#"
{"event":"begin","tasks":4}
{"event":"done","task":"compile.bin","outcome":"hit","key":"dac9383b41a522783b5c0985901b2c75f6e8c1e1f44ef93972495d989fc0070b","seconds":0.31,"why":null,"cut_off":false,"error":null}
{"event":"plan","task":"deploy.hello","destinations":[{"name":"here","bytes_to_send":1204,"changes":["change `deployment/default/greet`"],"error":null}]}
{"event":"plan","task":"import.nodes","destinations":[{"name":"node1","bytes_to_send":842100,"changes":["name `greet:vc-01`","name `greet:latest`"],"error":null},{"name":"node2","bytes_to_send":0,"changes":[],"error":null},{"name":"node3","bytes_to_send":0,"changes":[],"error":"no answer in 5 s"}]}
{"event":"end","outcome":"ok","counts":{"hit":1},"seconds":0.2}

"#]].raw());
    }

    #[test]
    fn each_task_ends_once_and_every_line_is_json() {
        let mut events = edited();
        events.insert(7, Event::Done(why(ended("clone.source", Outcome::Ran), "lost \u{1b}[1m \"x\"\n")));
        let text = shown(&events);
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let ends: Vec<_> = lines
            .iter()
            .filter(|line| line["event"] == "done" && line["task"] == "clone.source")
            .map(|line| (line["outcome"].clone(), line["why"].clone()))
            .collect();
        assert_eq!(ends, [("ran".into(), "lost \u{1b}[1m \"x\"\n".into())]);
        assert_eq!(lines.last().unwrap()["event"], "end");
    }

    /// A disk that takes so many lines and is full then.
    struct Disk(usize);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(1).ok_or(io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_is_told_once_to_the_others() {
        for room in [0, 2, 5] {
            let (page, hand) = (Page::default(), Hand::default());
            let mut plain = Plain::new(page.clone(), QUIET, hand.clock());
            let mut lines = Lines::new(Disk(room));
            play(&mut Tee(vec![&mut lines, &mut plain]), &hand, &failing());
            let told = "warning: write events: no storage space; the events are not complete\n";
            assert_eq!(page.take().matches(told).count(), usize::from(room < 4));
        }
    }
}
