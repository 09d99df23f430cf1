//! `cudaMalloc` memory in place, by the handles of CUDA 4: bound to the life of its maker.

use std::fmt;

use crate::device::Context;
use crate::error::{DriverError, lost};
use crate::foreign::{ForeignError, Origin, origin};
use crate::sys::{self, LegacyMapping};

/// A range of another process's `cudaMalloc` memory.
///
/// It is **volatile**: valid while its maker lives and does not free it, and gone without notice
/// afterwards. [`Chunk`](crate::Chunk)s have no such bond. Its maker must not free it while somebody has
/// it open, says the driver's documentation, which leaves undefined what happens then.
///
/// [`Mapping::open_handle`](crate::Mapping::open_handle) opens it. Memory that is freed and allocated
/// again has another handle.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LegacyHandle {
    handle: [u8; 64],
    offset: u64,
    bytes: u64,
}

impl LegacyHandle {
    /// How long the form for messages is.
    pub const BYTES: usize = 80;

    /// The handle of `bytes` from `address` on.
    ///
    /// # Errors
    ///
    /// [`ForeignError::NoHandles`] where the driver has none, [`ForeignError::CopyOnly`] for memory that
    /// is not from `cudaMalloc`, or not of this process.
    pub fn new(context: &Context, address: u64, bytes: u64) -> Result<Self, ForeignError> {
        let device = context.device();
        if !device.capabilities().legacy_ipc {
            return Err(ForeignError::NoHandles { device: device.uuid() });
        }
        match origin(context, address, bytes)? {
            Origin::Allocated => {}
            origin => return Err(ForeignError::CopyOnly { address, origin }),
        }
        Ok(context.within(|| {
            let (base, _) = sys::address_range(address)?;
            Ok(Self { handle: sys::legacy_handle(address)?, offset: address - base, bytes })
        })?)
    }

    /// Where the range begins in its allocation, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    pub(crate) fn allocation(&self) -> &[u8; 64] {
        &self.handle
    }

    /// How many bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The form for messages: handle, offset, bytes, numbers in little-endian order.
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut form = [0; Self::BYTES];
        form[..64].copy_from_slice(&self.handle);
        form[64..72].copy_from_slice(&self.offset.to_le_bytes());
        form[72..].copy_from_slice(&self.bytes.to_le_bytes());
        form
    }

    /// Reads the form for messages.
    pub fn decode(form: &[u8; Self::BYTES]) -> Self {
        let (mut handle, mut offset, mut bytes) = ([0; 64], [0; 8], [0; 8]);
        handle.copy_from_slice(&form[..64]);
        offset.copy_from_slice(&form[64..72]);
        bytes.copy_from_slice(&form[72..]);
        Self { handle, offset: u64::from_le_bytes(offset), bytes: u64::from_le_bytes(bytes) }
    }
}

impl fmt::Debug for LegacyHandle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("LegacyHandle")
            .field("offset", &self.offset)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// An allocation of another process, opened. Closing it waits for the device, so mappings leave that to
/// the reaper.
pub(crate) struct Allocation {
    mapping: Option<LegacyMapping>,
    base: u64,
    bytes: usize,
    context: Context,
}

impl Allocation {
    pub(crate) fn open(context: &Context, handle: &LegacyHandle) -> Result<Self, ForeignError> {
        let opened = context.within(|| {
            let mapping = LegacyMapping::open(&handle.handle)?;
            let (base, bytes) = sys::address_range(mapping.address())?;
            Ok((Some(mapping), base, bytes))
        });
        let (mapping, base, bytes) = opened.map_err(|source| match source {
            DriverError::Call(_) if lost().is_none() => ForeignError::Gone { source },
            other => other.into(),
        })?;
        Ok(Self { mapping, base, bytes, context: context.clone() })
    }

    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes as u64
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        let mapping = self.mapping.take();
        // It can be closed only in the context in which it was opened. In a forked child there is none,
        // and nothing to close.
        let _ = self.context.within(|| {
            drop(mapping);
            Ok(())
        });
    }
}
