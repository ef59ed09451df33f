//! Machines to ship to, made of namespaces of this one: each has its own sshd with a key of its own, its own
//! users, /run, /srv and containerd. They end with the test, whatever becomes of it.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::Project;

/// How long a node may take to be ready.
const STARTING: Duration = Duration::from_secs(60);

/// A machine.
pub struct Node {
    /// Its name.
    pub name: String,
    folder: tempfile::TempDir,
    /// Where its sshd listens.
    pub port: u16,
    child: Option<Child>,
    kind: Kind,
    /// The size of `/srv`.
    srv: String,
}

/// What runs on a node beside sshd.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    Plain,
    /// Containerd as Debian has it.
    Containerd,
    /// Containerd 2.
    Containerd2,
    /// Containerd as Debian has it, on a disk of 24 MB.
    SmallContainerd,
}

/// Where `tests/run` has put the programs of a Go module beside this file.
pub fn built(module: &str) -> PathBuf {
    use sha2::Digest;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rig").join(module);
    let mut hash = sha2::Sha256::new();
    for name in ["go.mod", "go.sum"] {
        hash.update(fs::read(folder.join(name)).unwrap());
    }
    let digits: String = hash.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let home = || PathBuf::from(std::env::var("HOME").unwrap()).join(".cache/vcbuild-rig");
    let place = std::env::var("VCBUILD_RIG").map_or_else(|_| home(), PathBuf::from);
    let found = place.join(format!("{module}-{digits}"));
    assert!(found.exists(), "`{module}` is not built: `tests/run` does that");
    found
}

fn run(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

fn key(path: &Path) {
    let _ = fs::remove_file(path);
    run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", path.to_str().unwrap()]);
}

impl Node {
    /// Starts a machine.
    pub fn new(name: &str, kind: Kind) -> Self {
        Self::with(name, kind, "1g")
    }

    /// Starts a machine whose `/srv` has a size.
    pub fn with(name: &str, kind: Kind, srv: &str) -> Self {
        for program in ["sshd", "sudo", "unshare", "nsenter"] {
            let found = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"]
                .iter()
                .any(|dir| Path::new(dir).join(program).exists());
            assert!(found, "`{program}` is not installed: `tests/run` does that");
        }
        assert!(rustix::process::geteuid().is_root(), "machines of namespaces need root");
        let folder = tempfile::Builder::new().prefix("vcbuild-node-").tempdir().unwrap();
        // Other users of the node come here, too.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["host", "mine", "stranger"] {
            key(&folder.path().join(name));
        }
        let mut node = Self { name: name.into(), folder, port: 0, child: None, kind, srv: srv.into() };
        node.start();
        node
    }

    /// A file of the node as this machine sees it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts it, or starts it again; what is on its disk stays.
    pub fn start(&mut self) {
        let folder = self.folder.path().to_path_buf();
        if self.port == 0 {
            self.port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        }
        let config = format!(
            "ListenAddress 127.0.0.1\nPort {}\nHostKey {folder}/host\nPidFile none\nUsePAM no\n\
             AuthorizedKeysFile {folder}/mine.pub\nStrictModes no\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n",
            self.port,
            folder = folder.display()
        );
        fs::write(self.path("sshd_config"), config).unwrap();
        let _ = fs::remove_file(self.path("ready"));
        let init = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rig/init.sh");
        let daemon = if self.kind == Kind::Plain { "" } else { "containerd" };
        let other = match self.kind {
            Kind::Containerd2 => built("containerd2").display().to_string(),
            _ => String::new(),
        };
        let disk = if self.kind == Kind::SmallContainerd { "24m" } else { "" };
        let log = fs::File::options().create(true).append(true).open(self.path("init.log")).unwrap();
        // It ends with the thread that started it, whatever becomes of that.
        let child = Command::new("setpriv")
            .args([
                "--pdeathsig",
                "KILL",
                "--",
                "unshare",
                "--mount",
                "--pid",
                "--fork",
                "--mount-proc",
                "--kill-child=KILL",
            ])
            .arg(init)
            .args([folder.to_str().unwrap(), &self.srv, daemon, &other, disk])
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let end = Instant::now() + STARTING;
        while !(self.path("ready").exists() && TcpStream::connect(("127.0.0.1", self.port)).is_ok()) {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            let said = || fs::read_to_string(self.path("init.log")).unwrap_or_default();
            assert!(ended.is_none(), "`{}` does not start: {}", self.name, said());
            assert!(Instant::now() < end, "`{}` is not ready: {}", self.name, said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it as a power cut does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = Command::new("kill").args(["-KILL", &self.init(&child)]).output();
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn init(&self, child: &Child) -> String {
        let id = child.id();
        let text = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        text.split_whitespace().next().unwrap_or("0").to_string()
    }

    /// Runs a script on it, as root, without ssh.
    pub fn exec(&self, script: &str) -> Output {
        let init = self.init(self.child.as_ref().unwrap());
        let mut command = Command::new("nsenter");
        command.args(["-t", &init, "-m", "-p", "--", "sh", "-c", script]).stdin(Stdio::null());
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.output().unwrap()
    }

    /// Runs a script on it that must work; what it prints.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        let output = self.exec(script);
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Kills containerd.
    pub fn stop_containerd(&self) {
        self.sh(&format!("kill -KILL $(cat {})", self.path("containerd.pid").display()));
    }

    /// Starts containerd again.
    pub fn start_containerd(&self) {
        let folder = self.folder.path().display();
        self.sh(&format!(
            "cd {folder}; setsid containerd -c containerd.toml >>containerd.log 2>&1 </dev/null & echo $! >{folder}/containerd.pid; \
             while ! ctr version >/dev/null 2>&1; do sleep 0.05; done"
        ));
    }

    /// Shows the certificate of its key from now on.
    pub fn certify(&self) {
        let config = fs::read_to_string(self.path("sshd_config")).unwrap();
        let line = format!("HostCertificate {}\n", self.path("host-cert.pub").display());
        fs::write(self.path("sshd_config"), config + &line).unwrap();
        self.sh("kill -HUP $(pgrep -o -f 'sshd -D')");
        std::thread::sleep(Duration::from_millis(300));
    }

    /// Gives it another host key, as a machine that was rebuilt has.
    pub fn rebuild(&mut self) {
        self.kill();
        key(&self.path("host"));
        self.start();
    }

    /// The lines of a configuration of ssh for this node, as the user `user` who comes by `port`.
    pub fn client(&self, user: &str, port: u16) -> String {
        format!(
            "Host {}\n  HostName 127.0.0.1\n  Port {port}\n  User {user}\n  IdentityFile {}\n",
            self.name,
            self.path("mine").display()
        )
    }

    /// The line by which ssh knows its key.
    pub fn known(&self) -> String {
        let key = fs::read_to_string(self.path("host.pub")).unwrap();
        let words: Vec<&str> = key.split_whitespace().collect();
        format!("{} {} {}\n", self.name, words[0], words[1])
    }

    /// Processes on the node but those that always run.
    pub fn processes(&self) -> Vec<String> {
        let text = self.sh("ps -eo args=");
        let usual = |line: &&str| {
            let line = line.trim();
            !line.is_empty()
                && !line.contains("init.sh")
                && !line.starts_with("sshd: /usr/sbin/sshd")
                && !line.contains("sshd -D")
                && !line.starts_with("containerd")
                && !line.contains("containerd-shim")
                && !["sleep 0.2", "ps -eo args="].contains(&line)
                && !line.starts_with("sh -c ps -eo")
        };
        text.lines().filter(usual).map(str::to_string).collect()
    }

    /// Waits until nothing runs that a connection has left.
    #[track_caller]
    pub fn quiet(&self) {
        let end = Instant::now() + Duration::from_secs(15);
        while !self.processes().is_empty() {
            assert!(Instant::now() < end, "`{}` still runs {:#?}", self.name, self.processes());
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Writes the configuration of ssh and the known keys of nodes into a project; nodes are reached as `user`.
pub fn introduce(project: &Project, nodes: &[&Node], user: &str) {
    let ports: Vec<u16> = nodes.iter().map(|node| node.port).collect();
    introduce_by(project, nodes, user, &ports);
}

/// As `introduce`, by other ports.
pub fn introduce_by(project: &Project, nodes: &[&Node], user: &str, ports: &[u16]) {
    let known = project.path("known_hosts");
    let mut config = String::new();
    for (node, port) in nodes.iter().zip(ports) {
        config.push_str(&node.client(user, *port));
    }
    config.push_str(&format!(
        "Host *\n  IdentitiesOnly yes\n  IdentityAgent none\n  UserKnownHostsFile {}\n  GlobalKnownHostsFile none\n",
        known.display()
    ));
    project.write("ssh_config", &config);
    let lines: String = nodes.iter().map(|node| node.known()).collect();
    project.write("known_hosts", &lines);
}

/// The tables of hosts for `vcbuild.toml`, each with more keys.
pub fn hosts(nodes: &[&Node], more: &str) -> String {
    let mut text = String::new();
    for node in nodes {
        let name = &node.name;
        text.push_str(&format!("[host.{name}]\nssh = '{name}'\nssh_config = 'ssh_config'\n{more}\n"));
    }
    let names: Vec<String> = nodes.iter().map(|node| format!("'{}'", node.name)).collect();
    format!("{text}[hosts.nodes]\nlist = [{}]\n", names.join(", "))
}
