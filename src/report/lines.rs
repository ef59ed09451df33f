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
    for (names, error) in reasons(settings, &of(&done.destinations, Outcome::Deferred)) {
        writeln!(out, "          {names} deferred: {error}").ok();
    }
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
    let failed = of(&done.destinations, Outcome::Failed);
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
        for (names, error) in reasons(settings, &failed) {
            writeln!(out, "    {names}: {error}").ok();
        }
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
    let all = of(&done.destinations, done.outcome);
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

fn of(destinations: &[Destination], outcome: Outcome) -> Vec<&Destination> {
    destinations.iter().filter(|destination| destination.outcome == outcome).collect()
}

fn error_of(destination: &Destination) -> String {
    match &destination.error {
        Some(error) => clean(error).into_owned(),
        None => "no reason is known".to_string(),
    }
}

/// `node1 842.1 kB, node2 842.1 kB; 3 up to date`.
fn sent(settings: &Settings, done: &Done) -> String {
    let applied = of(&done.destinations, Outcome::Applied);
    let mut parts: Vec<String> = first(settings, &applied)
        .iter()
        .map(|destination| {
            let (name, sent) = (clean(&destination.name), text::bytes(destination.bytes_sent));
            match destination.bytes_planned {
                planned if planned == destination.bytes_sent => format!("{name} {sent}"),
                planned => format!("{name} {sent} of {} planned", text::bytes(planned)),
            }
        })
        .collect();
    if applied.len() > parts.len() {
        let rest = &applied[parts.len()..];
        let sum = rest.iter().map(|destination| destination.bytes_sent).sum();
        parts.push(format!("and {} more {}", rest.len(), text::bytes(sum)));
    }
    let unchanged = of(&done.destinations, Outcome::Unchanged).len();
    let mut line = parts.join(", ");
    if unchanged > 0 && !applied.is_empty() {
        write!(line, "; {unchanged} up to date").ok();
    }
    line
}

/// What was changed, destinations with equal changes together.
fn changes(out: &mut String, settings: &Settings, destinations: &[Destination]) {
    let changed = destinations.iter().filter(|destination| !destination.changes.is_empty());
    let groups = together(settings, changed.map(|destination| (&*destination.name, &*destination.changes)));
    let lines: Vec<String> = groups
        .iter()
        .flat_map(|(names, changes)| {
            changes.iter().map(move |change| match destinations.len() {
                1 => clean(change).into_owned(),
                _ => format!("{names}: {}", clean(change)),
            })
        })
        .collect();
    let shown = first(settings, &lines);
    for line in shown {
        writeln!(out, "          {line}").ok();
    }
    if shown.len() < lines.len() {
        let rest = text::count(lines.len() - shown.len(), "more change");
        writeln!(out, "          … and {rest} (-v names all)").ok();
    }
}

/// The errors of destinations, those with equal errors together.
fn reasons(settings: &Settings, destinations: &[&Destination]) -> Vec<(String, String)> {
    together(settings, destinations.iter().map(|destination| (&*destination.name, error_of(destination))))
}

/// Equal things once, with the names that they belong to: `node1, node2 … and 3 more`.
fn together<'a, T: PartialEq>(
    settings: &Settings,
    all: impl Iterator<Item = (&'a str, T)>,
) -> Vec<(String, T)> {
    let mut groups: Vec<(Vec<String>, T)> = Vec::new();
    for (name, thing) in all {
        let name = clean(name).into_owned();
        match groups.iter_mut().find(|(_, other)| *other == thing) {
            Some((names, _)) => names.push(name),
            None => groups.push((vec![name], thing)),
        }
    }
    let named = |names: &[String]| {
        let shown = first(settings, names);
        match names.len() - shown.len() {
            0 => shown.join(", "),
            rest => format!("{} … and {rest} more", shown.join(", ")),
        }
    };
    groups.into_iter().map(|(names, thing)| (named(&names), thing)).collect()
}

/// As many of `all` as are named.
fn first<'a, T>(settings: &Settings, all: &'a [T]) -> &'a [T] {
    match settings.verbosity {
        Verbosity::Verbose => all,
        _ if all.len() <= NAMED + 1 => all,
        _ => &all[..NAMED],
    }
}
