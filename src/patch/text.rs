//! A file's content as lines, comparable in constant time per place. Knows no patch.

use std::cell::OnceCell;

use memchr::{memchr, memchr_iter};

/// Content cut in lines, each with its line end.
pub struct Text<'a> {
    bytes: &'a [u8],
    count: usize,
    /// Where every eighth line begins. The rest is found from there: a place for each line would be memory of
    /// a fifth of the content, which costs more to touch than the few lines that are asked for.
    marks: Vec<usize>,
    index: OnceCell<Index>,
}

/// Lines from one mark to the next.
const STRIDE: usize = 8;

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
        let (mut count, mut marks) = (0, vec![0]);
        for end in memchr_iter(b'\n', bytes) {
            count += 1;
            if count % STRIDE == 0 {
                marks.push(end + 1);
            }
        }
        count += usize::from(!matches!(bytes, [] | [.., b'\n']));
        Self { bytes, count, marks, index: OnceCell::new() }
    }

    /// The number of lines.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Where a line begins, from 0; after the last one, the end.
    fn start(&self, at: usize) -> usize {
        assert!(at <= self.count, "BUG: line {at} of {}", self.count);
        if at == self.count {
            return self.bytes.len();
        }
        let mut start = self.marks[at / STRIDE];
        for _ in 0..at % STRIDE {
            start += line_of(&self.bytes[start..]).len();
        }
        start
    }

    /// The lines from one on, from 0.
    pub fn lines(&self, from: usize) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut rest = &self.bytes[self.start(from)..];
        std::iter::from_fn(move || {
            let (line, after) = rest.split_at(line_of(rest).len());
            rest = after;
            (!line.is_empty()).then_some(line)
        })
    }

    /// A line, from 0.
    pub fn line(&self, at: usize) -> &'a [u8] {
        line_of(&self.bytes[self.start(at)..])
    }

    /// The bytes of lines `from..to`, from 0.
    pub fn range(&self, from: usize, to: usize) -> &'a [u8] {
        &self.bytes[self.start(from)..self.start(to)]
    }

    /// How its lines end.
    pub fn ends(&self) -> Ends {
        Ends::of(self.lines(0))
    }

    /// How many of `lines` are those from `at` on, up to the first that is not.
    pub fn agreeing(&self, at: usize, lines: &[&[u8]]) -> usize {
        self.lines(at.min(self.count)).zip(lines).take_while(|(line, other)| line == *other).count()
    }

    /// The index, made when first needed: most hunks fit where they say.
    pub fn index(&self) -> &Index {
        self.index.get_or_init(|| Index::new(self))
    }
}

/// The first line of some bytes, with its line end.
fn line_of(bytes: &[u8]) -> &[u8] {
    memchr(b'\n', bytes).map_or(bytes, |end| &bytes[..=end])
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

const PRIME: u64 = (1 << 61) - 1;
const BASE: u64 = 0x0123_4567_89ab_cdef;

impl Index {
    fn new(text: &Text<'_>) -> Self {
        let count = text.count();
        let mut places = Vec::with_capacity(count);
        let mut sums = Vec::with_capacity(count + 1);
        let mut powers = Vec::with_capacity(count + 1);
        let (mut sum, mut power) = (0, 1);
        for (at, line) in text.lines(0).enumerate() {
            let hash = hash(line);
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
