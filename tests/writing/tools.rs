//! Other people's programs that read images, each in a folder of its own: what one leaves behind, no
//! other test sees.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Runs a program; what it printed. Fails where it is missing or fails.
#[track_caller]
pub fn tool(folder: &Path, command: &str) -> String {
    let output = tried(folder, command);
    let error = String::from_utf8_lossy(&output.stderr);
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command}: {out}{error}");
    out
}

/// Runs a program that may fail.
#[track_caller]
pub fn tried(folder: &Path, command: &str) -> Output {
    let words: Vec<&str> = command.split_whitespace().collect();
    Command::new(words[0])
        .args(&words[1..])
        .current_dir(folder)
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}: `tests/run` installs it", words[0]))
}

/// The program `crane`, which `tests/run` builds.
pub fn crane() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/crane");
    assert!(path.exists(), "`{}` is missing: `tests/run` builds it", path.display());
    path
}

/// A containerd of its own: folders, socket, and nothing of the system's.
pub struct Containerd {
    folder: tempfile::TempDir,
    child: Child,
}

impl Containerd {
    /// Starts it and waits until it answers.
    pub fn start() -> Self {
        assert_eq!(tool(Path::new("/"), "id -u"), "0\n", "containers are started by root");
        // Sockets have short paths.
        let folder = tempfile::Builder::new().prefix("vcb").tempdir_in("/tmp").unwrap();
        let at = folder.path().display();
        let config = format!(
            "version = 2\nroot = '{at}/root'\nstate = '{at}/state'\ndisabled_plugins = ['io.containerd.grpc.v1.cri']\n[grpc]\naddress = '{at}/sock'\n"
        );
        fs::write(folder.path().join("config.toml"), config).unwrap();
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "--", "containerd", "--config"])
            .arg(folder.path().join("config.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("containerd: `tests/run` installs it");
        let server = Self { folder, child };
        let end = Instant::now() + Duration::from_secs(20);
        while !tried(Path::new("/"), &server.command("version")).status.success() {
            let said = fs::read_to_string(server.folder.path().join("log")).unwrap();
            assert!(Instant::now() < end, "containerd does not answer: {said}");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    fn command(&self, rest: &str) -> String {
        format!("ctr -a {}/sock -n test {rest}", self.folder.path().display())
    }

    /// Calls `ctr`.
    #[track_caller]
    pub fn ctr(&self, folder: &Path, rest: &str) -> String {
        tool(folder, &self.command(rest))
    }

    /// What a container of an image prints.
    #[track_caller]
    pub fn run(&self, image: &str) -> String {
        let run = format!("run --rm --snapshotter native --runc-binary runc {image} one");
        self.ctr(Path::new("/"), &run)
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

/// A podman with a storage of its own.
pub struct Podman(tempfile::TempDir);

impl Podman {
    /// An empty one.
    pub fn new() -> Self {
        Self(tempfile::Builder::new().prefix("vcb").tempdir_in("/tmp").unwrap())
    }

    /// Calls it.
    #[track_caller]
    pub fn call(&self, folder: &Path, rest: &str) -> String {
        let at = self.0.path().display();
        let own =
            format!("--root {at}/root --runroot {at}/run --storage-driver vfs --cgroup-manager cgroupfs");
        tool(folder, &format!("podman {own} --events-backend none {rest}"))
    }

    /// What a container of an image prints.
    #[track_caller]
    pub fn run(&self, image: &str) -> String {
        // Limits as they are: raising them takes a capability that not every root has.
        let limits = "--ulimit nofile=1024:1024 --ulimit nproc=1024:1024";
        self.call(Path::new("/"), &format!("run --rm --network none --runtime runc {limits} {image}"))
    }
}
