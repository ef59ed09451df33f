//! Which tasks run now, since when, and how many bytes they have moved. Shows nothing.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::{Event, text};

/// Over how long a rate is measured.
const WINDOW: Duration = Duration::from_secs(5);

/// The tasks that run, in the order in which they started.
#[derive(Default)]
pub struct Running {
    tasks: Vec<Task>,
}

/// A task that runs.
pub struct Task {
    /// Its name.
    pub name: String,
    /// When it started.
    pub since: Duration,
    /// When it is mentioned next, if `due` asks for it.
    next: Duration,
    /// Bytes so far and in all, for each destination.
    moved: BTreeMap<Option<String>, (u64, Option<u64>)>,
    /// Bytes so far at some moments of the last seconds.
    samples: VecDeque<(Duration, u64)>,
}

impl Running {
    /// Takes note of tasks that start, move bytes and end.
    pub fn event(&mut self, event: &Event, now: Duration) {
        match event {
            Event::Start { task } => {
                self.tasks.retain(|other| other.name != *task);
                self.tasks.push(Task {
                    name: task.clone(),
                    since: now,
                    next: now + Duration::from_secs(30),
                    moved: BTreeMap::new(),
                    samples: VecDeque::new(),
                });
            }
            Event::Progress { task, destination, done, total } => {
                if let Some(task) = self.tasks.iter_mut().find(|other| other.name == *task) {
                    task.progress(destination, *done, *total, now);
                }
            }
            Event::Done(done) => self.tasks.retain(|other| other.name != done.task),
            Event::End(_) => self.tasks.clear(),
            Event::Begin { .. } | Event::Note { .. } | Event::Warning { .. } | Event::Plan(_) => {}
        }
    }

    /// The tasks, those that have run longest first.
    pub fn tasks(&self) -> &[Task] {
        &self.tasks
    }

    /// The tasks that have run for 30 seconds, and again after each 60 seconds more.
    pub fn due(&mut self, now: Duration) -> Vec<&Task> {
        let mut due = Vec::new();
        for task in self.tasks.iter_mut().filter(|task| task.next <= now) {
            while task.next <= now {
                task.next += Duration::from_secs(60);
            }
            due.push(&*task);
        }
        due
    }
}

impl Task {
    fn progress(&mut self, destination: &Option<String>, done: u64, total: Option<u64>, now: Duration) {
        match self.moved.get_mut(destination) {
            Some(moved) => *moved = (done, total),
            None => {
                self.moved.insert(destination.clone(), (done, total));
            }
        }
        let sum = self.moved.values().map(|(done, _)| done).sum();
        if self.samples.back().is_some_and(|(_, before)| *before > sum) {
            self.samples.clear();
        }
        self.samples.push_back((now, sum));
        // One sample older than the window stays, so that the window is always full.
        while self.samples.get(1).is_some_and(|(at, _)| now.saturating_sub(*at) >= WINDOW) {
            self.samples.pop_front();
        }
    }

    /// How far a transfer is: `node1: 12.0 MB of 48.0 MB, 3.1 MB/s, 12 s left`; empty if it moves nothing.
    pub fn transfer(&self, now: Duration) -> String {
        if self.moved.is_empty() {
            return String::new();
        }
        let done: u64 = self.moved.values().map(|(done, _)| done).sum();
        let total: Option<u64> = self.moved.values().map(|(_, total)| *total).sum();
        let mut out = match self.moved.len() {
            1 => match self.moved.keys().next() {
                Some(Some(name)) => format!("{}: ", text::clean(name)),
                _ => String::new(),
            },
            many => format!("{many} destinations: "),
        };
        out.push_str(&text::bytes(done));
        if let Some(total) = total {
            out.push_str(&format!(" of {}", text::bytes(total)));
        }
        if let Some(rate) = self.rate(now) {
            out.push_str(&format!(", {}/s", text::bytes(rate)));
            let left = total.unwrap_or(done).saturating_sub(done);
            if left > 0 && rate > 0 {
                out.push_str(&format!(
                    ", {} left",
                    text::elapsed(Duration::from_secs(left.div_ceil(rate)))
                ));
            }
        }
        out
    }

    /// Bytes per second of late; none until a second has been seen.
    fn rate(&self, now: Duration) -> Option<u64> {
        let (start, before) = self.samples.front()?;
        let (_, after) = self.samples.back()?;
        let time = now.saturating_sub(*start);
        (time >= Duration::from_secs(1)).then(|| ((after - before) as f64 / time.as_secs_f64()) as u64)
    }
}
