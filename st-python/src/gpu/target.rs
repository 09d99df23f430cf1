//! What is read into: a new tensor of torch, or the caller's own.

use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use shared_tensor::service::cuda::Stream as Queue;

use super::OnGpu;
use super::foreign::{self, Exported};
use super::lent::is_copy;
use super::queue::failed;
use super::torch::Way;
use crate::arrays::tuple;
use crate::sys;
use crate::sys::dlpack::{CUDA, Seen};

/// Where a frame goes.
pub(super) struct Target<'py> {
    object: Bound<'py, PyAny>,
    pub(super) address: u64,
    order: Order<'py>,
}

/// Behind what a frame is queued, and what is queued behind it.
enum Order<'py> {
    /// Torch's current stream. `true` if the tensor was there before.
    Torch { way: &'static Way, queue: Queue, is_callers: bool },
    /// A stream of ours, which waits for that of a library, and that for ours.
    Beside { then: Option<usize>, _capsule: Bound<'py, PyAny> },
}

impl<'py> Target<'py> {
    /// In which stream the copy is queued.
    pub(super) fn queue<'a>(&'a self, gpu: &'a OnGpu) -> PyResult<&'a Queue> {
        match &self.order {
            Order::Torch { queue, .. } => Ok(queue),
            Order::Beside { .. } => Ok(gpu.beside()?.stream()),
        }
    }

    /// The filled object, for whoever goes on in its library's current stream.
    pub(super) fn filled(self, gpu: &OnGpu) -> PyResult<Bound<'py, PyAny>> {
        match &self.order {
            Order::Torch { way, is_callers: true, .. } => way.has_changed(&self.object),
            Order::Torch { .. } => {}
            Order::Beside { then: Some(handle), .. } => {
                let stream = sys::stream_of_a_call(*handle);
                gpu.beside()?.before(&stream).map_err(|error| failed(&error))?;
            }
            // A library that does not say where it goes on finds the frame there.
            Order::Beside { then: None, .. } => {
                gpu.synchronize(self.object.py(), gpu.beside()?.stream())?;
            }
        }
        Ok(self.object)
    }
}

impl OnGpu {
    /// A new tensor for a frame.
    pub(super) fn fresh<'py>(&self, py: Python<'py>) -> PyResult<Target<'py>> {
        let way = Way::needed(py)?;
        let object = self.fresh_tensor(py)?;
        let address = way.look(&object)?.address;
        let queue = way.queue(py, self.ordinal)?;
        Ok(Target { object, address, order: Order::Torch { way, queue, is_callers: false } })
    }

    /// The caller's tensor, if a frame can be put into it as it is.
    pub(super) fn target<'py>(&self, out: &Bound<'py, PyAny>) -> PyResult<Target<'py>> {
        let py = out.py();
        if is_copy(out)? == Some(false) {
            return Err(PyValueError::new_err(format!(
                "stream '{}': out is a frame in place, which others read: pass a tensor of your own",
                self.stream.name()
            )));
        }
        if let Some(way) = Way::known(py)?
            && way.is_plain(out)
        {
            let seen = way.look(out).map_err(|_| self.not_a_target(out))?;
            self.check_target(&seen, out)?;
            if out.getattr(intern!(py, "requires_grad"))?.is_truthy()?
                || Way::is_marked(out, &self.kind)?
            {
                return Err(PyValueError::new_err(format!(
                    "stream '{}': out must be a tensor without history, such as torch.empty makes: \
                     pass out.detach() or a clone of it",
                    self.stream.name()
                )));
            }
            let queue = way.queue(py, self.ordinal)?;
            let order = Order::Torch { way, queue, is_callers: true };
            return Ok(Target { object: out.clone(), address: seen.address, order });
        }
        match foreign::device_of(out)? {
            Some(device) if foreign::is_on_gpu(device, self.ordinal) => {
                let then = foreign::stream_of(out)?;
                let beside = self.beside()?;
                let Exported { seen, capsule } = foreign::exported(out, beside.stream())?;
                self.check_target(&seen, out)?;
                let order = Order::Beside { then, _capsule: capsule };
                Ok(Target { object: out.clone(), address: seen.address, order })
            }
            _ => Err(self.not_a_target(out)),
        }
    }

    fn check_target(&self, seen: &Seen, out: &Bound<'_, PyAny>) -> PyResult<()> {
        if seen.device.kind != CUDA || seen.device.id != self.ordinal {
            return Err(self.not_a_target(out));
        }
        let name = self.stream.name();
        if seen.data_type != self.kind.data_type || *seen.shape != *self.kind.numbers.shape() {
            let kind = out.getattr("dtype").and_then(|it| it.str().map(|it| it.to_string()));
            return Err(PyValueError::new_err(format!(
                "stream '{name}': out must be {} of shape {}, got {} of shape {}",
                self.kind.scalar,
                tuple(self.kind.numbers.shape()),
                kind.unwrap_or_else(|_| "another type".to_owned()),
                tuple(&seen.shape)
            )));
        }
        if !seen.is_dense() || seen.is_read_only {
            return Err(PyValueError::new_err(format!(
                "stream '{name}': out must be C-contiguous and writable, and is not"
            )));
        }
        Ok(())
    }

    #[cold]
    fn not_a_target(&self, out: &Bound<'_, PyAny>) -> PyErr {
        let kind = out.get_type();
        let kind = kind.name().map_or_else(|_| "something".to_owned(), |name| name.to_string());
        let place = out.getattr("device").and_then(|it| it.str().map(|it| format!(" on {it}")));
        PyValueError::new_err(format!(
            "stream '{}': out must be a tensor on cuda:{}, where this handle reads, got a {kind}{}: arrays of \
             the host are for safe CPU reads, by handles on memory of the host",
            self.stream.name(),
            self.ordinal,
            place.unwrap_or_default()
        ))
    }
}
