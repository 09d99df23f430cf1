//! A call that is under way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connection::{Connection, SLICE};
use super::{Answer, Message, Request};
use crate::control::{Control, Refusal};
use crate::desk::{Outcome, Turn};
use crate::error::{CallError, Lost};
use crate::frame::{Header, Kind};

/// A request that was sent, and whose reply is still to be had.
///
/// Dropping it cancels: the server is told, and a late reply is dropped with its descriptors, unless
/// the request [keeps](Request::keeping_late_reply) it.
#[derive(Debug)]
pub struct PendingCall {
    connection: Arc<Connection>,
    id: u64,
    wants_push: bool,
    keeps_late: bool,
    deadline: Option<Instant>,
    begun: Instant,
    is_over: bool,
}

impl PendingCall {
    pub(super) fn start(
        connection: &Arc<Connection>,
        request: Request<'_>,
        deadline: Option<Instant>,
    ) -> Result<Self, CallError> {
        connection.generation.check()?;
        in_time(deadline)?;
        Self::begin(connection, request, deadline)
    }

    /// Without waiting for the socket. The reply may be waited for without end.
    pub(super) fn start_now(
        connection: &Arc<Connection>,
        request: Request<'_>,
    ) -> Result<Self, CallError> {
        let mut call = Self::begin(connection, request, Some(Instant::now()))?;
        call.deadline = None;
        Ok(call)
    }

    fn begin(
        connection: &Arc<Connection>,
        request: Request<'_>,
        deadline: Option<Instant>,
    ) -> Result<Self, CallError> {
        let mut call = Self::seated(connection, false, deadline)?;
        call.keeps_late = request.keeps_late_reply;
        let header = Header {
            kind: Kind::Request,
            tag: request.tag,
            descriptors: u8::try_from(request.descriptors.len()).unwrap_or(u8::MAX),
            body_bytes: u32::try_from(request.body.len()).unwrap_or(u32::MAX),
            id: call.id,
        };
        call.send(header, request)
    }

    pub(super) fn ping(
        connection: &Arc<Connection>,
        deadline: Option<Instant>,
    ) -> Result<Self, CallError> {
        connection.generation.check()?;
        in_time(deadline)?;
        let call = Self::seated(connection, false, deadline)?;
        let (header, body) = Control::Ping.frame(call.id);
        let limits = connection.agreement.limits_of_receiver();
        let header = Header::decode(&header, limits).map_err(CallError::TooMuch)?;
        call.send(header, Request::new(0, &body))
    }

    pub(super) fn push(
        connection: &Arc<Connection>,
        deadline: Option<Instant>,
    ) -> Result<Self, CallError> {
        Self::seated(connection, true, deadline)
    }

    fn seated(
        connection: &Arc<Connection>,
        wants_push: bool,
        deadline: Option<Instant>,
    ) -> Result<Self, CallError> {
        // First of all: the locks of a forked child may be held by threads that are not there.
        connection.generation.check()?;
        let seat =
            if wants_push { connection.desk.enlist_for_push() } else { connection.desk.enlist() };
        Ok(Self {
            connection: Arc::clone(connection),
            id: seat.map_err(CallError::Lost)?,
            wants_push,
            keeps_late: false,
            deadline,
            begun: Instant::now(),
            is_over: false,
        })
    }

    fn send(mut self, header: Header, request: Request<'_>) -> Result<Self, CallError> {
        let Request { body, descriptors, .. } = request;
        let mut is_begun = false;
        let sent = self.connection.send(header, body, descriptors, self.deadline, &mut is_begun);
        match sent {
            Ok(()) => Ok(self),
            Err(error) => {
                // The cancellation follows what was begun. Nothing else needs one, and a server that
                // has stopped reading must not make them pile up.
                if !is_begun || !matches!(error, CallError::TimedOut { .. }) {
                    self.is_over = true;
                    self.connection.desk.leave(self.id, false);
                }
                Err(error)
            }
        }
    }

    /// The id of the request on this connection.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Waits for the reply.
    pub fn wait(self) -> Result<Message, CallError> {
        self.wait_unless(|| false)
    }

    /// Waits for the reply; `is_interrupted` is asked ten times a second.
    pub fn wait_unless(mut self, is_interrupted: impl Fn() -> bool) -> Result<Message, CallError> {
        self.connection.generation.check()?;
        loop {
            let slice = Instant::now() + SLICE;
            // A call alone waits in the kernel and asks nobody's clock in between.
            let until = Some(self.deadline.map_or(slice, |deadline| deadline.min(slice)));
            match self.connection.desk.turn(self.id, until) {
                Turn::Done(outcome) => return self.over(outcome),
                Turn::Lost(lost) => return self.lost(lost),
                Turn::Late => {}
                Turn::Lead => match self.connection.lead(self.id, self.wants_push, self.deadline) {
                    Ok(Some(outcome)) => return self.over(outcome),
                    Ok(None) => {}
                    Err(lost) => return self.lost(lost),
                },
            }
            if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(CallError::TimedOut { waited: self.begun.elapsed() });
            }
            if is_interrupted() {
                return Err(CallError::Interrupted);
            }
        }
    }

    /// The reply, if it has been read: by another thread, or by
    /// [`Client::try_receive`](super::Client::try_receive). The call is over then.
    pub fn try_wait(&mut self) -> Option<Result<Message, CallError>> {
        if let Err(forked) = self.connection.generation.check() {
            return Some(Err(forked.into()));
        }
        if self.is_over {
            return None;
        }
        if let Some(outcome) = self.connection.desk.outcome(self.id) {
            return Some(self.over(outcome));
        }
        let lost = self.connection.desk.lost()?;
        Some(self.lost(lost))
    }

    /// A handle by which another thread can end the wait.
    pub fn canceller(&self) -> Canceller {
        Canceller { connection: Arc::clone(&self.connection), id: self.id }
    }

    fn over(&mut self, outcome: Outcome<Answer>) -> Result<Message, CallError> {
        self.is_over = true;
        match outcome {
            Outcome::Here(Ok(message)) => Ok(message),
            Outcome::Here(Err(Refusal::Cancelled)) | Outcome::Cancelled => {
                Err(CallError::Cancelled)
            }
            Outcome::Here(Err(refusal)) => Err(CallError::Refused(refusal)),
        }
    }

    fn lost(&mut self, lost: Lost) -> Result<Message, CallError> {
        self.is_over = true;
        Err(CallError::Lost(lost))
    }
}

/// What is late already is not sent: its reply might come before anybody looks at the clock.
fn in_time(deadline: Option<Instant>) -> Result<(), CallError> {
    if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
        return Err(CallError::TimedOut { waited: Duration::ZERO });
    }
    Ok(())
}

impl Drop for PendingCall {
    fn drop(&mut self) {
        if self.is_over || self.connection.generation.check().is_err() {
            return;
        }
        let desk = &self.connection.desk;
        let outcome =
            if self.keeps_late { desk.abandon(self.id) } else { desk.leave(self.id, false) };
        if self.keeps_late
            && let Some(Outcome::Here(Ok(message))) = outcome
        {
            self.connection.keep_late(message);
            return;
        }
        if outcome.is_none() && !self.wants_push && self.connection.desk.lost().is_none() {
            self.connection.tell(&Control::Cancel, self.id);
        }
    }
}

/// Ends a call that another thread waits for.
#[derive(Clone, Debug)]
pub struct Canceller {
    connection: Arc<Connection>,
    id: u64,
}

impl Canceller {
    /// The wait ends with [`CallError::Cancelled`]; the server is told. `false` if it was over.
    pub fn cancel(&self) -> Result<bool, CallError> {
        self.connection.generation.check()?;
        let is_ended = self.connection.desk.cancel(self.id);
        if is_ended {
            // The server confirms at once, and that wakes whoever reads.
            self.connection.tell(&Control::Cancel, self.id);
        }
        Ok(is_ended)
    }
}
