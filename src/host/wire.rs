//! What a run and its launcher say to each other over a socket: the command with its three streams one
//! way and later wishes to stop, reports the other way. Does not know who is who.

use std::ffi::OsString;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

/// A command as the launcher gets it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Spec {
    /// The program and its arguments.
    pub argv: Vec<OsString>,
    /// The folder to run in.
    pub dir: OsString,
    /// The whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// How long the command may take.
    pub timeout: Option<Duration>,
    /// The time between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// The process id of the launcher, once it has one.
    pub launcher: i32,
}

/// What the launcher tells: once that the command starts, and then how it ended.
#[derive(Debug, Serialize, Deserialize)]
pub enum Report {
    /// It starts, and leads the session of this number.
    Started(i32),
    /// By itself.
    Code(i32),
    /// By a signal that the launcher did not send.
    Signal(i32),
    /// It took too long and was ended.
    TimedOut,
    /// It was ended on request.
    Stopped,
    /// It could not be started, or not be ended; a message.
    Failed(String),
}

/// A wish: SIGTERM, and SIGKILL after the grace.
pub const TERMINATE: u8 = b't';
/// A wish: SIGKILL.
pub const KILL: u8 = b'k';

/// Sends a command with its standard input, output and error.
pub fn send(mut socket: &UnixStream, spec: &Spec, streams: [BorrowedFd<'_>; 3]) -> io::Result<()> {
    let spec = serde_json::to_vec(spec)?;
    let size = (spec.len() as u64).to_le_bytes();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut rights = SendAncillaryBuffer::new(&mut space);
    rights.push(SendAncillaryMessage::ScmRights(&streams));
    let sent = sendmsg(socket, &[IoSlice::new(&size)], &mut rights, SendFlags::NOSIGNAL)?;
    socket.write_all(&size[sent..])?;
    socket.write_all(&spec)
}

/// Takes what `send` sent.
pub fn receive(mut socket: &UnixStream) -> io::Result<(Spec, [OwnedFd; 3])> {
    let mut size = [0; 8];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut rights = RecvAncillaryBuffer::new(&mut space);
    let received =
        recvmsg(socket, &mut [IoSliceMut::new(&mut size)], &mut rights, RecvFlags::CMSG_CLOEXEC)?.bytes;
    let mut streams = Vec::new();
    for message in rights.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            streams.extend(fds);
        }
    }
    socket.read_exact(&mut size[received..])?;
    let size = usize::try_from(u64::from_le_bytes(size)).map_err(io::Error::other)?;
    let mut spec = vec![0; size];
    socket.read_exact(&mut spec)?;
    let streams = streams.try_into().map_err(|_| io::Error::other("too many open files"))?;
    Ok((serde_json::from_slice(&spec)?, streams))
}
