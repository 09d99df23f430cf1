//! What the arrays over shared memory hold on to.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use shared_tensor::stream::{Lease, Stream};

/// Keeps the frame under a read-only array: as long as the array or a view of it lives, no writer
/// touches the slot and the mapping stays.
#[pyclass(frozen, module = "shared_tensor._native")]
#[derive(Debug)]
pub(crate) struct LentFrame {
    pub(crate) lease: Lease,
}

/// Keeps the mapping under an array through which a frame is written, also after the frame was
/// published: what is written then is seen by nobody or damages a frame, but never crashes.
#[pyclass(frozen, module = "shared_tensor._native")]
#[derive(Debug)]
pub(crate) struct MappedSlot {
    pub(crate) _stream: Stream,
}

/// Steps from a view to what it is a view of, at most.
const BASES_MAX: usize = 64;

/// The lease that an array, or the array that it is a view of, holds.
pub(crate) fn lease_of<'py>(array: &Bound<'py, PyAny>) -> PyResult<Bound<'py, LentFrame>> {
    let mut holder = Some(array.clone());
    // NumPy makes the base of a view the array that owns the memory: a few steps lead there, and
    // objects whose bases go round lead nowhere.
    for _ in 0..BASES_MAX {
        let Some(current) = holder else { break };
        if let Ok(lent) = current.cast::<LentFrame>() {
            return Ok(lent.clone());
        }
        holder = current.getattr("base").ok().filter(|base| !base.is_none());
    }
    Err(PyValueError::new_err(
        "this array is no leased frame: pass one that numpy() or lease() returned, or a view of it",
    ))
}
