//! The calling side.

mod call;
mod connect;
mod connection;
mod watcher;

use std::fmt;
use std::mem;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

pub use self::call::{Canceller, PendingCall};
pub use self::connect::ClientOptions;

use self::connection::Connection;
use self::watcher::Watcher;
use crate::control::Refusal;
use crate::error::{CallError, Forked, Lost};
use crate::handshake::Agreement;
use crate::peer::Credentials;

/// What a reply or a push brings.
#[derive(Debug)]
pub struct Message {
    /// The number that its sender gave it.
    pub tag: u16,
    /// Its bytes.
    pub body: Vec<u8>,
    /// Its descriptors, close-on-exec.
    pub descriptors: Vec<OwnedFd>,
}

/// What a call asks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request<'a> {
    /// Which method.
    pub tag: u16,
    /// The bytes for it.
    pub body: &'a [u8],
    /// The descriptors for it; the kernel duplicates them, they stay the caller's.
    pub descriptors: &'a [BorrowedFd<'a>],
    /// Whether a reply that comes after the call was given up is kept, for
    /// [`Client::try_next_late`].
    pub keeps_late_reply: bool,
}

impl<'a> Request<'a> {
    /// A request without descriptors.
    pub fn new(tag: u16, body: &'a [u8]) -> Self {
        Self { tag, body, descriptors: &[], keeps_late_reply: false }
    }

    /// The same with `descriptors`.
    #[must_use]
    pub fn with_descriptors(self, descriptors: &'a [BorrowedFd<'a>]) -> Self {
        Self { descriptors, ..self }
    }

    /// The same, but a reply that comes after the call was given up is kept for
    /// [`Client::try_next_late`]: for replies that hand over what has to be given back.
    #[must_use]
    pub fn keeping_late_reply(self) -> Self {
        Self { keeps_late_reply: true, ..self }
    }
}

/// A connection to a server, for any number of threads at once.
///
/// Calls are pipelined: they share the socket, and replies come in any order. The thread that waits
/// reads; how several of them agree on who does is told at the top of `desk.rs`.
///
/// Dropping it closes the connection: calls that wait elsewhere end with [`Lost::ClosedHere`].
///
/// In a forked child every method is an error ([`Forked`]), and dropping closes nothing of the parent's.
pub struct Client {
    connection: Arc<Connection>,
    watcher: Option<Watcher>,
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Client")
            .field("server", &self.connection.server)
            .field("agreement", &self.connection.agreement)
            .finish_non_exhaustive()
    }
}

/// What a non-blocking look at the connection brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Replies handed to their calls.
    pub replies: usize,
    /// Pushes queued.
    pub pushes: usize,
}

impl Client {
    /// How to connect.
    pub fn options() -> ClientOptions {
        ClientOptions::default()
    }

    /// Sends a request and waits for its reply.
    ///
    /// # Errors
    ///
    /// [`CallError`]; after a timeout the server is told, and a late reply is dropped. A deadline that
    /// has passed is [`CallError::TimedOut`], and nothing is sent.
    pub fn call(
        &self,
        request: Request<'_>,
        deadline: impl Into<Option<Instant>>,
    ) -> Result<Message, CallError> {
        self.start(request, deadline)?.wait()
    }

    /// Sends a request; its reply is waited for later, on any thread.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call). [`CallError::TimedOut`] too if the socket took it only in part: that is
    /// sent to its end, and cancelled.
    pub fn start(
        &self,
        request: Request<'_>,
        deadline: impl Into<Option<Instant>>,
    ) -> Result<PendingCall, CallError> {
        PendingCall::start(&self.connection, request, deadline.into())
    }

    /// Sends a request if the socket takes it at once. Its reply has no deadline.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start): [`CallError::TimedOut`] if the server has stopped reading.
    pub fn start_now(&self, request: Request<'_>) -> Result<PendingCall, CallError> {
        PendingCall::start_now(&self.connection, request)
    }

    /// Asks the server whether it is there. Answered whatever else it does.
    pub fn ping(&self, deadline: impl Into<Option<Instant>>) -> Result<(), CallError> {
        PendingCall::ping(&self.connection, deadline.into())?.wait().map(drop)
    }

    /// Waits for the next push. Several threads may wait; each push goes to one of them.
    ///
    /// # Errors
    ///
    /// [`CallError::TimedOut`] at the deadline, [`CallError::Lost`] after the last push.
    pub fn next_push(&self, deadline: impl Into<Option<Instant>>) -> Result<Message, CallError> {
        PendingCall::push(&self.connection, deadline.into())?.wait()
    }

    /// The next push that has come and was not fetched. Reads nothing.
    pub fn try_next_push(&self) -> Result<Option<Message>, Forked> {
        self.connection.generation.check()?;
        Ok(self.connection.desk.take_push().and_then(Result::ok))
    }

    /// The next reply that came too late and was to be [kept](Request::keeping_late_reply). Reads
    /// nothing.
    pub fn try_next_late(&self) -> Result<Option<Message>, Forked> {
        self.connection.generation.check()?;
        Ok(self.connection.take_late())
    }

    /// Whether such replies, or the server's word that there will be none, are still to come.
    pub fn awaits_late(&self) -> Result<bool, Forked> {
        self.connection.generation.check()?;
        Ok(self.connection.desk.awaits_late())
    }

    /// Reads what has come without waiting: for an event loop that watches
    /// [`descriptor`](Self::descriptor). Replies are then had by [`PendingCall::try_wait`], pushes
    /// by [`try_next_push`](Self::try_next_push).
    ///
    /// A connection that such a loop drives should have no blocking calls on other threads: while one
    /// of them reads, this does nothing.
    pub fn try_receive(&self) -> Result<Progress, CallError> {
        self.connection.receive_now()
    }

    /// The socket, for readiness only: every byte read from it elsewhere is lost.
    pub fn descriptor(&self) -> Result<BorrowedFd<'_>, Forked> {
        self.connection.socket.get()
    }

    /// Why the connection is no more, if it was noticed.
    pub fn lost(&self) -> Result<Option<Lost>, Forked> {
        self.connection.generation.check()?;
        Ok(self.connection.desk.lost())
    }

    /// Who listens at the other end.
    pub fn server(&self) -> Credentials {
        self.connection.server
    }

    /// What was agreed in the handshake.
    pub fn agreement(&self) -> Agreement {
        self.connection.agreement
    }

    /// Counts since the connection was made.
    pub fn stats(&self) -> Result<ClientStats, Forked> {
        self.connection.generation.check()?;
        Ok(ClientStats {
            late_replies: self.connection.late_replies(),
            pushes_dropped: self.connection.desk.pushes_dropped(),
        })
    }
}

/// Counts of a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientStats {
    /// Replies that came after their call had given up.
    pub late_replies: u64,
    /// Pushes that were dropped because nobody fetched them.
    pub pushes_dropped: u64,
}

impl Drop for Client {
    fn drop(&mut self) {
        if self.connection.generation.check().is_err() {
            // The watcher is a thread of the parent; only its memory is here.
            mem::forget(self.watcher.take());
            return;
        }
        self.connection.close();
        drop(self.watcher.take());
    }
}

/// What seats wait for: a reply or push, or a refusal.
type Answer = Result<Message, Refusal>;
