//! Mappings of regions that hold storages.
//!
//! - **M1, length**: a region's length is sealed (`shm::Region` verifies it), so that no access within
//!   it raises SIGBUS; the range was found to lie in it.
//! - **M2, one owner**: a mapping is unmapped when its value is dropped, which every tensor over it
//!   prevents by a share in its keeper.

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// A range of a region in this process.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: *mut u8,
    bytes: usize,
}

// SAFETY: M2; the value holds an address and gives it back, whatever thread does so.
unsafe impl Send for Mapping {}
// SAFETY: as for `Send`: shared, it only tells where it is.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `bytes` bytes from `offset`, a multiple of the page size. `private`: writes stay in this
    /// mapping, and no memory is set aside for them beforehand; else they are seen by all.
    pub(crate) fn new(
        fd: BorrowedFd<'_>,
        offset: u64,
        bytes: usize,
        private: bool,
    ) -> io::Result<Self> {
        let flags =
            if private { MapFlags::PRIVATE | MapFlags::NORESERVE } else { MapFlags::SHARED };
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel picks a free range, which is this value's alone (M2).
        let base = unsafe { mmap(ptr::null_mut(), bytes, access, flags, fd, offset) }?;
        Ok(Self { base: base.cast(), bytes })
    }

    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.base
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and nobody uses it any more (M2).
        let unmapped = unsafe { munmap(self.base.cast(), self.bytes) };
        debug_assert!(unmapped.is_ok(), "the range was mapped by this value");
    }
}
