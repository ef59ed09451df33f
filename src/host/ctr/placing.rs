//! A blob that a host makes of another that it has: what the script beside `ctr` is told. Knows no connection.

use std::collections::VecDeque;

use super::archive::exactly;
use crate::digest::{Blob, Digest};
use crate::error::Result;
use crate::recipe::{Content, Part, Sink};
use crate::splice::{Splice, Stretch};

/// What the host puts one after the other.
#[derive(Debug, PartialEq, Eq)]
enum Frame {
    /// So many bytes that come.
    Bytes(u64),
    /// Bytes of a blob that it has: which, from where on, how many.
    Blob(Digest, u64, u64),
}

/// Tells the script of hosts how a blob is made, and sends what is new of it.
pub fn dictate(
    (blob, part): &(Blob, Part),
    splice: &Splice,
    content: &dyn Content,
    sink: &mut dyn Sink,
) -> Result<()> {
    let frame = |stretch: &Stretch| match *stretch {
        Stretch::New { size } => Frame::Bytes(size),
        Stretch::Old { from, size } => Frame::Blob(splice.of, from, size),
    };
    let mut framed = Framed { sink, frames: splice.stretches.iter().map(frame).collect(), left: 0 };
    exactly(blob, splice.size(), &mut framed, |sink| splice.send(part, content, sink))?;
    framed.kept()?;
    sink.bytes(b".\n")
}

/// Says before bytes how many come, and in between what the host has.
struct Framed<'a> {
    sink: &'a mut dyn Sink,
    frames: VecDeque<Frame>,
    left: u64,
}

impl Framed<'_> {
    /// Says what the host has up to the next bytes that come.
    fn kept(&mut self) -> Result<()> {
        while let Some(Frame::Blob(digest, from, size)) = self.frames.front() {
            let line = format!("blob {} {} {size}\n", digest.hex(), from + 1);
            self.sink.bytes(line.as_bytes())?;
            self.frames.pop_front();
        }
        Ok(())
    }
}

impl Sink for Framed<'_> {
    fn bytes(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            if self.left == 0 {
                self.kept()?;
                let Some(Frame::Bytes(size)) = self.frames.pop_front() else {
                    panic!("BUG: a splice is longer than its stretches")
                };
                self.left = size;
                self.sink.bytes(format!("bytes {size}\n").as_bytes())?;
                continue;
            }
            let most = usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
            self.sink.bytes(&bytes[..most])?;
            self.left -= most as u64;
            bytes = &bytes[most..];
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Nothing;

    /// What the script of hosts makes of a dictation.
    fn read_out(mut text: &[u8], held: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        loop {
            let end = text.iter().position(|byte| *byte == b'\n').unwrap();
            let line = String::from_utf8(text[..end].to_vec()).unwrap();
            text = &text[end + 1..];
            let words: Vec<&str> = line.split(' ').collect();
            let number = |at: usize| words[at].parse::<usize>().unwrap();
            match words[0] {
                "bytes" => {
                    out.extend_from_slice(&text[..number(1)]);
                    text = &text[number(1)..];
                }
                "blob" => out.extend_from_slice(&held[number(2) - 1..][..number(3)]),
                _ => {
                    assert_eq!((line.as_str(), text.len()), (".", 0));
                    return out;
                }
            }
        }
    }

    #[test]
    fn what_is_dictated_is_the_blob() {
        let (old, mut new) = (vec![3; 2000], vec![3; 1700]);
        new[1000] = 4;
        let one = (Blob { digest: Digest::sha256_of(&new), size: 1700 }, Part::Inline(new.clone()));
        let dictated = |stretches: Vec<Stretch>| {
            let splice = Splice { of: Digest::sha256_of(&old), stretches };
            let mut text = Vec::new();
            dictate(&one, &splice, &Nothing, &mut text).map(|()| read_out(&text, &old))
        };
        let kept = |from, size| Stretch::Old { from, size };
        for stretches in [
            vec![kept(7, 900), Stretch::New { size: 300 }, kept(0, 500)],
            vec![Stretch::New { size: 1100 }, kept(4, 400), kept(9, 200)],
            vec![kept(0, 500), kept(0, 400), Stretch::New { size: 800 }],
            vec![Stretch::New { size: 1700 }],
        ] {
            assert_eq!(dictated(stretches).unwrap(), new);
        }
        assert!(dictated(vec![kept(0, 1), Stretch::New { size: 1700 }]).is_err());
        assert!(dictated(vec![Stretch::New { size: 1000 }, kept(0, 699)]).is_err());
    }
}
