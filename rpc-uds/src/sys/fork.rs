//! Descriptors that a forked child does not keep.
//!
//! A connection ends for its peer when the last copy of its socket is closed. A child that inherits
//! copies by `fork` would keep the connections of a dead parent open, and with them everything that
//! hangs on their end. So a handler that runs in each forked child closes the child's copies, and
//! raises the generation by which their owners know that they are in another process.
//!
//! A fork between the making of a descriptor and its entry in the table would leave the child a copy
//! that nobody knows of. So forks and [`still`] exclude each other: a fork waits for those who hold
//! one, which is never long, and they wait for the fork.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;

use rustix::io::Errno;

use crate::error::Forked;

/// How often the line of processes that led to this one has forked since it first asked.
static GENERATION: AtomicU64 = AtomicU64::new(0);

const BITS: usize = 64;
/// One bit per descriptor number. A number beyond the table is not closed in forked children.
static TABLE: [AtomicU64; 1024] = [const { AtomicU64::new(0) }; 1024];

/// The process in which something was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Generation(u64);

impl Generation {
    pub(crate) fn current() -> Self {
        Self(GENERATION.load(Ordering::Relaxed))
    }

    /// Installs the handler. Without it forks would go unnoticed, so nothing is made before.
    pub(crate) fn watch() -> io::Result<Self> {
        static WATCHED: OnceLock<Result<(), i32>> = OnceLock::new();
        let install = || {
            // SAFETY: S2, and the handler is a function of this program; the crate is never unloaded
            // while its descriptors live.
            match unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) } {
                0 => Ok(()),
                code => Err(code),
            }
        };
        match WATCHED.get_or_init(install) {
            Ok(()) => Ok(Self::current()),
            Err(code) => Err(io::Error::from_raw_os_error(*code)),
        }
    }

    pub(crate) fn check(self) -> Result<(), Forked> {
        if self == Self::current() { Ok(()) } else { Err(Forked) }
    }
}

/// How many threads must not be forked at this moment, and how many threads fork. Whoever raises one
/// then looks at the other, so at least one of two sees the other one.
static STILL: AtomicUsize = AtomicUsize::new(0);
static FORKS: AtomicUsize = AtomicUsize::new(0);

/// While it lives no other thread forks. Not to be held across anything that waits, and not twice by
/// one thread: a fork that begins in between waits for the first, and the second for the fork.
#[derive(Debug)]
pub(crate) struct Still(());

pub(crate) fn still() -> Still {
    loop {
        STILL.fetch_add(1, Ordering::SeqCst);
        if FORKS.load(Ordering::SeqCst) == 0 {
            return Still(());
        }
        STILL.fetch_sub(1, Ordering::SeqCst);
        thread::yield_now();
    }
}

impl Drop for Still {
    fn drop(&mut self) {
        STILL.fetch_sub(1, Ordering::SeqCst);
    }
}

extern "C" fn before() {
    FORKS.fetch_add(1, Ordering::SeqCst);
    while STILL.load(Ordering::SeqCst) != 0 {
        thread::yield_now();
    }
}

extern "C" fn in_parent() {
    FORKS.fetch_sub(1, Ordering::SeqCst);
}

extern "C" fn in_child() {
    // The other threads, and what they were at, are in the parent.
    STILL.store(0, Ordering::SeqCst);
    FORKS.store(0, Ordering::SeqCst);
    GENERATION.fetch_add(1, Ordering::Relaxed);
    for (index, word) in TABLE.iter().enumerate() {
        let mut bits = word.swap(0, Ordering::Relaxed);
        while bits != 0 {
            let fd = RawFd::try_from(index * BITS + bits.trailing_zeros() as usize);
            bits &= bits - 1;
            // SAFETY: S1.
            unsafe { libc::close(fd.unwrap_or(-1)) };
        }
    }
}

fn bit(fd: RawFd) -> Option<(&'static AtomicU64, u64)> {
    let fd = usize::try_from(fd).ok()?;
    Some((TABLE.get(fd / BITS)?, 1 << (fd % BITS)))
}

/// A descriptor that belongs to this process alone: forked children lose their copy at once.
#[derive(Debug)]
pub(crate) struct UnsharedFd {
    fd: Option<OwnedFd>,
    generation: Generation,
}

impl UnsharedFd {
    /// What `open` makes, which must not wait.
    pub(crate) fn make(open: impl FnOnce() -> Result<OwnedFd, Errno>) -> Result<Self, Errno> {
        let watched = Generation::watch();
        let generation =
            watched.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::NOMEM))?;
        let _still = still();
        let fd = open()?;
        if let Some((word, bit)) = bit(fd.as_raw_fd()) {
            word.fetch_or(bit, Ordering::Relaxed);
        }
        Ok(Self { fd: Some(fd), generation })
    }

    /// The descriptor, in the process that made it.
    pub(crate) fn get(&self) -> Result<BorrowedFd<'_>, Forked> {
        self.generation.check()?;
        self.fd.as_ref().map(AsFd::as_fd).ok_or(Forked)
    }
}

impl Drop for UnsharedFd {
    fn drop(&mut self) {
        let Some(fd) = self.fd.take() else { return };
        if self.generation.check().is_err() {
            // Closed by the handler; the number may be somebody else's by now.
            mem::forget(fd);
            return;
        }
        let _still = still();
        if let Some((word, bit)) = bit(fd.as_raw_fd()) {
            word.fetch_and(!bit, Ordering::Relaxed);
        }
        drop(fd);
    }
}
