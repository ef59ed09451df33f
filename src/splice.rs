//! How one content is made from another: stretches that the old one has, and bytes that are new. Both are cut where
//! their bytes say so, so that what moved is found again. Knows no host and no cache.

use std::collections::BTreeMap;

use crate::digest::Digest;
use crate::error::Result;
use crate::recipe::{Content, Part, Recipe, Sink};

/// A piece is not shorter than this, but for the last.
const SHORTEST: usize = 4 << 10;
/// A piece is not longer than this.
const LONGEST: usize = 64 << 10;
/// A piece ends where these bits of the rolling hash are zero: after 12 KB more, mostly.
const MASK: u64 = 0x0000_d903_0353_0000;
/// A shorter stretch of the old content is sent: to copy it takes longer.
const LEAST: u64 = 32 << 10;
/// Stretches of the old content, at most.
const MOST: usize = 256;

/// A stretch of the new content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stretch {
    /// So many bytes of the old content from there on.
    Old {
        /// Where it begins in the old content.
        from: u64,
        /// Its length in bytes.
        size: u64,
    },
    /// So many bytes that the old content does not have.
    New {
        /// Its length in bytes.
        size: u64,
    },
}

/// How a content is made from an old one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Splice {
    /// The old content.
    pub of: Digest,
    /// The whole new content, in order.
    pub stretches: Vec<Stretch>,
}

impl Splice {
    /// How many bytes are new.
    pub fn size(&self) -> u64 {
        let new = |stretch: &Stretch| match stretch {
            Stretch::Old { .. } => 0,
            Stretch::New { size } => *size,
        };
        self.stretches.iter().map(new).sum()
    }

    /// Streams what is new of the new content into `sink`.
    pub fn send(&self, part: &Part, content: &dyn Content, sink: &mut dyn Sink) -> Result<()> {
        whole(part, content, &mut Pass { sink, stretches: self.stretches.iter(), left: 0, passes: false })
    }
}

fn whole(part: &Part, content: &dyn Content, sink: &mut dyn Sink) -> Result<()> {
    let mut recipe = Recipe::new();
    recipe.push(part);
    recipe.send(content, sink)
}

/// Lets pass what is new.
struct Pass<'a> {
    sink: &'a mut dyn Sink,
    stretches: std::slice::Iter<'a, Stretch>,
    left: u64,
    passes: bool,
}

impl Sink for Pass<'_> {
    fn bytes(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            if self.left == 0 {
                (self.left, self.passes) = match self.stretches.next() {
                    Some(Stretch::Old { size, .. }) => (*size, false),
                    Some(Stretch::New { size }) => (*size, true),
                    // Longer than it should be: whoever counts finds out.
                    None => (u64::MAX, true),
                };
                continue;
            }
            let most = usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
            if self.passes {
                self.sink.bytes(&bytes[..most])?;
            }
            self.left -= most as u64;
            bytes = &bytes[most..];
        }
        Ok(())
    }
}

/// A content in pieces: the beginning of the digest of each, and its length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pieces(Vec<([u8; 16], u32)>);

/// Cuts a content into pieces, as long as `check` does not fail.
pub fn cut(part: &Part, content: &dyn Content, check: &dyn Fn() -> Result<()>) -> Result<Pieces> {
    let held = Vec::with_capacity(2 * LONGEST);
    let mut knife = Knife { pieces: Pieces::default(), held, hash: 0, seen: 0, check };
    whole(part, content, &mut knife)?;
    if !knife.held.is_empty() {
        let rest = std::mem::take(&mut knife.held);
        knife.pieces.push(&rest);
    }
    Ok(knife.pieces)
}

impl Pieces {
    fn push(&mut self, bytes: &[u8]) {
        let (start, _) =
            blake3::hash(bytes).as_bytes().split_first_chunk::<16>().map_or(([0; 16], 0), |(s, _)| (*s, 0));
        self.0.push((start, bytes.len() as u32));
    }

    /// How the content of these pieces is made from another.
    pub fn splice(&self, of: Digest, old: &Self) -> Splice {
        let (mut places, mut at) = (BTreeMap::new(), 0);
        for (number, piece) in old.0.iter().enumerate() {
            places.entry(*piece).or_insert((number, at));
            at += u64::from(piece.1);
        }
        let mut stretches: Vec<Stretch> = Vec::new();
        // The piece of the old content that goes on where the last stretch ended.
        let mut next: Option<(usize, u64)> = None;
        for piece in &self.0 {
            let long = u64::from(piece.1);
            let here = next.filter(|(number, _)| old.0.get(*number) == Some(piece));
            let found = here.or_else(|| places.get(piece).copied());
            match (stretches.last_mut(), found) {
                (Some(Stretch::Old { size, .. }), Some(_)) if here.is_some() => *size += long,
                (_, Some((_, from))) => stretches.push(Stretch::Old { from, size: long }),
                (Some(Stretch::New { size }), None) => *size += long,
                (_, None) => stretches.push(Stretch::New { size: long }),
            }
            next = found.map(|(number, from)| (number + 1, from + long));
        }
        Splice { of, stretches: worth_it(stretches) }
    }
}

/// Makes new what is too short, and leaves the longest of too many.
fn worth_it(stretches: Vec<Stretch>) -> Vec<Stretch> {
    let old = |stretch: &Stretch| match stretch {
        Stretch::Old { size, .. } => Some(*size),
        Stretch::New { .. } => None,
    };
    let mut sizes: Vec<u64> = stretches.iter().filter_map(old).collect();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    let least = sizes.get(MOST).map_or(LEAST, |size| LEAST.max(size + 1));
    let mut out: Vec<Stretch> = Vec::new();
    for stretch in stretches {
        let (Stretch::Old { size, .. } | Stretch::New { size }) = stretch;
        match (out.last_mut(), old(&stretch).filter(|size| *size >= least)) {
            (_, Some(_)) => out.push(stretch),
            (Some(Stretch::New { size: last }), None) => *last += size,
            (_, None) => out.push(Stretch::New { size }),
        }
    }
    out
}

/// Cuts what it gets.
struct Knife<'a> {
    check: &'a dyn Fn() -> Result<()>,
    pieces: Pieces,
    /// What is not yet cut.
    held: Vec<u8>,
    hash: u64,
    /// How many bytes of it the hash has seen, or need not see.
    seen: usize,
}

impl Sink for Knife<'_> {
    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        (self.check)()?;
        self.held.extend_from_slice(bytes);
        let (held, mut start) = (std::mem::take(&mut self.held), 0);
        let (mut at, mut hash) = (self.seen, self.hash);
        loop {
            at = at.max(start + SHORTEST - 64);
            let end = held.len().min(start + LONGEST);
            let mut cut = None;
            for byte in held.get(at..end).unwrap_or_default() {
                at += 1;
                hash = (hash << 1).wrapping_add(GEAR[usize::from(*byte)]);
                if hash & MASK == 0 && at - start >= SHORTEST {
                    cut = Some(at);
                    break;
                }
            }
            if cut.is_none() && held.len() >= start + LONGEST {
                cut = Some(start + LONGEST);
            }
            let Some(end) = cut else { break };
            self.pieces.push(&held[start..end]);
            (start, at, hash) = (end, end, 0);
        }
        (self.hash, self.seen) = (hash, at - start);
        self.held = held;
        self.held.drain(..start);
        Ok(())
    }
}

/// A random number for each byte.
const GEAR: [u64; 256] = {
    let (mut table, mut state, mut at) = ([0; 256], 0x9e37_79b9_7f4a_7c15_u64, 0);
    while at < 256 {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        table[at] = z ^ (z >> 31);
        at += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::Error;
    use crate::recipe::Nothing;

    fn noise(seed: u64, size: usize) -> Vec<u8> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        (0..size).map(|_| next()).collect()
    }

    fn pieces(bytes: &[u8]) -> Pieces {
        cut(&Part::Inline(bytes.to_vec()), &Nothing, &|| Ok(())).unwrap()
    }

    /// How `new` is made from `old`; that it is made so is looked at.
    fn splice(old: &[u8], new: &[u8]) -> Splice {
        let splice = pieces(new).splice(Digest::of(old), &pieces(old));
        let mut sent = Vec::new();
        splice.send(&Part::Inline(new.to_vec()), &Nothing, &mut sent).unwrap();
        assert_eq!(sent.len() as u64, splice.size());
        let (mut made, mut rest) = (Vec::new(), &sent[..]);
        for stretch in &splice.stretches {
            match *stretch {
                Stretch::Old { from, size } => {
                    made.extend_from_slice(&old[from as usize..(from + size) as usize]);
                }
                Stretch::New { size } => {
                    made.extend_from_slice(&rest[..size as usize]);
                    rest = &rest[size as usize..];
                }
            }
        }
        assert!(made == new, "another content came out");
        splice
    }

    #[test]
    fn a_changed_string_is_a_piece_or_two() {
        let old = noise(1, 3_000_000);
        let mut new = old.clone();
        new[1_500_000..1_500_010].copy_from_slice(b"0123456789");
        let one = splice(&old, &new);
        assert!(one.size() <= 2 * LONGEST as u64 && one.stretches.len() <= 4, "{one:?}");
        // What came in moves all that is behind it.
        new.splice(700_000..700_000, *b"something longer");
        assert!(splice(&old, &new).size() <= 4 * LONGEST as u64);
        assert_eq!(splice(&old, &noise(2, 100_000)).size(), 100_000);
        assert_eq!(splice(&old, &old).size(), 0);
        assert_eq!(splice(b"", b"").size(), 0);
        assert_eq!(splice(&old, &old[..1]).size(), 1);
    }

    #[test]
    fn where_it_is_cut_depends_on_the_bytes_and_not_on_how_they_come() {
        let bytes = noise(3, 700_000);
        let check = &|| Ok(());
        let mut knife = Knife { pieces: Pieces::default(), held: Vec::new(), hash: 0, seen: 0, check };
        for (number, some) in bytes.chunks(777).enumerate() {
            let (one, two) = some.split_at(number % some.len());
            knife.bytes(one).unwrap();
            knife.bytes(two).unwrap();
        }
        let rest = knife.held.clone();
        knife.pieces.push(&rest);
        assert_eq!(knife.pieces, pieces(&bytes));
        let longest = knife.pieces.0.iter().map(|piece| piece.1).max().unwrap();
        assert!(longest <= LONGEST as u32, "{longest}");
        let middle = 700_000 / knife.pieces.0.len();
        assert!((8_000..32_000).contains(&middle), "{middle} bytes in a piece");
    }

    #[test]
    fn a_stop_ends_it() {
        let one = Part::Inline(noise(1, 100_000));
        assert!(matches!(cut(&one, &Nothing, &|| Err(Error::Interrupted)), Err(Error::Interrupted)));
    }

    #[test]
    fn not_too_many_stretches() {
        let old = noise(5, 24_000_000);
        let mut new = old.clone();
        for at in (0..new.len()).step_by(60_000) {
            new[at] ^= 1;
        }
        let one = splice(&old, &new);
        assert!(one.stretches.iter().filter(|s| matches!(s, Stretch::Old { .. })).count() <= MOST);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn whatever_was_edited_comes_out(
            seed in 0..4u64,
            size in 0..400_000usize,
            edits in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..100_000usize), 0..5),
        ) {
            let old = noise(seed, size);
            let mut new = old.clone();
            for (at, end, more) in edits {
                let at = at.index(new.len() + 1);
                let end = at + end.index(new.len() - at + 1).min(50_000);
                new.splice(at..end, noise(seed + 9, more));
            }
            splice(&old, &new);
        }
    }
}
