//! Memory that tensors are made over, and what keeps it.
//!
//! - **P1, alive**: the bytes of a place are readable and may be written, by the GPU of the place if it
//!   has one and else by the host, for as long as its keeper lives; every place, and every tensor over one, has a share in that keeper.
//! - **P2, races**: that other tensors over the same bytes may be written meanwhile is the callers'
//!   affair, as between any two tensors that share memory; nothing here borrows the bytes.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::any::Any;
use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use shared_tensor::service::StorageView;
use shared_tensor::stream::HostFrame;

use super::dlpack::{self, DataType, Exchange, Numbers};
use super::mapping::Mapping;
use crate::modules::keep::Keep;

/// A run of bytes with its keeper.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    base: *mut u8,
    bytes: usize,
    /// The number of the GPU whose memory it is; `None` for the host's.
    gpu: Option<i32>,
    keep: Keep,
}

// SAFETY: P1: the address is good on every thread.
unsafe impl Send for Place {}
// SAFETY: as for `Send`: shared, it only tells where it is.
unsafe impl Sync for Place {}

impl Place {
    /// Maps a range of a region. See [`Mapping::new`].
    pub(crate) fn map(
        fd: BorrowedFd<'_>,
        offset: u64,
        bytes: usize,
        private: bool,
    ) -> io::Result<Self> {
        let mapping = Mapping::new(fd, offset, bytes, private)?;
        Ok(Self { base: mapping.as_ptr(), bytes, gpu: None, keep: Keep::new(mapping) })
    }

    /// Memory of the host from which devices copy frames.
    pub(crate) fn of_host_frame(mut frame: HostFrame) -> (Self, Arc<HostFrame>) {
        let (base, bytes) = (frame.as_mut_ptr(), frame.len());
        let frame = Arc::new(frame);
        (Self { base, bytes, gpu: None, keep: Keep::new(Arc::clone(&frame)) }, frame)
    }

    /// The bytes of a storage of the service, with something to be dropped after them.
    pub(crate) fn of_view(view: StorageView, also: impl Any + Send + Sync) -> Self {
        let Some((base, bytes)) = view.bytes().map(|it| (it.as_ptr(), it.len())) else {
            return Self::zeroes(0);
        };
        // Fields are dropped in order: the mapping first.
        Self { base, bytes, gpu: None, keep: Keep::new((view, also)) }
    }

    /// Memory of a GPU, at an address that only it reads.
    pub(crate) fn on_device(
        address: u64,
        bytes: usize,
        gpu: i32,
        kept: impl Any + Send + Sync,
    ) -> Self {
        let base = ptr::without_provenance_mut(usize::try_from(address).unwrap_or(0));
        Self { base, bytes, gpu: Some(gpu), keep: Keep::new(kept) }
    }

    /// Whether only a GPU reads it.
    pub(crate) fn is_on_device(&self) -> bool {
        self.gpu.is_some()
    }

    /// Zeroes in this process's own memory.
    pub(crate) fn zeroes(bytes: usize) -> Self {
        let block = Block::zeroes(bytes);
        Self { base: block.base.as_ptr(), bytes, gpu: None, keep: Keep::new(block) }
    }

    /// A part of this place, which keeps the whole.
    pub(crate) fn part(&self, offset: usize, bytes: usize) -> Option<Self> {
        let fits = offset.checked_add(bytes).is_some_and(|end| end <= self.bytes);
        fits.then(|| Self {
            base: self.base.wrapping_add(offset),
            bytes,
            gpu: self.gpu,
            keep: self.keep.clone(),
        })
    }

    /// The same bytes, which hold on to `keep` as well.
    pub(crate) fn also_keeping(&self, keep: Keep) -> Self {
        Self { keep: Keep::new((self.keep.clone(), keep)), ..*self }
    }

    /// A copy of the first `bytes` bytes, in memory of the host, from memory of the host.
    pub(crate) fn copy(&self, bytes: usize) -> Self {
        assert!(self.gpu.is_none(), "memory of a GPU is copied by torch");
        let copy = Self::zeroes(bytes);
        let bytes = bytes.min(self.bytes);
        // SAFETY: P1 for the source; the target is new and has as much room (P2).
        unsafe { ptr::copy_nonoverlapping(self.base, copy.base, bytes) };
        copy
    }

    pub(crate) fn address(&self) -> usize {
        self.base.addr()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// A tensor over the elements that `numbers` describes from byte `offset` on.
    ///
    /// # Errors
    /// `ValueError` if they do not all lie in this place.
    pub(crate) fn tensor<'py>(
        &self,
        py: Python<'py>,
        exchange: &Exchange,
        data_type: DataType,
        numbers: &Arc<Numbers>,
        offset: usize,
    ) -> PyResult<Bound<'py, PyAny>> {
        let data = self.elements(data_type, numbers, offset)?;
        // SAFETY: inside of the place and aligned, as was just found; P1, and the tensor gets a share
        // in the keeper.
        unsafe { exchange.tensor(py, data, self.gpu, data_type, numbers, &self.keep) }
    }

    /// A capsule with a tensor over the elements that `numbers` describes, for any library that knows DLPack.
    ///
    /// # Errors
    /// `ValueError` if they do not all lie in this place, or it is the host's.
    pub(crate) fn capsule<'py>(
        &self,
        py: Python<'py>,
        data_type: DataType,
        numbers: &Arc<Numbers>,
        is_versioned: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let data = self.elements(data_type, numbers, 0)?;
        let gpu =
            self.gpu.ok_or_else(|| PyValueError::new_err("memory of the host is an array's"))?;
        // SAFETY: as in `tensor`.
        unsafe { dlpack::capsule_over(py, data, gpu, data_type, numbers, &self.keep, is_versioned) }
    }

    /// Where the elements that `numbers` describes begin.
    fn elements(&self, data_type: DataType, numbers: &Numbers, offset: usize) -> PyResult<*mut u8> {
        let item = usize::from(data_type.bits).div_ceil(8);
        let needed = numbers.needed_bytes(item).and_then(|bytes| bytes.checked_add(offset));
        if needed.is_none_or(|needed| needed > self.bytes) {
            return Err(PyValueError::new_err("a tensor does not lie in its memory"));
        }
        let data = self.base.wrapping_add(offset);
        if !data.addr().is_multiple_of(item) {
            return Err(PyValueError::new_err("a tensor is not aligned for its elements"));
        }
        Ok(data)
    }
}

/// Memory of this process's own, with the alignment that torch's own allocator gives.
#[derive(Debug)]
struct Block {
    base: NonNull<u8>,
    layout: Layout,
}

// SAFETY: P1: the memory belongs to the value, wherever it is.
unsafe impl Send for Block {}
// SAFETY: as for `Send`.
unsafe impl Sync for Block {}

impl Block {
    fn zeroes(bytes: usize) -> Self {
        let layout =
            Layout::from_size_align(bytes.max(1), 64).expect("less than the address space");
        // SAFETY: the size is not zero.
        let base = unsafe { alloc_zeroed(layout) };
        let Some(base) = NonNull::new(base) else { handle_alloc_error(layout) };
        Self { base, layout }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: P1: allocated with this layout, and used by nobody any more.
        unsafe { dealloc(self.base.as_ptr(), self.layout) };
    }
}
