//! A project in a folder of its own, with a cache and an environment of its own, and vcbuild run on it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::done::Done;
use super::folder;

/// A project. Everything of it is gone when it is dropped.
pub struct Project {
    folder: tempfile::TempDir,
    /// Arguments of every call, and variables of its environment.
    options: Vec<String>,
    env: Vec<(String, String)>,
}

impl Project {
    /// An empty folder.
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("vcbuild-").tempdir().unwrap();
        for name in ["project", "home"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        Self { folder, options: Vec::new(), env: Vec::new() }
    }

    /// A copy of what git tracks of `examples/hello`.
    pub fn hello() -> Self {
        let project = Self::new();
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/hello");
        for name in folder::files(&example) {
            let top = name.iter().next().unwrap().to_str().unwrap();
            if ["cache", "nodes", "out"].contains(&top) {
                continue;
            }
            fs::create_dir_all(project.path(&name).parent().unwrap()).unwrap();
            fs::copy(example.join(&name), project.path(&name)).unwrap();
        }
        project.settle();
        project
    }

    /// The project's folder.
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("project")
    }

    /// A folder beside the project's.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A path inside the project.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root().join(path)
    }

    /// A path inside the cache's current version.
    pub fn cache(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root().join("cache/v1").join(path)
    }

    /// Writes `vcbuild.toml`; the `[project]` table is added if there is none.
    pub fn config(self, text: &str) -> Self {
        let head = if text.contains("[project]") { "" } else { "[project]\nname = \"test\"\n" };
        self.file("vcbuild.toml", &format!("{head}{text}"))
    }

    /// Writes a file.
    pub fn file(self, path: &str, text: &str) -> Self {
        self.write(path, text);
        self
    }

    /// Writes a file that may be executed.
    pub fn program(self, path: &str, text: &str) -> Self {
        self.write(path, text);
        fs::set_permissions(self.path(path), fs::Permissions::from_mode(0o755)).unwrap();
        self
    }

    /// Sets a variable of the environment of every call.
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.retain(|(known, _)| known != name);
        self.env.push((name.into(), value.into()));
        self
    }

    /// Adds arguments to every call.
    pub fn options(mut self, options: &str) -> Self {
        self.options.extend(options.split_whitespace().map(String::from));
        self
    }

    /// Writes a file of the project.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// The text of a file of the project.
    pub fn read(&self, path: impl AsRef<Path>) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }

    /// Removes a file or folder of the project.
    pub fn remove(&self, path: &str) {
        let path = self.path(path);
        match path.is_dir() {
            true => fs::remove_dir_all(path).unwrap(),
            false => fs::remove_file(path).unwrap(),
        }
    }

    /// Rewrites a file of the project.
    pub fn edit(&self, path: &str, change: impl FnOnce(&str) -> String) {
        let before = self.read(path);
        let after = change(&before);
        assert_ne!(before, after, "the edit of `{path}` changes nothing");
        self.write(path, &after);
    }

    /// Waits until no stamp is too young to be believed.
    pub fn settle(&self) {
        std::thread::sleep(Duration::from_millis(40));
    }

    /// The command `vcbuild` with arguments, in the project's folder and a clean environment.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vcbuild"));
        command.args(&self.options).args(arguments).current_dir(self.root()).stdin(Stdio::null());
        self.clean(&mut command);
        command
    }

    /// Gives a command the project's environment and nothing else.
    pub fn clean(&self, command: &mut Command) {
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", self.beside("home"));
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
    }

    /// Runs `vcbuild` with arguments separated by spaces.
    #[must_use = "say what should have come of it"]
    pub fn call(&self, arguments: &str) -> Done<'_> {
        self.call_list(&arguments.split_whitespace().collect::<Vec<_>>())
    }

    /// Runs `vcbuild` with arguments.
    #[must_use = "say what should have come of it"]
    pub fn call_list(&self, arguments: &[&str]) -> Done<'_> {
        let output = self.command(arguments).output().unwrap();
        Done::new(self, arguments, output)
    }

    /// Runs `vcbuild run` with targets and options separated by spaces, and keeps its events.
    #[must_use = "say what should have come of it"]
    pub fn run(&self, targets: &str) -> Done<'_> {
        let events = self.beside("events.json");
        let events = events.to_str().unwrap();
        let mut arguments = vec!["run", "--events", events];
        arguments.extend(targets.split_whitespace());
        self.call_list(&arguments)
    }
}
