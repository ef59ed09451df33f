//! What goes of a layer to a host that has an older one: layers that were sent are remembered with where their
//! content comes from, and the most alike of those that a host holds is what a new one is made of. Knows no host.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use crate::cache::Cache;
use crate::cache::draft::Draft;
use crate::cache::tree::Entry;
use crate::digest::{Blob, Digest};
use crate::error::Result;
use crate::host::stop::Stop;
use crate::recipe::Part;
use crate::splice::{self, Pieces, Splice};

/// A smaller layer is sent as it is, in bytes.
const LEAST: u64 = 1 << 20;
/// How many older layers are compared with a new one, at most.
const MOST: usize = 4;
/// What is left of a layer must be at most this part of it, in percent.
const WORTH: u64 = 75;
/// From here on no other is looked for, in percent.
const GOOD: u64 = 10;

/// What was found out in a run, once for all hosts.
#[derive(Default)]
pub struct Kin {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// Where the content of layers comes from; nothing for what is no layer that was sent.
    sent: BTreeMap<Digest, Option<Part>>,
    pieces: BTreeMap<Digest, Option<Arc<Pieces>>>,
    splices: BTreeMap<(Digest, Digest), Arc<Splice>>,
}

impl Kin {
    /// How missing layers are made of what a host holds; `parts` is where their content comes from.
    pub fn splices(
        &self,
        missing: &[Blob],
        held: &BTreeSet<Digest>,
        parts: &BTreeMap<Digest, Part>,
        (cache, stop): (&Cache, &Stop),
    ) -> Result<BTreeMap<Digest, Arc<Splice>>> {
        let mut splices = BTreeMap::new();
        let large: Vec<&Blob> = missing.iter().filter(|blob| blob.size >= LEAST).collect();
        if large.is_empty() || held.is_empty() {
            return Ok(splices);
        }
        // Hosts wait for each other here: what one finds out all the others need.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let sent: Vec<(Digest, Part)> =
            held.iter().filter_map(|digest| Some((*digest, known.sent(cache, digest)?))).collect();
        for blob in large {
            let Some(part) = parts.get(&blob.digest) else { continue };
            let mut alike: Vec<&(Digest, Part)> = sent.iter().collect();
            alike.sort_by_key(|(_, part)| part.size().abs_diff(blob.size));
            let mut best: Option<Arc<Splice>> = None;
            for (old, from) in alike.into_iter().take(MOST) {
                let Some(one) = known.splice((*old, from), (blob.digest, part), (cache, stop))? else {
                    continue;
                };
                if best.as_ref().is_none_or(|best| one.size() < best.size()) {
                    best = Some(one);
                }
                if best.as_ref().is_some_and(|best| best.size() <= blob.size / 100 * GOOD) {
                    break;
                }
            }
            if let Some(best) = best.filter(|best| best.size() <= blob.size / 100 * WORTH) {
                splices.insert(blob.digest, best);
            }
        }
        Ok(splices)
    }
}

impl Known {
    /// Where the content of a layer comes from; `None` for what is no layer that was sent.
    fn sent(&mut self, cache: &Cache, digest: &Digest) -> Option<Part> {
        // Hosts hold mostly the same, and nearly nothing of it is from here.
        self.sent.entry(*digest).or_insert_with(|| remembered(cache, digest)).clone()
    }

    /// How one layer is made of another; `None` if the cache has lost the other.
    fn splice(
        &mut self,
        (old, from): (Digest, &Part),
        (new, part): (Digest, &Part),
        (cache, stop): (&Cache, &Stop),
    ) -> Result<Option<Arc<Splice>>> {
        if let Some(known) = self.splices.get(&(old, new)) {
            return Ok(Some(known.clone()));
        }
        if !self.pieces.contains_key(&new) || !self.pieces.contains_key(&old) {
            // Both at the same time: each is read once.
            let (one, other) = std::thread::scope(|scope| {
                let one = scope.spawn(|| {
                    self.pieces.get(&old).cloned().unwrap_or_else(|| cut(from, cache, stop).ok())
                });
                let other = match self.pieces.get(&new) {
                    Some(known) => Ok(known.clone()),
                    None => cut(part, cache, stop).map(Some),
                };
                (one.join(), other)
            });
            let one = one.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            stop.check()?;
            self.pieces.insert(old, one);
            self.pieces.insert(new, other?);
        }
        let pieces = |digest: &Digest| self.pieces.get(digest).cloned().flatten();
        let (Some(one), Some(other)) = (pieces(&old), pieces(&new)) else { return Ok(None) };
        let splice = Arc::new(other.splice(old, &one));
        self.splices.insert((old, new), splice.clone());
        Ok(Some(splice))
    }
}

fn cut(part: &Part, cache: &Cache, stop: &Stop) -> Result<Arc<Pieces>> {
    Ok(Arc::new(splice::cut(part, &cache.cas, &|| stop.check())?))
}

fn preimage(digest: &Digest) -> serde_json::Value {
    serde_json::json!({ "sent": digest })
}

/// Where the content of a layer that was sent comes from.
fn remembered(cache: &Cache, digest: &Digest) -> Option<Part> {
    let tree = cache.known(&preimage(digest))?;
    cache.cas.entry(&tree, "layer").ok()??.part()
}

/// Remembers layers that were sent.
pub fn remember(cache: &Cache, sent: &[(Blob, Part)]) -> Result<()> {
    for (blob, part) in sent.iter().filter(|(blob, _)| blob.size >= LEAST) {
        let entry = match part {
            Part::Inline(_) => continue,
            Part::Blob(blob) => Entry::File { mode: 0o644, blob: *blob },
            Part::Recipe { recipe, size } => Entry::Recipe { mode: 0o644, recipe: *recipe, size: *size },
        };
        let preimage = preimage(&blob.digest);
        if cache.known(&preimage).is_none() {
            let mut draft = Draft::empty(&cache.cas);
            draft.insert(b"layer", entry)?;
            cache.remember(preimage, draft.store()?)?;
        }
    }
    Ok(())
}
