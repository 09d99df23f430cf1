//! The control word as a meeting point: parked readers, and the tombstone that ends their wait.

use crate::ring::Ring;
use crate::ring::word::Ctl;
use crate::sync::{AtomicU64, Ordering};

/// Says that a reader is about to park. The low half to park on, or `None` if the word moved.
pub(crate) fn announce_parking(ring: &impl Ring, seen: Ctl) -> Option<u32> {
    if seen.has_waiters() {
        return Some(seen.low());
    }
    #[cfg(st_mutant = "announce-blind")]
    return Some(seen.low());
    let waiting = seen.with_waiters();
    ring.ctl_word()
        .compare_exchange(seen.0, waiting.0, Ordering::AcqRel, Ordering::Relaxed)
        .ok()
        .map(|_| waiting.low())
}

/// Marks the stream as unlinked. The caller wakes everybody.
pub(crate) fn entomb(word: &AtomicU64) {
    let mut seen = Ctl(word.load(Ordering::Acquire));
    loop {
        let after = seen.unlinked().without_waiters();
        match word.compare_exchange(seen.0, after.0, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return,
            Err(now) => seen = Ctl(now),
        }
    }
}
