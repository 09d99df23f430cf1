//! Keeping an open file description alive without a descriptor (S1, S2).

use std::io;
use std::os::fd::AsFd;
use std::ptr;

use rustix::mm::{Advice, MapFlags, ProtFlags};

use super::token::process_token;
use crate::fault;

/// One inaccessible page of a file, whose only purpose is to hold the file's description.
///
/// Locks that belong to the description live exactly as long: past any `close` or `close_range`,
/// not into a forked child, and to the end of the address space, be it exit, kill or exec.
#[derive(Debug)]
pub(crate) struct Pin {
    address: usize,
    length: usize,
    token: u64,
}

impl Pin {
    /// Pins the description behind `file`; the descriptor itself may then be closed.
    pub(crate) fn hold(file: impl AsFd) -> io::Result<Self> {
        let length = rustix::param::page_size();
        fault::point("map pin")?;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let address = unsafe {
            rustix::mm::mmap(
                ptr::null_mut(),
                length,
                ProtFlags::empty(),
                MapFlags::SHARED,
                file.as_fd(),
                0,
            )
        }?;
        let pin = Self { address: address.addr(), length, token: process_token() };
        fault::point("keep pin from children")?;
        // SAFETY: S1, the range is the mapping made above; the advice changes no byte of it.
        unsafe { rustix::mm::madvise(address, length, Advice::LinuxDontFork) }?;
        Ok(pin)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        // A child does not have the mapping: its address may belong to something else there.
        if self.token != process_token() || fault::point("unmap pin").is_err() {
            return;
        }
        let address = ptr::without_provenance_mut(self.address);
        // SAFETY: S1 and S2, our own mapping, to which no reference or pointer exists.
        let _unmapped = unsafe { rustix::mm::munmap(address, self.length) };
        // It fails where pages are larger than ours (hugetlbfs): then the pin lasts as long as the
        // process, and holds a byte that no entry names any more.
    }
}
