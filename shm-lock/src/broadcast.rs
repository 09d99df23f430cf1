//! A word that many may wait on and one notifies.

use std::time::Duration;

use crate::error::WaitError;
use crate::park::Parked;
use crate::sync::atomic::{AtomicU32, Ordering};
use crate::sync::futex;
use crate::wait::Wait;

const WAITERS: u32 = 1 << 31;
const SEQUENCE: u32 = WAITERS - 1;

/// The longest sleep: what it costs if a notifier dies between changing the word and waking.
const SLICE: Duration = Duration::from_millis(50);

/// A sequence number in shared memory that can be waited on: `[waiters:1 | sequence:31]`.
///
/// A notification raises the sequence and makes a system call only if somebody sleeps. The waiters'
/// bit and the sequence are one word, so a waiter cannot miss a notification, a killed waiter
/// costs one wake-up in vain, and a killed notifier one bounded re-check. All-zero is the initial
/// state.
#[derive(Debug)]
#[repr(transparent)]
pub struct Broadcast(AtomicU32);

impl Broadcast {
    /// A word that was never notified.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// A word that was never notified.
    #[cfg(loom)]
    pub fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// How often the word was notified, modulo 2^31.
    pub fn sequence(&self) -> u32 {
        // SYNC: broadcast. What the notifier wrote before is seen after.
        self.0.load(Ordering::Acquire) & SEQUENCE
    }

    /// Raises the sequence, wakes everybody who sleeps and returns how many that were.
    pub fn notify(&self) -> usize {
        if cfg!(st_mutant = "notify_looks_first") {
            let somebody_sleeps = self.0.load(Ordering::Relaxed) & WAITERS != 0;
            let _ = self.raise();
            return if somebody_sleeps { futex::wake(&self.0, u32::MAX) } else { 0 };
        }
        let before = self.raise();
        if before & WAITERS == 0 { 0 } else { futex::wake(&self.0, u32::MAX) }
    }

    /// Waits until the sequence is another one than `seen` and returns it.
    pub fn wait(&self, seen: u32, wait: &Wait<'_>) -> Result<u32, WaitError> {
        let seen = seen & SEQUENCE;
        let mut waiting = None;
        loop {
            let word = self.0.load(Ordering::Acquire);
            if word & SEQUENCE != seen {
                return Ok(word & SEQUENCE);
            }
            let announced = seen | WAITERS;
            // On exactly the word that was judged: a notification in between makes this fail.
            if word != announced
                && self
                    .0
                    .compare_exchange(word, announced, Ordering::Relaxed, Ordering::Relaxed)
                    .is_err()
            {
                continue;
            }
            let slice = waiting.get_or_insert_with(|| wait.begin()).next_slice(SLICE)?;
            let _: Parked = futex::wait(&self.0, announced, slice);
        }
    }

    /// One more, nobody waiting; returns the word before.
    fn raise(&self) -> u32 {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let raised = word.wrapping_add(1) & SEQUENCE;
            // SYNC: broadcast.
            match self.0.compare_exchange(word, raised, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(before) => return before,
                Err(found) => word = found,
            }
        }
    }
}

impl Default for Broadcast {
    fn default() -> Self {
        Self::new()
    }
}
