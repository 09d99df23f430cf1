//! SIGTERM and SIGINT as something to wait for.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::event::{EventfdFlags, PollFlags, eventfd};

use crate::sys::Handlers;
use crate::transport::wait_for;

/// While it lives, SIGTERM and SIGINT do not end the process but make this readable; each of them
/// once, so that a second Ctrl-C ends a process that does not come to its end.
///
/// A forked child that gets one of the signals ends by it, as without handlers.
#[derive(Debug)]
pub struct Termination {
    // Dropped first: the handlers write to `events`.
    _handlers: Handlers,
    events: OwnedFd,
}

impl Termination {
    /// Installs the handlers. There can be one at a time.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::AlreadyExists`] if there is one, or what the kernel says.
    pub fn install() -> io::Result<Self> {
        let events = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        match Handlers::install(events.as_fd())? {
            Some(handlers) => Ok(Self { _handlers: handlers, events }),
            None => Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "the handlers of SIGTERM and SIGINT are installed already, once is enough",
            )),
        }
    }

    /// Waits for one of the signals; `false` at the deadline.
    pub fn wait(&self, deadline: Option<Instant>) -> io::Result<bool> {
        loop {
            if wait_for(self.events.as_fd(), PollFlags::IN, deadline)? {
                return Ok(true);
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(false);
            }
        }
    }
}

impl AsFd for Termination {
    /// Readable once a signal has come, for an event loop.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}
