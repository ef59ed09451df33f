//! `vcbuild.toml` from text to a checked configuration, with all mistakes at once: parse, variables,
//! instances, one table for each kind, then names. Reads no file and runs nothing.

mod host;
pub mod matrix;
pub mod read;
pub mod registries;
mod resolve;
pub mod schema;
pub mod value;
pub mod vars;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::{Mistake, Source, did_you_mean};
use crate::host::{cluster, node, registry};
use crate::tasks::names::{Declare, Placed, Reference};
use crate::tasks::{self, KINDS};
use crate::work::TaskName;
use matrix::Axes;
use read::Mistakes;
use value::{Data, Value};
use vars::{Overrides, Variable};

/// A checked configuration.
pub struct Config {
    /// The name of the project.
    pub name: String,
    /// The targets when none is given.
    pub default: Option<Vec<Placed<String>>>,
    /// How many tasks of a pool may run at once.
    pub pools: BTreeMap<String, usize>,
    /// The variables and where their values come from.
    pub variables: Vec<Variable>,
    /// All tasks, instances each on its own, in the order of the file.
    pub tasks: Vec<Declared>,
    /// The hosts, by name.
    pub hosts: BTreeMap<String, node::Spec>,
    /// How many hosts may be worked on at once.
    pub parallel_hosts: usize,
    /// How many bytes in a second may go to all machines together.
    pub limit: Option<u64>,
    /// The folders of embedded destinations: never read as inputs.
    pub embedded: Vec<String>,
    /// The file.
    pub source: Arc<Source>,
}

/// A task, or an instance of one.
pub struct Declared {
    /// Its whole name.
    pub name: TaskName,
    /// Where its table begins in the file.
    pub place: Range<usize>,
    /// The task.
    pub task: Box<dyn Declare>,
    /// The tasks that must be done before it, though it does not read them.
    pub after: Vec<TaskName>,
    /// The pool it runs in.
    pub pool: Option<String>,
}

/// `[project]`
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Project {
    /// The name of the project; part of inventories and of names of images without tags
    name: Placed<String>,
    /// The targets of `vcbuild run` when none is given
    default: Option<Vec<Placed<String>>>,
    /// How many tasks of a pool may run at once
    #[serde(default)]
    pools: BTreeMap<String, usize>,
    /// How many hosts may be worked on at once [default: 32]
    parallel_hosts: Option<NonZeroUsize>,
    /// How many bytes in a second may go to all machines together, as in `100M`
    limit: Option<Placed<String>>,
}

/// `[host.NAME]`
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// The folder of an embedded node, relative to the project or absolute
    local: Option<Placed<String>>,
    /// A machine, as `ssh` takes it: `user@host`, a name of the user's ssh configuration, `ssh://user@host:port`
    ssh: Option<Placed<String>>,
    /// A Docker or Podman daemon of this machine, by its socket: `unix:///var/run/docker.sock`
    docker: Option<Placed<String>>,
    /// A configuration of ssh to use in place of the user's, relative to the project or absolute
    ssh_config: Option<Placed<String>>,
    /// The host key that is taken: `strict` (one that ssh knows for the host's name; the default), `accept-new`
    /// (any at the first contact), or the key itself as in a `.pub` file
    host_key: Option<Placed<String>>,
    /// Whether everything is done by root, through sudo without a password
    sudo: Option<bool>,
    /// The socket of containerd [default: /run/containerd/containerd.sock]
    containerd: Option<Placed<String>>,
    /// The program `ctr`, with its first arguments [default: ["ctr"]]
    ctr: Option<Vec<Placed<String>>>,
    /// How many bytes in a second may go to it, as in `10M`
    limit: Option<Placed<String>>,
}

/// `[hosts.NAME]`
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Names of hosts and groups
    list: Vec<Placed<String>>,
}

/// `[cluster.NAME]`
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// The folder of an embedded cluster, relative to the project or absolute
    dir: Placed<String>,
}

/// The keys that tasks of every kind have.
#[derive(Default, Deserialize, JsonSchema)]
pub struct Common {
    /// Tasks that must be done before this one, though it does not read them
    #[serde(default)]
    after: Vec<Reference>,
    /// The pool in which this task runs
    pool: Option<Placed<String>>,
}

/// Everything in the file, read but not yet resolved.
struct Tables {
    project: Option<Project>,
    hosts: BTreeMap<String, node::Spec>,
    /// Hosts whose tables are wrong, which has been said.
    wrong: BTreeSet<String>,
    groups: BTreeMap<String, Group>,
    clusters: BTreeMap<String, cluster::Spec>,
    registries: registry::Settings,
    variables: Vec<Variable>,
    instances: Vec<Instance>,
}

struct Instance {
    name: TaskName,
    /// `kind.name`, without brackets.
    whole: String,
    axes: Axes,
    place: Range<usize>,
    common: Common,
    task: Option<Box<dyn Declare>>,
}

/// Reads a configuration. `source.name` is how messages call the file.
pub fn load(source: Source, overrides: &Overrides) -> Result<Config, Vec<Mistake>> {
    let source = Arc::new(source);
    let mut mistakes = Mistakes::new(source.clone());
    let (parsed, errors) = toml::de::DeTable::parse_recoverable(&source.text);
    let mut twice: Option<Range<usize>> = None;
    for error in errors {
        let span = error.span().unwrap_or_default();
        if error.message() != "duplicate key" {
            mistakes.note(span, sentence(error.message()), None);
        } else if !twice.as_ref().is_some_and(|table| table.contains(&span.start)) {
            twice = note_twice(span, &mut mistakes);
        }
    }
    let mut wrong = Vec::new();
    let mut document = Value::of_table(parsed.get_ref(), parsed.span(), &mut wrong);
    for wrong in wrong {
        mistakes.note(wrong.span.unwrap_or_default(), wrong.message, None);
    }
    let tables = read_tables(&mut document, overrides, &mut mistakes);
    resolve::resolve(tables, mistakes)
}

/// Notes that a key or a table is there twice. Of a table all keys may be there twice too, and that would
/// say nothing new: gives where it stands.
fn note_twice(span: Range<usize>, mistakes: &mut Mistakes) -> Option<Range<usize>> {
    let source = mistakes.source.clone();
    let line = source.text[..span.start].rfind('\n').map_or(0, |at| at + 1);
    let text = &source.text[line..];
    let header = text.lines().next().unwrap_or_default().trim();
    if !header.starts_with('[') {
        mistakes.note(span, "duplicate key", None);
        return None;
    }
    let name = header.trim_start_matches('[').split(']').next().unwrap_or_default().trim();
    let place = line..line + text.find('\n').unwrap_or(text.len());
    mistakes.note(place, format!("the table `{name}` is declared twice"), None);
    let end = text.match_indices("\n[").next().map_or(source.text.len(), |(at, _)| line + at + 1);
    Some(line..end)
}

/// A parser's message in our words: lower case, quotes as backticks.
fn sentence(message: &str) -> String {
    let mut chars = message.lines().next().unwrap_or_default().chars();
    let first = chars.next().map(|first| first.to_lowercase().to_string()).unwrap_or_default();
    format!("{first}{}", chars.as_str())
}

fn read_tables(document: &mut Value, overrides: &Overrides, mistakes: &mut Mistakes) -> Tables {
    let variables = vars::read(document, overrides, mistakes);
    let context = vars::context(&variables, &Axes::new());
    let project = match document.take("project") {
        Some((key, table)) => vars::render(&table, &context, mistakes)
            .and_then(|table| mistakes.read::<Project>("project", &key.span, &table)),
        None => {
            let hint = Some("begin with `[project]` and `name = \"…\"`".to_string());
            mistakes.note(0..0, "there is no `[project]` table", hint);
            None
        }
    };
    let (mut hosts, mut wrong) = (BTreeMap::new(), BTreeSet::new());
    for (name, place, table) in named(document, "host", &context, mistakes) {
        if let Some(host) = mistakes.read::<Host>(&format!("host.{name}"), &place, &table) {
            if let Some(at) = host.at(&name, &place, mistakes) {
                hosts.insert(name.clone(), node::Spec { name, at });
            } else {
                wrong.insert(name);
            }
        }
    }
    let mut groups = BTreeMap::new();
    for (name, place, table) in named(document, "hosts", &context, mistakes) {
        if hosts.contains_key(&name) {
            mistakes.note(place.clone(), format!("`{name}` is both a host and a group"), None);
        }
        if let Some(group) = mistakes.read::<Group>(&format!("hosts.{name}"), &place, &table) {
            groups.insert(name, group);
        }
    }
    let mut clusters = BTreeMap::new();
    for (name, place, table) in named(document, "cluster", &context, mistakes) {
        if let Some(cluster) = mistakes.read::<Cluster>(&format!("cluster.{name}"), &place, &table) {
            clusters.insert(name.clone(), cluster::Spec { name, dir: cluster.dir.value });
        }
    }
    let registries = named(document, "registry", &context, mistakes);
    let registries = registries::read(registries.into_iter(), mistakes);
    let mut instances = Vec::new();
    for kind in KINDS {
        read_kind(kind, document, &variables, &mut instances, mistakes);
    }
    instances.sort_by_key(|instance| instance.place.start);
    for (key, _) in document.entries() {
        let known = ["project", "vars", "profile", "host", "hosts", "cluster", "registry"];
        let hint = did_you_mean(&key.name, known.into_iter().chain(KINDS)).or_else(|| {
            Some(format!("tables are {}, and the kinds {}", known.join(", "), KINDS.join(", ")))
        });
        mistakes.note(key.span.clone(), format!("unknown table `{}`", key.name), hint);
    }
    Tables { project, hosts, wrong, groups, clusters, registries, variables, instances }
}

/// The tables `[kind.NAME]`, rendered.
fn named(
    document: &mut Value,
    kind: &str,
    context: &serde_json::Value,
    mistakes: &mut Mistakes,
) -> Vec<(String, Range<usize>, Value)> {
    let mut found = Vec::new();
    for (name, place, table) in raw(document, kind, mistakes) {
        if let Some(table) = vars::render(&table, context, mistakes) {
            found.push((name, place, table));
        }
    }
    found
}

fn raw(document: &mut Value, kind: &str, mistakes: &mut Mistakes) -> Vec<(String, Range<usize>, Value)> {
    let Some((key, tables)) = document.take(kind) else { return Vec::new() };
    let Data::Table(entries) = tables.data else {
        let message = format!("`{kind}` must hold named tables, found {}", tables.kind());
        mistakes.note(key.span, message, Some(format!("write `[{kind}.NAME]`")));
        return Vec::new();
    };
    let mut found = Vec::new();
    for (key, table) in entries {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        // The name of a registry is its host, and is looked at as such.
        if key.name.is_empty() || (kind != "registry" && !key.name.bytes().all(fits)) {
            let message = format!("`{}` cannot be a name", key.name);
            mistakes.note(key.span, message, Some("letters, digits, `_` and `-`".into()));
        } else if !matches!(table.data, Data::Table(_)) {
            let message = format!("`{kind}.{}` must be a table, found {}", key.name, table.kind());
            mistakes.note(key.span, message, Some(format!("write `[{kind}.NAME]`")));
        } else {
            found.push((key.name, key.span, table));
        }
    }
    found
}

fn read_kind(
    kind: &'static str,
    document: &mut Value,
    variables: &[Variable],
    instances: &mut Vec<Instance>,
    mistakes: &mut Mistakes,
) {
    for (name, place, mut table) in raw(document, kind, mistakes) {
        let whole = format!("{kind}.{name}");
        let axes = match table.take("matrix") {
            None => vec![Axes::new()],
            Some((_, matrix)) => {
                match vars::render(&matrix, &vars::context(variables, &Axes::new()), mistakes) {
                    Some(matrix) => matrix::instances(&whole, &matrix, mistakes),
                    None => Vec::new(),
                }
            }
        };
        // The usual table is one task, and nothing in it is an expression: it is taken as it is.
        let plain = axes.len() == 1 && !vars::has_expression(&table);
        let mut plain = plain.then(|| std::mem::replace(&mut table, Value::empty()));
        for axes in axes {
            let rendered = match plain.take() {
                Some(table) => Some(table),
                None => vars::render(&table, &vars::context(variables, &axes), mistakes),
            };
            let Some(mut table) = rendered else { continue };
            let mut common = Value { span: table.span.clone(), data: Data::Table(Vec::new()) };
            if let Data::Table(entries) = &mut common.data {
                entries.extend(["after", "pool"].into_iter().filter_map(|name| table.take(name)));
            }
            let common = mistakes.read::<Common>(&whole, &place, &common).unwrap_or_default();
            let reader = Reader { name: &whole, place: &place, table: &table, mistakes };
            let task = tasks::visit(kind, reader);
            let name = TaskName(format!("{whole}{}", matrix::suffix(&axes)));
            let whole = whole.clone();
            instances.push(Instance { name, whole, axes, place: place.clone(), common, task });
        }
    }
}

struct Reader<'a> {
    name: &'a str,
    place: &'a Range<usize>,
    table: &'a Value,
    mistakes: &'a mut Mistakes,
}

impl tasks::Visit for Reader<'_> {
    type Output = Option<Box<dyn Declare>>;

    fn visit<T: Declare + DeserializeOwned + JsonSchema + 'static>(self) -> Self::Output {
        let read = self.mistakes.read::<T>(self.name, self.place, self.table)?;
        Some(Box::new(read))
    }
}
