//! The one place that knows whether the crate runs on real memory or inside a loom model.
//!
//! Every atomic that lives in shared memory and every sleep on such a word comes from here. Under
//! `--cfg loom` they are loom's atomics and a modelled futex, so that the models run the very
//! files that are shipped.

/// The atomics of the protocol words.
pub mod atomic {
    #[cfg(loom)]
    pub use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
    #[cfg(not(loom))]
    pub use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
}

#[cfg(not(loom))]
#[path = "sync/futex.rs"]
pub mod futex;

#[cfg(loom)]
#[path = "sync/modelled_futex.rs"]
pub mod futex;

/// Lets the processor, or the model, run somebody else.
pub fn relax() {
    #[cfg(loom)]
    loom::thread::yield_now();
    #[cfg(not(loom))]
    std::hint::spin_loop();
}
