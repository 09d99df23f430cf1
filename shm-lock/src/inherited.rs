//! A mutex that a forked child can lock, whatever the threads of its parent were at.

use std::fmt;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use crate::sys::PerProcess;

/// A mutex whose value a forked child inherits, unless a thread of the parent held it at the fork: then
/// nobody would ever release it, the value may be half changed, and the child gets another one.
///
/// For values that a child can do with and without. What no child is to inherit belongs into a
/// [`PerProcess`]. Poisoning is passed over.
pub struct InheritedMutex<T> {
    /// Always there but within `drop`.
    inherited: Option<Mutex<T>>,
    /// Decided by each process when it first looks: `None` if what it inherited was free.
    own: PerProcess<Option<Mutex<T>>>,
}

impl<T> InheritedMutex<T> {
    /// A mutex over `value`.
    pub const fn new(value: T) -> Self {
        Self { inherited: Some(Mutex::new(value)), own: PerProcess::new() }
    }

    /// Waits for the value of this process, which is made by `anew` if what it inherited is lost.
    pub fn lock(&self, anew: impl FnOnce() -> T) -> MutexGuard<'_, T> {
        let own = self.own.get_or_init(|| self.is_lost().then(|| Mutex::new(anew())));
        let mutex = own.as_ref().or(self.inherited.as_ref()).expect("there until it is dropped");
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Before any thread of this process has locked it.
    fn is_lost(&self) -> bool {
        let inherited = self.inherited.as_ref();
        inherited.is_some_and(|it| matches!(it.try_lock(), Err(TryLockError::WouldBlock)))
    }
}

impl<T> Drop for InheritedMutex<T> {
    fn drop(&mut self) {
        let is_lost = self.own.get().map_or_else(|| self.is_lost(), Option::is_some);
        if is_lost {
            // It may be half changed.
            mem::forget(self.inherited.take());
        }
    }
}

impl<T> fmt::Debug for InheritedMutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InheritedMutex").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_its_own_process_it_is_a_mutex() {
        let mutex = InheritedMutex::new(1);
        *mutex.lock(|| unreachable!("nothing is lost")) += 1;
        assert_eq!(*mutex.lock(|| unreachable!("nothing is lost")), 2);
    }

    #[test]
    fn what_was_held_at_the_fork_is_replaced() {
        // What a child finds: a lock held by nobody of its own, before its first look.
        let mutex = InheritedMutex::new(vec![1]);
        mem::forget(mutex.inherited.as_ref().expect("it is there").lock());
        mutex.lock(|| vec![2]).push(3);
        assert_eq!(*mutex.lock(Vec::new), [2, 3]);
    }
}
