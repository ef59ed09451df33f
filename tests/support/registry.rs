//! A real registry on a free port, and images in it that other people's programs have put there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::Project;
use super::repository::noise;
use super::servers::Server;
use super::web::{Request, ask};

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

/// A registry.
pub struct Registry {
    server: Server,
    folder: PathBuf,
    door: Door,
}

impl Registry {
    /// Starts one with its files in `folder`.
    pub fn start(folder: &Path, door: Door) -> Self {
        fs::create_dir_all(folder).unwrap();
        if door == Door::Tls {
            certificates(folder);
        }
        let users = folder.join("users");
        if door == Door::Password {
            let made =
                Command::new("htpasswd").args(["-Bbc", users.to_str().unwrap(), "user", "word"]).output();
            assert!(made.expect("`htpasswd` is not installed: `tests/run` does that").status.success());
        }
        let server = Server::start(Path::new("/usr/bin/docker-registry"), &folder.join("log"), |port| {
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

/// An authority, and a certificate by it for 127.0.0.1.
fn certificates(folder: &Path) {
    let run = |arguments: &str| {
        let output =
            Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
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
