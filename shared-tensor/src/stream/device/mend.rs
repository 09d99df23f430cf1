//! What the devices of dead processes still owe.
//!
//! A frame is published when the work that fills it has been queued, so its writer may die between. Whoever
//! has queued a wait for it would wait for ever, and what lies in the slot may be part of a frame. Once the
//! writer is gone for good, the slot is filled again with the last complete frame, and only then is its
//! word written: who waited finds that, whole, and the stream says that its last write crashed.

use cuda_ipc::Stream as Queue;
use shm_lock::Wait;

use crate::error::Result;
use crate::ring::device::{
    Use, crashed, incomplete, is_complete, is_settled, newest_complete, release_frame, release_use,
};
use crate::ring::word::Seq;
use crate::ring::{Identity, Liveness as _, Ring, RingLoads as _, slot_owner};
use crate::stream::description::Description;
use crate::stream::device::hold::Hold;
use crate::stream::device::seat::Sitter;
use crate::stream::locked::Locked;
use crate::stream::tenure::Tenure;
use crate::sync::Ordering;

/// Something that this process's devices wait for, and another process's are to do.
#[derive(Clone, Copy, Debug)]
pub(super) enum Debt {
    /// To complete a published frame.
    Frame { slot: usize, seq: Seq },
    /// To complete what was in a slot before this process claimed it.
    Before { slot: usize, seq: Seq, owner: Identity },
    /// To be done with a slot.
    Use { it: Use, user: Sitter },
}

impl Hold {
    /// Whether a debt is paid, and otherwise pays it, if its debtor is gone.
    pub(super) fn is_paid(&self, debt: Debt) -> Result<bool> {
        let member = self.member()?;
        let (memory, peers) = (&*member.memory, member.peers());
        match debt {
            Debt::Frame { slot, seq } if is_complete(memory, slot, seq) => Ok(true),
            Debt::Before { slot, seq, .. } if is_settled(memory, slot, seq) => Ok(true),
            // Whoever mended it before, and died, owes it now.
            Debt::Frame { slot, .. } if peers.is_gone(slot_owner(memory.slot(slot))) => {
                // If somebody has the lock, it is tried again soon.
                if let Ok(locked) = Locked::acquire(&self.attachment, &Wait::never()) {
                    self.mend(locked.tenure())?;
                }
                Ok(false)
            }
            Debt::Before { slot, seq, owner } if peers.is_gone(owner) => {
                release_frame(memory, slot, seq);
                Ok(true)
            }
            Debt::Use { it, .. } if self.is_over(it)? => Ok(true),
            Debt::Use { it, user } if peers.has_ended(user.who) && !user.lives() => {
                release_use(memory, it);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Fills what the devices of dead writers have not, as far as those are gone.
    pub(super) fn mend(&self, tenure: Tenure<'_>) -> Result<()> {
        let member = self.member()?;
        let (memory, peers) = (&*member.memory, member.peers());
        let me = member.me()?;
        let lost: Vec<_> = incomplete(memory)
            .filter(|(_, _, owner)| *owner != me && peers.is_gone(*owner))
            .collect();
        if lost.is_empty() {
            return Ok(());
        }
        let good = newest_complete(memory);
        let own = self.own();
        let newest = memory.ctl(Ordering::Acquire).count();
        for (slot, seq, _) in lost {
            let words = memory.slot(slot);
            // Of a mirrored stream, it may be whole on the device, and lack the copy alone.
            if !is_complete(memory, slot, seq) {
                self.refill(own, slot, good)?;
                self.complete(own, slot, seq)?;
                if seq.frame() == newest {
                    crashed(memory);
                }
            }
            self.mirror(slot, seq)?;
            // Only now: if anything failed before, somebody else has to do it.
            words.owner.store(me.id, Ordering::Relaxed);
            words.owner_entry.store(me.entry as u64, Ordering::Release);
        }
        tenure.wake();
        Ok(())
    }

    /// Fills a slot with the last complete frame, or with zeros if there is none.
    fn refill(&self, queue: &Queue, slot: usize, good: Option<(usize, Seq)>) -> Result<()> {
        let Some((from, seq)) = good else { return self.fill(queue, self.address(slot)) };
        self.copy_slot(queue, self.address(slot), from, seq)?;
        self.end_use(queue, from)?;
        let memory = &*self.member()?.memory;
        Description::copy(memory.slot(slot), memory.slot(from));
        Ok(())
    }
}
