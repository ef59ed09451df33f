//! `graph`: how tasks hang together, each coloured by what a run would do.

use std::collections::{BTreeMap, BTreeSet};

use super::engine::Engine;
use super::forecast::{self, State};
use super::run::How;
use super::{Halt, Session, say};
use crate::graph::Graph;
use crate::host::stop::Stop;
use crate::report::output::Settings;
use crate::report::text::Style;
use crate::schedule::TaskId;
use crate::work::Network;

/// Arguments of `graph`
#[derive(clap::Args)]
pub struct GraphVerb {
    /// Tasks, as for `run`; all if none is given
    targets: Vec<String>,
    /// How to write it
    #[arg(long, value_name = "FORMAT", default_value = "tree")]
    format: Format,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Format {
    /// Indented lines, dependents first
    Tree,
    /// For graphviz
    Dot,
    /// For Markdown
    Mermaid,
    /// For programs
    Json,
}

impl GraphVerb {
    /// Runs the verb.
    pub fn run(&self, session: &Session) -> Result<u8, Halt> {
        let cache = session.place.cache()?;
        let project = session.place.load()?;
        let graph = &project.graph;
        let targets = match self.targets.is_empty() {
            true => graph.ids().collect(),
            false => graph.targets(&self.targets)?,
        };
        let selected = graph.closure(&targets);
        let how = How { network: Network::Offline, locked: true, ..How::usual() };
        let stop = Stop::new(Stop::GRACE)?;
        let engine = Engine::new(&session.place, &cache, &project, &how, &stop);
        let states: BTreeMap<TaskId, State> = forecast::forecast(&engine, &selected).into_iter().collect();
        let drawing = Drawing { graph, states: &states };
        say(&match self.format {
            Format::Tree => drawing.tree(&session.settings),
            Format::Dot => drawing.dot(),
            Format::Mermaid => drawing.mermaid(),
            Format::Json => drawing.json(),
        });
        Ok(0)
    }
}

struct Drawing<'a> {
    graph: &'a Graph,
    states: &'a BTreeMap<TaskId, State>,
}

impl Drawing<'_> {
    fn edges(&self) -> impl Iterator<Item = (TaskId, TaskId, &'static str)> {
        self.states.keys().flat_map(|id| {
            let node = self.graph.node(*id);
            let reads = node.reads.iter().map(|to| (*id, *to, "reads"));
            reads.chain(node.after.iter().map(|to| (*id, *to, "after")))
        })
    }

    fn name(&self, id: TaskId) -> &str {
        &self.graph.node(id).name.0
    }

    fn tree(&self, settings: &Settings) -> String {
        let below: BTreeSet<TaskId> = self.edges().map(|(_, to, _)| to).collect();
        let mut out = String::new();
        let mut shown = BTreeSet::new();
        for id in self.states.keys().filter(|id| !below.contains(id)) {
            self.branch(*id, "", "", &mut shown, settings, &mut out);
        }
        out
    }

    fn branch(
        &self,
        id: TaskId,
        first: &str,
        rest: &str,
        shown: &mut BTreeSet<TaskId>,
        settings: &Settings,
        out: &mut String,
    ) {
        let word = self.states.get(&id).map_or("", State::word);
        let style = match word {
            "hit" => Style::Good,
            "blocked" => Style::Bad,
            _ => Style::Care,
        };
        let node = self.graph.node(id);
        let again = !shown.insert(id) && node.reads.len() + node.after.len() > 0;
        let more = if again { "  (shown above)" } else { "" };
        out.push_str(&format!("{first}{}  {}{more}\n", node.name, settings.colours.paint(style, word)));
        if again {
            return;
        }
        let before: Vec<TaskId> = node.reads.iter().chain(&node.after).copied().collect();
        for (i, next) in before.iter().enumerate() {
            let (turn, line) =
                if i + 1 == before.len() { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            self.branch(*next, &format!("{rest}{turn}"), &format!("{rest}{line}"), shown, settings, out);
        }
    }

    fn dot(&self) -> String {
        let mut out =
            String::from("digraph vcbuild {\n  rankdir = LR\n  node [shape = box, style = filled]\n");
        for (id, state) in self.states {
            let colour = match state.word() {
                "hit" => "palegreen",
                "blocked" => "salmon",
                "runs" => "gold",
                _ => "lightyellow",
            };
            out.push_str(&format!(
                "  \"{}\" [fillcolor = {colour}, tooltip = \"{}\"]\n",
                self.name(*id),
                state.word()
            ));
        }
        for (from, to, how) in self.edges() {
            let style = if how == "after" { " [style = dashed]" } else { "" };
            out.push_str(&format!("  \"{}\" -> \"{}\"{style}\n", self.name(to), self.name(from)));
        }
        out.push_str("}\n");
        out
    }

    fn mermaid(&self) -> String {
        let mut out = String::from("graph LR\n");
        for (id, state) in self.states {
            out.push_str(&format!("  t{}[\"{}\"]:::{}\n", id.0, self.name(*id), state.word()));
        }
        for (from, to, how) in self.edges() {
            let arrow = if how == "after" { "-.->" } else { "-->" };
            out.push_str(&format!("  t{} {arrow} t{}\n", to.0, from.0));
        }
        for (word, colour) in [
            ("hit", "#b8f0b8"),
            ("runs", "#ffd75e"),
            ("unknown", "#fff6cc"),
            ("asks", "#fff6cc"),
            ("blocked", "#ffa59e"),
        ] {
            out.push_str(&format!("  classDef {word} fill:{colour}\n"));
        }
        out
    }

    fn json(&self) -> String {
        let tasks: Vec<serde_json::Value> = self
            .states
            .iter()
            .map(|(id, state)| {
                let node = self.graph.node(*id);
                let names = |ids: &[TaskId]| ids.iter().map(|id| self.name(*id)).collect::<Vec<_>>();
                let key = match state {
                    State::Hit(key, _) | State::Runs(key, _) => Some(key.to_string()),
                    _ => None,
                };
                serde_json::json!({
                    "task": node.name, "kind": node.name.kind(), "state": state.word(), "key": key,
                    "reads": names(&node.reads), "after": names(&node.after),
                })
            })
            .collect();
        format!(
            "{}\n",
            serde_json::to_string_pretty(&serde_json::json!({ "tasks": tasks })).unwrap_or_default()
        )
    }
}
