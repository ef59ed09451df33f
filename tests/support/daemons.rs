//! Docker's daemon, Podman's service in its place, and containerd: real ones, with everything of theirs in a folder.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A daemon behind a socket.
pub struct Daemon {
    child: Child,
    folder: PathBuf,
}

impl Daemon {
    fn start(mut command: Command, folder: &Path) -> Self {
        let log = fs::File::create(folder.join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn().expect("it is not installed: `tests/run` does that");
        let daemon = Self { child, folder: folder.to_path_buf() };
        let end = Instant::now() + Duration::from_secs(30);
        while UnixStream::connect(daemon.socket()).is_err() {
            let said = || fs::read_to_string(folder.join("log")).unwrap_or_default();
            assert!(Instant::now() < end, "it does not listen: {}", said());
            std::thread::sleep(Duration::from_millis(10));
        }
        daemon
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("socket")
    }

    /// Its socket, as `DOCKER_HOST` has it.
    pub fn address(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Runs podman on its images.
    pub fn podman(&self, arguments: &[&str]) -> String {
        output(podman(&self.folder).args(arguments))
    }

    /// Runs docker on its images.
    pub fn docker(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(format!("{DOCKER}/bin/docker"));
        output(command.env("DOCKER_HOST", self.address()).env("HOME", &self.folder).args(arguments))
    }

    /// Runs ctr on its images.
    pub fn ctr(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("ctr");
        command.args(["-n", "k8s.io", "--address"]).arg(self.socket());
        output(command.args(arguments))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let end = Instant::now() + Duration::from_secs(5);
        while self.child.try_wait().is_ok_and(|ended| ended.is_none()) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn podman(folder: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "podman", "--storage-driver=vfs"]);
    for part in ["root", "runroot", "tmpdir"] {
        command.arg(format!("--{part}")).arg(folder.join(part));
    }
    command
}

/// Podman's service.
pub fn podman_service(folder: &Path) -> Daemon {
    fs::create_dir_all(folder).unwrap();
    let mut command = podman(folder);
    command.args(["system", "service", "--time=0"]);
    command.arg(format!("unix://{}", folder.join("socket").display()));
    Daemon::start(command, folder)
}

const DOCKER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools/docker/usr");

/// Docker's daemon, with a containerd of its own, in namespaces of its own.
pub fn dockerd(folder: &Path) -> Daemon {
    fs::create_dir_all(folder).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "unshare", "--mount", "--pid", "--net", "--fork"]);
    command.args(["--mount-proc", "--kill-child=KILL", "sh", "-ec"]);
    command.arg(
        "mount -t tmpfs tmpfs /run\n\
         exec \"$1/sbin/dockerd\" --iptables=false --ip6tables=false --bridge=none --storage-driver=vfs \
         --data-root \"$2/data\" --exec-root /run/docker --pidfile /run/docker.pid -H \"unix://$2/socket\"",
    );
    Daemon::start(
        {
            command.args(["dockerd", DOCKER]).arg(folder);
            command
        },
        folder,
    )
}

/// containerd.
pub fn containerd(folder: &Path) -> Daemon {
    fs::create_dir_all(folder).unwrap();
    let config = folder.join("config.toml");
    let text = format!(
        "version = 2\nroot = \"{0}/root\"\nstate = \"{0}/state\"\n\
         disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = \"{0}/socket\"\n",
        folder.display()
    );
    fs::write(&config, text).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "containerd", "--config"]).arg(config);
    Daemon::start(command, folder)
}
