//! Writing on a GPU.

use std::sync::Arc;

use pyo3::prelude::*;
use shared_tensor::service::cuda::Stream as Queue;
use shared_tensor::stream::{GpuWriter, HostFrame, OwnedLocked, Source as From, Stamp, Wait};

use super::OnGpu;
use super::source::{Kept, Source};
use super::torch::Way;
use crate::arrays::{Frames, Input};
use crate::errors;
use crate::service::janitor;

/// A frame on its way to a GPU, whoever holds the lock.
pub(crate) struct Queued<'a> {
    writer: &'a GpuWriter,
    queue: Arc<Queue>,
    /// `None`: zeros.
    from: Option<From<'a>>,
}

impl Queued<'_> {
    /// Publishes it under the stream's lock.
    pub(crate) fn publish(
        &self,
        locked: &mut OwnedLocked,
        stamp: &Stamp,
    ) -> shared_tensor::Result<u64> {
        match self.from {
            Some(from) => locked.write_on(self.writer, &self.queue, from, stamp),
            None => locked.clear_on(self.writer, &self.queue, stamp),
        }
    }

    /// Takes the lock and publishes it.
    pub(crate) fn write(&self, stamp: &Stamp, wait: &Wait<'_>) -> shared_tensor::Result<u64> {
        match self.from {
            Some(from) => self.writer.write(&self.queue, from, stamp, wait),
            None => self.writer.clear(&self.queue, stamp, wait),
        }
    }
}

/// What is written, with what has to stay until then.
pub(crate) enum Given<'py> {
    Device {
        address: u64,
        queue: Arc<Queue>,
        kept: Kept<'py>,
    },
    Host {
        input: Input<'py>,
        queue: Arc<Queue>,
    },
    /// The page-locked buffer of the handle.
    Pinned {
        frame: Arc<HostFrame>,
        queue: Arc<Queue>,
    },
    Zeros {
        queue: Arc<Queue>,
    },
}

impl OnGpu {
    /// `value` as a frame.
    pub(crate) fn given<'py>(
        &self,
        frames: &Frames,
        value: &Bound<'py, PyAny>,
    ) -> PyResult<Given<'py>> {
        Ok(match self.source(frames, value)? {
            Source::Device { address, queue, kept } => Given::Device { address, queue, kept },
            Source::Host(input) => {
                // Nothing is queued there, but what is captured must not be written from.
                let queue = self.current_queue(value.py())?;
                match self.pinned_frame(input.bytes()) {
                    Some(frame) => Given::Pinned { frame, queue },
                    None => Given::Host { input, queue },
                }
            }
        })
    }

    /// A frame of zeros.
    pub(crate) fn zeros(&self, py: Python<'_>) -> PyResult<Given<'static>> {
        Ok(Given::Zeros { queue: self.current_queue(py)? })
    }

    /// Torch's current stream, or else the default one.
    pub(super) fn current_queue(&self, py: Python<'_>) -> PyResult<Arc<Queue>> {
        Ok(Arc::new(match Way::known(py)? {
            Some(way) => way.queue(py, self.ordinal)?,
            None => Queue::default_of_context(),
        }))
    }

    /// What a frame that is written in place begins with.
    pub(crate) fn to_begin(&self, py: Python<'_>) -> PyResult<(&GpuWriter, Arc<Queue>)> {
        let writer = self.writer().map_err(|error| errors::raised(&error))?;
        Ok((writer, self.current_queue(py)?))
    }

    /// How it is published.
    pub(crate) fn queued<'a>(&'a self, given: &'a Given<'_>) -> shared_tensor::Result<Queued<'a>> {
        let (queue, from) = match given {
            Given::Device { address, queue, .. } => (queue, Some(From::Device(*address))),
            Given::Host { input, queue } => (queue, Some(From::Host(input.bytes()))),
            Given::Pinned { frame, queue } => (queue, Some(From::Frame(frame))),
            Given::Zeros { queue } => (queue, None),
        };
        Ok(Queued { writer: self.writer()?, queue: Arc::clone(queue), from })
    }

    /// Lets go of what was written, as soon as that may be.
    pub(crate) fn let_go(&self, py: Python<'_>, given: Given<'_>) -> PyResult<()> {
        match given {
            Given::Device { kept: Kept::UntilDone(object), queue, .. } => {
                let kept = object.clone();
                let object = object.unbind();
                // A thread of the driver's calls it, which must not wait for the interpreter.
                let let_go = move || janitor::let_go(object);
                let called = py.detach(|| self.context.call_after(&queue, let_go));
                // The frame is published: that its memory cannot be kept for longer is no failure of that.
                let done = if called.is_ok() { Ok(()) } else { self.synchronize(py, &queue) };
                drop(kept);
                done
            }
            _ => Ok(()),
        }
    }
}
