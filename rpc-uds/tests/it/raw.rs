//! A client that says whatever a test wants it to.

use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rpc_uds::{Control, Decoder, Frame, FrameLimits, Header, Kind, Offer};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

pub(crate) struct Raw {
    pub(crate) stream: UnixStream,
    decoder: Decoder<()>,
}

impl Raw {
    pub(crate) fn connect(path: &Path) -> Self {
        Self::over(UnixStream::connect(path).expect("the server is there"))
    }

    pub(crate) fn over(stream: UnixStream) -> Self {
        Self { stream, decoder: Decoder::new(FrameLimits::default()) }
    }

    /// Connects and shakes hands.
    pub(crate) fn welcomed(path: &Path) -> Self {
        let mut raw = Self::connect(path);
        raw.say(&Control::Hello(Offer::default()), 0);
        let welcome = raw.hear().expect("a welcome");
        assert!(matches!(welcome, (0, Control::Welcome(_))), "{welcome:?}");
        raw
    }

    /// Sends bytes; `false` if the server has closed.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Sends bytes with descriptors beside the first of them.
    pub(crate) fn send_with(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> bool {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(descriptors)));
        let slices = [std::io::IoSlice::new(bytes)];
        let sent = sendmsg(self.stream.as_fd(), &slices, &mut ancillary, SendFlags::NOSIGNAL);
        sent.is_ok_and(|count| count == bytes.len())
    }

    pub(crate) fn say(&mut self, control: &Control, id: u64) -> bool {
        self.send(&frame(Kind::Control, 0, id, 0, &control.encode()))
    }

    /// The next frame, or none when the server has closed.
    pub(crate) fn next(&mut self) -> Option<Frame<()>> {
        loop {
            if let Some(frame) = self.decoder.next().expect("the server speaks the protocol") {
                return Some(frame);
            }
            match self.stream.read(self.decoder.room()) {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.decoder.advance(count, []),
            }
        }
    }

    /// The next frame, which is a control frame.
    pub(crate) fn hear(&mut self) -> Option<(u64, Control)> {
        let frame = self.next()?;
        assert_eq!(frame.header.kind, Kind::Control);
        let control = Control::decode(&frame.body).expect("the server speaks the protocol");
        Some((frame.header.id, control))
    }
}

pub(crate) fn frame(kind: Kind, tag: u16, id: u64, descriptors: u8, body: &[u8]) -> Vec<u8> {
    let body_bytes = body.len() as u32;
    let header = Header { kind, tag, descriptors, body_bytes, id };
    [&header.encode()[..], body].concat()
}
