//! Calls that may have to wait, and closing, which waits for them.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use shared_tensor::stream::Wait;

use super::Handle;
use crate::ownership::ThreadId;
use crate::patience::Patience;

/// Frames from this size on are copied while other Python threads run.
const DETACH_BYTES_MIN: usize = 256 << 10;

/// Calls that wait, so that closing can wait for them in its turn.
#[derive(Debug, Default)]
pub(super) struct Waits {
    going_on: Mutex<GoingOn>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct GoingOn {
    /// Of each call.
    threads: Vec<ThreadId>,
    /// How many wait for their end. Nearly always nobody does, and nobody is told then: that would be a
    /// system call for every frame.
    awaited_by: usize,
}

/// One call that waits.
pub(crate) struct Waiting<'a> {
    waits: &'a Waits,
    thread: ThreadId,
}

impl Waits {
    fn going_on(&self) -> MutexGuard<'_, GoingOn> {
        self.going_on.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut going_on = self.waits.going_on();
        if let Some(mine) = going_on.threads.iter().position(|thread| *thread == self.thread) {
            going_on.threads.swap_remove(mine);
        }
        let is_awaited = going_on.awaited_by > 0;
        drop(going_on);
        if is_awaited {
            self.waits.ended.notify_all();
        }
    }
}

impl Handle {
    /// Announces a wait, until the value is dropped.
    pub(crate) fn waiting(&self) -> Waiting<'_> {
        let waits = self.waits.get_or_init(Waits::default);
        let thread = ThreadId::current();
        waits.going_on().threads.push(thread);
        Waiting { waits, thread }
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

    /// Waits until no call of this handle waits any more, but for one of the calling thread: that is
    /// the one which a signal handler has interrupted, and it goes on when the handler returns.
    /// `None`: the time is over; a signal handler that raises ends it too.
    pub(super) fn await_waits(&self, patience: Patience) -> PyResult<Option<()>> {
        let Some(waits) = self.waits.get() else { return Ok(Some(())) };
        let me = ThreadId::current();
        let until = patience.deadline();
        let mut going_on = waits.going_on();
        while going_on.threads.iter().any(|thread| *thread != me) {
            if until.is_some_and(|until| Instant::now() >= until) {
                return Ok(None);
            }
            // Again and again: who looked at the flag just before it was set may fall asleep after a
            // nudge.
            if let Some(inner) = self.open.load_full() {
                inner.stream.nudge();
            }
            let slice = Duration::from_millis(2);
            going_on.awaited_by += 1;
            let woken = waits.ended.wait_timeout(going_on, slice);
            woken.unwrap_or_else(PoisonError::into_inner).0.awaited_by -= 1;
            // Other threads' calls end without the mutex held here.
            if let Some(raised) = Python::try_attach(|py| py.check_signals().err()).flatten() {
                return Err(raised);
            }
            going_on = waits.going_on();
        }
        Ok(Some(()))
    }
}
