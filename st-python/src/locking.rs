//! Holding a stream's lock from Python.

use std::ffi::CStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyTuple};
use shared_tensor::lock::process_token;
use shared_tensor::stream::Writer;

use crate::errors;
use crate::handle::Handle;
use crate::ownership::{NotOwner, ThreadEnds, ThreadId};
use crate::patience::Patience;
use crate::sys::lanes::{self, Given, Lane};

impl Handle {
    /// Takes the lock for this thread, or takes it once more if it may.
    pub(crate) fn take_lock(
        &self,
        py: Python<'_>,
        patience: Patience,
        reentrant: bool,
    ) -> PyResult<()> {
        let inner = self.writable("lock")?;
        let again = self.ownership.with_mine(|tenure| {
            if reentrant {
                tenure.through.push(self.id);
            }
        });
        match again {
            Some(()) if reentrant => return Ok(()),
            Some(()) => {
                return Err(PyRuntimeError::new_err(format!(
                    "stream '{}': this thread owns the lock already; write under it, or leave its \
                     scope first",
                    self.name
                )));
            }
            None => {}
        }
        // Mostly it is free: to try before anything is made ready for a wait takes half the time.
        let locked = match inner.writer_if_made().and_then(Writer::lock_owned_if_free) {
            Some(locked) => locked,
            // A writer of memory of the host begins to populate its pages; there may be none.
            None if !self.is_written_by_host() => {
                self.run(py, patience, true, |wait| inner.stream.lock_owned(wait))?
            }
            None => self.run(py, patience, true, |wait| inner.writer()?.lock_owned(wait))?,
        };
        self.ownership.begin(locked, self.id).map_err(|ThreadEnds| {
            PyRuntimeError::new_err(format!(
                "stream '{}': this thread is ending, and would not give the lock back; take it \
                 before the thread's last destructors run",
                self.name
            ))
        })?;
        if self.closed.load(Ordering::Acquire) {
            // Who closes has looked for owners already, and waits only for this wait.
            let _ = self.ownership.release(self.id);
            return Err(errors::closed(&self.name));
        }
        Ok(())
    }

    /// The error of a release that was not the caller's to make.
    fn not_owner(&self, why: NotOwner) -> PyErr {
        PyRuntimeError::new_err(match why {
            NotOwner::Nobody => {
                format!("cannot release stream '{}': it is unlocked in this process", self.name)
            }
            NotOwner::AnotherThread => format!(
                "cannot release stream '{}': another thread of this process owns the lock",
                self.name
            ),
        })
    }
}

#[pymethods]
impl Handle {
    /// Take the stream's lock for this thread, until ``release``. ``locked`` does both.
    ///
    /// Parameters
    /// ----------
    /// timeout : float, optional
    ///     Seconds to wait. Left out, there is no limit; 0.0 or less tries once.
    /// reentrant : bool
    ///     True takes it once more if this thread holds it already; as many releases are needed.
    ///
    /// Raises
    /// ------
    /// TimeoutError
    ///     Another owner kept the lock; the message names it.
    /// PermissionError
    ///     The handle is read-only.
    /// RuntimeError
    ///     This thread holds the lock already and `reentrant` is False, or the handle is closed.
    #[pyo3(signature = (timeout=None, reentrant=false))]
    fn acquire(&self, py: Python<'_>, timeout: Option<f64>, reentrant: bool) -> PyResult<()> {
        self.take_lock(py, Patience::at_least_one_try(timeout)?, reentrant)
    }

    /// Give the lock back, or undo one of several acquisitions. A frame that is being written is given up.
    ///
    /// Raises
    /// ------
    /// RuntimeError
    ///     This thread does not hold the lock, or the handle is closed.
    fn release(&self) -> PyResult<()> {
        let released = self.ownership.release(self.id);
        if released.is_err() {
            self.live()?;
        }
        released.map_err(|why| self.not_owner(why))
    }

    /// Hold the stream's lock: a context manager whose value is this handle.
    ///
    /// Nobody else writes meanwhile; this thread may, and everybody may read. A holder that dies gives it
    /// up, and the next one repairs what it left.
    ///
    /// Parameters
    /// ----------
    /// timeout : float, optional
    ///     Seconds to wait. Left out, there is no limit; 0.0 or less tries once.
    /// reentrant : bool
    ///     Whether this thread may hold it already.
    ///
    /// Raises
    /// ------
    /// TimeoutError, PermissionError, RuntimeError
    ///     On entry, as of ``acquire``.
    #[pyo3(signature = (timeout=None, reentrant=false))]
    fn locked(slf: Bound<'_, Self>, timeout: Option<f64>, reentrant: bool) -> LockScope {
        LockScope::new(slf.unbind(), None, timeout, reentrant)
    }

    /// How often this thread has acquired the lock and not released it.
    fn lock_depth(&self) -> usize {
        self.ownership.with_mine(|tenure| tenure.through.len()).unwrap_or(0)
    }
}

/// The lock of one stream, held by a scope.
///
/// Scopes are compiled because a signal handler that raises may run between any two steps of Python
/// code: in one written there, after the lock was taken and before anybody knew of it.
#[pyclass(frozen, module = "shared_tensor._native")]
pub(crate) struct LockScope {
    handle: Py<Handle>,
    /// What the block is given, if not the handle.
    value: Option<Py<PyAny>>,
    timeout: Option<f64>,
    reentrant: bool,
    /// The process that entered last: a forked child that leaves has nothing to give back.
    entered_by: AtomicU64,
}

impl LockScope {
    pub(crate) fn new(
        handle: Py<Handle>,
        value: Option<Py<PyAny>>,
        timeout: Option<f64>,
        reentrant: bool,
    ) -> Self {
        Self { handle, value, timeout, reentrant, entered_by: AtomicU64::new(0) }
    }

    fn leave(&self) -> PyResult<()> {
        let handle = self.handle.get();
        match handle.ownership.release(handle.id) {
            // Closing the handle inside the scope has released what was acquired through it.
            Err(_) if handle.is_closed() => Ok(()),
            Err(_) if self.entered_by.load(Ordering::Relaxed) != process_token() => Ok(()),
            released => released.map_err(|why| handle.not_owner(why)),
        }
    }
}

#[pymethods]
impl LockScope {
    fn __enter__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let patience = Patience::at_least_one_try(self.timeout)?;
        self.handle.get().take_lock(py, patience, self.reentrant)?;
        self.entered_by.store(process_token(), Ordering::Relaxed);
        Ok(match &self.value {
            Some(value) => value.clone_ref(py),
            None => self.handle.clone_ref(py).into_any(),
        })
    }

    fn __exit__(
        &self,
        _kind: &Bound<'_, PyAny>,
        _value: &Bound<'_, PyAny>,
        _traceback: &Bound<'_, PyAny>,
    ) -> PyResult<bool> {
        self.leave().map(|()| false)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.handle)?;
        visit.call(&self.value)
    }
}

/// The locks of several streams, held by a scope.
#[pyclass(frozen, module = "shared_tensor._native")]
pub(crate) struct ManyScope {
    handles: Vec<Py<Handle>>,
    /// What the block is given, if not the handles.
    value: Option<Py<PyTuple>>,
    timeout: Option<f64>,
    reentrant: bool,
    /// Who is inside: a scope may be entered by several threads in turn.
    entries: Mutex<Vec<Entry>>,
}

/// One thread inside a scope.
struct Entry {
    thread: ThreadId,
    /// What it holds, in the order in which it was taken.
    held: Vec<usize>,
}

impl ManyScope {
    pub(crate) fn new(
        handles: Vec<Py<Handle>>,
        value: Option<Py<PyTuple>>,
        timeout: Option<f64>,
        reentrant: bool,
    ) -> Self {
        Self { handles, value, timeout, reentrant, entries: Mutex::default() }
    }

    fn give_back(&self, held: &[usize]) {
        for &index in held.iter().rev() {
            let handle = self.handles[index].get();
            let _ = handle.ownership.release(handle.id);
        }
    }
}

#[pymethods]
impl ManyScope {
    fn __enter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let patience = Patience::at_least_one_try(self.timeout)?;
        let mut order: Vec<usize> = (0..self.handles.len()).collect();
        // By name, so that two callers cannot lock each other out.
        order.sort_by_key(|&index| &self.handles[index].get().name);
        let twice = order
            .windows(2)
            .find(|pair| self.handles[pair[0]].get().name == self.handles[pair[1]].get().name);
        if let Some(pair) = twice {
            return Err(PyValueError::new_err(format!(
                "the streams to lock must be unique, got '{}' twice",
                self.handles[pair[0]].get().name
            )));
        }
        let mut held = Vec::with_capacity(order.len());
        for index in order {
            if let Err(error) = self.handles[index].get().take_lock(py, patience, self.reentrant) {
                self.give_back(&held);
                return Err(error);
            }
            held.push(index);
        }
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.push(Entry { thread: ThreadId::current(), held });
        drop(entries);
        if let Some(value) = &self.value {
            return Ok(value.bind(py).clone());
        }
        PyTuple::new(py, self.handles.iter().map(|handle| handle.clone_ref(py)))
    }

    fn __exit__(
        &self,
        _kind: &Bound<'_, PyAny>,
        _value: &Bound<'_, PyAny>,
        _traceback: &Bound<'_, PyAny>,
    ) -> PyResult<bool> {
        let thread = ThreadId::current();
        let held = {
            let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
            let mine = entries.iter().rposition(|entry| entry.thread == thread);
            mine.map(|index| entries.remove(index).held)
        };
        let held = held.ok_or_else(|| {
            PyRuntimeError::new_err("this thread has not entered this scope of locks")
        })?;
        self.give_back(&held);
        Ok(false)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        for handle in &self.handles {
            visit.call(handle)?;
        }
        visit.call(&self.value)
    }
}

pub(crate) fn open_lanes(py: Python<'_>) -> PyResult<()> {
    lanes::open::<Locked>(py)?;
    lanes::open::<Leave>(py)
}

/// `Handle.locked()`.
struct Locked;

impl Lane for Locked {
    type Of = Handle;
    const NAME: &'static CStr = c"locked";
    const PARAMETERS: &'static [&'static str] = &["timeout", "reentrant"];

    lanes::keeps_method!();

    fn call<'py>(
        this: &Bound<'py, Handle>,
        given: &Given<'_, 'py>,
    ) -> Option<PyResult<Bound<'py, PyAny>>> {
        if !given.is_empty() {
            return None;
        }
        let scope = LockScope::new(this.clone().unbind(), None, None, false);
        Some(Bound::new(this.py(), scope).map(Bound::into_any))
    }
}

/// The end of `with handle.locked():`.
struct Leave;

impl Lane for Leave {
    type Of = LockScope;
    const NAME: &'static CStr = c"__exit__";
    const PARAMETERS: &'static [&'static str] = &["_kind", "_value", "_traceback"];

    lanes::keeps_method!();

    fn call<'py>(
        this: &Bound<'py, LockScope>,
        given: &Given<'_, 'py>,
    ) -> Option<PyResult<Bound<'py, PyAny>>> {
        given.each::<3>().filter(|each| each.iter().all(Option::is_some))?;
        Some(this.get().leave().map(|()| PyBool::new(this.py(), false).to_owned().into_any()))
    }
}
