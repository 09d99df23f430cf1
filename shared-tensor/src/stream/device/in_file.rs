//! A GPU's stream whose frames are in its file, as the GPU's memory cannot be shared.
//!
//! The ring, its lock, its leases and its repair are those of a stream of the CPU. What a device adds is a copy
//! between its memory and a slot, and that calls wait for it.
//!
//! A device reads slots by itself, from pages that are registered with the driver: a frame that was overtaken
//! meanwhile is read again, as by any reader. It never writes to them. What a process has queued goes on for
//! a moment when it is killed, and the next writer fills the slot by then; so a frame comes by pages of this
//! process alone, and from there by the process itself. Where nothing can be registered, ordinary memory
//! stands between.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use cuda_ipc::{Access, Context, DriverError, HostRange, Room, Rooms, Stream as Queue};

use crate::error::{Error, ErrorKind, Result};
use crate::stream::attachment::Attachment;
use crate::stream::copy;
use crate::stream::description::Publication;
use crate::stream::device::frames::{Open, failed};
use crate::stream::device::lease::Copied;
use crate::stream::device::uploads::{HostFrame, PIECE_BYTES_MAX, Pinned};
use crate::stream::device::writer::Source;
use crate::stream::lease::out_of_bounds;
use crate::stream::reader::Sink;
use crate::stream::tenure::Tenure;
use crate::stream::writer::Contents;
use crate::sys::{SharedPage, read_vec};

/// What one device of this process has of such a stream.
#[derive(Debug)]
pub(super) struct InFile {
    pub(super) attachment: Arc<Attachment>,
    pub(super) context: Context,
    /// The ring, where the device reads it by itself.
    ring: Option<HostRange>,
    /// Where frames are that are written in place, one at a time. It stays, as those who wrote may look at it
    /// afterwards.
    place: OnceLock<Room>,
    /// For copies that this process keeps.
    rooms: Rooms,
    /// What frames come by; `None` where the driver registers nothing.
    stage: OnceLock<Option<Stage>>,
}

/// Two pieces of registered memory: while the device fills one, this process empties the other.
#[derive(Debug)]
struct Stage {
    pinned: Pinned,
    piece_bytes: usize,
    /// Held by who uses it.
    use_of: Mutex<()>,
}

impl Stage {
    fn new(context: &Context, frame_bytes: usize) -> Option<Self> {
        let piece_bytes = frame_bytes.min(PIECE_BYTES_MAX).next_multiple_of(4096);
        let pinned = Pinned::new(context, 2 * piece_bytes).ok()?;
        Some(Self { pinned, piece_bytes, use_of: Mutex::new(()) })
    }
}

impl InFile {
    pub(super) fn new(attachment: Arc<Attachment>, context: &Context) -> Result<Self> {
        let frames = SharedPage(attachment.readable()?.clone());
        let ring = HostRange::register(context, frames, Access::Read).ok();
        let rooms = Rooms::new(context, attachment.layout.payload_bytes as u64);
        let (place, stage) = (OnceLock::new(), OnceLock::new());
        Ok(Self { attachment, context: context.clone(), ring, place, rooms, stage })
    }

    /// Waits until everything is done that is queued in a stream.
    pub(super) fn wait(&self, queue: &Queue) -> Result<()> {
        self.context.synchronize(queue).map_err(|source| self.failed("wait for", &source))
    }

    /// Memory of the device for one frame, to which work in `queue` may be queued.
    pub(super) fn room(&self, queue: &Queue) -> Result<Copied> {
        self.take_room(queue).map(Copied::Room)
    }

    pub(super) fn host_frame(&self) -> Result<HostFrame> {
        HostFrame::unregistered_if_need_be(&self.attachment, &self.context)
    }

    /// Copies the frame that `read` finds to an address, behind what is queued in `queue`.
    pub(super) fn copy_to(
        &self,
        queue: &Queue,
        to: u64,
        read: impl FnOnce(&mut Sink<'_>) -> Result<Publication>,
    ) -> Result<Publication> {
        // Before a frame is looked for: it is to be there still when the device comes to it.
        self.wait(queue)?;
        let Some(ring) = &self.ring else {
            let mut bytes = self.attachment.room_for_a_frame()?;
            let publication = read(&mut Sink::Growing(&mut bytes))?;
            let copied = self.context.upload(queue, to, &bytes);
            copied.map_err(|source| self.failed("copy", &source))?;
            return Ok(publication);
        };
        read(&mut Sink::Waited(&mut |start| {
            self.bring(queue, ring, start, to)?;
            self.wait(queue)
        }))
    }

    /// Claims a slot, and queues what a frame that is written in place begins with.
    pub(super) fn begin(
        &self,
        queue: &Queue,
        tenure: Tenure<'_>,
        in_place: Option<Contents>,
    ) -> Result<Open> {
        // Before a slot is claimed: these may fail.
        self.attachment.writable()?;
        let place = in_place.map(|contents| Ok::<_, Error>((contents, self.place(queue)?)));
        let place = place.transpose()?;
        let open = Open { claim: tenure.claim()?, address: place.map(|(_, address)| address) };
        if let Some((Contents::Previous, address)) = place
            && let Err(error) = self.copy_newest(queue, open.claim.newest(), address)
        {
            let _ = self.context.synchronize(queue);
            tenure.abort(&open.claim);
            return Err(error);
        }
        Ok(open)
    }

    /// Copies a frame to a claimed slot. What is queued in `queue` is over when this returns.
    pub(super) fn copy_from(&self, queue: &Queue, slot: usize, source: Source<'_>) -> Result<()> {
        let start = self.attachment.layout.slot_start(slot);
        let ring = self.attachment.writable()?;
        match source {
            Source::Device(from) => self.fetch(queue, start, from),
            Source::Range(range, offset) => {
                // By the device, which is told where the bytes are.
                let to = self.place(queue)?;
                let copied =
                    self.context.copy_from_host(queue, to, (range, offset), self.bytes() as u64);
                copied.map_err(|source| self.failed("copy", &source))?;
                self.fetch(queue, start, to)
            }
            Source::Host(bytes) => copy::into_shared(ring, start, bytes).map_err(out_of_bounds),
            Source::Frame(frame) => {
                ring.copy_from(start, frame.pages(), 0..frame.len()).map_err(out_of_bounds)
            }
        }
    }

    /// Fills a claimed slot with zeros.
    pub(super) fn zero(&self, slot: usize) -> Result<()> {
        let start = self.attachment.layout.slot_start(slot);
        self.attachment.writable()?.fill(start..start + self.bytes(), 0).map_err(out_of_bounds)
    }

    /// Copies what was written in place to the slot, behind what is queued in `queue`.
    pub(super) fn complete(&self, queue: &Queue, open: &Open) -> Result<()> {
        let Some(address) = open.address else { return Ok(()) };
        self.fetch(queue, self.attachment.layout.slot_start(open.claim.slot), address)
    }

    /// Copies a frame from an address to a place of the ring.
    fn fetch(&self, queue: &Queue, start: usize, from: u64) -> Result<()> {
        let stage = self.stage.get_or_init(|| Stage::new(&self.context, self.bytes()));
        match stage {
            Some(stage) => self.fetch_by(stage, queue, start, from),
            None => self.fetch_by_ordinary_memory(queue, start, from),
        }
    }

    fn fetch_by(&self, stage: &Stage, queue: &Queue, start: usize, from: u64) -> Result<()> {
        let _used = stage.use_of.lock().unwrap_or_else(PoisonError::into_inner);
        let ring = self.attachment.writable()?;
        let pieces = self.bytes().div_ceil(stage.piece_bytes);
        let place = |piece: usize| piece % 2 * stage.piece_bytes;
        let length = |piece: usize| stage.piece_bytes.min(self.bytes() - piece * stage.piece_bytes);
        let fill = |piece: usize| {
            let to = (stage.pinned.range(), place(piece) as u64);
            let from = from + (piece * stage.piece_bytes) as u64;
            let copied = self.context.copy_to_host(queue, to, from, length(piece) as u64);
            copied.map_err(|source| self.failed("copy", &source))
        };
        fill(0)?;
        self.wait(queue)?;
        for piece in 0..pieces {
            let is_last = piece + 1 == pieces;
            if !is_last {
                fill(piece + 1)?;
            }
            let filled = place(piece)..place(piece) + length(piece);
            ring.copy_from(start + piece * stage.piece_bytes, stage.pinned.pages(), filled)
                .map_err(out_of_bounds)?;
            if !is_last {
                self.wait(queue)?;
            }
        }
        Ok(())
    }

    fn fetch_by_ordinary_memory(&self, queue: &Queue, start: usize, from: u64) -> Result<()> {
        let ring = self.attachment.writable()?;
        let mut piece = vec![0; self.bytes().min(PIECE_BYTES_MAX)];
        for done in (0..self.bytes()).step_by(PIECE_BYTES_MAX) {
            let length = piece.len().min(self.bytes() - done);
            let piece = &mut piece[..length];
            let copied = self.context.download(queue, piece, from + done as u64);
            copied.map_err(|source| self.failed("copy", &source))?;
            copy::into_shared(ring, start + done, piece).map_err(out_of_bounds)?;
        }
        Ok(())
    }

    /// Queues a copy of the newest frame to an address. Nobody claims its slot meanwhile: this process has the
    /// lock, until what is queued is over.
    fn copy_newest(&self, queue: &Queue, newest: usize, to: u64) -> Result<()> {
        let start = self.attachment.layout.slot_start(newest);
        if let Some(ring) = &self.ring {
            return self.bring(queue, ring, start, to);
        }
        let mut bytes = self.attachment.room_for_a_frame()?;
        read_vec(&mut bytes, self.attachment.readable()?, start, self.bytes())
            .map_err(out_of_bounds)?;
        let copied = self.context.upload(queue, to, &bytes);
        copied.map_err(|source| self.failed("copy", &source))
    }

    /// Queues a copy of a frame from a place of the ring.
    fn bring(&self, queue: &Queue, ring: &HostRange, start: usize, to: u64) -> Result<()> {
        let copied =
            self.context.copy_from_host(queue, to, (ring, start as u64), self.bytes() as u64);
        copied.map_err(|source| self.failed("copy", &source))
    }

    /// Where a frame is written in place.
    fn place(&self, queue: &Queue) -> Result<u64> {
        if let Some(place) = self.place.get() {
            place.used_on(queue).map_err(|source| self.failed("make room for", &source))?;
            return Ok(place.address());
        }
        let place = self.take_room(queue)?;
        Ok(self.place.get_or_init(|| place).address())
    }

    fn take_room(&self, queue: &Queue) -> Result<Room> {
        let room = || {
            let room = self.rooms.take()?;
            room.used_on(queue)?;
            Ok(room)
        };
        room().map_err(|source: DriverError| match source.as_call() {
            Some(call) if call.is_out_of_memory() => {
                let name = self.attachment.name();
                let message =
                    format!("no room on a GPU for a copy of a frame of stream `{name}`: {source}");
                Error::new(ErrorKind::NoSpace, message)
            }
            _ => self.failed("make room for", &source),
        })
    }

    fn bytes(&self) -> usize {
        self.attachment.layout.payload_bytes
    }

    #[cold]
    fn failed(&self, what: &str, source: &dyn std::error::Error) -> Error {
        failed(&self.attachment, what, source)
    }
}
