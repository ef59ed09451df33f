//! Finds where a hunk goes, by GNU patch's rules: exact before fuzzy, near before far, later before
//! earlier, short context tied to the file's edge. A place where nothing was compared, or that lies before
//! the end of an earlier change, is found and then refused. Knows neither paths nor line ends.
//!
//! Lines are counted from 1, as patches do. The old side's text is only ever sought in the original.

use std::cell::OnceCell;
use std::cmp::Ordering;

use super::section::{Hunk, Side};
use super::text::{Text, hash, sum};

/// A hunk's old side, ready to be sought.
pub struct Sought<'h> {
    old: Vec<&'h [u8]>,
    /// Of each old line, when the lines near the guess do not agree.
    hashes: OnceCell<Vec<u64>>,
    lead: i64,
    trail: i64,
    /// Where its header says that it starts; an empty old side: the line before which it inserts.
    pub start: i64,
}

/// Where a hunk fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fit {
    /// The file's line that the hunk's first old line (even if it is not compared) falls on.
    pub slot: i64,
    /// How many outer context lines were left out of the comparison.
    pub fuzz: u32,
    /// Another slot that is as near and fits as well.
    pub also: Option<i64>,
}

/// What a search gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A place where all that is compared agrees.
    Fits(Fit),
    /// A place, but earlier hunks changed it or what follows it.
    Behind(i64),
    /// The comparison would be empty, or an insertion without context lies beyond the end.
    Nothing,
    /// No place.
    Nowhere,
}

/// Where the search starts and what it must not touch.
#[derive(Clone, Copy, Debug)]
pub struct From {
    /// How far the last hunk was from its header's line.
    pub drift: i64,
    /// The last line that an earlier hunk changed or went past; 0 if none.
    pub frozen: i64,
}

impl<'h> Sought<'h> {
    /// Prepares a hunk.
    pub fn new(hunk: &'h Hunk) -> Self {
        let old: Vec<&[u8]> = hunk.old_lines().collect();
        let is_context = |line: &&super::section::Line| line.side == Side::Context;
        let lead = hunk.lines.iter().take_while(is_context).count();
        let trail = hunk.lines.iter().rev().take_while(is_context).count();
        let start = i64::try_from(hunk.old_start).unwrap_or(i64::MAX / 4) + i64::from(old.is_empty());
        Self { old, hashes: OnceCell::new(), lead: lead as i64, trail: trail as i64, start }
    }

    fn hashes(&self) -> &[u64] {
        self.hashes.get_or_init(|| self.old.iter().map(|line| hash(line)).collect())
    }

    /// The most fuzz that can make a difference, up to `limit`.
    pub fn most_fuzz(&self, limit: u32) -> u32 {
        limit.min(u32::try_from(self.lead.max(self.trail)).unwrap_or(u32::MAX))
    }

    /// Searches with one amount of fuzz.
    pub fn find(&self, text: &Text<'_>, from: From, fuzz: u32) -> Found {
        let lines = text.count() as i64;
        let guess = self.start.saturating_add(from.drift);
        let floor = from.frozen + 1;
        let found = |slot: i64, also| {
            if slot < floor { Found::Behind(slot) } else { Found::Fits(Fit { slot, fuzz, also }) }
        };
        let size = self.old.len() as i64;
        if size == 0 {
            // Nothing but the line number says where: it must at least exist. An empty file is all there is
            // to compare with.
            return if guess <= lines + 1 { found(guess, None) } else { Found::Nothing };
        }
        let most = self.lead.max(self.trail);
        let top = self.lead + i64::from(fuzz) - most;
        let bottom = self.trail + i64::from(fuzz) - most;
        let fit = Part { sought: self, text, top: top.max(0), bottom: bottom.max(0) };
        if fit.top + fit.bottom >= size {
            return Found::Nothing;
        }
        if top < 0 && self.start <= 1 {
            return if from.frozen <= self.lead && fit.fits(1) { found(1, None) } else { Found::Nowhere };
        }
        if bottom < 0 {
            let slot = lines - size + 1;
            return if slot >= floor && fit.fits(slot) { found(slot, None) } else { Found::Nowhere };
        }
        let high = lines - (size - bottom) + 1;
        if guess <= from.frozen {
            // Where GNU patch looks first then: lines that are changed already. What it finds there it
            // refuses as out of order, and so does this.
            let lowest = guess - (floor - guess);
            return match fit.first(lowest.max(1), high, floor, lowest) {
                Some(slot) => found(slot, None),
                None => Found::Nowhere,
            };
        }
        match fit.nearest(guess, floor, high) {
            Some(slot) => {
                let other = guess - (slot - guess);
                let ties = slot > guess && other >= floor && fit.fits(other);
                found(slot, ties.then_some(other))
            }
            None => Found::Nowhere,
        }
    }
}

/// So many lines are compared one by one before an index is worth its price.
const EFFORT: i64 = 4000;

/// The old side without the lines that fuzz leaves out.
struct Part<'p, 'h, 't> {
    sought: &'p Sought<'h>,
    text: &'p Text<'t>,
    top: i64,
    bottom: i64,
}

impl Part<'_, '_, '_> {
    fn inner(&self) -> std::ops::Range<usize> {
        self.top as usize..self.sought.old.len() - self.bottom as usize
    }

    /// Whether the compared lines are in the text with the first old line on `slot`.
    fn fits(&self, slot: i64) -> bool {
        self.fits_within(slot, &mut 0)
    }

    /// The same; takes the lines it compared from `effort`.
    fn fits_within(&self, slot: i64, effort: &mut i64) -> bool {
        if slot < 1 {
            return false;
        }
        let lines = &self.sought.old[self.inner()];
        let agreeing = self.text.agreeing((slot + self.top - 1) as usize, lines);
        *effort -= agreeing as i64 + 1;
        agreeing == lines.len()
    }

    /// All slots where a line agrees that is the rarest one, as `(slot, rank)` in order.
    fn candidates(&self) -> (&[(u64, u32)], i64) {
        let index = self.text.index();
        let rarest = self
            .inner()
            .map(|at| (index.places(self.sought.hashes()[at]), at))
            .min_by_key(|(places, _)| places.len());
        let (places, at) = rarest.expect("BUG: something is compared");
        (places, at as i64)
    }

    /// Whether the sums agree, then whether the lines do: a false alarm costs time only.
    fn checks(&self, slot: i64, wanted: u64) -> bool {
        let from = slot + self.top - 1;
        let to = from + self.inner().len() as i64;
        from >= 0
            && to <= self.text.count() as i64
            && self.text.index().sum(from as usize, to as usize) == wanted
            && self.fits(slot)
    }

    /// The slot in `floor..=high` nearest to `guess`; of two, the later.
    fn nearest(&self, guess: i64, floor: i64, high: i64) -> Option<i64> {
        let mut effort = EFFORT;
        let mut distance = (guess - high).max(0);
        while effort > 0 && distance <= (high - guess).max(guess - floor) {
            for slot in [guess + distance, guess - distance] {
                if slot >= floor && slot <= high && self.fits_within(slot, &mut effort) {
                    return Some(slot);
                }
            }
            distance += 1;
            effort -= 1;
        }
        let wanted = sum(&self.sought.hashes()[self.inner()]);
        let (places, at) = self.candidates();
        let slot = |place: &(u64, u32)| i64::from(place.1) + 1 - at;
        let middle = places.partition_point(|place| slot(place) < guess);
        let mut after = places[middle..].iter().map(slot).take_while(|slot| *slot <= high).peekable();
        let mut before =
            places[..middle].iter().rev().map(slot).take_while(|slot| *slot >= floor).peekable();
        loop {
            let next = match (after.peek(), before.peek()) {
                (None, None) => return None,
                (Some(_), None) => after.next(),
                (None, Some(_)) => before.next(),
                (Some(later), Some(earlier)) => match (later - guess).cmp(&(guess - earlier)) {
                    Ordering::Greater => before.next(),
                    _ => after.next(),
                },
            };
            let slot = next?;
            if slot >= floor && slot <= high && self.checks(slot, wanted) {
                return Some(slot);
            }
        }
    }

    /// The first slot in `low..=high`, but `early` comes after `first` alone.
    fn first(&self, low: i64, high: i64, early: i64, first: i64) -> Option<i64> {
        for slot in [first, early] {
            if slot >= low && slot <= high && self.fits(slot) {
                return Some(slot);
            }
        }
        let wanted = sum(&self.sought.hashes()[self.inner()]);
        let (places, at) = self.candidates();
        let start = places.partition_point(|place| i64::from(place.1) + 1 - at < low);
        let slots = places[start..].iter().map(|place| i64::from(place.1) + 1 - at);
        slots.take_while(|slot| *slot <= high).find(|slot| self.checks(*slot, wanted))
    }
}
