//! `doctor`, and the table of `hosts`: every host is asked everything at once, and each finding comes with
//! what to do about it. Changes nothing.

use std::collections::BTreeMap;

use super::hosts_images::wants;
use super::{Halt, Session, say};
use crate::config::Config;
use crate::error::Result;
use crate::host::health::{Health, Said};
use crate::host::node::{At, Image, Spec, Trouble, Watch};
use crate::host::stop::Stop;
use crate::report::output::Settings;
use crate::report::text::{self, Style, clean};
use crate::tasks::import;

/// Looks at the hosts and says what is wrong with them.
pub fn run(session: &Session) -> Result<u8, Halt> {
    let config = session.place.config()?;
    let answers = health(session, &config)?;
    let mut out = String::new();
    let mut worst = 0;
    for (spec, answer) in &answers {
        let (code, findings) = match answer {
            Ok((_, findings)) => (0, findings),
            Err((code, findings)) => (*code, findings),
        };
        worst = worst_of(worst, if findings.iter().any(|finding| finding.bad) { 1 } else { code });
        for finding in findings {
            out.push_str(&line(&spec.name, finding, &session.settings));
        }
    }
    if out.is_empty() {
        out = format!("{} looked at: nothing to do\n", text::count(answers.len(), "host"));
    }
    say(&out);
    Ok(worst)
}

/// What the hosts are and have.
pub fn table(session: &Session, config: &Config) -> Result<u8, Halt> {
    let answers = health(session, config)?;
    let head = ["host", "where", "platform", "containerd", "snapshotter", "free", "kubelet", "state"];
    let mut rows: Vec<Vec<String>> = vec![head.map(str::to_string).into()];
    let mut worst = 0;
    for (spec, answer) in &answers {
        let place = match &spec.at {
            At::Local(folder) => folder.clone(),
            At::Ssh(address) => address.target.clone(),
            At::Docker(socket) => format!("unix://{socket}"),
        };
        let mut row = vec![spec.name.clone(), place];
        match answer {
            Ok((health, findings)) => {
                let bad = findings.iter().filter(|finding| finding.bad).count();
                worst = worst_of(worst, u8::from(bad > 0));
                row.extend(health.cells());
                row.push(match findings.len() {
                    0 => "ok".into(),
                    count => format!("{}: `vcbuild doctor`", text::count(count, "finding")),
                });
            }
            Err((code, findings)) => {
                worst = worst_of(worst, *code);
                row.extend(["-", "-", "-", "-", "-"].map(str::to_string));
                row.push(findings.first().map_or(String::new(), |finding| finding.message.clone()));
            }
        }
        rows.push(row);
    }
    say(&columns(&rows));
    Ok(worst)
}

/// Rows of equally many cells, one below the other.
pub fn columns(rows: &[Vec<String>]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows.first().map_or(0, Vec::len)).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{:width$}", clean(cell))).collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
    out
}

/// The exit code for both.
pub fn worst_of(one: u8, other: u8) -> u8 {
    // Failed is worse than deferred.
    if one == 1 || other == 1 { 1 } else { one.max(other) }
}

fn line(host: &str, finding: &Said, settings: &Settings) -> String {
    let style = if finding.bad { Style::Bad } else { Style::Hint };
    let word = settings.colours.paint(style, if finding.bad { "wrong:" } else { "note:" });
    let mut text = format!("{host}: {word} {}\n", clean(&finding.message));
    if let Some(hint) = &finding.hint {
        text.push_str(&format!("  {} {}\n", settings.colours.paint(Style::Hint, "hint:"), clean(hint)));
    }
    text
}

/// What became of a question: an exit code and what to say, if it failed.
pub type Answer<T> = std::result::Result<T, (u8, Vec<Said>)>;

/// How a host is, and what is to be said of it.
type Looked = (Health, Vec<Said>);

/// How all hosts are.
fn health<'a>(session: &Session, config: &'a Config) -> Result<Vec<(&'a Spec, Answer<Looked>)>, Halt> {
    let (links, root, images) = (&session.place.links, session.place.root.as_path(), images(session)?);
    ask(session, config, |spec, watch| {
        let health = Health::ask(spec, root, links, watch)?;
        let findings = health.findings(spec, images.get(&spec.name).map_or(&[], Vec::as_slice));
        Ok((health, findings))
    })
}

/// The images that each host is to have, as far as that is known.
fn images(session: &Session) -> Result<BTreeMap<String, Vec<Image>>, Halt> {
    let mut all: BTreeMap<String, Vec<Image>> = BTreeMap::new();
    for (_, wants) in wants(session)? {
        let (hosts, images) = wants.as_ref().and_then(import::wanted).unwrap_or_default();
        for host in hosts {
            all.entry(host.name).or_default().extend(images.iter().cloned());
        }
    }
    Ok(all)
}

/// Asks all hosts at once.
pub fn ask<'a, T: Send>(
    session: &Session,
    config: &'a Config,
    question: impl Fn(&Spec, &dyn Watch) -> Result<T, Trouble> + Sync,
) -> Result<Vec<(&'a Spec, Answer<T>)>, Halt> {
    let stop = Stop::new(Stop::GRACE)?;
    stop.listen()?;
    session.place.links.set_parallel(config.parallel_hosts);
    let specs: Vec<&Spec> = config.hosts.values().collect();
    let mut answers = Vec::new();
    std::thread::scope(|scope| {
        let mut asked = Vec::new();
        for spec in &specs {
            let (stop, question) = (&stop, &question);
            asked.push(scope.spawn(move || question(spec, &Quiet(stop))));
        }
        for (spec, thread) in specs.iter().zip(asked) {
            let answer = match thread.join() {
                Ok(answer) => answer.map_err(told),
                Err(panic) => std::panic::resume_unwind(panic),
            };
            answers.push((*spec, answer));
        }
    });
    stop.check()?;
    Ok(answers)
}

fn told(trouble: Trouble) -> (u8, Vec<Said>) {
    match trouble {
        Trouble::Unreachable(why) => {
            let hint = Some("the next run goes on with it, when it is back".to_string());
            (3, vec![Said { bad: false, message: format!("it does not answer: {why}"), hint }])
        }
        Trouble::Cut(failure) => {
            (1, vec![Said { bad: true, message: failure.message, hint: failure.hints.first().cloned() }])
        }
        Trouble::Error(crate::error::Error::Failed(failure)) => {
            (1, vec![Said { bad: true, message: failure.message, hint: failure.hints.first().cloned() }])
        }
        Trouble::Error(error) => (1, vec![Said { bad: true, message: error.to_string(), hint: None }]),
    }
}

/// Watches without a word.
struct Quiet<'a>(&'a Stop);

impl Watch for Quiet<'_> {
    fn moved(&self, _: u64) {}

    fn check(&self) -> Result<()> {
        self.0.check()
    }

    fn waits(&self) {}
}
