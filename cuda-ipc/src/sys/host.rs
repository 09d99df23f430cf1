//! Memory of the host that somebody has mapped, and its registration with the driver.

use std::ffi::{c_uint, c_void};
use std::ops::Range;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

use super::fork::Generation;
use super::table::table;
use crate::error::{Absent, DriverError, QueueError};

/// Memory of the host that is mapped in this process for as long as the value lives: a view of a segment,
/// say, that keeps its mapping.
///
/// # Safety
///
/// From the moment when the value is given away until it is dropped, wherever it is moved:
///
/// - the pages that hold the [`bytes`](Self::bytes) bytes from [`start`](Self::start) on are mapped, and
///   stay the same pages; they can be read, and if it [`is_writable`](Self::is_writable) also written;
/// - nothing in this process relies on what is in them: it is reached through atomics and through copies
///   that bear races, since devices and other processes change it at any moment;
/// - all three methods give the same answers each time, from any thread.
///
/// To drop one value does not unmap what another one names.
pub unsafe trait HostMemory: Send + Sync + 'static {
    /// The first byte.
    fn start(&self) -> NonNull<u8>;

    /// How many bytes.
    fn bytes(&self) -> usize;

    /// Whether this process, and so its devices, may write.
    fn is_writable(&self) -> bool;
}

/// Bytes within somebody's memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(super) address: usize,
    pub(super) bytes: usize,
}

/// Where `bytes` bytes at `offset` lie.
pub(crate) fn place(memory: &dyn HostMemory, offset: u64, bytes: u64) -> Result<Place, QueueError> {
    let length = memory.bytes() as u64;
    match offset.checked_add(bytes) {
        // Both are at most the length.
        Some(end) if end <= length => {
            let address = memory.start().as_ptr().addr() + offset as usize;
            Ok(Place { address, bytes: bytes as usize })
        }
        _ => Err(QueueError::Range { offset, bytes, length }),
    }
}

const WORD: u64 = size_of::<AtomicU64>() as u64;

fn word(memory: &dyn HostMemory, offset: u64) -> Result<&AtomicU64, QueueError> {
    let place = place(memory, offset, WORD)?;
    if !place.address.is_multiple_of(align_of::<AtomicU64>()) {
        return Err(QueueError::Misaligned { offset });
    }
    // SAFETY: within the memory.
    let word = unsafe { memory.start().add(offset as usize) };
    // SAFETY: aligned, mapped while the memory is borrowed, and touched through atomics alone; D7.
    Ok(unsafe { word.cast::<AtomicU64>().as_ref() })
}

/// That a word of eight bytes is at `offset`, at a multiple of eight.
pub(crate) fn check_word(memory: &dyn HostMemory, offset: u64) -> Result<(), QueueError> {
    word(memory, offset).map(drop)
}

/// The word at `offset`, with what was written before it.
pub(crate) fn load(memory: &dyn HostMemory, offset: u64) -> Result<u64, QueueError> {
    // Of memory that cannot be written only relaxed loads are defined.
    let value = word(memory, offset)?.load(Ordering::Relaxed);
    fence(Ordering::Acquire);
    Ok(value)
}

/// The word at `offset`, to be written.
pub(crate) fn word_to_write(
    memory: &dyn HostMemory,
    offset: u64,
) -> Result<&AtomicU64, QueueError> {
    let word = word(memory, offset)?;
    if memory.is_writable() { Ok(word) } else { Err(QueueError::ReadOnly) }
}

/// The whole pages that memory lies in; `None` if it is empty.
pub(crate) fn pages_of(memory: &dyn HostMemory) -> Option<Range<usize>> {
    let page = rustix::param::page_size();
    let start = memory.start().as_ptr().addr();
    let end = start.checked_add(memory.bytes())?.checked_next_multiple_of(page)?;
    (memory.bytes() > 0).then_some(start - start % page..end)
}

/// Pages that every device of this process can reach.
pub(crate) struct Registration {
    pages: Range<usize>,
    /// Keeps them mapped.
    _memory: Arc<dyn HostMemory>,
    made: Generation,
    is_over: AtomicBool,
}

impl Registration {
    /// Registers the pages of `memory` with the current context, for all contexts; so that devices only
    /// read them, if `is_read_only`, which the driver must know.
    pub(crate) fn new(
        memory: Arc<dyn HostMemory>,
        pages: Range<usize>,
        is_read_only: bool,
    ) -> Result<Self, DriverError> {
        const PORTABLE_AND_MAPPED: c_uint = 3;
        const READ_ONLY: c_uint = 8;
        let table = table()?;
        let function = table.host_register.get()?;
        let made = Generation::watch().map_err(Absent::Fork)?;
        let flags = PORTABLE_AND_MAPPED | if is_read_only { READ_ONLY } else { 0 };
        // SAFETY: D1, D7.
        let code = unsafe { function(pointer(pages.start), pages.len(), flags) };
        table.host_register.done(code)?;
        Ok(Self { pages, _memory: memory, made, is_over: AtomicBool::new(false) })
    }

    pub(crate) fn pages(&self) -> &Range<usize> {
        &self.pages
    }

    /// Where the current context finds a place in the pages.
    pub(crate) fn device_address(&self, place: Place) -> Result<u64, DriverError> {
        let table = table()?;
        let function = table.host_device_address.get()?;
        let mut address = 0;
        // SAFETY: D1, D3, D7.
        let code = unsafe { function(&raw mut address, pointer(self.pages.start), 0) };
        table.host_device_address.done(code)?;
        Ok(address + (place.address - self.pages.start) as u64)
    }

    /// Unregisters them, with the context current in which they were registered. Nothing that is queued
    /// uses them.
    pub(crate) fn end(&self) -> Result<(), DriverError> {
        if !self.made.is_current() || self.is_over.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let table = table()?;
        let function = table.host_unregister.get()?;
        // SAFETY: D1, D7; registered by this value, once.
        let code = unsafe { function(pointer(self.pages.start)) };
        Ok(table.host_unregister.done(code)?)
    }
}

/// The driver takes addresses of the host as pointers, and does not go through them in this process.
pub(super) fn pointer(address: usize) -> *mut c_void {
    ptr::without_provenance_mut(address)
}
