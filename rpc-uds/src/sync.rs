//! The one place that knows whether the crate runs for real or inside a loom model.

#[cfg(loom)]
pub(crate) use loom::sync::{Arc, Condvar, Mutex, MutexGuard};
#[cfg(not(loom))]
pub(crate) use std::sync::{Arc, Condvar, Mutex, MutexGuard};

/// Atomics of the state machines that are modelled.
pub(crate) mod atomic {
    #[cfg(loom)]
    pub(crate) use loom::sync::atomic::{AtomicUsize, Ordering};
    #[cfg(not(loom))]
    pub(crate) use std::sync::atomic::{AtomicUsize, Ordering};
}

use std::sync::PoisonError;
use std::time::Instant;

/// A panic under one of these locks leaves nothing half done that the next holder could not see.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sleeps until notified, for no reason, or at the deadline.
#[cfg(not(loom))]
pub(crate) fn sleep<'a, T>(
    condvar: &Condvar,
    guard: MutexGuard<'a, T>,
    deadline: Option<Instant>,
) -> MutexGuard<'a, T> {
    let Some(deadline) = deadline else {
        return condvar.wait(guard).unwrap_or_else(PoisonError::into_inner);
    };
    let left = deadline.saturating_duration_since(Instant::now());
    condvar.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0
}

/// Time does not pass in a model: without a deadline a sleep ends by a notification alone, with one
/// it lets others run and is over.
#[cfg(loom)]
pub(crate) fn sleep<'a, T>(
    condvar: &Condvar,
    guard: MutexGuard<'a, T>,
    deadline: Option<Instant>,
) -> MutexGuard<'a, T> {
    if deadline.is_none() {
        return condvar.wait(guard).unwrap_or_else(PoisonError::into_inner);
    }
    // The mutex behind a guard cannot be had from it: waiters with a deadline are modelled by the
    // desk itself, which lets go of its state around `loom::thread::yield_now`.
    guard
}
