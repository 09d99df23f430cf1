//! The way into torch for frames on a GPU.
//!
//! From release 2.10 on torch has a table of functions that tell what a tensor is like and which stream is
//! current, without a call of Python's; older ones are asked for attributes.

use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::exceptions::{PyImportError, PyRuntimeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple, PyType};
use shared_tensor::manifest::Scalar;
use shared_tensor::service::cuda::Stream as Queue;

use super::{Kind, OnGpu};
use crate::modules::plan::tensors::{Torch, data_type};
use crate::sys;
use crate::sys::dlpack::{CUDA, Device, Seen};
use crate::sys::place::Place;

/// What of torch is needed again and again.
pub(super) struct Way {
    torch: Py<Torch>,
    /// Whose objects the table knows: `Tensor`, `Parameter`.
    classes: [Py<PyType>; 2],
    /// `torch._C._cuda_getCurrentRawStream`
    current_stream: Py<PyAny>,
    increment_version: Option<Py<PyAny>>,
}

static WAY: PyOnceLock<Way> = PyOnceLock::new();
/// That torch is there, and finds no GPU: nothing that happens later changes that.
static IS_BLIND: AtomicBool = AtomicBool::new(false);

impl Way {
    /// The way in, if the program uses torch with GPUs. Torch is not imported: who has a tensor has done so.
    pub(super) fn known(py: Python<'_>) -> PyResult<Option<&'static Self>> {
        if let Some(way) = WAY.get(py) {
            return Ok(Some(way));
        }
        if IS_BLIND.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let modules = py.import("sys")?.getattr("modules")?.cast_into::<PyDict>()?;
        let Some(torch) = modules.get_item("torch")?.filter(|it| !it.is_none()) else {
            return Ok(None);
        };
        // Another thread may be in the middle of importing it.
        let Ok(is_available) = torch.getattr("cuda").and_then(|it| it.getattr("is_available"))
        else {
            return Ok(None);
        };
        if !is_available.call0()?.is_truthy()? {
            IS_BLIND.store(true, Ordering::Relaxed);
            return Ok(None);
        }
        Self::made(&torch).map(Some)
    }

    /// The way in, for tensors to be made.
    pub(super) fn needed(py: Python<'_>) -> PyResult<&'static Self> {
        if let Some(way) = WAY.get(py) {
            return Ok(way);
        }
        py.import("torch").map_err(|error| {
            PyImportError::new_err(format!(
                "torch is needed to make tensors of frames on a GPU, and cannot be imported: {error}; \
                 another library's array can be passed as out=, or made by its from_dlpack(stream)"
            ))
        })?;
        Self::known(py)?.ok_or_else(|| {
            PyRuntimeError::new_err(
                "torch finds no GPU here, so it cannot make tensors of frames on one; another \
                 library's array can be passed as out=, or made by its from_dlpack(stream)",
            )
        })
    }

    fn made(torch: &Bound<'_, PyAny>) -> PyResult<&'static Self> {
        let py = torch.py();
        torch.getattr("cuda")?.call_method0("init")?;
        let way = py.import("shared_tensor._modules._torch")?.getattr("TORCH")?;
        let internal = torch.getattr("_C")?;
        let class = |of: &str| torch.getattr(of).and_then(|it| Ok(it.cast_into::<PyType>()?));
        let parameter = torch.getattr("nn")?.getattr("Parameter")?.cast_into::<PyType>()?;
        let made = Self {
            torch: way.cast_into::<Torch>()?.unbind(),
            classes: [class("Tensor")?.unbind(), parameter.unbind()],
            current_stream: internal.getattr("_cuda_getCurrentRawStream")?.unbind(),
            increment_version: internal.getattr("_increment_version").ok().map(Bound::unbind),
        };
        Ok(WAY.get_or_init(py, || made))
    }

    /// Whether this is a tensor as torch makes them, and none of a class with a mind of its own.
    #[inline]
    pub(super) fn is_plain(&self, value: &Bound<'_, PyAny>) -> bool {
        let class = value.get_type();
        self.classes.iter().any(|known| class.is(known))
    }

    pub(super) fn is_tensor(&self, value: &Bound<'_, PyAny>) -> PyResult<bool> {
        value.is_instance(self.classes[0].bind(value.py()))
    }

    /// What a plain tensor is like.
    pub(super) fn look(&self, tensor: &Bound<'_, PyAny>) -> PyResult<Seen> {
        match self.torch.get().exchange().look(tensor)? {
            Some(seen) => Ok(seen),
            None => by_attributes(tensor),
        }
    }

    /// Whether conjugation or a sign is kept as a mark on a tensor, so that its memory does not say all.
    pub(super) fn is_marked(tensor: &Bound<'_, PyAny>, kind: &Kind) -> PyResult<bool> {
        let py = tensor.py();
        if tensor.call_method0(intern!(py, "is_neg"))?.is_truthy()? {
            return Ok(true);
        }
        Ok(matches!(kind.scalar, Scalar::C64 | Scalar::C128)
            && tensor.call_method0(intern!(py, "is_conj"))?.is_truthy()?)
    }

    /// Torch's current stream of a GPU.
    pub(super) fn queue(&self, py: Python<'_>, ordinal: i32) -> PyResult<Queue> {
        let handle = match self.torch.get().exchange().current_stream(py, ordinal)? {
            Some(handle) => handle,
            None => self.current_stream.bind(py).call1((ordinal,))?.extract()?,
        };
        Ok(sys::stream_of_torch(handle))
    }

    /// A tensor over a frame, which it keeps.
    pub(super) fn tensor<'py>(
        &self,
        py: Python<'py>,
        place: &Place,
        kind: &Kind,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.torch.get().tensor(py, place, kind.scalar, &kind.numbers, 0)
    }

    /// Tells autograd that a tensor has other content now.
    pub(super) fn has_changed(&self, tensor: &Bound<'_, PyAny>) {
        if let Some(increment) = &self.increment_version {
            let py = tensor.py();
            // Tensors of inference mode have no version.
            let _ = PyTuple::new(py, [tensor]).and_then(|it| increment.bind(py).call1((it,)));
        }
    }
}

/// What a tensor is like, asked for one by one.
fn by_attributes(tensor: &Bound<'_, PyAny>) -> PyResult<Seen> {
    let device = tensor.getattr("device")?;
    let kind = if tensor.getattr("is_cuda")?.is_truthy()? { CUDA } else { 0 };
    let id = device.getattr("index")?.extract::<Option<i32>>()?.unwrap_or(0);
    let name = tensor.getattr("dtype")?.str()?.to_string();
    let scalar = Scalar::from_name(name.strip_prefix("torch.").unwrap_or(&name));
    let shape: Vec<i64> = tensor.getattr("shape")?.extract()?;
    let strides: Vec<i64> = tensor.call_method0("stride")?.extract()?;
    let nothing = sys::dlpack::DataType { code: 0, bits: 0, lanes: 0 };
    Ok(Seen {
        address: tensor.call_method0("data_ptr")?.extract()?,
        device: Device { kind, id },
        data_type: scalar.map_or(nothing, data_type),
        shape: shape.into(),
        strides: strides.into(),
        is_read_only: false,
    })
}

/// How torch makes a tensor for a frame.
pub(super) struct Fresh {
    /// `new_empty` of an empty tensor of the right type on the right GPU.
    new_empty: Py<PyAny>,
    /// Each size is an argument, which torch takes in two thirds of the time that it needs for a tuple.
    sizes: Py<PyTuple>,
}

impl OnGpu {
    /// A new tensor for a frame, on torch's current stream. By a call of Python's: what the table of functions
    /// allocates is little quicker, and no tensor of torch's allocator, so that `record_stream` would do nothing.
    pub(super) fn fresh_tensor<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let fresh = self.fresh.get_or_try_init(py, || {
            let torch = py.import("torch")?;
            let keywords = PyDict::new(py);
            keywords.set_item("dtype", torch.getattr(self.kind.scalar.name())?)?;
            keywords.set_item("device", torch.call_method1("device", ("cuda", self.ordinal))?)?;
            let empty = torch.call_method("empty", (0,), Some(&keywords))?;
            // Streams have one dimension at least.
            let sizes = PyTuple::new(py, self.kind.numbers.shape())?;
            let new_empty = empty.getattr("new_empty")?.unbind();
            Ok::<_, PyErr>(Fresh { new_empty, sizes: sizes.unbind() })
        })?;
        fresh.new_empty.bind(py).call1(fresh.sizes.bind(py).clone())
    }
}
