//! What the tests need and safe Rust does not offer.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use shm_core::{SharedBytes, ViewError};

/// A forked copy of this process that does nothing but exist until it is killed.
#[derive(Debug)]
pub(crate) struct IdleFork(i32);

impl IdleFork {
    pub(crate) fn new() -> IdleFork {
        // SAFETY: the child calls nothing but async-signal-safe functions.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "fork: {}", io::Error::last_os_error());
        if pid == 0 {
            // SAFETY: async-signal-safe; the child dies with its parent and never returns.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            loop {
                // SAFETY: async-signal-safe.
                unsafe { libc::pause() };
            }
        }
        IdleFork(pid)
    }

    pub(crate) fn kill(self) {
        // SAFETY: our own child, not yet waited for.
        let killed = unsafe { libc::kill(self.0, libc::SIGKILL) };
        assert_eq!(killed, 0);
        // SAFETY: our own child; no status is asked for.
        let waited = unsafe { libc::waitpid(self.0, std::ptr::null_mut(), 0) };
        assert_eq!(waited, self.0);
    }
}

/// Runs `work` in a forked child and tells its exit status: 0 if it returned true.
pub(crate) fn in_forked_child(work: impl FnOnce() -> bool) -> i32 {
    // SAFETY: the child runs code of this crate that takes no lock another thread may have held.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork: {}", io::Error::last_os_error());
    if pid == 0 {
        // SAFETY: async-signal-safe; a hanging child ends with SIGALRM, which is a failure.
        unsafe { libc::alarm(30) };
        let code = i32::from(!work());
        // SAFETY: ends the child without running the parent's destructors.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: our own child; `status` is a live local.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert_eq!(waited, pid);
    status
}

/// Loads a word, also from a read-only view.
pub(crate) fn load_u32(bytes: &SharedBytes, offset: usize) -> Result<u32, ViewError> {
    // SAFETY: four bytes are loaded, relaxed, and nothing is stored.
    unsafe { bytes.at_for_loads::<AtomicU32>(offset) }.map(|word| word.load(Ordering::Relaxed))
}
