//! Divides the entries of a large layer into several by their paths, so that an entry which comes, goes
//! or grows moves only the layer that it is in. Knows no content.

use std::ops::Range;

use crate::digest::Digest;

/// Layers that one is divided into, at most: runtimes mount about a hundred.
const MOST: usize = 48;

/// Divides entries, given in order as paths and sizes in bytes, into runs of at most `budget` bytes, or
/// of more if they would be too many. A single entry may be larger than that.
///
/// A run that is too large is cut where the path has the lowest digest, among those cuts that leave at
/// least a quarter of the budget on both sides: nothing of it depends on what is elsewhere, and a size
/// only where it makes a run too large or too small.
pub fn runs(entries: &[(&[u8], u64)], budget: u64) -> Vec<Range<usize>> {
    let marks: Vec<[u8; 32]> = entries.iter().map(|(path, _)| *Digest::of(path).bytes()).collect();
    let mut ends = Vec::with_capacity(entries.len() + 1);
    ends.push(0_u64);
    for (_, size) in entries {
        ends.push(ends[ends.len() - 1].saturating_add(*size));
    }
    let mut budget = budget.max(1);
    loop {
        let mut found = Vec::new();
        let mut open: Vec<Range<usize>> = std::iter::once(0..entries.len()).collect();
        while let Some(run) = open.pop() {
            match cut(&marks, &ends, &run, budget) {
                // The first half is looked at first.
                Some(at) => open.extend([at..run.end, run.start..at]),
                None => found.push(run),
            }
        }
        if found.len() <= MOST {
            return found;
        }
        budget = budget.saturating_mul(2);
    }
}

/// Where a run is cut, if it has to be.
fn cut(marks: &[[u8; 32]], ends: &[u64], run: &Range<usize>, budget: u64) -> Option<usize> {
    let (start, end) = (ends[run.start], ends[run.end]);
    if end - start <= budget || run.len() < 2 {
        return None;
    }
    let least = budget / 4;
    let fits = |at: &usize| ends[*at] - start >= least && end - ends[*at] >= least;
    let inner = run.start + 1..run.end;
    // A huge entry may leave no such cut; then its neighbours are cut off from it.
    inner
        .clone()
        .filter(fits)
        .min_by_key(|at| marks[*at])
        .or_else(|| inner.max_by_key(|at| (ends[*at] - start).min(end - ends[*at])))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    type Files = Vec<(Vec<u8>, u64)>;

    fn files(count: usize) -> Files {
        let mut all: Files = (0..count)
            .map(|n| {
                let digest = Digest::of(&n.to_le_bytes());
                let size = u64::from(digest.bytes()[0]) * 400;
                (format!("srv/{}/{}", &digest.hex()[..1], digest.hex()).into_bytes(), size)
            })
            .collect();
        all.sort();
        all
    }

    /// The runs as their paths and sizes.
    fn parts(files: &Files, budget: u64) -> BTreeSet<Files> {
        let entries: Vec<(&[u8], u64)> = files.iter().map(|(path, size)| (&path[..], *size)).collect();
        runs(&entries, budget).into_iter().map(|run| files[run].to_vec()).collect()
    }

    #[test]
    fn one_file_moves_one_layer() {
        let (all, budget) = (files(10_000), 32_000_000);
        let before = parts(&all, budget);
        let sizes: Vec<u64> = before.iter().map(|run| run.iter().map(|file| file.1).sum()).collect();
        assert!(before.len() > 15 && before.len() < 49, "{sizes:?}");
        assert!(sizes.iter().all(|size| *size <= budget && *size >= budget / 4), "{sizes:?}");
        let (mut moved, edits) = (0, 300);
        for n in 0..edits {
            let mut now = all.clone();
            let at = (n * 7919) % now.len();
            match n % 3 {
                0 => now[at].1 += 1 + n as u64 * 17,
                1 => drop(now.remove(at)),
                _ => now.insert(at + 1, ([&now[at].0, &b"+"[..]].concat(), 20_000)),
            }
            moved += parts(&now, budget).difference(&before).count();
        }
        assert!(moved <= edits + edits / 10, "{moved} layers moved by {edits} edits");
    }

    #[test]
    fn there_are_never_too_many() {
        assert!(parts(&files(5000), 1).len() <= MOST);
        let huge = vec![(b"a".to_vec(), 1), (b"b".to_vec(), 1 << 50), (b"c".to_vec(), 1)];
        assert_eq!(parts(&huge, 1000).len(), 3);
        let none = runs(&[], 5);
        assert!(none.len() == 1 && none[0].is_empty());
    }

    proptest! {
        #[test]
        fn everything_is_in_one_run(sizes in prop::collection::vec(0_u64..1000, 0..200), budget in 0_u64..5000) {
            let names: Vec<String> = (0..sizes.len()).map(|n| format!("{n:04}")).collect();
            let entries: Vec<(&[u8], u64)> =
                names.iter().zip(&sizes).map(|(name, size)| (name.as_bytes(), *size)).collect();
            let found = runs(&entries, budget);
            prop_assert_eq!(found[0].start, 0);
            prop_assert_eq!(found[found.len() - 1].end, entries.len());
            prop_assert!(found.windows(2).all(|pair| pair[0].end == pair[1].start));
            prop_assert!(found.iter().all(|run| !run.is_empty()) || entries.is_empty());
        }
    }
}
