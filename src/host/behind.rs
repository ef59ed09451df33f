//! Writing behind the one who gives: small pieces are gathered, and a thread of its own writes them while the next
//! are read and verified. Does not know what is written.

use std::fs::File;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use super::fs::FileSink;
use crate::error::{At, Error, Result};
use crate::recipe::Sink;

/// How many bytes are written at once.
const GATHERED: usize = 1 << 20;
/// How often that may wait to be written.
const AHEAD: usize = 2;

/// What waits to be written.
enum Load {
    Bytes(Vec<u8>),
    File(File, u64),
}

/// Writes what `fill` gives to an open file, from its current position on. What is there when this fails is
/// incomplete. `path` is for messages.
pub fn write(file: &File, path: &Path, fill: impl FnOnce(&mut dyn Sink) -> Result<()>) -> Result<()> {
    std::thread::scope(|scope| {
        let ((full, loads), (empty, buffers)) = (sync_channel(AHEAD), channel());
        let writing = scope.spawn(move || put(&mut FileSink { file, path }, loads, &empty));
        let mut gather = Gather { gathered: Vec::with_capacity(GATHERED), full, buffers };
        let filled = fill(&mut gather).and_then(|()| gather.pass());
        drop(gather);
        match writing.join() {
            // Who cannot write is why the other could not go on.
            Ok(written) => written.and(filled),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn put(sink: &mut FileSink<'_>, loads: Receiver<Load>, empty: &Sender<Vec<u8>>) -> Result<()> {
    for load in loads {
        match load {
            Load::Bytes(mut bytes) => {
                sink.bytes(&bytes)?;
                bytes.clear();
                // After its last piece the other has gone, and needs no buffer.
                let _ = empty.send(bytes);
            }
            Load::File(file, size) => sink.file(&file, size)?,
        }
    }
    Ok(())
}

/// Gathers what is to be written.
struct Gather {
    gathered: Vec<u8>,
    full: SyncSender<Load>,
    buffers: Receiver<Vec<u8>>,
}

impl Gather {
    fn pass(&mut self) -> Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let next = self.buffers.try_recv().unwrap_or_else(|_| Vec::with_capacity(GATHERED));
        let full = std::mem::replace(&mut self.gathered, next);
        self.give(Load::Bytes(full))
    }

    fn give(&self, load: Load) -> Result<()> {
        self.full.send(load).map_err(|_| Error::failed("nothing more can be written"))
    }
}

impl Sink for Gather {
    fn bytes(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(GATHERED - self.gathered.len()));
            self.gathered.extend_from_slice(now);
            bytes = rest;
            if self.gathered.len() == GATHERED {
                self.pass()?;
            }
        }
        Ok(())
    }

    fn file(&mut self, file: &File, size: u64) -> Result<()> {
        self.pass()?;
        let file = file.try_clone().at("read", Path::new("a file"))?;
        self.give(Load::File(file, size))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::host::fs;

    #[test]
    fn what_was_given_is_there_in_its_order() {
        let folder = tempfile::tempdir().unwrap();
        let other = folder.path().join("other");
        fs::write(&other, &vec![9; 3 << 20], 0o644, fs::Durability::Cache).unwrap();
        for piece in [1, 1000, GATHERED, GATHERED + 1, 5 * GATHERED + 7] {
            let path = folder.path().join("x");
            let file = fs::create(&path).unwrap();
            let mut expected = Vec::new();
            write(&file, &path, |sink| {
                for number in 0..5 {
                    let bytes = vec![number; piece];
                    sink.bytes(&bytes)?;
                    expected.extend(bytes);
                    sink.file(&File::open(&other).unwrap(), 2 << 20)?;
                    expected.extend(vec![9; 2 << 20]);
                }
                sink.bytes(b"end")
            })
            .unwrap();
            expected.extend(b"end");
            assert!(std::fs::read(&path).unwrap() == expected, "pieces of {piece} bytes");
        }
    }

    #[test]
    fn the_first_reason_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let file = fs::create(&path).unwrap();
        let done = write(&file, &path, |sink| {
            sink.bytes(b"begun")?;
            Err(Error::failed("it is not there"))
        });
        assert_eq!(done.unwrap_err().to_string(), "it is not there");
        let mut text = String::new();
        File::open(&path).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "");
        // A file that is only open to be read cannot be written.
        let file = File::open(&path).unwrap();
        let mut given = 0;
        let done = write(&file, &path, |sink| {
            for _ in 0..100 {
                sink.bytes(&vec![1; GATHERED])?;
                given += 1;
            }
            Ok(())
        });
        assert!(done.unwrap_err().to_string().starts_with("write `"));
        assert!(given < 100, "it ends");
    }
}
