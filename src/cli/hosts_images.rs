//! `hosts --images`: the names that hosts have of our images, and which of them nobody wants any more. Nothing is
//! removed: what still runs is not known here.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::doctor::{ask, columns, worst_of};
use super::engine::Engine;
use super::forecast::{State, forecast};
use super::run::How;
use super::{Halt, Session, say};
use crate::config::Config;
use crate::error::Result;
use crate::host::ctr::Name;
use crate::host::node::{At, Spec, Trouble, Watch};
use crate::host::ssh::Remote;
use crate::host::stop::Stop;
use crate::host::{fs, index};
use crate::report::text;
use crate::tasks::import;
use crate::tasks::shipped::repository;

/// The longest list of names of an embedded node, in bytes.
const LONGEST: u64 = 64 << 20;

/// In which form it is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// For people.
    Table,
    /// A line of JSON for each host.
    Json,
}

/// What the project's imports want.
#[derive(Default)]
struct Wanted {
    /// For each host the names, with what they may be given to.
    names: BTreeMap<String, BTreeMap<String, BTreeSet<String>>>,
    /// The repositories of our images.
    repositories: BTreeSet<String>,
    /// Declared names.
    declared: BTreeSet<String>,
    /// Imports of which it is not known what they want.
    unknown: Vec<String>,
}

/// Lists the names.
pub fn run(session: &Session, config: &Config, form: Form) -> Result<u8, Halt> {
    let wanted = wanted(session)?;
    let declared: Vec<String> = wanted.declared.iter().cloned().collect();
    let root = session.place.root.as_path();
    let links = &session.place.links;
    let answers = ask(session, config, |spec, watch| names(spec, &declared, root, links, watch))?;
    let mut rows = vec![["host", "image", "size", "pin", "state"].map(str::to_string).to_vec()];
    let (mut lines, mut worst, mut old) = (String::new(), 0, 0);
    for (spec, answer) in &answers {
        let host = &spec.name;
        let (mut listed, mut error, mut outcome) = (Vec::new(), None, "ok");
        match answer {
            Ok(names) => {
                let here = wanted.names.get(host);
                for name in names {
                    let state = wanted.state(here, name);
                    old += usize::from(state == OLD);
                    let pin = if name.pinned { "pinned" } else { "-" };
                    rows.push([host, &name.name, &name.size, pin, state].map(str::to_string).to_vec());
                    listed.push(json!({ "name": name.name, "digest": name.digest, "size": name.size,
                        "pinned": name.pinned, "state": state }));
                }
                let absent = here.into_iter().flatten().map(|(name, _)| name);
                for name in absent.filter(|absent| !names.iter().any(|name| name.name == **absent)) {
                    rows.push([host, name, "-", "-", MISSING].map(str::to_string).to_vec());
                    listed.push(json!({ "name": name, "digest": null, "size": null, "pinned": false, "state": MISSING }));
                }
                if listed.is_empty() {
                    rows.push([host, "-", "-", "-", "none of our images"].map(str::to_string).to_vec());
                }
            }
            Err((code, said)) => {
                let why = said.first().map_or(String::new(), |said| said.message.clone());
                worst = worst_of(worst, *code);
                outcome = if *code == 3 { "deferred" } else { "failed" };
                rows.push([host, "-", "-", "-", &why].map(str::to_string).to_vec());
                error = Some(why);
            }
        }
        let line = json!({ "event": "images", "host": host, "outcome": outcome, "error": error, "images": listed });
        lines.push_str(&format!("{line}\n"));
    }
    if form == Form::Json {
        say(&lines);
        return Ok(worst);
    }
    say(&columns(&rows));
    for import in &wanted.unknown {
        say(&format!("note: what `{import}` wants is not known before it has run\n"));
    }
    if old > 0 {
        say(&format!("{} that nobody here wants: a pod may still run it\n", text::count(old, "old name")));
    }
    Ok(worst)
}

const WANTED: &str = "wanted";
const OLD: &str = "old";
const MISSING: &str = "missing";

impl Wanted {
    /// What is to be said of a name on a host that wants these.
    fn state(&self, here: Option<&BTreeMap<String, BTreeSet<String>>>, name: &Name) -> &'static str {
        match here.and_then(|here| here.get(&name.name)) {
            Some(digests) if digests.contains(&name.digest) => WANTED,
            Some(_) => "another image",
            None if self.repositories.contains(repository(&name.name)) => OLD,
            None => "not of this project",
        }
    }

    fn add(&mut self, wants: &serde_json::Value) {
        let Some((hosts, images)) = import::wanted(wants) else { return };
        for image in &images {
            let variants = image.variants.iter().map(|variant| &variant.descriptor);
            let digests: BTreeSet<String> = variants
                .chain([&image.descriptor])
                .filter_map(|descriptor| Some(descriptor["digest"].as_str()?.to_string()))
                .collect();
            for name in image.content_tags.iter().chain(&image.tags) {
                self.repositories.insert(repository(name).to_string());
                for host in &hosts {
                    let here = self.names.entry(host.name.clone()).or_default();
                    here.insert(name.clone(), digests.clone());
                }
            }
            self.declared.extend(image.tags.iter().cloned());
        }
    }
}

/// What all imports together want.
fn wanted(session: &Session) -> Result<Wanted, Halt> {
    let mut wanted = Wanted::default();
    for (import, wants) in wants(session)? {
        match wants {
            Some(wants) => wanted.add(&wants),
            None => wanted.unknown.push(import),
        }
    }
    Ok(wanted)
}

/// What each import wants: as far as that is known now, otherwise as of the last run.
pub fn wants(session: &Session) -> Result<Vec<(String, Option<serde_json::Value>)>, Halt> {
    let (cache, project) = (session.place.cache()?, session.place.load()?);
    let history = cache.history(&session.place.root).past();
    let stop = Stop::new(Stop::GRACE)?;
    let how = How::usual();
    let engine = Engine::new(&session.place, &cache, &project, &how, &stop);
    let imports: BTreeSet<_> =
        project.graph.ids().filter(|id| project.graph.node(*id).name.kind() == "import").collect();
    let mut all = Vec::new();
    for (id, state) in forecast(&engine, &project.graph.closure(&imports)) {
        let name = &project.graph.node(id).name;
        if name.kind() != "import" {
            continue;
        }
        let known = match state {
            State::Asks(wants, _) => Some(wants),
            _ => history.last(&name.0).and_then(|last| last.wants),
        };
        all.push((name.0.clone(), known));
    }
    Ok(all)
}

/// The names on a host.
fn names(
    spec: &Spec,
    declared: &[String],
    root: &std::path::Path,
    links: &crate::host::ssh::Links,
    watch: &dyn Watch,
) -> Result<Vec<Name>, Trouble> {
    match &spec.at {
        At::Ssh(address) => Remote::open(&spec.name, address, root, links, watch)?.names(declared),
        At::Local(folder) => {
            let path = root.join(folder).join("images/index.json");
            let text = fs::read(&path, LONGEST)?.unwrap_or_default();
            let index: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
            let name = |entry: &serde_json::Value| {
                Some(Name {
                    name: index::name_of(entry)?.to_string(),
                    digest: entry["digest"].as_str()?.to_string(),
                    size: "-".into(),
                    pinned: false,
                })
            };
            Ok(index["manifests"].as_array().into_iter().flatten().filter_map(name).collect())
        }
        At::Docker(_) => Ok(Vec::new()),
    }
}
