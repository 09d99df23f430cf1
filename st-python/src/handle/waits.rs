//! Calls that may have to wait, and closing, which waits for them.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use shared_tensor::stream::Wait;

use super::Handle;
use crate::patience::Patience;

/// Frames from this size on are copied while other Python threads run.
const DETACH_BYTES_MIN: usize = 256 << 10;

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

    /// Whether copying a frame takes less time than letting other Python threads run.
    pub(crate) fn is_quick_to_copy(&self) -> bool {
        self.frames.bytes() < DETACH_BYTES_MIN
    }

    /// Does `work`, which is tried once before other Python threads are let run, if it `is_quick` unless
    /// it has to wait: most calls need no more. To wait like that would be a deadlock, as it may be for
    /// one of those threads.
    pub(crate) fn run<T: Send>(
        &self,
        py: Python<'_>,
        patience: Patience,
        is_quick: bool,
        mut work: impl FnMut(&Wait<'_>) -> shared_tensor::Result<T> + Send,
    ) -> PyResult<T> {
        if is_quick && let Some(outcome) = Patience::try_short(&self.name, &self.closed, &mut work)
        {
            return outcome;
        }
        let _waiting = self.waiting();
        patience.run(py, &self.name, &self.closed, work)
    }

    /// Waits until no call of this handle waits any more.
    pub(super) fn await_waits(&self, patience: Patience) -> bool {
        let Some(waits) = self.waits.get() else { return true };
        let until = patience.deadline();
        let mut count = waits.count();
        while *count > 0 {
            if until.is_some_and(|until| Instant::now() >= until) {
                return false;
            }
            // Again and again: who looked at the flag just before it was set may fall asleep after a
            // nudge.
            if let Some(inner) = self.open.load_full() {
                inner.stream.nudge();
            }
            let slice = Duration::from_millis(2);
            count =
                waits.ended.wait_timeout(count, slice).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}
