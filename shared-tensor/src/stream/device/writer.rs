//! Publishing frames that a GPU fills.

use std::sync::Arc;

use cuda_ipc::{HostRange, Stream as Queue};
use shm_lock::Wait;

use crate::error::{Error, ErrorKind, Result};
use crate::stream::description::Stamp;
use crate::stream::device::filling::Filling;
use crate::stream::device::hold::Hold;
use crate::stream::device::uploads::HostFrame;
use crate::stream::locked::Locked;
use crate::stream::owned::OwnedLocked;
use crate::stream::tenure::check_bytes;
use crate::stream::writer::Contents;

/// Publishes frames that a GPU fills, behind what is queued in its streams.
///
/// No call waits for a device, unless its description says so: a frame is published when the work that
/// fills it has been queued, and whoever reads it has its own device wait for that. Any number of
/// processes may have a writer; the stream's lock orders them. A clone is another writer, and waits for
/// the lock like anybody else.
#[derive(Clone, Debug)]
pub struct GpuWriter {
    pub(super) hold: Arc<Hold>,
}

/// Where a frame comes from, one dense tensor of the stream's shape and type.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Source<'a> {
    /// An address of the device, or of one whose memory it reaches. Work queued later in the same stream
    /// may overwrite it.
    Device(u64),
    /// Registered memory of the host, from this byte on. It stays as it is until the work is done.
    Range(&'a HostRange, u64),
    /// Ordinary memory of the host, which may be changed when the call returns. Nothing that is queued in
    /// the caller's stream is waited for, by the frame either. The call waits if many such frames are on
    /// their way.
    Host(&'a [u8]),
    /// A [`HostFrame`], for which the same holds. The call waits until it was copied, and so for those whose
    /// devices still read from all the slots that may be filled.
    Frame(&'a HostFrame),
}

impl Source<'_> {
    fn is_of_host(self) -> bool {
        matches!(self, Self::Host(_) | Self::Frame(_))
    }
}

impl GpuWriter {
    pub(super) fn new(hold: Arc<Hold>) -> Self {
        Self { hold }
    }

    /// Queues a copy of one frame in `queue`, a stream of the device, and publishes it, waiting for the
    /// lock as `wait` says. Returns its count.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if a slice has not exactly the bytes of a frame;
    /// [`ErrorKind::Device`] if the driver refuses, when a frame of a mirrored stream may have been published
    /// and lack its copy in the file, or `queue` is captured into a graph, whose replays
    /// would all publish one frame; those of [`Writer::lock`](crate::stream::Writer::lock).
    pub fn write(
        &self,
        queue: &Queue,
        source: Source<'_>,
        stamp: &Stamp,
        wait: &Wait<'_>,
    ) -> Result<u64> {
        self.check(source)?;
        self.hold.together(|| {
            self.hold.check_capture(queue)?;
            let queue = if source.is_of_host() { self.hold.uploads()?.queue() } else { queue };
            let view = self.claim(queue, Contents::Fresh, wait)?;
            view.hold.copy_from(queue, view.address(), source)?;
            let published = view.publish(stamp);
            self.finish(source)?;
            published
        })
    }

    /// Memory of the host for frames that are written again and again.
    ///
    /// # Errors
    /// [`ErrorKind::Device`] if there is none to be had, or the driver cannot register it.
    pub fn host_frame(&self) -> Result<HostFrame> {
        HostFrame::new(&self.hold)
    }

    /// Publishes a frame of zeros.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn clear(&self, queue: &Queue, stamp: &Stamp, wait: &Wait<'_>) -> Result<u64> {
        self.hold.together(|| {
            self.hold.check_capture(queue)?;
            let view = self.claim(queue, Contents::Fresh, wait)?;
            view.hold.fill(queue, view.address())?;
            view.publish(stamp)
        })
    }

    /// Takes the lock and claims a slot for work that is queued in `queue` from now on: the next frame,
    /// published by [`GpuWriteView::publish`], given up by dropping the view.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn view<'w>(
        &'w mut self,
        queue: &'w Queue,
        contents: Contents,
        wait: &Wait<'_>,
    ) -> Result<GpuWriteView<'w>> {
        self.hold.check_capture(queue)?;
        self.claim(queue, contents, wait)
    }

    /// Takes the stream's lock for a holder that borrows nothing, for frames of
    /// [`OwnedLocked::begin_on`] and those beside it.
    ///
    /// # Errors
    /// As [`Writer::lock`](crate::stream::Writer::lock).
    pub fn lock_owned(&self, wait: &Wait<'_>) -> Result<OwnedLocked> {
        OwnedLocked::acquire(&self.hold.attachment, wait)
    }

    /// What [`view`](Self::view) does, for callers that do not keep it. The queue is not captured.
    fn claim<'w>(
        &'w self,
        queue: &'w Queue,
        contents: Contents,
        wait: &Wait<'_>,
    ) -> Result<GpuWriteView<'w>> {
        let hold = &*self.hold;
        let locked = Locked::acquire(&hold.attachment, wait)?;
        let filling = Filling::begin(hold, queue, locked.tenure(), contents)?;
        Ok(GpuWriteView { hold, locked, queue, filling, is_open: true })
    }

    /// Refuses what cannot be a frame.
    pub(crate) fn check(&self, source: Source<'_>) -> Result<()> {
        match source {
            Source::Host(bytes) => check_bytes(&self.hold.attachment, bytes.len()),
            Source::Frame(frame) => check_bytes(&self.hold.attachment, frame.len()),
            Source::Device(_) | Source::Range(..) => Ok(()),
        }
    }

    /// Runs `act` with the device's context current throughout.
    pub(crate) fn together<T>(&self, act: impl FnOnce() -> Result<T>) -> Result<T> {
        self.hold.together(act)
    }

    /// The stream that a frame comes by: the caller's, or that of frames from the host.
    pub(crate) fn queue_of<'q>(
        &'q self,
        source: Source<'_>,
        queue: &'q Arc<Queue>,
    ) -> Result<&'q Arc<Queue>> {
        if source.is_of_host() { Ok(self.hold.uploads()?.queue()) } else { Ok(queue) }
    }

    /// What a published frame is waited for.
    pub(crate) fn finish(&self, source: Source<'_>) -> Result<()> {
        if matches!(source, Source::Frame(_)) { self.hold.finish_uploads() } else { Ok(()) }
    }
}

/// A claimed slot: the next frame, not yet visible to anybody.
#[derive(Debug)]
#[must_use = "dropping it gives the frame up"]
pub struct GpuWriteView<'w> {
    hold: &'w Hold,
    locked: Locked<'w>,
    queue: &'w Queue,
    filling: Filling<'w>,
    is_open: bool,
}

impl GpuWriteView<'_> {
    /// Where the frame is, for the device: to be filled by work that is queued in the stream of the view
    /// before it is published.
    pub fn address(&self) -> u64 {
        self.hold.address(self.filling.claim.slot)
    }

    /// Bytes of the frame.
    pub fn len(&self) -> usize {
        self.hold.attachment.layout.payload_bytes
    }

    /// Whether the frame has no bytes: never, as shapes have none of size 0.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The count that the frame will have when it is published.
    pub fn count(&self) -> u64 {
        self.filling.claim.count
    }

    /// Makes what was queued so far the newest frame, and wakes whoever waits. Returns its count.
    ///
    /// # Errors
    /// [`ErrorKind::Fenced`] if this process was declared dead meanwhile; [`ErrorKind::Device`].
    pub fn publish(mut self, stamp: &Stamp) -> Result<u64> {
        if !self.locked.is_of_this_process() {
            return Err(Error::new(
                ErrorKind::Fenced,
                "a forked child cannot publish its parent's frame: open the stream there"
                    .to_owned(),
            ));
        }
        let claim = &self.filling.claim;
        self.hold.complete(self.queue, claim.slot, claim.busy)?;
        self.is_open = false;
        let (tenure, claim) = (self.locked.tenure(), &self.filling.claim);
        match tenure.commit(claim, stamp) {
            Ok(count) => {
                self.hold.mirror(claim.slot, claim.busy);
                Ok(count)
            }
            Err(error) => {
                self.hold.forgo_mirror(claim.slot, claim.busy);
                Err(error)
            }
        }
    }
}

impl Drop for GpuWriteView<'_> {
    fn drop(&mut self) {
        if self.is_open && self.locked.is_of_this_process() {
            self.filling.settle(self.hold);
            self.locked.tenure().abort(&self.filling.claim);
        }
    }
}
