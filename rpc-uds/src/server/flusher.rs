//! The thread that sends what sockets had no room for.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

use super::hub::Hub;
use crate::fault;
use crate::sys::UnsharedFd;

/// Stands for the descriptor that ends the thread; connections count from 1.
const STOP: u64 = 0;

#[derive(Debug)]
pub(crate) struct Flusher {
    epoll: UnsharedFd,
    stop: UnsharedFd,
}

impl Flusher {
    pub(super) fn new() -> io::Result<Self> {
        let epoll = UnsharedFd::make(|| {
            fault::point("epoll_create")?;
            epoll::create(CreateFlags::CLOEXEC)
        })?;
        let wake = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let stop = UnsharedFd::make(wake)?;
        epoll::add(epoll.get()?, stop.get()?, EventData::new_u64(STOP), EventFlags::IN)?;
        Ok(Self { epoll, stop })
    }

    /// Has connection `id` flushed once its socket has room. The kernel forgets a socket when it is
    /// closed.
    pub(super) fn arm(
        &self,
        socket: BorrowedFd<'_>,
        id: u64,
        is_registered: &mut bool,
    ) -> io::Result<()> {
        fault::point("epoll_ctl")?;
        let epoll = self.epoll.get()?;
        let (data, flags) = (EventData::new_u64(id), EventFlags::OUT | EventFlags::ONESHOT);
        if *is_registered {
            epoll::modify(epoll, socket, data, flags)?;
        } else {
            epoll::add(epoll, socket, data, flags)?;
            *is_registered = true;
        }
        Ok(())
    }

    pub(super) fn stop(&self) {
        if let Ok(stop) = self.stop.get() {
            // A counter that is full is readable as well.
            let _ = rustix::io::write(stop, &1_u64.to_ne_bytes());
        }
    }

    pub(super) fn run(hub: &Hub) {
        let mut events = [MaybeUninit::<Event>::uninit(); 64];
        loop {
            let Ok(epoll) = hub.flusher.epoll.get() else { return };
            let ready: Vec<u64> = match epoll::wait(epoll, &mut events, None) {
                Ok((ready, _)) => ready.iter().map(|event| event.data.u64()).collect(),
                Err(Errno::INTR) => continue,
                // Only for a descriptor that is no epoll.
                Err(_) => return,
            };
            for id in ready {
                if id == STOP {
                    return;
                }
                if let Some(link) = hub.link(id) {
                    link.flush();
                }
            }
        }
    }
}
