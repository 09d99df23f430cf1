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

use cuda_ipc::Stream as Queue;
use shm_lock::Wait;

use crate::error::Result;
use crate::ring::device::{
    Use, crashed, is_complete, is_settled, last_whole, outstanding, release_use, settled,
};
use crate::ring::word::Seq;
use crate::ring::{Identity, Liveness as _, Ring as _, RingLoads as _};
use crate::stream::description::Description;
use crate::stream::device::earlier::Earlier;
use crate::stream::device::hold::Hold;
use crate::stream::device::seat::{Sitter, who_of, word_of};
use crate::stream::locked::Locked;
use crate::stream::memory::{Peers, StreamMemory};
use crate::stream::tenure::Tenure;
use crate::sync::Ordering;

/// Something that this process's devices wait for, and another process's are to do.
#[derive(Clone, Debug)]
pub(super) enum Debt {
    /// To complete a frame of a slot, which may be claimed meanwhile.
    Frame { slot: usize, seq: Seq, earlier: Earlier, awaited: Awaited },
    /// To be done with a slot.
    Use { it: Use, user: Sitter },
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
                let is_settled = is_settled(memory, *slot, *seq);
                if is_settled || *awaited == Awaited::There && is_complete(memory, *slot, *seq) {
                    return Ok(true);
                }
                // If somebody has the lock, it is tried again soon.
                if earlier.is_over(memory, *slot, |who| peers.has_ended(who))
                    && let Ok(locked) = Locked::acquire(&self.attachment, &Wait::never())
                {
                    self.mend_slot(locked.tenure(), *slot, *seq, earlier)?;
                }
                Ok(false)
            }
            Debt::Use { it, .. } if self.is_over(*it)? => Ok(true),
            Debt::Use { it, user } if peers.has_ended(user.who) && !user.lives() => {
                release_use(memory, *it);
                Ok(true)
            }
            Debt::Use { .. } => Ok(false),
        }
    }

    /// Fills what the devices of dead writers have not, as far as nothing has to be waited for.
    pub(super) fn mend(&self, tenure: Tenure<'_>) -> Result<()> {
        let member = self.member()?;
        let (memory, peers, me) = (&*member.memory, member.peers(), member.me()?);
        for slot in 0..memory.slots() {
            let Some(seq) = outstanding(memory, slot) else { continue };
            let debtor = memory.debtor(slot);
            if debtor != me && peers.is_gone(debtor) {
                let earlier = Earlier::of(memory, slot, seq);
                self.mend_slot(tenure, slot, seq, &earlier)?;
            }
        }
        Ok(())
    }

    /// Fills a slot for whoever was to fill it with a frame, unless that is not possible yet, or somebody has.
    fn mend_slot(
        &self,
        tenure: Tenure<'_>,
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
        if let Err(error) = self.refill(slot, seq) {
            // What was queued waits for nothing. If the driver does not answer any more, nothing is going on.
            let _ = self.context.synchronize(self.own());
            words.mended.store(0, Ordering::Release);
            return Err(error);
        }
        self.seat.note_write(self.way(self.own()), slot, seq);
        if memory.seq(slot, Ordering::Acquire) == seq {
            let record = memory.slot(slot);
            record.owner.store(me.id, Ordering::Relaxed);
            record.owner_entry.store(me.entry as u64, Ordering::Release);
        }
        if outstanding(memory, slot).is_none_or(|owed| owed.ticket() == seq.ticket()) {
            words.owed_by.store(word_of(me), Ordering::Release);
        }
        tenure.wake();
        Ok(())
    }

    /// Queues the last whole frame, or zeros if there is none, to a slot, and that its frame is complete.
    fn refill(&self, slot: usize, seq: Seq) -> Result<()> {
        let memory = &*self.member()?.memory;
        let own = self.own();
        let mut good = None;
        // Of a mirrored stream, it may be whole on the device, and lack the copy alone.
        if !is_complete(memory, slot, seq) {
            good = last_whole(memory, seq);
            self.copy_or_clear(own, slot, good)?;
            self.queue(own, &[crate::stream::device::page::complete(slot, seq)])?;
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
        self.mirror_in(own, slot, seq)?;
        // Behind the words: nobody who waits for them waits for this, and nobody claims the slot meanwhile.
        good.map_or(Ok(()), |(from, seq)| self.end_mending(from, seq))
    }

    fn copy_or_clear(&self, queue: &Queue, slot: usize, good: Option<(usize, Seq)>) -> Result<()> {
        match good {
            Some((from, seq)) => self.copy_slot(queue, self.address(slot), from, seq),
            None => self.fill(queue, self.address(slot)),
        }
    }
}

/// Whether somebody who is not gone has queued what fills a slot. Of this frame it is the same; of an earlier
/// one it comes before.
pub(super) fn is_being_mended(memory: &StreamMemory, peers: &Peers<'_>, slot: usize) -> bool {
    let words = memory.slot_words(slot);
    let by: Identity = who_of(words.mended_by.load(Ordering::Acquire));
    settled(memory, slot) < words.mended.load(Ordering::Acquire) && !peers.is_gone(by)
}
