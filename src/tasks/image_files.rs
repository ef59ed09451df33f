//! `files` of an image: what each entry places, as data from which layers are made. Knows no layer and
//! reads no base: owners stay as they are written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::image_users::Owner;
use super::names::{Names, Placed, Reference};
use super::placement::{self, Placement, Taken, check_mode, check_to, insert, parse_mode, plain};
use crate::cache::draft::Draft;
use crate::cache::tree::Entry;
use crate::digest::Digest;
use crate::error::{Result, did_you_mean};
use crate::oci::capability;
use crate::oci::descriptor::Platform;
use crate::work::{Inputs, TaskName};

/// One entry of an image's `files`: `from`, `url`, `link`, or none of them for an empty folder
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// A task, or a file, folder or glob of the project
    from: Option<Reference>,
    /// A file to be fetched by http or https, once; `sha256` says which
    url: Option<Placed<String>>,
    /// The SHA-256 of the file behind `url`, in hexadecimal digits
    sha256: Option<Placed<String>>,
    /// Makes a symbolic link at `to`; this is where it leads
    link: Option<Placed<String>>,
    /// Where it goes: a folder if it ends in `/`, otherwise the path of exactly one file
    to: Placed<String>,
    /// Which of the outputs, as a glob; all if it is absent
    path: Option<Placed<String>>,
    /// With this, names are whole paths in `from`, less this folder at their beginning
    strip_prefix: Option<Placed<String>>,
    /// Permission bits of the files, or of the empty folder, in octal: `0755`
    mode: Option<Placed<String>>,
    /// Who owns it: a user, and perhaps a group after `:`, as numbers or as names of the image
    owner: Option<Placed<String>>,
    /// What the files may do without being root: `net_bind_service`
    #[serde(default)]
    capabilities: Vec<Placed<String>>,
    /// Entries with the same name make one layer; otherwise each is a layer of its own
    pub layer: Option<String>,
    /// Only the image for this platform has it
    pub platform: Option<Placed<String>>,
}

/// What an entry places, as a part of *what*.
#[derive(Clone, Debug, Serialize)]
pub struct Piece {
    /// The path from the image's root.
    pub to: String,
    /// What goes there.
    #[serde(flatten)]
    pub gives: Gives,
    /// Who owns it; root if it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// Names of capabilities, sorted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
}

/// What a piece places.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Gives {
    /// The contents of a tree.
    Tree(Digest),
    /// A file with this SHA-256, and its permission bits.
    Fetched {
        /// The SHA-256.
        sha256: Digest,
        /// Permission bits.
        mode: u32,
        /// Where it is to be had; not in the key.
        #[serde(skip)]
        url: String,
    },
    /// A folder, perhaps with other permission bits than it would have.
    Folder {
        /// Permission bits.
        mode: Option<u32>,
    },
}

impl FileEntry {
    /// Resolves the names in it and checks what can be checked.
    pub fn resolve(&mut self, names: &mut dyn Names) {
        let place = self.to.range();
        let given = [self.from.is_some(), self.url.is_some(), self.link.is_some()];
        if given.iter().filter(|given| **given).count() > 1 {
            let message = format!("what goes to `{}` is said twice", self.to.value);
            names.mistake(place.clone(), message, Some("one of `from`, `url` and `link`".into()));
        }
        match self.placement() {
            Some(mut placement) => {
                placement.resolve(names);
                self.from = Some(placement.from);
            }
            None => {
                check_to(&self.to, names);
                check_mode(self.mode.as_ref(), names);
                for (name, field) in [("path", &self.path), ("strip_prefix", &self.strip_prefix)] {
                    if let Some(field) = field {
                        let message = format!("`{name}` chooses from a `from`, and there is none");
                        names.mistake(field.range(), message, None);
                    }
                }
                if given == [false; 3] && !self.to.ends_with('/') {
                    let hint =
                        "say it with `from`, `url` or `link`; a `/` at the end makes an empty folder";
                    let message = format!("nothing is said to go to `{}`", self.to.value);
                    names.mistake(place.clone(), message, Some(hint.into()));
                }
            }
        }
        self.check_url(names);
        if let Some(link) = &self.link {
            if link.is_empty() || link.contains('\0') {
                names.mistake(link.range(), "a link leads nowhere".into(), None);
            }
            if self.to.ends_with('/') {
                let message = format!("`{}` is a folder, and a link is a name", self.to.value);
                names.mistake(place.clone(), message, Some("leave out the `/` at the end".into()));
            }
            if let Some(mode) = &self.mode {
                names.mistake(mode.range(), "a link has no mode".into(), None);
            }
        }
        if plain(self.to.as_bytes()).is_empty() && given != [true, false, false] {
            let message = "the root is no place for a single thing".to_string();
            names.mistake(place, message, Some("write where below it".into()));
        }
        if let Some(owner) = &self.owner
            && let Err((message, hint)) = Owner::parse(owner)
        {
            names.mistake(owner.range(), message, Some(hint));
        }
        for name in &self.capabilities {
            if self.from.is_none() && self.url.is_none() {
                names.mistake(name.range(), "only files have capabilities".into(), None);
            } else if capability::number(name).is_none() {
                let hint = did_you_mean(&name.to_lowercase(), capability::NAMES);
                let message = format!("`{}` is not a capability", name.value);
                names.mistake(name.range(), message, hint);
            }
        }
    }

    fn check_url(&self, names: &mut dyn Names) {
        let Some(url) = &self.url else {
            if let Some(sha256) = &self.sha256 {
                let message = "`sha256` belongs to a `url`, and there is none".to_string();
                names.mistake(sha256.range(), message, None);
            }
            return;
        };
        let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        let host = rest.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
        match host {
            Some(host) if host.contains('@') => names.hidden_mistake(
                format!("a `url` of `{}` has a user or password in it", names.task()),
                "put the file where it is to be had without one".into(),
            ),
            Some(host) if !host.is_empty() && !url.contains(char::is_whitespace) => {}
            _ => names.mistake(
                url.range(),
                format!("`{}` is no address of a file", url.value),
                Some("it begins with `https://` or `http://`".into()),
            ),
        }
        match &self.sha256 {
            None => names.mistake(
                url.range(),
                "a `url` needs the `sha256` of its file".into(),
                Some("`curl -L URL | sha256sum` says it".into()),
            ),
            Some(sha256) if self.digest().is_none() => {
                let message = format!("`{}` is no SHA-256", sha256.value);
                names.mistake(sha256.range(), message, Some("64 hexadecimal digits".into()));
            }
            Some(_) => {}
        }
        if self.to.ends_with('/') && self.url_name().is_none() {
            let message = format!("`{}` does not say how the file is called", url.value);
            names.mistake(url.range(), message, Some("give `to` a name at its end".into()));
        }
    }

    /// Whether the image for a platform has it.
    pub fn is_for(&self, platform: &Platform) -> bool {
        let own = self.platform.as_ref().and_then(|text| text.parse::<Platform>().ok());
        own.is_none_or(|own| own.matches(platform))
    }

    fn digest(&self) -> Option<Digest> {
        let text = self.sha256.as_ref()?.to_lowercase();
        format!("sha256:{}", text.strip_prefix("sha256:").unwrap_or(&text)).parse().ok()
    }

    /// The last name of an address.
    fn url_name(&self) -> Option<&str> {
        let path = self.url.as_ref()?.split(['?', '#']).next()?.split_once("://")?.1.split_once('/')?.1;
        let name = path.rsplit('/').next()?;
        (!name.is_empty() && name != "." && name != ".." && !name.contains('%')).then_some(name)
    }

    fn placement(&self) -> Option<Placement> {
        let Self { from, to, path, strip_prefix, mode, .. } = self.clone();
        Some(Placement { from: from?, to, path, strip_prefix, mode })
    }

    /// The tasks that it reads.
    pub fn needs(&self) -> &[TaskName] {
        self.from.as_ref().map_or(&[], Reference::tasks)
    }

    /// What it places, with the content of tasks and of the project.
    pub fn piece(&self, inputs: &Inputs<'_>) -> Result<Piece> {
        let cas = &inputs.session.cache.cas;
        let mut to = plain(self.to.as_bytes());
        let mode = self.mode.as_ref().and_then(|mode| parse_mode(mode));
        let gives = if let Some(placement) = self.placement() {
            let Taken { to: place, found } = placement.take(inputs)?;
            to = place;
            let mut draft = Draft::empty(cas);
            for (name, entry) in found {
                insert(&mut draft, &name, entry)?;
            }
            Gives::Tree(draft.store()?)
        } else if let (Some(url), Some(sha256)) = (&self.url, self.digest()) {
            if self.to.ends_with('/') {
                let name = self.url_name().unwrap_or_default();
                to = plain(&[&to, &b"/"[..], name.as_bytes()].concat());
            }
            Gives::Fetched { sha256, mode: mode.unwrap_or(0o644), url: url.value.clone() }
        } else if let Some(link) = &self.link {
            let name = placement::last_name(&to).to_vec();
            to.truncate((to.len() - name.len()).saturating_sub(1));
            let mut draft = Draft::empty(cas);
            draft.insert(&name, Entry::Link { target: link.as_bytes().to_vec() })?;
            Gives::Tree(draft.store()?)
        } else {
            Gives::Folder { mode }
        };
        let owner = self.owner.as_ref().and_then(|owner| Owner::parse(owner).ok());
        let mut capabilities: Vec<String> = self
            .capabilities
            .iter()
            .filter_map(|name| capability::number(name))
            .map(capability::name)
            .collect();
        capabilities.sort();
        capabilities.dedup();
        Ok(Piece { to: String::from_utf8_lossy(&to).into_owned(), gives, owner, capabilities })
    }
}
