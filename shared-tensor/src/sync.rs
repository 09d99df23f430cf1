//! The atomics of the protocol: the standard library's, or loom's under `--cfg loom`.

pub(crate) use shm_lock::sync::atomic::{AtomicU64, Ordering, fence};

/// Lets somebody else run.
pub(crate) fn yield_now() {
    #[cfg(not(loom))]
    std::thread::yield_now();
    #[cfg(loom)]
    loom::thread::yield_now();
}
