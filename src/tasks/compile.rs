//! `compile`: commands over a tree give files. What decides the bytes is in the key: what is asked of the machine
//! for that is in `compile_facts`; the running itself is in `compile_run`, and on a host in `compile_there`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::compile_facts::Asked;
use super::names::{Declare, Names, Outputs, Placed, Reference, To, Want};
use super::patch::{read_folder, read_tree};
use super::placement::Placement;
use super::{compile_run, compile_there};
use crate::cache::draft::Draft;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::glob::{self, Globs};
use crate::host::node::Spec;
use crate::host::ssh::toolbox;
use crate::work::{Action, Class, Context, Inputs, Task, TaskName, Work};

/// `[compile.NAME]`: commands over a tree give files
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Compile {
    /// The tree: a task, or a folder of the project; without it `inputs` are taken from the project
    tree: Option<Reference>,
    /// Globs from the root of the tree: what the commands may see; absent = all
    inputs: Option<Vec<Placed<String>>>,
    /// The folder of the tree in which the commands run
    dir: Option<Placed<String>>,
    /// Outputs of other tasks, or files of the project, placed before the run
    #[serde(default)]
    files: Vec<Placement>,
    /// Programs that the commands may call by name, besides those in /usr/bin and /bin
    #[serde(default)]
    tools: Vec<Placed<String>>,
    /// Commands whose output belongs to the key, as `["go", "version"]`
    #[serde(default)]
    version: Vec<Vec<String>>,
    /// Debian packages whose installed versions belong to the key
    #[serde(default)]
    packages: Vec<Placed<String>>,
    /// Files outside the project whose contents belong to the key
    #[serde(default)]
    reads: Vec<Placed<String>>,
    /// Variables of the commands' environment
    #[serde(default)]
    env: BTreeMap<String, Placed<String>>,
    /// Variables passed on from vcbuild's environment; their values belong to the key
    #[serde(default)]
    pass_env: Vec<Placed<String>>,
    /// Variables passed on that only say where a tool lives; their values are not in the key
    #[serde(default)]
    locate_env: Vec<Placed<String>>,
    /// The commands, as lists of arguments; no shell
    run: Vec<Vec<String>>,
    /// What the commands make, relative to `dir`
    outputs: Vec<Placed<String>>,
    /// Folders of tool caches that outlive runs: variable = name
    #[serde(default)]
    keep: BTreeMap<String, Placed<String>>,
    /// Globs of what a run may leave in the work folder for the next one
    #[serde(default)]
    incremental: Vec<Placed<String>>,
    /// How long all commands together may take: `90s`, `30m`, `2h`
    timeout: Option<Placed<String>>,
    /// The host that the commands run on; this machine if it is absent or empty
    host: Option<Host>,
}

/// A host by its name.
#[derive(Clone, Debug)]
struct Host {
    name: Placed<String>,
    spec: Option<Spec>,
}

impl<'de> Deserialize<'de> for Host {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self { name: Placed::deserialize(deserializer)?, spec: None })
    }
}

impl JsonSchema for Host {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Host".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        String::json_schema(generator)
    }
}

impl Declare for Compile {
    fn resolve(&mut self, names: &mut dyn Names) {
        match (&mut self.tree, &self.inputs) {
            (Some(tree), _) => {
                names.reference(tree, &["clone", "patch", "compile", "fetch", "save"], Want::One)
            }
            (None, Some(_)) => {}
            (None, None) => {
                let hint = "write `tree = …`, or `inputs = [\"src/**\"]` for files of the project";
                let message = format!("`{}` has neither `tree` nor `inputs`", names.task());
                names.mistake(names.place(), message, Some(hint.into()));
            }
        }
        for glob in self.inputs.iter().flatten().chain(&self.incremental) {
            if let Err(why) = Globs::new(&[glob.as_str()]) {
                names.mistake(glob.range(), why, None);
            }
        }
        for placement in &mut self.files {
            placement.resolve(names);
        }
        for path in self.outputs.iter().chain(&self.dir).chain(self.keep.values()) {
            names.contained(path);
        }
        let outputs: Vec<String> = self.outputs.iter().map(|path| plain(path)).collect();
        for (i, path) in outputs.iter().enumerate() {
            let inside = |other: &String| *path == *other || path.starts_with(&format!("{other}/"));
            if let Some(other) =
                outputs[..i].iter().find(|other| inside(other) || other.starts_with(&format!("{path}/")))
            {
                let message =
                    format!("the output `{path}` is declared twice: it is, or lies in, `{other}`");
                names.mistake(self.outputs[i].range(), message, None);
            }
        }
        if let Some(timeout) = &self.timeout
            && duration(timeout).is_none()
        {
            let hint = Some("for example `90s`, `30m` or `2h`".to_string());
            names.mistake(timeout.range(), format!("`{}` is not a time", timeout.value), hint);
        }
        if self.run.is_empty() || self.run.iter().any(|argv| argv.first().is_none_or(String::is_empty)) {
            names.mistake(names.place(), format!("`{}` has no command to run", names.task()), None);
        }
        if self.outputs.is_empty() {
            names.mistake(names.place(), format!("`{}` has no `outputs`", names.task()), None);
        }
        for (name, value) in self.env.iter().chain(&self.keep) {
            if compile_run::FIXED.contains(&name.as_str()) {
                names.mistake(value.range(), format!("the variable `{name}` is set by vcbuild"), None);
            }
        }
        self.resolve_host(names);
    }

    fn outputs(&self) -> Outputs {
        Outputs::Named(self.outputs.iter().map(|path| plain(path)).collect())
    }
}

/// A relative path without `./`, `//` and a slash at the end.
fn plain(path: &str) -> String {
    let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty() && *name != ".").collect();
    names.join("/")
}

/// A time with its unit: `ms`, `s`, `m` or `h`.
pub fn duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text[..digits].parse().ok()?;
    match &text[digits..] {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_secs(number.checked_mul(60)?)),
        "h" => Some(Duration::from_secs(number.checked_mul(3600)?)),
        _ => None,
    }
}

impl Task for Compile {
    fn class(&self) -> Class {
        Class::Action
    }

    fn needs(&self) -> Vec<TaskName> {
        let mut all: Vec<TaskName> = self.tree.iter().flat_map(Reference::tasks).cloned().collect();
        all.extend(self.files.iter().flat_map(Placement::needs).cloned());
        all.sort();
        all.dedup();
        all
    }

    fn work(&self, inputs: &Inputs<'_>) -> Result<Work> {
        let text = |name: &str| inputs.variable(name).map(|value| value.to_string_lossy().into_owned());
        let pass_env = self.pass_env.iter().map(|name| (name.value.clone(), text(name))).collect();
        let mut locate = BTreeMap::new();
        for name in &self.locate_env {
            // In no key, but the tools may say something else of themselves.
            if let Some(value) = inputs.variable(name) {
                locate.insert(name.value.clone(), value.to_os_string());
            }
        }
        let words = |list: &[Placed<String>]| list.iter().map(|word| word.value.clone()).collect();
        let asked = Asked {
            tools: words(&self.tools),
            reads: words(&self.reads),
            packages: words(&self.packages),
            versions: self.version.clone(),
            locate: &locate,
        };
        let facts = match &self.host {
            Some(Host { spec: Some(spec), .. }) if !spec.is_here() => asked.there(spec, inputs)?,
            _ => asked.here(inputs)?,
        };
        let what = What {
            tree: self.input_tree(inputs)?,
            dir: self.dir.as_deref().map(|dir| plain(dir)).unwrap_or_default(),
            run: self.run.clone(),
            outputs: self.outputs.iter().map(|path| plain(path)).collect(),
            env: self.env.iter().map(|(name, value)| (name.clone(), value.value.clone())).collect(),
            pass_env,
            versions: facts.versions,
            tools: facts.tools.iter().map(|tool| (tool.name.clone(), tool.digest)).collect(),
            packages: facts.packages,
            reads: facts.reads,
            incremental: self.incremental.iter().map(|glob| glob.value.clone()).collect(),
        };
        let how = How {
            host: self.host.as_ref().and_then(|host| host.spec.clone()),
            platform: facts.platform,
            tools: facts.tools.into_iter().map(|tool| (tool.name, tool.path)).collect(),
            locate,
            keep: self.keep.iter().map(|(name, folder)| (name.clone(), folder.value.clone())).collect(),
            timeout: self.timeout.as_deref().and_then(|text| duration(text)),
        };
        Ok(Work::Action(Box::new(CompileAction { what, how })))
    }
}

impl Compile {
    /// Finds the host, and what cannot be there.
    fn resolve_host(&mut self, names: &mut dyn Names) {
        let Some(host) = self.host.as_mut().filter(|host| !host.name.is_empty()) else { return };
        let mut found = names.hosts(std::slice::from_ref(&host.name));
        if found.len() > 1 {
            let message =
                format!("`{}` is {} hosts, and a task is compiled on one", *host.name, found.len());
            names.mistake(host.name.range(), message, None);
        }
        host.spec = found.pop();
        if host.spec.as_ref().is_none_or(Spec::is_here) {
            return;
        }
        let relative = |path: &&Placed<String>| !path.starts_with('/');
        let tools = self.tools.iter().filter(|tool| tool.contains('/'));
        for path in tools.chain(&self.reads).filter(relative) {
            let message =
                format!("`{}` is a path of the project, and the commands run on a host", path.value);
            names.mistake(path.range(), message, Some("write an absolute path of that host".into()));
        }
        let named = self.env.iter().chain(&self.keep).map(|(name, value)| (name, value.range()));
        let passed = self.pass_env.iter().chain(&self.locate_env).map(|name| (&name.value, name.range()));
        for (name, place) in named.chain(passed).filter(|(name, _)| !toolbox::is_variable(name)) {
            let message = format!("`{name}` cannot be the name of a variable on a host");
            names.mistake(place, message, Some("letters, digits and `_`".into()));
        }
    }

    fn input_tree(&self, inputs: &Inputs<'_>) -> Result<Digest> {
        let globs = match &self.inputs {
            None => Globs::all(),
            Some(list) => {
                let list: Vec<&str> = list.iter().map(|glob| glob.as_str()).collect();
                Globs::new(&list).map_err(Error::failed)?
            }
        };
        let tree = match &self.tree {
            Some(tree) => read_tree(tree, &globs, inputs)?,
            None => read_folder(".", &globs, inputs)?,
        };
        self.complain_about_empty_globs(inputs, &tree)?;
        if self.files.is_empty() {
            return Ok(tree);
        }
        let mut draft = Draft::of(&inputs.session.cache.cas, tree);
        for placement in &self.files {
            placement.place(inputs, &mut draft)?;
        }
        draft.store()
    }

    /// A plain path among the inputs that names nothing is a slip of the pen.
    fn complain_about_empty_globs(&self, inputs: &Inputs<'_>, tree: &Digest) -> Result<()> {
        let cas = &inputs.session.cache.cas;
        for path in self.inputs.iter().flatten().filter(|path| !glob::is_pattern(path)) {
            if cas.entry(tree, plain(path))?.is_none() {
                let from = match self.tree.as_ref().map(|tree| (&tree.text.value, &tree.to)) {
                    Some((text, To::Tasks(_) | To::Nothing | To::Path(_))) => format!("`{text}`"),
                    None => "the project".to_string(),
                };
                return Err(Error::failed(format!("the input `{}` does not exist in {from}", path.value)));
            }
        }
        if self.inputs.is_some() && cas.node(tree)?.entries.is_empty() {
            return Err(Error::failed("`inputs` takes no file"));
        }
        Ok(())
    }
}

/// What decides the outputs.
#[derive(Serialize)]
pub struct What {
    /// The input tree, with placed files.
    pub tree: Digest,
    /// Where the commands run, from the root of the tree.
    pub dir: String,
    /// The commands.
    pub run: Vec<Vec<String>>,
    /// What they make, from `dir`.
    pub outputs: Vec<String>,
    /// Variables as declared.
    pub env: BTreeMap<String, String>,
    /// Variables from outside.
    pub pass_env: BTreeMap<String, Option<String>>,
    /// What tools say of themselves.
    pub versions: Vec<String>,
    /// The programs by name.
    pub tools: BTreeMap<String, Digest>,
    /// Installed versions.
    pub packages: BTreeMap<String, String>,
    /// Files outside the project.
    pub reads: BTreeMap<String, Digest>,
    /// What a run may leave for the next one.
    pub incremental: Vec<String>,
}

/// What does not.
pub struct How {
    /// The host that the commands run on, if it is not this machine.
    pub host: Option<Spec>,
    /// What that is.
    pub platform: String,
    /// Where the tools are.
    pub tools: Vec<(String, PathBuf)>,
    /// Variables that say where a tool lives.
    pub locate: BTreeMap<String, std::ffi::OsString>,
    /// Folders that outlive runs: variable and name.
    pub keep: Vec<(String, String)>,
    /// How long all commands together may take.
    pub timeout: Option<Duration>,
}

/// Running the commands.
pub struct CompileAction {
    /// What decides the outputs.
    pub what: What,
    /// What does not.
    pub how: How,
}

impl Action for CompileAction {
    fn kind(&self) -> &'static str {
        "compile"
    }

    fn platform(&self) -> &str {
        &self.how.platform
    }

    fn revision(&self) -> u32 {
        1
    }

    fn what(&self) -> serde_json::Value {
        serde_json::json!(self.what)
    }

    fn run(&self, context: &Context<'_>) -> Result<Digest> {
        match &self.how.host {
            Some(spec) if !spec.is_here() => compile_there::run(self, spec, context),
            _ => compile_run::run(self, context),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(duration("90s"), Some(Duration::from_secs(90)));
        assert_eq!(duration("2h"), Some(Duration::from_secs(7200)));
        for wrong in ["", "5", "m", "1.5h", "-1s", "99999999999999999999h"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }
}
