//! Frames from memory of the host.
//!
//! A device reads memory of the host in its own time, unless the driver is made to wait for that, so the
//! caller's bytes are first put where they can stay: into pages that are registered with the driver, used
//! in turn. What copies them on is a stream of its own, as such frames depend on nothing that the caller
//! has queued.

use std::sync::{Arc, Mutex, PoisonError};

use cuda_ipc::{Access, Context, DeviceWords, HostRange, Stream as Queue, Words};
use shm_core::{Access as Mapped, Region, RegionOptions, SharedBytes};

use crate::error::{Error, ErrorKind, Result};
use crate::stream::attachment::Attachment;
use crate::stream::copy;
use crate::stream::device::hold::Hold;
use crate::stream::lease::out_of_bounds;
use crate::sys::SharedPage;

/// Frames are staged in pieces of up to so many bytes: enough for the copies of both halves to be as quick
/// as they get.
pub(super) const PIECE_BYTES_MAX: usize = 4 << 20;
/// Pieces that may be on their way at a time. Beyond these a write waits for the oldest.
const PIECES: usize = 8;

/// Registered pages that frames pass through, and the stream that takes them on.
#[derive(Debug)]
pub(super) struct Uploads {
    pinned: Pinned,
    /// The number of pieces that were taken on so far, written by the device.
    done: Arc<DeviceWords>,
    queue: Arc<Queue>,
    piece_bytes: usize,
    /// Pieces that were queued so far.
    queued: Mutex<u64>,
}

impl Uploads {
    fn new(context: &Context, frame_bytes: usize) -> Result<Self, Box<dyn std::error::Error>> {
        let piece_bytes = frame_bytes.min(PIECE_BYTES_MAX).next_multiple_of(4096);
        let pinned = Pinned::new(context, piece_bytes * PIECES)?;
        let done = Words::create(1)?.attach(context)?;
        let queue = Arc::new(context.stream()?);
        Ok(Self { pinned, done, queue, piece_bytes, queued: Mutex::new(0) })
    }

    /// The stream in which everything is copied on.
    pub(super) fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// Queues copies of `bytes` to an address. They may be changed when this returns.
    fn copy(&self, hold: &Hold, to: u64, bytes: &[u8]) -> Result<()> {
        let mut queued = self.queued.lock().unwrap_or_else(PoisonError::into_inner);
        let mut to = to;
        for piece in bytes.chunks(self.piece_bytes) {
            // Pieces are taken on in their order.
            let before = (*queued + 1).saturating_sub(PIECES as u64);
            if self.done.load(0) < before {
                let waited = hold.context.synchronize(&self.queue);
                waited.map_err(|source| hold.failed("wait for", &source))?;
            }
            let index = usize::try_from(*queued % PIECES as u64).unwrap_or_default();
            let start = index * self.piece_bytes;
            copy::into_shared(&self.pinned.pages, start, piece).map_err(out_of_bounds)?;
            self.pass_on(hold, to, start, piece.len(), *queued + 1)?;
            *queued += 1;
            to += piece.len() as u64;
        }
        Ok(())
    }

    fn pass_on(&self, hold: &Hold, to: u64, start: usize, bytes: usize, done: u64) -> Result<()> {
        let from = (&self.pinned.range, start as u64);
        let copied = hold.context.copy_from_host(&self.queue, to, from, bytes as u64);
        let copied = copied.and_then(|()| self.done.write(&self.queue, 0, done));
        copied.map_err(|source| hold.failed("copy", &source))
    }
}

/// Memory of the host for one frame, from which devices copy as quickly as they can.
///
/// Made by [`GpuWriter::host_frame`](crate::stream::GpuWriter::host_frame) and written by
/// [`Source::Frame`](crate::stream::Source).
#[derive(Debug)]
pub struct HostFrame {
    pages: SharedBytes,
    /// `None` where the driver does not register it, and needs not.
    range: Option<HostRange>,
    bytes: usize,
}

impl HostFrame {
    pub(super) fn new(attachment: &Attachment, context: &Context) -> Result<Self> {
        let bytes = attachment.layout.payload_bytes;
        let made = Pinned::new(context, bytes.next_multiple_of(4096));
        let Pinned { pages, range } = made.map_err(|source| no_memory(attachment, &*source))?;
        Ok(Self { pages, range: Some(range), bytes })
    }

    /// For a stream whose frames are in its file, to which no device copies this.
    pub(super) fn unregistered_if_need_be(
        attachment: &Attachment,
        context: &Context,
    ) -> Result<Self> {
        Self::new(attachment, context).or_else(|_| {
            let bytes = attachment.layout.payload_bytes;
            let pages = pages(bytes.next_multiple_of(4096));
            let pages = pages.map_err(|source| no_memory(attachment, &*source))?;
            Ok(Self { pages, range: None, bytes })
        })
    }

    pub(super) fn pages(&self) -> &SharedBytes {
        &self.pages
    }

    /// Its bytes, zeros at first. Whoever writes to them does so between two writes to the stream.
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.pages.as_ptr()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether there are none: never, as shapes have none of size 0.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Copies bytes in from `offset` on.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if they do not fit.
    pub fn write_at(&mut self, offset: usize, bytes: &[u8]) -> Result<()> {
        if offset.checked_add(bytes.len()).is_none_or(|end| end > self.bytes) {
            let (given, frame) = (bytes.len(), self.bytes);
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("{given} bytes at offset {offset} do not fit a frame of {frame} bytes"),
            ));
        }
        copy::into_shared(&self.pages, offset, bytes).map_err(out_of_bounds)
    }
}

#[cold]
fn no_memory(attachment: &Attachment, source: &dyn std::error::Error) -> Error {
    let name = attachment.name();
    let message = format!("no memory for a frame of stream `{name}` on the host: {source}");
    Error::new(ErrorKind::Device, message)
}

/// Memory of this process that every device of it reaches.
#[derive(Debug)]
pub(super) struct Pinned {
    pages: SharedBytes,
    range: HostRange,
}

impl Pinned {
    pub(super) fn new(context: &Context, bytes: usize) -> Result<Self, Box<dyn std::error::Error>> {
        let pages = pages(bytes)?;
        let range = HostRange::register(context, SharedPage(pages.clone()), Access::ReadWrite)?;
        Ok(Self { pages, range })
    }

    pub(super) fn pages(&self) -> &SharedBytes {
        &self.pages
    }

    pub(super) fn range(&self) -> &HostRange {
        &self.range
    }
}

fn pages(bytes: usize) -> Result<SharedBytes, Box<dyn std::error::Error>> {
    let region = Region::create("st-upload", bytes as u64, &RegionOptions::new())?;
    Ok(region.map(0..bytes as u64, Mapped::ReadWrite)?)
}

impl Hold {
    /// What frames from the host pass through.
    pub(super) fn uploads(&self) -> Result<&Uploads> {
        if let Some(made) = self.uploads.get() {
            return Ok(made);
        }
        let bytes = self.attachment.layout.payload_bytes;
        let made = Uploads::new(&self.context, bytes).map_err(|source| {
            let name = self.attachment.name();
            let message = format!("cannot stage frames of stream `{name}` on the host: {source}");
            Error::new(ErrorKind::Device, message)
        })?;
        Ok(self.uploads.get_or_init(|| made))
    }

    /// Queues a copy of ordinary memory. It may be changed when this returns.
    pub(super) fn upload(&self, to: u64, bytes: &[u8]) -> Result<()> {
        self.uploads()?.copy(self, to, bytes)
    }

    /// Queues a copy of a frame of the host.
    pub(super) fn copy_frame(&self, to: u64, frame: &HostFrame) -> Result<()> {
        let queue = self.uploads()?.queue();
        let Some(range) = &frame.range else {
            let name = self.attachment.name();
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!(
                    "a frame of the host for stream `{name}`, which is on a GPU, is one of another stream, \
                     whose frames are in its file: take one of a writer of `{name}`"
                ),
            ));
        };
        let copied = self.context.copy_from_host(queue, to, (range, 0), frame.bytes as u64);
        copied.map_err(|source| self.failed("copy", &source))
    }

    /// Waits on the host until what was copied from it has been read.
    pub(super) fn finish_uploads(&self) -> Result<()> {
        let waited = self.context.synchronize(self.uploads()?.queue());
        waited.map_err(|source| self.failed("wait for", &source))
    }
}
