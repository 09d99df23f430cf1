//! Who is at the other end of a socket.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::fault;
use crate::peer::Credentials;

/// `getsockopt(SO_PEERCRED)`.
///
/// Not through `rustix`, whose result cannot hold the pid 0 that the kernel gives for a peer in a
/// pid namespace that this process does not see.
pub(crate) fn peer_credentials(socket: BorrowedFd<'_>) -> io::Result<Credentials> {
    fault::point("getsockopt")?;
    let mut credentials = MaybeUninit::<libc::ucred>::zeroed();
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: S4, the kernel writes at most `length` bytes.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            credentials.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed and then written to; every bit pattern is a `ucred`.
    let credentials = unsafe { credentials.assume_init() };
    let pid = u32::try_from(credentials.pid).ok().filter(|pid| *pid != 0);
    Ok(Credentials { pid, uid: credentials.uid, gid: credentials.gid })
}
