//! A claimed slot that a GPU fills, whatever holds the lock meanwhile.

use std::sync::Arc;

use cuda_ipc::Stream as Queue;

use crate::error::{Error, ErrorKind, Result};
use crate::ring::Claim;
use crate::stream::attachment::Attachment;
use crate::stream::device::frames::{Frames, Open};
use crate::stream::device::hold::Hold;
use crate::stream::device::writer::{GpuWriter, Source};
use crate::stream::tenure::Tenure;
use crate::stream::writer::Contents;

impl Hold {
    /// Claims a slot, and queues what comes before it is filled.
    pub(super) fn begin(
        &self,
        queue: &Queue,
        tenure: Tenure<'_>,
        contents: Contents,
    ) -> Result<Claim> {
        self.look_for_the_dead()?;
        let claim = tenure.claim_for_device()?;
        match self.prepare(queue, &claim, contents) {
            Ok(()) => Ok(claim),
            Err(error) => {
                // As `Frames::settle`.
                let _ = self.context.synchronize(queue);
                tenure.abort(&claim);
                Err(error)
            }
        }
    }

    fn prepare(&self, queue: &Queue, claim: &Claim, contents: Contents) -> Result<()> {
        self.await_slot(queue, claim)?;
        if contents == Contents::Previous {
            self.copy_newest(queue, claim)?;
        }
        Ok(())
    }
}

/// A frame that is being filled under a lock which borrows nothing.
#[derive(Debug)]
pub(crate) struct FilledBy {
    frames: Frames,
    queue: Arc<Queue>,
    open: Open,
}

impl FilledBy {
    /// Claims a slot of the stream of `attachment` for `writer`: in place, from these contents on, or for one
    /// whole frame.
    pub(crate) fn begin(
        writer: &GpuWriter,
        queue: &Arc<Queue>,
        attachment: &Arc<Attachment>,
        tenure: Tenure<'_>,
        in_place: Option<Contents>,
    ) -> Result<Self> {
        let frames = &writer.frames;
        if !Arc::ptr_eq(frames.attachment(), attachment) {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!(
                    "the lock is that of stream `{}`, the writer writes to stream `{}`",
                    attachment.name(),
                    frames.attachment().name()
                ),
            ));
        }
        frames.check_capture(queue)?;
        let open = frames.begin(queue, tenure, in_place)?;
        Ok(Self { frames: frames.clone(), queue: Arc::clone(queue), open })
    }

    pub(crate) fn claim(&self) -> Claim {
        self.open.claim
    }

    /// Where it is until it is published, if it is filled in place.
    pub(crate) fn address(&self) -> Option<u64> {
        self.open.address
    }

    pub(crate) fn copy_from(&self, source: Source<'_>) -> Result<()> {
        self.frames.copy_from(&self.queue, &self.open, source)
    }

    pub(crate) fn zero(&self) -> Result<()> {
        self.frames.zero(&self.queue, &self.open)
    }

    /// What comes last before it is published.
    pub(crate) fn complete(&self) -> Result<()> {
        self.frames.complete(&self.queue, &self.open)
    }

    /// What comes when it is published, or was not.
    pub(crate) fn after(&self, published: &Result<u64>) {
        self.frames.after(&self.open, published);
    }

    /// As [`Frames::settle`].
    pub(crate) fn settle(&self) {
        self.frames.settle(&self.queue);
    }
}
