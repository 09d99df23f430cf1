//! Streams by name: listing and removing them; and calls on several handles.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use shared_tensor::stream;

use crate::errors;
use crate::gpu::AnyReader;
use crate::handle::Handle;
use crate::locking::{LockScope, ManyScope};
use crate::options::{self, Whole, namespace};
use crate::patience::Patience;
use crate::report;

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(list_streams, module)?)?;
    module.add_function(wrap_pyfunction!(stat, module)?)?;
    module.add_function(wrap_pyfunction!(unlink, module)?)?;
    module.add_function(wrap_pyfunction!(purge, module)?)?;
    module.add_function(wrap_pyfunction!(wait_any, module)?)?;
    module.add_function(wrap_pyfunction!(lock, module)?)?;
    module.add_function(wrap_pyfunction!(open_view, module)?)?;
    module.add_function(wrap_pyfunction!(lock_many, module)?)
}

/// The names of all streams, sorted.
#[pyfunction]
#[pyo3(signature = (directory=None, prefix=None))]
fn list_streams(
    py: Python<'_>,
    directory: Option<&str>,
    prefix: Option<&str>,
) -> PyResult<Vec<String>> {
    let namespace = namespace(directory, prefix)?;
    py.detach(|| stream::list(&namespace)).map_err(|error| errors::raised(&error))
}

/// What is known about a stream without attaching to it.
#[pyfunction]
#[pyo3(signature = (name, directory=None, prefix=None))]
fn stat<'py>(
    py: Python<'py>,
    name: &Bound<'_, PyAny>,
    directory: Option<&str>,
    prefix: Option<&str>,
) -> PyResult<Bound<'py, PyDict>> {
    let name = &*options::name(name)?;
    let namespace = namespace(directory, prefix)?;
    let info =
        py.detach(|| stream::stat(&namespace, name)).map_err(|error| errors::raised(&error))?;
    report::stat(py, &info)
}

/// Removes a name. False if there was none.
#[pyfunction]
#[pyo3(signature = (name, directory=None, prefix=None))]
fn unlink(
    py: Python<'_>,
    name: &Bound<'_, PyAny>,
    directory: Option<&str>,
    prefix: Option<&str>,
) -> PyResult<bool> {
    let name = &*options::name(name)?;
    let namespace = namespace(directory, prefix)?;
    py.detach(|| stream::unlink(&namespace, name)).map_err(|error| errors::raised(&error))
}

/// Removes all streams, those that somebody has open only if `live`; their names.
#[pyfunction]
#[pyo3(signature = (live, dry_run, directory=None, prefix=None))]
fn purge(
    py: Python<'_>,
    live: bool,
    dry_run: bool,
    directory: Option<&str>,
    prefix: Option<&str>,
) -> PyResult<Vec<String>> {
    let namespace = namespace(directory, prefix)?;
    let mut purged = py
        .detach(|| stream::purge(&namespace, live, dry_run))
        .map_err(|error| errors::raised(&error))?;
    purged.sort();
    Ok(purged)
}

/// Waits until one of the streams has more than as many frames as `afters` says of it, was unlinked
/// or fails; its index.
#[pyfunction]
#[pyo3(signature = (handles, afters, timeout=None))]
#[expect(clippy::needless_pass_by_value, reason = "extracted from Python")]
fn wait_any(
    py: Python<'_>,
    handles: Vec<Bound<'_, Handle>>,
    afters: Vec<Whole<u64>>,
    timeout: Option<f64>,
) -> PyResult<usize> {
    if handles.len() != afters.len() {
        return Err(PyValueError::new_err(format!(
            "{} streams, but {} counts to wait after",
            handles.len(),
            afters.len()
        )));
    }
    let patience = Patience::of(timeout)?;
    let mut readers = Vec::new();
    for (handle, after) in handles.iter().zip(afters) {
        readers.push(handle.get().reader_after(after.0)?);
    }
    let _waiting: Vec<_> = handles.iter().map(|handle| handle.get().waiting()).collect();
    // Any of them may be closed meanwhile: each has a flag, the wait looks at one.
    let closed: Vec<_> = handles.iter().map(|handle| handle.get().closed.clone()).collect();
    let names: Vec<&str> = handles.iter().map(|handle| handle.get().name.as_str()).collect();
    patience.run_unless(py, &names.join("', '"), &closed, |wait| {
        let mut readers: Vec<_> = readers.iter_mut().map(AnyReader::waiting).collect();
        stream::wait_any(&mut readers, wait)
    })
}

/// A context manager that holds the lock of a stream, also if this thread has it already, and whose
/// value is `value`: `Handle.locked` for a layer above the handle.
#[pyfunction]
#[pyo3(signature = (handle, timeout, value))]
fn lock(handle: Py<Handle>, timeout: Option<f64>, value: Py<PyAny>) -> LockScope {
    LockScope::new(handle, Some(value), timeout, true)
}

/// A context manager that holds the locks of several streams. With `value`, that is what the block is
/// given, and this thread may have the locks already.
#[pyfunction]
#[pyo3(signature = (handles, timeout=None, value=None))]
fn lock_many(
    handles: Vec<Py<Handle>>,
    timeout: Option<f64>,
    value: Option<Py<PyTuple>>,
) -> ManyScope {
    let reentrant = value.is_some();
    ManyScope::new(handles, value, timeout, reentrant)
}

/// The array through which this thread is writing a frame of the stream of `handle`, if it is.
#[pyfunction]
fn open_view<'py>(handle: &Bound<'py, Handle>) -> Option<Bound<'py, PyAny>> {
    handle.get().ownership.open_view(handle.py())
}
