//! Memory on a device for this process alone, used again and again.
//!
//! To free it waits for the device, so what is let go of is kept for whoever needs as much next, and freed by
//! the reaper.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Instant;

use crate::device::Context;
use crate::error::DriverError;
use crate::reaper::{self, Reaped};
use crate::references::References;
use crate::sync::{Mutex, lock};
use crate::sys::{Linear, Stream, table};

/// Rooms that nobody has, which are kept for the next one.
const KEPT: usize = 4;

/// Memory of one size on one device, for copies that this process keeps: no other process can have it, and
/// any driver has it, also one without [`Chunk`](crate::Chunk)s.
///
/// A few rooms that were let go of are kept, and given back with the last of these and of the rooms.
#[derive(Debug)]
pub struct Rooms {
    context: Context,
    bytes: u64,
    free: Arc<Free>,
}

/// Rooms that nobody has.
type Free = Mutex<Vec<Space>>;

/// A part of a device's memory. Freeing it may wait for the device, so the reaper does.
#[derive(Debug)]
struct Space {
    /// The memory goes before its context.
    memory: Option<Linear>,
    context: Context,
}

impl Space {
    fn allocate(context: &Context, bytes: u64) -> Result<Self, DriverError> {
        // No more than a device has; the driver refuses it.
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let memory = context.within(|| Linear::allocate(bytes))?;
        Ok(Self { memory: Some(memory), context: context.clone() })
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let memory = self.memory.take();
        // In a forked child there is no context, and nothing to free.
        let _ = self.context.within(|| {
            drop(memory);
            Ok(())
        });
    }
}

/// One room. Dropped, it is used again, or freed, when everything is done that was queued in the streams of
/// [`used_on`](Self::used_on).
pub struct Room {
    address: u64,
    bytes: u64,
    inner: Arc<Inner>,
}

struct Inner {
    /// `None` once it was given back.
    space: Mutex<Option<Space>>,
    context: Context,
    home: Weak<Free>,
    references: References,
}

impl Rooms {
    /// None so far, of `bytes` each.
    pub fn new(context: &Context, bytes: u64) -> Self {
        Self { context: context.clone(), bytes, free: Arc::default() }
    }

    /// One that nothing uses, its content undefined: one that is left from before, or a new one.
    ///
    /// # Errors
    ///
    /// The driver's; [`is_out_of_memory`](crate::CallError::is_out_of_memory) tells when there is no room.
    pub fn take(&self) -> Result<Room, DriverError> {
        // Not in a forked child, where somebody may have held the lock.
        table()?;
        let references = References::new()?;
        let kept = lock(&self.free).pop();
        let space = kept.map_or_else(|| Space::allocate(&self.context, self.bytes), Ok)?;
        let address = space.memory.as_ref().map_or(0, Linear::address);
        references.add();
        let (context, home) = (self.context.clone(), Arc::downgrade(&self.free));
        let inner = Inner { space: Mutex::new(Some(space)), context, home, references };
        Ok(Room { address, bytes: self.bytes, inner: Arc::new(inner) })
    }
}

impl Drop for Rooms {
    fn drop(&mut self) {
        let (context, home) = (&self.context, Weak::new());
        for space in std::mem::take(&mut *lock(&self.free)) {
            // As when the first of them was made.
            let Ok(references) = References::new() else { return };
            references.add();
            let space = Mutex::new(Some(space));
            let inner = Inner { space, context: context.clone(), home: home.clone(), references };
            let_go(&Arc::new(inner));
        }
    }
}

impl Room {
    /// The address of the first byte, for the device and for this process alone.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// How many bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Says that work on the room is or will be queued in `stream`, as
    /// [`Mapping::used_on`](crate::Mapping::used_on) does.
    ///
    /// # Errors
    ///
    /// The driver's.
    pub fn used_on(&self, stream: &Stream) -> Result<(), DriverError> {
        let Inner { context, references, .. } = &*self.inner;
        context.within(|| references.used((context, stream), || self.again(), || Ok(())))
    }

    /// Another reference, for a graph.
    fn again(&self) -> Self {
        self.inner.references.add();
        Self { address: self.address, bytes: self.bytes, inner: Arc::clone(&self.inner) }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let_go(&self.inner);
    }
}

fn let_go(inner: &Arc<Inner>) {
    if inner.references.remove() {
        reaper::tell(Arc::clone(inner) as Arc<dyn Reaped>);
    }
}

impl Reaped for Inner {
    fn references(&self) -> &References {
        &self.references
    }

    /// What is used again is kept elsewhere.
    fn lingers(&self) -> bool {
        false
    }

    fn waits_for_devices(&self) -> bool {
        true
    }

    fn take(&self, since: Instant) -> bool {
        if !self.references.are_none_since(since) {
            return false;
        }
        let space = lock(&self.space).take();
        if let (Some(home), Some(space)) = (self.home.upgrade(), space) {
            let mut free = lock(&home);
            if free.len() < KEPT {
                free.push(space);
            }
        }
        true
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Room")
            .field("address", &format_args!("{:#x}", self.address))
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}
