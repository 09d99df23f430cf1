//! What a connection's socket did not take at once.
//!
//! Whoever has something to send sends it, on its own thread and without waiting. Only what the
//! socket does not take is queued, up to a limit; one thread per server, the flusher, sends that when
//! there is room. A client that does not read costs memory up to the limit and then its connection,
//! and nobody else any time.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use crate::transport;

#[derive(Debug)]
pub(super) struct Outbox {
    /// Until the client is welcomed nothing but the crate's own words is sent.
    pub(super) is_corked: bool,
    queue: VecDeque<Queued>,
    bytes: usize,
    descriptors: usize,
    /// Whether the flusher was told of the socket before.
    pub(super) is_registered: bool,
}

#[derive(Debug)]
struct Queued {
    bytes: Vec<u8>,
    at: usize,
    descriptors: Vec<OwnedFd>,
}

/// How much may wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) bytes_max: usize,
    pub(super) descriptors_max: usize,
}

/// What became of a frame.
#[derive(Debug)]
pub(super) enum Posted {
    Sent,
    /// Some of it is queued; the flusher has to know.
    Queued,
    /// It is queued until the client is welcomed.
    Corked,
    /// There is no room for it: so many bytes wait already.
    Full {
        bytes: usize,
    },
    /// The kernel does not take its descriptors. Nothing of it was sent.
    Descriptors(Errno),
    Broken,
}

impl Default for Outbox {
    fn default() -> Self {
        Self {
            is_corked: true,
            queue: VecDeque::new(),
            bytes: 0,
            descriptors: 0,
            is_registered: false,
        }
    }
}

impl Outbox {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn post(
        &mut self,
        socket: BorrowedFd<'_>,
        parts: [&[u8]; 2],
        descriptors: &[BorrowedFd<'_>],
        limits: Limits,
    ) -> Posted {
        let [header, body] = parts;
        let mut sent = 0;
        if self.queue.is_empty() && !self.is_corked {
            match transport::send(socket, parts, descriptors) {
                Ok(Some(count)) if count == header.len() + body.len() => return Posted::Sent,
                Ok(count) => sent = count.unwrap_or(0),
                Err(errno) if !descriptors.is_empty() && transport::concerns_descriptors(errno) => {
                    return Posted::Descriptors(errno);
                }
                Err(_) => return Posted::Broken,
            }
        }
        let left = header.len() + body.len() - sent;
        let waiting = if sent == 0 { descriptors } else { &[] };
        // A frame that was begun must be finished, and one alone always fits.
        if sent == 0
            && !self.queue.is_empty()
            && (self.bytes + left > limits.bytes_max
                || self.descriptors + waiting.len() > limits.descriptors_max)
        {
            return Posted::Full { bytes: self.bytes };
        }
        let kept: Result<Vec<OwnedFd>, _> =
            waiting.iter().map(BorrowedFd::try_clone_to_owned).collect();
        let Ok(descriptors) = kept else {
            return Posted::Descriptors(Errno::MFILE);
        };
        let mut bytes = Vec::with_capacity(left);
        bytes.extend_from_slice(&header[sent.min(header.len())..]);
        bytes.extend_from_slice(&body[sent.saturating_sub(header.len())..]);
        self.bytes += left;
        self.descriptors += descriptors.len();
        self.queue.push_back(Queued { bytes, at: 0, descriptors });
        if self.is_corked { Posted::Corked } else { Posted::Queued }
    }

    /// Sends what the socket takes; `true` if nothing is left.
    pub(super) fn flush(&mut self, socket: BorrowedFd<'_>) -> Result<bool, Errno> {
        while let Some(first) = self.queue.front_mut() {
            let descriptors: Vec<_> = first.descriptors.iter().map(AsFd::as_fd).collect();
            let Some(count) =
                transport::send(socket, [&first.bytes[first.at..], &[]], &descriptors)?
            else {
                return Ok(false);
            };
            drop(descriptors);
            self.descriptors -= first.descriptors.len();
            first.descriptors.clear();
            first.at += count;
            self.bytes -= count;
            if first.at == first.bytes.len() {
                self.queue.pop_front();
            }
        }
        Ok(true)
    }

    pub(super) fn clear(&mut self) {
        self.queue.clear();
        (self.bytes, self.descriptors) = (0, 0);
    }
}
