//! A Docker daemon, or Podman's service in its place, by its socket: what images it has, taking one out and
//! putting archives in (Engine API, "Images"). Knows no archive's content.

mod node;

use std::io::Write;
use std::path::{Path, PathBuf};

use reqwest::{Method, Response, StatusCode};
use serde::Deserialize;

use crate::error::{Error, Failure, Result, io_words};
use crate::host::http::{Broken, Env, Http, broken};
use crate::host::node::{Trouble, Watch};
use crate::recipe::{Content, Recipe};

pub use node::Docker;

/// The longest answer that is no image, in bytes.
const LONGEST: u64 = 4 << 20;
/// Where the daemon listens if nobody says anything else.
const SOCKET: &str = "/var/run/docker.sock";

/// A daemon.
pub struct Daemon<'a> {
    http: Http,
    socket: PathBuf,
    watch: &'a dyn Watch,
}

/// The socket behind an address: `unix:///path`.
pub fn socket(address: &str) -> Option<&Path> {
    address.strip_prefix("unix://").filter(|path| path.starts_with('/')).map(Path::new)
}

/// The socket that the environment names, or the usual one.
pub fn usual_socket(env: &Env) -> Result<PathBuf> {
    match env.get(std::ffi::OsStr::new("DOCKER_HOST")).map(|value| value.to_string_lossy()) {
        None => Ok(PathBuf::from(SOCKET)),
        Some(address) => socket(&address).map(Path::to_path_buf).ok_or_else(|| {
            Failure::new("`DOCKER_HOST` is not a socket of this machine")
                .hint("only `unix:///path` is spoken to")
                .into()
        }),
    }
}

impl<'a> Daemon<'a> {
    /// A daemon behind a socket. Nothing is asked yet.
    pub fn new(socket: &Path, watch: &'a dyn Watch) -> Result<Self> {
        Ok(Self { http: Http::socket(socket)?, socket: socket.to_path_buf(), watch })
    }

    fn failed(&self, why: &str) -> Failure {
        Failure::new(format!("the daemon at `{}`: {why}", self.socket.display()))
    }

    fn trouble(&self, error: reqwest::Error) -> Trouble {
        match broken(error) {
            Broken::Absent(why) => Trouble::Unreachable(format!("`{}`: {why}", self.socket.display())),
            Broken::Cut(why) => self.failed(&format!("the line is cut: {why}")).into(),
            Broken::Wrong(failure) => self.failed(&failure.message).into(),
        }
    }

    fn call(&self, method: Method, path: &str) -> Result<Response, Trouble> {
        let request = self.http.client().request(method, format!("http://localhost{path}"));
        self.http.send(self.watch, request)?.map_err(|error| self.trouble(error))
    }

    fn refused(&self, doing: &str, answer: Response) -> Error {
        #[derive(Deserialize)]
        struct Words {
            message: String,
        }
        let status = answer.status().as_u16();
        let bytes = self.http.whole(self.watch, answer, LONGEST).ok().and_then(Result::ok).flatten();
        let said = serde_json::from_slice::<Words>(&bytes.unwrap_or_default()).ok();
        let said = said.map(|words| format!(" ({})", clean(&words.message))).unwrap_or_default();
        self.failed(&format!("{doing}: it answers {status}{said}")).into()
    }

    /// The id of the image with a name or id: the digest of its config, as Docker and Podman have it.
    pub fn id(&self, name: &str) -> Result<Option<String>, Trouble> {
        #[derive(Deserialize)]
        struct Image {
            #[serde(rename = "Id")]
            id: String,
        }
        let answer = self.call(Method::GET, &format!("/images/{name}/json"))?;
        match answer.status() {
            StatusCode::NOT_FOUND => Ok(None),
            StatusCode::OK => {
                let bytes = self.http.whole(self.watch, answer, LONGEST)?;
                let bytes = bytes.map_err(|error| self.trouble(error))?.unwrap_or_default();
                let image: Image = serde_json::from_slice(&bytes)
                    .map_err(|_| self.failed("it does not answer as a daemon of Docker does"))?;
                let id = if image.id.contains(':') { image.id } else { format!("sha256:{}", image.id) };
                Ok(Some(id))
            }
            _ => Err(self.refused(&format!("look for `{name}`"), answer).into()),
        }
    }

    /// What it runs images for, as in `linux/amd64`.
    pub fn platform(&self) -> Result<String, Trouble> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Version {
            os: String,
            arch: String,
        }
        let answer = self.call(Method::GET, "/version")?;
        if answer.status() != StatusCode::OK {
            return Err(self.refused("ask for its version", answer).into());
        }
        let bytes = self.http.whole(self.watch, answer, LONGEST)?;
        let bytes = bytes.map_err(|error| self.trouble(error))?.unwrap_or_default();
        let version: Version = serde_json::from_slice(&bytes)
            .map_err(|_| self.failed("it does not answer as a daemon of Docker does"))?;
        Ok(format!("{}/{}", version.os, version.arch))
    }

    /// Writes an image as an archive.
    pub fn save(&self, name: &str, to: &mut dyn Write) -> Result<(), Trouble> {
        let mut answer = self.call(Method::GET, &format!("/images/{name}/get"))?;
        if answer.status() != StatusCode::OK {
            return Err(self.refused(&format!("save `{name}`"), answer).into());
        }
        while let Some(piece) =
            self.http.piece(self.watch, &mut answer)?.map_err(|error| self.trouble(error))?
        {
            to.write_all(&piece)
                .map_err(|error| Error::failed(format!("keep what came: {}", io_words(&error))))?;
            self.watch.moved(piece.len() as u64);
        }
        Ok(())
    }

    /// Takes in an archive.
    pub fn load(&self, archive: &Recipe, content: &dyn Content) -> Result<(), Trouble> {
        let whole = (0, archive.size());
        let request = |body| {
            let request = self.http.client().post("http://localhost/images/load?quiet=1");
            request.header("content-type", "application/x-tar").body(body)
        };
        let answer = self.http.stream(self.watch, archive, whole, content, request)?;
        let answer = answer.map_err(|error| self.trouble(error))?;
        if answer.status() != StatusCode::OK {
            return Err(self.refused("load an archive", answer).into());
        }
        let bytes = self.http.whole(self.watch, answer, LONGEST)?.map_err(|error| self.trouble(error))?;
        // A failure in the middle comes as a line of an answer that began well.
        let text = String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned();
        let error = text.lines().find_map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            Some(line.get("error")?.as_str()?.to_string())
        });
        match error {
            None => Ok(()),
            Some(why) => Err(self.failed(&format!("load an archive: {}", clean(&why))).into()),
        }
    }

    /// Gives an image a name: a repository and a tag.
    pub fn tag(&self, id: &str, (repository, tag): (&str, &str)) -> Result<(), Trouble> {
        let answer = self.call(Method::POST, &format!("/images/{id}/tag?repo={repository}&tag={tag}"))?;
        match answer.status() {
            StatusCode::CREATED | StatusCode::OK => Ok(()),
            _ => Err(self.refused(&format!("name `{repository}:{tag}`"), answer).into()),
        }
    }
}

/// What somebody else says, in one short line.
fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}
