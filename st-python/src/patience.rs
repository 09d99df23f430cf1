//! How long a call waits, and what ends its wait early: a signal, or the handle being closed.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use shared_tensor::lock::process_token;
use shared_tensor::stream::Wait;
use shared_tensor::{Error, ErrorKind};

use crate::errors::{self, EmptyStreamError};

/// The deadline of one call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    deadline: Option<Instant>,
    is_none: bool,
}

impl Patience {
    /// Waits for ever.
    pub(crate) fn endless() -> Self {
        Self { deadline: None, is_none: false }
    }

    /// `None` waits for ever; seconds otherwise.
    #[inline]
    pub(crate) fn of(timeout: Option<f64>) -> PyResult<Self> {
        match timeout {
            None => Ok(Self::endless()),
            Some(seconds) => Self::of_seconds(seconds),
        }
    }

    fn of_seconds(seconds: f64) -> PyResult<Self> {
        if !seconds.is_finite() || seconds < 0.0 {
            return Err(PyValueError::new_err(format!(
                "timeout must be None or a finite number of seconds that is not negative, got \
                 {seconds}"
            )));
        }
        Ok(Self::seconds(seconds))
    }

    /// As [`of`](Self::of), but a negative number means one try.
    pub(crate) fn at_least_one_try(timeout: Option<f64>) -> PyResult<Self> {
        Self::of(timeout.map(|seconds| if seconds < 0.0 { 0.0 } else { seconds }))
    }

    /// A length of time; left out, as long as the clock can say.
    pub(crate) fn duration(seconds: Option<f64>) -> PyResult<Duration> {
        Self::of(seconds)?;
        Ok(seconds.map_or(Duration::MAX, |seconds| {
            Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
        }))
    }

    fn seconds(seconds: f64) -> Self {
        // What the clock cannot say is for ever.
        let time = Duration::try_from_secs_f64(seconds).ok();
        let deadline = time.and_then(|time| Instant::now().checked_add(time));
        Self { deadline, is_none: false }
    }

    /// One try.
    pub(crate) fn none() -> Self {
        Self { deadline: None, is_none: true }
    }

    pub(crate) fn deadline(self) -> Option<Instant> {
        self.deadline
    }

    pub(crate) fn is_endless(self) -> bool {
        self.deadline.is_none() && !self.is_none
    }

    /// Runs `work` without holding up other Python threads. It ends early when a signal handler
    /// raises (on the main thread, where Python runs them) or when `closed` is set.
    pub(crate) fn run<T: Send>(
        self,
        py: Python<'_>,
        name: &str,
        closed: &AtomicBool,
        work: impl FnOnce(&Wait<'_>) -> shared_tensor::Result<T> + Send,
    ) -> PyResult<T> {
        let is_closed = || closed.load(Ordering::Acquire);
        let (outcome, raised) = py.detach(|| self.attempt(is_closed, work));
        finish(outcome, raised, name)
    }

    /// As [`run`](Self::run) for work on several handles, each with a flag of its own.
    pub(crate) fn run_unless<T: Send>(
        self,
        py: Python<'_>,
        names: &str,
        closed: &[Arc<AtomicBool>],
        work: impl FnOnce(&Wait<'_>) -> shared_tensor::Result<T> + Send,
    ) -> PyResult<T> {
        let is_closed = || closed.iter().any(|closed| closed.load(Ordering::Acquire));
        let (outcome, raised) = py.detach(|| self.attempt(is_closed, work));
        finish(outcome, raised, names)
    }

    /// One try of work that is short unless it has to wait: other threads stand still meanwhile, which
    /// is cheaper than letting them go and calling them back. `None`: it has to wait.
    pub(crate) fn try_short<T>(
        name: &str,
        closed: &AtomicBool,
        work: impl FnOnce(&Wait<'_>) -> shared_tensor::Result<T>,
    ) -> Option<PyResult<T>> {
        let is_closed = || closed.load(Ordering::Acquire);
        match Self::none().attempt(is_closed, work) {
            // Seen here, where it costs nothing: a Python exception that nobody sees would be made.
            (Err(error), None) if error.is_timeout() => None,
            (outcome, raised) => Some(finish(outcome, raised, name)),
        }
    }

    fn attempt<T>(
        self,
        closed: impl Fn() -> bool,
        work: impl FnOnce(&Wait<'_>) -> shared_tensor::Result<T>,
    ) -> (shared_tensor::Result<T>, Option<PyErr>) {
        let signals = Signals::default();
        // The first question comes before the first sleep: signals were looked for when the call
        // began, and another look would cost as much as the call.
        let is_first = Cell::new(true);
        let interrupted = || {
            if closed() {
                return true;
            }
            if is_first.replace(false) || !is_main_thread() {
                return false;
            }
            signals.have_raised()
        };
        let wait = match self.deadline {
            _ if self.is_none => Wait::never(),
            Some(deadline) => Wait::until(deadline),
            None => Wait::forever(),
        };
        let outcome = work(&wait.interruptible(&interrupted));
        (outcome, signals.into_raised())
    }
}

/// What the handler of a signal raised while the main thread waited.
#[derive(Debug, Default)]
pub(crate) struct Signals(Mutex<Option<PyErr>>);

impl Signals {
    /// Runs the handlers of signals that have come. Once one has raised the answer stays the same, as whoever
    /// asked first may have gone on to something else.
    pub(crate) fn have_raised(&self) -> bool {
        let mut raised = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if raised.is_none() {
            // A finalizer may wait when the interpreter is already gone, and its signals with it.
            *raised = Python::try_attach(|py| py.check_signals().err()).flatten();
        }
        raised.is_some()
    }

    pub(crate) fn into_raised(self) -> Option<PyErr> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

fn finish<T>(outcome: shared_tensor::Result<T>, raised: Option<PyErr>, name: &str) -> PyResult<T> {
    // Also if what was waited for came at that moment: what a handler raises is never lost.
    match raised {
        Some(raised) => Err(raised),
        None => outcome.map_err(|error| explain(&error, name)),
    }
}

#[cold]
fn explain(error: &Error, name: &str) -> PyErr {
    if error.kind() == ErrorKind::Empty {
        return EmptyStreamError::new_err(format!(
            "stream '{name}' has published nothing yet: wait for its first frame with \
             next(timeout=...), or open the stream with on_empty='zeros'"
        ));
    }
    if error.kind() == ErrorKind::Interrupted {
        return PyRuntimeError::new_err(format!(
            "stream '{name}' was closed while a read was waiting: open it again"
        ));
    }
    errors::raised(error)
}

/// Whether Python runs signal handlers on this thread, as far as the kernel's numbers tell.
pub(crate) fn is_main_thread() -> bool {
    thread_local! {
        /// What was found, and by which process: the thread that forks is its child's main thread.
        static IS_MAIN: Cell<(u64, bool)> = const { Cell::new((0, false)) };
    }
    let process = process_token();
    IS_MAIN.with(|known| match known.get() {
        (of, is_main) if of == process => is_main,
        _ => {
            let is_main = rustix::thread::gettid() == rustix::process::getpid();
            known.set((process, is_main));
            is_main
        }
    })
}
