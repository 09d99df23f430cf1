//! Sleeping on a word and waking its sleepers, through the kernel.
//!
//! The words are shared between processes, so none of the calls is `FUTEX_PRIVATE`.

use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::Duration;

use rustix::io::Errno;
use rustix::thread::futex::{self, Flags, Timespec};

use crate::fault;
use crate::park::Parked;
use crate::sys;

/// Sleeps while `word` is `expected`, for `at_most` at the longest.
pub fn wait(word: &AtomicU32, expected: u32, at_most: Duration) -> Parked {
    if fault::point("futex wait").is_err() {
        return Parked::Interrupted;
    }
    let timeout = Timespec {
        tv_sec: at_most.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: at_most.subsec_nanos().into(),
    };
    match futex::wait(word, Flags::empty(), expected, Some(&timeout)) {
        Ok(()) => Parked::Woken,
        Err(Errno::AGAIN) => Parked::Changed,
        Err(Errno::TIMEDOUT) => Parked::TimedOut,
        // EINTR, and whatever a sandbox may answer: look again, as after a signal.
        Err(_) => Parked::Interrupted,
    }
}

/// Wakes up to `count` sleepers of `word` and returns how many there were.
pub fn wake(word: &AtomicU32, count: u32) -> usize {
    if fault::point("futex wake").is_err() {
        return 0;
    }
    // FUTEX_WAKE fails only for an address that is not mapped, which a reference excludes.
    futex::wake(word, Flags::empty(), count.min(i32::MAX as u32)).unwrap_or(0)
}

/// Sleeps while the low half of `word` is `expected`.
pub fn wait_low_half(word: &AtomicU64, expected: u32, at_most: Duration) -> Parked {
    sys::with_low_half(word, |half| wait(half, expected, at_most))
}

/// Wakes every sleeper of the low half of `word`.
pub fn wake_low_half(word: &AtomicU64) -> usize {
    sys::with_low_half(word, |half| wake(half, u32::MAX))
}
