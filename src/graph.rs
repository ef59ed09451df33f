//! The tasks with their edges, cycles shown as paths, and which tasks a target means. Runs nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::config::Config;
use crate::error::{Mistake, Source, did_you_mean};
use crate::schedule::{PoolId, TaskId};
use crate::tasks::KINDS;
use crate::tasks::names::Declare;
use crate::work::TaskName;

/// A task and its edges.
pub struct Node {
    /// Its whole name.
    pub name: TaskName,
    /// The task.
    pub task: Box<dyn Declare>,
    /// The tasks whose values it reads.
    pub reads: Vec<TaskId>,
    /// The tasks that come before it.
    pub after: Vec<TaskId>,
    /// The pool it runs in.
    pub pool: Option<PoolId>,
    /// Where its table begins.
    place: std::ops::Range<usize>,
}

impl Node {
    /// A task that is not in the configuration: it reads others, and nothing depends on it.
    pub fn new(name: TaskName, task: Box<dyn Declare>, reads: Vec<TaskId>) -> Self {
        Self { name, task, reads, after: Vec::new(), pool: None, place: 0..0 }
    }
}

/// A target with its axes in alphabetical order, as they stand in names.
fn ordered(target: &str) -> String {
    let Some((name, axes)) = target.strip_suffix(']').and_then(|target| target.split_once('[')) else {
        return target.to_string();
    };
    let mut axes: Vec<&str> = axes.split(',').map(str::trim).collect();
    axes.sort_unstable();
    format!("{name}[{}]", axes.join(","))
}

/// All tasks of a project.
pub struct Graph {
    /// The tasks; a `TaskId` is an index.
    pub nodes: Vec<Node>,
    /// The sizes of the pools; a `PoolId` is an index.
    pub pools: Vec<usize>,
    names: BTreeMap<TaskName, TaskId>,
    default: Option<Vec<String>>,
    source: Arc<Source>,
}

impl Graph {
    /// Joins the tasks of a configuration; the mistakes are cycles.
    pub fn new(config: Config) -> Result<Self, Vec<Mistake>> {
        let ids: BTreeMap<TaskName, TaskId> =
            config.tasks.iter().enumerate().map(|(i, declared)| (declared.name.clone(), id(i))).collect();
        let pools: Vec<(String, usize)> = config.pools.into_iter().collect();
        let pool_of = |name: &String| {
            let at = pools.iter().position(|(known, _)| known == name)?;
            Some(PoolId(u32::try_from(at).ok()?))
        };
        let nodes = config.tasks.into_iter().map(|declared| {
            let named = |names: Vec<TaskName>| names.iter().map(|name| ids[name]).collect::<BTreeSet<_>>();
            let reads = named(declared.task.needs());
            let before = [declared.after, declared.task.follows()].concat();
            let after = named(before).difference(&reads).copied().collect();
            Node {
                name: declared.name,
                task: declared.task,
                reads: reads.into_iter().collect(),
                after,
                pool: declared.pool.as_ref().and_then(pool_of),
                place: declared.place,
            }
        });
        let nodes = nodes.collect();
        let graph = Self {
            nodes,
            pools: pools.into_iter().map(|(_, size)| size).collect(),
            names: ids,
            default: config.default.map(|list| list.into_iter().map(|target| target.value).collect()),
            source: config.source,
        };
        let cycles = graph.cycles();
        if cycles.is_empty() { Ok(graph) } else { Err(cycles) }
    }

    /// The task behind an id.
    pub fn node(&self, id: TaskId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    /// Adds a task on which nothing depends.
    pub fn add(&mut self, node: Node) -> TaskId {
        let id = id(self.nodes.len());
        self.names.insert(node.name.clone(), id);
        self.nodes.push(node);
        id
    }

    /// The tasks in the order of the file.
    pub fn ids(&self) -> impl Iterator<Item = TaskId> {
        (0..self.nodes.len()).map(id)
    }

    /// The task of a name.
    pub fn find(&self, name: &str) -> Option<TaskId> {
        self.names.get(name).copied()
    }

    fn before(&self, id: TaskId) -> impl Iterator<Item = TaskId> {
        let node = self.node(id);
        node.reads.iter().chain(&node.after).copied()
    }

    /// The tasks that targets mean: a kind, a whole name, a name with all its instances, or a bare
    /// name. Without targets the project's default, or all that nothing depends on.
    pub fn targets(&self, targets: &[String]) -> Result<BTreeSet<TaskId>, Vec<Mistake>> {
        let given: Vec<String> = match (targets.is_empty(), &self.default) {
            (false, _) => targets.to_vec(),
            (true, Some(default)) => default.clone(),
            (true, None) => {
                let read: BTreeSet<TaskId> = self.ids().flat_map(|id| self.before(id)).collect();
                return Ok(self.ids().filter(|id| !read.contains(id)).collect());
            }
        };
        let (mut found, mut mistakes) = (BTreeSet::new(), Vec::new());
        for target in &given {
            match self.target(target) {
                Ok(ids) => found.extend(ids),
                Err(mistake) => mistakes.push(mistake),
            }
        }
        if mistakes.is_empty() { Ok(found) } else { Err(mistakes) }
    }

    /// The tasks that one target means.
    pub fn target(&self, target: &str) -> Result<Vec<TaskId>, Mistake> {
        let target = &ordered(target);
        let those = |fits: &dyn Fn(&TaskName) -> bool| -> Vec<TaskId> {
            self.ids().filter(|id| fits(&self.node(*id).name)).collect()
        };
        if KINDS.contains(&target.as_str()) {
            let found = those(&|name| name.kind() == target);
            if found.is_empty() {
                return Err(Mistake::new(format!("there is no `{target}` task")));
            }
            return Ok(found);
        }
        let whole = target.strip_suffix("[*]").unwrap_or(target);
        let found = those(&|name| name.0 == *target || name.0.split('[').next() == Some(whole));
        if !found.is_empty() {
            return Ok(found);
        }
        let bare = |name: &TaskName| {
            let brackets = target.find('[').map(|at| &target[at..]);
            let same = name.bare() == target.split('[').next().unwrap_or_default();
            same && brackets.is_none_or(|brackets| brackets == "[*]" || name.0.ends_with(brackets))
        };
        let found = those(&bare);
        let kinds: BTreeSet<&str> = found.iter().map(|id| self.node(*id).name.kind()).collect();
        match kinds.len() {
            1 => Ok(found),
            0 => {
                let names = self.nodes.iter().map(|node| node.name.0.as_str());
                let bare = self.nodes.iter().map(|node| node.name.bare());
                let hint = did_you_mean(target, names.chain(bare).chain(KINDS));
                let hint = hint.or_else(|| Some("`vcbuild list` shows all tasks".into()));
                Err(Mistake::new(format!("there is no task `{target}`")).hint_maybe(hint))
            }
            _ => {
                let list: Vec<String> = kinds.iter().map(|kind| format!("`{kind}.{target}`")).collect();
                let message = format!("`{target}` is the name of several tasks");
                Err(Mistake::new(message).hint(format!("write {}", list.join(" or "))))
            }
        }
    }

    /// These tasks and all that must be done before them.
    pub fn closure(&self, targets: &BTreeSet<TaskId>) -> BTreeSet<TaskId> {
        let (mut all, mut open) = (BTreeSet::new(), targets.iter().copied().collect::<Vec<_>>());
        while let Some(id) = open.pop() {
            if all.insert(id) {
                open.extend(self.before(id));
            }
        }
        all
    }

    /// One mistake for each cycle that a walk meets, shown as a path.
    fn cycles(&self) -> Vec<Mistake> {
        #[derive(Clone, Copy, PartialEq)]
        enum Mark {
            New,
            Open,
            Done,
        }
        let mut marks = vec![Mark::New; self.nodes.len()];
        let mut mistakes = Vec::new();
        for start in self.ids() {
            if marks[start.0 as usize] != Mark::New {
                continue;
            }
            marks[start.0 as usize] = Mark::Open;
            let mut path: Vec<(TaskId, Vec<TaskId>)> = vec![(start, self.before(start).collect())];
            while let Some((here, left)) = path.last_mut() {
                let Some(next) = left.pop() else {
                    marks[here.0 as usize] = Mark::Done;
                    path.pop();
                    continue;
                };
                match marks[next.0 as usize] {
                    Mark::Done => {}
                    Mark::New => {
                        marks[next.0 as usize] = Mark::Open;
                        path.push((next, self.before(next).collect()));
                    }
                    Mark::Open => {
                        let from = path.iter().position(|(id, _)| *id == next).unwrap_or(0);
                        let mut names: Vec<&str> =
                            path[from..].iter().map(|(id, _)| self.node(*id).name.0.as_str()).collect();
                        names.push(&self.node(next).name.0);
                        let message = format!("tasks wait for each other: {}", names.join(" -> "));
                        let place = self.node(next).place.clone();
                        mistakes.push(Mistake::new(message).at(&self.source, place));
                    }
                }
            }
        }
        mistakes
    }
}

fn id(index: usize) -> TaskId {
    match u32::try_from(index) {
        Ok(index) => TaskId(index),
        Err(_) => panic!("BUG: more than four thousand million tasks"),
    }
}
