//! Ranges of shared memory and values over them, as the Python files put them together.

use pyo3::exceptions::{PyMemoryError, PyValueError};
use pyo3::prelude::*;
use shared_tensor::DType;
use shared_tensor::service::{Arena, Layout, Object, RegionError, Storage, Tensor, Value};

use super::addresses;
use crate::modules::memory::Memory;
use crate::sys::place::Place;

/// A range of shared memory.
#[pyclass(frozen, module = "shared_tensor._native")]
pub(crate) struct ServiceStorage {
    pub(super) storage: Storage,
}

#[pymethods]
impl ServiceStorage {
    /// One without bytes.
    #[staticmethod]
    fn empty() -> Self {
        Self { storage: Storage::empty() }
    }

    /// What lies at an address of this process, if it can be lent as it is.
    #[staticmethod]
    fn find(py: Python<'_>, address: usize, length: u64, is_for_writing: bool) -> Option<Self> {
        let found = py.detach(|| addresses::find(address, length, is_for_writing));
        found.map(|storage| Self { storage })
    }

    /// The same for memory of a GPU, for a process to get it; `None` for whoever may.
    #[staticmethod]
    fn find_on_gpu(
        py: Python<'_>,
        address: usize,
        length: u64,
        is_for_writing: bool,
        process: Option<u32>,
    ) -> Option<Self> {
        let found =
            py.detach(|| addresses::find_on_device(address, length, is_for_writing, process));
        found.map(|storage| Self { storage })
    }

    /// New ones of these lengths, in one region of their own.
    #[staticmethod]
    #[expect(clippy::needless_pass_by_value, reason = "lists of Python arrive as vectors")]
    fn allocate(py: Python<'_>, lengths: Vec<u64>) -> PyResult<Vec<Self>> {
        let storages = py.detach(|| Arena::allocate_together(&lengths)).map_err(|e| no_room(&e))?;
        Ok(storages.into_iter().map(|storage| Self { storage }).collect())
    }

    /// A part of it.
    fn part(&self, offset: u64, length: u64) -> PyResult<Self> {
        let outside = || {
            PyValueError::new_err(format!(
                "{length} bytes from {offset} on do not lie in {}",
                self.storage.bytes()
            ))
        };
        let end = offset.checked_add(length).filter(|end| *end <= self.storage.bytes());
        end.ok_or_else(outside)?;
        // On a GPU it may begin behind the first region.
        let mut start = self.storage.offset() + offset;
        let mut regions = self.storage.regions();
        while let [first, rest @ ..] = regions
            && !rest.is_empty()
            && start >= first.bytes()
        {
            start -= first.bytes();
            regions = rest;
        }
        let storage = Storage::spanning(regions.to_vec(), start, length).map_err(|_| outside())?;
        if let Some(ready) = self.storage.ready() {
            storage.set_ready(ready.clone());
        }
        Ok(Self { storage })
    }

    /// Its bytes: shared with all who may write to them, else private copies of the pages that are
    /// written to.
    pub(super) fn memory(&self) -> PyResult<Memory> {
        let view = self.storage.view().map_err(|error| no_room(&error))?;
        let known = addresses::note(&view);
        Ok(Memory::over(Place::of_view(view, known)))
    }

    /// Where its bytes are: ``cpu``, or the identity of a GPU.
    #[getter]
    fn place(&self) -> String {
        self.storage.place().to_string()
    }

    /// Whether a GPU has it, not the host.
    #[getter]
    fn is_on_gpu(&self) -> bool {
        self.storage.place() != shared_tensor::service::Place::Cpu
    }

    /// Its bytes in a mapping that nobody else of this process has.
    fn memory_apart(&self) -> PyResult<Memory> {
        let view = self.storage.view_apart().map_err(|error| no_room(&error))?;
        Ok(Memory::over(Place::of_view(view, ())))
    }

    /// Equal for what are the same bytes.
    #[getter]
    fn key(&self) -> (String, u64, u64) {
        let id = self.storage.region().map(|region| region.id().to_string());
        (id.unwrap_or_default(), self.storage.offset(), self.storage.bytes())
    }

    /// Its length in bytes.
    #[getter]
    fn length(&self) -> u64 {
        self.storage.bytes()
    }

    /// Where it lies: identifier of the region, device and inode of its file, offset in bytes. `None` for
    /// memory without a file.
    #[getter]
    fn location(&self) -> Option<(String, u64, u64, u64)> {
        let region = self.storage.region()?;
        let file = region.identity()?;
        Some((region.id().to_string(), file.device, file.inode, self.storage.offset()))
    }

    fn __repr__(&self) -> String {
        format!("ServiceStorage({} bytes)", self.storage.bytes())
    }
}

pub(super) fn no_room(error: &RegionError) -> PyErr {
    PyMemoryError::new_err(error.to_string())
}

/// A value on its way.
#[pyclass(frozen, module = "shared_tensor._native")]
pub(crate) struct ServiceValue {
    pub(super) value: Value,
}

#[pymethods]
impl ServiceValue {
    /// A tensor over a storage; sizes, strides and offset in elements.
    ///
    /// Raises
    /// ------
    /// ValueError
    ///     If an element would lie outside.
    #[staticmethod]
    fn tensor(
        storage: &ServiceStorage,
        dtype: &str,
        shape: Vec<u64>,
        strides: Vec<i64>,
        offset: u64,
        requires_grad: bool,
    ) -> PyResult<Self> {
        let dtype: DType =
            dtype.parse().map_err(|_| PyValueError::new_err(format!("unknown dtype {dtype}")))?;
        let layout = Layout { dtype, shape, strides, offset };
        let tensor = Tensor::new(storage.storage.clone(), layout)
            .map_err(|error| PyValueError::new_err(error.to_string()))?;
        Ok(Self { value: Value::Tensor(tensor.with_requires_grad(requires_grad)) })
    }

    /// Something that is described by a manifest, over storages.
    #[staticmethod]
    #[expect(clippy::needless_pass_by_value, reason = "lists of Python arrive as vectors")]
    fn object(kind: String, manifest: &[u8], storages: Vec<Bound<'_, ServiceStorage>>) -> Self {
        let storages = storages.iter().map(|it| it.get().storage.clone()).collect();
        Self { value: Value::Object(Object { kind, manifest: manifest.into(), storages }) }
    }
}
