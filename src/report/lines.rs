//! One event as lines for people: how a task ended, why it failed, what is worth a remark. Keeps
//! nothing between events; `story` decides what is said at all.

use std::fmt::Write;

use super::output::{Settings, Verbosity};
use super::text::{self, Style, clean};
use super::{Destination, Done, Outcome};

/// So many changes, or destinations of one kind, are named; `-v` names all.
const NAMED: usize = 8;

/// How an outcome is written, and its colour.
fn word(outcome: Outcome) -> (&'static str, Style) {
    match outcome {
        Outcome::Hit => ("hit", Style::Faint),
        Outcome::Ran => ("ran", Style::Good),
        Outcome::Unchanged => ("unchanged", Style::Faint),
        Outcome::Applied => ("applied", Style::Good),
        Outcome::Deferred => ("deferred", Style::Care),
        Outcome::Skipped => ("skipped", Style::Faint),
        Outcome::Failed => ("failed", Style::Bad),
    }
}

/// The line of an outcome: `     ran compile.bin[syncer]  0.31 s  patches/a.patch changed`.
pub fn outcome(settings: &Settings, outcome: Outcome, task: &str, rest: &[String]) -> String {
    let (word, style) = word(outcome);
    let width = if settings.verbosity == Verbosity::Verbose { 9 } else { 8 };
    let space = " ".repeat(width - word.len().min(width));
    let mut line = format!("{space}{} {}", settings.colours.paint(style, word), clean(task));
    for part in rest.iter().filter(|part| !part.is_empty()) {
        line.push_str("  ");
        line.push_str(part);
    }
    line.push('\n');
    line
}

/// How a task ended: its line, and for effects what was changed where. `again` when its line was
/// shown before in this run.
pub fn done(settings: &Settings, done: &Done, again: bool) -> String {
    let mut why = done.why.as_deref().map(clean).unwrap_or_default().into_owned();
    if done.cut_off {
        let join = if why.is_empty() { "" } else { "; " };
        why = format!("{why}{join}same output: nothing after it has to run");
    }
    if again {
        let join = if why.is_empty() { "" } else { ": " };
        why = format!("again{join}{why}");
    }
    let time = match done.outcome {
        Outcome::Skipped => String::new(),
        _ => text::seconds(done.seconds),
    };
    let key = match (done.key, settings.verbosity) {
        (Some(key), Verbosity::Verbose) => format!("key {}", key.short()),
        _ => String::new(),
    };
    let mut out = outcome(settings, done.outcome, &done.task, &[time, sent(settings, done), why, key]);
    changes(&mut out, settings, &done.destinations);
    let deferred: Vec<_> = of(&done.destinations, Outcome::Deferred).collect();
    for destination in first(settings, &deferred) {
        let error = destination.error.as_deref().map(clean).unwrap_or_default();
        writeln!(out, "          {} deferred: {error}", clean(&destination.name)).ok();
    }
    more(&mut out, settings, deferred.len(), "destination");
    if settings.verbosity == Verbosity::Verbose {
        let log = done.log.as_ref().or(done.failure.as_ref().and_then(|failure| failure.log.as_ref()));
        for line in text::log_lines(log.map_or(&[][..], Vec::as_slice)) {
            writeln!(out, "    | {line}").ok();
        }
    }
    out
}

/// Why a task failed: the message, its detail, the destinations, the hints.
pub fn failure(settings: &Settings, done: &Done) -> String {
    let failed: Vec<_> = of(&done.destinations, Outcome::Failed).collect();
    let label = settings.colours.paint(Style::Bad, "error:");
    let mut out = format!("{label} `{}` failed", clean(&done.task));
    match (&done.failure, &failed[..]) {
        (Some(failure), _) => write!(out, ": {}", clean(&failure.message)).ok(),
        (None, [one]) => write!(out, " on `{}`: {}", clean(&one.name), error_of(one)).ok(),
        (None, []) => None,
        (None, many) => write!(out, " on {}", text::count(many.len(), "destination")).ok(),
    };
    out.push('\n');
    for line in done.failure.iter().flat_map(|failure| &failure.detail) {
        writeln!(out, "    {}", clean(line)).ok();
    }
    if done.failure.is_some() || failed.len() > 1 {
        for destination in first(settings, &failed) {
            writeln!(out, "    {}: {}", clean(&destination.name), error_of(destination)).ok();
        }
        more(&mut out, settings, failed.len(), "destination");
    }
    for text in done.failure.iter().flat_map(|failure| &failure.hints) {
        out.push_str(&hint(settings, text));
    }
    out
}

/// Why a task failed or was deferred, in one line for the summary.
pub fn cause(done: &Done) -> String {
    if let Some(failure) = &done.failure {
        return clean(&failure.message).into_owned();
    }
    let all: Vec<_> = of(&done.destinations, done.outcome).collect();
    match &all[..] {
        [] => String::new(),
        [one] => format!("{}: {}", clean(&one.name), error_of(one)),
        [one, ..] => {
            format!("{}: {} … and {} more", clean(&one.name), error_of(one), all.len() - 1)
        }
    }
}

/// ``warning: `patch.patched`: hunk 2 has moved by 3 lines``, or a note.
pub fn remark(settings: &Settings, style: Style, label: &str, task: Option<&str>, text: &str) -> String {
    let label = settings.colours.paint(style, label);
    match task {
        Some(task) => format!("{label} `{}`: {}\n", clean(task), clean(text)),
        None => format!("{label} {}\n", clean(text)),
    }
}

/// What to do about it.
pub fn hint(settings: &Settings, text: &str) -> String {
    remark(settings, Style::Hint, "hint:", None, text)
}

fn of(destinations: &[Destination], outcome: Outcome) -> impl Iterator<Item = &Destination> {
    destinations.iter().filter(move |destination| destination.outcome == outcome)
}

fn error_of(destination: &Destination) -> String {
    match &destination.error {
        Some(error) => clean(error).into_owned(),
        None => "no reason is known".to_string(),
    }
}

/// `node1 842.1 kB, node2 842.1 kB; 3 up to date`.
fn sent(settings: &Settings, done: &Done) -> String {
    let applied: Vec<_> = of(&done.destinations, Outcome::Applied).collect();
    let mut parts: Vec<String> = first(settings, &applied)
        .iter()
        .map(|destination| format!("{} {}", clean(&destination.name), text::bytes(destination.bytes_sent)))
        .collect();
    if applied.len() > parts.len() {
        let rest = &applied[parts.len()..];
        let sum = rest.iter().map(|destination| destination.bytes_sent).sum();
        parts.push(format!("and {} more {}", rest.len(), text::bytes(sum)));
    }
    let unchanged = of(&done.destinations, Outcome::Unchanged).count();
    let mut line = parts.join(", ");
    if unchanged > 0 && !applied.is_empty() {
        write!(line, "; {unchanged} up to date").ok();
    }
    line
}

/// What was changed, destinations with equal changes together.
fn changes(out: &mut String, settings: &Settings, destinations: &[Destination]) {
    let mut groups: Vec<(&[String], Vec<&str>)> = Vec::new();
    for destination in destinations.iter().filter(|destination| !destination.changes.is_empty()) {
        match groups.iter_mut().find(|(changes, _)| *changes == destination.changes) {
            Some((_, names)) => names.push(&destination.name),
            None => groups.push((&destination.changes, vec![&destination.name])),
        }
    }
    let several = destinations.len() > 1;
    let lines: Vec<String> = groups
        .iter()
        .flat_map(|(changes, names)| {
            let names = match first(settings, names) {
                some if some.len() < names.len() => {
                    format!("{} … and {} more", some.join(", "), names.len() - some.len())
                }
                all => all.join(", "),
            };
            changes.iter().map(move |change| match several {
                true => format!("{}: {}", clean(&names), clean(change)),
                false => clean(change).into_owned(),
            })
        })
        .collect();
    for line in first(settings, &lines) {
        writeln!(out, "          {line}").ok();
    }
    more(out, settings, lines.len(), "change");
}

/// As many of `all` as are named.
fn first<'a, T>(settings: &Settings, all: &'a [T]) -> &'a [T] {
    match settings.verbosity {
        Verbosity::Verbose => all,
        _ if all.len() <= NAMED + 1 => all,
        _ => &all[..NAMED],
    }
}

fn more(out: &mut String, settings: &Settings, all: usize, noun: &str) {
    if settings.verbosity != Verbosity::Verbose && all > NAMED + 1 {
        writeln!(
            out,
            "          … and {} (-v names all)",
            text::count(all - NAMED, &format!("more {noun}"))
        )
        .ok();
    }
}
