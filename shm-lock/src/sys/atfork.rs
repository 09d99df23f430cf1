//! Keeping a description to ourselves although other threads may fork.
//!
//! Between opening a description and closing its descriptor, a fork gives the child a share of it
//! that lasts as long as the child: a lock on it would outlive its owner. So the time is watched,
//! and what was done while a fork began is undone and tried again.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

static REGISTERED: AtomicBool = AtomicBool::new(false);
static BEGUN: AtomicU64 = AtomicU64::new(0);
static ENDED: AtomicU64 = AtomicU64::new(0);
/// Threads that have decided to close a descriptor and have not closed it yet.
static CLOSING: AtomicU64 = AtomicU64::new(0);

extern "C" fn before() {
    BEGUN.fetch_add(1, Ordering::SeqCst);
    // One system call of another thread, at the longest: that thread either sees BEGUN changed and
    // keeps its descriptor, or was counted before and is waited for. Not for ever: it may be this
    // very thread, forking in a signal handler.
    for _ in 0..10_000 {
        if CLOSING.load(Ordering::SeqCst) == 0 {
            return;
        }
        std::thread::yield_now();
    }
}

extern "C" fn after_in_parent() {
    ENDED.fetch_add(1, Ordering::SeqCst);
}

extern "C" fn after_in_child() {
    // The threads that might have been counting do not exist here.
    ENDED.store(BEGUN.load(Ordering::SeqCst), Ordering::SeqCst);
    CLOSING.store(0, Ordering::SeqCst);
}

/// A time during which no fork should happen.
pub(crate) struct Forks {
    begun: u64,
}

impl Forks {
    /// Starts watching, at a moment when no fork is under way.
    pub(crate) fn watch() -> Self {
        register();
        // A fork takes microseconds to milliseconds. Should one never end (a handler of another
        // library that hangs), going on is better than hanging with it.
        for _ in 0..1000 {
            let ended = ENDED.load(Ordering::SeqCst);
            let begun = BEGUN.load(Ordering::SeqCst);
            if ended >= begun {
                return Self { begun };
            }
            std::thread::yield_now();
        }
        Self { begun: BEGUN.load(Ordering::SeqCst) }
    }

    /// Closes `file`, unless a fork has begun since: then a child may share its description, and
    /// the caller gets it back to undo what was done through it.
    pub(crate) fn close_unshared(&self, file: OwnedFd) -> Result<(), OwnedFd> {
        CLOSING.fetch_add(1, Ordering::SeqCst);
        let unshared = BEGUN.load(Ordering::SeqCst) == self.begun;
        let outcome = if unshared {
            drop(file);
            Ok(())
        } else {
            Err(file)
        };
        CLOSING.fetch_sub(1, Ordering::SeqCst);
        outcome
    }
}

fn register() {
    if REGISTERED.load(Ordering::Acquire) {
        return;
    }
    // Two threads may both get here: the handlers then run twice, which changes nothing.
    // SAFETY: the handlers call nothing but atomics and live as long as the program.
    let registered =
        unsafe { libc::pthread_atfork(Some(before), Some(after_in_parent), Some(after_in_child)) };
    if registered == 0 {
        REGISTERED.store(true, Ordering::Release);
    }
}
