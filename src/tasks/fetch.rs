//! `fetch`: a file from a host, by the digest that it has there. Does not know what kind of host it is.

use std::cell::Cell;
use std::path::Path;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cache::cas::Writing;
use crate::cache::draft::Draft;
use crate::cache::tree::Entry;
use crate::digest::{Blob, Digest};
use crate::error::{Error, Failure, Result};
use crate::host::node::{self, Asked, Found, Memory, Question, Spec, Trouble, Watch};
use crate::host::ssh::Links;
use crate::recipe::AtMost;
use crate::tasks::names::{Declare, Names, Outputs, Placed};
use crate::tasks::secret::{self, Source};
use crate::tasks::shipping::{self, Told};
use crate::work::{Action, Class, Context, Inputs, Reach, Task, TaskName, Work};

/// A file on a host.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fetch {
    /// The host that has the file.
    host: Placed<String>,
    /// The file's path on the host.
    path: Placed<String>,
    /// Whether the file is secret: it is not kept, and goes nowhere but where an `upload` with `secret = true` or
    /// `vcbuild get` sends it.
    #[serde(default)]
    secret: bool,
    #[serde(skip)]
    spec: Option<Spec>,
    #[serde(skip)]
    source: Option<Source>,
}

impl Declare for Fetch {
    fn resolve(&mut self, names: &mut dyn Names) {
        let mut hosts = names.hosts(std::slice::from_ref(&self.host));
        if hosts.len() > 1 {
            let message =
                format!("`{}` is {} hosts, and a file is fetched from one", *self.host, hosts.len());
            names.mistake(self.host.range(), message, None);
        }
        self.spec = hosts.pop();
        if let (true, Some(node)) = (self.secret, self.spec.clone()) {
            self.source = Some(Source::Host { node, path: self.path.value.clone() });
        }
        if node::last_name(&self.path).is_none() {
            let message = format!("`{}` cannot be the path of a file on a host", *self.path);
            names.mistake(self.path.range(), message, None);
        }
    }

    fn outputs(&self) -> Outputs {
        match self.secret {
            true => Outputs::Secret { host: self.host.clone(), path: self.path.value.clone() },
            false => Outputs::Contents,
        }
    }

    fn secret(&self) -> Option<&Source> {
        self.source.as_ref()
    }
}

impl Task for Fetch {
    fn class(&self) -> Class {
        if self.secret { Class::Effect } else { Class::Action }
    }

    fn needs(&self) -> Vec<TaskName> {
        Vec::new()
    }

    fn work(&self, inputs: &Inputs<'_>) -> Result<Work> {
        let Some(spec) = &self.spec else { panic!("BUG: a fetch without a host is to be done") };
        if let Some(secret) = self.source.clone() {
            return Ok(Work::Effect(Box::new(secret::Fetching { secret })));
        }
        let (session, path) = (inputs.session, &self.path.value);
        let watch = Told::source(&spec.name, session.stop, inputs.tell, None);
        shipping::allowed(spec, session.network)?;
        let found = ask(spec, path, session.local.root(), session.links, &session.cache.cas.stamps, &watch)
            .map_err(|trouble| shipping::failed(&spec.name, trouble))?;
        let (blob, mode) = match found {
            Found::File { blob, mode, .. } => (blob, mode),
            Found::Nothing => {
                return Err(Failure::new(format!("there is no `{path}` on `{}`", spec.name)).into());
            }
            found => {
                let what = found.words();
                let message = format!("`{path}` on `{}` is {what}: only a file is fetched", spec.name);
                return Err(Failure::new(message).into());
            }
        };
        inputs.saw_remote(fact(spec, path, &blob, mode));
        let mode = if mode & 0o100 == 0 { 0o644 } else { 0o755 };
        Ok(Work::Action(Box::new(Fetching { spec: spec.clone(), path: path.clone(), blob, mode })))
    }
}

fn ask(
    spec: &Spec,
    path: &str,
    root: &Path,
    links: &Links,
    memory: &dyn Memory,
    watch: &dyn Watch,
) -> Result<Found, Trouble> {
    let asked = Asked { path: path.to_string(), size: None };
    let question = Question { files: vec![asked], ..Question::default() };
    let mut answer = node::open(spec, root, links, memory, watch)?.ask(&question)?;
    Ok(answer.files.pop().unwrap_or(Found::Nothing))
}

/// What was seen on a host: the node, the path, and what is there.
fn fact(spec: &Spec, path: &str, blob: &Blob, mode: u32) -> Value {
    json!({ "node": spec, "path": path, "digest": blob.digest, "size": blob.size, "mode": mode })
}

/// Asks again whether what was seen on a host is still so; a host that does not answer says no.
pub fn still(seen: &Value, reach: &Reach<'_>) -> bool {
    let Ok(spec) = Spec::deserialize(&seen["node"]) else { return false };
    let Some(path) = seen["path"].as_str() else { return false };
    if shipping::allowed(&spec, reach.network).is_err() {
        return false;
    }
    let watch = Told::source(&spec.name, reach.stop, reach.tell, None);
    match ask(&spec, path, reach.root, reach.links, &reach.cache.cas.stamps, &watch) {
        Ok(Found::File { blob, mode, .. }) => fact(&spec, path, &blob, mode) == *seen,
        _ => false,
    }
}

struct Fetching {
    spec: Spec,
    path: String,
    blob: Blob,
    mode: u32,
}

impl Fetching {
    fn name(&self) -> &str {
        node::last_name(&self.path).unwrap_or_default()
    }

    fn changed(&self) -> Error {
        let (path, host) = (&self.path, &self.spec.name);
        Failure::new(format!("`{path}` on `{host}` changed while it was fetched")).hint("run again").into()
    }
}

impl Action for Fetching {
    fn kind(&self) -> &'static str {
        "fetch"
    }

    fn revision(&self) -> u32 {
        1
    }

    fn what(&self) -> Value {
        json!({
            "digest": self.blob.digest,
            "mode": format!("{:04o}", self.mode),
            "name": self.name(),
            "size": self.blob.size,
        })
    }

    fn run(&self, context: &Context<'_>) -> Result<Digest> {
        let cas = &context.cache.cas;
        let watch = Told::source(&self.spec.name, context.stop, context.tell, Some(self.blob.size));
        let whole = cas.put_resumed(&self.blob, &|from, writer| {
            watch.moved(from);
            // Somebody may be writing to the file for ever.
            let grew = Cell::new(false);
            let longer = || {
                grew.set(true);
                self.changed()
            };
            let mut writing = Writing(writer);
            let mut most = AtMost::new(&mut writing, self.blob.size - from, &longer);
            let mut read = || {
                let from = self.blob.size - most.left;
                node::open(&self.spec, context.owner.0, context.links, &cas.stamps, &watch)
                    .and_then(|node| node.read(&self.path, from, &mut most))
            };
            // What was cut off goes on where it was cut.
            let done = match read() {
                Err(Trouble::Cut(_)) => read(),
                done => done,
            };
            if grew.get() {
                return Ok(false);
            }
            done.map(|()| true).map_err(|trouble| shipping::failed(&self.spec.name, trouble))
        })?;
        if !whole {
            return Err(self.changed());
        }
        let blob = self.blob;
        let mut tree = Draft::empty(cas);
        tree.insert(self.name().as_bytes(), Entry::File { mode: self.mode, blob })?;
        tree.store()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::host::fs;
    use crate::recipe::Content;
    use crate::tasks::samples::World;

    fn fetch(world: &World, path: &str) -> Fetch {
        let mut fetch: Fetch = toml::from_str(&format!("host = 'depot'\npath = '{path}'")).unwrap();
        assert_eq!(world.resolve(&mut fetch), Vec::<String>::new());
        fetch
    }

    fn action(world: &World, fetch: &Fetch) -> Result<(Box<dyn Action>, Value)> {
        let (work, mut noted) = world.work(fetch);
        match work? {
            Work::Action(action) => Ok((action, noted.remote.remove(0))),
            Work::Effect(_) => panic!("not an action"),
        }
    }

    #[test]
    fn the_file_arrives_with_its_name() {
        let world = World::new(&["depot"]);
        for (mode, bytes) in [(0o600, vec![]), (0o755, vec![7; 1 << 20])] {
            world.write("depot/files/etc/app/settings", &bytes, mode);
            let (action, seen) = action(&world, &fetch(&world, "/etc/app/settings")).unwrap();
            assert_eq!(action.what()["digest"], Digest::sha256_of(&bytes).to_string());
            let value = world.run(&*action).unwrap();
            let Some(Entry::File { mode: kept, blob }) = world.cache.cas.entry(&value, "settings").unwrap()
            else {
                panic!("not a file")
            };
            assert_eq!(kept, if mode == 0o600 { 0o644 } else { 0o755 });
            assert_eq!(world.cache.cas.read(blob).unwrap(), bytes);
            assert!(still(&seen, &world.reach()));
            world.write("depot/files/etc/app/settings", b"else", 0o600);
            assert!(!still(&seen, &world.reach()));
        }
    }

    #[test]
    fn what_decides_is_the_content_and_the_last_name() {
        let world = World::new(&["depot"]);
        for path in ["a/x", "b/x", "b/y"] {
            world.write(&format!("depot/files/{path}"), b"same", 0o644);
        }
        let what = |path: &str| action(&world, &fetch(&world, path)).unwrap().0.what();
        assert_eq!(what("/a/x"), what("b//x"));
        assert_ne!(what("/b/x"), what("/b/y"));
        let before = what("/a/x");
        world.write("depot/files/a/x", b"same", 0o755);
        assert_ne!(what("/a/x"), before);
    }

    #[test]
    fn an_edit_of_the_same_size_is_seen() {
        let world = World::new(&["depot"]);
        world.write("depot/files/x", b"one", 0o644);
        let (action, seen) = action(&world, &fetch(&world, "x")).unwrap();
        let path = world.path("depot/files/x");
        let times = std::fs::metadata(&path).unwrap().modified().unwrap();
        let mut file = std::fs::File::options().write(true).open(&path).unwrap();
        file.write_all(b"two").unwrap();
        file.set_modified(times).unwrap();
        assert!(!still(&seen, &world.reach()));
        for bytes in ["two", "tw", "one and more"] {
            world.write("depot/files/x", bytes.as_bytes(), 0o644);
            let error = world.run(&*action).unwrap_err();
            assert_eq!(error.to_string(), "`x` on `depot` changed while it was fetched");
        }
    }

    #[test]
    fn what_cannot_be_fetched_is_named() {
        let world = World::new(&["depot"]);
        let told = |path: &str| match action(&world, &fetch(&world, path)) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("`{path}` was fetched"),
        };
        assert_eq!(told("x"), "there is no `x` on `depot`");
        world.write("depot/files/folder/x", b"", 0o644);
        assert_eq!(told("folder"), "`folder` on `depot` is a folder: only a file is fetched");
        fs::make_link(b"folder", &world.path("depot/files/link")).unwrap();
        assert_eq!(told("link"), "`link` on `depot` is a link: only a file is fetched");
        assert_eq!(
            told("link/x"),
            "`depot/files/link` is a link, and links inside an embedded node are not followed"
        );
        fs::remove_tree(&world.path("depot")).unwrap();
        fs::make_link(b"/nowhere/at/all", &world.path("depot")).unwrap();
        let link = world.path("depot");
        assert_eq!(
            told("x"),
            format!("`depot` does not answer: `{}` is a link that leads nowhere", link.display())
        );
    }

    #[test]
    fn wrong_tables_are_mistakes() {
        let world = World::new(&["depot", "other"]);
        for (path, message) in [
            ("../x", "`../x` cannot be the path of a file on a host"),
            ("x/", "`x/` cannot be the path of a file on a host"),
            ("", "`` cannot be the path of a file on a host"),
        ] {
            let mut fetch: Fetch = toml::from_str(&format!("host = 'depot'\npath = '{path}'")).unwrap();
            assert_eq!(world.resolve(&mut fetch), [message]);
        }
        let mut fetch: Fetch = toml::from_str("host = 'all'\npath = 'x'").unwrap();
        assert_eq!(world.resolve(&mut fetch), ["`all` is 2 hosts, and a file is fetched from one"]);
    }

    #[test]
    fn a_stop_ends_it() {
        let world = World::new(&["depot"]);
        world.write("depot/files/x", &vec![1; 1 << 20], 0o644);
        let fetch = fetch(&world, "x");
        let (action, _) = action(&world, &fetch).unwrap();
        world.stop.ask();
        assert!(matches!(world.run(&*action), Err(Error::Interrupted)));
    }
}
