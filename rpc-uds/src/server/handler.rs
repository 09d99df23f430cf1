//! What the user of a server implements, and what it is given.

use std::mem;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::link::{Connection, Link, Place};
use super::roster::Unfinished;
use super::stats::count;
use crate::control::Refusal;
use crate::error::SendError;
use crate::frame::Kind;
use crate::gate::Pass;

/// What a server does. Its methods run on many threads at once.
pub trait Handler: Send + Sync + 'static {
    /// What is kept per connection. It is dropped after [`disconnected`](Self::disconnected), when
    /// the last request that uses it has ended: what must not outlive the client, and what requests
    /// in progress may still add to, is best given back by its `Drop`.
    type Session: Send + Sync + 'static;

    /// A client has connected and shaken hands. Runs on the connection's thread; while it runs the
    /// client waits for its welcome.
    ///
    /// # Errors
    ///
    /// A [`Refusal`], most often [`Refusal::rejected`]: the client is told, the connection ends.
    fn connected(&self, connection: &Connection) -> Result<Self::Session, Refusal>;

    /// Whether requests with this tag belong to the control lane: answered on the connection's
    /// thread however busy the workers are, beyond every limit on requests, and while the server
    /// stops. Such requests must be quick.
    fn is_control(&self, tag: u16) -> bool {
        let _ = tag;
        false
    }

    /// Offered first, on the connection's thread: who can answer quickly answers here, and saves the
    /// way to a worker. What is given back goes to [`call`](Self::call).
    fn fast(&self, session: &Arc<Self::Session>, call: Call) -> Option<Call> {
        let _ = session;
        Some(call)
    }

    /// Does a request, on a worker's thread; control requests on the connection's. The answer may be
    /// given here, or later from any thread, through [`Call::responder`].
    fn call(&self, session: &Arc<Self::Session>, call: Call);

    /// The client has gone: it closed the connection, died, or was cut off. Told exactly once per
    /// session, while its last requests may still run; their answers go nowhere.
    fn disconnected(&self, session: &Arc<Self::Session>, connection: &Connection) {
        let _ = (session, connection);
    }

    /// Runs a worker's whole life: for what must be set up once per thread and undone at its end.
    /// Must call `work` once.
    fn around_worker(&self, work: &mut dyn FnMut()) {
        work();
    }
}

/// A request.
#[derive(Debug)]
#[non_exhaustive]
pub struct Call {
    /// Which method.
    pub tag: u16,
    /// The bytes for it.
    pub body: Vec<u8>,
    /// The descriptors for it, close-on-exec.
    pub descriptors: Vec<OwnedFd>,
    /// Where the answer goes.
    pub responder: Responder,
}

impl Call {
    /// Shorthand for an answer without descriptors.
    pub fn reply(self, tag: u16, body: &[u8]) -> Result<(), SendError> {
        self.responder.reply(tag, body, &[])
    }

    pub(super) fn named(&self) -> Unfinished {
        let Responder { link, id, .. } = &self.responder;
        Unfinished { tag: self.tag, id: *id, connection: link.id, peer: link.peer }
    }
}

/// Answers one request, once, from any thread. Dropping it tells the client that there is no answer.
#[derive(Debug)]
pub struct Responder {
    link: Arc<Link>,
    id: u64,
    is_cancelled: Arc<AtomicBool>,
    is_answered: bool,
    /// How many descriptors came with the request, and count against its connection's limit.
    descriptors: u8,
    /// Control requests have none.
    admission: Option<Admission>,
}

/// What a request holds as long as anybody holds its responder.
#[derive(Debug)]
pub(super) struct Admission {
    /// It counts against its connection's limit; given back before the answer, which the next
    /// request may follow at once.
    pub(super) place: Option<Place>,
    /// The server's stop waits for it.
    pub(super) _pass: Pass,
}

impl Responder {
    pub(super) fn new(
        link: &Arc<Link>,
        id: u64,
        is_cancelled: Arc<AtomicBool>,
        descriptors: u8,
        admission: Option<Admission>,
    ) -> Self {
        let link = Arc::clone(link);
        Self { link, id, is_cancelled, is_answered: false, descriptors, admission }
    }

    /// Answers. Never waits: what the socket does not take is queued.
    ///
    /// # Errors
    ///
    /// [`SendError`]; an answer that is too much or whose descriptors cannot be sent is replaced by a
    /// refusal, so that the client does not wait in vain.
    pub fn reply(
        mut self,
        tag: u16,
        body: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), SendError> {
        self.link.hub.generation.check()?;
        self.is_answered = true;
        if !self.finish() {
            return Err(SendError::Cancelled);
        }
        let sent = self.link.send(Kind::Reply, self.id, tag, body, descriptors);
        match &sent {
            Ok(()) => count(&self.link.hub.counters.replies),
            Err(error @ (SendError::TooMuch(_) | SendError::Descriptors { .. })) => {
                let what = error.to_string();
                // If this fails as well there is nobody to tell.
                let _ = self.link.refuse(self.id, Refusal::Reply { what });
            }
            Err(_) => {}
        }
        sent
    }

    /// Says no in the crate's own words. What the user of the crate has to say goes into a reply.
    pub fn refuse(mut self, refusal: Refusal) -> Result<(), SendError> {
        self.link.hub.generation.check()?;
        self.is_answered = true;
        if !self.finish() {
            return Err(SendError::Cancelled);
        }
        self.link.refuse(self.id, refusal)
    }

    /// Whether the answer is wanted, and nobody else's to give.
    fn finish(&mut self) -> bool {
        let is_wanted = self.link.finish(self.id) && !self.link.hub.is_over();
        if let Some(admission) = &mut self.admission {
            drop(admission.place.take());
            self.link.let_go(mem::take(&mut self.descriptors));
        }
        is_wanted
    }

    /// Whether the client has given up on the request, or has gone, or the server's grace is over.
    pub fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::Acquire) || self.link.hub.is_over()
    }

    /// The request's id on its connection.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Who asked.
    pub fn connection(&self) -> Connection {
        Connection(Arc::clone(&self.link))
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if self.is_answered || self.link.hub.generation.check().is_err() {
            return;
        }
        if self.finish() {
            count(&self.link.hub.counters.unanswered);
            let refusal = if thread::panicking() { Refusal::Panicked } else { Refusal::Dropped };
            // The client may have gone: nobody to tell.
            let _ = self.link.refuse(self.id, refusal);
        }
    }
}
