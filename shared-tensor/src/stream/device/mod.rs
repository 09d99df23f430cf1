//! Streams whose frames are on a GPU.

mod copies;
mod create;
mod hold;
mod lanes;
mod page;
mod reader;
mod seat;
mod writer;

use std::sync::{Arc, MutexGuard, PoisonError, Weak};

use cuda_ipc::{Chunk, Context};

pub use reader::GpuReader;
pub use writer::{GpuWriteView, GpuWriter, Source};

use crate::error::{Error, ErrorKind, Result};
use crate::ring::Liveness as _;
use crate::stream::Stream;
use crate::stream::attachment::Attachment;
use crate::stream::reader::ReaderOptions;
use hold::Hold;
use seat::{OwnSeat, Sitter};

/// What a process has of a ring on a GPU, whichever of its handles uses it.
#[derive(Debug, Default)]
pub(crate) struct OnGpu {
    chunk: Option<Arc<Chunk>>,
    seat: Weak<OwnSeat>,
    /// By device.
    holds: Vec<Weak<Hold>>,
}

impl OnGpu {
    /// Keeps the chunk, as long as the stream is open here.
    pub(crate) fn keep(&mut self, chunk: Arc<Chunk>) {
        self.chunk = Some(chunk);
    }
}

impl Attachment {
    pub(crate) fn on_gpu(&self) -> MutexGuard<'_, OnGpu> {
        self.on_gpu.get_or_init(Default::default).lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stream for a device.
    fn hold(self: &Arc<Self>, context: &Context) -> Result<Arc<Hold>> {
        let mut own = self.on_gpu();
        let own = &mut *own;
        let device = context.device().uuid();
        own.holds.retain(|known| known.strong_count() > 0);
        let known = own.holds.iter().filter_map(Weak::upgrade);
        if let Some(known) = known.into_iter().find(|it| it.context.device().uuid() == device) {
            return Ok(known);
        }
        let chunk = match &own.chunk {
            Some(chunk) => Arc::clone(chunk),
            None => Arc::clone(own.chunk.insert(Arc::new(self.fetch()?))),
        };
        let seat = match own.seat.upgrade() {
            Some(seat) => seat,
            None => Arc::new(self.take_seat()?),
        };
        own.seat = Arc::downgrade(&seat);
        let hold = Arc::new(Hold::new(Arc::clone(self), context, &chunk, seat)?);
        own.holds.push(Arc::downgrade(&hold));
        Ok(hold)
    }

    /// The chunk, from a process that has it.
    fn fetch(&self) -> Result<Chunk> {
        Err(Error::new(
            ErrorKind::NotFound,
            format!(
                "stream `{}` has its frames on a GPU, and no process is left that has them: unlink it, and \
                 create it anew",
                self.name()
            ),
        ))
    }

    fn take_seat(&self) -> Result<OwnSeat> {
        let member = self.member()?;
        let me = member.me()?;
        let peers = member.peers();
        // The end of its threads is not the end of its devices' work; that of its files is.
        let is_gone = |sitter: Sitter| {
            peers.has_ended(sitter.who) && sitter.process.is_none_or(|it| !it.is_running())
        };
        OwnSeat::take(&member.memory, me, is_gone).ok_or_else(|| {
            Error::new(
                ErrorKind::NoSpace,
                format!(
                    "stream `{}` is used on GPUs by as many processes as it has seats for: end one",
                    self.name()
                ),
            )
        })
    }
}

impl Stream {
    /// Whether the frames are on a GPU, and on which.
    pub fn device(&self) -> Option<cuda_ipc::Uuid> {
        self.attachment.layout.label().map(|label| label.device())
    }

    /// A writer whose frames a GPU fills: the one that they are on, or another one that reaches its memory.
    ///
    /// # Errors
    /// [`ErrorKind::Device`] if the frames are not on a GPU, or this one cannot reach them;
    /// [`ErrorKind::NotFound`] if no process is left that has them; [`ErrorKind::PermissionDenied`].
    pub fn writer_on(&self, context: &Context) -> Result<GpuWriter> {
        if self.read_only {
            return Err(Error::new(
                ErrorKind::PermissionDenied,
                format!("stream `{}` was opened read-only: open it again to write", self.name()),
            ));
        }
        Ok(GpuWriter::new(self.attachment.hold(context)?))
    }

    /// A reader with a GPU.
    ///
    /// # Errors
    /// As [`writer_on`](Self::writer_on).
    pub fn reader_on(&self, context: &Context, options: ReaderOptions) -> Result<GpuReader> {
        let hold = self.attachment.hold(context)?;
        Ok(GpuReader::new(self.reader_with(options), hold))
    }
}
