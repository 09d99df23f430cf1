//! Who is attached: a lock that lives exactly as long as anybody can reach the bytes.
//!
//! Every handle holds a read lock on the byte [`ATTACH`], owned by its open file description. A
//! mapping keeps the description alive after the descriptor is closed, so the lock ends with the
//! last mapping, descriptor or forked copy, and the kernel drops it when processes die.

use std::io;
use std::os::fd::BorrowedFd;

use crate::sys::{self, Probe};

/// The byte whose read lock says "attached". Bytes from 2^40 on belong to the caller.
const ATTACH: u64 = (1 << 40) - 1;

/// The byte whose write lock its holder needs to remove a name of the file.
const REMOVAL: u64 = 1 << 39;

/// Marks the description of `fd` as attached; `false`: somebody is removing the file, and did so
/// because nobody was attached.
pub(crate) fn attach(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(sys::try_lock_shared(fd, ATTACH)? == Probe::Free)
}

/// Whether any description but that of `fd` is attached.
pub(crate) fn is_attached_elsewhere(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(sys::would_conflict(fd, ATTACH)? == Probe::Held)
}

/// Keeps everybody from attaching until the description of `fd` closes; `false`: somebody is.
pub(crate) fn exclude(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(sys::try_lock_exclusive(fd, ATTACH)? == Probe::Free)
}

/// Takes the right to remove names of the file until the description of `fd` closes; `false`:
/// somebody else has it.
pub(crate) fn claim_removal(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(sys::try_lock_exclusive(fd, REMOVAL)? == Probe::Free)
}
