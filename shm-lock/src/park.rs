//! Building blocks for protocols that keep a 64-bit control word and sleep on its low half.
//!
//! The word carries more than a futex can compare (a count, a slot, an epoch), so the owner of
//! the protocol sets its own "somebody may sleep" bit in the low half, and these two calls do the
//! sleeping and the waking. Neither writes to the word: [`park_low_half`] works on a read-only
//! mapping.

use std::time::Duration;

use crate::sync::atomic::AtomicU64;
use crate::sync::futex;

/// Why a sleep ended. Whatever the answer, read the word again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parked {
    /// A waker named this word. Wakes can be spurious, and they can be meant for an earlier state.
    Woken,
    /// The word was not what the caller expected: nothing was slept.
    Changed,
    /// The time was up.
    TimedOut,
    /// A signal handler ran.
    Interrupted,
}

/// Sleeps while the low 32 bits of `word` are `expected_low`, for `at_most` at the longest.
///
/// The comparison and going to sleep are one step for the kernel: a waker that changes the low
/// half first and wakes afterwards cannot be missed. A waker that dies between the two can, so
/// `at_most` must be a bound that the caller can live with.
pub fn park_low_half(word: &AtomicU64, expected_low: u32, at_most: Duration) -> Parked {
    futex::wait_low_half(word, expected_low, at_most)
}

/// Wakes everybody who sleeps on the low half of `word` and returns how many there were.
///
/// This is a system call (about 150 ns with nobody there): call it only if the word said that
/// somebody may sleep.
pub fn wake_all_low_half(word: &AtomicU64) -> usize {
    futex::wake_low_half(word)
}
