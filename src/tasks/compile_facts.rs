//! What the machine that compiles has to do with the bytes: its platform, the content of tools and files, what
//! tools say of their version, installed packages; of this machine, or of a host by one question. Runs nothing else.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::shipping::{self, Told};
use crate::cache::stamps::Algorithm;
use crate::digest::Digest;
use crate::error::{Error, Failure, Result};
use crate::host::machine;
use crate::host::node::{At, Spec, Trouble, Watch};
use crate::host::process::{self, Command, Exit};
use crate::host::ssh::toolbox::{Answer, Question};
use crate::host::ssh::{Links, Remote};
use crate::host::stop::Stop;
use crate::work::{Inputs, Reach};

/// What a task asks of a machine.
pub struct Asked<'a> {
    /// Programs, by name or path.
    pub tools: Vec<String>,
    /// Files.
    pub reads: Vec<String>,
    /// Debian packages.
    pub packages: Vec<String>,
    /// Calls of tools.
    pub versions: Vec<Vec<String>>,
    /// Variables for those calls.
    pub locate: &'a BTreeMap<String, OsString>,
}

/// What a machine says.
pub struct Facts {
    /// The machine, as images name it.
    pub platform: String,
    /// The programs.
    pub tools: Vec<Tool>,
    /// What programs say of themselves.
    pub versions: Vec<String>,
    /// Installed versions.
    pub packages: BTreeMap<String, String>,
    /// Files, by path.
    pub reads: BTreeMap<String, Digest>,
}

/// A program. Its content is named by SHA-256, which every machine can tell.
pub struct Tool {
    /// What commands call it.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// Its content.
    pub digest: Digest,
}

/// What commands call a tool.
fn name(text: &str) -> String {
    Path::new(text).file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn unnamed(argv: &[String]) -> Error {
    Error::failed(format!("`version` calls `{}`, whose program is not in `tools`", argv.join(" ")))
}

impl Asked<'_> {
    /// Asks this machine.
    pub fn here(self, inputs: &Inputs<'_>) -> Result<Facts> {
        let tools = self.tools.iter().map(|text| find_tool(text, inputs)).collect::<Result<Vec<_>>>()?;
        let mut reads = BTreeMap::new();
        for path in self.reads {
            let full = inputs.session.local.root().join(&path);
            let (blob, _) = look(&full, inputs)?.ok_or_else(|| no_file(&path, None))?;
            reads.insert(path, blob.digest);
        }
        let version = |argv: &Vec<String>| version(argv, &tools, self.locate, inputs);
        Ok(Facts {
            platform: machine::here().to_string(),
            versions: self.versions.iter().map(version).collect::<Result<_>>()?,
            packages: packages_here(&self.packages, inputs)?,
            reads,
            tools,
        })
    }

    /// Asks a host. It may say something else the next time, and is asked again by the next run.
    pub fn there(self, spec: &Spec, inputs: &Inputs<'_>) -> Result<Facts> {
        let session = inputs.session;
        shipping::allowed(spec, session.network)?;
        let mut versions = Vec::new();
        for argv in &self.versions {
            let tool =
                argv.first().and_then(|program| self.tools.iter().find(|text| name(text) == *program));
            let tool = tool.ok_or_else(|| unnamed(argv))?;
            versions.push([std::slice::from_ref(tool), &argv[1..]].concat());
        }
        let text =
            |(name, value): (&String, &OsString)| (name.clone(), value.to_string_lossy().into_owned());
        let question = Question {
            tools: self.tools,
            reads: self.reads,
            packages: self.packages,
            // Without the program there is nothing to call, and that is said first.
            versions,
            env: self.locate.iter().map(text).collect(),
        };
        let watch = Told::source(&spec.name, session.stop, inputs.tell, None);
        let answer = ask(spec, &question, session.local.root(), session.links, &watch)
            .map_err(|trouble| shipping::failed(&spec.name, trouble))?;
        inputs.saw_remote(fact(spec, &question, &answer));
        let mut tools = Vec::new();
        for (text, found) in question.tools.iter().zip(answer.tools) {
            let (path, digest) = found.ok_or_else(|| no_tool(text, &spec.name, &answer.path))?;
            tools.push(Tool { name: name(text), path: path.into(), digest });
        }
        let mut reads = BTreeMap::new();
        for (path, found) in question.reads.iter().zip(answer.reads) {
            reads.insert(path.clone(), found.ok_or_else(|| no_file(path, Some(&spec.name)))?);
        }
        let packages = match answer.packages {
            _ if question.packages.is_empty() => BTreeMap::new(),
            Some(text) => read_packages(&question.packages, &text, Some(&spec.name))?,
            None => return Err(no_packages(Some(&spec.name))),
        };
        Ok(Facts { platform: answer.platform, tools, versions: answer.versions, packages, reads })
    }
}

fn no_file(path: &str, host: Option<&str>) -> Error {
    match host {
        None => Error::failed(format!("`{path}` does not exist")),
        Some(host) => Error::failed(format!("there is no file `{path}` on `{host}`, or it cannot be read")),
    }
}

fn no_tool(text: &str, host: &str, path: &str) -> Error {
    let failure = Failure::new(format!("the tool `{text}` is not on `{host}`"));
    if text.contains('/') {
        return failure.hint("install it there").into();
    }
    let hint = format!("install it there, or write where it is: `tools = [\"/…/{text}\"]`");
    failure.detail([format!("looked in {path}")]).hint(hint).into()
}

fn look(path: &Path, inputs: &Inputs<'_>) -> Result<Option<(crate::digest::Blob, u32)>> {
    inputs.look(|local, stamps, seen| local.outside(path, Algorithm::Sha256, stamps, seen))
}

/// The program behind a name in the user's PATH, or behind an absolute path. The places before it,
/// where it might appear, are noted too.
fn find_tool(text: &str, inputs: &Inputs<'_>) -> Result<Tool> {
    use std::os::unix::ffi::OsStrExt;
    let at = |path: &Path| -> Result<Option<Tool>> {
        let found = match look(path, inputs) {
            // A folder of that name is not the program.
            Err(Error::Failed(_)) => None,
            other => other?,
        };
        let executable = found.filter(|(_, mode)| mode & 0o111 != 0);
        Ok(executable.map(|(blob, _)| Tool {
            name: name(text),
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
fn version(
    argv: &[String],
    tools: &[Tool],
    locate: &BTreeMap<String, OsString>,
    inputs: &Inputs<'_>,
) -> Result<String> {
    let named = argv.first().and_then(|name| tools.iter().find(|tool| tool.name == *name));
    let tool = named.ok_or_else(|| unnamed(argv))?;
    let text = |text: &std::ffi::OsStr| text.to_string_lossy().into_owned();
    let locate = locate.iter().map(|(name, value)| (name.clone(), text(value))).collect();
    let ask = Version { program: text(tool.path.as_os_str()), argv: argv.to_vec(), locate };
    let said = ask.ask(inputs.session.stop)?;
    inputs.saw_remote(json!({ "version": ask, "said": Digest::of(said.as_bytes()) }));
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

fn no_packages(host: Option<&str>) -> Error {
    let place = host.map(|host| format!(" on `{host}`")).unwrap_or_default();
    Error::failed(format!("`packages` needs dpkg's list `/var/lib/dpkg/status`, and there is none{place}"))
}

/// The installed versions of Debian packages, from dpkg's own list.
fn packages_here(names: &[String], inputs: &Inputs<'_>) -> Result<BTreeMap<String, String>> {
    if names.is_empty() {
        return Ok(BTreeMap::new());
    }
    let status = Path::new("/var/lib/dpkg/status");
    look(status, inputs)?.ok_or_else(|| no_packages(None))?;
    let text = crate::host::fs::read(status, 256 << 20)?.ok_or_else(|| no_packages(None))?;
    read_packages(names, &String::from_utf8_lossy(&text), None)
}

fn read_packages(names: &[String], text: &str, host: Option<&str>) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for paragraph in text.split("\n\n") {
        let field = |name: &str| {
            let line = paragraph.lines().find(|line| line.starts_with(name))?;
            Some(line[name.len()..].trim())
        };
        let installed = field("Status:").is_some_and(|status| status.ends_with(" installed"));
        if let (true, Some(name), Some(version)) = (installed, field("Package:"), field("Version:"))
            && names.iter().any(|wanted| wanted == name)
        {
            let architecture = field("Architecture:").unwrap_or_default();
            found.insert(format!("{name}:{architecture}"), version.to_string());
        }
    }
    for name in names {
        if !found.keys().any(|known| known.split(':').next() == Some(name)) {
            let place = host.map(|host| format!(" on `{host}`")).unwrap_or_default();
            let failure = Failure::new(format!("the package `{name}` is not installed{place}"));
            return Err(failure.hint(format!("apt-get install {name}")).into());
        }
    }
    Ok(found)
}

fn ask(
    spec: &Spec,
    question: &Question,
    root: &Path,
    links: &Links,
    watch: &dyn Watch,
) -> Result<Answer, Trouble> {
    let At::Ssh(address) = &spec.at else { panic!("BUG: `{}` is this machine", spec.name) };
    let once = || question.ask(&Remote::open(&spec.name, address, root, links, watch)?);
    // It only asks: what was cut off may be asked again.
    match once() {
        Err(Trouble::Cut(_)) => once(),
        done => done,
    }
}

fn fact(spec: &Spec, question: &Question, answer: &Answer) -> Value {
    let said = json!(answer).to_string();
    json!({ "builder": spec, "question": question, "said": Digest::of(said.as_bytes()) })
}

/// Whether what a machine said is still so; nothing if what was seen is nothing of that.
pub fn still(seen: &Value, reach: &Reach<'_>) -> Option<bool> {
    if let Some(ask) = seen.get("version").and_then(|ask| Version::deserialize(ask).ok()) {
        let said = ask.ask(reach.stop).ok().map(|said| Digest::of(said.as_bytes()).to_string());
        return Some(said.as_deref() == seen["said"].as_str());
    }
    let spec = Spec::deserialize(seen.get("builder")?).ok()?;
    let question = Question::deserialize(seen.get("question")?).ok()?;
    if shipping::allowed(&spec, reach.network).is_err() {
        return Some(false);
    }
    let watch = Told::source(&spec.name, reach.stop, reach.tell, None);
    let answer = ask(&spec, &question, reach.root, reach.links, &watch).ok();
    Some(answer.is_some_and(|answer| fact(&spec, &question, &answer) == *seen))
}
