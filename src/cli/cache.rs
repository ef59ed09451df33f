//! `cache size`, `verify`, `clear`: looking after the cache.

use std::collections::BTreeMap;

use super::{Halt, Session, say};
use crate::cache::packs::Reread;
use crate::cache::{Cache, LOCKS};
use crate::digest::{Blob, Digest};
use crate::error::Failure;
use crate::host::fs;
use crate::host::stop::Stop;
use crate::report::text;

/// Arguments of `cache`
#[derive(clap::Args)]
pub struct CacheVerb {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Shows where the cache is and how much each part of it takes
    Size,
    /// Reads everything once; what is damaged is taken away, to be made again when it is needed
    Verify,
    /// Takes everything away
    Clear,
}

/// The parts of a cache.
const PARTS: [&str; 9] = ["cas", "actions", "git", "keep", "work", "stamps", "memo", "runs", "tmp"];
/// The work trees of patches, which are not cleared: they hold what users wrote.
const EDITS: &str = "edit";

impl CacheVerb {
    /// Runs the verb.
    pub fn run(&self, session: &Session) -> Result<u8, Halt> {
        let cache = session.place.cache()?;
        match self.verb {
            Verb::Size => size(&cache),
            Verb::Verify => verify(&cache),
            Verb::Clear => clear(&cache),
        }
    }
}

fn size(cache: &Cache) -> Result<u8, Halt> {
    let mut out = format!("{}\n", cache.path("").display());
    let mut all = 0;
    for part in PARTS.iter().chain([&EDITS]) {
        let (files, bytes) = fs::usage(&cache.path(part));
        all += bytes;
        out.push_str(&format!("  {part:8} {:>10}  {}\n", text::bytes(bytes), text::count(files, "file")));
    }
    out.push_str(&format!("  {:8} {:>10}\n", "all", text::bytes(all)));
    say(&out);
    Ok(0)
}

fn verify(cache: &Cache) -> Result<u8, Halt> {
    let (mut good, mut bad, mut bytes) = (0, Vec::new(), 0);
    let mut blobs: BTreeMap<Digest, u64> = BTreeMap::new();
    cache.cas.each(&mut |blob| {
        blobs.insert(blob.digest, blob.size);
    });
    for (digest, size) in blobs {
        // Read again, whatever is remembered: that is what the verb is for.
        if cache.cas.reread(&Blob { digest, size })? {
            good += 1;
            bytes += size;
        } else {
            bad.push(format!("the content `{digest}`"));
        }
    }
    cache.cas.packs.reread(&mut |found| match found {
        Reread::Whole(blob) => {
            good += 1;
            bytes += blob.size;
        }
        Reread::Damaged(digest) => bad.push(format!("the content `{digest}`")),
        Reread::Unreadable(path) => bad.push(format!("the pack `{}`", path.display())),
    })?;
    let mut records = 0;
    let mut wrong = Vec::new();
    cache.each_record(&mut |key, record| match record {
        Some(_) => records += 1,
        None => wrong.push(key),
    });
    for key in wrong {
        cache.forget(&key)?;
        bad.push(format!("the record of the key `{key}`"));
    }
    let found = format!(
        "{} ({}) and {} are whole\n",
        text::count(good, "blob"),
        text::bytes(bytes),
        text::count(records, "record")
    );
    say(&found);
    if bad.is_empty() {
        return Ok(0);
    }
    let failure = Failure::new(format!("{} damaged and taken away", text::count(bad.len(), "part")));
    Err(Halt::Failed(failure.detail(bad).hint("the next run that needs one makes it again")))
}

fn clear(cache: &Cache) -> Result<u8, Halt> {
    let stop = Stop::new(Stop::GRACE)?;
    // What runs would go on with half of its files, and what it makes of them would be remembered.
    let _alone = cache.lock_keys(&stop, || say("waiting for what runs now\n"))?;
    let mut keeps = Vec::new();
    for name in fs::list(&cache.path("keep")).unwrap_or_default() {
        let name = name.to_string_lossy().into_owned();
        if !name.starts_with('.') {
            keeps.push(cache.lock(&crate::tasks::lock_of_keep(cache, &name), &stop, || {})?);
        }
    }
    let mut bytes = 0;
    for part in PARTS {
        let folder = cache.path(part);
        bytes += fs::usage(&folder).1;
        // The locks stay: whoever made them anew would not be kept waiting.
        for name in fs::list(&folder).unwrap_or_default().iter().filter(|name| *name != LOCKS) {
            fs::remove_tree(&folder.join(name))?;
        }
    }
    say(&format!("cleared {}\n", text::bytes(bytes)));
    Ok(0)
}
