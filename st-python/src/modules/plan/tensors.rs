//! Tensors of a plan: over memory directly where possible, else as views of a whole storage.

use std::sync::Arc;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyType;
use shared_tensor::manifest::{Manifest, Scalar, Sharing, TensorClass};

use crate::sys::dlpack::{DataType, Exchange, Numbers};
use crate::sys::place::Place;

/// The way into torch: how tensors are made over memory, and of which class.
#[pyclass(frozen, module = "shared_tensor._native")]
#[derive(Debug)]
pub(crate) struct Torch {
    exchange: Exchange,
    /// `(tensor of bytes, dtype, shape, strides, offset) -> tensor`
    view: Py<PyAny>,
    /// `(name) -> dtype`
    dtype: Py<PyAny>,
    /// `(bytes) -> tensor of bytes` on the meta device
    absent: Py<PyAny>,
}

#[pymethods]
impl Torch {
    #[new]
    #[pyo3(signature = (*, exchange, import_capsule, view, dtype, absent))]
    fn new(
        exchange: Option<&Bound<'_, PyAny>>,
        import_capsule: &Bound<'_, PyAny>,
        view: Py<PyAny>,
        dtype: Py<PyAny>,
        absent: Py<PyAny>,
    ) -> PyResult<Self> {
        let exchange = Exchange::new(exchange, import_capsule)?;
        Ok(Self { exchange, view, dtype, absent })
    }

    /// Whether tensors are handed over without a capsule.
    #[getter]
    fn is_direct(&self) -> bool {
        matches!(self.exchange, Exchange::Direct(_))
    }
}

impl Torch {
    /// How tensors are handed over.
    pub(crate) fn exchange(&self) -> &Exchange {
        &self.exchange
    }

    /// A tensor over the elements that `numbers` describes from byte `offset` of `place` on.
    pub(crate) fn tensor<'py>(
        &self,
        py: Python<'py>,
        place: &Place,
        scalar: Scalar,
        numbers: &Arc<Numbers>,
        offset: usize,
    ) -> PyResult<Bound<'py, PyAny>> {
        let given = data_type(scalar);
        let data_type = match self.exchange {
            Exchange::Direct(_) => given,
            Exchange::Capsule(_) => known_to_all(given),
        };
        let tensor = place.tensor(py, &self.exchange, data_type, numbers, offset)?;
        if data_type.code == given.code {
            return Ok(tensor);
        }
        let dtype = self.dtype.bind(py).call1((scalar.name(),))?;
        tensor.call_method1(intern!(py, "view"), (dtype,))
    }

    /// Whether tensors of a type are taken over as such, and are no view of others.
    pub(crate) fn takes(&self, scalar: Scalar) -> bool {
        let given = data_type(scalar);
        matches!(self.exchange, Exchange::Direct(_)) || known_to_all(given).code == given.code
    }

    /// All bytes of a place as one tensor.
    pub(crate) fn bytes<'py>(
        &self,
        py: Python<'py>,
        place: &Place,
        bytes: u64,
    ) -> PyResult<Bound<'py, PyAny>> {
        if bytes == 0 && !place.is_on_device() {
            return self.absent.bind(py).call1((0, false));
        }
        let numbers = Arc::new(Numbers::new(&[bytes], &[1]));
        self.tensor(py, place, Scalar::U8, &numbers, 0)
    }

    /// A tensor over elements of the storage that another one has, `offset` in elements.
    pub(crate) fn view<'py>(
        &self,
        whole: &Bound<'py, PyAny>,
        dtype: &str,
        numbers: &Numbers,
        offset: u64,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = whole.py();
        let dtype = self.dtype.bind(py).call1((dtype,))?;
        self.view.bind(py).call1((whole, dtype, numbers.shape(), numbers.strides(), offset))
    }
}

/// The type of an element in DLPack.
pub(crate) fn data_type(scalar: Scalar) -> DataType {
    let bits = u8::try_from(scalar.bytes() * 8).unwrap_or(u8::MAX);
    DataType { code: scalar.dlpack_code(), bits, lanes: 1 }
}

/// A type of the same size that the oldest releases import too: integers for what is no number that
/// everybody has.
fn known_to_all(given: DataType) -> DataType {
    const SIGNED: u8 = 0;
    const UNSIGNED: u8 = 1;
    const COMPLEX: u8 = 5;
    const FIRST_FLOAT8: u8 = 7;
    let code = match (given.code, given.bits) {
        (UNSIGNED, 16..) | (COMPLEX, 32) => SIGNED,
        (FIRST_FLOAT8.., _) => UNSIGNED,
        (code, _) => code,
    };
    DataType { code, ..given }
}

/// How one tensor is made.
#[derive(Debug)]
pub(super) struct TensorPlan {
    storage: usize,
    scalar: Scalar,
    numbers: Arc<Numbers>,
    offset: u64,
    /// Alone in its storage and filling it, so that it needs no other tensor to share it with.
    is_whole: bool,
    class: Option<Py<PyType>>,
    requires_grad: bool,
}

impl TensorPlan {
    /// The plans of all tensors. `class_of` judges classes other than `Tensor`.
    pub(super) fn all(
        manifest: &Manifest,
        mut class_of: impl FnMut(TensorClass) -> PyResult<Option<Py<PyType>>>,
    ) -> PyResult<Vec<Self>> {
        let mut counts = vec![0_u32; manifest.storages().len()];
        for tensor in manifest.tensors() {
            counts[tensor.storage.index()] += 1;
        }
        manifest
            .tensors()
            .iter()
            .map(|tensor| {
                let storage = manifest.storages()[tensor.storage.index()];
                let numbers = Numbers::new(&tensor.shape, &tensor.strides);
                let item = usize::try_from(tensor.scalar.bytes()).unwrap_or(usize::MAX);
                let extent = numbers.needed_bytes(item).map(|bytes| bytes as u64);
                let is_whole = counts[tensor.storage.index()] == 1
                    && tensor.offset == 0
                    && storage.sharing != Sharing::Absent
                    && extent == Some(storage.bytes)
                    && storage.bytes > 0;
                Ok(Self {
                    storage: tensor.storage.index(),
                    scalar: tensor.scalar,
                    numbers: Arc::new(numbers),
                    offset: tensor.offset,
                    is_whole,
                    class: class_of(tensor.class)?,
                    requires_grad: tensor.requires_grad,
                })
            })
            .collect()
    }

    /// Makes the tensor, its Python attributes apart.
    pub(super) fn make<'py>(
        &self,
        py: Python<'py>,
        torch: &Torch,
        storages: &mut Storages<'_, 'py>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let tensor = if self.is_whole {
            torch.tensor(py, &storages.places[self.storage], self.scalar, &self.numbers, 0)?
        } else {
            let bytes = storages.whole(py, torch, self.storage)?;
            torch.view(&bytes, self.scalar.name(), &self.numbers, self.offset)?
        };
        // While it is a plain tensor still: a subclass may have a `__setattr__`.
        if self.requires_grad {
            tensor.setattr(intern!(py, "requires_grad"), true)?;
        }
        if let Some(class) = &self.class {
            // What torch does itself when a lazy parameter gets its values.
            tensor.setattr(intern!(py, "__class__"), class.bind(py))?;
        }
        Ok(tensor)
    }
}

/// Where the storages lie for one opening, and the tensors over whole ones that views are made of.
pub(super) struct Storages<'a, 'py> {
    pub(super) places: Vec<Place>,
    wholes: Vec<Option<Bound<'py, PyAny>>>,
    manifest: &'a Manifest,
}

impl<'a, 'py> Storages<'a, 'py> {
    pub(super) fn new(manifest: &'a Manifest, places: Vec<Place>) -> Self {
        let wholes = vec![None; places.len()];
        Self { places, wholes, manifest }
    }

    /// All bytes of a storage as one tensor.
    fn whole(
        &mut self,
        py: Python<'py>,
        torch: &Torch,
        index: usize,
    ) -> PyResult<Bound<'py, PyAny>> {
        if let Some(whole) = &self.wholes[index] {
            return Ok(whole.clone());
        }
        let storage = self.manifest.storages()[index];
        let whole = if storage.sharing == Sharing::Absent || storage.bytes == 0 {
            let is_absent = storage.sharing == Sharing::Absent;
            torch.absent.bind(py).call1((storage.bytes, is_absent))?
        } else {
            torch.bytes(py, &self.places[index], storage.bytes)?
        };
        self.wholes[index] = Some(whole.clone());
        Ok(whole)
    }
}
