//! Where the project is, what its cache and its variables are; and loading it, when that is needed.
//! Knows no verb.

use std::path::{Path, PathBuf};

use super::{Global, Halt};
use crate::cache::Cache;
use crate::cache::local::{Fact, Local, Look};
use crate::config;
use crate::config::vars::{Overrides, Variable};
use crate::digest::{Digest, Hasher};
use crate::error::{At, Error, Mistake, Source};
use crate::graph::Graph;
use crate::host::fs;
use crate::host::ssh::Links;
use crate::pins::{self, Pins};
use crate::work::Env;

/// The name of the configuration.
pub const CONFIG: &str = "vcbuild.toml";

/// The place of a project, before anything of it is read.
pub struct Place {
    /// The project folder, absolute.
    pub root: PathBuf,
    /// The cache folder.
    cache: PathBuf,
    /// The environment.
    pub env: Env,
    /// Connections to hosts.
    pub links: Links,
    files: Vec<PathBuf>,
    set: Vec<String>,
    profile: Option<String>,
}

/// A project that was read.
pub struct Project {
    /// Its tasks.
    pub graph: Graph,
    /// Its variables.
    pub variables: Vec<Variable>,
    /// Its files.
    pub local: Local,
    /// Its pins.
    pub pins: Pins,
}

/// A configuration as it is written, not yet read.
pub struct Written {
    /// The text.
    pub text: String,
    overrides: Overrides,
    lock: String,
    /// Of all of them.
    pub sum: Digest,
}

impl Place {
    /// Finds the project.
    #[expect(clippy::disallowed_methods, reason = "the one place that knows where it was called")]
    pub fn find(global: &Global, env: Env) -> Result<Self, Halt> {
        let here = std::env::current_dir().at("find", Path::new("."))?;
        let root = match &global.dir {
            Some(dir) => {
                let dir = here.join(dir);
                if !dir.join(CONFIG).is_file() {
                    let message = format!("there is no `{CONFIG}` in `{}`", dir.display());
                    return Err(Mistake::new(message).into());
                }
                dir
            }
            None => {
                let found = here.ancestors().find(|dir| dir.join(CONFIG).is_file());
                let none = || {
                    let message = format!("there is no `{CONFIG}` here or above");
                    Mistake::new(message).hint(
                        "go to a project, name one with `--dir DIR`, or start one with `vcbuild init`",
                    )
                };
                found.ok_or_else(none)?.to_path_buf()
            }
        };
        let root = root.canonicalize().at("find", &root)?;
        let cache = match &global.cache {
            Some(cache) => here.join(cache),
            None => root.join("cache"),
        };
        let files = global.vars.iter().map(|file| here.join(file)).collect();
        let links = Links::new(env.0.clone());
        Ok(Self {
            root,
            cache,
            env,
            links,
            files,
            set: global.set.clone(),
            profile: global.profile.clone(),
        })
    }

    /// Opens the cache.
    pub fn cache(&self) -> Result<Cache, Halt> {
        Ok(Cache::open(&self.cache)?)
    }

    /// Text that tells two ways to read the same project apart.
    pub fn flags(&self) -> String {
        format!("{:?} {:?} {:?} {:?}", self.files, self.set, self.profile, env!("CARGO_PKG_VERSION"))
    }

    /// What all tasks depend on: the configuration, the lock, files of variables, this program.
    pub fn common(&self) -> Vec<Fact> {
        use std::os::unix::ffi::OsStrExt;
        let own = [self.root.join(CONFIG), self.root.join(pins::NAME), PathBuf::from("/proc/self/exe")];
        let fact = |path: &PathBuf| Fact {
            path: path.as_os_str().as_bytes().to_vec(),
            look: Look::Target,
            stamp: fs::status(path, fs::Links::Follow).ok().flatten().map(|status| status.stamp),
        };
        own.iter().chain(&self.files).map(fact).collect()
    }

    /// Reads the configuration alone.
    pub fn config(&self) -> Result<config::Config, Halt> {
        let written = self.read()?;
        Ok(config::load(Source { name: CONFIG.into(), text: written.text }, &written.overrides)?)
    }

    /// Reads the configuration and the lock.
    pub fn load(&self) -> Result<Project, Halt> {
        let written = self.read()?;
        self.project(&written, written.text.clone())
    }

    /// The project of a configuration, whose text is `text`, and of its lock.
    pub fn project(&self, written: &Written, text: String) -> Result<Project, Halt> {
        let project = self.project_of(written, text, Pins::default())?;
        let pins = Pins::parse(&written.lock)?;
        Ok(Project { pins, ..project })
    }

    /// The project of a configuration, whose text is `text`, and of other pins than those of the lock.
    pub fn project_of(&self, written: &Written, text: String, pins: Pins) -> Result<Project, Halt> {
        let config = config::load(Source { name: CONFIG.into(), text }, &written.overrides)?;
        let variables = config.variables.clone();
        self.links.set_parallel(config.parallel_hosts);
        self.links.set_limit(config.limit);
        let mut never: Vec<PathBuf> = config.embedded.iter().map(|path| self.root.join(path)).collect();
        never.push(self.cache.canonicalize().unwrap_or_else(|_| self.cache.clone()));
        let graph = Graph::new(config)?;
        Ok(Project { graph, variables, local: Local::new(self.root.clone(), never), pins })
    }

    /// Reads the text of the configuration and of the lock, and what is set from outside.
    pub fn read(&self) -> Result<Written, Halt> {
        let path = self.root.join(CONFIG);
        let bytes =
            fs::read(&path, 256 << 20)?.ok_or_else(|| Error::failed(format!("`{CONFIG}` is gone")))?;
        let text = String::from_utf8(bytes)
            .map_err(|error| Mistake::new(format!("`{CONFIG}` is not UTF-8: {}", error.utf8_error())))?;
        let (overrides, lock) = (self.overrides()?, Pins::text(&self.root)?);
        let mut hasher = Hasher::blake3();
        for part in [text.as_str(), &lock, &format!("{overrides:?}")] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        Ok(Written { text, overrides, lock, sum: hasher.finish() })
    }

    fn overrides(&self) -> Result<Overrides, Halt> {
        let mut overrides = Overrides { profile: self.profile.clone(), ..Overrides::default() };
        for text in &self.set {
            let wrong = || Mistake::new(format!("`--set {text}` is not `NAME=VALUE`"));
            let (name, value) = text.split_once('=').ok_or_else(wrong)?;
            overrides.set.push((name.to_string(), value.to_string()));
        }
        for path in &self.files {
            let name = path.display().to_string();
            let missing = || Mistake::new(format!("the file of variables `{name}` does not exist"));
            let bytes = fs::read(path, 64 << 20)?.ok_or_else(missing)?;
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let wrong = |why: String| Mistake::new(format!("the file of variables `{name}`: {why}"));
            let values = if path.extension().is_some_and(|extension| extension == "toml") {
                let parsed: toml::Table =
                    toml::from_str(&text).map_err(|error| wrong(error.message().into()))?;
                serde_json::to_value(parsed).unwrap_or_default()
            } else {
                serde_saphyr::from_str(&text).map_err(|error| {
                    let words = error.to_string();
                    let first = words.lines().next().unwrap_or_default();
                    wrong(first.trim_start_matches("error: ").to_string())
                })?
            };
            let serde_json::Value::Object(values) = values else {
                return Err(wrong("it must hold names and values".into()).into());
            };
            overrides.files.push((name, values));
        }
        Ok(overrides)
    }
}
