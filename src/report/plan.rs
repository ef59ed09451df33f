//! The answer of `plan`: what a run would change, by task and destination, and the totals. It is the
//! verb's product, so it goes to standard output, whole, when the run is over.

use std::fmt::Write as _;
use std::io::Write;

use super::output::{Output, Settings};
use super::text::{self, Style, clean};
use super::{Event, Outcome, Plan, Planned, Report, Verdict};

/// Collects what would change and writes it at the end.
pub struct Plans<W> {
    output: Output<W>,
    settings: Settings,
    plans: Vec<Plan>,
}

/// What the destinations of all plans come to.
#[derive(Default)]
struct Totals {
    bytes: u64,
    changes: usize,
    changed: usize,
    unchanged: usize,
    unknown: usize,
}

impl<W: Write> Plans<W> {
    /// Writes to `writer`, normally standard output.
    pub fn new(writer: W, settings: Settings) -> Self {
        Self { output: Output::new(writer), settings, plans: Vec::new() }
    }

    fn page(&self, failed: usize, interrupted: bool) -> String {
        let mut out = String::new();
        let mut totals = Totals::default();
        for plan in &self.plans {
            writeln!(out, "{}", clean(&plan.task)).ok();
            for (name, answer) in &plan.destinations {
                self.destination(&mut out, name, answer, &mut totals);
            }
        }
        let mut parts = Vec::new();
        match &totals {
            Totals { changed: 0, unchanged: 0, unknown: 0, .. } => {
                parts.push("no destination was asked".to_string());
            }
            Totals { changed: 0, .. } => parts.push("nothing would change".to_string()),
            Totals { bytes, changes, changed, .. } => parts.push(format!(
                "{} and {} on {}",
                text::bytes(*bytes),
                text::count(*changes, "change"),
                text::count(*changed, "destination")
            )),
        }
        if totals.unchanged > 0 {
            parts.push(format!("{} up to date", totals.unchanged));
        }
        if totals.unknown > 0 {
            parts.push(format!("{} not known", totals.unknown));
        }
        if failed > 0 {
            parts.push(format!("incomplete: {} failed", text::count(failed, "task")));
        } else if interrupted {
            parts.push("incomplete: interrupted".to_string());
        }
        writeln!(out, "plan: {}", parts.join(", ")).ok();
        out
    }

    fn destination(&self, out: &mut String, name: &str, answer: &Planned, totals: &mut Totals) {
        let name = clean(name);
        match answer {
            Err(error) => {
                totals.unknown += 1;
                let word = self.settings.colours.paint(Style::Care, "not known");
                writeln!(out, "    {name}: {word}: {}", clean(error)).ok();
            }
            Ok((0, changes)) if changes.is_empty() => {
                totals.unchanged += 1;
                let word = self.settings.colours.paint(Style::Faint, "up to date");
                writeln!(out, "    {name}: {word}").ok();
            }
            Ok((bytes, changes)) => {
                totals.changed += 1;
                totals.bytes += bytes;
                totals.changes += changes.len();
                let sent = (*bytes > 0).then(|| format!("{} to send", text::bytes(*bytes)));
                let made = (!changes.is_empty()).then(|| text::count(changes.len(), "change"));
                let both: Vec<String> = sent.into_iter().chain(made).collect();
                let both = self.settings.colours.paint(Style::Good, &both.join(", ")).into_owned();
                writeln!(out, "    {name}: {both}").ok();
                for change in changes {
                    writeln!(out, "        {}", clean(change)).ok();
                }
            }
        }
    }
}

impl<W: Write> Report for Plans<W> {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Plan(plan) => match self.plans.iter_mut().find(|other| other.task == plan.task) {
                Some(other) => *other = plan.clone(),
                None => self.plans.push(plan.clone()),
            },
            Event::End(end) => {
                let failed = end.counts.get(&Outcome::Failed).copied().unwrap_or(0);
                let page = self.page(failed, end.verdict == Verdict::Interrupted);
                self.output.put(&page);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use snapbox::{assert_data_eq, str};

    use super::*;
    use crate::report::output::tests::{Hand, Page};
    use crate::report::plain::Plain;
    use crate::report::scenes::*;

    fn shown(events: &[Event]) -> String {
        let page = Page::default();
        play(&mut Plans::new(page.clone(), NORMAL), &Hand::default(), events);
        page.take()
    }

    #[test]
    fn destinations_and_totals() {
        assert_data_eq!(
            shown(&plans()),
            str![[r#"
import.nodes
    node1: 842.1 kB to send, 2 changes
        name `greet:vc-01`
        name `greet:latest`
    node2: up to date
    node3: not known: no answer in 5 s
deploy.hello
    here: 1.2 kB to send, 1 change
        change `deployment/default/greet`
plan: 843.3 kB and 3 changes on 2 destinations, 1 up to date, 1 not known

"#]]
        );
    }

    #[test]
    fn lines_about_the_run_do_not_say_that_nothing_is_to_do() {
        let (page, hand) = (Page::default(), Hand::default());
        play(&mut Plain::new(page.clone(), NORMAL, hand.clock()), &hand, &plans());
        assert_eq!(page.take(), "");
    }

    #[test]
    fn nothing_would_change() {
        let plan = Plan { task: "import.a".into(), destinations: vec![("n1".into(), Ok((0, Vec::new())))] };
        let all = end(Verdict::Ok, &[], 0.1);
        assert_eq!(
            shown(&[Event::Plan(plan), all.clone()]),
            "import.a\n    n1: up to date\nplan: nothing would change, 1 up to date\n"
        );
        assert_eq!(shown(&[all]), "plan: no destination was asked\n");
        let failed = end(Verdict::Failed, &[(Outcome::Failed, 2)], 0.1);
        assert_eq!(shown(&[failed]), "plan: no destination was asked, incomplete: 2 tasks failed\n");
    }
}
