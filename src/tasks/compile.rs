//! `compile`: commands over a tree give files. What decides the bytes is in the key; the running itself
//! is in `compile_run`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::compile_run;
use super::names::{Declare, Names, Outputs, Placed, Reference, To, Want};
use super::patch::{read_folder, read_tree};
use super::placement::Placement;
use crate::cache::draft::Draft;
use crate::digest::Digest;
use crate::error::{Error, Failure, Result};
use crate::glob::{self, Globs};
use crate::host::process::{self, Command, Exit};
use crate::host::stop::Stop;
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
        let tools = self.tools.iter().map(|name| find_tool(name, inputs)).collect::<Result<Vec<_>>>()?;
        let mut reads = BTreeMap::new();
        for path in &self.reads {
            let full = inputs.session.local.root().join(path.as_str());
            let found = inputs.look(|local, stamps, seen| local.outside(&full, stamps, seen))?;
            let (blob, _) =
                found.ok_or_else(|| Error::failed(format!("`{}` does not exist", path.value)))?;
            reads.insert(path.value.clone(), blob.digest);
        }
        let text = |name: &str| inputs.variable(name).map(|value| value.to_string_lossy().into_owned());
        let pass_env = self.pass_env.iter().map(|name| (name.value.clone(), text(name))).collect();
        let mut locate = BTreeMap::new();
        for name in &self.locate_env {
            // In no key, but the tools may say something else of themselves.
            if let Some(value) = inputs.variable(name) {
                locate.insert(name.value.clone(), value.to_os_string());
            }
        }
        let how = How {
            tools: tools.iter().map(|tool| (tool.name.clone(), tool.path.clone())).collect(),
            locate,
            keep: self.keep.iter().map(|(name, folder)| (name.clone(), folder.value.clone())).collect(),
            timeout: self.timeout.as_deref().and_then(|text| duration(text)),
        };
        let what = What {
            tree: self.input_tree(inputs)?,
            dir: self.dir.as_deref().map(|dir| plain(dir)).unwrap_or_default(),
            run: self.run.clone(),
            outputs: self.outputs.iter().map(|path| plain(path)).collect(),
            env: self.env.iter().map(|(name, value)| (name.clone(), value.value.clone())).collect(),
            pass_env,
            versions: self.version.iter().map(|argv| version(argv, &how, inputs)).collect::<Result<_>>()?,
            tools: tools.into_iter().map(|tool| (tool.name, tool.digest)).collect(),
            packages: packages(&self.packages, inputs)?,
            reads,
            incremental: self.incremental.iter().map(|glob| glob.value.clone()).collect(),
        };
        Ok(Work::Action(Box::new(CompileAction { what, how })))
    }
}

impl Compile {
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

struct Tool {
    name: String,
    path: PathBuf,
    digest: Digest,
}

/// The program behind a name in the user's PATH, or behind an absolute path. The places before it,
/// where it might appear, are noted too.
fn find_tool(text: &str, inputs: &Inputs<'_>) -> Result<Tool> {
    use std::os::unix::ffi::OsStrExt;
    let name =
        Path::new(text).file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let at = |path: &Path| -> Result<Option<Tool>> {
        let found = inputs.look(|local, stamps, seen| match local.outside(path, stamps, seen) {
            // A folder of that name is not the program.
            Err(Error::Failed(_)) => Ok(None),
            other => other,
        })?;
        let executable = found.filter(|(_, mode)| mode & 0o111 != 0);
        Ok(executable.map(|(blob, _)| Tool {
            name: name.clone(),
            path: path.to_path_buf(),
            digest: blob.digest,
        }))
    };
    let missing = || Failure::new(format!("the tool `{text}` is not there"));
    if text.contains('/') {
        let path = inputs.session.local.root().join(text);
        return at(&path)?.ok_or_else(|| missing().into());
    }
    let path = inputs.variable("PATH").map(|path| path.as_bytes().to_vec()).unwrap_or_default();
    for folder in path.split(|&byte| byte == b':').filter(|folder| folder.starts_with(b"/")) {
        let folder = Path::new(std::ffi::OsStr::from_bytes(folder));
        if let Some(tool) = at(&folder.join(text))? {
            return Ok(tool);
        }
    }
    Err(missing().hint(format!("install it, or put it in PATH: `command -v {text}` must find it")).into())
}

/// What a command says of its version. It may say something else when nothing that was looked at has changed,
/// so the next run asks again.
fn version(argv: &[String], how: &How, inputs: &Inputs<'_>) -> Result<String> {
    let named = argv.first().and_then(|name| how.tools.iter().find(|(tool, _)| tool == name));
    let Some((_, program)) = named else {
        let shown = argv.join(" ");
        let failure = Failure::new(format!("`version` calls `{shown}`, whose program is not in `tools`"));
        return Err(failure.into());
    };
    let text = |text: &std::ffi::OsStr| text.to_string_lossy().into_owned();
    let locate = how.locate.iter().map(|(name, value)| (name.clone(), text(value))).collect();
    let ask = Version { program: text(program.as_os_str()), argv: argv.to_vec(), locate };
    let said = ask.ask(inputs.session.stop)?;
    inputs.saw_remote(serde_json::json!({ "version": ask, "said": Digest::of(said.as_bytes()) }));
    Ok(said)
}

/// A question for a version.
#[derive(Serialize, Deserialize)]
struct Version {
    program: String,
    argv: Vec<String>,
    locate: BTreeMap<String, String>,
}

impl Version {
    fn ask(&self, stop: &Stop) -> Result<String> {
        let mut argv: Vec<std::ffi::OsString> = self.argv.iter().map(Into::into).collect();
        argv[0] = (&self.program).into();
        let mut env = vec![("PATH".into(), "/usr/bin:/bin".into()), ("HOME".into(), "/nonexistent".into())];
        env.extend(self.locate.iter().map(|(name, value)| (name.into(), value.into())));
        let timeout = Some(Duration::from_secs(60));
        let command = Command { argv, dir: "/".into(), env, timeout };
        let done = process::capture(&command, 1 << 20, stop)?;
        match done.exit {
            Exit::Code(0) => Ok(String::from_utf8_lossy(&done.stdout).into_owned()),
            exit => {
                let said =
                    String::from_utf8_lossy(&done.stderr).lines().map(str::to_string).collect::<Vec<_>>();
                let shown = self.argv.join(" ");
                Err(Failure::new(format!("`{shown}` did not say its version: {exit}")).detail(said).into())
            }
        }
    }
}

/// Whether a tool still says what it said of its version; nothing if what was seen is no version.
pub fn still(seen: &serde_json::Value, stop: &Stop) -> Option<bool> {
    let ask = Version::deserialize(seen.get("version")?).ok()?;
    let said = ask.ask(stop).ok().map(|said| Digest::of(said.as_bytes()).to_string());
    Some(said.as_deref() == seen["said"].as_str())
}

/// The installed versions of Debian packages, from dpkg's own list.
fn packages(names: &[Placed<String>], inputs: &Inputs<'_>) -> Result<BTreeMap<String, String>> {
    if names.is_empty() {
        return Ok(BTreeMap::new());
    }
    let status = Path::new("/var/lib/dpkg/status");
    let none = || Error::failed("`packages` needs dpkg's list `/var/lib/dpkg/status`, and there is none");
    inputs.look(|local, stamps, seen| local.outside(status, stamps, seen))?.ok_or_else(none)?;
    let text = crate::host::fs::read(status, 256 << 20)?.ok_or_else(none)?;
    let text = String::from_utf8_lossy(&text);
    let mut found = BTreeMap::new();
    for paragraph in text.split("\n\n") {
        let field = |name: &str| {
            let line = paragraph.lines().find(|line| line.starts_with(name))?;
            Some(line[name.len()..].trim())
        };
        let installed = field("Status:").is_some_and(|status| status.ends_with(" installed"));
        if let (true, Some(name), Some(version)) = (installed, field("Package:"), field("Version:"))
            && names.iter().any(|wanted| wanted.value == name)
        {
            let architecture = field("Architecture:").unwrap_or_default();
            found.insert(format!("{name}:{architecture}"), version.to_string());
        }
    }
    for name in names {
        if !found.keys().any(|known| known.split(':').next() == Some(name)) {
            let failure = Failure::new(format!("the package `{}` is not installed", name.value));
            return Err(failure.hint(format!("apt-get install {}", name.value)).into());
        }
    }
    Ok(found)
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

    fn revision(&self) -> u32 {
        1
    }

    fn what(&self) -> serde_json::Value {
        serde_json::json!(self.what)
    }

    fn run(&self, context: &Context<'_>) -> Result<Digest> {
        compile_run::run(self, context)
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
