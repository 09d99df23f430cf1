//! Frames onto a socket and off it. Every read is a `recvmsg`, for the kernel drops descriptors that
//! come with bytes which are read in any other way.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use rustix::time::Timespec;

use crate::decoder::Decoder;
use crate::error::{FrameError, Lost};
use crate::fault;
use crate::frame::DESCRIPTORS_MAX;

/// Enough for whatever the kernel lets through, so that a surplus is seen and closed.
const ANCILLARY_BYTES: usize = rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX as usize));

/// Up to this, copying a header and a body into one piece is cheaper than a message of two.
const JOINED_BYTES_MAX: usize = 256;

/// What one read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// So many bytes.
    Bytes(usize),
    /// None yet.
    Nothing,
    /// There will be no more.
    End,
}

/// Reads once into `decoder`. With `wait` the call blocks as the socket says.
pub(crate) fn receive(
    socket: BorrowedFd<'_>,
    decoder: &mut Decoder<OwnedFd>,
    wait: bool,
) -> Result<Received, Lost> {
    let mut space = [MaybeUninit::uninit(); ANCILLARY_BYTES];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut flags = RecvFlags::CMSG_CLOEXEC;
    if !wait {
        flags |= RecvFlags::DONTWAIT;
    }
    let mut room = [IoSliceMut::new(decoder.room())];
    let received =
        fault::point("recvmsg").and_then(|()| recvmsg(socket, &mut room, &mut ancillary, flags));
    let message = match received {
        Ok(message) => message,
        Err(Errno::AGAIN | Errno::INTR) => return Ok(Received::Nothing),
        // The peer closed with bytes of ours unread: it is gone all the same.
        Err(Errno::CONNRESET) => return Ok(Received::End),
        Err(errno) => return Err(Lost::Kernel { code: errno.raw_os_error() }),
    };
    if message.flags.contains(ReturnFlags::CTRUNC) {
        return Err(Lost::Protocol(FrameError::TruncatedDescriptors));
    }
    if message.bytes == 0 {
        return Ok(Received::End);
    }
    let descriptors = ancillary.drain().filter_map(|it| match it {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    decoder.advance(message.bytes, descriptors.flatten());
    Ok(Received::Bytes(message.bytes))
}

/// Sends what the socket takes at once: `Ok(None)` if nothing. The descriptors go with the first
/// byte, so they are gone once any byte is.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    parts: [&[u8]; 2],
    descriptors: &[BorrowedFd<'_>],
) -> Result<Option<usize>, Errno> {
    fault::point("send")?;
    let [first, second] = parts;
    let mut joined = [0; JOINED_BYTES_MAX];
    if descriptors.is_empty() && first.len() + second.len() <= joined.len() {
        joined[..first.len()].copy_from_slice(first);
        joined[first.len()..first.len() + second.len()].copy_from_slice(second);
        return send_plain(socket, &joined[..first.len() + second.len()]);
    }
    let slices = parts.map(IoSlice::new);
    let mut space = [MaybeUninit::uninit(); ANCILLARY_BYTES];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::INVAL);
    }
    loop {
        match sendmsg(socket, &slices, &mut ancillary, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(count) => return Ok(Some(count)),
            Err(Errno::AGAIN) => return Ok(None),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

fn send_plain(socket: BorrowedFd<'_>, bytes: &[u8]) -> Result<Option<usize>, Errno> {
    loop {
        match rustix::net::send(socket, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(count) => return Ok(Some(count)),
            Err(Errno::AGAIN) => return Ok(None),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Whether the error is about the descriptors of this one message, not about the connection.
pub(crate) fn concerns_descriptors(errno: Errno) -> bool {
    matches!(errno, Errno::TOOMANYREFS | Errno::BADF | Errno::MFILE | Errno::NFILE | Errno::INVAL)
}

/// Waits until the socket is ready for `what`, has an error or an end; `false` at the deadline or
/// after a signal.
pub(crate) fn wait_for(
    socket: BorrowedFd<'_>,
    what: PollFlags,
    deadline: Option<Instant>,
) -> io::Result<bool> {
    let mut polled = [PollFd::from_borrowed_fd(socket, what)];
    poll_until(&mut polled, deadline)
}

/// `poll` with a point in time.
pub(crate) fn poll_until(polled: &mut [PollFd<'_>], deadline: Option<Instant>) -> io::Result<bool> {
    let timeout = deadline.map(|deadline| {
        let left = deadline.saturating_duration_since(Instant::now());
        timespec(left)
    });
    match fault::point("poll").and_then(|()| poll(polled, timeout.as_ref())) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

pub(crate) fn timespec(duration: Duration) -> Timespec {
    Timespec {
        // A thousand years are as good as for ever.
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX).min(1 << 35),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}
