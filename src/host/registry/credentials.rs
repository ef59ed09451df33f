//! Who the user is at a registry: what `docker login` and `podman login` have left, and programs that keep
//! passwords. Nothing of it is ever shown.
#![expect(clippy::disallowed_methods, reason = "the one place that starts helpers for credentials")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde::Deserialize;

use crate::error::{Error, Failure, Result, io_words};
use crate::host::fs;
use crate::host::http::Env;
use crate::host::node::Watch;

/// How long a helper may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest file, or answer of a helper, in bytes.
const LONGEST: u64 = 1 << 20;

/// Who the user is.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A name and a password.
    Password(String, String),
    /// A token that gives others.
    Identity(String),
    /// A token to be shown as it is.
    Bearer(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct File {
    auths: BTreeMap<String, Login>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Login {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

/// The credentials for a repository of a registry; `None` if there are none. The first file wins that has
/// any: docker's, then podman's.
pub fn find(env: &Env, registry: &str, path: &str, watch: &dyn Watch) -> Result<Option<Credentials>> {
    for file in files(env) {
        let Some(bytes) = fs::read(&file, LONGEST)? else { continue };
        // The parser's own words may quote a password.
        let wrong = |_| Error::failed(format!("`{}` is not as `docker login` writes it", file.display()));
        let read: File = serde_json::from_slice(&bytes).map_err(wrong)?;
        if let Some(found) = read.find(env, registry, path, watch)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn files(env: &Env) -> Vec<PathBuf> {
    let folder =
        |name: &str| env.get(OsStr::new(name)).filter(|value| !value.is_empty()).map(PathBuf::from);
    let docker = folder("DOCKER_CONFIG").or_else(|| Some(folder("HOME")?.join(".docker")));
    let run = folder("XDG_RUNTIME_DIR").map(|run| run.join("containers/auth.json"));
    let all = [docker.map(|folder| folder.join("config.json")), folder("REGISTRY_AUTH_FILE"), run];
    all.into_iter().flatten().collect()
}

/// A registry as a file names it, without what is only decoration.
fn plain(key: &str) -> &str {
    let key = key.split_once("://").map_or(key, |(_, rest)| rest).trim_end_matches('/');
    let key = key.strip_suffix("/v1").or_else(|| key.strip_suffix("/v2")).unwrap_or(key);
    if key == "index.docker.io" { "docker.io" } else { key }
}

/// The name under which docker asks for its own registry.
fn asked(registry: &str) -> &str {
    if registry == "docker.io" { "https://index.docker.io/v1/" } else { registry }
}

impl File {
    fn find(
        &self,
        env: &Env,
        registry: &str,
        path: &str,
        watch: &dyn Watch,
    ) -> Result<Option<Credentials>> {
        let helper = self.cred_helpers.iter().find(|(key, _)| plain(key) == registry);
        if let Some((_, helper)) = helper {
            return ask(env, helper, asked(registry), watch);
        }
        if !self.creds_store.is_empty()
            && let Some(found) = ask(env, &self.creds_store, asked(registry), watch)?
        {
            return Ok(Some(found));
        }
        // The longest beginning of the repository's name that is there.
        let whole = format!("{registry}/{path}");
        let matches = |key: &&String| {
            let key = plain(key);
            whole.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let mut keys: Vec<&String> = self.auths.keys().filter(matches).collect();
        keys.sort_by_key(|key| plain(key).len());
        Ok(keys.iter().rev().find_map(|key| self.auths[*key].credentials()))
    }
}

impl Login {
    fn credentials(&self) -> Option<Credentials> {
        if !self.registrytoken.is_empty() {
            return Some(Credentials::Bearer(self.registrytoken.clone()));
        }
        if !self.identitytoken.is_empty() {
            return Some(Credentials::Identity(self.identitytoken.clone()));
        }
        if !self.username.is_empty() {
            return Some(Credentials::Password(self.username.clone(), self.password.clone()));
        }
        let bytes = base64::engine::general_purpose::STANDARD.decode(self.auth.trim()).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let (name, password) = text.trim_end_matches('\0').split_once(':')?;
        Some(Credentials::Password(name.to_string(), password.to_string()))
    }
}

/// Asks `docker-credential-NAME`, as docker does (docker-credential-helpers, "Development").
fn ask(env: &Env, helper: &str, server: &str, watch: &dyn Watch) -> Result<Option<Credentials>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        #[serde(default)]
        username: String,
        secret: String,
    }
    let program = format!("docker-credential-{helper}");
    let failed = |why: &str| Failure::new(format!("`{program}` gives no credentials: {why}"));
    let started = Command::new(&program)
        .arg("get")
        .env_clear()
        .envs(env)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = started.map_err(|error| {
        failed(&io_words(&error))
            .hint("the configuration of docker names it under `credsStore` or `credHelpers`")
    })?;
    if let Some(mut input) = child.stdin.take() {
        // One that does not read has its answer ready.
        let _ = input.write_all(server.as_bytes());
    }
    let output = child.stdout.take();
    let reading = std::thread::spawn(move || {
        let mut text = Vec::new();
        let read = output.map(|output| output.take(LONGEST).read_to_end(&mut text));
        read.transpose().map(|_| text)
    });
    let end = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Err(error) => return Err(failed(&io_words(&error)).into()),
            Ok(None) => {}
        }
        let stopped = watch.check();
        if stopped.is_err() || Instant::now() > end {
            let _ = child.kill();
            let _ = child.wait();
            stopped?;
            return Err(failed("it takes too long").into());
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let Ok(Ok(text)) = reading.join() else { return Err(failed("its answer cannot be read").into()) };
    if !status.success() {
        // That is how a helper says that it has nothing.
        if String::from_utf8_lossy(&text).contains("credentials not found") {
            return Ok(None);
        }
        return Err(failed("it failed").into());
    }
    let Answer { username, secret } =
        serde_json::from_slice(&text).map_err(|_| failed("its answer is not as it should be"))?;
    Ok(Some(match username.as_str() {
        "<token>" => Credentials::Identity(secret),
        _ => Credentials::Password(username, secret),
    }))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    struct Nobody;

    impl Watch for Nobody {
        fn moved(&self, _bytes: u64) {}
        fn check(&self) -> Result<()> {
            Ok(())
        }
        fn waits(&self) {}
    }

    fn found(config: &str, registry: &str, path: &str) -> Result<Option<Credentials>> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), config).unwrap();
        let helper = folder.path().join("docker-credential-test");
        let script = "#!/bin/sh\nread server\ncase $server in\n\
            a.example) echo '{\"Username\":\"u\",\"Secret\":\"'$server'\"}';;\n\
            https://index.docker.io/v1/) echo '{\"Username\":\"<token>\",\"Secret\":\"t\"}';;\n\
            bad.example) echo secret; exit 1;;\n\
            *) echo 'credentials not found in native keychain'; exit 1;;\nesac\n";
        std::fs::write(&helper, script).unwrap();
        std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
        let env: Env = [
            ("DOCKER_CONFIG".into(), folder.path().into()),
            ("PATH".into(), format!("{}:/usr/bin:/bin", folder.path().display()).into()),
        ]
        .into();
        find(&env, registry, path, &Nobody)
    }

    fn password(name: &str, word: &str) -> Option<Credentials> {
        Some(Credentials::Password(name.into(), word.into()))
    }

    #[test]
    fn logins_are_found() {
        let config = r#"{"auths":{
            "https://index.docker.io/v1/":{"auth":"aHViOndvcmQ="},
            "r.example:5000":{"username":"u","password":"p"},
            "r.example:5000/team":{"username":"team","password":"p"},
            "http://t.example/v2/":{"identitytoken":"i"},
            "b.example":{"registrytoken":"b"}, "odd.example":{"auth":"%%"}, "empty.example":{}}}"#;
        assert_eq!(found(config, "docker.io", "library/x").unwrap(), password("hub", "word"));
        assert_eq!(found(config, "r.example:5000", "x").unwrap(), password("u", "p"));
        assert_eq!(found(config, "r.example:5000", "team/x").unwrap(), password("team", "p"));
        assert_eq!(found(config, "r.example:5000", "teams").unwrap(), password("u", "p"));
        assert_eq!(found(config, "t.example", "x").unwrap(), Some(Credentials::Identity("i".into())));
        assert_eq!(found(config, "b.example", "x").unwrap(), Some(Credentials::Bearer("b".into())));
        for none in ["odd.example", "empty.example", "r.example", "else.example"] {
            assert_eq!(found(config, none, "x").unwrap(), None, "{none}");
        }
    }

    #[test]
    fn helpers_are_asked() {
        let config = r#"{"credHelpers":{"a.example":"test","https://bad.example":"test"}}"#;
        assert_eq!(found(config, "a.example", "x").unwrap(), password("u", "a.example"));
        let error = found(config, "bad.example", "x").unwrap_err().to_string();
        assert_eq!(error, "`docker-credential-test` gives no credentials: it failed");
        let config = r#"{"credsStore":"test","auths":{"c.example":{"auth":"YTpi"}}}"#;
        assert_eq!(found(config, "docker.io", "x").unwrap(), Some(Credentials::Identity("t".into())));
        assert_eq!(found(config, "c.example", "x").unwrap(), password("a", "b"));
        assert_eq!(found(config, "d.example", "x").unwrap(), None);
        let error = found(r#"{"credsStore":"gone"}"#, "x.example", "x").unwrap_err().to_string();
        assert!(
            error.starts_with("`docker-credential-gone` gives no credentials: no such file"),
            "{error}"
        );
    }

    #[test]
    fn a_broken_file_is_not_quoted() {
        let error = found(r#"{"auths":{"x":{"auth":hunter2}}}"#, "x", "x").unwrap_err().to_string();
        assert!(error.ends_with("is not as `docker login` writes it"), "{error}");
        assert_eq!(format!("{:?}", password("a", "b").unwrap()), "Credentials");
    }
}
