//! Memory that travels: a file without a name, handed from process to process as a descriptor.
//!
//! A region lives until its last holder, in whichever process, lets go of it. Within a process each
//! is mapped once per way of looking at it, however often and from whomever it came.
//!
//! | | who reads gets | who writes gets |
//! |---|---|---|
//! | descriptor | read-only, of a file sealed against new writers | open for writing |
//! | mapping | private, copy-on-write: a store neither kills nor reaches others | shared |
//! | on a GPU | read-only: a store ends CUDA for the process that made it, and reaches nobody | shared |
//!
//! The owner's own mapping stays writable when the file is sealed: it is made first. A file that
//! was lent to a writer is not sealed any more; readers get read-only descriptors of it all the
//! same. One that was sealed is never lent to writers.
//!
//! Memory of `cudaMalloc` can be lent where it is, and then lives no longer than its maker keeps it:
//! [`Region::volatile`]. It has no descriptor, and whoever has it may write to it.

mod arena;
mod chunk;
mod descriptors;
mod device;
mod id;
mod place;
mod volatile;

use std::fmt;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use shm_core::{Identity, SharedBytes};
use thiserror::Error;

pub use arena::Arena;
pub use chunk::accounting;
pub use id::Id;
pub use place::Place;

pub(crate) use chunk::Map;
pub(crate) use device::open;

use chunk::Chunk;
use device::OnDevice;
use volatile::Volatile;

#[cfg(test)]
pub(crate) use volatile::tests as volatile_tests;

use super::custody::Hold;

/// The size of a page of memory, in bytes: what is mapped and copied as a whole.
pub(crate) fn page_bytes() -> u64 {
    rustix::param::page_size() as u64
}

/// How a process looks at a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Access {
    /// Stores are possible and stay in this process: all that look at the region in this way, within
    /// one process, see them.
    PrivateCopyOnWrite = 0,
    /// Stores reach everybody.
    Shared = 1,
    /// A store ends the process.
    ReadOnly = 2,
}

/// What a holder of a region may do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rights {
    /// Read it; write to a private copy of its pages.
    Read,
    /// Write to it.
    Write,
}

/// Memory that can be lent to other processes, of fixed length.
///
/// Clones are the same memory.
#[derive(Clone)]
pub struct Region {
    memory: Memory,
    rights: Rights,
    /// Whether everybody may write to it, whatever is granted with what it comes with.
    is_for_writers: bool,
    /// Whether an allocator of somebody else has it, which uses it again.
    is_borrowed: bool,
    /// Says when the last user of what a peer lent is gone.
    _hold: Option<Arc<Hold>>,
}

#[derive(Clone)]
enum Memory {
    OnHost(Arc<Chunk>),
    OnDevice(Arc<OnDevice>),
    Volatile(Arc<Volatile>),
}

impl Region {
    /// A region of `bytes` zeroes, at least one, in memory of the host.
    ///
    /// # Errors
    /// [`RegionError::Memory`], when there is no room.
    pub fn allocate(bytes: u64) -> Result<Self, RegionError> {
        Ok(Self::own(Memory::OnHost(Chunk::create(bytes.max(1))?)))
    }

    /// A region of at least `bytes` bytes on a GPU, their content undefined. Takes no context.
    ///
    /// # Errors
    /// [`RegionError::Chunk`], when there is no room, or the GPU cannot share memory.
    pub fn allocate_on(device: &cuda_ipc::Device, bytes: u64) -> Result<Self, RegionError> {
        Ok(Self::own(Memory::OnDevice(Arc::new(OnDevice::create(device, bytes.max(1))?))))
    }

    /// Memory on a GPU that there is already, such as what
    /// [`share_in_place`](cuda_ipc::share_in_place) finds.
    ///
    /// Its allocator uses it again when it is freed there, whoever else has it. So a result that lies in
    /// it is leased, also that of an endpoint which keeps nothing: what
    /// [`Output::with_native`](crate::service::Output::with_native) keeps lives until the last client
    /// is done.
    pub fn of_chunk(chunk: cuda_ipc::Chunk) -> Self {
        let memory = Memory::OnDevice(Arc::new(OnDevice::of(chunk)));
        Self { is_borrowed: true, ..Self::own(memory) }
    }

    /// Memory of `cudaMalloc` of this process, lent where it is: `bytes` from `address` on.
    ///
    /// It is **volatile**: there while this process lives and does not free it, which `keeper` is to see to.
    /// It is dropped when nobody has the memory any more, in whichever process; results that lie in it are
    /// leased, also those of an endpoint that keeps nothing. Whoever gets it may write to it, as the
    /// driver has no other way, so that only [writable](crate::service::Endpoint::writable) endpoints can
    /// return it. What a client passes back is this memory again; nobody else can be lent it.
    ///
    /// # Errors
    /// [`RegionError::Foreign`], if the memory is of another kind, or the driver cannot share it.
    pub fn volatile(
        context: &cuda_ipc::Context,
        address: u64,
        bytes: u64,
        keeper: impl std::any::Any + Send + Sync,
    ) -> Result<Self, RegionError> {
        let made = Volatile::lend(context, address, bytes, Box::new(keeper))?;
        Ok(Self::of_volatile(made))
    }

    fn of_volatile(made: Arc<Volatile>) -> Self {
        let is_borrowed = made.address_here().is_some();
        Self { is_borrowed, ..Self::own(Memory::Volatile(made)) }
    }

    /// Volatile memory that a message names: this process's own, if it lends it by that name.
    pub(crate) fn own_volatile(id: Id) -> Option<Self> {
        Volatile::own(id).map(Self::of_volatile)
    }

    /// Volatile memory that a peer lends.
    pub(crate) fn their_volatile(
        device: cuda_ipc::Uuid,
        id: Id,
        handle: cuda_ipc::LegacyHandle,
    ) -> Self {
        Self::of_volatile(Arc::new(Volatile::theirs(device, id, handle)))
    }

    /// The same, which came from that process: if it is volatile it goes nowhere but back.
    pub(crate) fn made_by(self, maker: Option<u32>) -> Self {
        let Memory::Volatile(memory) = &self.memory else { return self };
        let Some(made) = memory.made_by(maker) else { return self };
        Self { memory: Memory::Volatile(Arc::new(made)), ..self }
    }

    /// Whether it lives no longer than its maker keeps it: see [`volatile`](Self::volatile).
    pub fn is_volatile(&self) -> bool {
        matches!(self.memory, Memory::Volatile(_))
    }

    /// Whether that process can be passed it. What is volatile goes back to its maker only.
    pub fn may_go_to(&self, process: Option<u32>) -> bool {
        match &self.memory {
            Memory::Volatile(memory) => process.is_some_and(|process| memory.is_of(process)),
            _ => true,
        }
    }

    /// Where volatile memory of this process lies, which opens it no other way.
    pub fn address_here(&self) -> Option<u64> {
        match &self.memory {
            Memory::Volatile(memory) => memory.address_here(),
            _ => None,
        }
    }

    pub(crate) fn handle(&self) -> Option<&cuda_ipc::LegacyHandle> {
        match &self.memory {
            Memory::Volatile(memory) => Some(memory.handle()),
            _ => None,
        }
    }

    /// Where it begins in what [`Storage::open`](crate::service::Storage::open) opens, in bytes.
    pub(crate) fn start(&self) -> u64 {
        self.handle().map_or(0, cuda_ipc::LegacyHandle::offset)
    }

    fn own(memory: Memory) -> Self {
        let is_borrowed = false;
        Self { memory, rights: Rights::Write, is_for_writers: false, is_borrowed, _hold: None }
    }

    /// Whether its bytes are others' as soon as its owner lets go of it.
    pub(crate) fn is_borrowed(&self) -> bool {
        self.is_borrowed
    }

    /// What a peer sent; `rights` are those it granted, of which the descriptor may allow less.
    pub(crate) fn adopt(
        fd: OwnedFd,
        id: Id,
        place: Place,
        bytes: u64,
        rights: Rights,
    ) -> Result<Self, RegionError> {
        let memory = match place {
            Place::Cpu => {
                let chunk = Chunk::adopt(fd, id, bytes)?;
                if rights > chunk.rights() {
                    return Err(RegionError::Sealed);
                }
                Memory::OnHost(chunk)
            }
            Place::Cuda(device) => {
                Memory::OnDevice(Arc::new(OnDevice::adopt(fd, id, device, bytes)))
            }
        };
        Ok(Self { rights, ..Self::own(memory) })
    }

    pub(crate) fn held(&self, hold: Arc<Hold>) -> Self {
        Self { _hold: Some(hold), ..self.clone() }
    }

    /// The same, for everybody to write to it, whatever is granted with what it comes with.
    pub(crate) fn for_writers(&self) -> Result<Self, RegionError> {
        self.on_host()?;
        if self.rights != Rights::Write {
            return Err(RegionError::Sealed);
        }
        Ok(Self { is_for_writers: true, ..self.clone() })
    }

    /// What a peer gets that is granted `wanted`.
    pub(crate) fn granting(&self, wanted: Rights) -> Rights {
        if self.is_for_writers { self.rights } else { wanted.min(self.rights) }
    }

    /// What others name it by.
    pub fn id(&self) -> Id {
        match &self.memory {
            Memory::OnHost(chunk) => chunk.id(),
            Memory::OnDevice(chunk) => chunk.id(),
            Memory::Volatile(memory) => memory.id(),
        }
    }

    /// The file behind it, the same in every process; `None` for memory on a GPU, which has none.
    pub fn identity(&self) -> Option<Identity> {
        match &self.memory {
            Memory::OnHost(chunk) => Some(chunk.identity()),
            Memory::OnDevice(_) | Memory::Volatile(_) => None,
        }
    }

    /// Its length in bytes.
    pub fn bytes(&self) -> u64 {
        match &self.memory {
            Memory::OnHost(chunk) => chunk.bytes(),
            Memory::OnDevice(chunk) => chunk.bytes(),
            Memory::Volatile(memory) => memory.bytes(),
        }
    }

    /// How many of its bytes have memory behind them; what was never written to has none.
    pub(crate) fn bytes_there(&self) -> Result<u64, RegionError> {
        match &self.memory {
            Memory::OnHost(chunk) => chunk.bytes_there(),
            Memory::OnDevice(_) | Memory::Volatile(_) => Ok(self.bytes()),
        }
    }

    /// Where it is.
    pub fn place(&self) -> Place {
        match &self.memory {
            Memory::OnHost(_) => Place::Cpu,
            Memory::OnDevice(chunk) => chunk.place(),
            Memory::Volatile(memory) => memory.place(),
        }
    }

    /// What this holder may do with it.
    pub fn rights(&self) -> Rights {
        self.rights
    }

    /// How this holder looks at it unless something else is said: shared if it may write, else
    /// private in memory of the host, and read-only on a GPU, which copies nothing on a write.
    pub fn usual_access(&self) -> Access {
        match (self.rights, &self.memory) {
            (Rights::Write, _) => Access::Shared,
            (Rights::Read, Memory::OnHost(_)) => Access::PrivateCopyOnWrite,
            (Rights::Read, Memory::OnDevice(_) | Memory::Volatile(_)) => Access::ReadOnly,
        }
    }

    pub(crate) fn map(&self, access: Access) -> Result<Arc<Map>, RegionError> {
        if access == Access::Shared && self.rights == Rights::Read {
            return Err(RegionError::Sealed);
        }
        self.on_host()?.map(access)
    }

    /// A mapping of a part that nobody else looks at.
    pub(crate) fn map_apart(&self, range: Range<u64>) -> Result<SharedBytes, RegionError> {
        self.on_host()?.map_apart(range)
    }

    fn on_host(&self) -> Result<&Chunk, RegionError> {
        match &self.memory {
            Memory::OnHost(chunk) => Ok(chunk),
            Memory::OnDevice(_) | Memory::Volatile(_) => Err(RegionError::OnDevice(self.place())),
        }
    }

    fn chunk_on_device(&self) -> Option<&cuda_ipc::Chunk> {
        match &self.memory {
            Memory::OnHost(_) | Memory::Volatile(_) => None,
            Memory::OnDevice(chunk) => Some(chunk.chunk()),
        }
    }

    /// A descriptor of memory of the host, for those who may do what `rights` say.
    ///
    /// # Errors
    /// As for lending it to a peer, and [`RegionError::OnDevice`].
    pub fn descriptor(&self, rights: Rights) -> Result<OwnedFd, RegionError> {
        self.on_host()?.lend(rights)?.try_clone().map_err(RegionError::Descriptor)
    }

    /// A descriptor for a peer, and the rights that go with it: at most `wanted`. What is volatile has none.
    ///
    /// # Errors
    /// [`RegionError::Sealed`] if writing is wanted and was given away before; [`RegionError::Volatile`] if
    /// what everybody may write to is to be lent for reading.
    pub(crate) fn lend(&self, wanted: Rights) -> Result<Option<Arc<OwnedFd>>, RegionError> {
        if wanted > self.rights {
            return Err(RegionError::Sealed);
        }
        match &self.memory {
            Memory::OnHost(chunk) => chunk.lend(wanted).map(Some),
            Memory::OnDevice(chunk) => chunk.lend().map(Some),
            Memory::Volatile(_) if wanted == Rights::Read => Err(RegionError::Volatile),
            Memory::Volatile(_) => Ok(None),
        }
    }
}

impl PartialEq for Region {
    /// Whether both are the same memory, whatever their holders may do with it.
    fn eq(&self, other: &Self) -> bool {
        match (&self.memory, &other.memory) {
            (Memory::OnHost(one), Memory::OnHost(other)) => one.identity() == other.identity(),
            (Memory::OnDevice(one), Memory::OnDevice(other)) => one.id() == other.id(),
            (Memory::Volatile(one), Memory::Volatile(other)) => one.id() == other.id(),
            _ => false,
        }
    }
}

impl Eq for Region {}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region")
            .field("id", &self.id())
            .field("place", &self.place())
            .field("bytes", &self.bytes())
            .field("rights", &self.rights)
            .finish_non_exhaustive()
    }
}

/// Why there is no region, or no way to it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RegionError {
    /// Making it, or taking one from a peer, failed.
    #[error("{}", descriptors::unusable(.0))]
    Memory(#[from] shm_core::RegionError),
    /// Mapping it failed.
    #[error("a region of shared memory cannot be mapped: {0}")]
    Map(#[from] shm_core::MapError),
    /// Making it on a GPU failed.
    #[error(transparent)]
    Chunk(#[from] cuda_ipc::ChunkError),
    /// Opening it on a GPU failed.
    #[error(transparent)]
    Open(#[from] cuda_ipc::OpenError),
    /// Lending it where it is, or opening what is lent so, failed.
    #[error(transparent)]
    Foreign(#[from] cuda_ipc::ForeignError),
    /// Memory that is lent where it is would be lent for reading.
    #[error(
        "memory of cudaMalloc that is lent where it is (copy=False) can be written to by whoever gets it: \
         declare the endpoint `writable`, or lend a copy"
    )]
    Volatile,
    /// Memory that is lent where it is was to be opened for another GPU.
    #[error(
        "memory that is lent where it is (copy=False) is opened on its own GPU only, {0}: let this process \
         see it (CUDA_VISIBLE_DEVICES), or lend a copy"
    )]
    Elsewhere(Place),
    /// Memory that is lent where it is would go to somebody who is not its maker.
    #[error(
        "memory that a server lends where it is (copy=False) goes back to that server and to nobody else: \
         pass a copy of it"
    )]
    Astray,
    /// The host is to look at memory of a GPU.
    #[error("this memory is on {0}, where only CUDA reads it: open it there, or copy it")]
    OnDevice(Place),
    /// A GPU is to look at memory of the host.
    #[error("this memory is the host's: a GPU reads a copy of it")]
    OnHost,
    /// The kernel refused a descriptor or a seal.
    #[error("a region of shared memory cannot be handed out: {}", descriptors::refused(.0))]
    Descriptor(#[source] io::Error),
    /// A peer announced another length than its descriptor has.
    #[error("a region said to have {said} bytes has {found}")]
    Size {
        /// What was announced.
        said: u64,
        /// What the kernel says.
        found: u64,
    },
    /// Writing is wanted where it is not granted.
    #[error(
        "this memory was first lent read-only and cannot be lent or mapped for writing any more: \
         declare the endpoint that lends it first `writable`, or return a copy"
    )]
    Sealed,
}
