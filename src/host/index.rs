//! The list of names in a folder of images (`index.json`), as text to change: entries of other people
//! are kept as they are. Knows that an entry has a digest, a size and names, and nothing else of it.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::digest::{Blob, Digest};
use crate::error::{Error, Result};

/// The whole name, for those who would put a prefix before the other.
const WHOLE: &str = "io.containerd.image.name";
/// The name.
const NAME: &str = "org.opencontainers.image.ref.name";

/// A list of names.
pub struct Index {
    rest: Map<String, Value>,
    entries: Vec<Value>,
}

impl Index {
    /// An empty list.
    pub fn new() -> Self {
        let mut rest = Map::new();
        rest.insert("schemaVersion".into(), json!(2));
        rest.insert("mediaType".into(), json!("application/vnd.oci.image.index.v1+json"));
        Self { rest, entries: Vec::new() }
    }

    /// Reads a list; `None` if it is not one.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest: Map<String, Value> = serde_json::from_slice(bytes).ok()?;
        match rest.remove("manifests")? {
            Value::Array(entries) if entries.iter().all(Value::is_object) => Some(Self { rest, entries }),
            _ => None,
        }
    }

    /// The list as text.
    pub fn encode(&self) -> Vec<u8> {
        let mut whole = self.rest.clone();
        whole.insert("manifests".into(), Value::Array(self.entries.clone()));
        Value::Object(whole).to_string().into_bytes()
    }

    /// The descriptors behind those of the names that mean one thing, without their names.
    pub fn behind(&self, names: &[String]) -> BTreeMap<String, Value> {
        let mut found: BTreeMap<String, Value> = BTreeMap::new();
        let mut torn = Vec::new();
        for entry in &self.entries {
            let Some(name) = name_of(entry) else { continue };
            let plain = without_name(entry);
            if found.insert(name.to_string(), plain.clone()).is_some_and(|other| other != plain) {
                torn.push(name);
            }
        }
        let asked: std::collections::BTreeSet<&String> = names.iter().collect();
        found.retain(|name, _| asked.contains(name) && !torn.contains(&name.as_str()));
        found
    }

    /// Gives names to descriptors; an entry that has such a name makes way. Returns whether anything
    /// changed.
    pub fn put(&mut self, names: &BTreeMap<String, Value>) -> bool {
        let all: Vec<String> = names.keys().cloned().collect();
        let known = self.behind(&all);
        let moved: BTreeMap<&str, &Value> = names
            .iter()
            .filter(|(name, descriptor)| known.get(*name) != Some(*descriptor))
            .map(|(name, descriptor)| (name.as_str(), descriptor))
            .collect();
        self.entries.retain(|entry| name_of(entry).is_none_or(|name| !moved.contains_key(name)));
        for (name, descriptor) in &moved {
            let mut entry = (*descriptor).clone();
            entry["annotations"][NAME] = json!(name);
            entry["annotations"][WHOLE] = json!(name);
            self.entries.push(entry);
        }
        !moved.is_empty()
    }
}

/// The name of an entry. Where there is a whole name, the other may be any part of it.
pub fn name_of(entry: &Value) -> Option<&str> {
    let annotations = entry.get("annotations")?;
    annotations.get(WHOLE).or_else(|| annotations.get(NAME))?.as_str()
}

/// A descriptor without what names it in a list.
pub fn without_name(entry: &Value) -> Value {
    let mut entry = entry.clone();
    if let Some(fields) = entry.as_object_mut() {
        let rest = match fields.get_mut("annotations") {
            Some(Value::Object(annotations)) => {
                annotations.remove(NAME);
                annotations.remove(WHOLE);
                !annotations.is_empty()
            }
            _ => false,
        };
        if !rest {
            fields.remove("annotations");
        }
    }
    entry
}

/// The blob that a descriptor names.
pub fn blob(descriptor: &Value) -> Result<Blob> {
    let digest = descriptor.get("digest").and_then(Value::as_str).and_then(|text| text.parse().ok());
    let size = descriptor.get("size").and_then(Value::as_u64);
    match (digest, size) {
        (Some(digest @ Digest::Sha256(_)), Some(size)) => Ok(Blob { digest, size }),
        _ => Err(Error::failed(format!("`{descriptor}` is not a descriptor"))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn descriptor(n: u8) -> Value {
        json!({ "mediaType": "m", "digest": Digest::sha256_of(&[n]), "size": 1 })
    }

    #[test]
    fn what_others_wrote_stays() {
        let text = json!({ "schemaVersion": 2, "x": [1], "manifests": [
            { "digest": "sha256:0", "annotations": { NAME: "latest", WHOLE: "docker.io/a/b:latest" } },
            { "digest": "sha256:1", "annotations": { NAME: "latest", "y": "z" } },
            { "digest": "sha256:2" },
        ]});
        let mut index = Index::decode(text.to_string().as_bytes()).unwrap();
        let names = ["docker.io/a/b:latest".to_string(), "latest".to_string()];
        let behind = index.behind(&names);
        assert_eq!(behind[&names[0]], json!({ "digest": "sha256:0" }));
        assert_eq!(behind[&names[1]], json!({ "digest": "sha256:1", "annotations": { "y": "z" } }));
        assert!(index.put(&BTreeMap::from([(names[0].clone(), descriptor(1))])));
        let whole: Value = serde_json::from_slice(&index.encode()).unwrap();
        let entries = &whole["manifests"];
        assert_eq!(entries[0]["digest"], "sha256:1");
        assert_eq!(entries[1], json!({ "digest": "sha256:2" }));
        assert_eq!(entries[2]["annotations"][NAME], names[0].as_str());
        assert_eq!(whole["x"], json!([1]));
    }

    #[test]
    fn a_name_with_two_meanings_is_given_anew() {
        let mut index = Index::new();
        index.put(&BTreeMap::from([("a".to_string(), descriptor(1))]));
        let mut entry = index.entries[0].clone();
        entry["digest"] = json!("sha256:x");
        index.entries.push(entry);
        assert!(index.behind(&["a".to_string()]).is_empty());
        assert!(index.put(&BTreeMap::from([("a".to_string(), descriptor(1))])));
        assert_eq!(index.entries.len(), 1);
    }

    #[test]
    fn what_is_not_a_list_is_refused() {
        for text in ["", "[]", "{}", r#"{"manifests":{}}"#, r#"{"manifests":[1]}"#] {
            assert!(Index::decode(text.as_bytes()).is_none(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_last_name_counts_and_no_other_moves(
            steps in prop::collection::vec(prop::collection::btree_map("[a-d]", 0u8..4, 0..3), 0..8)
        ) {
            let (mut index, mut model) = (Index::new(), BTreeMap::new());
            for step in steps {
                let names: BTreeMap<String, Value> =
                    step.into_iter().map(|(name, n)| (name, descriptor(n))).collect();
                let changes = names.iter().any(|(name, value)| model.get(name) != Some(value));
                prop_assert_eq!(index.put(&names), changes);
                model.extend(names);
                index = Index::decode(&index.encode()).unwrap();
                let all: Vec<String> = model.keys().cloned().collect();
                prop_assert_eq!(&index.behind(&all), &model);
                prop_assert_eq!(index.entries.len(), model.len());
            }
        }
    }
}
