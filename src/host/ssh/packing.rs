//! Content on its way to a host and from it: packed with zstd where that pays, which a sample tells, and
//! as it is where not. Knows no file.

use std::io::{self, Write};

use zstd::stream::write::{Decoder, Encoder};

use crate::error::{Error, Result};
use crate::recipe::Sink;

/// Files below this size are not worth it, in bytes.
pub const LEAST: u64 = 64 << 10;
/// What is looked at to see whether it pays, in bytes.
const SAMPLE: usize = 64 << 10;
/// What goes as it is before the next look, in bytes.
const RUN: u64 = 4 << 20;
/// Packed content goes in pieces of at least this many bytes, because each costs the host a process.
const PIECE: usize = 192 << 10;
/// How many bytes are packed before it is looked at again whether that pays.
const TRIAL: u64 = 1 << 20;
/// The fastest level: many hosts may be sent to at once.
const LEVEL: i32 = 1;
/// How far back it looks, as a power of two in bytes: each host that is sent to takes some times as much memory.
const WINDOW: u32 = 17;

/// Whether so many packed bytes are worth packing so many.
fn pays(packed: u64, plain: u64) -> bool {
    packed < plain / 4 * 3
}

/// Where content goes, with words between that are not counted as content.
pub trait Wire: Sink {
    /// Sends words of the protocol.
    fn words(&mut self, words: &str) -> Result<()>;
}

/// Sends content in runs, as the script on the host reads them. At the end it wants `finish`.
pub struct Packing<'a> {
    to: &'a mut dyn Wire,
    /// What is there already.
    skip: u64,
    /// What is still to come.
    left: u64,
    run: Run,
}

enum Run {
    /// It is not known yet: what came so far.
    Looking(Vec<u8>),
    /// So much more goes as it is.
    Plain(u64),
    /// Packed, with what was read and what came of it in this trial.
    Zstd(Box<Encoder<'static, Vec<u8>>>, u64, u64),
}

impl<'a> Packing<'a> {
    /// Sends `size` bytes less the first `skip`.
    pub fn new(to: &'a mut dyn Wire, size: u64, skip: u64) -> Self {
        Self { to, skip, left: size.saturating_sub(skip), run: Run::Looking(Vec::new()) }
    }

    /// Takes bytes, and says how many: the rest is for another run.
    fn take(&mut self, bytes: &[u8]) -> Result<usize> {
        let most = |most: u64| bytes.len().min(usize::try_from(most).unwrap_or(usize::MAX));
        match &mut self.run {
            Run::Looking(sample) => {
                let taken = most((SAMPLE - sample.len()) as u64);
                sample.extend_from_slice(&bytes[..taken]);
                self.left = self.left.saturating_sub(taken as u64);
                if sample.len() == SAMPLE || self.left == 0 {
                    let sample = std::mem::take(sample);
                    self.decide(&sample)?;
                }
                Ok(taken)
            }
            Run::Plain(run) => {
                let taken = most(*run);
                *run -= taken as u64;
                let over = *run == 0;
                self.left = self.left.saturating_sub(taken as u64);
                self.to.bytes(&bytes[..taken])?;
                if over {
                    self.run = Run::Looking(Vec::new());
                }
                Ok(taken)
            }
            Run::Zstd(encoder, plain, packed) => {
                let taken = most(SAMPLE as u64);
                encoder.write_all(&bytes[..taken]).map_err(|error| odd(&error))?;
                self.left = self.left.saturating_sub(taken as u64);
                *plain += taken as u64;
                let ready = encoder.get_ref().len();
                if ready >= PIECE {
                    let piece = std::mem::take(encoder.get_mut());
                    *packed += ready as u64;
                    self.to.words(&format!("{ready}\n"))?;
                    self.to.bytes(&piece)?;
                }
                if self.left == 0 {
                    self.end()?;
                } else if *plain >= TRIAL {
                    if pays(*packed + encoder.get_ref().len() as u64, *plain) {
                        (*plain, *packed) = (0, 0);
                    } else {
                        self.end()?;
                    }
                }
                Ok(taken)
            }
        }
    }

    /// Begins a run with what was looked at.
    fn decide(&mut self, sample: &[u8]) -> Result<()> {
        let size = sample.len() as u64;
        let packed = zstd::bulk::compress(sample, LEVEL).map_err(|error| odd(&error))?;
        if pays(packed.len() as u64, size) {
            self.to.words("zstd\n")?;
            let mut encoder = Encoder::new(Vec::new(), LEVEL).map_err(|error| odd(&error))?;
            encoder.window_log(WINDOW).map_err(|error| odd(&error))?;
            encoder.write_all(sample).map_err(|error| odd(&error))?;
            self.run = Run::Zstd(Box::new(encoder), size, 0);
            return if self.left == 0 { self.end() } else { Ok(()) };
        }
        let run = (size + self.left).min(RUN);
        self.to.words(&format!("plain {run}\n"))?;
        self.to.bytes(sample)?;
        self.run = match run - size {
            0 => Run::Looking(Vec::new()),
            rest => Run::Plain(rest),
        };
        Ok(())
    }

    /// Ends a packed run.
    fn end(&mut self) -> Result<()> {
        if let Run::Zstd(encoder, ..) = std::mem::replace(&mut self.run, Run::Looking(Vec::new())) {
            let piece = encoder.finish().map_err(|error| odd(&error))?;
            self.to.words(&format!("{}\n", piece.len()))?;
            self.to.bytes(&piece)?;
            self.to.words("0\n")?;
        }
        Ok(())
    }

    /// Says that this is all.
    pub fn finish(mut self) -> Result<()> {
        self.end()?;
        self.to.words("end\n")
    }
}

impl Sink for Packing<'_> {
    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
        self.skip -= skipped as u64;
        let mut bytes = &bytes[skipped..];
        while !bytes.is_empty() {
            let taken = self.take(bytes)?;
            bytes = &bytes[taken..];
        }
        Ok(())
    }
}

/// Unpacks what comes.
pub struct Unpacking<'a>(Decoder<'static, Through<'a>>);

impl<'a> Unpacking<'a> {
    /// Gives what comes out to a sink.
    pub fn new(sink: &'a mut dyn Sink) -> Result<Self> {
        let decoder = Decoder::new(Through { sink, trouble: None }).map_err(|error| odd(&error))?;
        Ok(Self(decoder))
    }

    fn done(&mut self, done: io::Result<()>) -> Result<()> {
        done.map_err(|error| self.0.get_mut().trouble.take().unwrap_or_else(|| odd(&error)))
    }

    /// Gives the rest.
    pub fn finish(mut self) -> Result<()> {
        let done = self.0.flush();
        self.done(done)
    }
}

impl Sink for Unpacking<'_> {
    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        let done = self.0.write_all(bytes);
        self.done(done)
    }
}

/// A sink that is written to.
struct Through<'a> {
    sink: &'a mut dyn Sink,
    trouble: Option<Error>,
}

impl Write for Through<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.sink.bytes(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(error) => {
                self.trouble = Some(error);
                Err(io::Error::other("it takes no more"))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn odd(error: &io::Error) -> Error {
    Error::failed(format!("zstd: {}", crate::error::io_words(error)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl Wire for Vec<u8> {
        fn words(&mut self, words: &str) -> Result<()> {
            self.bytes(words.as_bytes())
        }
    }

    /// Does what the script does.
    fn unpack(mut wire: &[u8]) -> Vec<u8> {
        fn line<'a>(wire: &mut &'a [u8]) -> &'a str {
            let end = wire.iter().position(|byte| *byte == b'\n').unwrap();
            let line = std::str::from_utf8(&wire[..end]).unwrap();
            *wire = &wire[end + 1..];
            line
        }
        let mut out = Vec::new();
        loop {
            let words: Vec<&str> = line(&mut wire).split(' ').collect();
            match words[0] {
                "plain" => {
                    let (run, rest) = wire.split_at(words[1].parse().unwrap());
                    out.extend_from_slice(run);
                    wire = rest;
                }
                "zstd" => {
                    let mut frames = Vec::new();
                    loop {
                        let (piece, rest) = (line(&mut wire).parse().unwrap(), wire);
                        if piece == 0 {
                            break;
                        }
                        frames.extend_from_slice(&rest[..piece]);
                        wire = &rest[piece..];
                    }
                    let mut unpacking = Unpacking::new(&mut out).unwrap();
                    unpacking.bytes(&frames).unwrap();
                    unpacking.finish().unwrap();
                }
                "end" => break,
                other => panic!("{other}"),
            }
        }
        assert!(wire.is_empty());
        out
    }

    fn pack(content: &[u8], skip: usize, piece: usize) -> Vec<u8> {
        let mut wire = Vec::new();
        let mut packing = Packing::new(&mut wire, content.len() as u64, skip as u64);
        for piece in content.chunks(piece) {
            packing.bytes(piece).unwrap();
        }
        packing.finish().unwrap();
        wire
    }

    fn noise(size: usize) -> Vec<u8> {
        let mut state = 88_172_645_463_325_252_u64;
        let mut step = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        (0..size).map(|_| step()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn what_goes_comes(
            parts in prop::collection::vec((any::<bool>(), 0..600_000_usize), 0..6),
            skip in 0..100_usize,
            piece in 1000..400_000_usize,
        ) {
            let noise = noise(600_000);
            let mut content = Vec::new();
            for (packs, size) in parts {
                match packs {
                    true => content.extend((0..size).map(|at| (at / 100) as u8)),
                    false => content.extend_from_slice(&noise[..size]),
                }
            }
            let skip = content.len() * skip / 100;
            prop_assert!(unpack(&pack(&content, skip, piece)) == content[skip..]);
        }
    }

    #[test]
    fn only_what_packs_is_packed() {
        let (text, noise) = (vec![b'x'; 9 << 20], noise(9 << 20));
        assert!(pack(&text, 0, 300_000).len() < 100_000);
        // Noise goes as it is, with a few words.
        assert!((9 << 20..(9 << 20) + 100).contains(&pack(&noise, 0, 300_000).len()));
        // Either is found within the other.
        let mixed = [&noise[..], &text, &noise].concat();
        let size = pack(&mixed, 0, 300_000).len();
        assert!((18 << 20..23 << 20).contains(&size), "{size}");
        assert!(unpack(&pack(&mixed, 12_345, 300_000)) == mixed[12_345..]);
    }
}
