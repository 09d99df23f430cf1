//! What one process has of a stream whose frames are on a GPU.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use cuda_ipc::{Access, Chunk, Context, Mapping, Ordering, Stream as Queue, StreamId, WordStep};

use crate::error::{Error, ErrorKind, Result};
use crate::ring::device::{
    self, DeviceWords as _, Use, note_owed, note_use, outstanding, release_use, uses,
};
use crate::ring::word::{SLOTS_MAX, Seq};
use crate::ring::{Claim, Found, Ring as _};
use crate::stream::attachment::{Attachment, Member};
use crate::stream::device::earlier::Earlier;
use crate::stream::device::frames::failed;
use crate::stream::device::lanes;
use crate::stream::device::mend::{Awaited, Debt};
use crate::stream::device::mender::Mender;
use crate::stream::device::mirror::Mirror;
use crate::stream::device::page::{self, Page};
use crate::stream::device::seat::{self, OwnSeat, word_of};
use crate::stream::device::settle;
use crate::stream::device::uploads::Uploads;
use crate::stream::device::watch;
use crate::sync::{self, AtomicU64};

/// So many streams are remembered; with more, all are told of once more.
const QUEUES_MAX: usize = 64;

/// The frames at addresses of a device, the words, and a seat.
#[derive(Debug)]
pub(super) struct Hold {
    pub(super) attachment: Arc<Attachment>,
    pub(super) context: Context,
    frames: Mapping,
    page: Page,
    pub(super) seat: Arc<OwnSeat>,
    /// The streams of the device that the mappings know of.
    queues: Mutex<Vec<StreamId>>,
    /// For frames that nobody else will fill.
    pub(super) mender: Arc<Mender>,
    /// Of each slot: the ticket of the last frame that was found to be nobody's.
    lost: [AtomicU64; SLOTS_MAX],
    /// Of a mirrored stream. Made beforehand: while a thread is in a copy of ordinary memory that waits for its
    /// stream, or frees memory, the driver makes no objects for others.
    pub(super) mirror: Option<Mirror>,
    /// For frames from the host, once there is one.
    pub(super) uploads: OnceLock<Uploads>,
    this: Weak<Self>,
}

impl Hold {
    /// Maps the chunk for a device.
    pub(super) fn new(
        attachment: Arc<Attachment>,
        context: &Context,
        chunk: &Chunk,
        seat: Arc<OwnSeat>,
    ) -> Result<Arc<Self>> {
        let failed = |source: &dyn std::fmt::Display| {
            let message = format!("cannot use stream `{}` on a GPU: {source}", attachment.name());
            Error::new(ErrorKind::Device, message)
        };
        let frames = Mapping::open(context, &[chunk], Access::ReadWrite);
        let frames = frames.map_err(|source| failed(&source))?;
        let control = attachment.member()?.memory.shared.bytes();
        let page = Page::register(context, control).map_err(|source| failed(&source))?;
        let page = page.ok_or_else(|| failed(&"its control memory is too short"))?;
        let mender = Mender::of(context).map_err(|source| failed(&source))?;
        if !seat.use_in(&mender) {
            return Err(failed(&lost()));
        }
        let mirror = Mirror::open(context, &attachment).map_err(|source| failed(&source))?;
        let mut queues = Vec::new();
        if let Some(queue) = mirror.as_ref().map(|mirror| mirror.work.stream()) {
            frames.used_on(queue).map_err(|source| failed(&source))?;
            page.used_on(queue).map_err(|source| failed(&source))?;
            queues.extend(queue.id());
        }
        Ok(Arc::new_cyclic(|this| Self {
            attachment,
            context: context.clone(),
            frames,
            page,
            seat,
            queues: Mutex::new(queues),
            mender,
            lost: Default::default(),
            mirror,
            uploads: OnceLock::new(),
            this: Weak::clone(this),
        }))
    }

    pub(super) fn member(&self) -> Result<&Member> {
        self.attachment.member()
    }

    /// Where a slot's frame is, for the device.
    pub(super) fn address(&self, slot: usize) -> u64 {
        self.frames.address() + self.attachment.layout.slot_start(slot) as u64
    }

    /// Queues what has to be over before a claimed slot is filled.
    pub(super) fn await_slot(&self, queue: &Queue, claim: &Claim) -> Result<()> {
        self.note_queue(queue)?;
        let member = self.member()?;
        let (memory, me) = (&*member.memory, member.me()?);
        let mut steps = Vec::new();
        let mut debts = Vec::new();
        let way = self.way(queue);
        for it in uses(memory, claim.slot).filter(|it| !self.seat.has_used(way, *it)) {
            let Some(user) = seat::user(memory, it) else {
                // Whoever lets go of a seat is done with everything: nobody would end this.
                release_use(memory, it);
                continue;
            };
            steps.push(page::await_use(it));
            debts.extend((user.who != me).then_some(Debt::Use { it, user }));
        }
        let (slot, is_mirrored) = (claim.slot, self.mirror.is_some());
        // The file of a mirrored stream is filled elsewhere.
        let is_behind = |seq: &Seq| !is_mirrored && self.seat.has_filled(way, slot, *seq);
        if let Some(seq) = outstanding(memory, slot).filter(|seq| !is_behind(seq)) {
            let step = if is_mirrored { page::await_mirror } else { page::await_frame };
            steps.push(step(slot, seq));
            if memory.debtor(slot) != me {
                let (earlier, awaited) = (Earlier::of(memory, slot, seq), Awaited::Everywhere);
                debts.push(Debt::Frame { slot, seq, earlier, awaited });
            }
        }
        self.watch(debts)?;
        self.queue(queue, &steps)
    }

    /// Queues that the frame of a slot is complete.
    pub(super) fn complete(&self, queue: &Queue, slot: usize, seq: Seq) -> Result<()> {
        let member = self.member()?;
        let (memory, me) = (&*member.memory, member.me()?);
        let by = &memory.slot_words(slot).owed_by;
        let said = self.seat.say_write(slot, seq.ticket());
        let was_by = by.swap(word_of(me), sync::Ordering::AcqRel);
        let owed = note_owed(memory, slot, seq);
        let queued = self.queue(queue, &[page::complete(slot, seq)]);
        if queued.is_ok() {
            // Only now: a frame that is given up leaves its ticket to the next one.
            self.seat.note_write(self.way(queue), slot, seq);
        } else {
            // Nothing will do it.
            memory.owed(slot).store(owed, sync::Ordering::Release);
            by.store(was_by, sync::Ordering::Release);
            self.seat.say_write(slot, said);
        }
        queued
    }

    /// Queues a wait for a frame, some work that reads it, and the end of that. The slot is leased.
    /// `false`: the lease was taken away meanwhile.
    pub(super) fn read(
        &self,
        queue: &Queue,
        found: &Found,
        work: impl FnOnce() -> Result<()>,
    ) -> Result<bool> {
        self.await_frame(queue, found.slot, found.seq)?;
        work()?;
        self.end_use(queue, found.slot, found.seq)
    }

    /// Queues a wait for a frame, unless it is there, on the device or in the file.
    pub(super) fn await_frame(&self, queue: &Queue, slot: usize, seq: Seq) -> Result<()> {
        self.note_queue(queue)?;
        let member = self.member()?;
        let memory = &*member.memory;
        if device::is_complete(memory, slot, seq)
            || device::is_settled(memory, slot, seq)
            || self.seat.has_filled(self.way(queue), slot, seq)
        {
            return Ok(());
        }
        // Before it is waited for: where the device cannot, the call does.
        if memory.debtor(slot) != member.me()? {
            let (earlier, awaited) = (Earlier::of(memory, slot, seq), Awaited::There);
            self.watch([Debt::Frame { slot, seq, earlier, awaited }])?;
        }
        self.queue(queue, &[page::await_frame(slot, seq)])
    }

    /// Queues the end of a use of a slot that is leased, and notes it. `false`: the lease was taken away.
    pub(super) fn end_use(&self, queue: &Queue, slot: usize, seq: Seq) -> Result<bool> {
        let member = self.member()?;
        let way = self.way(queue);
        let (next, mut lanes) = self.seat.next(way);
        let mut steps: Vec<_> = next.after.into_iter().map(page::await_use).collect();
        steps.push(page::end(next.it));
        self.queue(queue, &steps)?;
        lanes.note(way, next.it);
        let is_kept = note_use(&*member.memory, member.me()?, slot, seq, next.it);
        drop(lanes);
        Ok(is_kept)
    }

    /// Whether a use is over.
    pub(super) fn is_over(&self, it: Use) -> Result<bool> {
        Ok(self.member()?.memory.done(it.lane).load(sync::Ordering::Acquire) >= it.number)
    }

    /// By what the work on frames is ordered.
    pub(super) fn ordering(&self) -> Ordering {
        self.page.ordering()
    }

    /// A queue, as it is known again.
    fn way(&self, queue: &Queue) -> Option<lanes::Queue> {
        Some((self.context.device().ordinal(), queue.id()?))
    }

    /// Says that work on the frames is queued in `queue`, so that they stay mapped until it is done.
    fn note_queue(&self, queue: &Queue) -> Result<()> {
        let Some(id) = queue.id() else { return Ok(()) };
        let mut known = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.contains(&id) {
            self.frames.used_on(queue).map_err(|source| self.failed("order", &source))?;
            self.page.used_on(queue).map_err(|source| self.failed("order", &source))?;
            if known.len() == QUEUES_MAX {
                known.clear();
            }
            known.push(id);
        }
        Ok(())
    }

    fn is_known(&self, queue: &Queue) -> bool {
        let known = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queue.id().is_some_and(|id| known.contains(&id))
    }

    pub(super) fn queue(&self, queue: &Queue, steps: &[WordStep]) -> Result<()> {
        if self.seat.is_lost() {
            // Others count on it that nothing is done, whatever the program has made of the device since.
            return Err(Error::new(ErrorKind::Device, lost()));
        }
        let is_known = self.is_known(queue);
        let queued = self.page.queue(queue, is_known, steps);
        queued.map_err(|source| self.failed("order", &source))?;
        if !is_known {
            // Of a lent stream only what is queued by now counts.
            self.frames.used_on(queue).map_err(|source| self.failed("order", &source))?;
        }
        Ok(())
    }

    /// Whether a frame is found to be nobody's for the first time.
    pub(super) fn is_news(&self, slot: usize, seq: Seq) -> bool {
        self.lost[slot].swap(seq.ticket(), sync::Ordering::Relaxed) != seq.ticket()
    }

    /// Has debts looked after for which something will wait that is not queued yet.
    pub(super) fn watch(&self, debts: impl IntoIterator<Item = Debt>) -> Result<()> {
        let Some(this) = self.this.upgrade() else { return Ok(()) };
        watch::over(&this, debts.into_iter()).map_err(|source| {
            let name = self.attachment.name();
            let message = format!(
                "no thread can be started to see to it that a GPU does not wait for ever on stream \
                 `{name}`, if the process that it waits for dies: {source}"
            );
            Error::with_source(ErrorKind::Os, message, source)
        })
    }

    /// Has a debt looked after for which nothing of this call waits: without a thread, later.
    pub(super) fn watch_unawaited(&self, debt: Debt) {
        if let Some(this) = self.this.upgrade() {
            watch::over_unawaited(&this, debt);
        }
    }

    /// The error of work that a device does not do.
    #[cold]
    pub(super) fn failed(&self, what: &str, source: &dyn std::error::Error) -> Error {
        if cuda_ipc::lost().is_some() {
            settle::tell_if_lost();
        }
        failed(&self.attachment, what, source)
    }
}

/// Why nothing is queued any more.
fn lost() -> String {
    let cause = cuda_ipc::lost().map_or_else(String::new, |cause| format!(" ({cause})"));
    format!("this process's work on its GPU was ended by an error{cause}: start the process anew")
}
