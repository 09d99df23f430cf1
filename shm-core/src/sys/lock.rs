//! Open-file-description locks on one byte: they belong to the description, not to the process,
//! so no unrelated `close` drops them, and the kernel frees them with the description's last user.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::fault;

/// Whether somebody else's lock stands in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    Free,
    Held,
}

fn byte_lock(kind: libc::c_int, byte: u64) -> libc::flock {
    libc::flock {
        // Both constants are 0, 1 or 2 in every libc.
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: byte.cast_signed(),
        l_len: 1,
        // Must be 0 for description locks.
        l_pid: 0,
    }
}

fn try_lock(fd: BorrowedFd<'_>, kind: libc::c_int, byte: u64) -> io::Result<Probe> {
    let lock = byte_lock(kind, byte);
    // SAFETY: S7, `lock` lives across the call and F_OFD_SETLK reads a `struct flock`.
    let done = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
    if done == 0 {
        return Ok(Probe::Free);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => Ok(Probe::Held),
        _ => Err(error),
    }
}

/// Takes a read lock on `byte` for the description of `fd`; `Held`: an exclusive lock stands there.
pub(crate) fn try_lock_shared(fd: BorrowedFd<'_>, byte: u64) -> io::Result<Probe> {
    fault::point("fcntl F_OFD_SETLK F_RDLCK")?;
    try_lock(fd, libc::F_RDLCK, byte)
}

/// Takes the write lock on `byte` for the description of `fd`, which must be writable.
pub(crate) fn try_lock_exclusive(fd: BorrowedFd<'_>, byte: u64) -> io::Result<Probe> {
    fault::point("fcntl F_OFD_SETLK F_WRLCK")?;
    try_lock(fd, libc::F_WRLCK, byte)
}

/// Gives up the lock of the description of `fd` on `byte`, if it has one.
pub(crate) fn unlock(fd: BorrowedFd<'_>, byte: u64) -> io::Result<()> {
    fault::point("fcntl F_OFD_SETLK F_UNLCK")?;
    try_lock(fd, libc::F_UNLCK, byte).map(drop)
}

/// Whether any *other* description holds a lock on `byte`.
pub(crate) fn would_conflict(fd: BorrowedFd<'_>, byte: u64) -> io::Result<Probe> {
    fault::point("fcntl F_OFD_GETLK")?;
    let mut lock = byte_lock(libc::F_WRLCK, byte);
    // SAFETY: S7, `lock` lives across the call and F_OFD_GETLK reads and writes a `struct flock`.
    let done = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(if libc::c_int::from(lock.l_type) == libc::F_UNLCK { Probe::Free } else { Probe::Held })
}
