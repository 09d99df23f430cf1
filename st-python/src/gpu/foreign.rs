//! Tensors of other libraries than torch, by DLPack.
//!
//! The protocol goes one way: who imports names its stream, and the library has that stream wait for its own
//! work. Nothing tells a library when the importer is done, so that what it exported is kept until then.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use shared_tensor::service::cuda::Stream as Queue;

use crate::sys;
use crate::sys::dlpack::{CUDA, Device, Seen};

/// The handle of the default stream, by the name that it has in DLPack and in the driver.
const DEFAULT_BY_NAME: usize = 1;
/// That of the default stream of the calling thread.
pub(super) const PER_THREAD: usize = 2;

/// The device that an object says that it is on; `None` if it says nothing.
pub(super) fn device_of(object: &Bound<'_, PyAny>) -> PyResult<Option<Device>> {
    let Some(method) = object.getattr_opt(intern!(object.py(), "__dlpack_device__"))? else {
        return Ok(None);
    };
    // Its first part is an enumeration in some libraries.
    let (kind, id): (Bound<'_, PyAny>, i32) = method.call0()?.extract()?;
    let kind = kind.call_method0(intern!(object.py(), "__int__"))?.extract()?;
    Ok(Some(Device { kind, id }))
}

/// An object's memory. What is queued in `queue` from now on comes behind its library's own work.
pub(super) struct Exported<'py> {
    pub(super) seen: Seen,
    /// Keeps the memory.
    pub(super) capsule: Bound<'py, PyAny>,
}

/// Has an object exported for work in `queue`.
pub(super) fn exported<'py>(object: &Bound<'py, PyAny>, queue: &Queue) -> PyResult<Exported<'py>> {
    let py = object.py();
    let method = object.getattr(intern!(py, "__dlpack__"))?;
    let keywords = PyDict::new(py);
    // Zero is no name of a stream there.
    keywords.set_item("stream", queue.as_raw().max(DEFAULT_BY_NAME))?;
    keywords.set_item("max_version", (1, 0))?;
    let capsule = match method.call((), Some(&keywords)) {
        // Libraries of before 2024 know none but the stream, which they must not lose.
        Err(error) if error.is_instance_of::<PyTypeError>(py) => {
            keywords.del_item("max_version")?;
            method.call((), Some(&keywords))?
        }
        outcome => outcome?,
    };
    let seen = sys::dlpack::look_into(&capsule)?;
    Ok(Exported { seen, capsule })
}

/// The stream in which a library goes on with an object, where the object tells: CuPy's current one.
pub(super) fn stream_of(object: &Bound<'_, PyAny>) -> PyResult<Option<usize>> {
    let Some(told) = object.getattr_opt(intern!(object.py(), "__cuda_array_interface__"))? else {
        return Ok(None);
    };
    let told = told.get_item("stream").ok().filter(|it| !it.is_none());
    told.map(|it| it.extract()).transpose()
}

pub(super) fn is_on_gpu(device: Device, ordinal: i32) -> bool {
    device == Device { kind: CUDA, id: ordinal }
}

/// The stream in which a consumer uses what it asks for: the default one if it says nothing; `None` if it
/// sees to the order itself.
pub(super) fn consumer(stream: Option<isize>) -> PyResult<Option<usize>> {
    match stream {
        None => Ok(Some(DEFAULT_BY_NAME)),
        Some(-1) => Ok(None),
        Some(handle) => usize::try_from(handle).ok().filter(|handle| *handle != 0).map_or_else(
            || {
                Err(PyValueError::new_err(format!(
                    "stream must be None, -1, 1, 2 or the handle of a stream of CUDA, got {handle}"
                )))
            },
            |handle| Ok(Some(handle)),
        ),
    }
}

/// Has torch export a tensor for a consumer's stream.
pub(super) fn export_of_torch<'py>(
    tensor: &Bound<'py, PyAny>,
    stream: Option<isize>,
    max_version: Option<(u32, u32)>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = tensor.py();
    let keywords = PyDict::new(py);
    keywords.set_item("stream", stream)?;
    if max_version.is_some() {
        keywords.set_item("max_version", max_version)?;
    }
    match tensor.call_method("__dlpack__", (), Some(&keywords)) {
        // Releases before 2.9 know of no versions. Of the stream all do.
        Err(error) if error.is_instance_of::<PyTypeError>(py) && max_version.is_some() => {
            keywords.del_item("max_version")?;
            tensor.call_method("__dlpack__", (), Some(&keywords))
        }
        outcome => outcome,
    }
}
