//! Python's garbage collector, while objects are made by the thousand.
//!
//! They would set off full collections over everything that the process holds, some 100 ms with a large
//! library loaded. No collection is lost: it comes when the caller makes its next object, and only if
//! what was made is still there.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// How many are at work, and whether the last to end turns the collector on again.
struct Pauses {
    count: usize,
    is_to_resume: bool,
}

static PAUSES: Mutex<Pauses> = Mutex::new(Pauses { count: 0, is_to_resume: false });

fn pauses() -> MutexGuard<'static, Pauses> {
    PAUSES.lock().unwrap_or_else(PoisonError::into_inner)
}

fn begin(py: Python<'_>) -> PyResult<()> {
    let mut pauses = pauses();
    if pauses.count == 0 {
        pauses.is_to_resume = collector(py)?.call_method0(intern!(py, "isenabled"))?.is_truthy()?;
        if pauses.is_to_resume {
            collector(py)?.call_method0(intern!(py, "disable"))?;
        }
    }
    pauses.count += 1;
    Ok(())
}

fn end(py: Python<'_>) -> PyResult<()> {
    let mut pauses = pauses();
    pauses.count -= 1;
    if pauses.count == 0 && pauses.is_to_resume {
        collector(py)?.call_method0(intern!(py, "enable"))?;
    }
    Ok(())
}

/// Runs `work` without collections, which are then as they were. Of several at once, the last to end
/// turns them on again.
pub(crate) fn paused<T>(py: Python<'_>, work: impl FnOnce() -> PyResult<T>) -> PyResult<T> {
    begin(py)?;
    let _until_the_end = Pause { py };
    work()
}

/// Ends with its value, also by a panic.
struct Pause<'py> {
    py: Python<'py>,
}

impl Drop for Pause<'_> {
    fn drop(&mut self) {
        if let Err(error) = end(self.py) {
            error.write_unraisable(self.py, None);
        }
    }
}

fn collector(py: Python<'_>) -> PyResult<&Bound<'_, PyModule>> {
    static COLLECTOR: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let module = COLLECTOR.get_or_try_init(py, || PyResult::Ok(py.import("gc")?.unbind()))?;
    Ok(module.bind(py))
}
