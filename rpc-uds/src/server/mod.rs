//! The answering side.
//!
//! One thread per connection reads its requests. Control requests, pings and what a handler can
//! answer [quickly](Handler::fast) are answered right there; everything else goes through one bounded
//! queue to a fixed number of workers. Replies are sent by whoever has them. So nothing that workers
//! do delays the control lane, and no client delays another: a full queue is refused, never waited
//! for; a client that does not read is [cut off](crate::SendError::Slow).

mod accept;
mod flusher;
mod handler;
mod hub;
mod link;
mod outbox;
mod roster;
mod session;
mod stats;
mod workers;

use std::fmt;
use std::io;
use std::mem;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

pub use self::handler::{Call, Handler, Responder};
pub use self::link::Connection;
pub use self::roster::Unfinished;
pub use self::stats::ServerStats;

use self::accept::{Acceptor, Threads};
use self::flusher::Flusher;
use self::hub::Hub;
use self::workers::Queue;
use crate::address::Listening;
use crate::control::Control;
use crate::deadline::after;
use crate::error::{BindError, Forked};
use crate::fault;
use crate::frame::{DESCRIPTORS_MAX, FrameLimits};
use crate::peer::PeerPolicy;
use crate::signals::Termination;
use crate::sync::lock;
use crate::sys::{Generation, UnsharedFd};

/// How a server is set up.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    policy: PeerPolicy,
    limits: FrameLimits,
    features: u64,
    connections_max: usize,
    workers: usize,
    queue_max: usize,
    unanswered_max: usize,
    descriptors_waiting_max: usize,
    outbox_bytes_max: usize,
    handshake_timeout: Duration,
    frame_timeout: Duration,
    handler_timeout: Duration,
    deaf_timeout: Duration,
    stack_bytes: usize,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            policy: PeerPolicy::default(),
            limits: FrameLimits::default(),
            features: 0,
            connections_max: 512,
            workers: 4,
            queue_max: 1024,
            unanswered_max: 128,
            descriptors_waiting_max: 512,
            outbox_bytes_max: 4 << 20,
            handshake_timeout: Duration::from_secs(5),
            frame_timeout: Duration::from_secs(10),
            handler_timeout: Duration::from_secs(1),
            deaf_timeout: Duration::from_millis(50),
            stack_bytes: 512 * 1024,
        }
    }
}

impl ServerOptions {
    /// Which users may connect. Default: the server's own.
    #[must_use]
    pub fn policy(self, policy: PeerPolicy) -> Self {
        Self { policy, ..self }
    }

    /// What this side takes; the smaller of both sides' limits holds both ways.
    #[must_use]
    pub fn limits(mut self, limits: FrameLimits) -> Self {
        self.limits = limits;
        self.limits.descriptors_max = limits.descriptors_max.min(DESCRIPTORS_MAX);
        self
    }

    /// Features that the user of this crate offers, one bit each.
    #[must_use]
    pub fn features(self, features: u64) -> Self {
        Self { features, ..self }
    }

    /// How many connections there may be; each has a thread. Default: 512.
    #[must_use]
    pub fn connections_max(self, connections_max: usize) -> Self {
        Self { connections_max, ..self }
    }

    /// How many workers there are, at least one. Default: 4.
    #[must_use]
    pub fn workers(self, workers: usize) -> Self {
        Self { workers: workers.max(1), ..self }
    }

    /// How many requests may wait for a worker. Default: 1024.
    #[must_use]
    pub fn queue_max(self, queue_max: usize) -> Self {
        Self { queue_max, ..self }
    }

    /// How many requests of one connection may be unanswered. Default: 128. One that was cancelled
    /// counts until the handler, or the worker that finds it in the queue, has let go of it.
    #[must_use]
    pub fn unanswered_max(self, unanswered_max: usize) -> Self {
        Self { unanswered_max, ..self }
    }

    /// How many descriptors of one connection may wait, each way: with its requests that are
    /// unanswered, of which more are [refused](crate::Refusal::Descriptors), and with what a client does not
    /// read. One frame alone always fits. Default: 512.
    #[must_use]
    pub fn descriptors_waiting_max(self, descriptors_waiting_max: usize) -> Self {
        Self { descriptors_waiting_max, ..self }
    }

    /// How many bytes may wait for one client that does not read. Default: 4 MiB.
    #[must_use]
    pub fn outbox_bytes_max(self, outbox_bytes_max: usize) -> Self {
        Self { outbox_bytes_max, ..self }
    }

    /// How long a client may take to say hello. Default: 5 s.
    #[must_use]
    pub fn handshake_timeout(self, handshake_timeout: Duration) -> Self {
        Self { handshake_timeout, ..self }
    }

    /// How long a frame may take from its first byte to its last. Default: 10 s.
    #[must_use]
    pub fn frame_timeout(self, frame_timeout: Duration) -> Self {
        Self { frame_timeout, ..self }
    }

    /// How long a handler that ignores being cancelled may take to come back when the server stops,
    /// after the grace. Default: 1 s.
    #[must_use]
    pub fn handler_timeout(self, handler_timeout: Duration) -> Self {
        Self { handler_timeout, ..self }
    }

    /// How long a client may read nothing when the server stops, before what waits for it is given
    /// up. Default: 50 ms.
    #[must_use]
    pub fn deaf_timeout(self, deaf_timeout: Duration) -> Self {
        Self { deaf_timeout, ..self }
    }

    /// The stack of a connection's thread, on which [`Handler::fast`] and control requests run.
    /// Default: 512 KiB.
    #[must_use]
    pub fn stack_bytes(self, stack_bytes: usize) -> Self {
        Self { stack_bytes, ..self }
    }

    /// Listens at `path`, with mode 0600, and serves until the server is stopped or dropped.
    ///
    /// The socket of a dead server is replaced; a living one is left alone ([`BindError::Taken`]).
    pub fn serve<H: Handler>(
        self,
        path: impl AsRef<Path>,
        handler: H,
    ) -> Result<Server, BindError> {
        let path = path.as_ref();
        let failed =
            |source| BindError::Kernel { step: "set up the server", path: path.to_owned(), source };
        let generation = Generation::watch().map_err(failed)?;
        let stop = UnsharedFd::make(wake_up_call).map_err(|errno| failed(errno.into()))?;
        let flusher = Flusher::new().map_err(failed)?;
        let hub = Arc::new(Hub::new(self, flusher, generation));
        let stop = Arc::new(stop);
        let backlog = i32::try_from(hub.options.connections_max).unwrap_or(i32::MAX);
        let listening = Listening::bind(path, backlog.clamp(128, 4096))?;
        let mut inner = Inner {
            hub,
            stop,
            path: listening.path().to_owned(),
            acceptor: None,
            flusher: None,
            workers: Vec::new(),
            threads: Arc::default(),
            close_queue: None,
        };
        match inner.start(listening, handler) {
            Ok(()) => Ok(Server {
                hub: Arc::clone(&inner.hub),
                path: inner.path.clone(),
                inner: Some(Mutex::new(Some(inner))),
            }),
            Err(source) => {
                let _ = inner.stop(Duration::ZERO);
                Err(BindError::Threads(source))
            }
        }
    }
}

fn wake_up_call() -> Result<OwnedFd, Errno> {
    fault::point("eventfd")?;
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
}

/// A server. Dropping it stops it without grace.
///
/// In a forked child every method is an error, and dropping it closes nothing and removes nothing.
pub struct Server {
    hub: Arc<Hub>,
    path: PathBuf,
    inner: Option<Mutex<Option<Inner>>>,
}

impl fmt::Debug for Server {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Server").field("path", &self.path).finish_non_exhaustive()
    }
}

/// How a server came to its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Stopped {
    /// Whether every request in progress had its answer within the grace.
    pub is_drained: bool,
    /// Threads that could not be joined because their handler has not come back in
    /// [time](ServerOptions::handler_timeout) after the grace. No thread can be ended from outside: each goes on until its handler returns,
    /// and then ends by itself. Until then it keeps the handler, its session, and the descriptor of
    /// a connection that is closed; its answer goes nowhere.
    pub threads_left: usize,
    /// The calls that those threads are at. One may be missing: whoever hangs in
    /// [`Handler::connected`], [`Handler::disconnected`] or a `Drop` is at no call.
    pub unfinished: Vec<Unfinished>,
}

impl Server {
    /// How to serve.
    pub fn options() -> ServerOptions {
        ServerOptions::default()
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Pushes to every client; returns to how many. A client that cannot be reached is on its way
    /// out.
    pub fn push_all(
        &self,
        tag: u16,
        body: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<usize, Forked> {
        self.hub.generation.check()?;
        let reached = |link: &Arc<link::Link>| {
            Connection(Arc::clone(link)).push(tag, body, descriptors).is_ok()
        };
        Ok(self.hub.links().iter().filter(|link| reached(link)).count())
    }

    /// What it has counted.
    pub fn stats(&self) -> Result<ServerStats, Forked> {
        self.hub.generation.check()?;
        Ok(self.hub.counters.snapshot(self.hub.connections(), self.hub.gate.inside()))
    }

    /// Stops: the path is removed, clients are told, new requests are refused; requests in progress
    /// have `grace` to be answered, and clients to read what waits for them, as long as they do read;
    /// then everything is closed, whatever is still in progress is
    /// [cancelled](Responder::is_cancelled), and every thread joined. Without requests in progress it
    /// takes no grace. Handlers that ignore being cancelled have
    /// [a second more](ServerOptions::handler_timeout); what becomes of them then is told by
    /// [`Stopped`]. The second time it does nothing.
    pub fn stop(&self, grace: Duration) -> Result<Stopped, Forked> {
        self.hub.generation.check()?;
        let Some(inner) = &self.inner else { return Err(Forked) };
        let mut inner = lock(inner);
        let nothing_to_do = Stopped { is_drained: true, ..Stopped::default() };
        Ok(inner.take().map_or(nothing_to_do, |mut inner| inner.stop(grace)))
    }

    /// Serves until SIGTERM or SIGINT comes, then stops. A program that returns from `main` after this
    /// exits with 0.
    pub fn run(self, termination: &Termination, grace: Duration) -> io::Result<Stopped> {
        termination.wait(None)?;
        Ok(self.stop(grace)?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let inner = self.inner.take();
        if self.hub.generation.check().is_err() {
            // Its threads, and whoever held its locks, are in the parent.
            mem::forget(inner);
            mem::forget(Arc::clone(&self.hub));
            return;
        }
        if let Some(inner) = inner
            && let Some(mut inner) = lock(&inner).take()
        {
            let _ = inner.stop(Duration::ZERO);
        }
    }
}

struct Inner {
    hub: Arc<Hub>,
    stop: Arc<UnsharedFd>,
    path: PathBuf,
    acceptor: Option<JoinHandle<Option<Listening>>>,
    flusher: Option<JoinHandle<()>>,
    workers: Vec<JoinHandle<()>>,
    threads: Arc<Mutex<Threads>>,
    close_queue: Option<Box<dyn FnOnce() + Send>>,
}

impl Inner {
    fn start<H: Handler>(&mut self, listening: Listening, handler: H) -> io::Result<()> {
        let handler = Arc::new(handler);
        let (queue, jobs) = Queue::new(self.hub.options.queue_max);
        let queue = Arc::new(queue);
        self.close_queue = Some({
            let queue = Arc::clone(&queue);
            Box::new(move || queue.close())
        });
        let mut unused = Some(listening);
        let outcome = (|| {
            let hub = Arc::clone(&self.hub);
            let builder = thread::Builder::new().name("rpc-uds flush".to_owned());
            self.flusher = Some(builder.spawn(move || Flusher::run(&hub))?);
            for number in 0..self.hub.options.workers {
                let (handler, jobs) = (Arc::clone(&handler), jobs.clone());
                let builder = thread::Builder::new().name(format!("rpc-uds work {number}"));
                let alive = Hub::thread(&self.hub);
                let slate = self.hub.roster.join();
                let work = move || {
                    slate.begin();
                    workers::work(&handler, &jobs, &slate);
                    drop((handler, jobs));
                    drop(alive);
                };
                self.workers.push(builder.spawn(work)?);
            }
            let acceptor = Acceptor {
                hub: Arc::clone(&self.hub),
                handler: Arc::clone(&handler),
                queue: Arc::clone(&queue),
                threads: Arc::clone(&self.threads),
                stop: Arc::clone(&self.stop),
            };
            let (give, take) = crossbeam_channel::bounded::<Listening>(1);
            let builder = thread::Builder::new().name("rpc-uds accept".to_owned());
            let accept = move || take.recv().map(|listening| acceptor.run(listening));
            let thread = builder.spawn(move || accept().ok())?;
            if let Some(listening) = unused.take() {
                // The thread waits for it.
                let _ = give.send(listening);
            }
            Ok(thread)
        })();
        match outcome {
            Ok(thread) => {
                self.acceptor = Some(thread);
                Ok(())
            }
            Err(error) => {
                if let Some(listening) = unused {
                    listening.close();
                }
                Err(error)
            }
        }
    }

    fn stop(&mut self, grace: Duration) -> Stopped {
        let by = after(grace);
        let hub = &self.hub;
        hub.gate.close();
        if let Ok(stop) = self.stop.get() {
            // A counter that is full is readable as well.
            let _ = rustix::io::write(stop, &1_u64.to_ne_bytes());
        }
        if let Some(Ok(Some(listening))) = self.acceptor.take().map(JoinHandle::join) {
            listening.close();
        }
        for link in hub.links() {
            if link.agreement.get().is_some() {
                // Who has gone need not be told.
                let _ = link.say(&Control::Goodbye, 0);
            }
        }
        let is_drained = hub.gate.wait_until_empty(Some(by));
        hub.wait_for_readers(by, hub.options.deaf_timeout);
        hub.end_grace();
        if let Some(close_queue) = self.close_queue.take() {
            close_queue();
        }
        for link in hub.links() {
            link.cancel_all();
            link.close();
        }
        hub.wait_for_threads(hub.options.handler_timeout);
        hub.flusher.stop();
        if let Some(flusher) = self.flusher.take() {
            let _ = flusher.join();
        }
        let threads = mem::take(&mut *lock(&self.threads));
        let mut threads_left = 0;
        let running = threads.running.into_values().chain(self.workers.drain(..));
        for thread in running.chain(threads.ended) {
            if thread.is_finished() || threads_left_none(&self.hub) {
                // Its panics were caught.
                let _ = thread.join();
            } else {
                threads_left += 1;
            }
        }
        let unfinished = if threads_left > 0 { self.hub.roster.calls() } else { Vec::new() };
        Stopped { is_drained, threads_left, unfinished }
    }
}

/// Whether every thread has said that it is about to end.
fn threads_left_none(hub: &Hub) -> bool {
    hub.threads.wait_until_none(Instant::now()) == 0
}
