//! Registries (distribution-spec 1.1): documents and blobs are read from a repository or its mirrors, and
//! written to it. Everything here waits; nothing is started before it is needed. Knows digests, sizes and
//! names, and not what a document says.

mod auth;
mod call;
mod credentials;
mod pull;
mod push;
mod referrers;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use reqwest::Url;
use reqwest::header::HeaderValue;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::host::http::{Env, Http};
use crate::host::node::{Trouble, Watch};

pub use push::Sent;

/// What the user says of registries, by host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Settings(pub BTreeMap<String, Spec>);

/// What the user says of one registry; plain data.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// A file of certificates to trust besides the system's, relative to the project or absolute.
    pub ca: Option<String>,
    /// Hosts, with a path before the repository's if need be, that are asked first, in this order.
    pub mirrors: Vec<String>,
    /// Whether plain HTTP is spoken.
    pub insecure: bool,
}

/// What is needed to get at any registry.
#[derive(Clone, Copy)]
pub struct Around<'a> {
    /// The user's environment.
    pub env: &'a Env,
    /// The project folder.
    pub root: &'a Path,
    /// What the user says of registries.
    pub settings: &'a Settings,
    /// Whoever watches.
    pub watch: &'a dyn Watch,
}

/// What a repository is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To read.
    Pull,
    /// To read and write.
    Push,
}

/// A repository: the registry itself and what mirrors it.
pub struct Repository<'a> {
    /// The mirrors, then the registry.
    places: Vec<Place<'a>>,
}

/// A repository at one host. Many may ask it at once.
pub struct Place<'a> {
    around: Around<'a>,
    /// The host, with its port if that was said.
    host: String,
    /// The path of the repository there.
    path: String,
    /// What all addresses begin with.
    base: Url,
    spec: Spec,
    http: Arc<OnceLock<Http>>,
    scopes: Vec<String>,
    /// What is shown to the registry.
    authorization: Mutex<Option<HeaderValue>>,
    /// Held while that is found out: what one was told is good for all who ask at the same time.
    asking: Mutex<()>,
}

impl<'a> Repository<'a> {
    /// The repository `path` of `registry`, to read: mirrors are asked first.
    pub fn new(registry: &str, path: &str, around: Around<'a>) -> Result<Self> {
        let spec = around.settings.0.get(registry).cloned().unwrap_or_default();
        let mut places = Vec::new();
        for mirror in &spec.mirrors {
            let (host, above) = mirror.split_once('/').unwrap_or((mirror, ""));
            let above = above.trim_matches('/');
            let path = if above.is_empty() { path.to_string() } else { format!("{above}/{path}") };
            places.push(Place::new(host, &path, Access::Pull, around)?);
        }
        places.push(Place::new(registry, path, Access::Pull, around)?);
        Ok(Self { places })
    }

    /// Does something at the first place that can do it: what fails at a mirror is tried at the next. What
    /// the user wants to stop ends.
    pub fn at_first<T>(
        &self,
        mut doing: impl FnMut(&Place<'a>) -> Result<T, Trouble>,
    ) -> Result<T, Trouble> {
        let Some((origin, mirrors)) = self.places.split_last() else {
            panic!("BUG: a repository without a place")
        };
        for mirror in mirrors {
            match doing(mirror) {
                Err(Trouble::Error(Error::Failed(_)) | Trouble::Unreachable(_)) => {}
                done => return done,
            }
        }
        doing(origin)
    }
}

/// The host that speaks for a registry, where that is not the registry's own name.
fn api_host(host: &str) -> &str {
    if host == "docker.io" { "registry-1.docker.io" } else { host }
}

impl<'a> Place<'a> {
    /// The repository `path` at `host`, without mirrors. Nothing is asked yet.
    pub fn new(host: &str, path: &str, access: Access, around: Around<'a>) -> Result<Self> {
        let spec = around.settings.0.get(host).cloned().unwrap_or_default();
        let scheme = if spec.insecure { "http" } else { "https" };
        let base = Url::parse(&format!("{scheme}://{}/v2/{path}/", api_host(host)))
            .map_err(|_| Error::failed(format!("`{host}` is not the host of a registry")))?;
        let actions = match access {
            Access::Pull => "pull",
            Access::Push => "pull,push",
        };
        Ok(Self {
            around,
            host: host.to_string(),
            path: path.to_string(),
            base,
            spec,
            http: Arc::default(),
            scopes: vec![format!("repository:{path}:{actions}")],
            authorization: Mutex::default(),
            asking: Mutex::default(),
        })
    }

    /// Lets blobs be taken over from these other repositories of the registry.
    pub fn mounting_from<'b>(mut self, others: impl Iterator<Item = &'b str>) -> Self {
        self.scopes.extend(others.map(|path| format!("repository:{path}:pull")));
        self
    }

    /// Another repository of the same registry, to read.
    pub fn beside(&self, path: &str) -> Result<Self> {
        Ok(Self::new(&self.host, path, Access::Pull, self.around)?.sharing(self))
    }

    /// Shares the connections of another repository of the same registry.
    pub fn sharing(mut self, other: &Self) -> Self {
        self.http = other.http.clone();
        self
    }

    /// `host/path`, for people.
    pub fn name(&self) -> String {
        format!("{}/{}", self.host, self.path)
    }

    /// What is shown to the registry now.
    fn shown(&self) -> MutexGuard<'_, Option<HeaderValue>> {
        self.authorization.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn http(&self) -> Result<&Http> {
        if let Some(http) = self.http.get() {
            return Ok(http);
        }
        let ca = self.spec.ca.as_ref().map(|ca| self.around.root.join(ca));
        let http = Http::new(self.around.env, ca.as_deref())?;
        Ok(self.http.get_or_init(|| http))
    }
}
