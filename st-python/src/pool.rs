//! Memory of large result arrays, used again when nobody refers to them any more.
//!
//! The kernel hands out large blocks page by page, zeroed, which costs as much as copying a frame
//! into them. A loop that reads a frame and drops the previous one needs two blocks and no new page.

use std::mem::MaybeUninit;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use pyo3::exceptions::PyMemoryError;
use pyo3::prelude::*;

use crate::sys;

/// Arrays below this come from NumPy's allocator, which reuses small blocks itself.
pub(crate) const BYTES_MIN: usize = 1 << 20;
/// Free blocks that are kept: as many as a loop that holds one result needs.
const FREE_MAX: usize = 2;

/// The free blocks of one handle, all of one size.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    free: Mutex<Vec<Memory>>,
}

pub(crate) type Memory = Box<[MaybeUninit<u8>]>;

impl Pool {
    /// A block of `bytes` bytes, with whatever it held last.
    ///
    /// # Errors
    /// `MemoryError` if there is none.
    pub(crate) fn take(&self, bytes: usize) -> PyResult<Memory> {
        let reused = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match reused {
            Some(memory) if memory.len() == bytes => Ok(memory),
            _ => sys::uninitialised(bytes).ok_or_else(|| {
                PyMemoryError::new_err(format!(
                    "cannot have {bytes} bytes for the array of a frame: pass out=, or read it in \
                     place with numpy()"
                ))
            }),
        }
    }

    fn put(&self, memory: Memory) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < FREE_MAX {
            free.push(memory);
        }
    }
}

/// Owns the memory of an array, and gives it back when the array and all its views are gone.
#[pyclass(frozen, module = "shared_tensor._native")]
#[derive(Debug)]
pub(crate) struct PooledMemory {
    memory: Mutex<Option<Memory>>,
    pool: Weak<Pool>,
}

impl PooledMemory {
    pub(crate) fn new(memory: Memory, pool: &Arc<Pool>) -> Self {
        Self { memory: Mutex::new(Some(memory)), pool: Arc::downgrade(pool) }
    }
}

impl Drop for PooledMemory {
    fn drop(&mut self) {
        let memory = self.memory.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let (Some(memory), Some(pool)) = (memory, self.pool.upgrade()) {
            pool.put(memory);
        }
    }
}
