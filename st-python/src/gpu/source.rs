//! What is written: a tensor of the GPU as it is or as torch converts it, or memory of the host.

use std::sync::Arc;

use numpy::PyUntypedArray;
use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use shared_tensor::service::cuda::Stream as Queue;

use super::foreign::{self, Exported};
use super::torch::Way;
use super::{Kind, OnGpu};
use crate::arrays::{Frames, Input};
use crate::sys::dlpack::{CUDA, Device, Seen};

/// A frame to be written.
pub(super) enum Source<'py> {
    /// Dense memory of the device, to be read in the order of this stream.
    Device {
        address: u64,
        queue: Arc<Queue>,
        kept: Kept<'py>,
    },
    Host(Input<'py>),
}

/// What keeps the memory of a source.
pub(crate) enum Kept<'py> {
    /// Its library gives it to nobody who is not queued behind us: until the call's end is enough.
    UntilQueued(Bound<'py, PyAny>),
    /// Until the work is done.
    UntilDone(Bound<'py, PyAny>),
}

impl Kind {
    /// Whether a tensor can be copied from as it is.
    fn fits(&self, seen: &Seen, ordinal: i32) -> bool {
        foreign::is_on_gpu(seen.device, ordinal)
            && seen.data_type == self.data_type
            && *seen.shape == *self.numbers.shape()
            && seen.is_dense()
    }
}

impl OnGpu {
    /// `value` as a frame, converted as the handle's casting rule allows.
    pub(super) fn source<'py>(
        &self,
        frames: &Frames,
        value: &Bound<'py, PyAny>,
    ) -> PyResult<Source<'py>> {
        let py = value.py();
        let way = Way::known(py)?;
        // Of those without memory torch itself says below what they lack.
        if let Some(way) = way
            && way.is_plain(value)
            && let Ok(seen) = way.look(value)
        {
            if seen.device.kind != CUDA {
                return frames.input(value).map(Source::Host);
            }
            if self.kind.fits(&seen, self.ordinal) && !Way::is_marked(value, &self.kind)? {
                return self.of_torch(way, seen.address, value.clone());
            }
        }
        if let Some(way) = way
            && way.is_tensor(value)?
        {
            if !value.getattr(intern!(py, "is_cuda"))?.is_truthy()? {
                return frames.input(value).map(Source::Host);
            }
            return self.converted(frames, way, value);
        }
        // An array says where it is at once, others are asked.
        if value.cast::<PyUntypedArray>().is_ok() {
            return frames.input(value).map(Source::Host);
        }
        match foreign::device_of(value)? {
            Some(device) if device.kind == CUDA => self.of_others(frames, value, device),
            None if value.hasattr(intern!(py, "__cuda_array_interface__"))? => {
                self.of_an_interface(frames, value)
            }
            _ => frames.input(value).map(Source::Host),
        }
    }

    fn of_torch<'py>(
        &self,
        way: &Way,
        address: u64,
        tensor: Bound<'py, PyAny>,
    ) -> PyResult<Source<'py>> {
        let queue = Arc::new(way.queue(tensor.py(), self.ordinal)?);
        Ok(Source::Device { address, queue, kept: Kept::UntilQueued(tensor) })
    }

    /// A tensor of torch's as the frames are, by work in torch's current stream.
    #[cold]
    fn converted<'py>(
        &self,
        frames: &Frames,
        way: &Way,
        value: &Bound<'py, PyAny>,
    ) -> PyResult<Source<'py>> {
        let py = value.py();
        let torch = py.import("torch")?;
        let shape: Vec<i64> = value.getattr("shape")?.extract()?;
        let (own, wanted) = (value.getattr("dtype")?, torch.getattr(self.kind.scalar.name())?);
        if shape != self.kind.numbers.shape() {
            return Err(frames.wrong_shape_of(&shape, &own.str()?.to_string()));
        }
        if !own.eq(&wanted)? && !is_allowed(&torch, &own, &wanted, frames.casting())? {
            return Err(frames.refused_cast(&own.str()?.to_string()));
        }
        let mut tensor = value.call_method0("detach")?;
        for mark in ["resolve_conj", "resolve_neg"] {
            tensor = tensor.call_method0(mark)?;
        }
        let keywords = PyDict::new(py);
        keywords.set_item("dtype", &wanted)?;
        keywords.set_item("device", torch.call_method1("device", ("cuda", self.ordinal))?)?;
        keywords.set_item("non_blocking", true)?;
        tensor = tensor.call_method("to", (), Some(&keywords))?.call_method0("contiguous")?;
        if !way.is_plain(&tensor) {
            tensor = tensor.call_method1("as_subclass", (torch.getattr("Tensor")?,))?;
        }
        let seen = way.look(&tensor)?;
        if !self.kind.fits(&seen, self.ordinal) {
            return Err(PyTypeError::new_err(format!(
                "stream '{}': torch makes no dense tensor of {} of a {}",
                self.stream.name(),
                self.kind.scalar,
                value.get_type().name()?
            )));
        }
        self.of_torch(way, seen.address, tensor)
    }

    /// A tensor of another library.
    fn of_others<'py>(
        &self,
        frames: &Frames,
        value: &Bound<'py, PyAny>,
        device: Device,
    ) -> PyResult<Source<'py>> {
        let queue = self.own_queue()?;
        if foreign::is_on_gpu(device, self.ordinal) {
            let Exported { seen, capsule } = foreign::exported(value, &queue)?;
            if *seen.shape != *self.kind.numbers.shape() {
                let kind = value.getattr("dtype").and_then(|it| it.str().map(|it| it.to_string()));
                return Err(frames.wrong_shape_of(&seen.shape, &kind.unwrap_or_default()));
            }
            if self.kind.fits(&seen, self.ordinal) {
                let kept = Kept::UntilDone(capsule);
                return Ok(Source::Device { address: seen.address, queue, kept });
            }
        }
        self.by_torch(frames, value, "from_dlpack")
    }

    /// A tensor that only numba's interface tells of.
    fn of_an_interface<'py>(
        &self,
        frames: &Frames,
        value: &Bound<'py, PyAny>,
    ) -> PyResult<Source<'py>> {
        self.by_torch(frames, value, "as_tensor")
    }

    /// What has to be converted, which takes kernels: torch has them.
    #[cold]
    fn by_torch<'py>(
        &self,
        frames: &Frames,
        value: &Bound<'py, PyAny>,
        import: &str,
    ) -> PyResult<Source<'py>> {
        let py = value.py();
        let way = Way::needed(py).map_err(|error| {
            PyTypeError::new_err(format!(
                "stream '{}' takes dense arrays of {} on cuda:{} as they are, and other arrays of a GPU \
                 only where torch can convert them: {error}",
                self.stream.name(),
                self.kind.scalar,
                self.ordinal
            ))
        })?;
        let tensor = py.import("torch")?.call_method1(import, (value,))?;
        let source = self.converted(frames, way, &tensor)?;
        // A conversion may have had nothing to do, and then this is the library's own memory still.
        Ok(match source {
            Source::Device { address, queue, kept: Kept::UntilQueued(tensor) } => {
                Source::Device { address, queue, kept: Kept::UntilDone(tensor) }
            }
            source => source,
        })
    }
}

/// Whether a tensor's type may be converted to the stream's: NumPy's rule, and torch's for types that NumPy
/// lacks.
fn is_allowed(
    torch: &Bound<'_, PyAny>,
    own: &Bound<'_, PyAny>,
    wanted: &Bound<'_, PyAny>,
    casting: &str,
) -> PyResult<bool> {
    if casting == "unsafe" {
        return Ok(true);
    }
    let names = [own, wanted].map(|it| it.str().map(|it| it.to_string().replace("torch.", "")));
    let [own_name, wanted_name] = names;
    let (own_name, wanted_name) = (own_name?, wanted_name?);
    let is_beyond = |name: &str| name.starts_with("bfloat") || name.starts_with("float8");
    if !is_beyond(&own_name) && !is_beyond(&wanted_name) {
        let numpy = torch.py().import("numpy")?;
        return numpy.call_method1("can_cast", (own_name, wanted_name, casting))?.is_truthy();
    }
    Ok(casting == "same_kind" && torch.call_method1("can_cast", (own, wanted))?.is_truthy()?)
}
