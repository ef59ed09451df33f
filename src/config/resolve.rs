//! Names become what they name: references, hosts, clusters, pools. Everything that is wrong is noted,
//! and what is right goes on. Reads no file.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::ops::Range;

use super::matrix::{self, Axes};
use super::read::Mistakes;
use super::vars;
use super::{Config, Declared, Instance, Tables};
use crate::error::{Mistake, did_you_mean};
use crate::glob;
use crate::host::{cluster, node, registry, ssh};
use crate::tasks::KINDS;
use crate::tasks::names::{Filled, Names, Outputs, Placed, Reference, To, Want};
use crate::work::TaskName;

/// The instances of each task, by `kind.name`.
type Known = BTreeMap<String, Vec<(Axes, TaskName)>>;

pub fn resolve(tables: Tables, mistakes: Mistakes) -> Result<Config, Vec<Mistake>> {
    let Tables { project, hosts, wrong, groups, clusters, registries, variables, instances } = tables;
    let mut known = Known::new();
    for instance in &instances {
        known
            .entry(instance.whole.clone())
            .or_default()
            .push((instance.axes.clone(), instance.name.clone()));
    }
    let mut mistakes = mistakes;
    let limit = project.as_ref().and_then(|project| project.limit.as_ref());
    let limit = limit.and_then(|limit| super::host::rate(limit, &mut mistakes));
    let parallel = project.as_ref().and_then(|project| project.parallel_hosts);
    let (name, default, pools) = match project {
        Some(project) => (project.name.value, project.default, project.pools),
        None => (String::new(), None, BTreeMap::new()),
    };
    let outputs = instances
        .iter()
        .filter_map(|instance| Some((instance.name.clone(), instance.task.as_ref()?.outputs())))
        .collect();
    let mut scope = Scope {
        outputs: &outputs,
        project: &name,
        known: &known,
        hosts: &hosts,
        wrong: &wrong,
        groups: &groups,
        clusters: &clusters,
        registries: &registries,
        variables: &variables,
        axes: Axes::new(),
        task: TaskName(String::new()),
        place: 0..0,
        claims: BTreeMap::new(),
        filled: BTreeMap::new(),
        mistakes,
    };
    let mut tasks = Vec::new();
    for Instance { name, axes, place, mut common, task, .. } in instances {
        scope.axes = axes;
        scope.place = place.clone();
        scope.task = name.clone();
        let mut after = Vec::new();
        for reference in &mut common.after {
            scope.tasks(reference, &KINDS, Want::Any);
            after.extend(reference.tasks().iter().cloned());
        }
        if let Some(pool) = &common.pool
            && !pools.contains_key(&pool.value)
        {
            let hint = did_you_mean(pool, pools.keys().map(String::as_str))
                .or_else(|| Some(format!("declare it: `[project] pools = {{ {} = 1 }}`", pool.value)));
            scope.mistake(pool.range(), format!("there is no pool `{}`", pool.value), hint);
        }
        if let Some(mut task) = task {
            task.resolve(&mut scope);
            tasks.push(Declared { name, place, task, after, pool: common.pool.map(|pool| pool.value) });
        }
    }
    for (pool, size) in &pools {
        if *size == 0 {
            let message = format!("the pool `{pool}` has no place: nothing in it could ever run");
            scope.mistakes.all.push(Mistake::new(message));
        }
    }
    let mut mistakes = scope.mistakes;
    if mistakes.all.is_empty() {
        let parallel_hosts = parallel.map_or(ssh::PARALLEL, NonZeroUsize::get);
        let embedded = hosts.values().filter_map(|host| match &host.at {
            node::At::Local(folder) => Some(folder.clone()),
            node::At::Ssh(_) | node::At::Docker(_) => None,
        });
        let embedded = embedded.chain(clusters.values().map(|cluster| cluster.dir.clone())).collect();
        let source = mistakes.source;
        return Ok(Config {
            name,
            default,
            pools,
            variables,
            tasks,
            hosts,
            parallel_hosts,
            limit,
            embedded,
            source,
        });
    }
    mistakes.all.sort_by_key(|mistake| mistake.place.as_ref().map(|(_, span)| span.start));
    Err(mistakes.all)
}

struct Scope<'a> {
    project: &'a str,
    known: &'a Known,
    outputs: &'a BTreeMap<TaskName, Outputs>,
    hosts: &'a BTreeMap<String, node::Spec>,
    wrong: &'a BTreeSet<String>,
    groups: &'a BTreeMap<String, super::Group>,
    clusters: &'a BTreeMap<String, cluster::Spec>,
    registries: &'a registry::Settings,
    variables: &'a [vars::Variable],
    axes: Axes,
    task: TaskName,
    place: Range<usize>,
    claims: BTreeMap<String, TaskName>,
    /// Folders on hosts by the names in their paths, with how they were written.
    filled: BTreeMap<(String, Vec<String>), (Filled, String, TaskName)>,
    mistakes: Mistakes,
}

/// A reference's text cut into `kind.name` and what is in brackets.
fn cut(text: &str) -> Option<(&str, Option<&str>)> {
    match text.split_once('[') {
        None => Some((text, None)),
        Some((whole, rest)) => Some((whole, Some(rest.strip_suffix(']')?))),
    }
}

impl Scope<'_> {
    /// The instances that brackets choose.
    fn choose(&mut self, text: &Placed<String>, want: Want) -> Vec<TaskName> {
        let Some((whole, brackets)) = cut(text) else {
            self.mistake(text.range(), format!("`{}` has no closing `]`", text.value), None);
            return Vec::new();
        };
        let Some(instances) = self.known.get(whole) else {
            let hint = did_you_mean(whole, self.known.keys().map(String::as_str));
            let message = format!("`{}` names `{whole}`, which is not declared", self.task);
            self.mistake(text.range(), message, hint);
            return Vec::new();
        };
        let is_matrix = instances.iter().any(|(axes, _)| !axes.is_empty());
        let all = || instances.iter().map(|(_, name)| name.clone()).collect();
        let example = || instances.first().map(|(_, name)| format!("name one, for example `{name}`"));
        match brackets {
            None if is_matrix && want == Want::One => {
                let message = format!("`{whole}` has {} instances, and one is wanted", instances.len());
                self.mistake(text.range(), message, example());
                Vec::new()
            }
            None => all(),
            Some(_) if !is_matrix => {
                self.mistake(
                    text.range(),
                    format!("`{whole}` has no matrix"),
                    Some(format!("write `{whole}`")),
                );
                Vec::new()
            }
            Some("*") if want == Want::One => {
                self.mistake(
                    text.range(),
                    format!("`{}` is a list, and one is wanted", text.value),
                    example(),
                );
                Vec::new()
            }
            Some("*") => all(),
            Some(inside) => {
                let wanted = format!("{whole}[{}]", normal(inside));
                let found = instances.iter().find(|(_, name)| name.0 == wanted);
                match found {
                    Some((_, name)) => vec![name.clone()],
                    None => {
                        let hint = did_you_mean(&wanted, instances.iter().map(|(_, name)| name.0.as_str()))
                            .or_else(example);
                        let message = format!("`{whole}` has no instance `[{inside}]`");
                        self.mistake(text.range(), message, hint);
                        Vec::new()
                    }
                }
            }
        }
    }
}

/// Several axes in alphabetical order.
fn normal(inside: &str) -> String {
    let mut axes: Vec<&str> = inside.split(',').map(str::trim).collect();
    axes.sort_unstable();
    axes.join(",")
}

impl Names for Scope<'_> {
    fn project(&self) -> &str {
        self.project
    }

    fn task(&self) -> &TaskName {
        &self.task
    }

    fn place(&self) -> Range<usize> {
        self.place.clone()
    }

    fn variables(&self) -> serde_json::Value {
        vars::context(self.variables, &self.axes)
    }

    fn reference(&mut self, reference: &mut Reference, kinds: &[&str], want: Want) {
        let kind = reference.text.split('.').next().unwrap_or_default();
        if reference.text.contains('.') && KINDS.contains(&kind) {
            self.tasks(reference, kinds, want);
            return;
        }
        self.contained(&reference.text.clone());
        let path = reference.text.trim_start_matches("./").to_string();
        reference.to = To::Path(if path.is_empty() { ".".into() } else { path });
    }

    fn tasks(&mut self, reference: &mut Reference, kinds: &[&str], want: Want) {
        let text = reference.text.clone();
        let kind = text.split('.').next().unwrap_or_default();
        if !kinds.contains(&kind) || !text.contains('.') {
            let list: Vec<String> = kinds.iter().map(|kind| format!("`{kind}.…`")).collect();
            let message = match KINDS.contains(&kind) && text.contains('.') {
                true => format!("`{}` cannot be read here", text.value),
                false => format!("`{}` is not a task", text.value),
            };
            let whole = cut(&text).map_or(text.value.as_str(), |(whole, _)| whole);
            let bare = self
                .known
                .keys()
                .find(|known| known.split_once('.').is_some_and(|(_, name)| name == whole));
            let hint = match bare {
                Some(known) => format!("did you mean `{known}`?"),
                None if list.len() > 4 => "write a task as `kind.name`".into(),
                None => format!("wanted: {}", list.join(" or ")),
            };
            self.mistake(text.range(), message, Some(hint));
            return;
        }
        let tasks = self.choose(&text, want);
        let outputs = |task| self.outputs.get(task).cloned().unwrap_or(Outputs::Contents);
        reference.outputs = tasks.iter().map(outputs).collect();
        if want != Want::Any && reference.outputs.iter().any(|one| matches!(one, Outputs::Secret { .. })) {
            let message = format!("`{}` is secret, and what reads it here would keep it", text.value);
            let hint = "only an `upload` with `secret = true` and `vcbuild get` take it".to_string();
            self.mistake(text.range(), message, Some(hint));
            return;
        }
        reference.to = To::Tasks(tasks);
    }

    fn hosts(&mut self, names: &[Placed<String>]) -> Vec<node::Spec> {
        let mut found: Vec<node::Spec> = Vec::new();
        let mut open: Vec<Placed<String>> = names.iter().rev().cloned().collect();
        let mut entered = BTreeSet::new();
        let mut broken = false;
        while let Some(name) = open.pop() {
            if let Some(host) = self.hosts.get(&name.value) {
                if !found.contains(host) {
                    found.push(host.clone());
                }
            } else if let Some(group) = self.groups.get(&name.value) {
                if entered.insert(name.value.clone()) {
                    open.extend(group.list.iter().rev().cloned());
                }
            } else if self.wrong.contains(&name.value) {
                broken = true;
            } else {
                let known = self.hosts.keys().chain(self.groups.keys()).map(String::as_str);
                let hint = did_you_mean(&name, known);
                self.mistake(name.range(), format!("there is no host or group `{}`", name.value), hint);
            }
        }
        if found.is_empty() && !broken {
            let place = names.first().map_or_else(|| self.place(), Placed::range);
            if !self.mistakes.all.iter().any(|m| m.place.as_ref().is_some_and(|(_, span)| *span == place)) {
                self.mistake(place, format!("`{}` has no host", self.task), None);
            }
        }
        found
    }

    fn cluster(&mut self, name: &Placed<String>) -> Option<cluster::Spec> {
        let found = self.clusters.get(&name.value).cloned();
        if found.is_none() {
            let hint = did_you_mean(name, self.clusters.keys().map(String::as_str));
            self.mistake(name.range(), format!("there is no cluster `{}`", name.value), hint);
        }
        found
    }

    fn registries(&self) -> registry::Settings {
        self.registries.clone()
    }

    fn contained(&mut self, path: &Placed<String>) {
        if path.is_empty() || !glob::is_contained(path.strip_prefix('!').unwrap_or(path)) {
            let message = match path.is_empty() {
                true => "the path is empty".to_string(),
                false => format!("the path `{}` leaves the project", path.value),
            };
            self.mistake(path.range(), message, Some("paths are relative, without `..`".into()));
        }
    }

    fn claim(&mut self, thing: String, place: Range<usize>) {
        match self.claims.get(&thing) {
            None => {
                self.claims.insert(thing, self.task.clone());
            }
            Some(first) => {
                let (kind, same) = (matrix::text(&first.0.as_str().into()), first.0.split('[').next());
                let hint = (same == self.task.0.split('[').next() && *first != self.task)
                    .then(|| "instances must differ: put an axis into it".to_string());
                let message = format!("{thing} is declared twice: by `{kind}` and by `{}`", self.task);
                self.mistake(place, message, hint);
            }
        }
    }

    fn fill(&mut self, host: &str, path: &str, filled: Filled, place: Range<usize>) {
        let names = path.split('/').filter(|name| !name.is_empty() && *name != ".");
        let names: Vec<String> = names.map(str::to_string).collect();
        let mut at = (host.to_string(), names.clone());
        let mut message = None;
        let mut note = |owner: (&String, &TaskName), other: &TaskName| {
            let (path, owner) = owner;
            message.get_or_insert(format!(
                "only `{owner}` fills `{path}` on `{host}`, and `{other}` goes there too"
            ));
        };
        for depth in 1..=names.len() {
            at.1 = names[..depth].to_vec();
            if let Some((Filled::Alone, above, owner)) = self.filled.get(&at)
                // That is said of what is claimed twice.
                && (above, filled) != (&path.to_string(), Filled::Alone)
            {
                note((above, owner), &self.task);
            }
        }
        at.1.clone_from(&names);
        if filled == Filled::Alone {
            let below = self
                .filled
                .range(at.clone()..)
                .find(|(_, (how, other, _))| (*how, other.as_str()) != (filled, path));
            if let Some(((on, below), (.., other))) = below
                && on == host
                && below.starts_with(&names)
            {
                note((&path.to_string(), &self.task), other);
            }
        }
        self.filled.entry(at).or_insert_with(|| (filled, path.to_string(), self.task.clone()));
        if let Some(message) = message {
            let hint = "give each a folder of its own, or take `delete` away".to_string();
            self.mistakes.note(place, message, Some(hint));
        }
    }

    fn hidden_mistake(&mut self, message: String, hint: String) {
        self.mistakes.note_without_place(message, hint);
    }

    fn mistake(&mut self, place: Range<usize>, message: String, hint: Option<String>) {
        self.mistakes.note(place, message, hint);
    }
}
