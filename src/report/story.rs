//! What a run says to people, as text that stays: decides which events are worth a line, and sums up
//! at the end. Knows no writer and no clock; `plain` and `progress` show what it gives.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::lines;
use super::output::{Settings, Verbosity};
use super::text::{self, Style};
use super::{Done, End, Event, Outcome, Verdict};

/// So many skipped tasks are named as they come; `-v` names all.
const SKIPPED_NAMED: usize = 8;

/// What was said about a task.
struct Said {
    /// The number of its last outcome, to tell the root cause from what came of it.
    place: usize,
    outcome: Outcome,
    cause: String,
}

/// The story of one run. A task may end several times; only its last outcome is in the summary.
pub struct Story {
    settings: Settings,
    /// Tasks about which something was said, or would have been.
    said: BTreeMap<String, Said>,
    /// Tasks that were skipped without a line.
    unnamed: BTreeSet<String>,
    warned: BTreeSet<(Option<String>, String)>,
    skipped_lines: usize,
    outcomes: usize,
    planned: bool,
}

impl Story {
    /// Nothing has happened yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            said: BTreeMap::new(),
            unnamed: BTreeSet::new(),
            warned: BTreeSet::new(),
            skipped_lines: 0,
            outcomes: 0,
            planned: false,
        }
    }

    /// How much is told, and whether in colours.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The whole lines that this event is worth; often none.
    pub fn tell(&mut self, event: &Event) -> String {
        match event {
            Event::Begin { .. } | Event::Start { .. } | Event::Progress { .. } => String::new(),
            Event::Note { .. } if self.settings.verbosity == Verbosity::Quiet => String::new(),
            Event::Note { task, text } => {
                lines::remark(&self.settings, Style::Hint, "note:", task.as_deref(), text)
            }
            Event::Warning { task, text, hint } => self.warning(task, text, hint),
            Event::Done(done) => self.done(done),
            Event::Plan(_) => {
                self.planned = true;
                String::new()
            }
            Event::End(end) => self.end(end),
        }
    }

    /// A task that is made again would warn again.
    fn warning(&mut self, task: &Option<String>, text: &str, hint: &Option<String>) -> String {
        if !self.warned.insert((task.clone(), text.to_string())) {
            return String::new();
        }
        let mut out = lines::remark(&self.settings, Style::Care, "warning:", task.as_deref(), text);
        if let Some(hint) = hint {
            out.push_str(&lines::hint(&self.settings, hint));
        }
        out
    }

    fn done(&mut self, done: &Done) -> String {
        self.outcomes += 1;
        let nothing_new = matches!(done.outcome, Outcome::Hit | Outcome::Unchanged);
        let verbosity = self.settings.verbosity;
        // Thousands of hits cost nothing here.
        if nothing_new && verbosity != Verbosity::Verbose && !self.knows(&done.task) {
            return String::new();
        }
        self.unnamed.remove(&done.task);
        if done.outcome == Outcome::Skipped && verbosity != Verbosity::Verbose {
            self.skipped_lines += 1;
            if self.skipped_lines > SKIPPED_NAMED {
                self.said.remove(&done.task);
                self.unnamed.insert(done.task.clone());
                return String::new();
            }
        }
        let cause = match done.outcome {
            Outcome::Failed | Outcome::Deferred => lines::cause(done),
            _ => String::new(),
        };
        let said = Said { place: self.outcomes, outcome: done.outcome, cause };
        let again = self.said.insert(done.task.clone(), said).is_some();
        let mut out = String::new();
        if verbosity != Verbosity::Quiet {
            out.push_str(&lines::done(&self.settings, done, again));
        }
        if done.outcome == Outcome::Failed {
            out.push_str(&lines::failure(&self.settings, done));
        }
        out
    }

    fn knows(&self, task: &str) -> bool {
        self.said.contains_key(task) || self.unnamed.contains(task)
    }

    fn end(&mut self, end: &End) -> String {
        let mut out = String::new();
        let quiet = self.settings.verbosity == Verbosity::Quiet;
        if !self.unnamed.is_empty() && !quiet {
            let rest = format!("… and {} more (-v names all)", self.unnamed.len());
            out.push_str(&lines::outcome(&self.settings, Outcome::Skipped, &rest, &[]));
        }
        let failed = self.causes(Outcome::Failed);
        if !failed.is_empty() {
            let label = self.settings.colours.paint(Style::Bad, "error:");
            let order = if failed.len() > 1 { ", in this order" } else { "" };
            writeln!(out, "{label} {} failed{order}:", text::count(failed.len(), "task")).ok();
            out.push_str(&failed.concat());
        }
        let deferred = self.causes(Outcome::Deferred);
        if !deferred.is_empty() {
            let label = self.settings.colours.paint(Style::Care, "warning:");
            let what = text::count(deferred.len(), "task");
            writeln!(out, "{label} {what} deferred; the next run does what is left:").ok();
            out.push_str(&deferred.concat());
        }
        if !quiet || end.verdict != Verdict::Ok {
            out.push_str(&self.closing(end));
        }
        out
    }

    /// The tasks whose last outcome this is, in the order in which they ended.
    fn causes(&self, outcome: Outcome) -> Vec<String> {
        let mut found: Vec<_> = self.said.iter().filter(|(_, said)| said.outcome == outcome).collect();
        found.sort_by_key(|(_, said)| said.place);
        found
            .iter()
            .map(|(task, said)| {
                let join = if said.cause.is_empty() { "" } else { ": " };
                format!("    `{}`{join}{}\n", text::clean(task), said.cause)
            })
            .collect()
    }

    /// `done: 3 ran, 1 applied, 10 up to date (2.3 s)`.
    /// The last line. An end without counts is one that somebody else tells.
    fn closing(&self, end: &End) -> String {
        if end.counts.is_empty() && end.verdict == Verdict::Ok {
            return String::new();
        }
        let count = |outcome| end.counts.get(&outcome).copied().unwrap_or(0);
        let idle = count(Outcome::Hit) + count(Outcome::Unchanged);
        let time = text::seconds(end.seconds);
        let did = end.counts.values().sum::<usize>() > idle;
        let (label, style) = match end.verdict {
            Verdict::Ok => ("done:", Style::Good),
            Verdict::Deferred => ("deferred:", Style::Care),
            Verdict::Failed => ("failed:", Style::Bad),
            Verdict::Interrupted => ("interrupted:", Style::Bad),
        };
        if end.verdict == Verdict::Ok && !did {
            if self.planned {
                return String::new();
            }
            return format!("nothing to do: {} up to date ({time})\n", text::count(idle, "task"));
        }
        let parts: Vec<String> = [
            (count(Outcome::Failed), "failed"),
            (count(Outcome::Deferred), "deferred"),
            (count(Outcome::Skipped), "skipped"),
            (count(Outcome::Ran), "ran"),
            (count(Outcome::Applied), "applied"),
            (idle, "up to date"),
        ]
        .iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, word)| format!("{number} {word}"))
        .collect();
        let label = self.settings.colours.paint(style, label);
        let parts = if parts.is_empty() { "no task was done".to_string() } else { parts.join(", ") };
        format!("{label} {parts} ({time})\n")
    }
}
