//! `cudaMalloc` memory in place, by the handles of CUDA 4: bound to the life of its maker.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Weak};

use crate::device::Context;
use crate::foreign::{ForeignError, Origin, origin};
use crate::sync::{Mutex, lock};
use crate::sys::{self, LegacyMapping, table};

/// A range of another process's `cudaMalloc` memory.
///
/// It is **volatile**: valid while its maker lives and does not free it, and gone without notice
/// afterwards. [`Chunk`](crate::Chunk)s have no such bond.
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
    pub fn new(context: &Context, address: u64, bytes: u64) -> Result<Self, ForeignError> {
        match origin(context, address, bytes)? {
            Origin::Allocated => {}
            origin => return Err(ForeignError::CopyOnly { address, origin }),
        }
        Ok(context.within(|| {
            let (base, _) = sys::address_range(address)?;
            Ok(Self { handle: sys::legacy_handle(address)?, offset: address - base, bytes })
        })?)
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

/// Memory of another process, opened. The allocation is closed with its last reference here, which
/// waits for the device: drop it where that may be.
#[derive(Clone)]
pub struct Legacy {
    opened: Arc<Opened>,
    address: u64,
    bytes: u64,
}

struct Opened {
    mapping: Option<LegacyMapping>,
    base: u64,
    bytes: usize,
    context: Context,
}

impl Drop for Opened {
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

type Key = (usize, [u8; 64]);

/// A process may open an allocation once; whoever opens another part of it shares that.
static OPENED: Mutex<Option<HashMap<Key, Weak<Opened>>>> = Mutex::new(None);

impl Legacy {
    /// Opens the memory for the context's device.
    ///
    /// # Errors
    ///
    /// The driver's, if the maker is this process or lives no more; [`ForeignError::Range`] if the
    /// handle leads out of its allocation.
    pub fn open(context: &Context, handle: &LegacyHandle) -> Result<Self, ForeignError> {
        table()?;
        let key = (context.device().ordinal(), handle.handle);
        let mut opened = lock(&OPENED);
        let opened = opened.get_or_insert_default();
        opened.retain(|_, it| it.strong_count() > 0);
        let there = if let Some(there) = opened.get(&key).and_then(Weak::upgrade) {
            there
        } else {
            let (mapping, base, bytes) = context.within(|| {
                let mapping = LegacyMapping::open(&handle.handle)?;
                let (base, bytes) = sys::address_range(mapping.address())?;
                Ok((Some(mapping), base, bytes))
            })?;
            let context = context.clone();
            let there = Arc::new(Opened { mapping, base, bytes, context });
            opened.insert(key, Arc::downgrade(&there));
            there
        };
        let base = there.base;
        let end = base + there.bytes as u64;
        let fits =
            handle.offset.checked_add(handle.bytes).is_some_and(|it| it <= there.bytes as u64);
        if !fits {
            let address = base.saturating_add(handle.offset);
            return Err(ForeignError::Range { address, bytes: handle.bytes, end });
        }
        Ok(Self { address: base + handle.offset, bytes: handle.bytes, opened: there })
    }

    /// Its address in this process.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// How many bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The context for which it was opened.
    pub fn context(&self) -> &Context {
        &self.opened.context
    }
}

impl fmt::Debug for Legacy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Legacy")
            .field("address", &format_args!("{:#x}", self.address))
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}
