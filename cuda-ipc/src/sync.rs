//! Locks that a panic does not poison.

pub(crate) use std::sync::Mutex;
use std::sync::{MutexGuard, PoisonError};

/// What they guard is whole between any two statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
