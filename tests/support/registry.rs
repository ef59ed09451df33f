//! A real registry on a free port, and images in it that other people's programs have put there.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine;
use serde_json::{Value, json};

use super::Project;
use super::repository::noise;
use super::servers::Server;
use super::web::{Request, ask};
use crate::rig::built;

/// How a registry lets people in.
#[derive(Clone, Copy, PartialEq)]
pub enum Door {
    /// Everybody, by plain HTTP.
    Open,
    /// `user` with the password `word`, by plain HTTP.
    Password,
    /// Everybody, by TLS with a certificate of an authority of its own.
    Tls,
}

/// Which program a registry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Make {
    /// Debian's docker-registry, which is distribution 2.8.
    Debian,
    /// Distribution 3.
    Distribution3,
    /// The one within crane: documents and unfinished uploads are gone when it ends.
    Crane,
}

/// A registry.
pub struct Registry {
    server: Server,
    folder: PathBuf,
    door: Door,
}

impl Registry {
    /// Starts Debian's with its files in `folder`.
    pub fn start(folder: &Path, door: Door) -> Self {
        Self::launch(Make::Debian, folder, door, "")
    }

    /// Starts one that is open.
    pub fn of(make: Make, folder: &Path) -> Self {
        Self::launch(make, folder, Door::Open, "")
    }

    /// Starts distribution 3, which wants tokens that `tokens` has signed and `realm` gives.
    pub fn with_tokens(folder: &Path, tokens: &Tokens, realm: &str) -> Self {
        let auth = format!(
            "auth:\n  token: {{realm: \"{realm}\", service: test, issuer: test, rootcertbundle: {}}}\n",
            tokens.folder.join("token.pem").display()
        );
        Self::launch(Make::Distribution3, folder, Door::Open, &auth)
    }

    fn launch(make: Make, folder: &Path, door: Door, auth: &str) -> Self {
        fs::create_dir_all(folder).unwrap();
        let program = match make {
            Make::Debian => PathBuf::from("/usr/bin/docker-registry"),
            Make::Distribution3 => built("distribution3").join("registry"),
            Make::Crane => Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/crane"),
        };
        if make == Make::Crane {
            let data = folder.join("data");
            fs::create_dir_all(&data).unwrap();
            let server = Server::start(&program, &folder.join("log"), |port| {
                let address = format!("127.0.0.1:{port}");
                ["registry", "serve", "--address", &address, "--disk", data.to_str().unwrap()]
                    .map(String::from)
                    .to_vec()
            });
            return Self { server, folder: folder.to_path_buf(), door };
        }
        if door == Door::Tls {
            certificates(folder);
        }
        let users = folder.join("users");
        if door == Door::Password {
            let made =
                Command::new("htpasswd").args(["-Bbc", users.to_str().unwrap(), "user", "word"]).output();
            assert!(made.expect("`htpasswd` is not installed: `tests/run` does that").status.success());
        }
        let server = Server::start(&program, &folder.join("log"), |port| {
            let mut text = format!(
                "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {0}/data}}\n  \
                 delete: {{enabled: true}}\nhttp:\n  addr: 127.0.0.1:{port}\n",
                folder.display()
            );
            if door == Door::Tls {
                text += &format!(
                    "  tls: {{certificate: {0}/server.pem, key: {0}/server.key}}\n",
                    folder.display()
                );
            }
            if door == Door::Password {
                text += &format!("auth:\n  htpasswd: {{realm: test, path: {}}}\n", users.display());
            }
            text += auth;
            let config = folder.join("config.yml");
            fs::write(&config, text).unwrap();
            vec!["serve".into(), config.display().to_string()]
        });
        Self { server, folder: folder.to_path_buf(), door }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.server.port
    }

    /// Its host, as image names have it.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port())
    }

    /// The certificate of its authority.
    pub fn authority(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// Puts an image from a layout into it with skopeo, as `name`; `options` are skopeo's.
    pub fn put(&self, layout: &Path, name: &str, options: &[&str]) {
        let mut command = Command::new("skopeo");
        command.args(["copy", "-q", "--insecure-policy", "--dest-tls-verify=false"]).args(options);
        if self.door == Door::Password {
            command.args(["--dest-creds", "user:word"]);
        }
        command.arg(format!("oci:{}", layout.display()));
        let output = command.arg(format!("docker://{}/{name}", self.host())).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// A document, its media type and its digest.
    pub fn document(&self, path: &str, reference: &str) -> (Value, String, String) {
        let types =
            ["image.index.v1", "image.manifest.v1"].map(|t| format!("application/vnd.oci.{t}+json"));
        let docker = "application/vnd.docker.distribution.manifest.v2+json";
        let accept = format!("{}, {}, {docker}", types[0], types[1]);
        let request =
            Request::new("GET", &format!("/v2/{path}/manifests/{reference}")).with("accept", &accept);
        let answer = ask(self.port(), &request);
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        let header = |name: &str| answer.header(name).unwrap().to_string();
        let digest = header("docker-content-digest");
        (serde_json::from_slice(&answer.body).unwrap(), header("content-type"), digest)
    }

    /// Gives a tag to a document.
    pub fn put_document(&self, path: &str, reference: &str, media_type: &str, bytes: &[u8]) -> String {
        let mut request = Request::new("PUT", &format!("/v2/{path}/manifests/{reference}"))
            .with("content-type", media_type);
        request.body = bytes.to_vec();
        let answer = ask(self.port(), &request);
        assert_eq!(answer.status, 201, "{}", String::from_utf8_lossy(&answer.body));
        answer.header("docker-content-digest").unwrap().to_string()
    }
}

/// One who gives tokens (distribution, "Token Authentication") to everybody.
pub struct Tokens {
    folder: PathBuf,
}

impl Tokens {
    /// With its key in `folder`.
    pub fn new(folder: &Path) -> Self {
        fs::create_dir_all(folder).unwrap();
        openssl(
            folder,
            "req -x509 -newkey rsa:2048 -nodes -keyout token.key -out token.pem -days 3 -subj /CN=test",
        );
        openssl(folder, "x509 -in token.pem -outform DER -out token.der");
        Self { folder: folder.to_path_buf() }
    }

    /// The answer to a request for a token, which is good for all that was asked for, until `end` (seconds since
    /// 1970).
    pub fn give(&self, request: &Request, end: u64) -> String {
        let base64 = |bytes: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
        let query = request.path.split_once('?').unwrap().1;
        let scopes = query.split('&').filter_map(|field| field.strip_prefix("scope="));
        let access: Vec<Value> = scopes
            .map(|scope| {
                let scope = scope.replace("%3A", ":").replace("%2F", "/").replace("%2C", ",");
                let words: Vec<&str> = scope.split(':').collect();
                let actions: Vec<&str> = words[2].split(',').collect();
                json!({ "type": words[0], "name": words[1], "actions": actions })
            })
            .collect();
        let certificate = fs::read(self.folder.join("token.der")).unwrap();
        let certificate = base64::engine::general_purpose::STANDARD.encode(certificate);
        let header = json!({ "alg": "RS256", "typ": "JWT", "x5c": [certificate] });
        let claims = json!({
            "iss": "test", "sub": "", "aud": "test", "exp": end, "nbf": 0, "iat": 0, "jti": "1", "access": access,
        });
        let [header, claims] = [header, claims].map(|part| base64(part.to_string().as_bytes()));
        let mut signing = Command::new("openssl")
            .args(["dgst", "-sha256", "-sign", "token.key"])
            .current_dir(&self.folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        signing.stdin.take().unwrap().write_all(format!("{header}.{claims}").as_bytes()).unwrap();
        let signature = base64(&signing.wait_with_output().unwrap().stdout);
        json!({ "token": format!("{header}.{claims}.{signature}") }).to_string()
    }
}

/// An authority, and a certificate by it for 127.0.0.1.
fn certificates(folder: &Path) {
    let run = |arguments: &str| openssl(folder, arguments);
    fs::write(folder.join("ext"), "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n").unwrap();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    run(&format!(
        "req -x509 {key} -keyout ca.key -out ca.pem -days 3 -subj /CN=ca -addext basicConstraints=critical,CA:TRUE"
    ));
    run(&format!("req {key} -keyout server.key -out server.csr -subj /CN=server"));
    run(
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 3 -extfile ext -out server.pem",
    );
}

fn openssl(folder: &Path, arguments: &str) {
    let output = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A layout with one image of two layers, one of `size` bytes that cannot be compressed.
pub fn layout(name: &str, size: usize) -> (Project, PathBuf) {
    let project = Project::new().config(
        r#"
[image.base]
base = "scratch"
files = [{ from = "noise", to = "/data/" }, { from = "words", to = "/etc/" }]
entrypoint = ["/data/noise"]
"#,
    );
    let mut bytes = noise(size);
    bytes.extend_from_slice(name.as_bytes());
    fs::write(project.path("noise"), bytes).unwrap();
    project.write("words", &format!("{name} {}\n", "word ".repeat(2000)));
    project.call("get image.base -o layout").success();
    let path = project.path("layout");
    (project, path)
}
