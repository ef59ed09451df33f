//! What came of a call: held to an exit code, to whole outputs, and to what became of each task.

use std::collections::BTreeMap;
use std::process::Output;
use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;
use snapbox::IntoData;
use snapbox::data::Inline;

use super::project::Project;

/// A call that has ended. Nothing is checked until it is said what should have come of it.
pub struct Done<'a> {
    project: &'a Project,
    arguments: Vec<String>,
    code: Option<i32>,
    /// What was printed, as it was.
    pub stdout: Vec<u8>,
    /// What was said, as it was.
    pub stderr: String,
    events: Vec<Value>,
}

/// What to replace in outputs, and by what.
static MOVING: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    let pattern = |text, by| (Regex::new(text).unwrap(), by);
    vec![
        pattern(r"\b\d+ h \d\d min\b|\b\d+ min \d\d s\b|\b\d+(\.\d+)? s\b", "[TIME]"),
        pattern(r"\b[0-9a-f]{12,64}\b", "[DIGEST]"),
    ]
});

impl<'a> Done<'a> {
    /// The result of calling vcbuild on a project.
    pub fn new(project: &'a Project, arguments: &[&str], output: Output) -> Self {
        let text = std::fs::read_to_string(project.beside("events.json")).unwrap_or_default();
        let events = if arguments.contains(&"--events") { text.as_str() } else { "" };
        Self {
            project,
            arguments: arguments.iter().map(ToString::to_string).collect(),
            code: output.status.code(),
            stdout: output.stdout,
            stderr: String::from_utf8(output.stderr).unwrap(),
            events: events.lines().map(|line| serde_json::from_str(line).unwrap()).collect(),
        }
    }

    /// It did what was asked.
    #[track_caller]
    pub fn success(self) -> Self {
        self.failure(0)
    }

    /// It ended with this code.
    #[track_caller]
    pub fn failure(self, code: i32) -> Self {
        let Self { arguments, stderr, .. } = &self;
        assert_eq!(self.code, Some(code), "vcbuild {arguments:?} said:\n{stderr}{}", self.text());
        self
    }

    /// The same call once more.
    #[must_use = "say what should have come of it"]
    pub fn again(&self) -> Self {
        self.project.call_list(&self.arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// What was printed, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// It said exactly this; times, digests and the project's place are written `[TIME]`, `[DIGEST]`,
    /// `[ROOT]`.
    #[track_caller]
    pub fn stderr(self, expected: Inline) -> Self {
        same(&self.steady(&self.stderr), expected);
        self
    }

    /// It printed exactly this.
    #[track_caller]
    pub fn stdout(self, expected: Inline) -> Self {
        same(&self.steady(&self.text()), expected);
        self
    }

    /// An output without what differs from run to run.
    fn steady(&self, text: &str) -> String {
        let root = self.project.root();
        let mut text = text.replace(root.to_str().unwrap(), "[ROOT]");
        text = text.replace(self.project.beside("").to_str().unwrap(), "[BESIDE]/");
        for (pattern, by) in MOVING.iter() {
            text = pattern.replace_all(&text, *by).into_owned();
        }
        text
    }

    /// Nothing had to be done, and one line says so.
    #[track_caller]
    pub fn nothing(self) -> Self {
        let done = self.success();
        let said = done.steady(&done.stderr);
        assert!(said.starts_with("nothing to do: ") && said.lines().count() == 1, "it said:\n{said}");
        done
    }

    /// These tasks did something (in any order), and no other did.
    #[track_caller]
    pub fn did(self, tasks: &[&str]) -> Self {
        let idle = ["hit", "unchanged"];
        let mut did: Vec<String> = self
            .outcomes()
            .into_iter()
            .filter(|(_, outcome)| !idle.contains(&outcome.as_str()))
            .map(|(task, _)| task)
            .collect();
        let mut tasks: Vec<_> = tasks.iter().map(ToString::to_string).collect();
        did.sort();
        tasks.sort();
        assert_eq!(did, tasks, "it said:\n{}", self.stderr);
        self
    }

    /// The events, parsed.
    pub fn events(&self) -> &[Value] {
        &self.events
    }

    /// What each task came to.
    pub fn outcomes(&self) -> BTreeMap<String, String> {
        let text = |event: &Value, name: &str| event[name].as_str().unwrap().to_string();
        let done = self.events.iter().filter(|event| event["event"] == "done");
        done.map(|event| (text(event, "task"), text(event, "outcome"))).collect()
    }

    /// The last event of a task.
    #[track_caller]
    pub fn event(&self, task: &str) -> &Value {
        let found = self.events.iter().rfind(|event| event["event"] == "done" && event["task"] == task);
        found.unwrap_or_else(|| panic!("`{task}` has no event in {:#?}", self.events))
    }

    /// The bytes that an effect sent to each of its destinations.
    pub fn sent(&self, task: &str) -> BTreeMap<String, u64> {
        let destinations = self.event(task)["destinations"].as_array().unwrap();
        let sent =
            |one: &Value| (one["name"].as_str().unwrap().into(), one["bytes_sent"].as_u64().unwrap());
        destinations.iter().map(sent).collect()
    }
}

#[track_caller]
fn same(actual: &str, expected: Inline) {
    let assert = snapbox::Assert::new().action_env(snapbox::assert::DEFAULT_ACTION_ENV);
    assert.eq(actual.into_data().raw(), expected.raw());
}
