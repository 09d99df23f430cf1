//! Handlers that turn a signal into a readable descriptor.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

/// The eventfd that the handler writes to, -1 for none, and the process that it belongs to.
static EVENTS: AtomicI32 = AtomicI32::new(-1);
static OWNER: AtomicI32 = AtomicI32::new(0);

const SIGNALS: [libc::c_int; 2] = [libc::SIGTERM, libc::SIGINT];

/// SIGTERM and SIGINT are written to a descriptor instead of ending the process, each once: the
/// second one does what it did before. Dropping it restores what was there.
pub(crate) struct Handlers {
    before: [libc::sigaction; 2],
}

impl std::fmt::Debug for Handlers {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Handlers").finish_non_exhaustive()
    }
}

impl Handlers {
    /// `None` if they are installed already. `events` must stay open until the drop.
    pub(crate) fn install(events: BorrowedFd<'_>) -> io::Result<Option<Self>> {
        let fd = events.as_raw_fd();
        if EVENTS.compare_exchange(-1, fd, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return Ok(None);
        }
        // SAFETY: takes nothing and cannot fail.
        OWNER.store(unsafe { libc::getpid() }, Ordering::Release);
        let mut before = [empty_action(), empty_action()];
        for (at, signal) in SIGNALS.into_iter().enumerate() {
            let mut action = empty_action();
            action.sa_sigaction = handle as extern "C" fn(libc::c_int) as usize;
            action.sa_flags = libc::SA_RESETHAND;
            // SAFETY: S2 for the handler, S4 for the structures.
            if unsafe { libc::sigaction(signal, &raw const action, &raw mut before[at]) } != 0 {
                let error = io::Error::last_os_error();
                restore(&before[..at]);
                return Err(error);
            }
        }
        Ok(Some(Self { before }))
    }
}

impl Drop for Handlers {
    fn drop(&mut self) {
        restore(&self.before);
    }
}

fn restore(before: &[libc::sigaction]) {
    for (action, signal) in before.iter().zip(SIGNALS) {
        // SAFETY: S4; the action is one that the kernel gave.
        unsafe { libc::sigaction(signal, action, ptr::null_mut()) };
    }
    EVENTS.store(-1, Ordering::Release);
}

fn empty_action() -> libc::sigaction {
    // SAFETY: all-zero is the default action with an empty mask.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

extern "C" fn handle(signal: libc::c_int) {
    // SAFETY: S2.
    if unsafe { libc::getpid() } == OWNER.load(Ordering::Acquire) {
        let one = u64::try_from(signal).unwrap_or(1).to_ne_bytes();
        // SAFETY: S2 and S4. A full counter has woken whoever waits already.
        unsafe { libc::write(EVENTS.load(Ordering::Acquire), one.as_ptr().cast(), one.len()) };
    } else {
        // A forked child that was never told about the server: it ends as it would have. The
        // default action is back already, and takes place when this handler returns.
        // SAFETY: S2.
        unsafe { libc::raise(signal) };
    }
}
