//! Memory of the host that another crate would have mapped.

use std::fs::File;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use cuda_ipc::HostMemory;

/// A file in memory and its mapping; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Pages {
    mapped: Arc<Mapped>,
    /// The part that this one is about.
    offset: usize,
    bytes: usize,
    is_writable: bool,
}

#[derive(Debug)]
struct Mapped {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the mapping is everybody's, its bytes are reached as atomics.
unsafe impl Send for Mapped {}
// SAFETY: as for `Send`.
unsafe impl Sync for Mapped {}

impl Pages {
    pub(crate) fn new(bytes: usize) -> Self {
        Self::mapped(bytes, libc::PROT_READ | libc::PROT_WRITE)
    }

    /// Ones that this process may only read, all zero.
    pub(crate) fn for_reading(bytes: usize) -> Self {
        Self::mapped(bytes, libc::PROT_READ)
    }

    fn mapped(bytes: usize, protection: libc::c_int) -> Self {
        use std::os::fd::{AsRawFd, FromRawFd};
        // SAFETY: the name is a string with a zero.
        let fd = unsafe { libc::memfd_create(c"somebody's".as_ptr(), libc::MFD_CLOEXEC) };
        assert!(fd >= 0);
        // SAFETY: made right now.
        let file = unsafe { File::from_raw_fd(fd) };
        file.set_len(bytes as u64).expect("memory");
        let (none, flags) = (ptr::null_mut(), libc::MAP_SHARED);
        // SAFETY: a new range, chosen by the kernel.
        let base = unsafe { libc::mmap(none, bytes, protection, flags, file.as_raw_fd(), 0) };
        assert_ne!(base, libc::MAP_FAILED);
        let base = NonNull::new(base.cast()).expect("not at 0");
        let is_writable = protection & libc::PROT_WRITE != 0;
        Self { mapped: Arc::new(Mapped { base, bytes }), offset: 0, bytes, is_writable }
    }

    /// A part of the same mapping.
    pub(crate) fn part(&self, offset: usize, bytes: usize) -> Self {
        assert!(offset + bytes <= self.bytes);
        Self { offset: self.offset + offset, bytes, ..self.clone() }
    }

    /// How many there are that keep the mapping.
    pub(crate) fn holders(&self) -> usize {
        Arc::strong_count(&self.mapped)
    }

    pub(crate) fn read(&self) -> Vec<u8> {
        (0..self.bytes).map(|at| self.byte(at).load(Ordering::Relaxed)).collect()
    }

    pub(crate) fn write(&self, bytes: &[u8]) {
        for (at, byte) in bytes.iter().enumerate() {
            self.byte(at).store(*byte, Ordering::Relaxed);
        }
    }

    fn byte(&self, at: usize) -> &AtomicU8 {
        assert!(at < self.bytes);
        // SAFETY: within the mapping.
        let byte = unsafe { self.start().add(at) };
        // SAFETY: mapped while this is borrowed, and reached through atomics.
        unsafe { byte.cast::<AtomicU8>().as_ref() }
    }
}

// SAFETY: mapped while a clone lives, and reached through atomics.
unsafe impl HostMemory for Pages {
    fn start(&self) -> NonNull<u8> {
        // SAFETY: within the mapping.
        unsafe { self.mapped.base.add(self.offset) }
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn is_writable(&self) -> bool {
        self.is_writable
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: mapped by `mapped`, and nobody has it any more.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}
