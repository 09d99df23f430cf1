//! Writing: a frame copied in, or filled in place.

use std::ffi::CStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use numpy::PyUntypedArray;
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyMemoryView};
use shared_tensor::stream::{Contents, METADATA_BYTES, Stamp};

use crate::errors;
use crate::gpu::{self, OnGpu, Queued};
use crate::handle::{Handle, Inner};
use crate::options;
use crate::patience::Patience;
use crate::sys::OpenFrame;
use crate::sys::lanes::{self, Given, Lane, unless_none};

/// What a writer says about a frame, checked before anything is touched.
fn stamp(
    frame_id: Option<&Bound<'_, PyAny>>,
    metadata: Option<&Bound<'_, PyAny>>,
    acquired_ns: Option<i64>,
) -> PyResult<Stamp> {
    let frame_id = match frame_id {
        None => None,
        Some(given) => {
            let index = options::index(given, || {
                PyTypeError::new_err(format!("frame_id must be an integer, got {given}"))
            })?;
            Some(index.extract::<u64>().map_err(|_| {
                PyValueError::new_err(format!("frame_id must be from 0 to 2**64 - 1, got {given}"))
            })?)
        }
    };
    let metadata = match metadata {
        None => None,
        Some(given) => Some(match given.cast::<PyBytes>() {
            Ok(bytes) => padded(bytes.as_bytes())?,
            Err(_) => padded_from(given)?,
        }),
    };
    Ok(Stamp { frame_id, acquired_unix_ns: acquired_ns, metadata })
}

/// Metadata as a frame has it: zeros behind what was given.
fn padded(given: &[u8]) -> PyResult<[u8; METADATA_BYTES]> {
    let mut bytes = [0; METADATA_BYTES];
    let Some(start) = bytes.get_mut(..given.len()) else {
        return Err(PyValueError::new_err(format!(
            "metadata may have {METADATA_BYTES} bytes, got {}",
            given.len()
        )));
    };
    start.copy_from_slice(given);
    Ok(bytes)
}

/// The same from other objects that are bytes.
#[cold]
fn padded_from(given: &Bound<'_, PyAny>) -> PyResult<[u8; METADATA_BYTES]> {
    if let Ok(array) = given.cast::<PyByteArray>() {
        return padded(&array.to_vec());
    }
    if given.is_instance_of::<PyMemoryView>() {
        return padded(given.call_method0("tobytes")?.cast::<PyBytes>()?.as_bytes());
    }
    Err(options::not_a("metadata", "bytes, a bytearray or a memoryview", given))
}

/// What is published.
enum Payload<'a> {
    Bytes(&'a [u8]),
    Zeros,
    /// By work of a GPU.
    Queued(Queued<'a>),
}

impl Payload<'_> {
    fn publish(
        &self,
        locked: &mut shared_tensor::stream::OwnedLocked,
        stamp: &Stamp,
    ) -> shared_tensor::Result<u64> {
        match self {
            Self::Bytes(bytes) => locked.write(bytes, stamp),
            Self::Zeros => locked.clear(stamp),
            Self::Queued(queued) => queued.publish(locked, stamp),
        }
    }
}

impl Handle {
    fn write_stamped(
        &self,
        py: Python<'_>,
        value: &Bound<'_, PyAny>,
        stamp: &Stamp,
        patience: Patience,
        owned: bool,
    ) -> PyResult<u64> {
        let what = if owned { "write_locked" } else { "write" };
        // First: whether it may be written at all.
        let inner = self.writable(what)?;
        let owned_by = owned.then_some(what);
        if let Some(gpu) = inner.gpu() {
            let given = gpu.given(&self.frames, value)?;
            return self.publish_on_gpu(py, (&inner, gpu), given, stamp, patience, owned_by);
        }
        let input = self.frames.input(value)?;
        let payload = Payload::Bytes(input.bytes());
        self.publish(py, &inner, &payload, stamp, patience, owned_by)
    }

    fn publish_on_gpu(
        &self,
        py: Python<'_>,
        (inner, gpu): (&Inner, &OnGpu),
        given: gpu::Given<'_>,
        stamp: &Stamp,
        patience: Patience,
        owned: Option<&str>,
    ) -> PyResult<u64> {
        let queued = gpu.queued(&given).map_err(|error| errors::raised(&error))?;
        let count = self.publish(py, inner, &Payload::Queued(queued), stamp, patience, owned)?;
        gpu.let_go(py, given)?;
        Ok(count)
    }

    fn publish(
        &self,
        py: Python<'_>,
        inner: &Inner,
        payload: &Payload<'_>,
        stamp: &Stamp,
        patience: Patience,
        owned: Option<&str>,
    ) -> PyResult<u64> {
        self.refuse_without_frames()?;
        // The driver may have to wait for room in a stream.
        let is_quick = self.is_quick_to_copy() && !matches!(payload, Payload::Queued(_));
        let under_own_lock = |py: Python<'_>| {
            let write = || {
                self.ownership.with_mine(|tenure| {
                    if tenure.locked.is_open() {
                        return None;
                    }
                    Some(payload.publish(&mut tenure.locked, stamp))
                })
            };
            if is_quick { write() } else { py.detach(write) }
        };
        // Asked first: nearly always it is not, and letting other threads run takes longer than a question.
        if self.ownership.is_mine() {
            match under_own_lock(py) {
                Some(Some(outcome)) => return outcome.map_err(|error| errors::raised(&error)),
                Some(None) => return Err(self.nested()),
                None => {}
            }
        }
        if let Some(what) = owned {
            return Err(self.not_owned(what));
        }
        self.run(py, patience, is_quick, |wait| match payload {
            Payload::Bytes(bytes) => inner.writer()?.write_with(bytes, stamp, wait),
            Payload::Zeros => inner.writer()?.lock_owned(wait)?.clear(stamp),
            Payload::Queued(queued) => queued.write(stamp, wait),
        })
    }

    fn nested(&self) -> PyErr {
        PyRuntimeError::new_err(format!(
            "stream '{}': nested write: this thread is writing a frame already; leave its write_view \
             first",
            self.name
        ))
    }

    fn not_owned(&self, what: &str) -> PyErr {
        PyRuntimeError::new_err(format!(
            "{what}: this thread does not own the lock of stream '{}'; acquire it first",
            self.name
        ))
    }
}

#[pymethods]
impl Handle {
    /// Publish a frame, copied in.
    ///
    /// Parameters
    /// ----------
    /// value : array_like
    ///     Of exactly the stream's shape. Arrays and tensors are converted if the handle's ``casting``
    ///     allows it, as of `numpy.can_cast`. Numbers in lists have a kind but no width: integers must lie
    ///     in the range of the stream's type, and floats go to floats. With ``casting="unsafe"`` everything
    ///     is converted as by `numpy.asarray`, silently.
    /// frame_id : int, optional
    ///     A number that goes with the frame, 0 to 2**64 - 1. Left out, the last one stays.
    /// metadata : bytes, bytearray or memoryview, optional
    ///     Up to 64 bytes that go with the frame, padded with zeros.
    /// acquired_ns : int, optional
    ///     When the content was acquired, in nanoseconds since 1970 by the wall clock, as of
    ///     ``time.time_ns()``; the stream only passes it on.
    /// timeout : float, optional
    ///     Seconds to wait for the stream's lock. Left out, there is no limit.
    /// owned : bool
    ///     True only writes if this thread holds the lock already.
    ///
    /// Returns
    /// -------
    /// int
    ///     The frame's number: how many were published with it.
    ///
    /// Raises
    /// ------
    /// TypeError
    ///     The elements cannot be converted without loss of kind, such as floats to integers.
    /// OverflowError
    ///     An integer of a list is too small or too large for the stream's type.
    /// ValueError
    ///     `value` has another shape, or another argument is out of range.
    /// TimeoutError
    ///     Another owner kept the lock; the message names it.
    /// PermissionError
    ///     The handle is read-only.
    /// FencedWriteError
    ///     This process was declared dead meanwhile, or is a forked child: the frame was dropped.
    /// RuntimeError
    ///     The handle is closed, or this thread is writing a frame in place.
    #[pyo3(signature = (
        value, frame_id=None, metadata=None, acquired_ns=None, timeout=None, owned=false,
    ))]
    #[expect(clippy::too_many_arguments, reason = "keywords of Python")]
    fn write(
        &self,
        py: Python<'_>,
        value: &Bound<'_, PyAny>,
        frame_id: Option<&Bound<'_, PyAny>>,
        metadata: Option<&Bound<'_, PyAny>>,
        acquired_ns: Option<i64>,
        timeout: Option<f64>,
        owned: bool,
    ) -> PyResult<u64> {
        let stamp = stamp(frame_id, metadata, acquired_ns)?;
        self.write_stamped(py, value, &stamp, Patience::of(timeout)?, owned)
    }

    /// Publish a frame of zeros. Parameters, result and errors as of ``write``.
    #[pyo3(signature = (frame_id=None, timeout=None))]
    fn clear(
        &self,
        py: Python<'_>,
        frame_id: Option<&Bound<'_, PyAny>>,
        timeout: Option<f64>,
    ) -> PyResult<u64> {
        let stamp = stamp(frame_id, None, None)?;
        let patience = Patience::of(timeout)?;
        let inner = self.writable("clear")?;
        if let Some(gpu) = inner.gpu() {
            let zeros = gpu.zeros(py)?;
            return self.publish_on_gpu(py, (&inner, gpu), zeros, &stamp, patience, None);
        }
        self.publish(py, &inner, &Payload::Zeros, &stamp, patience, None)
    }

    /// Write a frame in place: a context manager whose value is the next frame as a writable array.
    ///
    /// Leaving the block publishes the frame, and makes the array read-only; leaving it by an exception
    /// gives the frame up, and readers go on with the one before. The stream's lock is held meanwhile.
    /// Views of the array that were made in the block stay writable: after it they change a published frame.
    ///
    /// Parameters
    /// ----------
    /// previous : bool
    ///     True starts from a copy of the newest frame, False from whatever the slot held last: fill all
    ///     of it.
    /// frame_id : int, optional
    ///     A number that goes with the frame, 0 to 2**64 - 1. Left out, the last one stays.
    /// metadata : bytes, bytearray or memoryview, optional
    ///     Up to 64 bytes that go with the frame, padded with zeros.
    /// acquired_ns : int, optional
    ///     When the content was acquired, in nanoseconds since 1970 by the wall clock, as of
    ///     ``time.time_ns()``; the stream only passes it on.
    /// timeout : float, optional
    ///     Seconds to wait for the stream's lock. Left out, there is no limit.
    /// owned : bool
    ///     True only writes if this thread holds the lock already.
    ///
    /// Raises
    /// ------
    /// TimeoutError, PermissionError, FencedWriteError, RuntimeError
    ///     On entry, or when leaving, as of ``write``.
    #[pyo3(signature = (
        previous=false, frame_id=None, metadata=None, acquired_ns=None, timeout=None, owned=false,
    ))]
    fn write_view(
        slf: Bound<'_, Self>,
        previous: bool,
        frame_id: Option<&Bound<'_, PyAny>>,
        metadata: Option<&Bound<'_, PyAny>>,
        acquired_ns: Option<i64>,
        timeout: Option<f64>,
        owned: bool,
    ) -> PyResult<WriteScope> {
        Ok(WriteScope {
            contents: if previous { Contents::Previous } else { Contents::Fresh },
            stamp: stamp(frame_id, metadata, acquired_ns)?,
            patience: timeout,
            owned,
            state: Mutex::default(),
            handle: slf.unbind(),
        })
    }
}

/// A frame being written in place.
#[pyclass(frozen, module = "shared_tensor._native")]
pub(crate) struct WriteScope {
    handle: Py<Handle>,
    contents: Contents,
    stamp: Stamp,
    patience: Option<f64>,
    owned: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    array: Option<Py<PyAny>>,
    took_lock: bool,
    count: Option<u64>,
}

impl WriteScope {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims a slot under the lock that this thread holds by now.
    fn begin<'py>(&self, py: Python<'py>, handle: &Handle) -> PyResult<Bound<'py, PyAny>> {
        let inner = handle.readable()?;
        let on_gpu = inner.gpu().map(|gpu| gpu.to_begin(py)).transpose()?;
        let begun = py.detach(|| {
            handle.ownership.with_mine(|tenure| {
                if tenure.locked.is_open() {
                    return None;
                }
                Some(match &on_gpu {
                    Some((writer, queue)) => tenure.locked.begin_on(writer, queue, self.contents),
                    None => tenure.locked.begin(self.contents),
                })
            })
        });
        match begun {
            Some(Some(outcome)) => outcome.map_err(|error| errors::raised(&error))?,
            Some(None) => return Err(handle.nested()),
            None => return Err(handle.not_owned("write_view_locked")),
        };
        if let (Some(gpu), Some((_, queue))) = (inner.gpu(), on_gpu) {
            let address = handle.ownership.with_mine(|tenure| tenure.locked.address()).flatten();
            let address = address.ok_or_else(|| handle.not_owned("write_view"))?;
            return gpu.being_written(py, address, queue).inspect_err(|_| {
                handle.ownership.with_mine(|tenure| tenure.locked.abort());
            });
        }
        // Only the place is looked up under the mutex: making an object may stop for the garbage
        // collector of a free-threaded Python, which waits for every thread that waits for the mutex.
        let frame = handle
            .ownership
            .with_mine(|tenure| OpenFrame::of(&mut tenure.locked, &inner.stream))
            .flatten();
        let frame = frame.ok_or_else(|| handle.not_owned("write_view"));
        frame.and_then(|frame| handle.frames.being_written(py, frame)).inspect_err(|_| {
            handle.ownership.with_mine(|tenure| tenure.locked.abort());
        })
    }
}

#[pymethods]
impl WriteScope {
    fn __enter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let handle = self.handle.get();
        let what = if self.owned { "write_view_locked" } else { "write_view" };
        handle.writable(what)?;
        if self.state().array.is_some() {
            return Err(handle.nested());
        }
        let took_lock = !handle.ownership.is_mine();
        if took_lock {
            if self.owned {
                return Err(handle.not_owned(what));
            }
            handle.take_lock(py, Patience::of(self.patience)?, false)?;
        }
        match self.begin(py, handle) {
            Ok(array) => {
                let mut state = self.state();
                state.array = Some(array.clone().unbind());
                handle.ownership.set_open_view(Some(&array));
                state.took_lock = took_lock;
                Ok(array)
            }
            Err(error) => {
                if took_lock {
                    let _ = handle.ownership.release(handle.id);
                }
                Err(error)
            }
        }
    }

    #[pyo3(signature = (kind, value, traceback))]
    fn __exit__(
        &self,
        py: Python<'_>,
        kind: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        traceback: &Bound<'_, PyAny>,
    ) -> PyResult<bool> {
        let _ = (value, traceback);
        let handle = self.handle.get();
        if handle.ownership.is_anothers_through(handle.id) {
            return Err(PyRuntimeError::new_err(format!(
                "another thread is writing the frame of stream '{}': leave its write_view there",
                handle.name
            )));
        }
        let (array, took_lock) = {
            let mut state = self.state();
            (state.array.take(), std::mem::take(&mut state.took_lock))
        };
        let Some(array) = array else { return Ok(false) };
        handle.ownership.set_open_view(None);
        // What is kept of the array cannot change the published frame by mistake.
        let sealed = match array.bind(py).cast::<PyUntypedArray>() {
            Ok(array) => array.call_method1("setflags", (false,)).map(drop),
            // No library has read-only tensors.
            Err(_) => Ok(()),
        };
        let ended = handle.ownership.with_mine(|tenure| {
            if kind.is_none() && sealed.is_ok() {
                tenure.locked.publish(&self.stamp).map(Some)
            } else {
                tenure.locked.abort();
                Ok(None)
            }
        });
        if took_lock {
            let _ = handle.ownership.release(handle.id);
        }
        match ended {
            Some(Ok(count)) => self.state().count = count,
            Some(Err(error)) => return Err(errors::raised(&error)),
            // Closed or released inside the scope: the frame was given up there.
            None if kind.is_none() => {
                return Err(PyRuntimeError::new_err(format!(
                    "the frame of stream '{}' was not published: its lock was released, its handle \
                     closed, or its scope left by another thread or process",
                    handle.name
                )));
            }
            None => {}
        }
        sealed?;
        Ok(false)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.handle)?;
        // Whoever has it is running, and so is what it refers to.
        match self.state.try_lock() {
            Ok(state) => visit.call(&state.array),
            Err(_) => Ok(()),
        }
    }

    /// The frame's count once it was published.
    #[getter]
    fn count(&self) -> Option<u64> {
        self.state().count
    }
}

pub(crate) fn open_lanes(py: Python<'_>) -> PyResult<()> {
    lanes::open::<Write>(py)
}

/// `Handle.write(value)`, with a frame's number and metadata if need be.
struct Write;

impl Lane for Write {
    type Of = Handle;
    const NAME: &'static CStr = c"write";
    const PARAMETERS: &'static [&'static str] =
        &["value", "frame_id", "metadata", "acquired_ns", "timeout", "owned"];

    lanes::keeps_method!();

    fn call<'py>(
        this: &Bound<'py, Handle>,
        given: &Given<'_, 'py>,
    ) -> Option<PyResult<Bound<'py, PyAny>>> {
        let [value, frame_id, metadata, None, None, None] = given.each()? else { return None };
        let (value, py) = (value?, this.py());
        let (frame_id, metadata) = (unless_none(frame_id), unless_none(metadata));
        let write = |stamp: &Stamp| {
            let count = this.get().write_stamped(py, &value, stamp, Patience::endless(), false)?;
            Ok(count.into_pyobject(py)?.into_any())
        };
        if frame_id.is_none() && metadata.is_none() {
            return Some(write(&Stamp::default()));
        }
        let stamp = stamp(frame_id.as_deref(), metadata.as_deref(), None);
        Some(stamp.and_then(|stamp| write(&stamp)))
    }
}
