//! Letting clients in, and going on whatever happens.

use std::io;
use std::os::fd::BorrowedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::SocketFlags;

use super::handler::Handler;
use super::hub::Hub;
use super::link::Link;
use super::session;
use super::stats::count;
use super::workers::Queue;
use crate::address::Listening;
use crate::control::{Control, Refusal};
use crate::fault;
use crate::sync::lock;
use crate::sys::{UnsharedFd, peer_credentials};
use crate::transport;

/// How long accepting pauses when descriptors or memory have run out.
const PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(250));

/// The threads of connections: running ones by id, and those that have ended and are to be joined.
#[derive(Debug, Default)]
pub(super) struct Threads {
    pub(super) running: std::collections::HashMap<u64, JoinHandle<()>>,
    pub(super) ended: Vec<JoinHandle<()>>,
}

pub(super) struct Acceptor<H: Handler> {
    pub(super) hub: Arc<Hub>,
    pub(super) handler: Arc<H>,
    pub(super) queue: Arc<Queue<H>>,
    pub(super) threads: Arc<Mutex<Threads>>,
    /// Readable when the server stops.
    pub(super) stop: Arc<UnsharedFd>,
}

impl<H: Handler> Acceptor<H> {
    /// Runs until the server stops. Returns the socket, for its path to be removed.
    pub(super) fn run(self, listening: Listening) -> Listening {
        let mut pause = PAUSE.0;
        let mut next_id = 1;
        loop {
            let (Ok(socket), Ok(stop)) = (listening.socket().get(), self.stop.get()) else {
                return listening;
            };
            let mut polled = [
                PollFd::from_borrowed_fd(stop, PollFlags::IN),
                PollFd::from_borrowed_fd(socket, PollFlags::IN),
            ];
            // A failing poll is followed by an accept that fails, and pauses.
            let _ = transport::poll_until(&mut polled, None);
            if !polled[0].revents().is_empty() {
                return listening;
            }
            self.reap();
            // The listening socket does not block.
            let accept = || rustix::net::accept_with(socket, SocketFlags::CLOEXEC);
            let accept = || fault::point("accept").and_then(|()| accept());
            match UnsharedFd::make(accept) {
                Ok(socket) => {
                    pause = PAUSE.0;
                    count(&self.hub.counters.accepted);
                    self.admit(socket, next_id);
                    next_id += 1;
                }
                Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => {}
                Err(_) => {
                    // Out of descriptors or memory: whoever waits is served when there are some.
                    count(&self.hub.counters.accept_pauses);
                    let until = Instant::now() + pause;
                    let _ = transport::wait_for(stop, PollFlags::IN, Some(until));
                    pause = (pause * 2).min(PAUSE.1);
                }
            }
        }
    }

    fn reap(&self) {
        let ended = std::mem::take(&mut lock(&self.threads).ended);
        for thread in ended {
            // Its panics were caught.
            let _ = thread.join();
        }
    }

    fn admit(&self, socket: UnsharedFd, id: u64) {
        let Ok(own) = socket.get() else { return };
        let limit = self.hub.options.connections_max;
        if self.hub.connections() >= limit {
            count(&self.hub.counters.shed_connections);
            let limit = u32::try_from(limit).unwrap_or(u32::MAX);
            turn_away(own, Refusal::Connections { limit });
            return;
        }
        let Ok(peer) = peer_credentials(own) else { return };
        let link = Arc::new(Link::new(id, socket, peer, Arc::clone(&self.hub)));
        self.hub.add(&link);
        if self.start(&link).is_err() {
            count(&self.hub.counters.shed_threads);
            // Whoever has been told is not counted any more.
            self.hub.remove(id);
            let _ = link.refuse(0, Refusal::Threads);
            link.close();
        }
    }

    fn start(&self, link: &Arc<Link>) -> io::Result<()> {
        fault::point("thread")?;
        let id = link.id;
        let link = Arc::clone(link);
        let (handler, queue) = (Arc::clone(&self.handler), Arc::clone(&self.queue));
        let (threads, alive) = (Arc::clone(&self.threads), Hub::thread(&self.hub));
        let slate = self.hub.roster.join();
        let run = move || {
            slate.begin();
            // A handler may say wrongly what is control, a session may panic when it is dropped.
            let serve = || session::serve(&link, &handler, &queue, &slate);
            let _ = catch_unwind(AssertUnwindSafe(serve));
            let hub = Arc::clone(&link.hub);
            link.close();
            // Whoever counts one connection less finds its descriptor closed, if no handler keeps it.
            drop(link);
            hub.remove(id);
            // The last one to hold the handler drops it.
            let _ = catch_unwind(AssertUnwindSafe(|| drop((handler, queue))));
            let mut threads = lock(&threads);
            let own = threads.running.remove(&id);
            threads.ended.extend(own);
            drop(threads);
            drop(alive);
        };
        let builder = thread::Builder::new()
            .name(format!("rpc-uds {id}"))
            .stack_size(self.hub.options.stack_bytes);
        let mut threads = lock(&self.threads);
        let thread = builder.spawn(run)?;
        threads.running.insert(id, thread);
        Ok(())
    }
}

/// Tells a client why it is not served. It reads this even though the connection is closed at once.
fn turn_away(socket: BorrowedFd<'_>, refusal: Refusal) {
    let (header, body) = Control::Refusal(refusal).frame(0);
    // If it has gone there is nobody to tell.
    let _ = transport::send(socket, [&header, &body], &[]);
}
