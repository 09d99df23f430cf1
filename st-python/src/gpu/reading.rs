//! Reading on a GPU, copied.

use pyo3::prelude::*;
use shared_tensor::service::cuda::Stream as Queue;
use shared_tensor::stream::{GpuReader, Publication, Reader, Wait};

use super::OnGpu;
use crate::errors;
use crate::handle::{Handle, Inner};
use crate::patience::Patience;
use crate::reading::Which;

impl Which {
    /// Queues a copy of the frame to an address.
    fn queue(
        self,
        reader: &mut GpuReader,
        queue: &Queue,
        to: u64,
        wait: &Wait<'_>,
    ) -> shared_tensor::Result<Publication> {
        match self {
            Self::Newest => reader.latest_into(queue, to, wait),
            Self::NewestAfter(after) => {
                reader.reader().wait(after, wait)?;
                reader.latest_into(queue, to, wait)
            }
            Self::Next => reader.next_into(queue, to, wait),
        }
    }
}

/// A reader that waits, of a handle that reads anywhere.
pub(crate) enum AnyReader {
    Host(Reader),
    Gpu(GpuReader),
}

impl AnyReader {
    /// What says which frames there are.
    pub(crate) fn waiting(&mut self) -> &mut Reader {
        match self {
            Self::Host(reader) => reader,
            Self::Gpu(reader) => reader.reader(),
        }
    }
}

impl Handle {
    /// A reader of its own that has seen the frames up to `after`.
    pub(crate) fn reader_after(&self, after: u64) -> PyResult<AnyReader> {
        let inner = self.live()?;
        let mut reader = match inner.gpu() {
            Some(gpu) => AnyReader::Gpu(gpu.reader().map_err(|error| errors::raised(&error))?),
            None => AnyReader::Host(inner.stream.reader_with(self.behaviour)),
        };
        reader.waiting().seek(after);
        Ok(reader)
    }

    /// Reads a frame into `out`, or into a new tensor. Other Python threads run meanwhile: the driver may have
    /// to wait for room in a stream.
    pub(crate) fn copy_on_gpu<'py, T>(
        &self,
        py: Python<'py>,
        (inner, gpu): (&Inner, &OnGpu),
        which: Which,
        out: Option<&Bound<'py, PyAny>>,
        patience: Patience,
        tell: impl FnOnce(&mut Publication) -> T,
    ) -> PyResult<(Bound<'py, PyAny>, T)> {
        let target = match out {
            Some(out) => gpu.target(out)?,
            None => gpu.fresh(py)?,
        };
        let last = self.last_of(inner);
        let (queue, to) = (target.queue(gpu)?, target.address);
        let mut read = None;
        self.run(py, patience, false, |wait| {
            read = Some(gpu.with_reader(last, |reader| which.queue(reader, queue, to, wait))?);
            Ok(())
        })?;
        let publication = read.as_mut().expect("a read that succeeds has read a frame");
        self.has_read(inner.stream.generation(), publication);
        let told = tell(publication);
        Ok((target.filled(gpu)?, told))
    }
}
