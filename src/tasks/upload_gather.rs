//! What an upload brings: outputs of tasks and files of the project, by their names in the folder that they
//! go to. Knows no host.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::cache::cas::Cas;
use crate::cache::stamps::Algorithm;
use crate::cache::tree::Entry;
use crate::digest::{Blob, Digest};
use crate::error::{Error, Failure, Result};
use crate::glob::Globs;
use crate::host::fs::Stamp;
use crate::work::Inputs;

/// Where the content of a local file can be read.
pub type Source = (Blob, Stamp, PathBuf);

/// What is to be uploaded, by its name in the folder that it goes to.
#[derive(Default)]
pub struct Gathered {
    /// Names and what they name; folders are there too.
    pub found: Vec<(String, Entry)>,
    /// Local files by BLAKE3.
    pub sources: BTreeMap<Digest, Source>,
    /// Their SHA-256.
    pub named: BTreeMap<Digest, Blob>,
}

impl Gathered {
    /// Takes the outputs in a task's value.
    pub fn outputs(&mut self, cas: &Cas, value: &Digest, declared: Option<&Vec<String>>) -> Result<()> {
        let Some(declared) = declared else {
            for (name, entry) in cas.node(value)?.entries {
                self.add(cas, text(&name)?, entry)?;
            }
            return Ok(());
        };
        for path in declared {
            let path = path.trim_end_matches('/');
            let missing = || Failure::new(format!("the output `{path}` is not there"));
            let entry = cas.entry(value, path)?.ok_or_else(missing)?;
            self.add(cas, last_name(path).to_string(), entry)?;
        }
        Ok(())
    }

    fn add(&mut self, cas: &crate::cache::cas::Cas, name: String, entry: Entry) -> Result<()> {
        self.found.push((name.clone(), entry.clone()));
        let Entry::Folder { tree, .. } = entry else { return Ok(()) };
        cas.walk(&tree, &mut |path, entry| {
            self.found.push((format!("{name}/{}", text(path)?), entry.clone()));
            Ok(())
        })
    }

    /// Takes a file of the project by its last name, the contents of a folder, or what a glob matches.
    pub fn local(&mut self, inputs: &Inputs<'_>, path: &str) -> Result<()> {
        let path = path.trim_end_matches('/');
        inputs.look(|local, stamps, seen| {
            let first = seen.sources.len();
            match local.entry(path, stamps, seen)? {
                Some(Entry::Folder { .. }) => {
                    for (name, entry) in local.select(path, &Globs::all(), stamps, seen)? {
                        self.found.push((text(&name)?, entry));
                    }
                }
                Some(entry) => self.found.push((last_name(path).to_string(), entry)),
                None if path.contains(['*', '?', '[', '{']) => {
                    let globs = Globs::new(&[path]).map_err(Error::failed)?;
                    let found = local.select("", &globs, stamps, seen)?;
                    if found.is_empty() {
                        return Err(Error::failed(format!("`{path}` matches nothing")));
                    }
                    for (name, entry) in found {
                        self.found.push((last_name(&text(&name)?).to_string(), entry));
                    }
                }
                None => return Err(Error::failed(format!("there is no `{path}` in the project"))),
            }
            for (blob, stamp, path) in &seen.sources[first..] {
                let same = stamps.digest(path, Algorithm::Sha256)?.filter(|(now, _)| now.stamp == *stamp);
                let changed = || Failure::new(format!("read `{}`: it keeps changing", path.display()));
                let (_, named) = same.ok_or_else(changed)?;
                self.named.insert(blob.digest, named);
                self.sources.insert(blob.digest, (*blob, *stamp, path.clone()));
            }
            Ok(())
        })
    }
}

fn last_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

pub fn text(name: &[u8]) -> Result<String> {
    String::from_utf8(name.to_vec()).map_err(|_| {
        Error::failed(format!("`{}` is not UTF-8 and cannot be uploaded", String::from_utf8_lossy(name)))
    })
}
