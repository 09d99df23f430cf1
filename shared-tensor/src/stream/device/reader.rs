//! Reading frames with a GPU.

use std::sync::Arc;

use cuda_ipc::Stream as Queue;
use shm_lock::Wait;

use crate::error::Result;
use crate::stream::description::Publication;
use crate::stream::device::frames::Frames;
use crate::stream::device::lease::GpuLease;
use crate::stream::lease::OnFull;
use crate::stream::reader::Reader;

/// Reads frames with a GPU, behind what is queued in its streams.
///
/// No call waits for a device: a frame may be published before it is complete, and what reads it is
/// queued behind a wait of the device's own for that. Where the frames are
/// [in the stream's file](crate::stream::StreamInfo::frames_in_file) each call waits for its stream, for as long as
/// that takes.
#[derive(Debug)]
pub struct GpuReader {
    reader: Reader,
    frames: Frames,
}

impl GpuReader {
    pub(super) fn new(reader: Reader, frames: Frames) -> Self {
        Self { reader: reader.of_device(), frames }
    }

    /// Its position and its counters, and waiting for frames.
    pub fn reader(&mut self) -> &mut Reader {
        &mut self.reader
    }

    /// Queues a copy of the newest frame to an address of the device, or of one whose memory it reaches.
    /// Work that is queued later in `queue` finds it there.
    ///
    /// # Errors
    /// As [`Reader::read_into_with`]; [`ErrorKind::Device`](crate::ErrorKind::Device).
    pub fn latest_into(&mut self, queue: &Queue, to: u64, wait: &Wait<'_>) -> Result<Publication> {
        let (frames, reader) = (&self.frames, &mut self.reader);
        frames.together(|| {
            frames.check_capture(queue)?;
            frames.copy_to(queue, to, |sink| reader.copy_newest(sink, wait))
        })
    }

    /// The same with the next frame in order, waiting until it is published.
    ///
    /// # Errors
    /// As [`Reader::next_into`]; [`ErrorKind::Device`](crate::ErrorKind::Device).
    pub fn next_into(&mut self, queue: &Queue, to: u64, wait: &Wait<'_>) -> Result<Publication> {
        let (frames, reader) = (&self.frames, &mut self.reader);
        frames.together(|| {
            frames.check_capture(queue)?;
            let after = reader.last_count();
            frames.copy_to(queue, to, |sink| reader.copy_next(after, sink, wait))
        })
    }

    /// The newest frame, in place: what is queued in `queue` while the lease lives finds it there, and its
    /// end is queued in `queue` when it is dropped. No copy at any size.
    ///
    /// At most K - 3 distinct frames of a ring of K slots are leased at once (none at K = 3); the
    /// frames that GPUs read after their leases have ended do not count, and are waited for by the GPUs that
    /// write. What a process without CUDA wrote to a mirrored stream is copied, and so is every frame that is
    /// [in the stream's file](crate::stream::StreamInfo::frames_in_file).
    ///
    /// # Errors
    /// As [`Reader::lease_with`]; [`ErrorKind::Device`](crate::ErrorKind::Device).
    pub fn lease(
        &mut self,
        queue: &Arc<Queue>,
        on_full: OnFull,
        wait: &Wait<'_>,
    ) -> Result<GpuLease> {
        self.frames.check_capture(queue)?;
        self.frames.lease(&mut self.reader, queue, on_full, wait)
    }

    /// The newest frame in memory of its own, which what is queued later in `queue` finds complete. It takes
    /// no slot, however long it is kept.
    ///
    /// # Errors
    /// As [`latest_into`](Self::latest_into).
    pub fn lease_copy(&mut self, queue: &Queue, wait: &Wait<'_>) -> Result<GpuLease> {
        let (frames, reader) = (&self.frames, &mut self.reader);
        frames.together(|| {
            frames.check_capture(queue)?;
            frames.copied(reader, queue, wait)
        })
    }
}
