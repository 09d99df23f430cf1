//! Bytes and descriptors over a socket.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use cuda_ipc::{Chunk, ChunkLabel};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use std::os::fd::AsFd;

pub(crate) fn send(socket: &UnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut ancillary = SendAncillaryBuffer::new(&mut room);
    if !descriptors.is_empty() {
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(descriptors)), "they fit");
    }
    let sent = sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL);
    assert_eq!(sent.expect("sent"), bytes.len());
}

/// As many bytes as `bytes` takes, and the descriptors beside them; `None` at the end.
pub(crate) fn receive(socket: &UnixStream, bytes: &mut [u8]) -> Option<Vec<OwnedFd>> {
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut room);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::WAITALL;
    let received = recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut ancillary, flags);
    let received = received.expect("received");
    if received.bytes == 0 {
        return None;
    }
    assert_eq!(received.bytes, bytes.len());
    let descriptors = ancillary.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect::<Vec<_>>(),
        _ => Vec::new(),
    });
    Some(descriptors.collect())
}

pub(crate) fn send_chunk(socket: &UnixStream, chunk: &Chunk) {
    send(socket, &chunk.label().encode(), &[chunk.as_fd()]);
}

pub(crate) fn receive_chunk(socket: &UnixStream) -> Chunk {
    let mut label = [0; ChunkLabel::BYTES];
    let mut descriptors = receive(socket, &mut label).expect("a chunk");
    Chunk::from_parts(ChunkLabel::decode(&label), descriptors.pop().expect("one descriptor"))
}
