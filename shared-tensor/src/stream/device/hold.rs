//! What one process has of a stream whose frames are on a GPU.

use std::sync::{Arc, Mutex, PoisonError};

use cuda_ipc::{Access, Chunk, Context, Mapping, Stream as Queue};

use crate::error::{Error, ErrorKind, Result};
use crate::ring::device::{note_use, uses};
use crate::ring::word::Seq;
use crate::ring::{Claim, Found, RingLoads, Standing};
use crate::stream::attachment::{Attachment, Member};
use crate::stream::device::page::{self, Page};
use crate::stream::device::seat::OwnSeat;

/// The frames at addresses of a device, the words, and a seat.
#[derive(Debug)]
pub(super) struct Hold {
    pub(super) attachment: Arc<Attachment>,
    pub(super) context: Context,
    pub(super) frames: Mapping,
    page: Page,
    seat: Arc<OwnSeat>,
    /// The streams of the device that the mapping knows of.
    queues: Mutex<Vec<usize>>,
}

impl Hold {
    /// Maps the chunk for a device.
    pub(super) fn new(
        attachment: Arc<Attachment>,
        context: &Context,
        chunk: &Chunk,
        seat: Arc<OwnSeat>,
    ) -> Result<Self> {
        let failed = |source: &dyn std::fmt::Display| {
            let message = format!("cannot use stream `{}` on a GPU: {source}", attachment.name());
            Error::new(ErrorKind::Device, message)
        };
        let frames = Mapping::open(context, &[chunk], Access::ReadWrite);
        let frames = frames.map_err(|source| failed(&source))?;
        let control = attachment.member()?.memory.shared.bytes();
        let page = Page::register(context, control).map_err(|source| failed(&source))?;
        let page = page.ok_or_else(|| failed(&"its control memory is too short"))?;
        Ok(Self {
            attachment,
            context: context.clone(),
            frames,
            page,
            seat,
            queues: Mutex::default(),
        })
    }

    pub(super) fn member(&self) -> Result<&Member> {
        self.attachment.member()
    }

    /// Where a slot's frame is, for the device.
    pub(super) fn address(&self, slot: usize) -> u64 {
        self.frames.address() + self.attachment.layout.slot_start(slot) as u64
    }

    /// Says that work on the frames is queued in `queue`, so that they stay mapped until it is done.
    fn note_queue(&self, queue: &Queue) -> Result<()> {
        let mut known = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.contains(&queue.as_raw()) {
            self.frames.used_on(queue).map_err(|source| self.failed("order", &source))?;
            known.push(queue.as_raw());
        }
        Ok(())
    }

    /// Queues what has to be over before a claimed slot is filled.
    pub(super) fn await_slot(&self, queue: &Queue, claim: &Claim) -> Result<()> {
        self.note_queue(queue)?;
        let memory = &*self.member()?.memory;
        let mut steps: Vec<_> = uses(memory, claim.slot).map(page::await_use).collect();
        if crate::ring::device::standing(memory, claim.slot, claim.previous) == Standing::Incomplete
        {
            steps.push(page::await_frame(claim.slot, claim.previous));
        }
        self.queue(queue, &steps)
    }

    /// Queues that the frame of a claimed slot is complete.
    pub(super) fn complete(&self, queue: &Queue, claim: &Claim) -> Result<()> {
        self.queue(queue, &[page::complete(claim.slot, claim.busy)])
    }

    /// Queues a wait for a frame, some work that reads it, and the end of that. The slot is leased.
    /// `false`: the lease was taken away meanwhile.
    pub(super) fn read(
        &self,
        queue: &Queue,
        found: &Found,
        work: impl FnOnce(u64) -> Result<()>,
    ) -> Result<bool> {
        self.await_frame(queue, found.slot, found.seq)?;
        work(self.address(found.slot))?;
        self.end_use(queue, found.slot)
    }

    /// Queues a wait for a frame, unless it is there.
    pub(super) fn await_frame(&self, queue: &Queue, slot: usize, seq: Seq) -> Result<()> {
        self.note_queue(queue)?;
        let memory = &*self.member()?.memory;
        if crate::ring::device::is_complete(memory, slot, seq) {
            return Ok(());
        }
        self.queue(queue, &[page::await_frame(slot, seq)])
    }

    /// Queues the end of a use of a slot that is leased, and notes it. `false`: the lease was taken away.
    pub(super) fn end_use(&self, queue: &Queue, slot: usize) -> Result<bool> {
        let member = self.member()?;
        let (next, lanes) = self.seat.next((self.context.device().ordinal(), queue.as_raw()));
        let mut steps: Vec<_> = next.after.into_iter().map(page::await_use).collect();
        steps.push(page::end(next.it));
        self.queue(queue, &steps)?;
        let is_kept = note_use(&*member.memory, member.me()?, slot, next.it);
        drop(lanes);
        Ok(is_kept)
    }

    fn queue(&self, queue: &Queue, steps: &[cuda_ipc::WordStep]) -> Result<()> {
        self.page.queue(queue, steps).map_err(|source| self.failed("order", &source))
    }

    /// The error of work that a device does not do.
    #[cold]
    pub(super) fn failed(&self, what: &str, source: &dyn std::error::Error) -> Error {
        let name = self.attachment.name();
        let message = format!("cannot {what} work of a GPU on stream `{name}`: {source}");
        Error::new(ErrorKind::Device, message)
    }

    /// How many frames were published.
    pub(super) fn count(&self) -> u64 {
        self.attachment.ctl(crate::sync::Ordering::Acquire).count()
    }

    /// By what streams are ordered.
    pub(super) fn ordering(&self) -> cuda_ipc::Ordering {
        self.page.ordering()
    }
}
