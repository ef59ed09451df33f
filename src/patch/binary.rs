//! Binary changes of git: two blocks, each base 85 of zlib of a whole content or of a delta. Checks that
//! the change was made for the very content it is applied to. Knows no path.
//!
//! diffy decodes these too, but it never returns from a truncated stream and has no bound on the size.

use zlib_rs::{Inflate, InflateFlush, Status};

use super::parse::Reader;
use super::reason::{Reason, Refusal, show};
use super::section::{Binary, Block};

/// More than any content that belongs in a patch; keeps a hostile one from filling the memory.
const LARGEST: u64 = 1 << 30;

const ALPHABET: &[u8; 85] =
    b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~";

/// Reads from the `GIT binary patch` line to the end of the second block.
pub fn read(reader: &mut Reader<'_>) -> Result<Binary, Refusal> {
    let line = reader.number();
    reader.at += 1;
    let forward = block(reader)?;
    let reverse = block(reader)?;
    Ok(Binary { line, forward, reverse })
}

fn block(reader: &mut Reader<'_>) -> Result<Block, Refusal> {
    let damaged = |reader: &Reader<'_>, message: &str| {
        reader
            .refuse(Reason::Binary, message)
            .hint("write the patch again with `git diff --binary`, and carry it without changing its lines")
    };
    let header = reader.line(0);
    let number = |prefix: &[u8]| {
        let digits = header.strip_prefix(prefix)?;
        std::str::from_utf8(digits).ok()?.parse::<u64>().ok().filter(|size| *size <= LARGEST)
    };
    let (literal, delta) = (number(b"literal "), number(b"delta "));
    let Some(size) = literal.or(delta) else {
        let message = format!("`literal` or `delta` with a size should stand here, not `{}`", show(header));
        return Err(damaged(reader, &message));
    };
    reader.at += 1;
    let mut packed = Vec::new();
    loop {
        if reader.is_done() {
            return Err(damaged(reader, "the binary data ends without a blank line"));
        }
        let line = reader.line(0);
        if line.is_empty() {
            break;
        }
        if base85(line, &mut packed).is_none() {
            return Err(damaged(reader, "this is not a line of binary data"));
        }
        reader.at += 1;
    }
    let Some(bytes) = inflate(&packed, size) else {
        return Err(damaged(reader, &format!("the binary data above does not unpack to {size} bytes")));
    };
    reader.at += 1;
    Ok(if literal.is_some() { Block::Literal(bytes) } else { Block::Delta(bytes) })
}

/// Writes one direction of a binary change: a whole content of which `packed` is the zlib stream.
pub fn write(content: &[u8], packed: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("literal {}\n", content.len()).as_bytes());
    for line in packed.chunks(52) {
        let letter = if line.len() <= 26 { b'A' - 1 } else { b'a' - 27 };
        out.push(letter + line.len() as u8);
        for group in line.chunks(4) {
            let mut bytes = [0; 4];
            bytes[..group.len()].copy_from_slice(group);
            let mut value = u32::from_be_bytes(bytes);
            let mut digits = [0; 5];
            for digit in digits.iter_mut().rev() {
                *digit = ALPHABET[(value % 85) as usize];
                value /= 85;
            }
            out.extend_from_slice(&digits);
        }
        out.push(b'\n');
    }
    out.push(b'\n');
}

/// Decodes one line: a letter for its length, then five digits for every four bytes.
fn base85(line: &[u8], into: &mut Vec<u8>) -> Option<()> {
    let (letter, digits) = line.split_first()?;
    let length = match letter {
        b'A'..=b'Z' => usize::from(letter - b'A') + 1,
        b'a'..=b'z' => usize::from(letter - b'a') + 27,
        _ => return None,
    };
    if digits.len() != length.div_ceil(4) * 5 {
        return None;
    }
    let end = into.len() + length;
    for group in digits.chunks_exact(5) {
        let mut value = 0u64;
        for digit in group {
            value = value * 85 + ALPHABET.iter().position(|known| known == digit)? as u64;
        }
        into.extend_from_slice(&u32::try_from(value).ok()?.to_be_bytes());
    }
    into.truncate(end);
    Some(())
}

/// Unpacks a whole zlib stream of exactly `size` bytes.
fn inflate(packed: &[u8], size: u64) -> Option<Vec<u8>> {
    let size = usize::try_from(size).ok()?;
    let mut inflate = Inflate::new(true, 15);
    let mut bytes = Vec::new();
    let mut chunk = vec![0; 64 * 1024];
    let mut read = 0;
    loop {
        let (before_in, before_out) = (inflate.total_in(), inflate.total_out());
        let status = inflate.decompress(&packed[read..], &mut chunk, InflateFlush::NoFlush).ok()?;
        let got = usize::try_from(inflate.total_out() - before_out).ok()?;
        let taken = usize::try_from(inflate.total_in() - before_in).ok()?;
        read += taken;
        bytes.extend_from_slice(&chunk[..got]);
        if bytes.len() > size {
            return None;
        }
        match status {
            Status::StreamEnd => return (bytes.len() == size && read == packed.len()).then_some(bytes),
            _ if got == 0 && taken == 0 => return None,
            _ => {}
        }
    }
}

/// What applying a binary change finds.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The new content.
    Applied(Vec<u8>),
    /// The content is the new one already.
    Already,
    /// The change was made for another content.
    Foreign,
}

/// Applies a binary change to `content`. As the reverse block gives the old content back, that it was
/// made for this very content is checked byte by byte.
pub fn apply(binary: &Binary, content: &[u8]) -> Outcome {
    if let Some(new) = change(&binary.forward, content)
        && change(&binary.reverse, &new).as_deref() == Some(content)
    {
        return Outcome::Applied(new);
    }
    if let Some(old) = change(&binary.reverse, content)
        && change(&binary.forward, &old).as_deref() == Some(content)
    {
        return Outcome::Already;
    }
    Outcome::Foreign
}

fn change(block: &Block, content: &[u8]) -> Option<Vec<u8>> {
    match block {
        Block::Literal(bytes) => Some(bytes.clone()),
        Block::Delta(delta) => patch_delta(delta, content),
    }
}

/// Applies git's delta: the sizes before and after, then copies of the old content and new bytes.
fn patch_delta(delta: &[u8], old: &[u8]) -> Option<Vec<u8>> {
    let mut rest = delta;
    let (old_size, new_size) = (size(&mut rest)?, size(&mut rest)?);
    if old_size != old.len() as u64 || new_size > LARGEST {
        return None;
    }
    let new_size = usize::try_from(new_size).ok()?;
    let mut new = Vec::new();
    while let Some((control, after)) = rest.split_first() {
        rest = after;
        let piece = if control & 0x80 != 0 {
            let mut numbers = [0u8; 8];
            for (bit, number) in numbers[..7].iter_mut().enumerate() {
                if control & (1 << bit) != 0 {
                    let (byte, after) = rest.split_first()?;
                    *number = *byte;
                    rest = after;
                }
            }
            let offset = u32::from_le_bytes([numbers[0], numbers[1], numbers[2], numbers[3]]) as usize;
            let length = match u32::from_le_bytes([numbers[4], numbers[5], numbers[6], 0]) {
                0 => 0x10000,
                length => length as usize,
            };
            old.get(offset..offset.checked_add(length)?)?
        } else {
            let length = usize::from(*control);
            let piece = rest.get(..length).filter(|piece| !piece.is_empty())?;
            rest = &rest[length..];
            piece
        };
        if piece.len() > new_size - new.len() {
            return None;
        }
        new.extend_from_slice(piece);
    }
    (new.len() == new_size).then_some(new)
}

fn size(rest: &mut &[u8]) -> Option<u64> {
    let mut size = 0u64;
    for shift in (0..63).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        size |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(size);
        }
    }
    None
}
