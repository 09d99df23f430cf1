//! An open stream, as Python holds it.

mod closing;
mod following;
mod known;
mod opening;
mod waits;

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use pyo3::exceptions::{PyPermissionError, PyRuntimeError};
use pyo3::prelude::*;
use shared_tensor::lock::{InheritedMutex, PerProcess};
use shared_tensor::service::cuda::Uuid;
use shared_tensor::shm::Namespace;
use shared_tensor::stream::{ReaderOptions, Stream, Writer};

use crate::arrays::Frames;
use crate::errors;
use crate::gpu::{self, Attached, OnGpu};
use crate::ownership::Ownership;

use following::{Idle, Origin, Position};
use waits::Waits;

/// An open stream: the core that `shared_tensor.Stream` and `shared_tensor.streams.SharedMemory`
/// are layers over.
///
/// Threads may share a handle. Closing it ends its waits; arrays that it gave out stay valid.
#[pyclass(frozen, subclass, weakref, module = "shared_tensor._native")]
pub(crate) struct Handle {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) frames: Frames,
    pub(crate) readonly: bool,
    place: Place,
    /// Whether frames may be read and written, or only the lock and what is known be used.
    attached: bool,
    pub(crate) behaviour: ReaderOptions,
    pub(crate) ownership: Arc<Ownership>,
    pub(crate) closed: Arc<AtomicBool>,
    open: ArcSwapOption<Inner>,
    position: InheritedMutex<Position>,
    waits: PerProcess<Waits>,
    origin: ArcSwap<Origin>,
    namespace: Namespace,
}

/// Where a handle has its frames; known after closing, too.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// The GPU that the stream is on.
    home: Option<Uuid>,
    /// The number of the GPU that reads and writes them here.
    ordinal: Option<i32>,
    is_in_host_memory: bool,
}

/// What closing lets go of.
pub(crate) struct Inner {
    pub(crate) stream: Stream,
    reached: Attached,
    writer: OnceLock<Writer>,
    /// Readers that no thread uses at the moment.
    readers: PerProcess<Mutex<Idle>>,
}

/// What is open, during a call.
pub(crate) struct Live(Guard<Option<Arc<Inner>>>);

impl Deref for Live {
    type Target = Inner;

    #[inline]
    fn deref(&self) -> &Inner {
        self.0.as_ref().expect("checked when it was made")
    }
}

impl Inner {
    fn new(stream: Stream, reached: Attached) -> Self {
        Self { stream, reached, writer: OnceLock::new(), readers: PerProcess::new() }
    }

    /// The GPU on which frames are read and written, if that is where this handle does it.
    #[inline]
    pub(crate) fn gpu(&self) -> Option<&OnGpu> {
        match &self.reached {
            Attached::OnGpu(gpu) => Some(gpu),
            Attached::InHostMemory | Attached::Instead(_) => None,
        }
    }

    /// Why frames are read in the mirror, if their GPU was meant.
    fn reason_for_mirror(&self) -> Option<&str> {
        match &self.reached {
            Attached::Instead(reason) => Some(reason),
            _ => None,
        }
    }

    #[inline]
    pub(crate) fn writer_if_made(&self) -> Option<&Writer> {
        self.writer.get()
    }

    /// The writer of this handle; the first one starts to populate the ring's pages.
    pub(crate) fn writer(&self) -> shared_tensor::Result<&Writer> {
        if let Some(writer) = self.writer.get() {
            return Ok(writer);
        }
        let fresh = self.stream.writer()?;
        Ok(self.writer.get_or_init(|| fresh))
    }
}

impl Handle {
    /// What is open.
    ///
    /// # Errors
    /// `RuntimeError` after closing.
    #[inline]
    pub(crate) fn live(&self) -> PyResult<Live> {
        // While it is being closed no new call begins, or closing would wait for ever for a thread that
        // reads in a loop.
        if !self.closed.load(Ordering::Acquire) {
            let open = self.open.load();
            if open.is_some() {
                return Ok(Live(open));
            }
        }
        Err(errors::closed(&self.name))
    }

    /// What frames may be read from.
    ///
    /// # Errors
    /// As [`live`](Self::live); `RuntimeError` for handles that were opened without the payload.
    #[inline]
    pub(crate) fn readable(&self) -> PyResult<Live> {
        let inner = self.live()?;
        self.refuse_without_frames()?;
        Ok(inner)
    }

    /// What frames may be read from in memory of the host.
    ///
    /// # Errors
    /// As [`readable`](Self::readable); `RuntimeError` for frames that are on a GPU only.
    #[inline]
    pub(crate) fn readable_by_host(&self) -> PyResult<Live> {
        let inner = self.readable()?;
        if inner.gpu().is_some() && !gpu::is_in_host_memory(&inner.stream) {
            return Err(gpu::not_in_host_memory(&inner.stream));
        }
        Ok(inner)
    }

    #[inline]
    pub(crate) fn refuse_without_frames(&self) -> PyResult<()> {
        if self.attached {
            return Ok(());
        }
        Err(PyRuntimeError::new_err(format!(
            "stream '{}' was opened with attach=False, for its lock and what is known of it: open it \
             again to read or write frames",
            self.name
        )))
    }

    /// Whether what this handle writes goes through memory of the host.
    pub(crate) fn is_written_by_host(&self) -> bool {
        self.place.ordinal.is_none() && self.place.is_in_host_memory
    }

    /// The error of a call that is for GPUs.
    #[cold]
    pub(crate) fn not_on_gpu(&self) -> PyErr {
        PyRuntimeError::new_err(format!(
            "stream '{}': this handle is not attached to a GPU",
            self.name
        ))
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.open.load().is_none()
    }

    /// What may be written to.
    ///
    /// # Errors
    /// As [`live`](Self::live); `PermissionError` for read-only handles.
    pub(crate) fn writable(&self, what: &str) -> PyResult<Live> {
        let inner = self.live()?;
        self.refuse_if_readonly(what)?;
        Ok(inner)
    }

    fn refuse_if_readonly(&self, what: &str) -> PyResult<()> {
        if !self.readonly {
            return Ok(());
        }
        Err(PyPermissionError::new_err(format!(
            "stream '{}': this handle is read-only and cannot {what}; open the stream without readonly",
            self.name
        )))
    }
}
