//! The frames of a stream as one device of this process has them, for handles that do not ask where.
//!
//! In a chunk they have addresses, and what is done with them is queued. In the stream's file they have none:
//! each is copied from or to there while the call waits.

use std::sync::Arc;

use cuda_ipc::{Context, Stream as Queue};
use shm_lock::Wait;

use crate::error::{Error, ErrorKind, Result};
use crate::ring::Claim;
use crate::stream::attachment::Attachment;
use crate::stream::description::Publication;
use crate::stream::device::hold::Hold;
use crate::stream::device::in_file::InFile;
use crate::stream::device::lease::GpuLease;
use crate::stream::device::uploads::HostFrame;
use crate::stream::device::writer::Source;
use crate::stream::lease::OnFull;
use crate::stream::reader::{Reader, Sink};
use crate::stream::tenure::Tenure;
use crate::stream::writer::Contents;

/// Where they are, and how a device comes at them.
#[derive(Clone, Debug)]
pub(super) enum Frames {
    Chunk(Arc<Hold>),
    File(Arc<InFile>),
}

/// A claimed slot, to be filled by a device. The caller holds the lock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Open {
    pub(super) claim: Claim,
    /// Where the frame is until it is published, for the device. `None`: it is copied to the file at once.
    pub(super) address: Option<u64>,
}

impl Frames {
    pub(super) fn attachment(&self) -> &Arc<Attachment> {
        match self {
            Self::Chunk(hold) => &hold.attachment,
            Self::File(file) => &file.attachment,
        }
    }

    pub(super) fn context(&self) -> &Context {
        match self {
            Self::Chunk(hold) => &hold.context,
            Self::File(file) => &file.context,
        }
    }

    /// Runs `act` with the device's context current throughout.
    pub(super) fn together<T>(&self, act: impl FnOnce() -> Result<T>) -> Result<T> {
        let done = self.context().together(act);
        done.map_err(|source| failed(self.attachment(), "order", &source))?
    }

    /// Refuses a stream that is captured into a graph.
    pub(super) fn check_capture(&self, queue: &Queue) -> Result<()> {
        match self.context().is_capturing(queue) {
            Ok(false) => Ok(()),
            Ok(true) => Err(Error::new(
                ErrorKind::Device,
                format!(
                    "stream `{}` is used in a stream of CUDA that is captured into a graph: each replay \
                     would mean the same frame; publish and read outside the capture, and capture \
                     what is between",
                    self.attachment().name()
                ),
            )),
            Err(source) => Err(failed(self.attachment(), "order", &source)),
        }
    }

    /// Memory of the host for a frame.
    pub(super) fn host_frame(&self) -> Result<HostFrame> {
        match self {
            Self::Chunk(hold) => HostFrame::new(&hold.attachment, &hold.context),
            Self::File(file) => file.host_frame(),
        }
    }

    /// Whether frames from the host come by a stream of their own.
    pub(super) fn uploads(&self) -> Result<Option<&Arc<Queue>>> {
        match self {
            Self::Chunk(hold) => Ok(Some(hold.uploads()?.queue())),
            Self::File(_) => Ok(None),
        }
    }

    /// What has to be over before a frame is written, and is waited for without the lock.
    pub(super) fn await_source(&self, queue: &Queue, source: Source<'_>) -> Result<()> {
        match self {
            Self::File(file) if !source.is_of_host() => {
                self.check_capture(queue)?;
                file.wait(queue)
            }
            _ => Ok(()),
        }
    }

    /// Claims a slot, and queues what comes before it is filled: in place, from these contents on, or by one
    /// whole frame.
    pub(super) fn begin(
        &self,
        queue: &Queue,
        tenure: Tenure<'_>,
        in_place: Option<Contents>,
    ) -> Result<Open> {
        match self {
            Self::Chunk(hold) => {
                let claim = hold.begin(queue, tenure, in_place.unwrap_or_default())?;
                Ok(Open { claim, address: Some(hold.address(claim.slot)) })
            }
            Self::File(file) => file.begin(queue, tenure, in_place),
        }
    }

    /// Copies one whole frame to a claimed slot.
    pub(super) fn copy_from(&self, queue: &Queue, open: &Open, source: Source<'_>) -> Result<()> {
        match self {
            Self::Chunk(hold) => hold.copy_from(queue, hold.address(open.claim.slot), source),
            Self::File(file) => file.copy_from(queue, open.claim.slot, source),
        }
    }

    /// Fills a claimed slot with zeros.
    pub(super) fn zero(&self, queue: &Queue, open: &Open) -> Result<()> {
        match self {
            Self::Chunk(hold) => hold.fill(queue, hold.address(open.claim.slot)),
            Self::File(file) => file.zero(open.claim.slot),
        }
    }

    /// What comes last before a claimed slot is published.
    pub(super) fn complete(&self, queue: &Queue, open: &Open) -> Result<()> {
        match self {
            Self::Chunk(hold) => hold.complete(queue, open.claim.slot, open.claim.busy),
            Self::File(file) => file.complete(queue, open),
        }
    }

    /// What comes when it is published, or was not.
    pub(super) fn after(&self, open: &Open, published: &Result<u64>) {
        let (Self::Chunk(hold), claim) = (self, &open.claim) else { return };
        if published.is_ok() {
            hold.mirror(claim.slot, claim.busy);
        } else {
            hold.forgo_mirror(claim.slot, claim.busy);
        }
    }

    /// Waits on the host for what was queued, before a slot is given up: nobody else could wait for that.
    /// If the driver does not answer any more, nothing is going on.
    pub(super) fn settle(&self, queue: &Queue) {
        let _ = self.context().synchronize(queue);
    }

    /// What a published frame is waited for.
    pub(super) fn finish(&self, source: Source<'_>) -> Result<()> {
        match (self, source) {
            (Self::Chunk(hold), Source::Frame(_)) => hold.finish_uploads(),
            _ => Ok(()),
        }
    }

    /// Copies the frame that `read` finds to an address. Work that is queued later in `queue` finds it there.
    pub(super) fn copy_to(
        &self,
        queue: &Queue,
        to: u64,
        read: impl FnOnce(&mut Sink<'_>) -> Result<Publication>,
    ) -> Result<Publication> {
        match self {
            Self::Chunk(hold) => {
                read(&mut Sink::Queued(&mut |found| hold.copy_to(queue, found, to)))
            }
            Self::File(file) => file.copy_to(queue, to, read),
        }
    }

    /// The newest frame in place, or copied where there is no place for it.
    pub(super) fn lease(
        &self,
        reader: &mut Reader,
        queue: &Arc<Queue>,
        on_full: OnFull,
        wait: &Wait<'_>,
    ) -> Result<GpuLease> {
        let Self::Chunk(hold) = self else {
            reader.count_lease_copy()?;
            return self.copied(reader, queue, wait);
        };
        let wait = on_full.patience(wait);
        let (lease, found) = loop {
            let Some((lease, found)) = reader.lease_slot(on_full, &wait)? else {
                return self.copied(reader, queue, &wait);
            };
            if !hold.is_only_in_file(&found)? {
                break (lease, found);
            }
            if let Some(copy) = hold.copy_from_file(queue, &found, lease)? {
                return Ok(copy);
            }
        };
        // A lease from here on, so that a failure ends it.
        let lease = GpuLease::of_slot(Arc::clone(hold), Arc::clone(queue), &found, lease);
        hold.await_frame(queue, found.slot, found.seq)?;
        Ok(lease)
    }

    /// The newest frame in memory of its own.
    pub(super) fn copied(
        &self,
        reader: &mut Reader,
        queue: &Queue,
        wait: &Wait<'_>,
    ) -> Result<GpuLease> {
        let room = match self {
            Self::Chunk(hold) => hold.room(queue)?,
            Self::File(file) => file.room(queue)?,
        };
        let publication =
            self.copy_to(queue, room.address(), |sink| reader.copy_newest(sink, wait))?;
        let bytes = self.attachment().layout.payload_bytes;
        Ok(GpuLease::of_copy(room, bytes, publication))
    }
}

/// The error of work that a device does not do.
#[cold]
pub(super) fn failed(attachment: &Attachment, what: &str, source: &dyn std::error::Error) -> Error {
    let name = attachment.name();
    let message = format!("cannot {what} work of a GPU on stream `{name}`: {source}");
    Error::new(ErrorKind::Device, message)
}
