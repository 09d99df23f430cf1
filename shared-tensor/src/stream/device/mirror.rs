//! The file's copy of each frame, for processes without CUDA.
//!
//! A stream of its own copies a frame to the same slot of the file, behind the work that fills it, and then
//! writes the second word of the slot. Nobody's stream waits for that but whoever fills the slot next.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use cuda_ipc::{Access, Context, Copies, HostRange, Stream as Queue};

use crate::error::Result;
use crate::ring::Found;
use crate::ring::device::{DeviceWords as _, is_complete, is_only_in_file, is_settled};
use crate::ring::word::Seq;
use crate::stream::attachment::Attachment;
use crate::stream::device::hold::Hold;
use crate::stream::device::lease::GpuLease;
use crate::stream::device::mend::Debt;
use crate::stream::device::page;
use crate::stream::lease::Lease;
use crate::sync::Ordering;
use crate::sys::SharedPage;

/// What a device copies to the file with. Made in advance: to register memory may wait for devices.
#[derive(Debug)]
pub(super) struct Mirror {
    pub(super) work: Copies,
    /// The ring in the file.
    pub(super) frames: HostRange,
    /// Copies that were refused and are still to be made.
    late: AtomicUsize,
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
        Ok(Some(Self { work: Copies::new(context)?, frames, late: AtomicUsize::new(0) }))
    }
}

impl Hold {
    /// Queues the copy of a published frame to the file, in a mirrored stream. What completes the frame was
    /// queued. If the driver refuses, it is made later: others wait for it. The caller has the stream's lock.
    pub(super) fn mirror(&self, slot: usize, seq: Seq) {
        self.in_order(slot, seq, |_| self.queue_copy(slot, seq));
    }

    /// Says of a frame that was not published that there will be no copy of it: who fills the slot next waits
    /// for that. If the driver refuses, there is one, which harms nobody. The caller has the stream's lock.
    pub(super) fn forgo_mirror(&self, slot: usize, seq: Seq) {
        self.in_order(slot, seq, |mirror| {
            self.await_completion(mirror, slot, seq)?;
            self.queue(mirror.work.stream(), &[page::mirrored(slot, seq)])
        });
    }

    /// Queues the end of a frame, unless it or an earlier one is refused. What is queued behind one that is
    /// still to be made may wait for it: a later frame of the slot is not filled before.
    fn in_order(&self, slot: usize, seq: Seq, queue: impl FnOnce(&Mirror) -> Result<()>) {
        let Some(mirror) = &self.mirror else { return };
        if mirror.late.load(Ordering::Acquire) != 0 || queue(mirror).is_err() {
            mirror.late.fetch_add(1, Ordering::AcqRel);
            self.watch_unawaited(Debt::Copy { slot, seq });
        }
    }

    /// Makes a copy that was refused, if the frame is there by now, and says whether it did. It is in no
    /// stream in which others wait, or whose device's queue they share: they may be waiting for it.
    pub(super) fn copy_late(&self, slot: usize, seq: Seq) -> Result<bool> {
        let Some(mirror) = &self.mirror else { return Ok(true) };
        let memory = &*self.member()?.memory;
        if !is_settled(memory, slot, seq) {
            // Of a refused copy a part may have been queued, which nobody may find in the slot later.
            let is_idle = self.context.is_idle(mirror.work.stream());
            if !is_complete(memory, slot, seq)
                || !is_idle.map_err(|it| self.failed("mirror", &it))?
            {
                return Ok(false);
            }
            let work = self.mender.work().map_err(|it| self.failed("mirror", &it))?;
            let Some(work) = work else { return Ok(false) };
            let to = (&mirror.frames, self.start(slot));
            let copied = work.copy_to_host(to, self.address(slot), self.bytes());
            copied.map_err(|source| self.failed("mirror", &source))?;
            if let Some(mirrored) = memory.mirrored(slot) {
                mirrored.fetch_max(seq.ticket(), Ordering::AcqRel);
            }
        }
        mirror.late.fetch_sub(1, Ordering::AcqRel);
        memory.tell_arrival();
        Ok(true)
    }

    /// Nobody fills the slot before the frame is in the file, whoever has claimed it.
    fn queue_copy(&self, slot: usize, seq: Seq) -> Result<()> {
        let Some(mirror) = &self.mirror else { return Ok(()) };
        self.await_completion(mirror, slot, seq)?;
        let (queue, to) = (mirror.work.stream(), (&mirror.frames, self.start(slot)));
        let copied = self.context.copy_to_host(queue, to, self.address(slot), self.bytes());
        copied.map_err(|source| self.failed("mirror", &source))?;
        self.queue(queue, &[page::mirrored(slot, seq)])?;
        // From here on it must not be copied again: somebody may rely on the file's slot.
        let memory = Arc::clone(&self.member()?.memory);
        if self.context.call_after(queue, move || memory.tell_arrival()).is_err() {
            self.watch_unawaited(Debt::News { slot, seq });
        }
        Ok(())
    }

    fn await_completion(&self, mirror: &Mirror, slot: usize, seq: Seq) -> Result<()> {
        if is_complete(&*self.member()?.memory, slot, seq) {
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

    /// A copy of a frame that only the file has; `None` if the lease was taken away meanwhile. To put it into the
    /// slot of the device, as well, would take the lock: there may be other readers, and they die at any moment.
    pub(super) fn copy_from_file(
        &self,
        queue: &Queue,
        found: &Found,
        lease: Lease,
    ) -> Result<Option<GpuLease>> {
        let room = self.room(queue)?;
        self.copy_slot(queue, room.address(), found.slot, found.seq)?;
        let publication = *lease.publication();
        let is_kept = self.end_use(queue, found.slot, found.seq)?;
        drop(lease);
        let bytes = self.attachment.layout.payload_bytes;
        Ok(is_kept.then(|| GpuLease::of_copy(room, bytes, publication)))
    }

    pub(super) fn start(&self, slot: usize) -> u64 {
        self.attachment.layout.slot_start(slot) as u64
    }
}
