//! Frames in place: what is made over them, and what they hold on to.

use std::sync::Arc;

use pyo3::exceptions::PyBufferError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use shared_tensor::service::cuda::{Copies, Stream as Queue};
use shared_tensor::stream::{GpuLease, GpuWriter, OnFull, Publication, Stream};

use super::queue::failed;
use super::torch::Way;
use super::{Kind, OnGpu, foreign};
use crate::errors;
use crate::handle::{Handle, Inner};
use crate::patience::Patience;
use crate::reading::Which;
use crate::sys;
use crate::sys::dlpack::{CUDA, DataType, Numbers};
use crate::sys::place::Place;

/// The attribute of a tensor that says which lease it is over.
macro_rules! attribute {
    ($py:expr) => {
        intern!($py, "_shared_tensor_lease")
    };
}

/// Keeps the frame under a tensor in place. Its end is queued when the tensor and all views of it are gone.
#[pyclass(frozen, module = "shared_tensor._native")]
#[derive(Debug)]
pub(crate) struct LentOnGpu {
    pub(crate) lease: Arc<GpuLease>,
}

/// Keeps the memory under a tensor through which a frame is written.
#[derive(Debug)]
struct BeingWritten {
    _writer: GpuWriter,
    _stream: Stream,
}

/// A frame on a GPU for libraries that know DLPack, where torch has no part in it.
///
/// `cupy.from_dlpack(frame)` and the like give an array over the same memory, which holds the frame.
#[pyclass(frozen, weakref, module = "shared_tensor._native")]
pub(crate) struct FrameOnGpu {
    place: Place,
    ordinal: i32,
    kind: (DataType, Arc<Numbers>, &'static str),
    /// In whose order the frame is there.
    queue: Arc<Queue>,
    beside: Arc<Copies>,
    lease: Option<Arc<GpuLease>>,
}

#[pymethods]
impl FrameOnGpu {
    /// The shape of the frame.
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.kind.1.shape())
    }

    /// The element type by its NumPy name.
    #[getter]
    fn dtype_name(&self) -> &'static str {
        self.kind.2
    }

    /// Where the frame is, for the GPU.
    #[getter]
    fn address(&self) -> usize {
        self.place.address()
    }

    /// Where the frame is: on a GPU with a number.
    fn __dlpack_device__(&self) -> (i32, i32) {
        (CUDA, self.ordinal)
    }

    /// Export the frame. What is queued in `stream` from now on finds it.
    #[pyo3(signature = (*, stream=None, max_version=None, dl_device=None, copy=None))]
    fn __dlpack__<'py>(
        &self,
        py: Python<'py>,
        stream: Option<isize>,
        max_version: Option<(u32, u32)>,
        dl_device: Option<(i32, i32)>,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyAny>> {
        if copy == Some(true) || dl_device.is_some_and(|device| device != (CUDA, self.ordinal)) {
            return Err(PyBufferError::new_err(format!(
                "a frame in place is exported where it is, on cuda:{}, and as it is: copy the array \
                 afterwards, or take a copy with from_dlpack(stream)",
                self.ordinal
            )));
        }
        if let Some(handle) = foreign::consumer(stream)?
            && handle != self.queue.as_raw()
        {
            let ordered = || {
                self.beside.after(&self.queue)?;
                self.beside.before(&sys::stream_of_a_call(handle))
            };
            py.detach(ordered).map_err(|error| failed(&error))?;
        }
        let is_versioned = max_version.is_some_and(|(major, _)| major >= 1);
        self.place.capsule(py, self.kind.0, &self.kind.1, is_versioned)
    }

    fn __repr__(&self) -> String {
        format!("<frame on cuda:{} at {:#x}>", self.ordinal, self.place.address())
    }
}

/// The lease under a tensor or frame, or under what it is a view of.
pub(crate) fn lease_of(object: &Bound<'_, PyAny>) -> PyResult<Option<Arc<GpuLease>>> {
    if let Ok(frame) = object.cast::<FrameOnGpu>() {
        return Ok(frame.get().lease.clone());
    }
    let mut holder = Some(object.clone());
    // Torch makes the base of a view the tensor that owns the memory.
    for _ in 0..2 {
        let Some(current) = holder else { break };
        if let Some(lent) = current.getattr_opt(attribute!(object.py()))? {
            return Ok(Some(Arc::clone(&lent.cast::<LentOnGpu>()?.get().lease)));
        }
        holder = current.getattr_opt(intern!(object.py(), "_base"))?.filter(|base| !base.is_none());
    }
    Ok(None)
}

impl OnGpu {
    /// A tensor of torch over a frame that `keep` holds, or what other libraries make an array of.
    fn over<'py>(
        &self,
        py: Python<'py>,
        place: Place,
        queue: Arc<Queue>,
        lease: Option<Arc<GpuLease>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        if let Some(way) = Way::known(py)? {
            let tensor = way.tensor(py, &place, &self.kind)?;
            if let Some(lease) = lease {
                tensor.setattr(attribute!(py), LentOnGpu { lease })?;
            }
            return Ok(tensor);
        }
        let Kind { scalar, data_type, numbers, .. } = &self.kind;
        let frame = FrameOnGpu {
            place,
            ordinal: self.ordinal,
            kind: (*data_type, Arc::clone(numbers), scalar.name()),
            queue,
            beside: Arc::clone(self.beside()?),
            lease,
        };
        Ok(Bound::new(py, frame)?.into_any())
    }

    fn place(&self, lease: &Arc<GpuLease>) -> Place {
        Place::on_device(lease.address(), lease.len(), self.ordinal, Arc::clone(lease))
    }

    /// The frame that is being written, at an address of the device, in the order of `queue`.
    pub(crate) fn being_written<'py>(
        &self,
        py: Python<'py>,
        address: u64,
        queue: Arc<Queue>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let writer = self.writer().map_err(|error| errors::raised(&error))?.clone();
        let kept = BeingWritten { _writer: writer, _stream: self.stream.clone() };
        self.over(py, Place::on_device(address, self.kind.bytes, self.ordinal, kept), queue, None)
    }
}

impl Handle {
    fn lease_in(
        &self,
        py: Python<'_>,
        (inner, gpu): (&Inner, &OnGpu),
        on_full: OnFull,
        queue: &Arc<Queue>,
    ) -> PyResult<(Arc<GpuLease>, Publication)> {
        let last = self.last_of(inner);
        let lease = self.run(py, Patience::endless(), false, |wait| {
            gpu.with_reader(last, |reader| reader.lease(queue, on_full, wait))
        })?;
        let mut publication = *lease.publication();
        self.has_read(inner.stream.generation(), &mut publication);
        Ok((Arc::new(lease), publication))
    }

    /// The newest frame in place, in the order of torch's current stream, or of the default one without torch.
    pub(crate) fn lease_on_gpu<'py>(
        &self,
        py: Python<'py>,
        (inner, gpu): (&Inner, &OnGpu),
        on_full: OnFull,
    ) -> PyResult<(Bound<'py, PyAny>, Publication)> {
        let queue = gpu.current_queue(py)?;
        let (lease, publication) = self.lease_in(py, (inner, gpu), on_full, &queue)?;
        let frame = gpu.over(py, gpu.place(&lease), queue, Some(lease))?;
        Ok((frame, publication))
    }

    /// The newest frame for another library: a private copy, or in place.
    pub(crate) fn dlpack_on_gpu<'py>(
        &self,
        py: Python<'py>,
        (inner, gpu): (&Inner, &OnGpu),
        stream: Option<isize>,
        max_version: Option<(u32, u32)>,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let is_versioned = max_version.is_some_and(|(major, _)| major >= 1);
        let consumer = foreign::consumer(stream)?;
        let Kind { data_type, numbers, .. } = &gpu.kind;
        if copy == Some(false) {
            let queue = match consumer {
                Some(foreign::PER_THREAD) => {
                    return Err(PyBufferError::new_err(format!(
                        "stream '{}' gives no frame in place to a per-thread default stream, in which \
                         another thread could not end the use of it: leave copy=False out",
                        self.name
                    )));
                }
                Some(handle) => Arc::new(sys::stream_of_torch(handle)),
                None => gpu.current_queue(py)?,
            };
            let (lease, _) = self.lease_in(py, (inner, gpu), OnFull::Copy, &queue)?;
            return gpu.place(&lease).capsule(py, *data_type, numbers, is_versioned);
        }
        if Way::known(py)?.is_some() {
            let patience = Patience::endless();
            let (frame, ()) =
                self.copy_on_gpu(py, (inner, gpu), Which::Newest, None, patience, |_| ())?;
            return foreign::export_of_torch(&frame, stream, max_version);
        }
        let beside = gpu.beside()?;
        let last = self.last_of(inner);
        let copy = self.run(py, Patience::endless(), false, |wait| {
            gpu.with_reader(last, |reader| reader.lease_copy(beside.stream(), wait))
        })?;
        let mut publication = *copy.publication();
        self.has_read(inner.stream.generation(), &mut publication);
        if let Some(handle) = consumer {
            let theirs = sys::stream_of_torch(handle);
            py.detach(|| beside.before(&theirs)).map_err(|error| failed(&error))?;
            // They may use it for as long as they have it.
            py.detach(|| copy.used_on(&theirs)).map_err(|error| errors::raised(&error))?;
        } else {
            // Who names no stream cannot know for which one to wait.
            gpu.synchronize(py, beside.stream())?;
        }
        gpu.place(&Arc::new(copy)).capsule(py, *data_type, numbers, is_versioned)
    }
}

/// Whether the tensor in place is a private copy, because the ring had no slot to spare.
pub(crate) fn is_copy(object: &Bound<'_, PyAny>) -> PyResult<Option<bool>> {
    Ok(lease_of(object)?.map(|lease| lease.is_copy()))
}

/// Whether the slot under a tensor in place was taken away.
pub(crate) fn is_revoked(object: &Bound<'_, PyAny>) -> PyResult<Option<bool>> {
    Ok(lease_of(object)?.map(|lease| lease.is_revoked()))
}
