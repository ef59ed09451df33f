//! A worker thread: runs the steps that it is given, one after the other, and tells the owner of the run what
//! happens. Knows nothing of what runs when.

use std::panic::AssertUnwindSafe;
use std::sync::mpsc::{Receiver, Sender};

use crate::report::Event;
use crate::schedule::TaskId;
use crate::step::{self, Earlier, Job, Stepped};
use crate::work::{Session, Tell};

/// What a worker says.
pub enum Message {
    /// A task has work to do.
    Start(TaskId),
    /// Something is told.
    Tell(Box<Event>),
    /// The worker of this number has ended a task, or a bug has, with these words.
    End(usize, TaskId, Box<Result<Stepped, String>>),
}

/// Tells what a step tells to the owner thread.
struct Teller {
    id: TaskId,
    task: String,
    messages: Sender<Message>,
}

impl Teller {
    fn send(&self, event: Event) {
        // The owner is there as long as a step runs.
        let _ = self.messages.send(Message::Tell(Box::new(event)));
    }
}

impl Tell for Teller {
    fn start(&self) {
        let _ = self.messages.send(Message::Start(self.id));
    }

    fn progress(&self, destination: Option<&str>, done: u64, total: Option<u64>) {
        let destination = destination.map(str::to_string);
        self.send(Event::Progress { task: self.task.clone(), destination, done, total });
    }

    fn note(&self, text: String) {
        self.send(Event::Note { task: Some(self.task.clone()), text });
    }

    fn warn(&self, text: String, hint: Option<String>) {
        self.send(Event::Warning { task: Some(self.task.clone()), text, hint });
    }
}

/// Takes jobs to a worker.
pub type Outbox<'a> = Sender<(TaskId, Job<'a>)>;

/// Runs jobs until there are no more.
pub fn work(
    number: usize,
    jobs: &Receiver<(TaskId, Job<'_>)>,
    messages: &Sender<Message>,
    session: &Session<'_>,
    earlier: &Earlier,
) {
    for (id, job) in jobs {
        let tell = Teller { id, task: job.name.0.clone(), messages: messages.clone() };
        let step = AssertUnwindSafe(|| step::step(&job, session, earlier, &tell));
        let end = std::panic::catch_unwind(step).map_err(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string())).unwrap_or_default()
        });
        if messages.send(Message::End(number, id, Box::new(end))).is_err() {
            return;
        }
    }
}
