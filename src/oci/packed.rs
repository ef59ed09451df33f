//! What comes out of a stream that is packed with gzip, with zstd, or not at all, in bounded memory.
//! What packed it is seen by its first bytes, as runtimes do it: media types and names lie. Knows no tar.

use std::io::{self, Write};

use flate2::write::MultiGzDecoder;
use zstd::stream::write::Decoder;

use crate::digest::{Blob, Hasher};
use crate::error::{Error, Result, io_words};
use crate::recipe::Sink;

/// A stream may always become this long ...
const ALWAYS: u64 = 4 << 30;
/// ... and longer only up to so many times its packed length.
const MOST_TIMES: u64 = 200;
/// How many bytes show what packed a stream.
const MAGIC: usize = 4;

/// Whether these are the first bytes of a packed stream.
pub fn is_packed(start: &[u8]) -> bool {
    matches!(
        start,
        [0x1f, 0x8b, 8, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..]
    )
}

/// A sink for a packed stream that passes on what comes out of it.
pub struct Unpacker<S: Sink> {
    stream: Stream<S>,
}

enum Stream<S: Sink> {
    /// Too little came yet to know.
    Start(Vec<u8>, Out<S>),
    Plain(Out<S>),
    Gzip(Box<MultiGzDecoder<Out<S>>>),
    Zstd(Box<Decoder<'static, Out<S>>>),
    /// It failed while it was being looked at.
    Gone,
}

/// Where unpacked bytes go.
struct Out<S> {
    sink: S,
    hasher: Hasher,
    size: u64,
    most: u64,
    error: Option<Error>,
}

impl<S: Sink> Unpacker<S> {
    /// Unpacks a stream of `size` packed bytes into `sink`.
    pub fn new(sink: S, size: u64) -> Self {
        let most = size.saturating_mul(MOST_TIMES).max(ALWAYS);
        let out = Out { sink, hasher: Hasher::sha256(), size: 0, most, error: None };
        Self { stream: Stream::Start(Vec::new(), out) }
    }

    /// Ends the stream; gives the sink back, and the SHA-256 and size of what went into it. Fails on a
    /// stream that has no end.
    pub fn finish(mut self) -> Result<(S, Blob)> {
        if let Stream::Start(..) = &self.stream {
            self.begin()?;
        }
        let out = match self.stream {
            Stream::Plain(out) => out,
            Stream::Gzip(mut gzip) => match gzip.try_finish() {
                Ok(()) => gzip.finish().map_err(|error| odd(&error))?,
                Err(error) => return Err(gzip.get_mut().error.take().unwrap_or_else(|| odd(&error))),
            },
            Stream::Zstd(mut zstd) => match zstd.do_finish() {
                Ok(()) => zstd.into_inner(),
                Err(error) => return Err(zstd.get_mut().error.take().unwrap_or_else(|| odd(&error))),
            },
            Stream::Start(..) | Stream::Gone => return Err(Error::failed("it cannot be unpacked")),
        };
        Ok((out.sink, Blob { digest: out.hasher.finish(), size: out.size }))
    }

    /// Sees by the first bytes what packed the stream.
    fn begin(&mut self) -> Result<()> {
        let Stream::Start(start, out) = std::mem::replace(&mut self.stream, Stream::Gone) else {
            panic!("BUG: a stream begins twice")
        };
        self.stream = match start.as_slice() {
            [0x1f, 0x8b, 8, ..] => Stream::Gzip(Box::new(MultiGzDecoder::new(out))),
            // Also a frame that is to be skipped, with which zstd:chunked may begin.
            [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => {
                Stream::Zstd(Box::new(Decoder::new(out).map_err(|error| odd(&error))?))
            }
            _ => Stream::Plain(out),
        };
        self.more(&start)
    }

    fn more(&mut self, bytes: &[u8]) -> Result<()> {
        let (result, out) = match &mut self.stream {
            Stream::Plain(out) => (out.write_all(bytes), out),
            Stream::Gzip(gzip) => (gzip.write_all(bytes), gzip.get_mut()),
            Stream::Zstd(zstd) => (zstd.write_all(bytes), zstd.get_mut()),
            Stream::Start(..) | Stream::Gone => panic!("BUG: a stream that has not begun"),
        };
        result.map_err(|error| out.error.take().unwrap_or_else(|| odd(&error)))
    }
}

fn odd(error: &io::Error) -> Error {
    Error::failed(format!("it cannot be unpacked: {}", io_words(error)))
}

impl<S: Sink> Sink for Unpacker<S> {
    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        let Stream::Start(start, _) = &mut self.stream else { return self.more(bytes) };
        let (first, rest) = bytes.split_at(bytes.len().min(MAGIC - start.len()));
        start.extend_from_slice(first);
        if start.len() < MAGIC {
            return Ok(());
        }
        self.begin()?;
        self.more(rest)
    }
}

impl<S: Sink> Write for Out<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.size += bytes.len() as u64;
        let done = match self.size > self.most {
            true => {
                let most = self.most;
                Err(Error::failed(format!("it unpacks to more than {most} bytes, as only an attack does")))
            }
            false => {
                self.hasher.update(bytes);
                self.sink.bytes(bytes)
            }
        };
        match done {
            Ok(()) => Ok(bytes.len()),
            Err(error) => {
                self.error.get_or_insert(error);
                Err(io::Error::other("stopped"))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::digest::Digest;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        writer.write_all(bytes).unwrap();
        writer.finish().unwrap()
    }

    fn unpack(packed: &[u8], piece: usize) -> Result<Vec<u8>> {
        let mut unpacker = Unpacker::new(Vec::new(), packed.len() as u64);
        for piece in packed.chunks(piece) {
            unpacker.bytes(piece)?;
        }
        let (bytes, blob) = unpacker.finish()?;
        assert_eq!(blob, Blob { digest: Digest::sha256_of(&bytes), size: bytes.len() as u64 });
        Ok(bytes)
    }

    #[test]
    fn members_and_frames_follow_each_other() {
        let (one, two) = (vec![b'a'; 100_000], b"the second".to_vec());
        let both = [one.clone(), two.clone()].concat();
        let zstd = |bytes: &[u8]| zstd::stream::encode_all(bytes, 3).unwrap();
        let skipped = [&[0x51, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"xyz"].concat();
        for piece in [1, 3, 10, 1 << 20] {
            assert_eq!(unpack(&[gzip(&one), gzip(&two)].concat(), piece).unwrap(), both);
            assert_eq!(unpack(&[skipped.clone(), zstd(&one), zstd(&two)].concat(), piece).unwrap(), both);
            assert_eq!(unpack(&both, piece).unwrap(), both);
            assert_eq!(unpack(b"", piece).unwrap(), b"");
            assert_eq!(unpack(b"xy", piece).unwrap(), b"xy");
        }
    }

    #[test]
    fn what_is_cut_off_or_damaged_is_refused() {
        let text: Vec<u8> =
            (0..5000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        for packed in [gzip(&text), zstd::stream::encode_all(&text[..], 3).unwrap()] {
            assert_eq!(unpack(&packed, 100).unwrap(), text);
            for end in [5, 11, 100, packed.len() - 1] {
                assert!(unpack(&packed[..end], 64).is_err(), "{end}");
            }
            let mut bad = packed.clone();
            let middle = bad.len() / 2;
            bad[middle] ^= 0x55;
            assert!(unpack(&bad, 64).is_err() || unpack(&bad, 64).unwrap() != text);
        }
        assert!(unpack(&[gzip(&text), b"rest".to_vec()].concat(), 999).is_err());
    }

    #[test]
    fn a_bomb_is_put_out() {
        struct Nowhere;
        impl Sink for Nowhere {
            fn bytes(&mut self, _: &[u8]) -> Result<()> {
                Ok(())
            }
        }
        let packed = zstd::stream::encode_all(&vec![0; 1 << 24][..], 3).unwrap();
        let mut unpacker = Unpacker::new(Nowhere, 1 << 30);
        let Stream::Start(_, out) = &mut unpacker.stream else { panic!() };
        assert_eq!(std::mem::replace(&mut out.most, 1 << 26), 200 << 30);
        let error = (0..5).find_map(|_| unpacker.bytes(&packed).err()).unwrap().to_string();
        assert_eq!(error, "it unpacks to more than 67108864 bytes, as only an attack does");
    }

    #[test]
    fn what_the_sink_says_is_what_is_said() {
        struct No;
        impl Sink for No {
            fn bytes(&mut self, _: &[u8]) -> Result<()> {
                Err(Error::failed("no"))
            }
        }
        for packed in [gzip(&[1; 100_000]), zstd::stream::encode_all(&[1; 100_000][..], 3).unwrap()] {
            let mut unpacker = Unpacker::new(No, 1);
            let error = unpacker.bytes(&packed).err().or_else(|| unpacker.finish().err()).unwrap();
            assert_eq!(error.to_string(), "no");
        }
    }

    proptest! {
        #[test]
        fn no_stream_panics(magic in 0..3_usize, bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let magic: &[u8] = [&[0x1f, 0x8b, 8][..], &[0x28, 0xb5, 0x2f, 0xfd], b""][magic];
            let _ = unpack(&[magic, &bytes].concat(), 7);
        }
    }
}
