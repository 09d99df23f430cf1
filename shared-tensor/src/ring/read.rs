//! The read side: find a complete frame, and check after the copy that it still is that frame.

use crate::ring::RingLoads;
use crate::ring::word::{Ctl, Phase, Seq, SlotState};
use crate::sync::{Ordering, fence};

/// A slot with a complete frame, as it was when looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) ctl: Ctl,
    pub(crate) slot: usize,
    pub(crate) seq: Seq,
}

impl Found {
    /// Whether a newer frame was being written, or on its way, when this one was found.
    pub(crate) fn is_behind(&self) -> bool {
        self.ctl.phase() == Phase::Writing || self.seq.frame() < self.ctl.count()
    }
}

/// What a look at the ring gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    Frame(Found),
    /// The slot that this control word calls newest was not ready: look again.
    Moved(Ctl),
    /// The newest frame was published, and no frame is in the file: wait for it.
    Pending(Found),
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

/// The newest frame that is in the file; [`Look::Pending`] if none is, of those that the ring still has.
pub(crate) fn newest_in_file(ring: &impl RingLoads) -> Look {
    let look = newest(ring);
    let Look::Frame(found) = look else { return look };
    if ring.is_in_file(found.slot, found.seq) {
        return look;
    }
    let last = published_until(ring, found.ctl)
        // Slots that nobody has filled are not of a stream that has published.
        .filter(|found| found.seq.frame() > 0 && ring.is_in_file(found.slot, found.seq))
        .max_by_key(|found| found.seq.frame());
    last.map_or(Look::Pending(found), Look::Frame)
}

/// The frames that the ring has, of those that were published when the control word was read.
pub(crate) fn published_until(ring: &impl RingLoads, ctl: Ctl) -> impl Iterator<Item = Found> {
    (0..ring.slots())
        .map(move |slot| Found { ctl, slot, seq: ring.seq(slot, Ordering::Acquire) })
        // A frame above the count is written but not published.
        .filter(move |found| {
            found.seq.state() == SlotState::Ready && found.seq.frame() <= ctl.count()
        })
}

/// The oldest complete frame with a count above `after`, if there is one.
pub(crate) fn oldest_after(ring: &impl RingLoads, after: u64) -> Option<Found> {
    published_until(ring, ring.ctl(Ordering::Acquire))
        .filter(|found| found.seq.frame() > after)
        .min_by_key(|found| found.seq.frame())
}

/// Whether what was copied from the slot since it was found is that frame, whole.
pub(crate) fn is_unchanged(ring: &impl RingLoads, found: &Found) -> bool {
    // SYNC: copy. Orders the copy's loads before the load of the sequence word; pairs with the
    // busy mark of `claim`, which is stored before the payload is touched.
    #[cfg(not(st_mutant = "copy-fence"))]
    fence(Ordering::Acquire);
    ring.seq(found.slot, Ordering::Relaxed) == found.seq
}
