//! Memory that travels: a file without a name, handed from process to process as a descriptor.
//!
//! A region lives until its last holder, in whichever process, lets go of it. Within a process each
//! is mapped once per way of looking at it, however often and from whomever it came.
//!
//! | | who reads gets | who writes gets |
//! |---|---|---|
//! | descriptor | read-only, of a file sealed against new writers | open for writing |
//! | mapping | private, copy-on-write: a store neither kills nor reaches others | shared |
//!
//! The owner's own mapping stays writable when the file is sealed: it is made first. A file that
//! was lent to a writer is not sealed any more; readers get read-only descriptors of it all the
//! same. One that was sealed is never lent to writers.

mod arena;
mod chunk;
mod descriptors;
mod id;

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use shm_core::Identity;
use thiserror::Error;

pub use arena::Arena;
pub use chunk::accounting;
pub use id::Id;

pub(crate) use chunk::{Chunk, Map};

use super::custody::Hold;

/// The size of a page of memory, in bytes: what is mapped and copied as a whole.
pub(crate) fn page_bytes() -> u64 {
    rustix::param::page_size() as u64
}

/// Where the bytes of a region are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Place {
    /// Memory of the host.
    Cpu,
}

impl Place {
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Cpu => 0,
        }
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        (code == 0).then_some(Self::Cpu)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
        }
    }
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
    pub(crate) chunk: Arc<Chunk>,
    rights: Rights,
    /// Says when the last user of what a peer lent is gone.
    _hold: Option<Arc<Hold>>,
}

impl Region {
    /// A region of `bytes` zeroes, at least one.
    ///
    /// # Errors
    /// [`RegionError::Memory`], when there is no room.
    pub fn allocate(bytes: u64) -> Result<Self, RegionError> {
        Ok(Self { chunk: Chunk::create(bytes.max(1))?, rights: Rights::Write, _hold: None })
    }

    /// What a peer sent; `rights` are those it granted, of which the descriptor may allow less.
    pub(crate) fn adopt(
        fd: OwnedFd,
        id: Id,
        bytes: u64,
        rights: Rights,
    ) -> Result<Self, RegionError> {
        let chunk = Chunk::adopt(fd, id, bytes)?;
        if rights > chunk.rights() {
            return Err(RegionError::Sealed);
        }
        Ok(Self { chunk, rights, _hold: None })
    }

    pub(crate) fn held(&self, hold: Arc<Hold>) -> Self {
        Self { chunk: Arc::clone(&self.chunk), rights: self.rights, _hold: Some(hold) }
    }

    /// What others name it by.
    pub fn id(&self) -> Id {
        self.chunk.id()
    }

    /// The file behind it, the same in every process.
    pub fn identity(&self) -> Identity {
        self.chunk.identity()
    }

    /// Its length in bytes.
    pub fn bytes(&self) -> u64 {
        self.chunk.bytes()
    }

    /// How many of its bytes have memory behind them; what was never written to has none.
    pub(crate) fn bytes_there(&self) -> Result<u64, RegionError> {
        self.chunk.bytes_there()
    }

    /// Where it is.
    pub fn place(&self) -> Place {
        self.chunk.place()
    }

    /// What this holder may do with it.
    pub fn rights(&self) -> Rights {
        self.rights
    }

    /// How this holder looks at it unless something else is said: shared if it may write, else
    /// private.
    pub fn usual_access(&self) -> Access {
        match self.rights {
            Rights::Write => Access::Shared,
            Rights::Read => Access::PrivateCopyOnWrite,
        }
    }

    pub(crate) fn map(&self, access: Access) -> Result<Arc<Map>, RegionError> {
        if access == Access::Shared && self.rights == Rights::Read {
            return Err(RegionError::Sealed);
        }
        self.chunk.map(access)
    }

    /// A descriptor for a peer, and the rights that go with it: at most `wanted`.
    ///
    /// # Errors
    /// [`RegionError::Sealed`] if writing is wanted and was given away before.
    pub(crate) fn lend(&self, wanted: Rights) -> Result<Arc<OwnedFd>, RegionError> {
        if wanted > self.rights {
            return Err(RegionError::Sealed);
        }
        self.chunk.lend(wanted)
    }
}

impl PartialEq for Region {
    /// Whether both are the same memory, whatever their holders may do with it.
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for Region {}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region")
            .field("id", &self.id())
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
