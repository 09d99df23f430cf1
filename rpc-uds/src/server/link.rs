//! One connection of a server, as everything but its own thread sees it.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use super::hub::Hub;
use super::outbox::{Limits, Outbox, Posted};
use super::stats::{add, count};
use crate::control::{Control, Refusal};
use crate::error::{Forked, SendError};
use crate::frame::{HEADER_BYTES, Header, Kind};
use crate::handshake::Agreement;
use crate::peer::Credentials;
use crate::sync::lock;
use crate::sys::UnsharedFd;
use crate::transport;

#[derive(Debug)]
pub(crate) struct Link {
    pub(super) id: u64,
    pub(super) socket: UnsharedFd,
    pub(super) peer: Credentials,
    pub(super) hub: Arc<Hub>,
    pub(super) agreement: OnceLock<Agreement>,
    outbox: Mutex<Outbox>,
    /// Requests without an answer, and whether they are cancelled.
    calls: Mutex<HashMap<u64, Arc<AtomicBool>>>,
    /// Requests that somebody is still at, answered or not, without control requests.
    places: Arc<AtomicUsize>,
    /// Descriptors that came with them.
    descriptors: AtomicUsize,
    is_closed: AtomicBool,
}

/// One of the requests that a connection may have at a time.
#[derive(Debug)]
pub(super) struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Link {
    pub(super) fn new(id: u64, socket: UnsharedFd, peer: Credentials, hub: Arc<Hub>) -> Self {
        Self {
            id,
            socket,
            peer,
            hub,
            agreement: OnceLock::new(),
            outbox: Mutex::new(Outbox::default()),
            calls: Mutex::new(HashMap::new()),
            places: Arc::default(),
            descriptors: AtomicUsize::new(0),
            is_closed: AtomicBool::new(false),
        }
    }

    /// Notes a request; `None` if its id is in use.
    pub(super) fn begin(&self, id: u64) -> Option<Arc<AtomicBool>> {
        let mut calls = lock(&self.calls);
        if id == 0 || calls.contains_key(&id) {
            return None;
        }
        let is_cancelled = Arc::new(AtomicBool::new(false));
        calls.insert(id, Arc::clone(&is_cancelled));
        Some(is_cancelled)
    }

    /// A place among the requests of this connection, for one that brings `descriptors`. Only the
    /// connection's own thread asks.
    pub(super) fn place(&self, descriptors: u8) -> Result<Place, Refusal> {
        let (options, counters) = (&self.hub.options, &self.hub.counters);
        let told = |limit| u32::try_from(limit).unwrap_or(u32::MAX);
        let limit = options.unanswered_max;
        if self.places.load(Ordering::Relaxed) >= limit {
            count(&counters.shed_unanswered);
            return Err(Refusal::Unanswered { limit: told(limit) });
        }
        let limit = options.descriptors_waiting_max;
        let waiting = self.descriptors.load(Ordering::Relaxed);
        // Those of one request alone always fit, and none take no room.
        if waiting > 0 && descriptors > 0 && waiting + usize::from(descriptors) > limit {
            count(&counters.shed_descriptors);
            return Err(Refusal::Descriptors { limit: told(limit) });
        }
        self.places.fetch_add(1, Ordering::Relaxed);
        Ok(Place(Arc::clone(&self.places)))
    }

    /// Counts descriptors of a request that has a place, until they are let go of.
    pub(super) fn hold(&self, descriptors: u8) {
        self.descriptors.fetch_add(descriptors.into(), Ordering::Relaxed);
    }

    pub(super) fn let_go(&self, descriptors: u8) {
        self.descriptors.fetch_sub(descriptors.into(), Ordering::Relaxed);
    }

    /// Whoever gets `true` answers the request, nobody else does.
    pub(super) fn finish(&self, id: u64) -> bool {
        lock(&self.calls).remove(&id).is_some()
    }

    /// The client does not want the answer. It is told so at once.
    pub(super) fn cancel(&self, id: u64) {
        let call = lock(&self.calls).remove(&id);
        // Answered meanwhile, or never begun.
        let Some(is_cancelled) = call else { return };
        is_cancelled.store(true, Ordering::Release);
        count(&self.hub.counters.cancelled);
        let _ = self.refuse(id, Refusal::Cancelled);
    }

    /// The flags of all requests go up; nobody is told. Whoever is freed by one of them waits for the
    /// others, and begins none of them.
    pub(super) fn cancel_all(&self) {
        for (_, is_cancelled) in lock(&self.calls).drain() {
            is_cancelled.store(true, Ordering::Release);
        }
    }

    pub(super) fn say(&self, control: &Control, id: u64) -> Result<(), SendError> {
        let (header, body) = control.frame(id);
        let outbox = lock(&self.outbox);
        if outbox.is_corked {
            // The first words, onto a socket that has room for them.
            let sent = transport::send(self.socket.get()?, [&header, &body], &[]);
            return sent.map(drop).map_err(|_| SendError::Gone);
        }
        drop(outbox);
        self.post(&header, &body, &[])
    }

    /// Welcomes the client, and lets through what was meant for it since it was announced.
    pub(super) fn welcome(&self, agreement: Agreement) -> Result<(), SendError> {
        self.say(&Control::Welcome(agreement), 0)?;
        let mut outbox = lock(&self.outbox);
        outbox.is_corked = false;
        if !outbox.is_empty() && self.is_open() {
            self.hub.backlog.begin();
            drop(outbox);
            self.flush();
        }
        Ok(())
    }

    pub(super) fn refuse(&self, id: u64, refusal: Refusal) -> Result<(), SendError> {
        self.say(&Control::Refusal(refusal), id)
    }

    pub(super) fn send(
        &self,
        kind: Kind,
        id: u64,
        tag: u16,
        body: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), SendError> {
        // Sessions begin with an agreement.
        let agreement = self.agreement.get().ok_or(SendError::Gone)?;
        let limits = agreement.limits();
        limits.check(body.len(), descriptors.len()).map_err(SendError::TooMuch)?;
        let header = Header {
            kind,
            tag,
            descriptors: u8::try_from(descriptors.len()).unwrap_or(u8::MAX),
            body_bytes: u32::try_from(body.len()).unwrap_or(u32::MAX),
            id,
        };
        self.post(&header.encode(), body, descriptors)
    }

    fn post(
        &self,
        header: &[u8; HEADER_BYTES],
        body: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), SendError> {
        let socket = self.socket.get()?;
        if self.is_closed.load(Ordering::Acquire) {
            return Err(SendError::Gone);
        }
        let mut outbox = lock(&self.outbox);
        let was_empty = outbox.is_empty();
        let options = &self.hub.options;
        let limits = Limits {
            bytes_max: options.outbox_bytes_max,
            descriptors_max: options.descriptors_waiting_max,
        };
        let posted = outbox.post(socket, [header, body], descriptors, limits);
        match posted {
            Posted::Sent | Posted::Corked => {}
            Posted::Queued => {
                if was_empty {
                    self.hub.backlog.begin();
                }
                if self.hub.flusher.arm(socket, self.id, &mut outbox.is_registered).is_err() {
                    drop(outbox);
                    self.close();
                    return Err(SendError::Gone);
                }
            }
            Posted::Full { bytes } => {
                drop(outbox);
                if self.close() {
                    count(&self.hub.counters.slow_readers);
                }
                return Err(SendError::Slow { bytes });
            }
            Posted::Descriptors(errno) => {
                return Err(SendError::Descriptors { code: errno.raw_os_error() });
            }
            Posted::Broken => {
                drop(outbox);
                self.close();
                return Err(SendError::Gone);
            }
        }
        add(&self.hub.counters.bytes_out, header.len() + body.len());
        Ok(())
    }

    /// Sends what was queued. By the flusher, when the socket has room.
    pub(super) fn flush(&self) {
        let Ok(socket) = self.socket.get() else { return };
        let mut outbox = lock(&self.outbox);
        if outbox.is_empty() {
            return;
        }
        let before = outbox.bytes();
        let flushed = outbox.flush(socket);
        add(&self.hub.flushed, before - outbox.bytes());
        match flushed {
            Ok(true) => self.hub.backlog.end(),
            Ok(false) => {
                if self.hub.flusher.arm(socket, self.id, &mut outbox.is_registered).is_err() {
                    drop(outbox);
                    self.close();
                }
            }
            Err(_) => {
                drop(outbox);
                self.close();
            }
        }
    }

    /// Ends the connection: its thread, and the client, see the end of the stream. Any number of
    /// times; `true` the first one.
    pub(super) fn close(&self) -> bool {
        let is_first = !self.is_closed.swap(true, Ordering::AcqRel);
        let Ok(socket) = self.socket.get() else { return is_first };
        let mut outbox = lock(&self.outbox);
        if !outbox.is_empty() {
            outbox.clear();
            if !outbox.is_corked {
                self.hub.backlog.end();
            }
        }
        // It fails only if the client was first.
        let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Both);
        is_first
    }

    pub(super) fn is_open(&self) -> bool {
        !self.is_closed.load(Ordering::Acquire)
    }
}

/// A client of the server. Cloning it gives another handle to the same connection, whose descriptor
/// stays open, though shut down, until the last one is dropped: let go of it in
/// [`Handler::disconnected`](crate::Handler::disconnected).
#[derive(Clone, Debug)]
pub struct Connection(pub(super) Arc<Link>);

impl Connection {
    /// A number that no other connection of the server has.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// Who connected.
    pub fn peer(&self) -> Credentials {
        self.0.peer
    }

    /// What was agreed in the handshake.
    pub fn agreement(&self) -> Option<Agreement> {
        self.0.agreement.get().copied()
    }

    /// Whether the connection still stands, as far as the server knows.
    pub fn is_open(&self) -> bool {
        self.0.is_open()
    }

    /// Sends the client something it has not asked for. Never waits.
    pub fn push(
        &self,
        tag: u16,
        body: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), SendError> {
        // Before any lock: in a forked child it may be held by a thread that is not there.
        self.0.hub.generation.check()?;
        self.0.send(Kind::Push, 0, tag, body, descriptors)?;
        count(&self.0.hub.counters.pushes);
        Ok(())
    }

    /// Ends the connection.
    pub fn close(&self) -> Result<(), Forked> {
        self.0.hub.generation.check()?;
        self.0.close();
        Ok(())
    }
}
