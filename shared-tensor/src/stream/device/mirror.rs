//! The file's copy of each frame, for processes without CUDA.
//!
//! A stream of its own copies a frame to the same slot of the file, behind the work that fills it, and then
//! writes the second word of the slot. Nobody's stream waits for that but whoever fills the slot next.

use std::sync::Arc;

use cuda_ipc::{Access, Context, Copies, HostRange, Stream as Queue};

use crate::error::Result;
use crate::ring::Found;
use crate::ring::device::{self, is_only_in_file};
use crate::ring::word::Seq;
use crate::stream::attachment::Attachment;
use crate::stream::device::hold::Hold;
use crate::stream::device::lease::GpuLease;
use crate::stream::device::mend::Debt;
use crate::stream::device::page;
use crate::stream::lease::Lease;
use crate::sys::SharedPage;

/// What a device copies to the file with. Made in advance: to register memory may wait for devices.
#[derive(Debug)]
pub(super) struct Mirror {
    pub(super) work: Copies,
    /// The ring in the file.
    pub(super) frames: HostRange,
}

impl Mirror {
    /// That of a mirrored stream.
    pub(super) fn open(
        context: &Context,
        attachment: &Attachment,
    ) -> Result<Option<Self>, Box<dyn std::error::Error>> {
        if !attachment.layout.is_mirrored() {
            return Ok(None);
        }
        let frames = SharedPage(attachment.writable()?.clone());
        let frames = HostRange::register(context, frames, Access::ReadWrite)?;
        Ok(Some(Self { work: Copies::new(context)?, frames }))
    }
}

impl Hold {
    /// Queues the copy of a published frame to the file, in a mirrored stream. What completes the frame was
    /// queued. If the driver refuses, it is asked again until it does not: others wait for the copy.
    pub(super) fn mirror(&self, slot: usize, seq: Seq) {
        if self.queue_copy(slot, seq).is_err() {
            self.watch([Debt::Copy { slot, seq }]);
        }
    }

    /// Says of a frame that was not published that there will be no copy of it: who fills the slot next waits
    /// for that.
    pub(super) fn forgo_mirror(&self, slot: usize, seq: Seq) {
        let forgone = || -> Result<()> {
            let Some(mirror) = &self.mirror else { return Ok(()) };
            self.await_completion(mirror, slot, seq)?;
            self.queue(mirror.work.stream(), &[page::mirrored(slot, seq)])
        };
        if forgone().is_err() {
            // A copy of it harms nobody.
            self.watch([Debt::Copy { slot, seq }]);
        }
    }

    /// Nobody fills the slot before the frame is in the file, whoever has claimed it.
    pub(super) fn queue_copy(&self, slot: usize, seq: Seq) -> Result<()> {
        let Some(mirror) = &self.mirror else { return Ok(()) };
        self.await_completion(mirror, slot, seq)?;
        let (queue, to) = (mirror.work.stream(), (&mirror.frames, self.start(slot)));
        let copied = self.context.copy_to_host(queue, to, self.address(slot), self.bytes());
        copied.map_err(|source| self.failed("mirror", &source))?;
        self.queue(queue, &[page::mirrored(slot, seq)])?;
        // From here on it must not be copied again: somebody may rely on the file's slot.
        let memory = Arc::clone(&self.member()?.memory);
        if self.context.call_after(queue, move || memory.tell_arrival()).is_err() {
            self.watch([Debt::News { slot, seq }]);
        }
        Ok(())
    }

    fn await_completion(&self, mirror: &Mirror, slot: usize, seq: Seq) -> Result<()> {
        if device::is_complete(&*self.member()?.memory, slot, seq) {
            return Ok(());
        }
        self.queue(mirror.work.stream(), &[page::await_frame(slot, seq)])
    }

    /// Queues a copy of the frame in a slot that nobody claims meanwhile, from wherever it is.
    pub(super) fn copy_slot(&self, queue: &Queue, to: u64, from: usize, seq: Seq) -> Result<()> {
        let memory = &*self.member()?.memory;
        let copied = match &self.mirror {
            Some(mirror) if is_only_in_file(memory, from, seq) => {
                let from = (&mirror.frames, self.start(from));
                self.context.copy_from_host(queue, to, from, self.bytes())
            }
            _ => self.context.copy(queue, to, self.address(from), self.bytes()).map_err(Into::into),
        };
        copied.map_err(|source| self.failed("copy", &source))
    }

    /// Whether a process without CUDA wrote a frame.
    pub(super) fn is_only_in_file(&self, found: &Found) -> Result<bool> {
        Ok(is_only_in_file(&*self.member()?.memory, found.slot, found.seq))
    }

    /// A copy of a frame that only the file has. To put it into the slot of the device, as well, would take
    /// the lock: there may be other readers, and they die at any moment.
    pub(super) fn copy_from_file(
        &self,
        queue: &Queue,
        found: &Found,
        lease: Lease,
    ) -> Result<GpuLease> {
        let room = self.room(queue)?;
        self.copy_slot(queue, room.address(), found.slot, found.seq)?;
        let publication = *lease.publication();
        self.end_use(queue, found.slot, found.seq)?;
        drop(lease);
        Ok(GpuLease::of_copy(room, self.attachment.layout.payload_bytes, publication))
    }

    pub(super) fn start(&self, slot: usize) -> u64 {
        self.attachment.layout.slot_start(slot) as u64
    }
}
