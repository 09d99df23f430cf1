//! Memory of torch's allocator that can be lent where it lies: a pool of ours for each GPU.
//!
//! Torch calls in whichever thread it likes, with the interpreter's lock or without, and expects what
//! C functions do: a null pointer instead of an error, and no more.

use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use shared_tensor::lock::PerProcess;
use shared_tensor::service::cuda::{ChunkError, Pool, flush, probe};

use super::gpu::ROOM;
use crate::sys::stream_of_torch;

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

/// Lets GPUs that have come into use at what there is of others.
pub(super) fn reach() {
    let Some(pools) = POOLS.get() else { return };
    let pools: Vec<_> = {
        let pools = pools.lock().unwrap_or_else(PoisonError::into_inner);
        pools.values().cloned().collect()
    };
    for pool in pools {
        // Whoever allocates next is told.
        let _ = pool.reach();
    }
}

/// Streams, by their numbers, that are never destroyed, and blocks of others.
#[derive(Default)]
struct Streams {
    lasting: HashSet<usize>,
    /// By GPU: addresses of blocks whose streams nobody may ask, since they may be gone.
    aside: HashMap<usize, Vec<u64>>,
}

static STREAMS: PerProcess<Mutex<Streams>> = PerProcess::new();

fn streams() -> MutexGuard<'static, Streams> {
    STREAMS.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

/// The streams that a process has without making any, by the driver's numbers.
const DEFAULT_STREAMS: RangeInclusive<usize> = 0..=2;

/// Takes memory back when what is queued in a stream, by its number, is done. That of a stream which may
/// be gone is put aside.
pub(crate) fn release(address: u64, ordinal: usize, stream: usize) {
    let release = || {
        // In a child of a process that uses CUDA there is nothing to be given back.
        let Ok(pool) = pool(ordinal) else { return };
        if DEFAULT_STREAMS.contains(&stream) || streams().lasting.contains(&stream) {
            pool.release(address, &stream_of_torch(stream));
        } else {
            streams().aside.entry(ordinal).or_default().push(address);
        }
    };
    // There is nobody to tell of a failure.
    let _ = catch_unwind(AssertUnwindSafe(release));
}

/// A stream of torch's own, by its number: torch destroys none of them, so that it may be waited for
/// whenever memory comes back that was allocated in it.
#[pyfunction]
pub(crate) fn gpu_pool_stream(py: Python<'_>, stream: usize) {
    py.detach(|| streams().lasting.insert(stream));
}

/// Blocks that came back and wait for somebody who knows that their GPU is done with them.
#[pyfunction]
pub(crate) fn gpu_pool_aside(py: Python<'_>, ordinal: usize) -> Vec<u64> {
    py.detach(|| streams().aside.get(&ordinal).cloned().unwrap_or_default())
}

/// Take these blocks back: their GPU is done with all that was queued when they were put aside.
#[pyfunction]
pub(crate) fn gpu_pool_take_back(py: Python<'_>, ordinal: usize, blocks: Vec<u64>) {
    py.detach(|| {
        let Ok(pool) = pool(ordinal) else { return };
        if let Some(aside) = streams().aside.get_mut(&ordinal) {
            aside.retain(|it| !blocks.contains(it));
        }
        for block in blocks {
            pool.release_settled(block);
        }
    });
}

/// Let every GPU that this process uses by now at the memory of all pools.
#[pyfunction]
pub(crate) fn gpu_pool_reach(py: Python<'_>) {
    py.detach(reach);
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
