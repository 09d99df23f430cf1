//! Named tensor streams: one process writes, many read, nobody waits for anybody.
//!
//! A stream is a file on `/dev/shm` with a ring of K slots, each a whole tensor of the stream's
//! shape and element type. A writer fills the oldest free slot and publishes it; readers copy the
//! newest slot, take the next one in order, or lease a slot and read it in place.
//!
//! ```
//! use shared_tensor::DType;
//! use shared_tensor::stream::{Stream, StreamOptions, Wait};
//! # let namespace = shared_tensor::shm::Namespace::new("/dev/shm", &format!("doc{}.", std::process::id()))?;
//!
//! # let stream = StreamOptions::new(DType::F32, [2, 3]).namespace(namespace.clone()).create("camera")?;
//! # if false {
//! let stream = StreamOptions::new(DType::F32, [2, 3]).create("camera")?;
//! # }
//! let mut reader = stream.reader();
//! stream.writer()?.write_slice(&[0.0_f32, 1.0, 2.0, 3.0, 4.0, 5.0])?;
//! let frame = reader.next(&Wait::forever())?;
//! assert_eq!(frame.publication().count, 1);
//! assert_eq!(frame.to_vec::<f32>()?[5], 5.0);
//! stream.unlink()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Guarantees
//!
//! | | |
//! |---|---|
//! | tearing | a read returns one frame, whole, or fails; never parts of two |
//! | readers | never wait for a writer; at K >= 3 a complete frame is always there |
//! | writers | never wait for a reader; at most K - 3 frames are leased at once (1 at K = 3 in memory of the host) |
//! | death | a writer killed in a write costs that frame; the next writer repairs the ring |
//! | system calls | none to read; none to publish while nobody waits |
//! | order | counts rise by one; a reader is told how many it missed |
//!
//! A ring of fewer than three slots gives some of these up; [`Stream::info`] says which.
//!
//! # On a GPU
//!
//! Frames may be in memory of a GPU. Then calls queue their work in a stream of CUDA, and return: what is queued
//! behind a read finds the frame there, and a frame is complete when the GPU has come to it. Contexts and streams
//! are those of [`service::cuda`](crate::service::cuda), the crate `cuda-ipc`; the example `gpu_filter` has
//! kernels read frames where they lie.
//!
//! ```no_run
//! use shared_tensor::DType;
//! use shared_tensor::service::cuda;
//! use shared_tensor::stream::{ReaderOptions, Source, Stamp, StreamOptions, Wait};
//!
//! let context = cuda::probe()?.device_at(0)?.context()?;
//! let queue = context.stream()?;
//! let frames = StreamOptions::new(DType::F32, [480, 640]).create_on(&context, "camera")?;
//! let writer = frames.writer_on(&context, &Wait::forever())?;
//! let mut reader = frames.reader_on(&context, ReaderOptions::default(), &Wait::forever())?;
//! # let (scene, image) = (0_u64, 0_u64);
//!
//! // `scene` and `image` are addresses on the device. Neither call waits for it.
//! writer.write(&queue, Source::Device(scene), &Stamp::default(), &Wait::forever())?;
//! let publication = reader.next_into(&queue, image, &Wait::forever())?;
//! context.synchronize(&queue)?;
//! assert_eq!(publication.count, 1);
//! frames.unlink()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod admin;
mod attachment;
mod beside;
pub(crate) mod copy;
pub(crate) mod counters;
mod cpus;
pub(crate) mod description;
mod device;
mod helper;
pub(crate) mod holders;
mod info;
pub(crate) mod layout;
mod lease;
mod lock_many;
mod locked;
mod memory;
#[cfg(test)]
mod mirror_tests;
mod open;
mod options;
mod owned;
pub(crate) mod place;
#[cfg(test)]
mod place_tests;
mod reader;
mod tenure;
mod turn;
pub(crate) mod wait;
mod wait_any;
mod writer;

use std::sync::Arc;

pub use crate::ring::word::{Phase, SLOTS_MAX};
pub use admin::{list, purge, stat, unlink};
pub use counters::{ReaderFigures, WriterFigures};
pub use description::{METADATA_BYTES, Publication, Stamp};
pub use device::{GpuLease, GpuReader, GpuWriteView, GpuWriter, HostFrame, Source, settle};
pub use info::{ParticipantInfo, StreamInfo};
pub use lease::{Lease, OnFull};
pub use lock_many::locked_many;
pub use locked::{Locked, WriteView};
pub use open::OpenOptions;
pub use options::StreamOptions;
pub use owned::OwnedLocked;
pub use reader::{Frame, OnAbort, OnEmpty, OnWriting, Reader, ReaderOptions};
pub use shm_lock::Wait;
pub use wait::Spin;
pub use wait_any::{Bell, wait_any, wait_any_or_bell};
pub use writer::{Contents, Writer};

use crate::error::Result;
use crate::ring;
use crate::tensor::{DType, Shape};
use attachment::Attachment;

/// A handle on a named stream.
///
/// Dropping it, and the end of the process, leave the stream where it is: only [`Stream::unlink`]
/// removes the name, and memory that somebody still has mapped lives on after that.
#[derive(Clone)]
pub struct Stream {
    attachment: Arc<Attachment>,
    namespace: shm_core::Namespace,
    read_only: bool,
}

impl Stream {
    /// Opens a stream that exists. See [`OpenOptions`] for waiting until it does.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound);
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) and
    /// [`ErrorKind::Version`](crate::ErrorKind::Version) if the name leads to something else.
    pub fn open(name: &str) -> Result<Self> {
        OpenOptions::new().open(name)
    }

    /// The stream's name.
    pub fn name(&self) -> &str {
        self.attachment.name()
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.attachment.layout.dtype
    }

    /// The shape of every frame.
    pub fn shape(&self) -> &Shape {
        &self.attachment.layout.shape
    }

    /// Bytes of one frame.
    pub fn frame_bytes(&self) -> usize {
        self.attachment.layout.payload_bytes
    }

    /// How many frames were published so far: one load.
    pub fn count(&self) -> u64 {
        ring::RingLoads::ctl(&*self.attachment, crate::sync::Ordering::Acquire).count()
    }

    /// What is known about the newest frame, without its payload; `None` before the first one.
    pub fn publication(&self) -> Option<Publication> {
        info::newest_publication(&*self.attachment, |slot| self.attachment.description(slot))
    }

    /// What the write side is doing: one load.
    pub fn phase(&self) -> Phase {
        ring::RingLoads::ctl(&*self.attachment, crate::sync::Ordering::Acquire).phase()
    }

    /// Whether the write in progress will never end, because its writer is gone. The next writer repairs
    /// the stream; readers with [`OnAbort::Raise`] fail meanwhile. System calls, if a write is in progress.
    pub fn is_abandoned(&self) -> bool {
        let ctl = ring::RingLoads::ctl(&*self.attachment, crate::sync::Ordering::Acquire);
        ctl.phase() == Phase::Writing && wait::writer_has_left(&self.attachment, ctl)
    }

    /// Count and phase of one moment: one load.
    pub fn state(&self) -> (u64, Phase) {
        let ctl = ring::RingLoads::ctl(&*self.attachment, crate::sync::Ordering::Acquire);
        (ctl.count(), ctl.phase())
    }

    /// Who created the stream, and when.
    pub fn creator(&self) -> shm_core::Creator {
        self.attachment.segment.creator()
    }

    /// The creator's number for whoever opens the stream.
    pub fn tag(&self) -> u32 {
        self.attachment.layout.tag
    }

    /// Whether the frames are on a GPU and in the file as well, where processes without CUDA read and write
    /// them.
    pub fn is_mirrored(&self) -> bool {
        self.attachment.layout.is_mirrored()
    }

    /// Whether the frames are in the stream's file, as [`StreamInfo::frames_in_file`] says.
    pub fn frames_in_file(&self) -> bool {
        self.attachment.layout.label().is_none()
    }

    /// Slots of the ring.
    pub fn slots(&self) -> usize {
        self.attachment.layout.slots
    }

    /// Where this process has mapped the frames for reading; empty if they are on a GPU. Only to
    /// tell where a pointer leads.
    pub fn payload_addresses(&self) -> std::ops::Range<usize> {
        let Ok(frames) = self.attachment.readable() else { return 0..0 };
        let start = frames.as_ptr().addr();
        start..start + frames.len()
    }

    /// The namespace in which the stream was found or created.
    pub fn namespace(&self) -> &shm_core::Namespace {
        &self.namespace
    }

    /// Whether the name was unlinked since: frames still flow between those who have it open, and
    /// nobody new can join. One load.
    pub fn is_unlinked(&self) -> bool {
        ring::RingLoads::ctl(&*self.attachment, crate::sync::Ordering::Acquire).is_unlinked()
    }

    /// Which creation of the name this is.
    pub fn generation(&self) -> shm_core::Generation {
        self.attachment.segment.generation()
    }

    /// A writer.
    ///
    /// # Errors
    /// [`ErrorKind::PermissionDenied`](crate::ErrorKind::PermissionDenied) if the stream was
    /// opened read-only or its mode does not allow writing.
    pub fn writer(&self) -> Result<Writer> {
        self.refuse_if_read_only()?;
        let writer = Writer::new(Arc::clone(&self.attachment))?;
        self.attachment.populate()?;
        Ok(writer)
    }

    /// Takes the stream's lock for a holder that borrows nothing and has no writer, wherever the frames are.
    ///
    /// # Errors
    /// As [`Writer::lock`]; [`ErrorKind::PermissionDenied`](crate::ErrorKind::PermissionDenied) if the
    /// stream was opened read-only.
    pub fn lock_owned(&self, wait: &Wait<'_>) -> Result<OwnedLocked> {
        self.refuse_if_read_only()?;
        OwnedLocked::acquire(&self.attachment, wait)
    }

    /// A reader with the default options.
    pub fn reader(&self) -> Reader {
        self.reader_with(ReaderOptions::default())
    }

    fn refuse_if_read_only(&self) -> Result<()> {
        if !self.read_only {
            return Ok(());
        }
        Err(crate::Error::new(
            crate::ErrorKind::PermissionDenied,
            format!("stream `{}` was opened read-only: open it again to write", self.name()),
        ))
    }

    /// A reader.
    pub fn reader_with(&self, options: ReaderOptions) -> Reader {
        Reader::new(Arc::clone(&self.attachment), self.namespace.clone(), options)
    }

    /// Everything that can be said about the stream: geometry, counters, who is attached, which
    /// guarantees hold.
    pub fn info(&self) -> StreamInfo {
        info::gather(&self.attachment)
    }

    /// Wakes everybody who waits on this stream, for nothing: whoever waits interruptibly looks at its
    /// interrupt, the others go on waiting.
    pub fn nudge(&self) {
        if let Ok(member) = self.attachment.member() {
            shm_lock::park::wake_all_low_half(ring::Ring::ctl_word(&*member.memory));
            shm_lock::park::wake_all_low_half(member.memory.arrivals());
        }
    }

    /// Removes the name, if it still leads to this stream, and tells everybody who waits. Handles
    /// keep their memory. `false`: the name was gone already.
    ///
    /// # Errors
    /// [`ErrorKind::Changed`](crate::ErrorKind::Changed) if the name leads to a newer stream;
    /// [`ErrorKind::PermissionDenied`](crate::ErrorKind::PermissionDenied).
    pub fn unlink(&self) -> Result<bool> {
        admin::unlink_attached(&self.attachment, &self.namespace)
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream")
            .field("name", &self.name())
            .field("dtype", &self.dtype())
            .field("shape", self.shape())
            .field("slots", &self.attachment.layout.slots)
            .field("generation", &self.generation())
            .finish_non_exhaustive()
    }
}
