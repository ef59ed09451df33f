//! What `fetch`, `upload` and `import` share: reaching a host while the user watches, and saying how
//! much is sent. Knows no kind.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Failure, Result};
use crate::host::node::{self, Node, Spec, Trouble, Watch};
use crate::host::stop::Stop;
use crate::work::{Fault, Network, Reach, Tell};

impl From<Trouble> for Fault {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Unreachable(why) => Self::Unreachable(why),
            Trouble::Cut(failure) => Self::Again(failure),
            Trouble::Error(error) => Self::Error(error),
        }
    }
}

/// The trouble with a host that a step cannot do without.
pub fn failed(host: &str, trouble: Trouble) -> Error {
    match trouble {
        Trouble::Unreachable(why) => Failure::new(format!("`{host}` does not answer: {why}")).into(),
        Trouble::Cut(failure) => failure.into(),
        Trouble::Error(error) => error,
    }
}

/// Tells the user what goes on at a host, and the host that the user wants to stop.
pub struct Told<'a> {
    stop: &'a Stop,
    tell: &'a dyn Tell,
    host: &'a str,
    destination: Option<&'a str>,
    total: Option<u64>,
    done: AtomicU64,
}

impl<'a> Told<'a> {
    /// For a host that is only asked, or read from: `total` bytes if that is known.
    pub fn source(host: &'a str, stop: &'a Stop, tell: &'a dyn Tell, total: Option<u64>) -> Self {
        Self { stop, tell, host, destination: None, total, done: AtomicU64::new(0) }
    }

    /// For a destination that gets `total` bytes.
    pub fn destination(spec: &'a Spec, reach: &Reach<'a>, total: u64) -> Self {
        Self::named(&spec.name, reach, total)
    }

    /// For a destination that is no host, but has a name.
    pub fn named(name: &'a str, reach: &Reach<'a>, total: u64) -> Self {
        let (stop, tell, done) = (reach.stop, reach.tell, AtomicU64::new(0));
        Self { stop, tell, host: name, destination: Some(name), total: Some(total), done }
    }
}

impl Watch for Told<'_> {
    fn moved(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.tell.progress(self.destination, done, self.total);
    }

    fn check(&self) -> Result<()> {
        self.stop.check()
    }

    fn waits(&self) {
        self.tell.note(format!("waiting for `{}`: somebody else is changing it", self.host));
    }
}

/// Reaches a destination.
pub fn open<'a>(spec: &Spec, reach: &Reach<'a>, watch: &'a dyn Watch) -> Result<Box<dyn Node + 'a>, Fault> {
    allowed(spec, reach.network)?;
    Ok(node::open(spec, reach.root, reach.links, &reach.cache.cas.stamps, watch)?)
}

/// Fails for a host that only the network leads to, if it may not be used.
pub fn allowed(spec: &Spec, network: Network) -> Result<()> {
    if network == Network::Allowed || spec.is_here() {
        return Ok(());
    }
    let message = format!("`{}` is not on this machine, and the network may not be used", spec.name);
    Err(Failure::new(message).hint("run without `--offline`").into())
}

/// What is wanted, as plain data.
pub fn plain(wants: &impl serde::Serialize) -> serde_json::Value {
    match serde_json::to_value(wants) {
        Ok(value) => value,
        Err(error) => panic!("BUG: what is wanted cannot be written as JSON: {error}"),
    }
}

/// Bytes in decimal units, as in `842.1 kB`.
pub fn size_text(bytes: u64) -> String {
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let (mut tenths, mut units) = (u128::from(bytes) / 100, ["kB", "MB", "GB", "TB", "PB", "EB"].iter());
    let mut unit = units.next();
    while tenths >= 10_000 {
        tenths /= 1000;
        unit = units.next();
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, unit.unwrap_or(&""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_four_digits_at_most() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (842_133, "842.1 kB"),
            (999_999, "999.9 kB"),
            (1_000_000, "1.0 MB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(size_text(bytes), text);
        }
    }
}
