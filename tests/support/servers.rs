//! Real servers of git repositories, each on a free port, ended when they are dropped or the test ends in
//! any other way.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long a server may take until it listens.
const STARTING: Duration = Duration::from_secs(20);

/// A program that listens.
pub struct Server {
    child: Child,
    /// Where.
    pub port: u16,
}

impl Server {
    /// Starts a program on a free port, and waits until it listens. `arguments` gets the port.
    pub fn start(program: &Path, log: &Path, arguments: impl Fn(u16) -> Vec<String>) -> Self {
        assert!(program.exists(), "`{}` is not installed: `tests/run` does that", program.display());
        let end = Instant::now() + STARTING;
        loop {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let output = fs::File::create(log).unwrap();
            // It ends with the thread that started it, whatever becomes of that.
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "KILL", "--"]).arg(program).args(arguments(port));
            command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null());
            let child = command.stdout(output.try_clone().unwrap()).stderr(output).spawn().unwrap();
            let mut server = Self { child, port };
            while server.child.try_wait().unwrap().is_none() {
                if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    return server;
                }
                assert!(Instant::now() < end, "it does not listen: {}", said(log));
                std::thread::sleep(Duration::from_millis(5));
            }
            // Somebody else may have taken the port.
            assert!(Instant::now() < end, "it does not start: {}", said(log));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn said(log: &Path) -> String {
    fs::read_to_string(log).unwrap_or_default()
}

fn git_program(name: &str) -> PathBuf {
    let output = Command::new("git").arg("--exec-path").output().unwrap();
    Path::new(String::from_utf8(output.stdout).unwrap().trim()).join(name)
}

/// Serves the repositories in `folder` at `git://127.0.0.1:PORT/`, by git's own daemon.
pub fn git_daemon(folder: &Path) -> Server {
    fs::create_dir_all(folder).unwrap();
    let base = format!("--base-path={}", folder.display());
    Server::start(&git_program("git-daemon"), &folder.with_extension("log"), |port| {
        let port = format!("--port={port}");
        ["--export-all", "--listen=127.0.0.1", "--reuseaddr", &base, &port].map(String::from).to_vec()
    })
}

/// Serves the repositories in `folder` at `http://127.0.0.1:PORT/open/` to everybody and at `/closed/` to
/// `user` with the password `word`, by lighttpd and git's own program for web servers.
pub fn web(folder: &Path) -> Server {
    let (config, users) = (folder.with_extension("conf"), folder.with_extension("users"));
    fs::write(&users, "user:word\n").unwrap();
    let backend = git_program("git-http-backend");
    let uploads = folder.with_extension("uploads");
    fs::create_dir_all(&uploads).unwrap();
    Server::start(Path::new("/usr/sbin/lighttpd"), &folder.with_extension("log"), |port| {
        let text = format!(
            r#"
server.document-root = "{folder}"
server.bind = "127.0.0.1"
server.port = {port}
server.upload-dirs = ("{uploads}")
server.modules = ("mod_alias", "mod_auth", "mod_authn_file", "mod_cgi", "mod_setenv")
alias.url = ("/open" => "{backend}", "/closed" => "{backend}")
cgi.assign = ("" => "")
setenv.add-environment = ("GIT_PROJECT_ROOT" => "{folder}", "GIT_HTTP_EXPORT_ALL" => "")
auth.backend = "plain"
auth.backend.plain.userfile = "{users}"
auth.require = ("/closed" => ("method" => "basic", "realm" => "git", "require" => "valid-user"))
"#,
            folder = folder.display(),
            uploads = uploads.display(),
            backend = backend.display(),
            users = users.display(),
        );
        fs::write(&config, text).unwrap();
        vec!["-D".into(), "-f".into(), config.display().to_string()]
    })
}

/// Serves the files in `folder` at `http://127.0.0.1:PORT/`, by a web server that knows nothing of git.
pub fn web_of_files(folder: &Path) -> Server {
    let config = folder.with_extension("conf");
    Server::start(Path::new("/usr/sbin/lighttpd"), &folder.with_extension("log"), |port| {
        let folder = folder.display();
        let text = format!(
            "server.document-root = \"{folder}\"\nserver.bind = \"127.0.0.1\"\nserver.port = {port}\n"
        );
        fs::write(&config, text).unwrap();
        vec!["-D".into(), "-f".into(), config.display().to_string()]
    })
}

/// A real sshd with keys of its own.
pub struct Ssh {
    /// The server.
    pub server: Server,
    folder: PathBuf,
}

/// Whom a client of ssh trusts and what it shows.
#[derive(Clone, Copy, PartialEq)]
pub enum Client {
    /// The server, with a key that is taken.
    Right,
    /// The server, with a key that is not taken.
    Stranger,
    /// Another server under the same name.
    OtherHost,
    /// Nobody.
    NoHost,
}

/// Starts sshd with its files in `folder`.
pub fn ssh(folder: &Path) -> Ssh {
    fs::create_dir_all(folder).unwrap();
    for key in ["host", "other", "mine", "stranger"] {
        let path = folder.join(key);
        let output =
            Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&path).output();
        assert!(output.unwrap().status.success());
    }
    fs::copy(folder.join("mine.pub"), folder.join("authorized")).unwrap();
    // Where sshd wants an empty folder when it is started by root.
    let _ = fs::create_dir_all("/run/sshd");
    let config = folder.join("sshd_config");
    let server = Server::start(Path::new("/usr/sbin/sshd"), &folder.join("log"), |port| {
        let text = format!(
            "ListenAddress 127.0.0.1\nPort {port}\nHostKey {folder}/host\nPidFile none\nUsePAM no\n\
             AuthorizedKeysFile {folder}/authorized\nStrictModes no\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n",
            folder = folder.display()
        );
        fs::write(&config, text).unwrap();
        ["-D", "-e", "-f", config.to_str().unwrap()].map(String::from).to_vec()
    });
    Ssh { server, folder: folder.to_path_buf() }
}

impl Ssh {
    /// The address of a path on this machine, by ssh.
    pub fn url(&self, path: &Path) -> String {
        let output = Command::new("id").arg("-un").output().unwrap();
        let user = String::from_utf8(output.stdout).unwrap();
        format!("ssh://{}@127.0.0.1:{}{}", user.trim(), self.server.port, path.display())
    }

    /// The command that is the client.
    pub fn client(&self, client: Client) -> String {
        let file = |name: &str| self.folder.join(name).display().to_string();
        let name = format!("client{}", client as u8);
        let key = if client == Client::Stranger { "stranger" } else { "mine" };
        let host = match client {
            Client::OtherHost => fs::read_to_string(file("other.pub")).unwrap(),
            Client::NoHost => String::new(),
            Client::Right | Client::Stranger => fs::read_to_string(file("host.pub")).unwrap(),
        };
        let known = file(&format!("{name}.known"));
        fs::write(&known, format!("[127.0.0.1]:{} {host}", self.server.port)).unwrap();
        fs::set_permissions(file(key), fs::Permissions::from_mode(0o600)).unwrap();
        let config = format!(
            "IdentityFile {}\nIdentitiesOnly yes\nIdentityAgent none\nUserKnownHostsFile {known}\n\
             GlobalKnownHostsFile none\n",
            file(key)
        );
        fs::write(file(&name), config).unwrap();
        format!("ssh -F {}", file(&name))
    }
}

/// A line to a server that can be cut.
pub struct Line {
    /// Where to call instead of the server.
    pub port: u16,
    state: Arc<State>,
}

struct State {
    server: SocketAddr,
    /// To the server, and from it.
    ways: [Way; 2],
    /// Whether the line is held, not cut, at the limit.
    held: AtomicBool,
    /// Whether what was held goes on.
    let_go: AtomicBool,
    /// Calls that were cut or held.
    reached: AtomicUsize,
    calls: AtomicUsize,
}

/// One direction.
struct Way {
    /// Bytes of a call that pass.
    limit: AtomicUsize,
    /// Whether only one call is cut.
    once: AtomicBool,
    /// Bytes that have passed.
    passed: AtomicUsize,
}

const UP: usize = 0;
const DOWN: usize = 1;

impl Line {
    /// A line that passes everything.
    pub fn new(server: &Server) -> Self {
        Self::to(server.port)
    }

    /// A line to a port of this machine.
    pub fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let way = || Way {
            limit: AtomicUsize::new(usize::MAX),
            once: AtomicBool::new(false),
            passed: AtomicUsize::new(0),
        };
        let state = Arc::new(State {
            server: ([127, 0, 0, 1], server).into(),
            ways: [way(), way()],
            held: AtomicBool::new(false),
            let_go: AtomicBool::new(false),
            reached: AtomicUsize::new(0),
            calls: AtomicUsize::new(0),
        });
        let shared = state.clone();
        std::thread::spawn(move || {
            for call in listener.incoming() {
                let (call, state) = (call.unwrap(), shared.clone());
                std::thread::spawn(move || state.pass(call));
            }
        });
        Self { port, state }
    }

    fn set(&self, way: usize, limit: usize, once: bool) {
        self.state.ways[way].once.store(once, Ordering::SeqCst);
        self.state.ways[way].limit.store(limit, Ordering::SeqCst);
    }

    /// Cuts every answer after so many bytes.
    pub fn cut(&self, limit: usize) {
        self.set(DOWN, limit, false);
    }

    /// Cuts one answer after so many bytes.
    pub fn cut_once(&self, limit: usize) {
        self.set(DOWN, limit, true);
    }

    /// Cuts every call after so many bytes to the server.
    pub fn cut_upward(&self, limit: usize) {
        self.set(UP, limit, false);
    }

    /// Cuts one call after so many bytes to the server.
    pub fn cut_upward_once(&self, limit: usize) {
        self.set(UP, limit, true);
    }

    /// Holds every answer after so many bytes.
    pub fn hold(&self, limit: usize) {
        self.state.held.store(true, Ordering::SeqCst);
        self.state.reached.store(0, Ordering::SeqCst);
        self.cut(limit);
    }

    /// Holds every call after so many bytes to the server.
    pub fn hold_upward(&self, limit: usize) {
        self.state.held.store(true, Ordering::SeqCst);
        self.state.reached.store(0, Ordering::SeqCst);
        self.cut_upward(limit);
    }

    /// Passes everything again; what was held is cut.
    pub fn mend(&self) {
        self.state.held.store(false, Ordering::SeqCst);
        self.cut(usize::MAX);
        self.cut_upward(usize::MAX);
    }

    /// Lets what is held go on.
    pub fn release(&self) {
        self.cut(usize::MAX);
        self.cut_upward(usize::MAX);
        self.state.let_go.store(true, Ordering::SeqCst);
        self.state.held.store(false, Ordering::SeqCst);
    }

    /// How many calls there were.
    pub fn calls(&self) -> usize {
        self.state.calls.load(Ordering::SeqCst)
    }

    /// Bytes that have gone to the server since the last time this was asked.
    pub fn upward(&self) -> usize {
        self.state.ways[UP].passed.swap(0, Ordering::SeqCst)
    }

    /// Bytes that have come from the server since the last time this was asked.
    pub fn downward(&self) -> usize {
        self.state.ways[DOWN].passed.swap(0, Ordering::SeqCst)
    }

    /// How many calls were cut or held since they were last to be.
    pub fn held(&self) -> usize {
        self.state.reached.load(Ordering::SeqCst)
    }

    /// Waits until a call has been held.
    pub fn wait(&self) {
        let end = Instant::now() + STARTING;
        while self.state.reached.load(Ordering::SeqCst) == 0 {
            assert!(Instant::now() < end, "no call was held");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl State {
    fn pass(self: Arc<Self>, call: TcpStream) {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let Ok(server) = TcpStream::connect(self.server) else { return };
        let ends = [call.try_clone().unwrap(), server.try_clone().unwrap()];
        let state = self.clone();
        std::thread::spawn(move || state.carry(UP, &ends[0], &ends[1]));
        self.carry(DOWN, &server, &call);
    }

    fn carry(&self, way: usize, mut from: &TcpStream, mut to: &TcpStream) {
        let mut passed = 0;
        let mut buffer = vec![0; 1 << 14];
        while let Ok(all @ 1..) = from.read(&mut buffer) {
            let limit = self.ways[way].limit.load(Ordering::SeqCst);
            let length = all.min(limit.saturating_sub(passed));
            if to.write_all(&buffer[..length]).is_err() {
                break;
            }
            passed += length;
            self.ways[way].passed.fetch_add(length, Ordering::SeqCst);
            if passed >= limit {
                if self.ways[way].once.load(Ordering::SeqCst) {
                    self.ways[way].limit.store(usize::MAX, Ordering::SeqCst);
                }
                self.reached.fetch_add(1, Ordering::SeqCst);
                let end = Instant::now() + STARTING;
                while self.held.load(Ordering::SeqCst) && Instant::now() < end {
                    std::thread::sleep(Duration::from_millis(20));
                }
                if self.ways[way].limit.load(Ordering::SeqCst) == usize::MAX
                    && self.let_go.load(Ordering::SeqCst)
                    && to.write_all(&buffer[length..all]).is_ok()
                {
                    continue;
                }
                let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
                return;
            }
        }
        if way == UP {
            let _ = to.shutdown(Shutdown::Write);
        } else {
            let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
        }
    }
}
