//! An open file that lives exactly as long as this process's memory.

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr;

use rustix::mm::{Advice, MapFlags, ProtFlags};

use super::{Generation, Still};
use crate::fault;

/// Keeps an open file description, and the lock on it, by an inaccessible mapping instead of a
/// descriptor: children inherit neither by `fork` nor by `exec`, and no stray `close` ends it.
#[derive(Debug)]
pub(crate) struct Pin {
    address: usize,
    length: usize,
    generation: Generation,
}

impl Pin {
    /// Under [`still`](super::still), for a child forked before the advice would have the mapping too.
    pub(crate) fn new(file: BorrowedFd<'_>, _: &Still) -> io::Result<Self> {
        let generation = Generation::watch()?;
        fault::point("mmap")?;
        let length = rustix::param::page_size();
        // SAFETY: S3, an address of the kernel's choice.
        let address = unsafe {
            rustix::mm::mmap(ptr::null_mut(), length, ProtFlags::empty(), MapFlags::SHARED, file, 0)
        }?;
        let pin = Self { address: address.addr(), length, generation };
        // SAFETY: S3, the advice concerns the mapping just made.
        unsafe { rustix::mm::madvise(address, length, Advice::LinuxDontFork) }?;
        Ok(pin)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        if self.generation.check().is_err() {
            return;
        }
        // SAFETY: S3. It fails only for a range that is not mapped, which leaves nothing to undo.
        let _ =
            unsafe { rustix::mm::munmap(ptr::without_provenance_mut(self.address), self.length) };
    }
}
