//! Reading frames with a GPU.

use std::sync::Arc;

use cuda_ipc::Stream as Queue;
use shm_lock::Wait;

use crate::error::Result;
use crate::ring::Found;
use crate::stream::description::Publication;
use crate::stream::device::hold::Hold;
use crate::stream::device::lease::GpuLease;
use crate::stream::lease::OnFull;
use crate::stream::reader::{Reader, Sink};

/// Reads frames with a GPU, behind what is queued in its streams.
///
/// No call waits for a device: a frame may be published before it is complete, and what reads it is
/// queued behind a wait of the device's own for that.
#[derive(Debug)]
pub struct GpuReader {
    reader: Reader,
    hold: Arc<Hold>,
}

impl GpuReader {
    pub(super) fn new(reader: Reader, hold: Arc<Hold>) -> Self {
        Self { reader: reader.of_device(), hold }
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
        let (hold, reader) = (&*self.hold, &mut self.reader);
        hold.together(|| {
            hold.check_capture(queue)?;
            let mut copy = |found: &Found| hold.copy_to(queue, found, to);
            reader.copy_newest(&mut Sink::Queued(&mut copy), wait)
        })
    }

    /// The same with the next frame in order, waiting until it is published.
    ///
    /// # Errors
    /// As [`Reader::next_into`]; [`ErrorKind::Device`](crate::ErrorKind::Device).
    pub fn next_into(&mut self, queue: &Queue, to: u64, wait: &Wait<'_>) -> Result<Publication> {
        let (hold, reader) = (&*self.hold, &mut self.reader);
        hold.together(|| {
            hold.check_capture(queue)?;
            let mut copy = |found: &Found| hold.copy_to(queue, found, to);
            let after = reader.last_count();
            reader.copy_next(after, &mut Sink::Queued(&mut copy), wait)
        })
    }

    /// The newest frame, in place: what is queued in `queue` while the lease lives finds it there, and its
    /// end is queued in `queue` when it is dropped. No copy at any size.
    ///
    /// At most K - 3 distinct frames of a ring of K slots are leased at once (none at K = 3); the
    /// frames that GPUs read after their leases have ended do not count, and are waited for by the GPUs that
    /// write. What a process without CUDA wrote to a mirrored stream is copied.
    ///
    /// # Errors
    /// As [`Reader::lease_with`]; [`ErrorKind::Device`](crate::ErrorKind::Device).
    pub fn lease(
        &mut self,
        queue: &Arc<Queue>,
        on_full: OnFull,
        wait: &Wait<'_>,
    ) -> Result<GpuLease> {
        let hold = &self.hold;
        hold.check_capture(queue)?;
        let wait = on_full.patience(wait);
        if let Some((lease, found)) = self.reader.lease_slot(on_full, &wait)? {
            if hold.is_only_in_file(&found)? {
                return hold.copy_from_file(queue, &found, lease);
            }
            // A lease from here on, so that a failure ends it.
            let lease = GpuLease::of_slot(Arc::clone(hold), Arc::clone(queue), &found, lease);
            hold.await_frame(queue, found.slot, found.seq)?;
            return Ok(lease);
        }
        let room = hold.room(queue)?;
        let mut copy = |found: &Found| hold.copy_to(queue, found, room.address());
        let publication = self.reader.copy_newest(&mut Sink::Queued(&mut copy), &wait)?;
        let bytes = hold.attachment.layout.payload_bytes;
        Ok(GpuLease::of_copy(room, bytes, publication))
    }
}
