//! Streams whose frames are on a GPU.

mod copies;
mod create;
pub(crate) mod doubts;
mod earlier;
mod endings;
mod filling;
mod frames;
mod fresh;
mod hold;
mod in_file;
mod lanes;
mod lease;
mod mend;
mod mender;
mod mirror;
mod page;
mod reader;
pub(crate) mod seat;
mod settle;
mod uploads;
pub(crate) mod watch;
mod writer;

use std::sync::{Arc, MutexGuard, PoisonError, Weak};

use cuda_ipc::{Chunk, Context, Ordering};
use shm_lock::Wait;

pub(crate) use filling::FilledBy;
pub use lease::GpuLease;
pub use reader::GpuReader;
pub use settle::settle;
pub use uploads::HostFrame;
pub use writer::{GpuWriteView, GpuWriter, Source};

use crate::error::{Error, ErrorKind, Result};
use crate::ring::Liveness as _;
use crate::stream::Stream;
use crate::stream::attachment::Attachment;
use crate::stream::holders::{self, Offer};
use crate::stream::reader::ReaderOptions;
use frames::Frames;
use hold::Hold;
use in_file::InFile;
use seat::{OwnSeat, Sitter};

/// What a process has of a ring on a GPU, whichever of its handles uses it.
#[derive(Debug, Default)]
pub(crate) struct OnGpu {
    chunk: Option<Arc<Chunk>>,
    /// That others may have the chunk from this process.
    offer: Option<Offer>,
    seat: Weak<OwnSeat>,
    /// By device.
    holds: Vec<Weak<Hold>>,
    /// By device, of a stream whose frames are in its file.
    files: Vec<Weak<InFile>>,
    unsure: Option<doubts::Unsure>,
}

impl Attachment {
    pub(crate) fn on_gpu(&self) -> MutexGuard<'_, OnGpu> {
        self.on_gpu.get_or_init(Default::default).lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same, unless somebody has it.
    fn try_on_gpu(&self) -> Option<MutexGuard<'_, OnGpu>> {
        self.on_gpu.get_or_init(Default::default).try_lock().ok()
    }

    /// Keeps the chunk and hands it out, as long as the stream is open here.
    fn keep(&self, own: &mut OnGpu, chunk: Chunk) -> Result<()> {
        let member = self.member()?;
        let chunk = Arc::new(chunk);
        let offer = Offer::begin(
            &member.memory,
            &member.peers(),
            member.me()?,
            self.segment.generation(),
            Arc::clone(&chunk),
        )?;
        own.offer = Some(offer);
        own.chunk = Some(chunk);
        Ok(())
    }

    /// The chunk, from a process that has it.
    fn fetch(&self, wait: &Wait<'_>) -> Result<Chunk> {
        let Some(label) = self.layout.label() else {
            let name = self.name();
            let message = format!("stream `{name}` has its frames in its file, not on a GPU");
            return Err(Error::new(ErrorKind::Device, message));
        };
        let member = self.member()?;
        let generation = self.segment.generation();
        holders::fetch(&member.memory, &member.peers(), generation, &label, wait)
    }

    /// The frames for a device.
    fn frames(self: &Arc<Self>, context: &Context, wait: &Wait<'_>) -> Result<Frames> {
        if self.layout.place.unshared().is_some() {
            return self.in_file(context).map(Frames::File);
        }
        self.hold(context, wait).map(Frames::Chunk)
    }

    fn in_file(self: &Arc<Self>, context: &Context) -> Result<Arc<InFile>> {
        let mut own = self.on_gpu();
        let device = context.device().uuid();
        own.files.retain(|known| known.strong_count() > 0);
        let known = own.files.iter().filter_map(Weak::upgrade);
        if let Some(known) = known.into_iter().find(|it| it.context.device().uuid() == device) {
            return Ok(known);
        }
        let file = Arc::new(InFile::new(Arc::clone(self), context)?);
        own.files.push(Arc::downgrade(&file));
        Ok(file)
    }

    /// The stream for a device, in its chunk.
    fn hold(self: &Arc<Self>, context: &Context, wait: &Wait<'_>) -> Result<Arc<Hold>> {
        self.has_chunk(wait)?;
        let mut own = self.on_gpu();
        let own = &mut *own;
        let device = context.device().uuid();
        own.holds.retain(|known| known.strong_count() > 0);
        let known = own.holds.iter().filter_map(Weak::upgrade);
        if let Some(known) = known.into_iter().find(|it| it.context.device().uuid() == device) {
            return Ok(known);
        }
        // Of one that is lost others know that nothing is done any more.
        let seat = match own.seat.upgrade().filter(|seat| !seat.is_lost()) {
            Some(seat) => seat,
            None => Arc::new(self.take_seat()?),
        };
        own.seat = Arc::downgrade(&seat);
        let chunk = own.chunk.as_ref().ok_or_else(|| self.frames_elsewhere("held"))?;
        let hold = Hold::new(Arc::clone(self), context, chunk, seat)?;
        own.holds.push(Arc::downgrade(&hold));
        Ok(hold)
    }

    /// Sees to it that this process has the chunk.
    fn has_chunk(&self, wait: &Wait<'_>) -> Result<()> {
        if self.on_gpu().chunk.is_some() {
            return Ok(());
        }
        // Others, who may not want to wait as long, ask beside this.
        let fetched = self.fetch(wait)?;
        let mut own = self.on_gpu();
        if own.chunk.is_none() {
            self.keep(&mut own, fetched)?;
        }
        Ok(())
    }

    /// By what the work of this process's GPUs is ordered; `None` as long as none uses the stream.
    pub(crate) fn ordering(&self) -> Option<Ordering> {
        let own = self.on_gpu.get()?.lock().unwrap_or_else(PoisonError::into_inner);
        let in_chunk = own.holds.iter().filter_map(Weak::upgrade).map(|it| it.ordering());
        let in_file = own.files.iter().filter(|it| it.strong_count() > 0).map(|_| Ordering::Host);
        in_chunk.chain(in_file).max_by_key(|it| *it == Ordering::Host)
    }

    fn take_seat(&self) -> Result<OwnSeat> {
        let member = self.member()?;
        let me = member.me()?;
        let peers = member.peers();
        let is_gone = |sitter: Sitter| peers.has_ended(sitter.who) && sitter.is_gone();
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
    /// The GPU that the stream was created on, if it was on one: the frames are there, unless they are
    /// [in the file](Self::frames_in_file).
    pub fn device(&self) -> Option<cuda_ipc::Uuid> {
        self.attachment.layout.place.device()
    }

    /// A writer whose frames a GPU fills: the one that they are on, or another one that reaches its memory.
    /// The first writer or reader of a process asks the others for the memory, for as long as `wait` says.
    ///
    /// # Errors
    /// [`ErrorKind::Device`] if the stream is one of the CPU, or this GPU cannot reach the frames;
    /// [`ErrorKind::NoHolder`] if no process is left that has them; [`ErrorKind::PermissionDenied`];
    /// [`ErrorKind::Timeout`] and [`ErrorKind::Interrupted`].
    pub fn writer_on(&self, context: &Context, wait: &Wait<'_>) -> Result<GpuWriter> {
        self.refuse_if_read_only()?;
        self.attachment.member()?;
        Ok(GpuWriter::new(self.attachment.frames(context, wait)?))
    }

    /// A reader with a GPU.
    ///
    /// # Errors
    /// As [`writer_on`](Self::writer_on); [`ErrorKind::InvalidArgument`] with
    /// [`ReaderOptions::reattach`].
    pub fn reader_on(
        &self,
        context: &Context,
        options: ReaderOptions,
        wait: &Wait<'_>,
    ) -> Result<GpuReader> {
        if options.reattach {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!(
                    "a reader of stream `{}` on a GPU cannot go on with a successor, whose frames are \
                     other memory: leave `reattach` out, and open the successor by its name",
                    self.name()
                ),
            ));
        }
        let frames = self.attachment.frames(context, wait)?;
        Ok(GpuReader::new(self.reader_with(options), frames))
    }
}
