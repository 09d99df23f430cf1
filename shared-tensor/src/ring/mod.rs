//! The slot ring: claiming, publishing, healing; and finding a frame to read.
//!
//! One control word says which slot is newest; every change of it is a compare-and-swap, so
//! whatever a writer that was declared dead still does, fails. A writer fills the oldest slot that
//! is neither newest nor leased; a reader copies the newest slot and checks its sequence word
//! afterwards. Neither waits for the other. The whole protocol, with its proofs and the mutants
//! that each of its fences is there to stop, is described in `docs/DESIGN.md`.
//!
//! Everything here works on [`Ring`], a view of memory that another process may have damaged:
//! indices are checked, loops are bounded or wait for somebody alive.

pub(crate) mod arrivals;
pub(crate) mod device;
#[cfg(all(test, loom))]
mod device_model;
mod lease;
#[cfg(all(test, loom))]
mod model;
mod park;
mod read;
mod slot;
pub(crate) mod word;
mod write;

pub(crate) use lease::{
    LeaseRefusal, Pins, leased_mask, lessees, pin, promote, reclaim_ended_lessees, release, unpin,
};
pub(crate) use park::{announce_parking, entomb};
pub(crate) use read::{
    Found, Look, is_unchanged, newest, newest_in_file, oldest_after, published_until,
};
pub(crate) use slot::Slot;
pub(crate) use write::{Claim, Filler, WriteFault, abort, claim, commit, heal, slot_owner};

use crate::ring::word::{Ctl, Seq};
use crate::sync::{AtomicU64, Ordering};

/// The loads that suffice to read; also possible on a mapping without write permission.
pub(crate) trait RingLoads {
    fn slots(&self) -> usize;
    fn ctl(&self, order: Ordering) -> Ctl;
    fn seq(&self, slot: usize, order: Ordering) -> Seq;

    /// Whether a published frame is in the file by now, where that takes longer.
    fn is_in_file(&self, _slot: usize, _seq: Seq) -> bool {
        true
    }
}

/// The words themselves.
pub(crate) trait Ring: RingLoads {
    fn ctl_word(&self) -> &AtomicU64;
    fn slot(&self, slot: usize) -> &Slot;
    /// Entries of the participant table that were ever used.
    fn high_water(&self) -> usize;
    fn lease(&self, entry: usize) -> &AtomicU64;
    /// One bit for each of 64 entries: whether it ever pinned a slot.
    fn lessees(&self, group: usize) -> &AtomicU64;

    /// How far devices are with a slot that no process holds.
    fn standing(&self, _slot: usize) -> Standing {
        Standing::Done
    }

    /// Whose device fills a slot.
    fn debtor(&self, slot: usize) -> Identity {
        slot_owner(self.slot(slot))
    }

    /// Whether no device fills a slot, nor will: all who told one to are gone.
    fn is_abandoned(&self, slot: usize, liveness: &impl Liveness) -> bool {
        liveness.is_gone(self.debtor(slot))
    }

    /// Whether devices read a slot, or are to.
    fn is_in_use(&self, _slot: usize) -> bool {
        false
    }
}

/// What devices have still to do with a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nothing.
    Done,
    /// They read it.
    InUse,
    /// They fill it.
    Incomplete,
}

/// Who a process is in the participant table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) entry: usize,
    pub(crate) id: u64,
}

/// What the ring asks about processes.
pub(crate) trait Liveness {
    /// Whether this process will never write to shared memory again. Unprovable is `false`.
    fn has_ended(&self, who: Identity) -> bool;
    /// Whether no device does anything for it any more, either. Unprovable is `false`.
    fn is_gone(&self, who: Identity) -> bool {
        self.has_ended(who)
    }
    /// Who uses this entry of the table now.
    fn occupant(&self, entry: usize) -> Identity;
}
