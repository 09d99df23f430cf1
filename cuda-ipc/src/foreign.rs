//! Memory that others made: torch's allocator, a library, `cudaMalloc`.

use std::io;

use crate::chunk::{Chunk, ChunkId, ChunkLabel};
use crate::device::Context;
use crate::error::DriverError;
use crate::opened;
use crate::sys::{self, Allocation, Kind, table};
use crate::uuid::Uuid;

/// How a range of somebody else's device memory can be shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// Mapped from exportable chunks, such as torch's expandable segments: [`share_in_place`] works.
    Chunks,
    /// From `cudaMalloc`: [`LegacyHandle`](crate::LegacyHandle) works while its maker lives, a copy
    /// always.
    Allocated,
    /// From a memory pool, or from virtual memory that was not made for export, or another process's,
    /// opened here by its handle: only a copy works.
    CopyOnly,
}

/// Memory at an address cannot be shared as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ForeignError {
    /// The driver does not know the address, or it is on the host.
    #[error("{address:#x} is no memory on a device")]
    NotOnDevice {
        /// The address.
        address: u64,
    },
    /// It moves between host and device by itself.
    #[error("{address:#x} is managed memory, which belongs to one process; copy it")]
    Managed {
        /// The address.
        address: u64,
    },
    /// It is on a device other than the context's.
    #[error("{address:#x} is on device {found} of this process, not on {expected}")]
    OtherDevice {
        /// The address.
        address: u64,
        /// The number of its device here.
        found: i32,
        /// The number of the context's device.
        expected: usize,
    },
    /// It goes beyond the allocation in which it begins.
    #[error("{bytes} bytes from {address:#x} on go beyond an allocation that ends at {end:#x}")]
    Range {
        /// The address.
        address: u64,
        /// The bytes asked for.
        bytes: u64,
        /// The end of what is there.
        end: u64,
    },
    /// It must be copied.
    #[error("memory at {address:#x} was not made to be shared in place: {origin:?}; copy it")]
    CopyOnly {
        /// The address.
        address: u64,
        /// What it is.
        origin: Origin,
    },
    /// The driver has no handles for what `cudaMalloc` made.
    #[error("{device} shares no memory of cudaMalloc in place: its driver lacks cuIpcGetMemHandle")]
    NoHandles {
        /// The device.
        device: Uuid,
    },
    /// A handle leads nowhere.
    #[error(
        "memory that was lent in place cannot be opened: {source}; most likely its maker has ended or \
         freed it, or is this process: such memory is lent only while its maker lives and keeps it"
    )]
    Gone {
        /// What the driver said.
        #[source]
        source: DriverError,
    },
    /// There is no randomness for an identity.
    #[error("a chunk cannot be named: {0}")]
    System(#[from] io::Error),
    /// The driver failed.
    #[error(transparent)]
    Driver(#[from] DriverError),
}

/// Memory at an address as chunks.
#[derive(Debug)]
pub struct InPlace {
    /// The chunks that hold it, in the order of their addresses.
    pub chunks: Vec<Chunk>,
    /// Where it begins in the first of them, in bytes.
    pub offset: u64,
}

/// The memory behind a range of addresses, to be told from what lies there later: allocators that put
/// memory together from pieces use addresses again, with other pieces.
///
/// It keeps the memory.
#[derive(Debug)]
pub struct Backing {
    /// Where each piece begins.
    pieces: Vec<(u64, Allocation)>,
}

impl Backing {
    /// What is mapped at `bytes` bytes from `address` on.
    ///
    /// # Errors
    ///
    /// [`ForeignError::CopyOnly`] for memory that is not mapped from chunks, and as [`origin`].
    pub fn of(context: &Context, address: u64, bytes: u64) -> Result<Self, ForeignError> {
        let origin = origin(context, address, bytes)?;
        if origin != Origin::Chunks {
            return Err(ForeignError::CopyOnly { address, origin });
        }
        let (mut at, _) = context.within(|| sys::address_range(address))?;
        let mut pieces = Vec::new();
        while at < address + bytes {
            pieces.push((at, Allocation::retain(at)?));
            at = next(context, address, bytes, at)?;
        }
        Ok(Self { pieces })
    }

    /// Whether it is still what is mapped there.
    pub fn is_there(&self) -> bool {
        let is_same =
            |(at, known): &(u64, Allocation)| Allocation::retain(*at).is_ok_and(|it| it == *known);
        self.pieces.iter().all(is_same)
    }
}

/// What a range of memory on the context's device is.
pub fn origin(context: &Context, address: u64, bytes: u64) -> Result<Origin, ForeignError> {
    let end = address.checked_add(bytes).ok_or(ForeignError::NotOnDevice { address })?;
    if opened::is_allocation_at(address) {
        return Ok(Origin::CopyOnly);
    }
    let (kind, base, size) = context.within(|| Ok(known(context, address)))??;
    match kind {
        Kind::Host => return Err(ForeignError::NotOnDevice { address }),
        Kind::Managed => return Err(ForeignError::Managed { address }),
        Kind::Pooled => return Ok(Origin::CopyOnly),
        Kind::Allocated => {
            let ends = base + size as u64;
            if end > ends {
                return Err(ForeignError::Range { address, bytes, end: ends });
            }
            return Ok(Origin::Allocated);
        }
        Kind::Mapped => {}
    }
    // Chunks only if each piece was made for export.
    let mut at = base;
    while at < end {
        let allocation = match Allocation::retain(at) {
            Ok(allocation) => allocation,
            Err(DriverError::Call(_)) if at > base => {
                return Err(ForeignError::Range { address, bytes, end: at });
            }
            Err(DriverError::Call(_)) => return Ok(Origin::CopyOnly),
            Err(error) => return Err(error.into()),
        };
        if !allocation.origin()?.0 {
            return Ok(Origin::CopyOnly);
        }
        at = next(context, address, bytes, at)?;
    }
    Ok(Origin::Chunks)
}

/// The chunks of memory at an address, without a copy. They keep it from then on, whatever becomes of
/// the mapping at `address` and of this process.
///
/// Of what this process has [opened](crate::Mapping) they are the very chunks that were opened. Of what
/// others mapped a chunk has an identity of its own each time it is shared: share once and pass copies
/// on.
pub fn share_in_place(
    context: &Context,
    address: u64,
    bytes: u64,
) -> Result<InPlace, ForeignError> {
    table()?;
    if let Some((chunks, offset)) = opened::chunks_at(address, bytes)? {
        return Ok(InPlace { chunks, offset });
    }
    let origin = origin(context, address, bytes)?;
    if origin != Origin::Chunks {
        return Err(ForeignError::CopyOnly { address, origin });
    }
    let end = address + bytes;
    let (base, _) = context.within(|| sys::address_range(address))?;
    let (mut chunks, mut at) = (Vec::new(), base);
    while at < end {
        let after = next(context, address, bytes, at)?;
        let allocation = Allocation::retain(at)?;
        let label = ChunkLabel::new(ChunkId::random()?, context.device().uuid(), after - at);
        chunks.push(Chunk::from_parts(label, allocation.export()?));
        at = after;
    }
    Ok(InPlace { chunks, offset: address - base })
}

/// What lies at an address, and the range of its allocation or mapping.
fn known(context: &Context, address: u64) -> Result<(Kind, u64, usize), ForeignError> {
    let pointer = sys::pointer(address)?.ok_or(ForeignError::NotOnDevice { address })?;
    if matches!(pointer.kind, Kind::Host | Kind::Managed) {
        return Ok((pointer.kind, address, 0));
    }
    let expected = context.device().ordinal();
    if usize::try_from(pointer.ordinal) != Ok(expected) {
        return Err(ForeignError::OtherDevice { address, found: pointer.ordinal, expected });
    }
    let (base, size) = sys::address_range(address)?;
    Ok((pointer.kind, base, size))
}

/// The end of the mapping at `at`.
fn next(context: &Context, address: u64, bytes: u64, at: u64) -> Result<u64, ForeignError> {
    match context.within(|| sys::address_range(at)) {
        Ok((base, size)) if base == at && size > 0 => Ok(at + size as u64),
        Ok(_) | Err(DriverError::Call(_)) => Err(ForeignError::Range { address, bytes, end: at }),
        Err(error) => Err(error.into()),
    }
}
