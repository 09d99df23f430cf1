//! Streams whose frames are on a GPU.
//!
//! No call here waits for a device, unless memory of the host is to be copied or the frames are in the
//! stream's file: what is read and written is queued in a stream of CUDA, and whoever uses the result is
//! queued behind it.
//!
//! | file | idea |
//! |---|---|
//! | `place` | which GPU a handle uses, and attaching to it |
//! | `queue` | in which stream of CUDA something is queued |
//! | `torch` | the way into torch: what a tensor is like, new tensors, its current stream |
//! | `foreign` | tensors of other libraries, by DLPack |
//! | `source` | what is written |
//! | `target` | what is read into |
//! | `lent` | frames in place |
//! | `pinned` | memory of the host that devices read by themselves |
//! | `reading`, `writing` | the calls of a handle |

mod foreign;
mod lent;
mod pinned;
mod place;
mod queue;
mod reading;
mod source;
mod target;
mod torch;
mod writing;

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use pyo3::sync::PyOnceLock;
use shared_tensor::lock::PerProcess;
use shared_tensor::manifest::Scalar;
use shared_tensor::service::cuda::{Context, Copies, Stream as Queue};
use shared_tensor::stream::{GpuReader, GpuWriter, ReaderOptions, Stream, Wait};

pub(crate) use lent::{FrameOnGpu, LentOnGpu, is_copy, is_revoked};
pub(crate) use place::{
    Attached, Wanted, context_at, gpu_ordinal, is_in_host_memory, not_in_host_memory,
};
pub(crate) use reading::AnyReader;
pub(crate) use writing::{Given, Queued};

use crate::modules::plan::tensors::data_type;
use crate::sys::dlpack::{DataType, Numbers};

/// What a handle has of a GPU.
pub(crate) struct OnGpu {
    stream: Stream,
    context: Context,
    ordinal: i32,
    behaviour: ReaderOptions,
    pub(crate) kind: Kind,
    writer: OnceLock<GpuWriter>,
    readers: PerProcess<Mutex<Idle>>,
    /// For what comes from other libraries.
    own: OnceLock<Arc<Queue>>,
    /// For what goes to them.
    beside: OnceLock<Arc<Copies>>,
    /// How torch makes a tensor for a frame.
    fresh: PyOnceLock<torch::Fresh>,
    pinned: Mutex<Option<pinned::Pinned>>,
}

/// Readers that no thread uses at the moment, in boxes: moving one takes longer than finding it.
type Idle = Vec<Box<GpuReader>>;

/// What frames are, in the terms of DLPack.
#[derive(Debug)]
pub(crate) struct Kind {
    pub(crate) scalar: Scalar,
    pub(crate) data_type: DataType,
    pub(crate) numbers: Arc<Numbers>,
    pub(crate) bytes: usize,
}

impl Kind {
    fn of(stream: &Stream) -> Self {
        let scalar = Scalar::from_name(stream.dtype().name());
        let scalar = scalar.expect("modules have every type that streams have");
        let shape = stream.shape().dimensions();
        let mut strides = vec![1_u64; shape.len()];
        for at in (1..shape.len()).rev() {
            strides[at - 1] = strides[at] * shape[at];
        }
        Self {
            scalar,
            data_type: data_type(scalar),
            numbers: Arc::new(Numbers::new(shape, &strides)),
            bytes: stream.frame_bytes(),
        }
    }
}

impl OnGpu {
    fn new(stream: Stream, context: Context, behaviour: ReaderOptions) -> Self {
        let ordinal = i32::try_from(context.device().ordinal()).unwrap_or(i32::MAX);
        Self {
            kind: Kind::of(&stream),
            stream,
            context,
            ordinal,
            behaviour,
            writer: OnceLock::new(),
            readers: PerProcess::new(),
            own: OnceLock::new(),
            beside: OnceLock::new(),
            fresh: PyOnceLock::new(),
            pinned: Mutex::default(),
        }
    }

    /// The number of the GPU in this process.
    pub(crate) fn ordinal(&self) -> i32 {
        self.ordinal
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        let readers = self.readers.get_or_init(Mutex::default);
        readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `with` with a reader that has seen the frames up to `last`.
    pub(crate) fn with_reader<T>(
        &self,
        last: u64,
        with: impl FnOnce(&mut GpuReader) -> shared_tensor::Result<T>,
    ) -> shared_tensor::Result<T> {
        let idle = self.idle().pop();
        let mut reader = match idle {
            Some(reader) => reader,
            None => Box::new(self.reader()?),
        };
        reader.reader().seek(last);
        let outcome = with(&mut reader);
        self.idle().push(reader);
        outcome
    }

    /// A reader. This process has the frames by now, so nobody is waited for.
    pub(crate) fn reader(&self) -> shared_tensor::Result<GpuReader> {
        self.stream.reader_on(&self.context, self.behaviour, &Wait::never())
    }

    fn writer(&self) -> shared_tensor::Result<&GpuWriter> {
        if let Some(writer) = self.writer.get() {
            return Ok(writer);
        }
        let fresh = self.stream.writer_on(&self.context, &Wait::never())?;
        Ok(self.writer.get_or_init(|| fresh))
    }
}
