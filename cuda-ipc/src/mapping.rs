//! Memory of others at addresses of this process.

use std::any::Any;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crate::chunk::{Chunk, ChunkId};
use crate::device::Context;
use crate::error::DriverError;
use crate::foreign::ForeignError;
use crate::legacy::{Allocation, LegacyHandle};
use crate::opened::{self, Key, What};
use crate::reaper::{self, Reaped};
use crate::references::References;
use crate::sys::{Reservation, Stream};
use crate::uuid::Uuid;

/// What a device may do with what is mapped for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Reads. A kernel that writes all the same loses its process the use of CUDA, and nobody else
    /// anything.
    Read,
    /// Reads and writes.
    ReadWrite,
}

/// Chunks cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is nothing to open.
    #[error("no chunks were given; an object has at least one")]
    Empty,
    /// A label gives a size that no chunk on this device has.
    #[error("chunk {id} is said to have {bytes} bytes, which is no multiple of {granularity}")]
    Size {
        /// The chunk.
        id: ChunkId,
        /// Its size by its label.
        bytes: u64,
        /// What sizes here are multiples of.
        granularity: u64,
    },
    /// A descriptor is no chunk's.
    #[error("what came as chunk {id} is no memory of a device: {source}")]
    NoChunk {
        /// The chunk.
        id: ChunkId,
        /// What the driver said.
        #[source]
        source: DriverError,
    },
    /// The chunk is of another size than its label says, or of a kind that cannot be mapped.
    #[error("chunk {id} is not mapped as {bytes} bytes: {source}")]
    Map {
        /// The chunk.
        id: ChunkId,
        /// Its size by its label.
        bytes: u64,
        /// What the driver said.
        #[source]
        source: DriverError,
    },
    /// The memory lies on a device that this one cannot reach.
    #[error(
        "{device} cannot reach memory on {home}: {source}; open it on a device with peer access, \
         or copy it"
    )]
    Unreachable {
        /// The device for which it was opened.
        device: Uuid,
        /// Where it lies.
        home: Uuid,
        /// What the driver said.
        #[source]
        source: DriverError,
    },
    /// A descriptor cannot be copied: the limit of open files is reached, see `ulimit -n`.
    #[error("a chunk's descriptor cannot be copied: {0}")]
    System(#[from] io::Error),
    /// The driver failed.
    #[error(transparent)]
    Driver(#[from] DriverError),
}

/// Chunks of one object, one behind the other at addresses of this process, for one device; or, by its
/// [handle](LegacyHandle), an allocation of another process.
///
/// Opening the same chunks for the same device and access again gives the same addresses. A clone is
/// another reference. After the last one is gone the addresses stay valid until everything is done
/// that was queued in the streams of [`used_on`](Mapping::used_on), and
/// [some time](crate::set_linger) longer; only then, and by a thread of this crate, are they unmapped.
pub struct Mapping {
    inner: Arc<Mapped>,
}

/// What is mapped, whoever refers to it.
pub(crate) struct Mapped {
    pub(crate) key: Key,
    pub(crate) context: Context,
    memory: Memory,
    offsets: Vec<u64>,
    /// What is mapped, once more: the driver exports nothing that it imported, so passing it on takes a
    /// descriptor that was received.
    chunks: Vec<Chunk>,
    /// How many [`Mapping`]s there are. Behind the memory, which is unmapped before what is kept here
    /// goes: to free another process's allocation that somebody has open is undefined, and its maker may
    /// when it hears that nobody has.
    pub(crate) references: References,
    _read_only: Option<ReadOnly>,
}

/// What lies at the addresses.
enum Memory {
    Chunks(Reservation),
    Allocation(Allocation),
}

/// An object that is open for reading only. Counted apart, for errors: they are made where the table
/// is locked.
struct ReadOnly;

static READ_ONLY: AtomicUsize = AtomicUsize::new(0);

impl ReadOnly {
    fn counted() -> Self {
        READ_ONLY.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        READ_ONLY.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How many objects are open for reading only.
pub(crate) fn read_only() -> usize {
    READ_ONLY.load(Ordering::Relaxed)
}

impl Mapping {
    /// Opens chunks for the context's device: one reservation, one grant of access, whatever their
    /// number.
    pub fn open(context: &Context, chunks: &[&Chunk], access: Access) -> Result<Self, OpenError> {
        opened::open(context, chunks, access)
    }

    /// Opens the whole allocation of a handle, for reading and writing: there is no other way. What the
    /// handle is about begins at its [offset](LegacyHandle::offset) there.
    ///
    /// # Errors
    ///
    /// [`ForeignError::Gone`], if the maker is this process or lives no more; [`ForeignError::Range`] if
    /// the handle leads out of its allocation.
    pub fn open_handle(context: &Context, handle: &LegacyHandle) -> Result<Self, ForeignError> {
        let ordinal = context.device().ordinal();
        let what = What::Allocation(*handle.allocation());
        let key = Key { ordinal, access: Access::ReadWrite, what };
        let opened = opened::open_as(&key, |key| Mapped::of_allocation(context, handle, key))?;
        match handle.offset().checked_add(handle.bytes()) {
            Some(end) if end <= opened.bytes() => Ok(opened),
            _ => Err(ForeignError::Range {
                address: opened.address().saturating_add(handle.offset()),
                bytes: handle.bytes(),
                end: opened.address() + opened.bytes(),
            }),
        }
    }

    /// The address of the first byte, for the device and for this process alone.
    pub fn address(&self) -> u64 {
        self.inner.base()
    }

    /// How many bytes, all chunks together.
    pub fn bytes(&self) -> u64 {
        self.inner.bytes()
    }

    /// Where each chunk begins, in bytes from the address. An allocation has none.
    pub fn offsets(&self) -> &[u64] {
        &self.inner.offsets
    }

    /// What may be done with it.
    pub fn access(&self) -> Access {
        self.inner.key.access
    }

    /// The chunks, to be passed on.
    pub fn chunks(&self) -> &[Chunk] {
        &self.inner.chunks
    }

    /// The context in which it is used.
    pub fn context(&self) -> &Context {
        &self.inner.context
    }

    /// Says that work on the mapping is or will be queued in `stream`, by whoever has this reference.
    ///
    /// While the stream is captured into a graph, the graph takes a reference: replaying it needs the
    /// addresses.
    ///
    /// One of this crate's streams lives on with the mapping; another must outlive it, as
    /// [`Stream::from_raw`] asks; a captured one too, and so the graph that keeps the mapping. Of a stream that is
    /// [lent](Stream::lent) only what is queued by now counts.
    pub fn used_on(&self, stream: &Stream) -> Result<(), DriverError> {
        let (context, references) = (&self.inner.context, &self.inner.references);
        context.within(|| references.used((context, stream), || self.clone(), || Ok(())))
    }

    /// Lets go of `kept`, and of this reference, when everything is done that is queued by now in the
    /// streams of [`used_on`](Self::used_on), for memory that its owner uses again as soon as it hears
    /// that nobody has it. While one of them is captured, that is after the capture's end. Of an
    /// allocation, what was let go of last is kept until it is closed or in use again.
    ///
    /// Returns at once and calls nothing of the driver: it may be called where things are dropped.
    pub fn let_go_when_done(self, kept: impl Any + Send) {
        reaper::let_go_when_done(self, Box::new(kept));
    }

    pub(crate) fn mapped(&self) -> &Arc<Mapped> {
        &self.inner
    }
}

impl Mapped {
    /// Maps, for the first reference.
    pub(crate) fn make(context: &Context, chunks: &[&Chunk], key: Key) -> Result<Self, OpenError> {
        let device = context.device();
        let granularity = device.granularity()?;
        let mut total = 0_u64;
        let mut offsets = Vec::with_capacity(chunks.len());
        let kept = chunks.iter().map(|chunk| chunk.try_clone()).collect::<Result<_, _>>()?;
        for chunk in chunks {
            let (id, bytes) = (chunk.label().id(), chunk.label().bytes());
            let size = OpenError::Size { id, bytes, granularity };
            if bytes == 0 || bytes % granularity != 0 {
                return Err(size);
            }
            offsets.push(total);
            total = total.checked_add(bytes).filter(|it| *it <= 1 << 47).ok_or(size)?;
        }
        let mut reservation = Reservation::new(usize::try_from(total).unwrap_or(usize::MAX))?;
        for chunk in chunks {
            let (id, bytes) = (chunk.label().id(), chunk.label().bytes());
            let allocation = chunk.import().map_err(|source| OpenError::NoChunk { id, source })?;
            reservation
                .map(allocation, usize::try_from(bytes).unwrap_or(usize::MAX))
                .map_err(|source| OpenError::Map { id, bytes, source })?;
        }
        let is_writable = key.access == Access::ReadWrite;
        reservation.allow(device.raw_ordinal(), is_writable).map_err(|source| {
            let foreign = chunks.iter().map(|it| it.label().device());
            match foreign.into_iter().find(|home| *home != device.uuid()) {
                Some(home) => OpenError::Unreachable { device: device.uuid(), home, source },
                None => source.into(),
            }
        })?;
        let memory = Memory::Chunks(reservation);
        Ok(Self { offsets, chunks: kept, ..Self::over(context, memory, key)? })
    }

    /// Opens an allocation, for the first reference.
    fn of_allocation(
        context: &Context,
        handle: &LegacyHandle,
        key: Key,
    ) -> Result<Self, ForeignError> {
        let allocation = Allocation::open(context, handle)?;
        Ok(Self::over(context, Memory::Allocation(allocation), key)?)
    }

    fn over(context: &Context, memory: Memory, key: Key) -> Result<Self, DriverError> {
        let references = References::new()?;
        let read_only = (key.access == Access::Read).then(ReadOnly::counted);
        Ok(Self {
            key,
            context: context.clone(),
            memory,
            offsets: Vec::new(),
            chunks: Vec::new(),
            references,
            _read_only: read_only,
        })
    }

    pub(crate) fn base(&self) -> u64 {
        match &self.memory {
            Memory::Chunks(reservation) => reservation.base(),
            Memory::Allocation(allocation) => allocation.base(),
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        match &self.memory {
            Memory::Chunks(reservation) => reservation.bytes() as u64,
            Memory::Allocation(allocation) => allocation.bytes(),
        }
    }

    pub(crate) fn is_allocation(&self) -> bool {
        matches!(self.memory, Memory::Allocation(_))
    }

    pub(crate) fn holds(&self, address: u64) -> bool {
        address.checked_sub(self.base()).is_some_and(|offset| offset < self.bytes())
    }

    /// Another reference. The first since there were none is taken under the table's entry.
    pub(crate) fn refer(self: &Arc<Self>) -> Mapping {
        self.references.add();
        Mapping { inner: Arc::clone(self) }
    }

    /// The chunks that hold `bytes` from `address` on, and where it begins in the first of them, in
    /// bytes, if all of it is in here.
    pub(crate) fn part(&self, address: u64, bytes: u64) -> Option<(&[Chunk], u64)> {
        if self.is_allocation() {
            return None;
        }
        let from = address.checked_sub(self.base())?;
        let to = from.checked_add(bytes.max(1))?;
        if to > self.bytes() {
            return None;
        }
        let first = self.offsets.partition_point(|offset| *offset <= from) - 1;
        let after = self.offsets.partition_point(|offset| *offset < to);
        Some((&self.chunks[first..after], from - self.offsets[first]))
    }
}

impl Reaped for Mapped {
    fn references(&self) -> &References {
        &self.references
    }

    fn lingers(&self) -> bool {
        true
    }

    /// To close another process's `cudaMalloc` it does, and to unmap chunks it does not.
    fn waits_for_devices(&self) -> bool {
        self.is_allocation()
    }

    fn take(&self, since: Instant) -> bool {
        opened::take(self, since)
    }
}

impl Clone for Mapping {
    fn clone(&self) -> Self {
        self.inner.refer()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.inner.references.remove() {
            reaper::tell(Arc::clone(&self.inner) as Arc<dyn Reaped>);
        }
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Mapping")
            .field("address", &format_args!("{:#x}", self.address()))
            .field("bytes", &self.bytes())
            .field("chunks", &self.offsets().len())
            .field("access", &self.access())
            .field("device", &self.inner.context.device().uuid())
            .finish_non_exhaustive()
    }
}
