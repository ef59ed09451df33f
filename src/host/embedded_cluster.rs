//! The embedded cluster: a folder here that is a cluster like any other, and what a GitOps repository wants
//! (language, "Files"). `objects/<namespace or _cluster>/<kind.group>/<name>.yaml` are its objects,
//! `inventory/` says who owns which, `lock` is held while it is changed. Knows of objects only what
//! decides where they lie.

use std::cell::{Cell, OnceCell};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::{At, Failure, Result};
use crate::host::cluster::{Answer, Cluster, Identity, Lock, Presence, Question, Scope, Spec};
use crate::host::fs::{self, Kind};
use crate::host::inside::Inside;
use crate::host::node::{Trouble, Watch};

const OBJECTS: &str = "objects";
const INVENTORY: &str = "inventory";
const LOCK: &str = "lock";
/// The folder of what belongs to no namespace; no namespace can be named so.
const WHOLE: &str = "_cluster";
/// The version of the inventory that is written here.
const VERSION: u64 = 1;
/// The longest object and the longest inventory that are read, in bytes.
const LONGEST: u64 = 64 << 20;
/// A wait for the lock is worth a word after this time.
const PATIENCE: Duration = Duration::from_secs(1);

/// A folder that is a cluster.
pub struct Embedded<'a> {
    path: PathBuf,
    shown: PathBuf,
    inside: OnceCell<Inside>,
    watch: &'a dyn Watch,
}

#[derive(Serialize)]
struct Written<'a> {
    version: u64,
    objects: &'a [Identity],
}

#[derive(Deserialize)]
struct Read {
    objects: Vec<Identity>,
}

/// What decides about the scope of a kind, from its definition.
#[derive(Deserialize)]
struct Definition {
    spec: Defined,
}

#[derive(Deserialize)]
struct Defined {
    group: String,
    names: Named,
    scope: String,
}

#[derive(Deserialize)]
struct Named {
    kind: String,
}

impl<'a> Embedded<'a> {
    /// Reaches the cluster. A folder that is not there is an empty cluster.
    pub fn open(spec: &Spec, root: &Path, watch: &'a dyn Watch) -> Result<Self, Trouble> {
        let (path, shown) = (root.join(&spec.dir), PathBuf::from(&spec.dir));
        let inside = match Inside::open(&path, &shown) {
            Ok(inside) => OnceCell::from(inside),
            Err(error) if error.kind() == ErrorKind::NotFound => OnceCell::new(),
            Err(error) if error.kind() == ErrorKind::NotADirectory => {
                return Err(Failure::new(format!("`{}` is not a folder", shown.display()))
                    .hint(format!(
                        "`{}` is an embedded cluster: its folder is made when something is applied",
                        spec.name
                    ))
                    .into());
            }
            Err(error) => return Err(error).at("open", &shown).map_err(Trouble::Error),
        };
        Ok(Self { path, shown, inside, watch })
    }

    /// The cluster's folder, made if need be.
    fn make(&self) -> Result<&Inside> {
        if let Some(inside) = self.inside.get() {
            inside.forget();
            return Ok(inside);
        }
        fs::make_folder(&self.path)?;
        let inside = Inside::open(&self.path, &self.shown).at("open", &self.shown)?;
        Ok(self.inside.get_or_init(|| inside))
    }

    /// Which object is meant, where the scope of its kind was not known.
    fn settle(
        &self,
        inside: Option<&Inside>,
        definitions: &Definitions,
        of: &(Identity, Scope),
    ) -> Result<Identity> {
        let (object, scope) = of;
        let scope = match (scope, inside) {
            (Scope::Unknown, Some(inside)) => definitions.scope(inside, &object.group, &object.kind)?,
            (scope, _) => *scope,
        };
        let namespace = match scope {
            Scope::Cluster => None,
            Scope::Namespaced => Some(object.namespace.clone().unwrap_or_else(|| "default".into())),
            Scope::Unknown => object.namespace.clone(),
        };
        Ok(Identity { namespace, ..object.clone() })
    }

    fn write(&self, inside: &Inside, names: &[&str], mode: u32, bytes: &[u8]) -> Result<()> {
        inside.place(names, mode, |mut file| file.write_all(bytes).at("write", &inside.shown(names)))?;
        inside.settle(names)
    }
}

impl Cluster for Embedded<'_> {
    fn ask(&self, question: &Question) -> Result<Answer, Trouble> {
        let mut answer = Answer::default();
        let inside = self.inside.get();
        if let Some(inside) = inside {
            inside.forget();
        }
        let definitions = Definitions::default();
        for object in &question.objects {
            self.watch.check()?;
            let identity = self.settle(inside, &definitions, object)?;
            let place = place(&identity)?;
            let text = match inside {
                Some(inside) => inside.read(&names(&place), LONGEST)?,
                None => None,
            };
            answer.objects.push((identity, text.map(|text| String::from_utf8_lossy(&text).into_owned())));
        }
        let Some(inside) = inside else { return Ok(answer) };
        for (name, objects) in inventories(inside)? {
            for object in objects {
                if name != question.inventory {
                    answer.owners.insert(object, name.clone());
                    continue;
                }
                let presence = match inside.status(&names(&place(&object)?))? {
                    Some(_) => Presence::There,
                    None => Presence::Gone,
                };
                answer.inventory.push((object, presence));
            }
        }
        Ok(answer)
    }

    fn lock(&self) -> Result<Box<dyn Lock + '_>, Trouble> {
        let inside = self.make()?;
        let (lock, start, told) = (inside.lock_file(LOCK)?, Instant::now(), Cell::new(false));
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(std::fs::TryLockError::WouldBlock) => {}
                Err(std::fs::TryLockError::Error(error)) => {
                    return Err(error).at("lock", &inside.shown(&[LOCK])).map_err(Trouble::Error);
                }
            }
            self.watch.check()?;
            if !told.get() && start.elapsed() >= PATIENCE {
                told.set(true);
                self.watch.waits();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        inside.clear()?;
        Ok(Box::new(Held { inside, _file: lock }))
    }

    fn apply(&self, object: &Identity, text: &str) -> Result<(), Trouble> {
        let place = place(object)?;
        self.watch.check()?;
        // What a Secret holds is not for everybody.
        let mode = if object.kind == "Secret" && object.group.is_empty() { 0o600 } else { 0o644 };
        self.write(self.make()?, &names(&place), mode, text.as_bytes())?;
        self.watch.moved(text.len() as u64);
        Ok(())
    }

    fn delete(&self, object: &Identity) -> Result<(), Trouble> {
        let place = place(object)?;
        self.watch.check()?;
        let inside = self.make()?;
        let names = names(&place);
        // The status also sees that no folder on the way is a link.
        if inside.status(&names)?.is_none() {
            return Ok(());
        }
        fs::remove_file(&inside.path(&names))?;
        inside.settle(&names)?;
        // Folders that nothing is in any more go too.
        for above in [&names[..3], &names[..2]] {
            let folder = inside.path(above);
            if fs::list(&folder).at("list", &inside.shown(above))?.is_empty() {
                fs::remove_tree(&folder)?;
            }
        }
        inside.forget();
        Ok(())
    }

    fn remember(&self, inventory: &str, objects: &[Identity]) -> Result<(), Trouble> {
        let file = format!("{inventory}.json");
        if !is_name(&file) {
            return Err(Failure::new(format!("`{inventory}` cannot be the name of an inventory")).into());
        }
        let mut text = match serde_json::to_string_pretty(&Written { version: VERSION, objects }) {
            Ok(text) => text,
            Err(error) => panic!("BUG: an inventory cannot be written as JSON: {error}"),
        };
        text.push('\n');
        Ok(self.write(self.make()?, &[INVENTORY, &file], 0o644, text.as_bytes())?)
    }
}

struct Held<'a> {
    inside: &'a Inside,
    _file: File,
}

impl Lock for Held<'_> {}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // What cannot be cleared away now is cleared away by the next one who has the lock.
        let _ = self.inside.clear();
    }
}

/// The scopes of the kinds that are defined in the cluster, read when the first one is asked for.
#[derive(Default)]
struct Definitions(OnceCell<BTreeMap<(String, String), Scope>>);

impl Definitions {
    fn scope(&self, inside: &Inside, group: &str, kind: &str) -> Result<Scope> {
        let known = match self.0.get() {
            Some(known) => known,
            None => {
                let read = definitions(inside)?;
                self.0.get_or_init(|| read)
            }
        };
        Ok(known.get(&(group.to_string(), kind.to_string())).copied().unwrap_or(Scope::Unknown))
    }
}

fn definitions(inside: &Inside) -> Result<BTreeMap<(String, String), Scope>> {
    let mut found = BTreeMap::new();
    let folder = [OBJECTS, WHOLE, "CustomResourceDefinition.apiextensions.k8s.io"];
    for name in list(inside, &folder)? {
        let path = [folder[0], folder[1], folder[2], name.as_str()];
        let Some(bytes) = inside.read(&path, LONGEST)? else { continue };
        // One that somebody has damaged says nothing; it is written again if it is ours.
        if let Ok(Definition { spec }) = serde_saphyr::from_slice(&bytes) {
            let scope = if spec.scope == "Cluster" { Scope::Cluster } else { Scope::Namespaced };
            found.insert((spec.group, spec.names.kind), scope);
        }
    }
    Ok(found)
}

fn inventories(inside: &Inside) -> Result<BTreeMap<String, Vec<Identity>>> {
    let mut found = BTreeMap::new();
    for file in list(inside, &[INVENTORY])? {
        let Some(name) = file.strip_suffix(".json") else { continue };
        let path = [INVENTORY, file.as_str()];
        let Some(bytes) = inside.read(&path, LONGEST)? else { continue };
        let shown = inside.shown(&path);
        let wrong = |why: String| {
            Failure::new(format!("`{}` is not an inventory: {why}", shown.display()))
                .hint("restore it: without it nobody knows which objects are whose")
        };
        let value: serde_json::Value =
            serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
        match value.get("version").and_then(serde_json::Value::as_u64) {
            Some(1..=VERSION) => {}
            Some(newer @ 2..) => {
                return Err(Failure::new(format!(
                    "`{}` has version {newer}, and this vcbuild knows only {VERSION}",
                    shown.display()
                ))
                .hint("use the newer vcbuild that wrote it")
                .into());
            }
            _ => return Err(wrong("it has no version".into()).into()),
        }
        let Read { objects } = Read::deserialize(&value).map_err(|error| wrong(error.to_string()))?;
        found.insert(name.to_string(), objects);
    }
    Ok(found)
}

/// The names in a folder of the cluster, sorted; none if it is not there.
fn list(inside: &Inside, folder: &[&str]) -> Result<Vec<String>> {
    match inside.status(folder)? {
        Some(found) if found.kind == Kind::Folder => {}
        _ => return Ok(Vec::new()),
    }
    let names = fs::list(&inside.path(folder)).at("list", &inside.shown(folder))?;
    Ok(names.into_iter().filter_map(|name| name.into_string().ok()).collect())
}

/// Where an object lies. Fails if one of its names could lead elsewhere.
fn place(object: &Identity) -> Result<[String; 4]> {
    let namespace = object.namespace.as_deref().unwrap_or(WHOLE);
    let kind = match object.group.as_str() {
        "" => object.kind.clone(),
        group => format!("{}.{group}", object.kind),
    };
    let file = format!("{}.yaml", object.name);
    let safe = is_name(namespace)
        && is_name(&kind)
        && is_name(&file)
        && !object.kind.is_empty()
        && !object.name.is_empty()
        && object.namespace.as_deref() != Some(WHOLE);
    if !safe {
        return Err(Failure::new(format!("`{object}` cannot be the name of a file")).into());
    }
    Ok([OBJECTS.into(), namespace.into(), kind, file])
}

fn names(place: &[String; 4]) -> [&str; 4] {
    place.each_ref().map(String::as_str)
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 255
        && !matches!(name, "." | "..")
        && !name.contains(['/', '\0', '\n'])
}

#[cfg(test)]
#[path = "embedded_cluster_tests.rs"]
mod tests;
