//! The action cache: result by key, one small file each, with the preimage beside the result and a
//! checksum of its own. What cannot be read is a miss. Knows no content.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Cache;
use crate::digest::{Blob, Digest, Hasher};
use crate::error::Result;
use crate::host::fs::{self, Durability};
use crate::recipe::{Part, Recipe};

/// The result of an action.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The version of this format; others are misses.
    pub version: u32,
    /// The tree that the action made.
    pub value: Digest,
    /// What it printed, if anything.
    pub log: Option<Blob>,
    /// Warnings that belong to the result and are shown again on a hit with `-v`.
    pub warnings: Vec<String>,
    /// Wall-clock milliseconds that it took.
    pub milliseconds: u64,
    /// What the key is made of.
    pub preimage: serde_json::Value,
}

/// The version that is written.
pub const VERSION: u32 = 1;

/// A record is at most this long; a longer file is a miss.
const LIMIT: u64 = 64 << 20;

impl Cache {
    fn record_path(&self, key: &Digest) -> PathBuf {
        let hex = key.hex();
        self.path("actions").join(&hex[..2]).join(&hex[2..])
    }

    /// The result recorded for a key, if there is a whole and undamaged one.
    pub fn lookup(&self, key: &Digest) -> Option<Record> {
        let bytes = fs::read(&self.record_path(key), LIMIT).ok()??;
        let text = std::str::from_utf8(&bytes).ok()?;
        let (sum, body) = text.split_once('\n')?;
        // The key is part of the sum, so that a record that strayed to another name is a miss.
        if sum != checksum(key, body) {
            return None;
        }
        let record: Record = serde_json::from_str(body).ok()?;
        (record.version == VERSION).then_some(record)
    }

    /// Records a result under its key, replacing what is there.
    pub fn record(&self, key: &Digest, record: &Record) -> Result<()> {
        let body = match serde_json::to_string(record) {
            Ok(body) => body,
            Err(error) => panic!("BUG: a record cannot be written as JSON: {error}"),
        };
        let text = format!("{}\n{body}", checksum(key, &body));
        fs::write(&self.record_path(key), text.as_bytes(), 0o644, Durability::Cache)
    }

    /// Calls `visit` with every key that has a file, and its record if it is a good one.
    pub fn each_record(&self, visit: &mut dyn FnMut(Digest, Option<Record>)) {
        let folder = self.path("actions");
        for shard in fs::list(&folder).unwrap_or_default() {
            for name in fs::list(&folder.join(&shard)).unwrap_or_default() {
                let text = format!("{}{}", shard.to_string_lossy(), name.to_string_lossy());
                if let Ok(key) = text.parse() {
                    visit(key, self.lookup(&key));
                }
            }
        }
    }

    /// Takes a record away.
    pub fn forget(&self, key: &Digest) -> Result<()> {
        fs::remove_file(&self.record_path(key))
    }

    /// The digest of a part's content, streamed when it is first asked for and remembered.
    pub fn content_digest(&self, part: &Part, hasher: Hasher) -> Result<Digest> {
        let algorithm = match &hasher {
            Hasher::Blake3(_) => "blake3",
            Hasher::Sha256(_) => "sha256",
        };
        let (what, digest) = match (part, &hasher) {
            (Part::Inline(bytes), Hasher::Blake3(_)) => return Ok(Digest::of(bytes)),
            (Part::Inline(bytes), Hasher::Sha256(_)) => return Ok(Digest::sha256_of(bytes)),
            (Part::Blob(Blob { digest: digest @ Digest::Blake3(_), .. }), Hasher::Blake3(_))
            | (Part::Blob(Blob { digest: digest @ Digest::Sha256(_), .. }), Hasher::Sha256(_)) => {
                return Ok(*digest);
            }
            (Part::Blob(blob), _) => ("blob", blob.digest),
            (Part::Recipe { recipe, .. }, _) => ("content", recipe.digest),
        };
        let preimage = serde_json::json!({ what: digest, "algorithm": algorithm });
        if let Some(value) = self.known(&preimage) {
            return Ok(value);
        }
        let mut whole = Recipe::new();
        whole.push(part);
        let value = whole.digest(&self.cas, hasher)?;
        self.remember(preimage, value)?;
        Ok(value)
    }

    /// What was found out about something that is said whole by `preimage`, and is no action.
    pub fn known(&self, preimage: &serde_json::Value) -> Option<Digest> {
        self.lookup(&key_of(preimage)).map(|record| record.value)
    }

    /// Keeps what was found out.
    pub fn remember(&self, preimage: serde_json::Value, value: Digest) -> Result<()> {
        let key = key_of(&preimage);
        let record =
            Record { version: VERSION, value, log: None, warnings: Vec::new(), milliseconds: 0, preimage };
        self.record(&key, &record)
    }
}

fn key_of(preimage: &serde_json::Value) -> Digest {
    Digest::of(preimage.to_string().as_bytes())
}

fn checksum(key: &Digest, body: &str) -> String {
    let mut hasher = blake3::Hasher::new_keyed(key.bytes());
    hasher.update(body.as_bytes());
    hasher.finalize().to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_named_whatever_it_is_made_of() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path()).unwrap();
        let blob = cache.cas.put(b"text").unwrap();
        let mut recipe = Recipe::new();
        recipe.blob(blob);
        recipe.inline(b"!");
        let recipe = cache.cas.put_recipe(&recipe).unwrap();
        let Part::Recipe { recipe: bytes, .. } = recipe else { panic!("not a recipe") };
        for (part, content) in [
            (Part::Inline(b"in".to_vec()), b"in".to_vec()),
            (Part::Blob(blob), b"text".to_vec()),
            (recipe, b"text!".to_vec()),
            // The same digest as the recipe's, but another content.
            (Part::Blob(bytes), fs::read(&cache.cas.path(&bytes.digest), 999).unwrap().unwrap()),
        ] {
            for _ in 0..2 {
                let sha256 = cache.content_digest(&part, Hasher::sha256()).unwrap();
                assert_eq!(sha256, Digest::sha256_of(&content));
                assert_eq!(cache.content_digest(&part, Hasher::blake3()).unwrap(), Digest::of(&content));
            }
        }
        fs::remove_tree(&folder.path().join("v1/cas")).unwrap();
        let known = cache.content_digest(&Part::Blob(blob), Hasher::sha256()).unwrap();
        assert_eq!(known, Digest::sha256_of(b"text"));
    }

    #[test]
    fn a_damaged_record_is_a_miss() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path()).unwrap();
        let key = Digest::of(b"key");
        let record = Record {
            version: VERSION,
            value: Digest::of(b"value"),
            log: Some(Blob::of(b"log")),
            warnings: vec!["w".into()],
            milliseconds: 7,
            preimage: serde_json::json!({"a": 1}),
        };
        cache.record(&key, &record).unwrap();
        assert_eq!(cache.lookup(&key), Some(record));
        let path = cache.record_path(&key);
        let good = fs::read(&path, LIMIT).unwrap().unwrap();
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                fs::write(&path, &bad, 0o644, Durability::Cache).unwrap();
                assert_eq!(cache.lookup(&key), None, "byte {at} bit {bit}");
            }
        }
        let stray = cache.record_path(&Digest::of(b"other"));
        fs::write(&stray, &good, 0o644, Durability::Cache).unwrap();
        assert_eq!(cache.lookup(&Digest::of(b"other")), None);
    }
}
