//! Publishing frames that a GPU fills.

use std::sync::Arc;

use cuda_ipc::{HostRange, Stream as Queue};
use shm_lock::Wait;

use crate::error::{Error, ErrorKind, Result};
use crate::stream::description::Stamp;
use crate::stream::device::frames::{Frames, Open};
use crate::stream::device::uploads::HostFrame;
use crate::stream::locked::Locked;
use crate::stream::owned::OwnedLocked;
use crate::stream::tenure::check_bytes;
use crate::stream::writer::Contents;

/// Publishes frames that a GPU fills, behind what is queued in its streams.
///
/// No call waits for a device, unless its description says so: a frame is published when the work that
/// fills it has been queued, and whoever reads it has its own device wait for that. Where the frames are
/// [in the stream's file](crate::stream::StreamInfo::frames_in_file) each call waits for its stream instead, for as
/// long as that takes: before it asks for the lock, if it can. Any number of
/// processes may have a writer; the stream's lock orders them. A clone is another writer, and waits for
/// the lock like anybody else.
#[derive(Clone, Debug)]
pub struct GpuWriter {
    pub(super) frames: Frames,
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
    pub(super) fn is_of_host(self) -> bool {
        matches!(self, Self::Host(_) | Self::Frame(_))
    }
}

impl GpuWriter {
    pub(super) fn new(frames: Frames) -> Self {
        Self { frames }
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
        let frames = &self.frames;
        frames.together(|| {
            frames.check_capture(queue)?;
            let own = if source.is_of_host() { frames.uploads()? } else { None };
            let queue = own.map_or(queue, AsRef::as_ref);
            frames.await_source(queue, source)?;
            let view = self.claim(queue, None, wait)?;
            frames.copy_from(queue, &view.open, source)?;
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
        self.frames.host_frame()
    }

    /// Publishes a frame of zeros.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn clear(&self, queue: &Queue, stamp: &Stamp, wait: &Wait<'_>) -> Result<u64> {
        self.frames.together(|| {
            self.frames.check_capture(queue)?;
            let view = self.claim(queue, None, wait)?;
            self.frames.zero(queue, &view.open)?;
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
        self.frames.check_capture(queue)?;
        self.claim(queue, Some(contents), wait)
    }

    /// Takes the stream's lock for a holder that borrows nothing, for frames of
    /// [`OwnedLocked::begin_on`] and those beside it.
    ///
    /// # Errors
    /// As [`Writer::lock`](crate::stream::Writer::lock).
    pub fn lock_owned(&self, wait: &Wait<'_>) -> Result<OwnedLocked> {
        OwnedLocked::acquire(self.frames.attachment(), wait)
    }

    /// What [`view`](Self::view) does, for callers that do not keep it. The queue is not captured.
    fn claim<'w>(
        &'w self,
        queue: &'w Queue,
        in_place: Option<Contents>,
        wait: &Wait<'_>,
    ) -> Result<GpuWriteView<'w>> {
        let frames = &self.frames;
        let locked = Locked::acquire(frames.attachment(), wait)?;
        let open = frames.begin(queue, locked.tenure(), in_place)?;
        Ok(GpuWriteView { frames, locked, queue, open, is_open: true })
    }

    /// Refuses what cannot be a frame.
    pub(crate) fn check(&self, source: Source<'_>) -> Result<()> {
        match source {
            Source::Host(bytes) => check_bytes(self.frames.attachment(), bytes.len()),
            Source::Frame(frame) => check_bytes(self.frames.attachment(), frame.len()),
            Source::Device(_) | Source::Range(..) => Ok(()),
        }
    }

    /// Runs `act` with the device's context current throughout.
    pub(crate) fn together<T>(&self, act: impl FnOnce() -> Result<T>) -> Result<T> {
        self.frames.together(act)
    }

    /// The stream that a frame comes by: the caller's, or that of frames from the host. What has to be over
    /// by then is.
    pub(crate) fn queue_of<'q>(
        &'q self,
        source: Source<'_>,
        queue: &'q Arc<Queue>,
    ) -> Result<&'q Arc<Queue>> {
        let own = if source.is_of_host() { self.frames.uploads()? } else { None };
        let queue = own.unwrap_or(queue);
        self.frames.await_source(queue, source)?;
        Ok(queue)
    }

    /// What a published frame is waited for.
    pub(crate) fn finish(&self, source: Source<'_>) -> Result<()> {
        self.frames.finish(source)
    }
}

/// A claimed slot: the next frame, not yet visible to anybody.
#[derive(Debug)]
#[must_use = "dropping it gives the frame up"]
pub struct GpuWriteView<'w> {
    frames: &'w Frames,
    locked: Locked<'w>,
    queue: &'w Queue,
    open: Open,
    is_open: bool,
}

impl GpuWriteView<'_> {
    /// Where the frame is, for the device: to be filled by work that is queued in the stream of the view
    /// before it is published.
    pub fn address(&self) -> u64 {
        // A view that is given away is for a frame in place.
        self.open.address.unwrap_or_default()
    }

    /// Bytes of the frame.
    pub fn len(&self) -> usize {
        self.frames.attachment().layout.payload_bytes
    }

    /// Whether the frame has no bytes: never, as shapes have none of size 0.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The count that the frame will have when it is published.
    pub fn count(&self) -> u64 {
        self.open.claim.count
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
        self.frames.complete(self.queue, &self.open)?;
        self.is_open = false;
        let published = self.locked.tenure().commit(&self.open.claim, stamp);
        self.frames.after(&self.open, &published);
        published
    }
}

impl Drop for GpuWriteView<'_> {
    fn drop(&mut self) {
        if self.is_open && self.locked.is_of_this_process() {
            self.frames.settle(self.queue);
            self.locked.tenure().abort(&self.open.claim);
        }
    }
}
