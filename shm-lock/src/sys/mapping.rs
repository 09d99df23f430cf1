//! A shared, writable mapping that hands out atomics only (S7).

use std::io;
use std::os::fd::AsFd;
use std::ptr::{self, NonNull};

use rustix::mm::{MapFlags, ProtFlags};

use crate::fault;
use crate::sync::atomic::{AtomicU32, AtomicU64};

/// The first `length` bytes of a file, shared with whoever else maps them.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: S7, only atomics are reachable through a mapping, and they may be shared.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    pub(crate) fn of(file: impl AsFd, length: usize) -> io::Result<Self> {
        fault::point("map memory file")?;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let start = unsafe {
            rustix::mm::mmap(ptr::null_mut(), length, access, MapFlags::SHARED, file.as_fd(), 0)
        }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { start, length })
    }

    /// The 32-bit word at `offset`.
    ///
    /// # Panics
    /// If it is not aligned or not inside the mapping.
    pub(crate) fn word(&self, offset: usize) -> &AtomicU32 {
        let word = self.at(offset, size_of::<AtomicU32>(), align_of::<AtomicU32>());
        // SAFETY: S7, in bounds and aligned as just asserted; any bits are valid.
        unsafe { &*word.cast() }
    }

    /// The line of sixteen 64-bit words at `offset`.
    ///
    /// # Panics
    /// If it is not aligned or not inside the mapping.
    pub(crate) fn line(&self, offset: usize) -> &[AtomicU64; 16] {
        let line = self.at(offset, size_of::<[AtomicU64; 16]>(), align_of::<AtomicU64>());
        // SAFETY: S7, in bounds and aligned as just asserted; any bits are valid.
        unsafe { &*line.cast() }
    }

    fn at(&self, offset: usize, size: usize, align: usize) -> *const u8 {
        let end = offset.checked_add(size);
        assert!(
            end.is_some_and(|end| end <= self.length) && offset.is_multiple_of(align),
            "bytes {offset}..+{size} are not a word of a mapping of {} bytes",
            self.length
        );
        self.start.as_ptr().wrapping_add(offset)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: S7, the range is this mapping, and every reference into it borrowed `self`.
        let unmapped = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.length) };
        debug_assert!(unmapped.is_ok(), "a page-aligned range of our own can be unmapped");
    }
}
