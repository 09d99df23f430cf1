//! Who is inside, and whether more may enter.
//!
//! Whether the gate is closed and how many are inside is one word, so that each step is one atomic
//! operation in one order: whoever enters either is counted before the closing, and waited for, or
//! sees it. Only the last one to leave a closed gate takes the mutex.

use std::time::Instant;

use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Arc, Condvar, Mutex, lock, sleep};

const CLOSED: usize = 1 << (usize::BITS - 1);

/// Counts requests in progress, and stops new ones.
#[derive(Debug)]
pub(crate) struct Gate {
    /// `CLOSED`, and how many passes there are.
    word: AtomicUsize,
    is_empty: Mutex<bool>,
    emptied: Condvar,
}

/// Being inside.
#[derive(Debug)]
pub(crate) struct Pass(Arc<Gate>);

impl Gate {
    pub(crate) fn new() -> Self {
        Self { word: AtomicUsize::new(0), is_empty: Mutex::new(false), emptied: Condvar::new() }
    }

    /// `None` once the gate is closed.
    pub(crate) fn enter(gate: &Arc<Self>) -> Option<Pass> {
        let before = if cfg!(st_mutant = "gate_looks_first") {
            let seen = gate.word.load(Ordering::Acquire);
            if seen & CLOSED == 0 {
                gate.word.fetch_add(1, Ordering::AcqRel);
            }
            seen
        } else {
            gate.word.fetch_add(1, Ordering::AcqRel)
        };
        if before & CLOSED == 0 {
            return Some(Pass(Arc::clone(gate)));
        }
        if !cfg!(st_mutant = "gate_looks_first") {
            gate.leave();
        }
        None
    }

    /// Nobody enters any more.
    pub(crate) fn close(&self) {
        // SYNC: gate. What was done inside is seen by whoever finds the closed gate empty.
        if self.word.fetch_or(CLOSED, Ordering::AcqRel) & !CLOSED == 0 {
            *lock(&self.is_empty) = true;
            self.emptied.notify_all();
        }
    }

    /// Waits until nobody is inside a closed gate; `false` at the deadline.
    pub(crate) fn wait_until_empty(&self, deadline: Option<Instant>) -> bool {
        let mut is_empty = lock(&self.is_empty);
        while !*is_empty {
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return false;
            }
            is_empty = sleep(&self.emptied, is_empty, deadline);
        }
        true
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.word.load(Ordering::Relaxed) & CLOSED != 0
    }

    /// How many are inside.
    pub(crate) fn inside(&self) -> usize {
        self.word.load(Ordering::Relaxed) & !CLOSED
    }

    fn leave(&self) {
        let ordering = if cfg!(st_mutant = "gate_left_relaxed") {
            Ordering::Relaxed
        } else {
            Ordering::AcqRel
        };
        // SYNC: gate
        if self.word.fetch_sub(1, ordering) == CLOSED | 1 {
            *lock(&self.is_empty) = true;
            if !cfg!(st_mutant = "gate_emptied_silently") {
                self.emptied.notify_all();
            }
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.0.leave();
    }
}
