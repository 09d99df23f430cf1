//! A cell that every process fills for itself: a forked child finds it empty.

use std::convert::Infallible;
use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use super::token::process_token;

/// Holds one `T` per process: a forked child finds the cell empty and fills it for itself.
///
/// For what a process owns behind a lock of its own: a child may inherit that lock in the hands of a
/// thread that does not exist in it. Looking a value up costs some nanoseconds.
///
/// No lock of the standard library would do: a fork taken while another thread holds one leaves
/// the child with a lock that nobody will ever release. Here the claim carries the token of the
/// process that made it, so a child sees that an inherited claim is not its own. What a parent
/// stored is never dropped in a child: it describes the parent.
pub struct PerProcess<T> {
    newest: AtomicPtr<Node<T>>,
    /// The token of the process that is filling the cell, or 0, or that of an ancestor.
    claim: AtomicU64,
    values: PhantomData<T>,
}

struct Node<T> {
    token: u64,
    value: ManuallyDrop<T>,
    older: *mut Node<T>,
}

// SAFETY: the nodes behind the pointer are owned by the cell like a `Vec<T>` (S4).
unsafe impl<T: Send> Send for PerProcess<T> {}
// SAFETY: shared access hands out `&T` (T: Sync) and stores values made by any thread, which the
// thread that drops the cell then drops (T: Send).
unsafe impl<T: Send + Sync> Sync for PerProcess<T> {}

impl<T> PerProcess<T> {
    /// A cell that no process has filled.
    pub const fn new() -> Self {
        Self {
            newest: AtomicPtr::new(ptr::null_mut()),
            claim: AtomicU64::new(0),
            values: PhantomData,
        }
    }

    /// The value of this process.
    #[inline]
    pub fn get(&self) -> Option<&T> {
        self.value_of(process_token())
    }

    /// The value of this process, made by `make` if there is none yet. Other threads wait.
    #[inline]
    pub fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        let Ok(value) = self.get_or_try_init(|| Ok::<_, Infallible>(make()));
        value
    }

    /// As [`get_or_init`](Self::get_or_init), for what may fail; a failure leaves the cell empty.
    ///
    /// # Errors
    /// Those of `make`.
    #[inline]
    pub fn get_or_try_init<E>(&self, make: impl FnOnce() -> Result<T, E>) -> Result<&T, E> {
        let token = process_token();
        self.value_of(token).map_or_else(|| self.fill(token, make), Ok)
    }

    #[cold]
    fn fill<E>(&self, token: u64, make: impl FnOnce() -> Result<T, E>) -> Result<&T, E> {
        loop {
            if let Some(value) = self.value_of(token) {
                return Ok(value);
            }
            let holder = self.claim.load(Ordering::Relaxed);
            if holder != token
                && self
                    .claim
                    .compare_exchange(holder, token, Ordering::Acquire, Ordering::Relaxed)
                    .is_ok()
            {
                break;
            }
            // Filling takes microseconds and happens once per process.
            std::thread::yield_now();
        }
        let _unclaim = Unclaim(&self.claim);
        if let Some(value) = self.value_of(token) {
            return Ok(value);
        }
        let value = ManuallyDrop::new(make()?);
        let older = self.newest.load(Ordering::Relaxed);
        let node = Box::into_raw(Box::new(Node { token, value, older }));
        self.newest.store(node, Ordering::Release);
        // SAFETY: S4, linked just now and freed only with `self`.
        Ok(unsafe { &(*node).value })
    }

    #[inline]
    fn value_of(&self, token: u64) -> Option<&T> {
        let newest = self.newest.load(Ordering::Acquire);
        if newest.is_null() {
            return None;
        }
        // SAFETY: S4, a linked node lives and does not change while `self` does.
        let node = unsafe { &*newest };
        (node.token == token).then_some(&*node.value)
    }
}

struct Unclaim<'a>(&'a AtomicU64);

impl Drop for Unclaim<'_> {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Release);
    }
}

impl<T> Drop for PerProcess<T> {
    fn drop(&mut self) {
        let token = process_token();
        let mut next = *self.newest.get_mut();
        while !next.is_null() {
            // SAFETY: S4, made by `Box::into_raw`, and `&mut self` excludes every borrow.
            let mut node = unsafe { Box::from_raw(next) };
            next = node.older;
            if node.token == token {
                // SAFETY: the node is ours alone and is freed at the end of this turn.
                unsafe { ManuallyDrop::drop(&mut node.value) };
            }
        }
    }
}

impl<T> Default for PerProcess<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: fmt::Debug> fmt::Debug for PerProcess<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PerProcess").field(&self.get()).finish()
    }
}
