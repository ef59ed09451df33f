//! For tests: how events are made with few words, and whole runs that every face shows.

use std::time::Duration;

use super::output::tests::Hand;
use super::output::{Settings, Verbosity};
use super::text::Colours;
use super::{Destination, Done, End, Event, Outcome, Plan, Report, Verdict};
use crate::digest::Digest;
use crate::error::Failure;

pub const NORMAL: Settings = Settings { verbosity: Verbosity::Normal, colours: Colours::Off };
pub const QUIET: Settings = Settings { verbosity: Verbosity::Quiet, colours: Colours::Off };
pub const VERBOSE: Settings = Settings { verbosity: Verbosity::Verbose, colours: Colours::Off };

/// A task that ended after 0.31 seconds, without a reason.
pub fn ended(task: &str, outcome: Outcome) -> Done {
    let key = match outcome {
        Outcome::Hit | Outcome::Ran => Some(Digest::of(task.as_bytes())),
        _ => None,
    };
    Done {
        task: task.to_string(),
        outcome,
        key,
        seconds: 0.31,
        why: None,
        cut_off: false,
        destinations: Vec::new(),
        failure: None,
        log: None,
    }
}

pub fn why(mut done: Done, why: &str) -> Done {
    done.why = Some(why.to_string());
    done
}

pub fn destination(name: &str, outcome: Outcome, bytes_sent: u64) -> Destination {
    Destination {
        name: name.to_string(),
        outcome,
        bytes_sent,
        bytes_planned: bytes_sent,
        changes: Vec::new(),
        error: None,
    }
}

pub fn trouble(name: &str, outcome: Outcome, error: &str) -> Destination {
    Destination { error: Some(error.to_string()), ..destination(name, outcome, 0) }
}

pub fn start(task: &str) -> Event {
    Event::Start { task: task.to_string() }
}

pub fn end(verdict: Verdict, counts: &[(Outcome, usize)], seconds: f64) -> Event {
    Event::End(End { verdict, counts: counts.iter().copied().collect(), seconds })
}

/// Nothing had to be done.
pub fn idle() -> Vec<Event> {
    vec![
        Event::Begin { tasks: 3 },
        Event::Done(ended("clone.source", Outcome::Hit)),
        Event::Done(ended("patch.patched", Outcome::Hit)),
        Event::Done(Done {
            destinations: vec![destination("node1", Outcome::Unchanged, 0)],
            ..ended("import.nodes", Outcome::Unchanged)
        }),
        end(Verdict::Ok, &[(Outcome::Hit, 2), (Outcome::Unchanged, 1)], 0.0123),
    ]
}

/// A patch was edited; one program changed, the other did not.
pub fn edited() -> Vec<Event> {
    let change = |text: &str| vec![text.to_string()];
    vec![
        Event::Begin { tasks: 6 },
        Event::Done(ended("clone.source", Outcome::Hit)),
        Event::Note { task: Some("clone.source".into()), text: "pinned `main` at 0123456789ab".into() },
        start("patch.patched"),
        Event::Warning {
            task: Some("patch.patched".into()),
            text: "`patches/a.patch`: hunk 2 was found 3 lines below its place".into(),
            hint: Some("refresh the patch".into()),
        },
        Event::Done(why(ended("patch.patched", Outcome::Ran), "`patches/a.patch` changed")),
        start("compile.bin[clock]"),
        start("compile.bin[greet]"),
        Event::Done(Done {
            cut_off: true,
            log: Some(b"cc -static\nclock.c: \x1b[35mwarning\x1b[0m: unused".to_vec()),
            ..why(ended("compile.bin[clock]", Outcome::Ran), "`patch.patched` changed")
        }),
        Event::Done(why(ended("compile.bin[greet]", Outcome::Ran), "`patch.patched` changed")),
        start("import.nodes"),
        Event::Done(Done {
            seconds: 1.234,
            destinations: vec![
                Destination {
                    changes: change("name `greet:vc-0123456789abcdef`"),
                    ..destination("node1", Outcome::Applied, 842_100)
                },
                Destination {
                    changes: change("name `greet:vc-0123456789abcdef`"),
                    ..destination("node2", Outcome::Applied, 842_100)
                },
                destination("node3", Outcome::Unchanged, 0),
            ],
            ..ended("import.nodes", Outcome::Applied)
        }),
        Event::Done(Done {
            destinations: vec![Destination {
                changes: change("change `deployment/default/greet`"),
                ..destination("here", Outcome::Applied, 1204)
            }],
            ..ended("deploy.hello", Outcome::Applied)
        }),
        end(Verdict::Ok, &[(Outcome::Hit, 1), (Outcome::Ran, 3), (Outcome::Applied, 2)], 2.3),
    ]
}

/// A compiler fails, so does a destination later; another one does not answer.
pub fn failing() -> Vec<Event> {
    vec![
        Event::Begin { tasks: 9 },
        start("compile.bin[greet]"),
        start("upload.cp"),
        Event::Done(Done {
            failure: Some(Failure {
                log: Some(b"one\ntwo\ngreet.c:3:1: error: expected `;`\n".to_vec()),
                ..Failure::new("`cc -static greet.c` ended with status 1")
                    .detail(["greet.c:3:1: error: expected `;`\x1b[2J".to_string()])
                    .hint("`vcbuild log compile.bin[greet]` shows all of it")
            }),
            ..why(ended("compile.bin[greet]", Outcome::Failed), "`greet.c` changed")
        }),
        Event::Done(why(ended("image.component[greet]", Outcome::Skipped), "`compile.bin[greet]` failed")),
        Event::Done(why(ended("deploy.hello", Outcome::Skipped), "`image.component[greet]` was skipped")),
        Event::Done(Done {
            seconds: 5.0,
            destinations: vec![
                destination("node1", Outcome::Applied, 842_100),
                trouble("node2", Outcome::Failed, "the stream ended after 12.0 kB"),
                trouble("node3", Outcome::Deferred, "no answer in 5 s"),
            ],
            ..ended("upload.cp", Outcome::Failed)
        }),
        Event::Done(Done {
            seconds: 5.0,
            destinations: vec![
                destination("node1", Outcome::Applied, 842_100),
                trouble("node3", Outcome::Deferred, "no answer in 5 s"),
            ],
            ..ended("import.nodes", Outcome::Deferred)
        }),
        end(
            Verdict::Failed,
            &[(Outcome::Hit, 4), (Outcome::Failed, 2), (Outcome::Skipped, 2), (Outcome::Deferred, 1)],
            64.2,
        ),
    ]
}

/// What a run of three destinations would change.
pub fn plans() -> Vec<Event> {
    let changes = |all: &[&str]| all.iter().map(|one| (*one).to_string()).collect::<Vec<_>>();
    let plan = |task: &str, destinations| Event::Plan(Plan { task: task.to_string(), destinations });
    vec![
        Event::Begin { tasks: 4 },
        Event::Done(ended("compile.bin", Outcome::Hit)),
        plan("import.nodes", vec![("node1".to_string(), Err("lost, asked too early".to_string()))]),
        plan(
            "deploy.hello",
            vec![("here".to_string(), Ok((1204, changes(&["change `deployment/default/greet`"]))))],
        ),
        plan(
            "import.nodes",
            vec![
                (
                    "node1".to_string(),
                    Ok((842_100, changes(&["name `greet:vc-01`", "name `greet:latest`"]))),
                ),
                ("node2".to_string(), Ok((0, Vec::new()))),
                ("node3".to_string(), Err("no answer in 5 s".to_string())),
            ],
        ),
        end(Verdict::Ok, &[(Outcome::Hit, 1)], 0.2),
    ]
}

/// Shows the events, with 100 milliseconds and a tick after each.
pub fn play(report: &mut dyn Report, hand: &Hand, events: &[Event]) {
    for (place, event) in events.iter().enumerate() {
        report.event(event);
        hand.set(100 * (place as u64 + 1));
        report.tick();
    }
}

/// A task that moves bytes.
pub fn progress(task: &str, destination: &str, done: u64, total: u64) -> Event {
    Event::Progress {
        task: task.to_string(),
        destination: Some(destination.to_string()),
        done,
        total: Some(total),
    }
}

/// Seconds as the clock counts them.
pub fn seconds(count: u64) -> u64 {
    Duration::from_secs(count).as_millis() as u64
}
