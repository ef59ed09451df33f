//! A file's content as lines, comparable in constant time per place. Knows no patch.

use std::cell::OnceCell;

/// Content cut in lines, each with its line end.
pub struct Text<'a> {
    bytes: &'a [u8],
    /// Where each line begins, and the end.
    starts: Vec<usize>,
    index: OnceCell<Index>,
}

/// How the lines of a text end, as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// No line has an end.
    None,
    /// All with LF alone.
    Lf,
    /// All with CR and LF.
    Crlf,
    /// Some so, some so.
    Mixed,
}

impl Ends {
    /// The style of some lines.
    pub fn of<'l>(lines: impl IntoIterator<Item = &'l [u8]>) -> Self {
        let mut ends = Self::None;
        for line in lines {
            let end = match line {
                [.., b'\r', b'\n'] => Self::Crlf,
                [.., b'\n'] => Self::Lf,
                _ => continue,
            };
            if ends == Self::None {
                ends = end;
            } else if ends != end {
                return Self::Mixed;
            }
        }
        ends
    }
}

impl<'a> Text<'a> {
    /// Cuts `bytes` in lines.
    pub fn new(bytes: &'a [u8]) -> Self {
        let mut starts = Vec::with_capacity(bytes.len() / 24 + 2);
        starts.push(0);
        let mut words = bytes.chunks_exact(8);
        let mut at = 0;
        for word in &mut words {
            // The high bit of each byte that is a line end, and of no other: eight bytes at a time, as files
            // of many megabytes are cut.
            let word = u64::from_le_bytes(word.try_into().expect("BUG: chunks of eight"));
            let word = word ^ (EACH * u64::from(b'\n'));
            let low = EACH * 0x7f;
            let mut ends = !(((word & low) + low) | word | low);
            while ends != 0 {
                starts.push(at + ends.trailing_zeros() as usize / 8 + 1);
                ends &= ends - 1;
            }
            at += 8;
        }
        starts.extend(
            words.remainder().iter().zip(at + 1..).filter(|(byte, _)| **byte == b'\n').map(|(_, at)| at),
        );
        if starts.last() != Some(&bytes.len()) {
            starts.push(bytes.len());
        }
        Self { bytes, starts, index: OnceCell::new() }
    }

    /// The number of lines.
    pub fn count(&self) -> usize {
        self.starts.len() - 1
    }

    /// A line, from 0.
    pub fn line(&self, at: usize) -> &'a [u8] {
        &self.bytes[self.starts[at]..self.starts[at + 1]]
    }

    /// The bytes of lines `from..to`, from 0.
    pub fn range(&self, from: usize, to: usize) -> &'a [u8] {
        &self.bytes[self.starts[from]..self.starts[to]]
    }

    /// How its lines end.
    pub fn ends(&self) -> Ends {
        Ends::of((0..self.count()).map(|at| self.line(at)))
    }

    /// How many of `lines` are those from `at` on, up to the first that is not.
    pub fn agreeing(&self, at: usize, lines: &[&[u8]]) -> usize {
        lines.iter().zip(at..self.count()).take_while(|(line, at)| self.line(*at) == **line).count()
    }

    /// The index, made when first needed: most hunks fit where they say.
    pub fn index(&self) -> &Index {
        self.index.get_or_init(|| Index::new(self))
    }
}

/// Where each line occurs, and sums with which any stretch of lines is compared in constant time.
pub struct Index {
    /// The hash and place of each line, sorted.
    places: Vec<(u64, u32)>,
    /// `sums[i]`: of the first i lines.
    sums: Vec<u64>,
    /// Powers of the base.
    powers: Vec<u64>,
}

/// A one in each byte.
const EACH: u64 = u64::from_ne_bytes([1; 8]);

const PRIME: u64 = (1 << 61) - 1;
const BASE: u64 = 0x0123_4567_89ab_cdef;

impl Index {
    fn new(text: &Text<'_>) -> Self {
        let count = text.count();
        let mut places = Vec::with_capacity(count);
        let mut sums = Vec::with_capacity(count + 1);
        let mut powers = Vec::with_capacity(count + 1);
        let (mut sum, mut power) = (0, 1);
        for at in 0..count {
            let hash = hash(text.line(at));
            places.push((hash, u32::try_from(at).unwrap_or(u32::MAX)));
            sums.push(sum);
            powers.push(power);
            sum = add(times(sum, BASE), hash);
            power = times(power, BASE);
        }
        sums.push(sum);
        powers.push(power);
        places.sort_unstable();
        Self { places, sums, powers }
    }

    /// The places of a line by its hash, in order.
    pub fn places(&self, hash: u64) -> &[(u64, u32)] {
        let from = self.places.partition_point(|place| place.0 < hash);
        let to = self.places.partition_point(|place| place.0 <= hash);
        &self.places[from..to]
    }

    /// The sum over lines `from..to`.
    pub fn sum(&self, from: usize, to: usize) -> u64 {
        add(self.sums[to], PRIME - times(self.sums[from], self.powers[to - from]))
    }
}

/// The sum over lines that are given by their hashes.
pub fn sum(hashes: &[u64]) -> u64 {
    hashes.iter().fold(0, |sum, hash| add(times(sum, BASE), *hash))
}

/// A line's hash, below the prime. The same on every machine.
pub fn hash(line: &[u8]) -> u64 {
    let mut hash = line.len() as u64 + 1;
    let mut words = line.chunks_exact(8);
    for word in &mut words {
        hash = mix(hash ^ u64::from_le_bytes(word.try_into().expect("BUG: chunks of eight")));
    }
    for byte in words.remainder() {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    mix(hash) % PRIME
}

fn mix(value: u64) -> u64 {
    let product = u128::from(value ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93_u128;
    (product as u64) ^ ((product >> 64) as u64)
}

fn add(a: u64, b: u64) -> u64 {
    let sum = a + b;
    if sum >= PRIME { sum - PRIME } else { sum }
}

fn times(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    let folded = (product & u128::from(PRIME)) as u64 + (product >> 61) as u64;
    if folded >= PRIME { folded - PRIME } else { folded }
}
