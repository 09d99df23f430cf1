//! The descriptor of a client that is driven by an event loop.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;
use std::time::Instant;

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

use crate::service::monitor::lock;

/// Readable when a connection has something to read, and from the earliest deadline on.
#[derive(Debug)]
pub(super) struct Pulse {
    epoll: OwnedFd,
    timer: OwnedFd,
    armed: Mutex<Option<Instant>>,
}

impl Pulse {
    pub(super) fn new() -> Result<Self, Errno> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        add(&epoll, timer.as_fd())?;
        Ok(Self { epoll, timer, armed: Mutex::new(None) })
    }

    /// Tells of this connection from now on.
    pub(super) fn watch(&self, socket: BorrowedFd<'_>) -> Result<(), Errno> {
        add(&self.epoll, socket)
    }

    /// And not any more: the end of a connection stays readable for ever.
    pub(super) fn unwatch(&self, socket: BorrowedFd<'_>) {
        // Not there if it was never watched.
        let _ = epoll::delete(&self.epoll, socket);
    }

    /// Tells of this deadline, and of no other. It is looked for under the lock: of two threads that
    /// do, the later one is right.
    pub(super) fn arm(&self, earliest: impl FnOnce() -> Option<Instant>) {
        let mut armed = lock(&self.armed);
        let at = earliest();
        let now = Instant::now();
        // One that has passed is readable until it is set again.
        if at == *armed && at.is_none_or(|at| at > now) {
            return;
        }
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let it_value = at.map_or(never, |at| {
            let left = at.saturating_duration_since(now);
            let tv_sec = left.as_secs().try_into().unwrap_or(i64::MAX);
            // Zero would be never.
            Timespec { tv_sec, tv_nsec: left.subsec_nanos().max(1).into() }
        });
        let times = Itimerspec { it_interval: never, it_value };
        // Fails only for what is no time.
        if timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &times).is_ok() {
            *armed = at;
        }
    }
}

impl AsFd for Pulse {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

fn add(epoll: &OwnedFd, descriptor: BorrowedFd<'_>) -> Result<(), Errno> {
    let data = epoll::EventData::new_u64(0);
    match epoll::add(epoll, descriptor, data, epoll::EventFlags::IN) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno),
    }
}
