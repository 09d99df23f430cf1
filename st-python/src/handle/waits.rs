//! Calls that wait, and what ends them.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pyo3::prelude::*;

use super::{Handle, Inner};
use crate::patience::Patience;

/// Calls that wait, so that closing can wait for them in its turn.
#[derive(Debug, Default)]
pub(super) struct Waits {
    going_on: Mutex<u32>,
    ended: Condvar,
}

/// One call that waits.
pub(crate) struct Waiting<'a>(&'a Waits);

impl Waits {
    fn count(&self) -> MutexGuard<'_, u32> {
        self.going_on.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        *self.0.count() -= 1;
        self.0.ended.notify_all();
    }
}

impl Handle {
    /// Announces a wait, until the value is dropped.
    pub(crate) fn waiting(&self) -> Waiting<'_> {
        let waits = self.waits.get_or_init(Waits::default);
        *waits.count() += 1;
        Waiting(waits)
    }

    /// Waits until no call of this handle waits any more.
    pub(super) fn await_waits(&self, inner: &Inner, patience: Patience) -> bool {
        let Some(waits) = self.waits.get() else { return true };
        let until = patience.deadline();
        let mut count = waits.count();
        while *count > 0 {
            if until.is_some_and(|until| Instant::now() >= until) {
                return false;
            }
            // Again and again: who looked at the flag just before it was set may fall asleep after a
            // nudge.
            inner.stream.nudge();
            let slice = Duration::from_millis(2);
            count =
                waits.ended.wait_timeout(count, slice).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

#[pymethods]
impl Handle {
    /// Wakes every wait of this handle, which looks at its interrupts and goes on.
    fn interrupt(&self) -> PyResult<()> {
        self.live()?.stream.nudge();
        Ok(())
    }
}
