//! Pages of host memory that devices and processes share word by word.

use std::ffi::c_uint;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU64;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

use super::context::Relaxed;
use super::fork::Generation;
use super::table::table;
use crate::error::{Absent, DriverError};

/// An anonymous file of fixed length, and its mapping.
#[derive(Debug)]
pub(crate) struct Pages {
    base: NonNull<AtomicU64>,
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

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    /// The word at an index. Panics beyond the last.
    pub(crate) fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.bytes / size_of::<AtomicU64>(), "there is no word {index}");
        // SAFETY: within the mapping.
        let word = unsafe { self.base.add(index) };
        // SAFETY: aligned, in a mapping whose length is sealed; D7.
        unsafe { word.as_ref() }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: mapped by this value, and nobody borrows from it.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

/// Pages that every device of this process can reach.
#[derive(Debug)]
pub(crate) struct Registered {
    pages: Pages,
    made: Generation,
}

impl Registered {
    /// Registers them with the current context, for all contexts.
    pub(crate) fn new(pages: Pages) -> Result<Self, DriverError> {
        const PORTABLE_AND_MAPPED: c_uint = 3;
        let table = table()?;
        let function = table.host_register.get()?;
        let made = Generation::watch().map_err(Absent::Fork)?;
        let _relaxed = Relaxed::begin();
        // SAFETY: D1, D7: unregistered before the pages are dropped.
        let code =
            unsafe { function(pages.base.as_ptr().cast(), pages.bytes, PORTABLE_AND_MAPPED) };
        table.host_register.done(code)?;
        Ok(Self { pages, made })
    }

    pub(crate) fn pages(&self) -> &Pages {
        &self.pages
    }

    /// Where the current context finds the first byte.
    pub(crate) fn device_address(&self) -> Result<u64, DriverError> {
        let table = table()?;
        let function = table.host_device_address.get()?;
        let mut address = 0;
        // SAFETY: D1, D3.
        let code = unsafe { function(&raw mut address, self.pages.base.as_ptr().cast(), 0) };
        table.host_device_address.done(code)?;
        Ok(address)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        if !self.made.is_current() {
            return;
        }
        let Ok(table) = table() else { return };
        let Ok(function) = table.host_unregister.get() else { return };
        let _relaxed = Relaxed::begin();
        // SAFETY: D1, D7.
        unsafe { function(self.pages.base.as_ptr().cast()) };
    }
}
