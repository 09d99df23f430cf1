//! What the tests need of the kernel that no safe interface offers.

use std::io;

/// Forks; `None` in the child, which must end by [`leave`].
pub(crate) fn fork() -> Option<u32> {
    // SAFETY: the child runs this crate's code and plain writes, and leaves without unwinding.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "a peer can fork: {}", io::Error::last_os_error());
    (child != 0).then(|| child.unsigned_abs())
}

/// Ends this process without running anything at exit.
pub(crate) fn leave(code: i32) -> ! {
    // SAFETY: does not return.
    unsafe { libc::_exit(code) }
}

/// Becomes another user. Only for root, and for a peer of its own.
pub(crate) fn become_user(uid: u32) -> io::Result<()> {
    // SAFETY: changes this process's user, on all of its threads.
    match unsafe { libc::setuid(uid) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
