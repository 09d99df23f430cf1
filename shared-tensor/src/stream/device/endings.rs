//! The ends of leases in place: queued where they are dropped, or as soon as that is possible.
//!
//! A stream that is captured into a graph takes nothing that is to be done now: it would be done each time
//! that the graph is replayed, and not before. The end waits for the capture's.

use std::sync::Arc;

use cuda_ipc::Stream as Queue;

use crate::ring::word::Seq;
use crate::stream::device::hold::Hold;
use crate::stream::device::watch;
use crate::stream::lease::Lease;

/// A lease of a slot whose end is still to be queued.
#[derive(Debug)]
pub(super) struct Ending {
    pub(super) hold: Arc<Hold>,
    pub(super) queue: Arc<Queue>,
    pub(super) slot: usize,
    pub(super) seq: Seq,
    pub(super) lease: Lease,
}

impl Ending {
    pub(super) fn is_revoked(&self) -> bool {
        self.lease.is_revoked()
    }

    /// Whether nothing more can be queued, as the stream is captured.
    pub(super) fn has_to_wait(&self) -> bool {
        self.hold.context.is_capturing(&self.queue).unwrap_or(false)
    }

    /// Queues the end. The slot is not leased any more then. `Some`: the driver refuses, and what reads the slot is
    /// going on.
    pub(super) fn queue(self) -> Option<Self> {
        // A forked child inherits the value, and nothing of the driver.
        if self.lease.is_inherited() {
            return None;
        }
        let queued = self.hold.end_use(&self.queue, self.slot, self.seq);
        // From a context that does not answer any more nothing is read.
        let goes_on = || matches!(self.hold.context.is_idle(&self.queue), Ok(false));
        (queued.is_err() && goes_on()).then_some(self)
    }
}

/// Queues an end now, or has it queued when its stream is not captured any more, and the driver does not refuse.
pub(super) fn end(ending: Ending) {
    if !ending.lease.is_inherited() && ending.has_to_wait() {
        watch::ending(ending);
    } else if let Some(refused) = ending.queue() {
        watch::ending(refused);
    }
}
