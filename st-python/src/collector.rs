//! Python's garbage collector, while objects are made by the thousand.
//!
//! They would set off full collections over everything that the process holds, some 100 ms with a large
//! library loaded. No collection is lost: it comes when the caller makes its next object, and only if
//! what was made is still there.

use std::cell::Cell;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::sync::{MutexExt as _, PyOnceLock};
use pyo3::types::PyDict;

/// Threads that are always at work would keep the collector off for ever: after this long the next one
/// to end lets it in, whoever else is at work.
const OFF_MAX: Duration = Duration::from_millis(100);

/// How many are at work, and since when the collector waits for them; `None` if it does not, or was off
/// before.
struct Pauses {
    count: usize,
    since: Option<Instant>,
}

static PAUSES: Mutex<Pauses> = Mutex::new(Pauses { count: 0, since: None });

thread_local! {
    /// How many of them are this thread's.
    static OWN: Cell<usize> = const { Cell::new(0) };
}

/// Functions of the module `gc`. They are found before the lock is taken: who holds it must not let go of
/// the interpreter, which looking them up for the first time does.
struct Collector {
    is_enabled: Py<PyAny>,
    disable: Py<PyAny>,
    enable: Py<PyAny>,
}

fn collector(py: Python<'_>) -> PyResult<&Collector> {
    static COLLECTOR: PyOnceLock<Collector> = PyOnceLock::new();
    COLLECTOR.get_or_try_init(py, || {
        let module = py.import("gc")?;
        let function = |name: &str| PyResult::Ok(module.getattr(name)?.unbind());
        let (is_enabled, disable) = (function("isenabled")?, function("disable")?);
        Ok(Collector { is_enabled, disable, enable: function("enable")? })
    })
}

fn pauses(py: Python<'_>) -> MutexGuard<'static, Pauses> {
    PAUSES.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner)
}

fn begin(py: Python<'_>) -> PyResult<()> {
    let collector = collector(py)?;
    let mut pauses = pauses(py);
    if collector.is_enabled.call0(py)?.is_truthy(py)? {
        collector.disable.call0(py)?;
        pauses.since = Some(Instant::now());
    }
    pauses.count += 1;
    OWN.set(OWN.get() + 1);
    Ok(())
}

fn end(py: Python<'_>) -> PyResult<()> {
    let collector = collector(py)?;
    let mut pauses = pauses(py);
    pauses.count -= 1;
    OWN.set(OWN.get() - 1);
    let is_last = pauses.count == 0;
    if pauses.since.take_if(|since| is_last || since.elapsed() > OFF_MAX).is_some() {
        collector.enable.call0(py)?;
    }
    Ok(())
}

/// In a forked child, the threads that were at work are gone; the one that forked may be.
#[pyfunction]
fn after_fork(py: Python<'_>) -> PyResult<()> {
    let collector = collector(py)?;
    let mut pauses = pauses(py);
    pauses.count = OWN.get();
    if pauses.count == 0 && pauses.since.take().is_some() {
        collector.enable.call0(py)?;
    }
    Ok(())
}

/// Call a function without collections, which are then as they were.
///
/// Of several at once, the last to end turns them on again; or, when they have been off for a tenth of
/// a second, the next.
#[pyfunction]
fn without_collections(work: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
    paused(work.py(), || Ok(work.call0()?.unbind()))
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let keywords = PyDict::new(module.py());
    keywords.set_item("after_in_child", wrap_pyfunction!(after_fork, module)?)?;
    module.py().import("os")?.call_method("register_at_fork", (), Some(&keywords))?;
    module.add_function(wrap_pyfunction!(without_collections, module)?)
}

/// Runs `work` without collections, as [`without_collections`] does.
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
