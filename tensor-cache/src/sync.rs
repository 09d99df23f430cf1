//! The one place that knows whether the crate runs on real threads or inside a loom model.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

#[cfg(loom)]
pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard};
#[cfg(not(loom))]
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};

/// For keys that users give, and perhaps strangers choose: hashed with a secret.
#[cfg(not(loom))]
pub(crate) type KeyMap<K, V> = std::collections::HashMap<K, V>;
/// A model must do the same in every run, so its maps have one order.
#[cfg(loom)]
pub(crate) type KeyMap<K, V> = std::collections::HashMap<
    K,
    V,
    std::hash::BuildHasherDefault<std::collections::hash_map::DefaultHasher>,
>;

/// For the numbers that this crate gives out.
pub(crate) type NumberMap<K, V> =
    std::collections::HashMap<K, V, std::hash::BuildHasherDefault<crate::number_hash::NumberHash>>;

/// Takes the lock. Nothing that panics under it leaves the state half changed, but for the caller's
/// own key type, so a panic elsewhere is no reason to fail here.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sleeps until woken, and `at_most` so long. Time does not pass in a model.
pub(crate) fn wait<'a, T>(
    condvar: &Condvar,
    guard: MutexGuard<'a, T>,
    at_most: Option<Duration>,
) -> MutexGuard<'a, T> {
    match at_most {
        #[cfg(not(loom))]
        Some(at_most) => {
            condvar.wait_timeout(guard, at_most).unwrap_or_else(PoisonError::into_inner).0
        }
        _ => condvar.wait(guard).unwrap_or_else(PoisonError::into_inner),
    }
}

/// Nanoseconds since the clock was made.
#[derive(Debug)]
pub(crate) struct Clock(#[cfg(not(loom))] std::time::Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(
            #[cfg(not(loom))]
            std::time::Instant::now(),
        )
    }

    #[cfg(not(loom))]
    pub(crate) fn now(&self) -> u64 {
        // 584 years fit.
        self.0.elapsed().as_nanos() as u64
    }

    #[cfg(loom)]
    #[expect(clippy::unused_self, reason = "the real clock has a start")]
    pub(crate) fn now(&self) -> u64 {
        0
    }
}

pub(crate) fn next_actor() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

#[cfg(not(loom))]
pub(crate) fn this_thread() -> u64 {
    thread_local! {
        static NUMBER: u64 = next_actor();
    }
    NUMBER.with(|number| *number)
}

#[cfg(loom)]
pub(crate) fn this_thread() -> u64 {
    loom::thread_local! {
        static NUMBER: u64 = next_actor();
    }
    NUMBER.with(|number| *number)
}
