//! The `ssh` program that holds the connection to a host: how it is started, and what it says when it
//! cannot. It ends with us. Does not know what runs on the connection.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Address, Key};
use crate::error::{Error, Failure, io_words};
use crate::host::fs;
use crate::host::node::{Trouble, Watch};
use crate::host::process::{self, Captured, Command};
use crate::host::stop::Stop;

/// How long a connection may take to be made, in seconds; ssh counts it for each address of the host.
const CONNECT: u64 = 10;
/// How long all of it may take: proxies, keys and all.
const MAKING: Duration = Duration::from_secs(45);
/// What ssh may say, in bytes.
const MOST: usize = 64 << 10;

/// A connection held by `ssh`.
pub struct Master {
    socket: PathBuf,
    stop: Stop,
    ended: Arc<AtomicBool>,
    said: Arc<Mutex<String>>,
    thread: Option<JoinHandle<()>>,
}

/// Numbers sockets; several hosts may have long names.
static NUMBER: AtomicUsize = AtomicUsize::new(0);

/// The options that decide whom to trust; the host is known by its name in the project, wherever it is.
pub fn trust(name: &str, key: &Key, folder: &Path) -> Result<Vec<OsString>, Error> {
    let option = |text: String| ["-o".into(), OsString::from(text)];
    let mut options: Vec<OsString> = option(format!("HostKeyAlias={name}")).into();
    let strict = match key {
        Key::AcceptNew => "accept-new",
        Key::Strict | Key::Pinned(_) => "yes",
    };
    options.extend(option(format!("StrictHostKeyChecking={strict}")));
    if let Key::Pinned(key) = key {
        let known = folder.join(format!("{name}.known"));
        fs::write(&known, format!("{name} {key}\n").as_bytes(), 0o600, fs::Durability::Cache)?;
        options.extend(option(format!("UserKnownHostsFile={}", known.display())));
        options.extend(option("GlobalKnownHostsFile=none".into()));
        options.extend(option("UpdateHostKeys=no".into()));
    }
    Ok(options)
}

/// What holds for every call of `ssh`: nothing is asked, forwarded or run besides what is wanted.
pub fn base(address: &Address, root: &Path) -> Vec<OsString> {
    let mut argv: Vec<OsString> = vec!["ssh".into()];
    if let Some(config) = &address.config {
        argv.extend(["-F".into(), root.join(config).into()]);
    }
    for option in [
        "BatchMode=yes".to_string(),
        format!("ConnectTimeout={CONNECT}"),
        "ServerAliveInterval=5".into(),
        "ServerAliveCountMax=3".into(),
        "ForwardAgent=no".into(),
        "ForwardX11=no".into(),
        "ClearAllForwardings=yes".into(),
        "PermitLocalCommand=no".into(),
        "RemoteCommand=none".into(),
        "RequestTTY=no".into(),
        "EscapeChar=none".into(),
        "LogLevel=INFO".into(),
    ] {
        argv.extend(["-o".into(), option.into()]);
    }
    argv
}

impl Master {
    /// Makes a connection; its socket is in `folder`.
    pub fn start(
        name: &str,
        address: &Address,
        root: &Path,
        folder: &Path,
        env: &[(OsString, OsString)],
        watch: &dyn Watch,
    ) -> Result<Self, Trouble> {
        let socket = folder.join(NUMBER.fetch_add(1, Ordering::Relaxed).to_string());
        let mut argv = base(address, root);
        argv.extend(trust(name, &address.key, folder)?);
        for option in ["ControlMaster=yes", "ControlPersist=no"] {
            argv.extend(["-o".into(), option.into()]);
        }
        argv.extend(["-N".into(), "-T".into(), "-S".into(), socket.clone().into()]);
        argv.extend(["--".into(), address.target.clone().into()]);
        let command = Command { argv, dir: root.to_path_buf(), env: env.to_vec(), timeout: None };
        let stop = Stop::new(Duration::from_millis(500))?;
        let (ended, said) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(String::new())));
        let thread = {
            let (stop, ended, said) = (stop.clone(), ended.clone(), said.clone());
            let hold = move || {
                let text = match process::capture(&command, MOST, &stop) {
                    Ok(Captured { stderr, .. }) => String::from_utf8_lossy(&stderr).into_owned(),
                    Err(Error::Interrupted) => String::new(),
                    Err(error) => error.to_string(),
                };
                *said.lock().unwrap_or_else(PoisonError::into_inner) = text;
                ended.store(true, Ordering::SeqCst);
            };
            let thread = std::thread::Builder::new().name("ssh".into()).spawn(hold);
            thread.map_err(|error| Error::failed(format!("start a thread: {}", io_words(&error))))?
        };
        let master = Self { socket, stop, ended, said, thread: Some(thread) };
        let until = Instant::now() + MAKING;
        while !master.listens() {
            watch.check()?;
            if !master.is_alive() {
                return Err(refused(name, address, &master.said()));
            }
            if Instant::now() > until {
                return Err(Trouble::Unreachable(format!(
                    "it did not let us in for {} s",
                    MAKING.as_secs()
                )));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(master)
    }

    /// The socket by which sessions are opened.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    fn listens(&self) -> bool {
        std::os::unix::net::UnixStream::connect(&self.socket).is_ok()
    }

    /// Whether the connection is held.
    pub fn is_alive(&self) -> bool {
        !self.ended.load(Ordering::SeqCst)
    }

    /// What ssh said, once it has ended.
    pub fn said(&self) -> String {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks it to end.
    pub fn end(&self) {
        self.stop.ask();
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        self.end();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has been heard of.
            let _ = thread.join();
        }
    }
}

/// The last line that says something about the connection.
pub fn last_words(said: &str) -> Option<String> {
    let chatter =
        ["Warning: Permanently added", "** WARNING", "** This session", "** The server", "debug1:"];
    let lines = said.lines().map(|line| line.trim_matches(['\r', ' ']));
    let line = lines.rev().find(|line| !line.is_empty() && !chatter.iter().any(|c| line.starts_with(c)))?;
    let line = line.strip_prefix("ssh: ").unwrap_or(line);
    let mut chars = line.trim_end_matches('.').chars();
    let first = chars.next()?.to_lowercase().to_string();
    Some(format!("{first}{}", chars.as_str()))
}

/// Why ssh did not connect: the host does not answer, or it and we do not agree.
fn refused(name: &str, address: &Address, said: &str) -> Trouble {
    let is = |words: &str| said.contains(words);
    let lines =
        || said.lines().map(|line| line.trim_end_matches('\r').to_string()).filter(|l| !l.is_empty());
    let target = &address.target;
    if is("REMOTE HOST IDENTIFICATION HAS CHANGED") || is("HOST IDENTIFICATION HAS CHANGED") {
        return Failure::new(format!("`{name}` shows another host key than the one that is known"))
            .detail(lines().filter(|line| line.contains("SHA256:") || line.contains("key in")))
            .hint(format!(
                "if the machine was rebuilt: `vcbuild hosts trust {name}`; if not, somebody is in between"
            ))
            .into();
    }
    if is("Host key verification failed") {
        let pinned = matches!(address.key, Key::Pinned(_));
        let message = match pinned {
            true => format!("`{name}` does not show the host key that `host_key` says"),
            false => format!("the host key of `{name}` is not known"),
        };
        let hint = match pinned {
            true => "look at the key on the machine itself, and correct `host_key`".to_string(),
            false => format!("`vcbuild hosts trust {name}` shows its fingerprint and adds it"),
        };
        return Failure::new(message).hint(hint).into();
    }
    if is("REVOKED HOST KEY") || is("revoked") {
        return Failure::new(format!("the host key of `{name}` is revoked")).detail(lines()).into();
    }
    if is("Permission denied (") || is("Too many authentication failures") {
        return Failure::new(format!("`{name}` does not let us in as `{target}`"))
            .detail(last_words(said))
            .hint("ssh has no key that is taken there: `ssh-add -l` lists what it has")
            .into();
    }
    let absent = [
        "Connection refused",
        "timed out",
        "No route to host",
        "Network is unreachable",
        "Could not resolve hostname",
        "Connection closed by",
        "Connection reset",
        "kex_exchange_identification",
        "Broken pipe",
        "not responding",
        "Host is down",
    ];
    let words = last_words(said).unwrap_or_else(|| "ssh ended without a word".into());
    if absent.iter().any(|words| is(words)) {
        return Trouble::Unreachable(words);
    }
    Failure::new(format!("ssh could not connect to `{name}`: {words}")).detail(lines()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(said: &str) -> String {
        let key = Key::Strict;
        let (containerd, ctr) = (String::new(), Vec::new());
        let address =
            Address { target: "u@h".into(), config: None, key, sudo: false, containerd, ctr, limit: None };
        match refused("n", &address, said) {
            Trouble::Unreachable(why) => format!("deferred: {why}"),
            Trouble::Cut(failure) => format!("cut: {}", failure.message),
            Trouble::Error(error) => error.to_string(),
        }
    }

    #[test]
    fn what_ssh_says_is_sorted() {
        for (said, words) in [
            (
                "ssh: connect to host h port 22: Connection refused\r\n",
                "deferred: connect to host h port 22: Connection refused",
            ),
            (
                "Warning: Permanently added 'n'\nkex_exchange_identification: Connection closed by remote host\nConnection closed by 1.2.3.4 port 22\n",
                "deferred: connection closed by 1.2.3.4 port 22",
            ),
            (
                "ssh: Could not resolve hostname h: Name or service not known\n",
                "deferred: could not resolve hostname h: Name or service not known",
            ),
            ("u@h: Permission denied (publickey).\n", "`n` does not let us in as `u@h`"),
            (
                "No ED25519 host key is known for n and you have requested strict checking.\nHost key verification failed.\n",
                "the host key of `n` is not known",
            ),
            (
                "@  WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!  @\nHost key verification failed.\n",
                "`n` shows another host key than the one that is known",
            ),
            (
                "c: line 1: Bad configuration option: x\r\n",
                "ssh could not connect to `n`: c: line 1: Bad configuration option: x",
            ),
        ] {
            assert_eq!(told(said), words);
        }
    }
}
