//! What the devices of dead processes still owe.
//!
//! A frame is published when the work that fills it has been queued, so its writer may die between. Whoever
//! has queued a wait for it would wait for ever, and what lies in the slot may be part of a frame. Once the
//! writer is gone for good, and what its device would have waited for is over, the slot is filled again with
//! the last whole frame before, and only then is its word written: who waited finds that, whole, and the
//! stream says that its last write crashed.
//!
//! The slot may have been claimed since. If that writer lives, its device waits for the same word; if it is
//! gone, nothing of it is going on. So it is filled again in any case, for those who read it.

use cuda_ipc::Copies;

use crate::error::Result;
use crate::ring::device::{
    DeviceWords as _, Use, crashed, is_complete, is_only_in_file, is_settled, last_whole,
    outstanding, release_use, settled,
};
use crate::ring::word::Seq;
use crate::ring::{Identity, Liveness as _, Ring as _, RingLoads as _};
use crate::stream::description::Description;
use crate::stream::device::earlier::Earlier;
use crate::stream::device::hold::Hold;
use crate::stream::device::seat::{self, Sitter, who_of, word_of};
use crate::stream::memory::{Peers, StreamMemory};
use crate::stream::tenure::Tenure;
use crate::sync::Ordering;

/// Something that is waited for, and that nobody may be about to do.
#[derive(Clone, Debug)]
pub(super) enum Debt {
    /// To complete a frame of a slot, which may be claimed meanwhile.
    Frame { slot: usize, seq: Seq, earlier: Earlier, awaited: Awaited },
    /// To be done with a slot.
    Use { it: Use, user: Sitter },
    /// Of this process: the copy of its own frame to the file, which the driver refused.
    Copy { slot: usize, seq: Seq },
    /// Of this process: to wake those who wait for a frame in the file.
    News { slot: usize, seq: Seq },
}

/// Where a frame is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Awaited {
    /// On the device.
    There,
    /// Where it comes last, which in a mirrored stream is the file.
    Everywhere,
}

impl Hold {
    /// Whether a debt is paid, and otherwise pays it, if its debtor is gone.
    pub(super) fn is_paid(&self, debt: &Debt) -> Result<bool> {
        let member = self.member()?;
        let (memory, peers) = (&*member.memory, member.peers());
        match debt {
            Debt::Frame { slot, seq, earlier, awaited } => {
                let is_there = || is_there(memory, *slot, *seq, *awaited);
                // The second look: a frame that has come since the first one is over, and is not lost.
                if !is_there()
                    && earlier.is_over(memory, *slot, |who| peers.has_ended(who))
                    && !is_there()
                    && let Some(work) = self.mender.work().map_err(|it| self.failed("mend", &it))?
                {
                    // If another process has the lock, it is tried again soon.
                    let mended = self.attachment.under_lock(|tenure, open| {
                        // What this process fills itself is nothing of a device's any more.
                        if open == Some(*slot) {
                            return Ok(());
                        }
                        self.mend_slot(tenure, work, *slot, *seq, earlier)
                    });
                    mended.unwrap_or(Ok(()))?;
                }
                Ok(is_there())
            }
            Debt::Use { it, .. } if self.is_over(*it)? => Ok(true),
            Debt::Use { it, user } if user.reads_for_nobody(memory, |who| peers.has_ended(who)) => {
                release_use(memory, *it);
                Ok(true)
            }
            Debt::Use { .. } => Ok(false),
            Debt::Copy { slot, seq } => self.copy_late(*slot, *seq),
            Debt::News { slot, seq } => {
                let is_settled = is_settled(memory, *slot, *seq);
                if is_settled {
                    memory.tell_arrival();
                }
                Ok(is_settled)
            }
        }
    }

    /// Whether a debt is paid, at a glance: `false` of one for which more has to be done.
    pub(super) fn is_paid_already(&self, debt: &Debt) -> bool {
        let Ok(member) = self.member() else { return false };
        match debt {
            Debt::Frame { slot, seq, awaited, .. } => {
                is_there(&member.memory, *slot, *seq, *awaited)
            }
            Debt::Use { it, .. } => self.is_over(*it).unwrap_or(false),
            Debt::Copy { .. } | Debt::News { .. } => false,
        }
    }

    /// Has what the devices of dead writers owe looked after, as nobody may be waiting for it who can. The
    /// caller has the lock.
    pub(super) fn look_for_the_dead(&self) -> Result<()> {
        let member = self.member()?;
        let (memory, peers, me) = (&*member.memory, member.peers(), member.me()?);
        for slot in 0..memory.slots() {
            let Some(seq) = outstanding(memory, slot) else { continue };
            let debtor = memory.debtor(slot);
            let fills_nothing = || seat::fills_nothing(memory, debtor, |who| peers.has_ended(who));
            if debtor != me && fills_nothing() && self.is_news(slot, seq) {
                let (earlier, awaited) = (Earlier::of(memory, slot, seq), Awaited::Everywhere);
                self.watch_unawaited(Debt::Frame { slot, seq, earlier, awaited });
            }
        }
        Ok(())
    }

    /// Fills a slot for whoever was to fill it with a frame, unless that is not possible yet, or somebody has.
    /// When this returns it is filled, and who waits for it goes on.
    fn mend_slot(
        &self,
        tenure: Tenure<'_>,
        work: &Copies,
        slot: usize,
        seq: Seq,
        earlier: &Earlier,
    ) -> Result<()> {
        let member = self.member()?;
        let (memory, peers, me) = (&*member.memory, member.peers(), member.me()?);
        if is_settled(memory, slot, seq)
            || is_being_mended(memory, &peers, slot)
            || !earlier.is_over(memory, slot, |who| peers.has_ended(who))
        {
            return Ok(());
        }
        let words = memory.slot_words(slot);
        // Before anything is queued: if this process dies, others have to know whose device may be at it.
        words.mended_by.store(word_of(me), Ordering::Relaxed);
        words.mended.store(seq.ticket(), Ordering::Release);
        let filled = self.refill(work, slot, seq);
        if filled.is_err() {
            // If the driver does not answer any more, nothing is going on.
            let _ = work.synchronize();
            words.mended.store(0, Ordering::Release);
        }
        filled?;
        if memory.mirrored(slot).is_some() {
            memory.tell_arrival();
        }
        tenure.wake();
        Ok(())
    }

    /// Fills a slot with the last whole frame, or zeros if there is none, and then says that its frame is there.
    fn refill(&self, work: &Copies, slot: usize, seq: Seq) -> Result<()> {
        let memory = &*self.member()?.memory;
        // Of a mirrored stream, it may be whole on the device, and lack the copy alone.
        let is_lost = !is_complete(memory, slot, seq);
        let good = if is_lost { last_whole(memory, seq) } else { None };
        if is_lost {
            self.copy_or_clear(work, slot, good)?;
        }
        if let Some(mirror) = &self.mirror {
            let to = (&mirror.frames, self.start(slot));
            let copied = work.copy_to_host(to, self.address(slot), self.bytes());
            copied.map_err(|source| self.failed("mend", &source))?;
        }
        work.synchronize().map_err(|source| self.failed("mend", &source))?;
        if is_lost {
            let ready = memory.seq(slot, Ordering::Acquire);
            if ready.state() == seq.state() && ready.ticket() == seq.ticket() {
                if let Some((from, _)) = good {
                    Description::copy(memory.slot(slot), memory.slot(from));
                }
                if seq.frame() == memory.ctl(Ordering::Acquire).count() {
                    crashed(memory);
                }
            }
        }
        // In the order in which devices write them.
        memory.ready(slot).fetch_max(seq.ticket(), Ordering::AcqRel);
        if let Some(mirrored) = memory.mirrored(slot) {
            mirrored.fetch_max(seq.ticket(), Ordering::AcqRel);
        }
        Ok(())
    }

    fn copy_or_clear(&self, work: &Copies, slot: usize, good: Option<(usize, Seq)>) -> Result<()> {
        let memory = &*self.member()?.memory;
        let to = self.address(slot);
        let copied = match (good, &self.mirror) {
            (None, _) => work.fill(to, 0, self.bytes()).map_err(Into::into),
            (Some((from, seq)), Some(mirror)) if is_only_in_file(memory, from, seq) => {
                work.copy_from_host(to, (&mirror.frames, self.start(from)), self.bytes())
            }
            (Some((from, _)), _) => {
                work.copy(to, self.address(from), self.bytes()).map_err(Into::into)
            }
        };
        copied.map_err(|source| self.failed("mend", &source))
    }
}

/// Whether a frame is where it is waited for.
fn is_there(memory: &StreamMemory, slot: usize, seq: Seq, awaited: Awaited) -> bool {
    is_settled(memory, slot, seq) || awaited == Awaited::There && is_complete(memory, slot, seq)
}

/// Whether somebody who is not gone is filling a slot for the dead. Of this frame it is the same; of an earlier
/// one it comes before.
pub(super) fn is_being_mended(memory: &StreamMemory, peers: &Peers<'_>, slot: usize) -> bool {
    let words = memory.slot_words(slot);
    let by: Identity = who_of(words.mended_by.load(Ordering::Acquire));
    settled(memory, slot) < words.mended.load(Ordering::Acquire)
        && !seat::fills_nothing(memory, by, |who| peers.has_ended(who))
}
