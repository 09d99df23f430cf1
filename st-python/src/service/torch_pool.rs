//! Memory of torch's allocator that can be lent where it lies: a pool of ours for each GPU.
//!
//! Torch calls in whichever thread it likes, with the interpreter's lock or without, and expects what
//! C functions do: a null pointer instead of an error, and no more.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use shared_tensor::lock::PerProcess;
use shared_tensor::service::cuda::{ChunkError, Pool, Stream, flush, probe};

use super::gpu::ROOM;

static POOLS: PerProcess<Mutex<HashMap<usize, Arc<Pool>>>> = PerProcess::new();

/// The pool of a GPU, by its number in this process.
fn pool(ordinal: usize) -> Result<Arc<Pool>, String> {
    // First: in a child of a process that uses CUDA there is nothing to be had.
    let driver = probe().map_err(|error| error.to_string())?;
    let mut pools =
        POOLS.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(pool) = pools.get(&ordinal) {
        return Ok(Arc::clone(pool));
    }
    let device = driver.device_at(ordinal).map_err(|error| error.to_string())?;
    if !device.capabilities().chunks {
        return Err(format!(
            "{} cannot share memory by descriptor: its driver lacks virtual memory management or \
             descriptors of it",
            device.name()
        ));
    }
    let context = device.context().map_err(|error| error.to_string())?;
    let pool = Arc::new(Pool::new(&context));
    pools.insert(ordinal, Arc::clone(&pool));
    Ok(pool)
}

/// The address of new memory; `None` if there is none to be had.
pub(crate) fn allocate(bytes: u64, ordinal: usize) -> Option<u64> {
    let allocate = || {
        let pool = pool(ordinal).ok()?;
        match pool.allocate(bytes) {
            Err(ChunkError::OutOfMemory { .. }) => {
                flush(Instant::now() + ROOM);
                pool.allocate(bytes).ok()
            }
            made => made.ok(),
        }
    };
    catch_unwind(AssertUnwindSafe(allocate)).ok().flatten()
}

/// Takes memory back when what is queued in a stream is done.
pub(crate) fn release(address: u64, ordinal: usize, stream: &Stream) {
    let release = || pool(ordinal).is_ok_and(|pool| pool.release(address, stream));
    // There is nobody to tell of a failure.
    let _ = catch_unwind(AssertUnwindSafe(release));
}

/// The bytes that torch has in memory of a GPU that can be lent where it is.
///
/// Raises
/// ------
/// RuntimeError
///     If there is no driver or no such GPU, or it cannot share memory.
#[pyfunction]
pub(crate) fn gpu_pool_bytes(py: Python<'_>, ordinal: usize) -> PyResult<u64> {
    let bytes = py.detach(|| pool(ordinal).map(|pool| pool.bytes()));
    bytes.map_err(PyRuntimeError::new_err)
}
