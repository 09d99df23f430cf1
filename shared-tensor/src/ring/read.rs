//! The read side: find a complete frame, and check after the copy that it still is that frame.

use crate::ring::RingLoads;
use crate::ring::word::{Ctl, Seq, SlotState};
use crate::sync::{Ordering, fence};

/// A slot with a complete frame, as it was when looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) ctl: Ctl,
    pub(crate) slot: usize,
    pub(crate) seq: Seq,
}

/// What a look at the ring gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    Frame(Found),
    /// The slot that this control word calls newest was not ready: look again.
    Moved(Ctl),
    /// A word holds a value that the protocol never writes.
    Damaged,
}

/// The newest complete frame.
pub(crate) fn newest(ring: &impl RingLoads) -> Look {
    // SYNC: frame
    let ctl = ring.ctl(Ordering::Acquire);
    if ctl.slot() >= ring.slots() {
        return Look::Damaged;
    }
    // SYNC: frame
    let seq = ring.seq(ctl.slot(), Ordering::Acquire);
    if seq.is_ready(ctl.count()) {
        return Look::Frame(Found { ctl, slot: ctl.slot(), seq });
    }
    // The newest slot is never touched, so by now another one must be: the count only grows, hence
    // an equal word was equal all the time. A ring of one slot has no other.
    let moved = ring.ctl(Ordering::Acquire).count() != ctl.count();
    if moved || ring.slots() == 1 { Look::Moved(ctl) } else { Look::Damaged }
}

/// The oldest complete frame with a count above `after`, if there is one.
pub(crate) fn oldest_after(ring: &impl RingLoads, after: u64) -> Option<Found> {
    let ctl = ring.ctl(Ordering::Acquire);
    (0..ring.slots())
        .map(|slot| (slot, ring.seq(slot, Ordering::Acquire)))
        .filter(|(_, seq)| {
            // A frame above the count is written but not published.
            seq.state() == SlotState::Ready && seq.frame() > after && seq.frame() <= ctl.count()
        })
        .min_by_key(|(_, seq)| seq.frame())
        .map(|(slot, seq)| Found { ctl, slot, seq })
}

/// Whether what was copied from the slot since it was found is that frame, whole.
pub(crate) fn is_unchanged(ring: &impl RingLoads, found: &Found) -> bool {
    // SYNC: copy. Orders the copy's loads before the load of the sequence word; pairs with the
    // busy mark of `claim`, which is stored before the payload is touched.
    #[cfg(not(st_mutant = "copy-fence"))]
    fence(Ordering::Acquire);
    ring.seq(found.slot, Ordering::Relaxed) == found.seq
}
