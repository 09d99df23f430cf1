//! Byte locks of open file descriptions, which rustix does not have.
//!
//! See `fcntl(2)`, "Open file description locks".

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use crate::fault;

/// Takes a shared lock on `byte` for the description behind `file`, without waiting.
///
/// Shared, because it works on descriptions that may only read, and needs no exclusivity where
/// every participant has a byte of its own.
pub(crate) fn read_lock(file: BorrowedFd<'_>, byte: u64) -> io::Result<()> {
    fault::point("lock byte")?;
    set(file.as_raw_fd(), libc::F_RDLCK, byte)
}

/// Drops this description's lock on `byte`.
pub(crate) fn unlock(file: BorrowedFd<'_>, byte: u64) -> io::Result<()> {
    fault::point("unlock byte")?;
    set(file.as_raw_fd(), libc::F_UNLCK, byte)
}

/// Whether another description than the one behind `fd` holds a lock on `byte` (S6).
pub(super) fn is_held(fd: RawFd, byte: u64) -> io::Result<bool> {
    fault::point("query byte")?;
    let mut query = byte_lock(libc::F_WRLCK, byte)?;
    // SAFETY: F_OFD_GETLK reads and writes one `flock` and changes nothing else (S6).
    let answer = unsafe { libc::fcntl(fd, libc::F_OFD_GETLK, &raw mut query) };
    if answer == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(i32::from(query.l_type) != libc::F_UNLCK)
}

fn set(fd: RawFd, kind: i32, byte: u64) -> io::Result<()> {
    let lock = byte_lock(kind, byte)?;
    // SAFETY: F_OFD_SETLK reads one `flock`; locks are advisory and change no memory.
    match unsafe { libc::fcntl(fd, libc::F_OFD_SETLK, &raw const lock) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn byte_lock(kind: i32, byte: u64) -> io::Result<libc::flock> {
    let start = i64::try_from(byte).map_err(|_| io::ErrorKind::InvalidInput)?;
    // The constants and fields are `i16` in the kernel's `struct flock`; `l_pid` must be zero.
    Ok(libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start,
        l_len: 1,
        l_pid: 0,
    })
}
