//! What is queued to fill a slot, and to read one.

use cuda_ipc::Stream as Queue;

use crate::error::Result;
use crate::ring::{Claim, Found, RingLoads as _};
use crate::stream::device::hold::Hold;
use crate::stream::device::writer::Source;
use crate::sync::Ordering;

impl Hold {
    pub(super) fn bytes(&self) -> u64 {
        self.attachment.layout.payload_bytes as u64
    }

    /// Queues a copy of a frame into a slot.
    pub(super) fn copy_from(&self, queue: &Queue, to: u64, source: Source<'_>) -> Result<()> {
        let copied = match source {
            Source::Device(from) => {
                self.context.copy(queue, to, from, self.bytes()).map_err(Into::into)
            }
            Source::Range(range, offset) => {
                self.context.copy_from_host(queue, to, (range, offset), self.bytes())
            }
            Source::Host(bytes) => return self.upload(to, bytes),
            Source::Frame(frame) => return self.copy_frame(to, frame),
        };
        copied.map_err(|source| self.failed("copy", &source))
    }

    /// Queues a wait for a frame and a copy of it. `false`: the slot was taken away meanwhile.
    pub(super) fn copy_to(&self, queue: &Queue, found: &Found, to: u64) -> Result<bool> {
        self.read(queue, found, || self.copy_slot(queue, to, found.slot, found.seq))
    }

    /// Queues a copy of the newest frame into a claimed slot.
    pub(super) fn copy_newest(&self, queue: &Queue, claim: &Claim) -> Result<()> {
        let newest = claim.newest();
        let to = self.address(claim.slot);
        let seq = self.attachment.seq(newest, Ordering::Acquire);
        // Nobody claims a slot meanwhile: this process has the lock. Whoever claims it later waits for
        // this one to be complete, which is queued behind the copy.
        self.await_frame(queue, newest, seq)?;
        self.copy_slot(queue, to, newest, seq)?;
        self.end_use(queue, newest, seq).map(drop)
    }

    /// Queues zeros into a slot.
    pub(super) fn fill(&self, queue: &Queue, to: u64) -> Result<()> {
        let filled = self.context.fill(queue, to, 0, self.bytes());
        filled.map_err(|source| self.failed("fill", &source))
    }
}
