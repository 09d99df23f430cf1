//! Forks, for tests of what a child inherits.

use std::io;

/// Forks; `None` in the child, which must end by a signal.
pub(crate) fn fork() -> Option<u32> {
    // SAFETY: the child runs this crate's code, writes to a socket, and ends without unwinding.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "a test can fork: {}", io::Error::last_os_error());
    (child != 0).then(|| child.unsigned_abs())
}
