//! `Memory`: bytes that storages lie in, as Python hands them around.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;

use pyo3::exceptions::{PyIndexError, PyOSError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use shared_tensor::manifest::Scalar;
use shared_tensor::shm::{Access, Region, RegionOptions};

use super::keep::Keep;
use super::plan::tensors::{Torch, data_type};
use crate::sys::dlpack::Numbers;
use crate::sys::place::Place;

/// Bytes in this process, and what keeps them: a mapping of a region, or a part of one.
///
/// Tensors made over it have a share in that, so that a `Memory` itself need not be kept.
#[pyclass(frozen, module = "shared_tensor._native")]
#[derive(Debug)]
pub(crate) struct Memory {
    place: Place,
    /// What tensors over it keep as well. Not in the place, so that the collector sees it.
    owner: Option<Py<PyAny>>,
}

impl Memory {
    pub(crate) fn over(place: Place) -> Self {
        Self { place, owner: None }
    }

    /// The bytes, and what keeps them for tensors.
    pub(crate) fn place(&self, py: Python<'_>) -> Place {
        match &self.owner {
            Some(owner) => self.place.also_keeping(Keep::object(owner.clone_ref(py))),
            None => self.place.clone(),
        }
    }
}

#[pymethods]
impl Memory {
    /// Map a range of a region.
    ///
    /// Parameters
    /// ----------
    /// fd : int
    ///     A memfd whose length is sealed. It is not kept: the mapping outlives it.
    /// offset : int
    ///     Where the range starts, in bytes: a multiple of the page size.
    /// length : int
    ///     Bytes of the range.
    /// private : bool
    ///     Whether writes stay in this mapping (copy on write). Otherwise everybody sees them, and the
    ///     descriptor must be writable.
    ///
    /// Raises
    /// ------
    /// ValueError
    ///     For a descriptor that is no region, and for a range outside of it.
    /// OSError
    ///     If the kernel refuses.
    #[staticmethod]
    #[pyo3(signature = (fd, offset, length, *, private = true))]
    fn map(fd: i32, offset: u64, length: usize, private: bool) -> PyResult<Self> {
        let region = borrowed(fd)?;
        let end = offset.checked_add(length as u64);
        if length == 0 || end.is_none_or(|end| end > region.total_bytes()) {
            return Err(PyValueError::new_err(format!(
                "{length} bytes from {offset} on do not lie in a region of {}",
                region.total_bytes()
            )));
        }
        if !private && region.access() != Access::ReadWrite {
            return Err(PyValueError::new_err(
                "this region is read-only: map it privately, or ask its owner for writable=True",
            ));
        }
        Ok(Self::over(Place::map(region.as_fd(), offset, length, private)?))
    }

    /// The memory of a tensor of bytes, which is kept.
    ///
    /// Parameters
    /// ----------
    /// tensor : torch.Tensor
    ///     Contiguous, on a GPU.
    /// address, length, ordinal : int
    ///     Where its bytes are, how many, and the number of the GPU.
    #[staticmethod]
    fn of_gpu_tensor(tensor: Py<PyAny>, address: u64, length: usize, ordinal: i32) -> Self {
        Self::over(Place::on_device(address, length, ordinal, Keep::object(tensor)))
    }

    /// A part of these bytes, which keeps the whole.
    ///
    /// Raises
    /// ------
    /// IndexError
    ///     If it does not lie inside.
    fn part(&self, py: Python<'_>, offset: usize, length: usize) -> PyResult<Self> {
        let place = self.place.part(offset, length).ok_or_else(|| {
            PyIndexError::new_err(format!(
                "{length} bytes from {offset} on do not lie in {} bytes",
                self.place.bytes()
            ))
        })?;
        Ok(Self { place, owner: self.owner.as_ref().map(|owner| owner.clone_ref(py)) })
    }

    /// The same bytes; tensors made over the result also keep `owner` alive, a lease for example.
    ///
    /// An owner that refers to such a tensor is never collected: nobody can look into storages of
    /// torch. One that refers to this object only is.
    fn keeping(&self, py: Python<'_>, owner: Py<PyAny>) -> Self {
        Self { place: self.place(py), owner: Some(owner) }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.owner)
    }

    /// A tensor over these bytes.
    ///
    /// Parameters
    /// ----------
    /// torch : Torch
    ///     The way into torch.
    /// dtype : str
    ///     Such as ``float32``.
    /// shape, strides : list of int
    ///     In elements.
    /// offset : int
    ///     Where the first element lies, in elements.
    ///
    /// Raises
    /// ------
    /// ValueError
    ///     If the elements do not all lie inside, or torch has no such type.
    #[expect(clippy::needless_pass_by_value, reason = "lists of Python arrive as vectors")]
    fn tensor<'py>(
        &self,
        torch: &Bound<'py, Torch>,
        dtype: &str,
        shape: Vec<u64>,
        strides: Vec<u64>,
        offset: usize,
    ) -> PyResult<Bound<'py, PyAny>> {
        let scalar = Scalar::from_name(dtype)
            .ok_or_else(|| PyValueError::new_err(format!("unsupported dtype `{dtype}`")))?;
        if shape.len() != strides.len() || shape.len() > 64 {
            return Err(PyValueError::new_err("as many strides as sizes are needed, 64 at most"));
        }
        let numbers = Arc::new(Numbers::new(&shape, &strides));
        let item = usize::from(data_type(scalar).bits / 8);
        let offset = offset
            .checked_mul(item)
            .ok_or_else(|| PyValueError::new_err("an offset beyond all memory"))?;
        torch.get().tensor(torch.py(), &self.place(torch.py()), scalar, &numbers, offset)
    }

    /// Where the bytes lie in this process.
    #[getter]
    fn address(&self) -> usize {
        self.place.address()
    }

    fn __len__(&self) -> usize {
        self.place.bytes()
    }

    fn __repr__(&self) -> String {
        format!("Memory({} bytes)", self.place.bytes())
    }
}

/// The region behind a descriptor that stays the caller's.
fn borrowed(fd: i32) -> PyResult<Region> {
    if fd < 0 {
        return Err(PyValueError::new_err("a descriptor is not negative"));
    }
    let own = rustix::io::fcntl_dupfd_cloexec(borrow(fd), 0)
        .map_err(|error| PyOSError::new_err((error.raw_os_error(), error.to_string())))?;
    Region::from_fd(own).map_err(|error| PyValueError::new_err(error.to_string()))
}

fn borrow(fd: i32) -> BorrowedFd<'static> {
    crate::sys::borrow_fd(fd)
}

/// Make a region of zeroes that can be written until it is sealed.
///
/// Returns
/// -------
/// int
///     A new descriptor, which the caller closes.
///
/// Raises
/// ------
/// OSError
///     If there is not so much memory.
#[pyfunction]
pub(crate) fn create_region(label: &str, length: u64) -> PyResult<i32> {
    let region = Region::create(label, length, &RegionOptions::new())
        .map_err(|error| PyOSError::new_err(error.to_string()))?;
    Ok(crate::sys::into_raw(region.into_fd()))
}

/// Forbid every further write to a region, and return a descriptor that can only be read.
///
/// Writable mappings that exist go on.
///
/// Raises
/// ------
/// ValueError
///     If the descriptor is no region.
/// OSError
///     If the kernel refuses.
#[pyfunction]
pub(crate) fn seal_region(fd: i32) -> PyResult<i32> {
    let mut region = borrowed(fd)?;
    region.seal()?;
    Ok(crate::sys::into_raw(region.read_only_fd()?))
}

/// Let the allocator return memory that it keeps for later to the system.
///
/// Takes time that grows with what it keeps, some milliseconds for 100 MB.
#[pyfunction]
pub(crate) fn give_back_free_memory(py: Python<'_>) {
    py.detach(crate::sys::give_back_free_memory);
}
