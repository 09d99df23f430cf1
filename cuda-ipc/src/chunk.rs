//! Memory on a device, held by a descriptor.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::rand::{GetRandomFlags, getrandom};

use crate::device::Device;
use crate::error::DriverError;
use crate::sys::Allocation;
use crate::uuid::Uuid;

/// A chunk's identity: two descriptors of one chunk carry the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChunkId([u8; 16]);

impl ChunkId {
    /// From its bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    pub(crate) fn random() -> io::Result<Self> {
        let mut bytes = [0; 16];
        // The kernel gives up to 256 bytes whole.
        getrandom(&mut bytes, GetRandomFlags::empty())?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for ChunkId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for ChunkId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// What travels beside a chunk's descriptor, which itself tells nobody anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChunkLabel {
    id: ChunkId,
    device: Uuid,
    bytes: u64,
}

impl ChunkLabel {
    /// How long the form for messages is.
    pub const BYTES: usize = 40;

    /// What another program sent in a form of its own.
    pub const fn new(id: ChunkId, device: Uuid, bytes: u64) -> Self {
        Self { id, device, bytes }
    }

    /// Which chunk it is.
    pub fn id(&self) -> ChunkId {
        self.id
    }

    /// The device on which it lies.
    pub fn device(&self) -> Uuid {
        self.device
    }

    /// Its size.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The form for messages: identity, device, size in little-endian order.
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut form = [0; Self::BYTES];
        form[..16].copy_from_slice(&self.id.0);
        form[16..32].copy_from_slice(&self.device.to_bytes());
        form[32..].copy_from_slice(&self.bytes.to_le_bytes());
        form
    }

    /// Reads the form for messages. Whether it is true shows when the chunk is opened.
    pub fn decode(form: &[u8; Self::BYTES]) -> Self {
        let (mut id, mut device, mut bytes) = ([0; 16], [0; 16], [0; 8]);
        id.copy_from_slice(&form[..16]);
        device.copy_from_slice(&form[16..32]);
        bytes.copy_from_slice(&form[32..]);
        Self { id: ChunkId(id), device: Uuid::from_bytes(device), bytes: u64::from_le_bytes(bytes) }
    }
}

/// Memory on a device, kept by holding this.
///
/// A chunk is a file descriptor and a label. It needs no driver to be held, copied or passed on, and
/// the memory is there until the last descriptor and the last [`Mapping`](crate::Mapping) of it, in
/// whichever process, is gone: its maker need not live.
#[derive(Debug)]
pub struct Chunk {
    label: ChunkLabel,
    descriptor: OwnedFd,
}

/// A chunk cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChunkError {
    /// It would have no bytes, or more than an address range can have.
    #[error("a chunk of {bytes} bytes cannot be made: it has at least 1 byte and at most {max}")]
    Size {
        /// What was asked for.
        bytes: u64,
        /// The most there can be.
        max: u64,
    },
    /// The device or its driver cannot share memory by descriptor.
    #[error(
        "{device} ({name}) cannot share memory by descriptor: its driver lacks virtual memory \
         management or descriptors of it"
    )]
    Unsupported {
        /// The device.
        device: Uuid,
        /// Its name.
        name: String,
    },
    /// The device has not so much left.
    #[error("{device} has no {bytes} bytes left: {source}")]
    OutOfMemory {
        /// The device.
        device: Uuid,
        /// What was asked for, as a multiple of the granularity.
        bytes: u64,
        /// What the driver said.
        #[source]
        source: DriverError,
    },
    /// A descriptor cannot be copied, or there is no randomness for an identity.
    #[error("a chunk's descriptor cannot be made: {0}")]
    System(#[from] io::Error),
    /// The driver failed.
    #[error(transparent)]
    Driver(#[from] DriverError),
}

impl Chunk {
    /// New memory of at least `bytes`, rounded up to the [granularity](Device::granularity), its
    /// content undefined. Takes no context.
    pub fn create(device: &Device, bytes: u64) -> Result<Self, ChunkError> {
        let (allocation, size) = create(device, bytes)?;
        let label = ChunkLabel::new(ChunkId::random()?, device.uuid(), size as u64);
        // The descriptor is a reference of its own, so the handle need not be kept.
        Ok(Self { label, descriptor: allocation.export()? })
    }

    /// From what was received.
    pub fn from_parts(label: ChunkLabel, descriptor: OwnedFd) -> Self {
        Self { label, descriptor }
    }

    /// What can be sent.
    pub fn into_parts(self) -> (ChunkLabel, OwnedFd) {
        (self.label, self.descriptor)
    }

    /// What it is.
    pub fn label(&self) -> &ChunkLabel {
        &self.label
    }

    /// Another descriptor of the same chunk.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { label: self.label, descriptor: self.descriptor.try_clone()? })
    }

    pub(crate) fn import(&self) -> Result<Allocation, DriverError> {
        Allocation::import(self.descriptor.as_fd())
    }
}

/// New memory that can be exported, and its size.
pub(crate) fn create(device: &Device, bytes: u64) -> Result<(Allocation, usize), ChunkError> {
    if !device.capabilities().chunks {
        return Err(ChunkError::Unsupported {
            device: device.uuid(),
            name: device.name().to_owned(),
        });
    }
    let granularity = device.granularity()?;
    let max = 1 << 47;
    let rounded = bytes.checked_next_multiple_of(granularity).filter(|it| *it <= max);
    let Some(rounded) = rounded.filter(|it| *it > 0) else {
        return Err(ChunkError::Size { bytes, max });
    };
    let size = usize::try_from(rounded).map_err(|_| ChunkError::Size { bytes, max })?;
    let allocation = Allocation::create(device.raw_ordinal(), size).map_err(|source| {
        if source.as_call().is_some_and(crate::error::CallError::is_out_of_memory) {
            ChunkError::OutOfMemory { device: device.uuid(), bytes: rounded, source }
        } else {
            source.into()
        }
    })?;
    Ok((allocation, size))
}

impl AsFd for Chunk {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn labels_travel(id in any::<[u8; 16]>(), device in any::<[u8; 16]>(), bytes in any::<u64>()) {
            let label = ChunkLabel::new(ChunkId(id), Uuid::from_bytes(device), bytes);
            prop_assert_eq!(ChunkLabel::decode(&label.encode()), label);
        }
    }
}
