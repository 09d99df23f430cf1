//! Finding a frame and copying it, as often as it takes.

use std::mem::MaybeUninit;
use std::sync::Arc;

use shm_core::SharedBytes;
use shm_lock::Wait;

use crate::error::{Error, ErrorKind, Result};
use crate::ring::word::{Ctl, Phase, passing_budget};
use crate::ring::{
    Found, Identity, Look, RingLoads, is_unchanged, newest, newest_in_file, oldest_after, unpin,
};
use crate::stream::attachment::{Attachment, Member, Role};
use crate::stream::copy;
use crate::stream::counters::add;
use crate::stream::description::{Description, Publication};
use crate::stream::lease::{Attempt, Lease, out_of_bounds, try_lease, try_pin};
use crate::stream::reader::sight::Sight;
use crate::stream::reader::{OnAbort, OnEmpty, OnWriting, Reader};
use crate::stream::wait::{
    Moved, OVERTAKEN, Since, check_patience, is_found_lost, wait_once, writer_has_left,
};
use crate::sync::Ordering;

/// Laps before a copying reader stops hoping and leases.
const LAPS_BEFORE_LEASE: u32 = 3;

impl Reader {
    /// The newest complete frame, waiting only where a ring of one slot is being written.
    pub(super) fn find_newest(&mut self, wait: &Wait<'_>, started: Since) -> Result<Found> {
        // Once one write in progress was waited for, the newest frame is new enough.
        let mut may_wait = self.options.on_writing == OnWriting::Wait;
        loop {
            match self.sight.look(&self.attachment) {
                Look::Frame(found) if found.ctl.is_unlinked() && self.moves_on()? => {}
                Look::Frame(found) if may_wait && found.is_behind() => {
                    self.wait_for_writer(found.ctl, wait, started)?;
                    may_wait = false;
                }
                Look::Frame(found) => {
                    self.check_phase(found.ctl)?;
                    if self.options.on_abort == OnAbort::Raise && self.writer_is_dead(found.ctl) {
                        return Err(self.inconsistent("the writer exited during a write"));
                    }
                    if found.seq.frame() == 0 && self.options.on_empty == OnEmpty::Raise {
                        return Err(Error::new(
                            ErrorKind::Empty,
                            format!(
                                "stream `{}` has published nothing yet: wait for its first frame",
                                self.attachment.name()
                            ),
                        ));
                    }
                    return Ok(found);
                }
                Look::Damaged => return Err(self.damaged()),
                Look::Pending(found) => self.wait_for_arrival(&found, wait, started)?,
                Look::Moved(ctl) if self.attachment.layout.slots == 1 => {
                    self.wait_for_single_slot(ctl, wait, started)?;
                }
                Look::Moved(_) => check_patience(&self.attachment, wait, started, OVERTAKEN)?,
            }
        }
    }

    /// Waits for the end of the write that `seen` shows in progress, and until what it leads to is in the
    /// file, or what was published is.
    pub(super) fn wait_for_writer(
        &mut self,
        seen: Ctl,
        wait: &Wait<'_>,
        started: Since,
    ) -> Result<()> {
        let sight = self.sight;
        let was_writing = seen.phase() == Phase::Writing;
        let wanted = seen.count() + u64::from(was_writing);
        loop {
            let attachment = &self.attachment;
            let arrived = |ctl: Ctl| {
                let has_ended =
                    !was_writing || ctl.count() != seen.count() || ctl.phase() != Phase::Writing;
                // A write that was given up leads to nothing.
                has_ended && sight.reach(attachment, ctl) >= wanted.min(ctl.count())
            };
            let signal = sight.signal();
            let moved = wait_once(attachment, &mut self.spinner, signal, wait, started, arrived);
            match moved {
                Ok(Moved::Arrived(_)) => return Ok(()),
                Ok(Moved::Slice(ctl)) => {
                    if sight.awaits_the_dead(&self.attachment, ctl) {
                        return self.after_a_death();
                    }
                }
                Err(error) if error.is_timeout() => {
                    // One look more often than slices are: the caller may never wait that long.
                    let now = self.attachment.ctl(Ordering::Acquire);
                    if sight.awaits_the_dead(&self.attachment, now) {
                        return self.after_a_death();
                    }
                    return Err(Error::new(
                        ErrorKind::Timeout,
                        format!("{error}: a write is in progress, no stable write to read"),
                    ));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// No frame that the ring has is in the file, so there is nothing to serve.
    fn wait_for_arrival(&mut self, pending: &Found, wait: &Wait<'_>, started: Since) -> Result<()> {
        let attachment = &self.attachment;
        let arrived = |_| !matches!(newest_in_file(&**attachment), Look::Pending(_));
        let signal = self.sight.signal();
        match wait_once(attachment, &mut self.spinner, signal, wait, started, arrived)? {
            Moved::Slice(ctl)
                if ctl.count() == pending.ctl.count()
                    && is_found_lost(&self.attachment, pending) =>
            {
                Err(self.inconsistent("the writer exited before its frame was in the file"))
            }
            _ => Ok(()),
        }
    }

    /// A write that was waited for has ended with its writer.
    fn after_a_death(&self) -> Result<()> {
        match self.options.on_abort {
            OnAbort::Raise => Err(self.inconsistent("the writer exited during a write")),
            OnAbort::Serve => Ok(()),
        }
    }

    /// In a ring of one slot the frame being written is the only one.
    fn wait_for_single_slot(&mut self, seen: Ctl, wait: &Wait<'_>, started: Since) -> Result<()> {
        if matches!(seen.phase(), Phase::Aborted | Phase::Crashed) {
            return Err(self.inconsistent("its only slot was left incomplete"));
        }
        let signal = self.sight.signal();
        let arrived =
            |ctl: Ctl| !ctl.same_for_writer(seen) || ctl.is_unlinked() != seen.is_unlinked();
        let moved = wait_once(&self.attachment, &mut self.spinner, signal, wait, started, arrived)?;
        match moved {
            // Also before it said that it writes: it marks the slot first. The word did not move, so
            // if the slot is not whole by now, nobody is at it any more.
            Moved::Slice(ctl)
                if ctl.same_for_writer(seen)
                    && writer_has_left(&self.attachment, ctl)
                    && matches!(newest(&*self.attachment), Look::Moved(_)) =>
            {
                Err(self.inconsistent("the writer exited during a write"))
            }
            _ => Ok(()),
        }
    }

    pub(in crate::stream) fn copy_newest(
        &mut self,
        sink: &mut Sink<'_>,
        wait: &Wait<'_>,
    ) -> Result<Publication> {
        let started = Since::now(wait);
        let mut laps = 0;
        loop {
            let found = self.find_newest(wait, started)?;
            if let Some(publication) = self.copy_found(&found, self.seen, sink, &mut laps)? {
                return Ok(publication);
            }
            check_patience(&self.attachment, wait, started, OVERTAKEN)?;
        }
    }

    pub(in crate::stream) fn copy_next(
        &mut self,
        after: u64,
        sink: &mut Sink<'_>,
        wait: &Wait<'_>,
    ) -> Result<Publication> {
        let started = Since::now(wait);
        let mut after = after;
        // Frames up to here are not waited for any more.
        let mut passed = after;
        let mut laps = 0;
        loop {
            let generation = self.attachment.segment.generation();
            self.wait(passed, wait)?;
            if self.attachment.segment.generation() != generation {
                (after, passed) = (0, 0);
            }
            let seen = self.attachment.ctl(Ordering::Acquire);
            let Some(found) = oldest_after(&*self.attachment, passed) else {
                match newest(&*self.attachment) {
                    Look::Damaged => return Err(self.damaged()),
                    // It may stay incomplete for as long as its writer likes, or for ever.
                    Look::Moved(_) if self.attachment.layout.slots == 1 => {
                        self.wait_for_single_slot(seen, wait, started)?;
                    }
                    Look::Moved(_) | Look::Pending(_) | Look::Frame(_) => {}
                }
                check_patience(&self.attachment, wait, started, OVERTAKEN)?;
                continue;
            };
            if !self.comes_in_turn(&found, wait, started)? {
                passed = found.seq.frame();
                continue;
            }
            if let Some(publication) = self.copy_found(&found, after, sink, &mut laps)? {
                return Ok(publication);
            }
            check_patience(&self.attachment, wait, started, OVERTAKEN)?;
        }
    }

    /// Waits until the next frame in order is in the file, where later ones may be already: each process
    /// sees to its own. `false`: it never will be.
    fn comes_in_turn(&mut self, found: &Found, wait: &Wait<'_>, started: Since) -> Result<bool> {
        if self.sight == Sight::Published {
            return Ok(true);
        }
        loop {
            let attachment = &self.attachment;
            // Or was overtaken, which the copy finds.
            let arrived = |_| {
                attachment.is_in_file(found.slot, found.seq)
                    || attachment.seq(found.slot, Ordering::Acquire) != found.seq
            };
            let signal = self.sight.signal();
            match wait_once(attachment, &mut self.spinner, signal, wait, started, arrived)? {
                Moved::Arrived(_) => return Ok(true),
                Moved::Slice(_) if is_found_lost(&self.attachment, found) => return Ok(false),
                Moved::Slice(_) => {}
            }
        }
    }

    /// Copies a frame that was found; `None` if a writer overtook the copy.
    fn copy_found(
        &mut self,
        found: &Found,
        after: u64,
        sink: &mut Sink<'_>,
        laps: &mut u32,
    ) -> Result<Option<Publication>> {
        let Some(description) = copy_once(&self.attachment, found, sink, *laps)? else {
            *laps += 1;
            if let Role::Member(member) = &self.attachment.role {
                add(&member.counters(member.me()?).retries, 1);
            }
            return Ok(None);
        };
        let missed = self.advance(found, after);
        self.count_frame(self.attachment.layout.payload_bytes as u64)?;
        Ok(Some(description.publication(found.seq.frame(), missed, found.ctl.phase())))
    }

    /// Moves the position to a frame that was read; how many lie between it and `after`. Only those
    /// that this reader had not passed before count as missed by it.
    pub(super) fn advance(&mut self, found: &Found, after: u64) -> u64 {
        let count = found.seq.frame();
        let skipped = |from: u64| count.saturating_sub(from).saturating_sub(1);
        let newly = skipped(self.seen.max(after));
        if newly != 0 {
            self.missed_total = self.missed_total.saturating_add(newly);
            if let Role::Member(member) = &self.attachment.role
                && let Ok(me) = member.me()
            {
                add(&member.counters(me).missed, newly);
            }
        }
        self.seen = self.seen.max(count);
        skipped(after)
    }

    pub(super) fn count_frame(&self, bytes: u64) -> Result<()> {
        if let Role::Member(member) = &self.attachment.role {
            let counters = member.counters(member.me()?);
            add(&counters.frames, 1);
            add(&counters.bytes, bytes);
            counters.last_count.fetch_max(self.seen, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// One try to copy a frame; `None` if a writer overtook it.
///
/// The first try only checks afterwards. Then the slot is pinned, which writers respect while they
/// can; then it is leased, which they always respect.
fn copy_once(
    attachment: &Arc<Attachment>,
    found: &Found,
    sink: &mut Sink<'_>,
    laps: u32,
) -> Result<Option<Description>> {
    if let Sink::Queued(queue) = sink {
        return queue_once(attachment, found, *queue);
    }
    let hold = match &attachment.role {
        Role::Member(member) if laps > 0 => {
            Hold::take(member, member.me()?, attachment, found, laps)
        }
        _ => Hold::None,
    };
    if matches!(hold, Hold::Gone) {
        return Ok(None);
    }
    let layout = &attachment.layout;
    sink.fill(attachment.readable()?, layout.slot_start(found.slot), layout.payload_bytes)?;
    let description = attachment.description(found.slot);
    Ok(is_unchanged(&**attachment, found).then_some(description))
}

/// One try to have a device read a frame; `None` if a writer was quicker.
///
/// The slot is leased while that is queued: by then a word says how far the device is.
fn queue_once(
    attachment: &Arc<Attachment>,
    found: &Found,
    queue: &mut dyn FnMut(&Found) -> Result<bool>,
) -> Result<Option<Description>> {
    let member = attachment.member()?;
    let budget = passing_budget(attachment.layout.slots);
    match try_lease(member, member.me()?, budget, found) {
        Attempt::Leased => {
            let description = attachment.description(found.slot);
            let publication = description.publication(0, 0, Phase::Idle);
            let lease = Lease::of_slot(Arc::clone(attachment), member.me()?, found, publication);
            let is_kept = queue(found)?;
            drop(lease);
            Ok(is_kept.then_some(description))
        }
        Attempt::Gone | Attempt::Full => Ok(None),
    }
}

/// Where a copy goes.
pub(in crate::stream) enum Sink<'a> {
    Slice(&'a mut [u8]),
    Uninitialised(&'a mut [MaybeUninit<u8>]),
    /// Filled once, without zeroing it first; filled again in place after a lap.
    Growing(&'a mut Vec<u8>),
    /// To wherever a device is told to copy it: `false` says that the slot was taken away meanwhile.
    Queued(&'a mut dyn FnMut(&Found) -> Result<bool>),
    /// To wherever a device copies it from this byte of the file's ring on, which the call waits for.
    Waited(&'a mut dyn FnMut(usize) -> Result<()>),
}

impl Sink<'_> {
    fn fill(&mut self, shared: &SharedBytes, start: usize, bytes: usize) -> Result<()> {
        let out = match self {
            Self::Slice(out) => &mut **out,
            Self::Uninitialised(out) => {
                let out = copy::Destination::Uninitialised(out);
                return copy::from_shared(shared, start, out).map_err(out_of_bounds);
            }
            Self::Growing(out) if out.len() == bytes => out.as_mut_slice(),
            Self::Growing(out) => {
                let read = crate::sys::read_vec(out, shared, start, bytes);
                return read.map_err(out_of_bounds);
            }
            // Nothing of it is copied here.
            Self::Queued(_) => return Ok(()),
            Self::Waited(copy) => return copy(start),
        };
        let out = copy::Destination::Initialised(out);
        copy::from_shared(shared, start, out).map_err(out_of_bounds)
    }
}

/// What keeps writers off a slot while it is copied.
enum Hold<'a> {
    None,
    Gone,
    Pin { attachment: &'a Attachment, me: Identity, slot: usize },
    Lease { _lease: Lease },
}

impl<'a> Hold<'a> {
    fn take(
        member: &'a Member,
        me: Identity,
        attachment: &'a Arc<Attachment>,
        found: &Found,
        laps: u32,
    ) -> Self {
        if laps >= LAPS_BEFORE_LEASE {
            match try_lease(member, me, attachment.layout.leases_max(), found) {
                Attempt::Leased => {
                    let publication =
                        attachment.description(found.slot).publication(0, 0, Phase::Idle);
                    let lease = Lease::of_slot(Arc::clone(attachment), me, found, publication);
                    return Self::Lease { _lease: lease };
                }
                Attempt::Gone => return Self::Gone,
                Attempt::Full => {}
            }
        }
        if try_pin(member, me, found) {
            add(&member.counters(me).pins, 1);
            Self::Pin { attachment, me, slot: found.slot }
        } else {
            Self::Gone
        }
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        if let Self::Pin { attachment, me, slot } = self
            && let Role::Member(member) = &attachment.role
        {
            unpin(&*member.memory, *me, *slot);
        }
    }
}
