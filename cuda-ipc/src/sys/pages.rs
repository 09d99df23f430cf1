//! Pages of host memory that devices and processes share word by word.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

use super::host::HostMemory;

/// An anonymous file of fixed length, and its mapping.
#[derive(Debug)]
pub(crate) struct Pages {
    base: NonNull<u8>,
    bytes: usize,
    descriptor: OwnedFd,
}

// SAFETY: the mapping belongs to this value wherever it lives; its words are atomics.
unsafe impl Send for Pages {}
// SAFETY: as for `Send`.
unsafe impl Sync for Pages {}

const LENGTH_IS_FIXED: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW);

impl Pages {
    pub(crate) fn create(bytes: usize) -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let descriptor = rustix::fs::memfd_create("cuda-ipc words", flags)?;
        rustix::fs::ftruncate(&descriptor, bytes as u64)?;
        rustix::fs::fcntl_add_seals(&descriptor, LENGTH_IS_FIXED)?;
        Self::map(descriptor, bytes)
    }

    /// `None`: it is no file of fixed length, or one whose length is no whole number of pages.
    pub(crate) fn open(descriptor: OwnedFd) -> io::Result<Option<Self>> {
        let Ok(seals) = rustix::fs::fcntl_get_seals(&descriptor) else { return Ok(None) };
        let bytes = rustix::fs::fstat(&descriptor)?.st_size;
        let page = rustix::param::page_size();
        let bytes = usize::try_from(bytes).unwrap_or(0);
        if !seals.contains(LENGTH_IS_FIXED) || bytes == 0 || bytes % page != 0 {
            return Ok(None);
        }
        Self::map(descriptor, bytes).map(Some)
    }

    fn map(descriptor: OwnedFd, bytes: usize) -> io::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new range, chosen by the kernel.
        let base = unsafe {
            rustix::mm::mmap(ptr::null_mut(), bytes, protection, MapFlags::SHARED, &descriptor, 0)
        }?;
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, bytes, descriptor })
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

// SAFETY: mapped until it is dropped, with a length that is sealed, and touched through atomics alone.
unsafe impl HostMemory for Pages {
    fn start(&self) -> NonNull<u8> {
        self.base
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn is_writable(&self) -> bool {
        true
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: mapped by this value, and nobody borrows from it.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}
