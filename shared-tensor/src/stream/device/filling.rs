//! A claimed slot that a GPU fills, whatever holds the lock meanwhile.

use std::sync::Arc;

use cuda_ipc::Stream as Queue;

use crate::error::{Error, ErrorKind, Result};
use crate::ring::Claim;
use crate::stream::attachment::Attachment;
use crate::stream::device::hold::Hold;
use crate::stream::device::writer::{GpuWriter, Source};
use crate::stream::tenure::Tenure;
use crate::stream::writer::Contents;

/// A claimed slot, and the queue of the work that fills it. The caller holds the lock.
#[derive(Debug)]
pub(super) struct Filling<'q> {
    pub(super) claim: Claim,
    queue: &'q Queue,
}

impl<'q> Filling<'q> {
    /// Claims a slot, and queues what comes before it is filled.
    pub(super) fn begin(
        hold: &Hold,
        queue: &'q Queue,
        tenure: Tenure<'_>,
        contents: Contents,
    ) -> Result<Self> {
        hold.look_for_the_dead()?;
        let it = Self { claim: tenure.claim_for_device()?, queue };
        match it.prepare(hold, contents) {
            Ok(()) => Ok(it),
            Err(error) => {
                it.settle(hold);
                tenure.abort(&it.claim);
                Err(error)
            }
        }
    }

    fn prepare(&self, hold: &Hold, contents: Contents) -> Result<()> {
        hold.await_slot(self.queue, &self.claim)?;
        if contents == Contents::Previous {
            hold.copy_newest(self.queue, &self.claim)?;
        }
        Ok(())
    }

    /// Waits on the host for what was queued, before the slot is given up: nobody else could wait for
    /// that. If the driver does not answer any more, nothing is going on.
    pub(super) fn settle(&self, hold: &Hold) {
        let _ = hold.context.synchronize(self.queue);
    }
}

/// The same for a lock that borrows nothing.
#[derive(Debug)]
pub(crate) struct FilledBy {
    hold: Arc<Hold>,
    queue: Arc<Queue>,
    claim: Claim,
}

impl FilledBy {
    /// Claims a slot of the stream of `attachment` for `writer`.
    pub(crate) fn begin(
        writer: &GpuWriter,
        queue: &Arc<Queue>,
        attachment: &Arc<Attachment>,
        tenure: Tenure<'_>,
        contents: Contents,
    ) -> Result<Self> {
        let hold = &writer.hold;
        if !Arc::ptr_eq(&hold.attachment, attachment) {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!(
                    "the lock is that of stream `{}`, the writer writes to stream `{}`",
                    attachment.name(),
                    hold.attachment.name()
                ),
            ));
        }
        hold.check_capture(queue)?;
        let claim = Filling::begin(hold, queue, tenure, contents)?.claim;
        Ok(Self { hold: Arc::clone(hold), queue: Arc::clone(queue), claim })
    }

    pub(crate) fn claim(&self) -> Claim {
        self.claim
    }

    pub(crate) fn address(&self) -> u64 {
        self.hold.address(self.claim.slot)
    }

    pub(crate) fn copy_from(&self, source: Source<'_>) -> Result<()> {
        self.hold.copy_from(&self.queue, self.address(), source)
    }

    pub(crate) fn zero(&self) -> Result<()> {
        self.hold.fill(&self.queue, self.address())
    }

    /// Queues that the frame is complete.
    pub(crate) fn complete(&self) -> Result<()> {
        self.hold.complete(&self.queue, self.claim.slot, self.claim.busy)
    }

    /// Queues the copy of the published frame to the file, in a mirrored stream.
    pub(crate) fn mirror(&self) {
        self.hold.mirror(self.claim.slot, self.claim.busy);
    }

    /// Says that there will be no copy: the frame was not published.
    pub(crate) fn forgo_mirror(&self) {
        self.hold.forgo_mirror(self.claim.slot, self.claim.busy);
    }

    /// As [`Filling::settle`].
    pub(crate) fn settle(&self) {
        Filling { claim: self.claim, queue: &self.queue }.settle(&self.hold);
    }
}
