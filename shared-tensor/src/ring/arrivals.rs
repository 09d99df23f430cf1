//! When something may have arrived in the file of a mirrored stream: a word to park on.
//!
//! A frame of a GPU is published before it is in the file, so its arrival changes no control word. Those
//! who wait for it park on a word of their own, which counts: bit 0 says that somebody may be parked, the
//! bits above it change with every arrival.
//!
//! To clear the lowest bit of the control word instead would not do. Between the look of one reader and its
//! sleep, an arrival clears the bit, finding nobody to wake, and a second reader sets it again; the word is
//! what the first one saw, and it sleeps although its frame is there. A count has no way back.

use crate::sync::{AtomicU64, Ordering};

const WAITERS: u64 = 1;
const ONE: u64 = 2;

/// The word, to be read before looking for what is waited for.
pub(crate) fn seen(word: &AtomicU64) -> u64 {
    word.load(Ordering::Acquire)
}

/// Says that a reader is about to park, who has looked after it saw the word. The low half to park on, or
/// `None` if something arrived since.
pub(crate) fn announce(word: &AtomicU64, seen: u64) -> Option<u32> {
    let waiting = seen | WAITERS;
    // SYNC: arrival. The exchange finds the word changed, or `tell` finds the bit.
    let is_said = seen == waiting
        || word.compare_exchange(seen, waiting, Ordering::AcqRel, Ordering::Relaxed).is_ok();
    is_said.then_some(waiting as u32)
}

/// Says that something may have arrived. Whether somebody may be parked.
pub(crate) fn tell(word: &AtomicU64) -> bool {
    let mut seen = word.load(Ordering::Relaxed);
    loop {
        #[cfg(not(st_mutant = "arrival-uncounted"))]
        let after = (seen & !WAITERS).wrapping_add(ONE);
        #[cfg(st_mutant = "arrival-uncounted")]
        let after = seen & !WAITERS;
        // SYNC: arrival. Release: what has arrived comes first.
        match word.compare_exchange(seen, after, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => return seen & WAITERS != 0,
            Err(now) => seen = now,
        }
    }
}
