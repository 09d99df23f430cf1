//! The thread of one connection: handshake, requests, end.

use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::TrySendError;
use rustix::event::PollFlags;

use super::handler::{Admission, Call, Handler, Responder};
use super::link::{Connection, Link};
use super::roster::Slate;
use super::stats::{add, count};
use super::workers::{Job, Queue};
use crate::control::{CONTROL_BYTES_MAX, Control, Refusal};
use crate::deadline::after;
use crate::decoder::Decoder;
use crate::error::{FrameError, Lost};
use crate::frame::{Frame, FrameLimits, Kind};
use crate::gate::Gate;
use crate::handshake::{Agreement, Offer};
use crate::legacy::{self, Recognition};
use crate::peer::own_uid;
use crate::transport::{self, Received};

/// Why a connection ended; each is counted.
#[derive(Debug)]
enum End {
    /// The client closed it or died, or this side did.
    Gone,
    /// A frame did not come to its end in time.
    Trickling,
    Protocol(FrameError),
}

impl From<Lost> for End {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::Protocol(error) => Self::Protocol(error),
            _ => Self::Gone,
        }
    }
}

impl From<FrameError> for End {
    fn from(error: FrameError) -> Self {
        Self::Protocol(error)
    }
}

pub(super) fn serve<H: Handler>(
    link: &Arc<Link>,
    handler: &Arc<H>,
    queue: &Queue<H>,
    slate: &Slate,
) {
    let limits = FrameLimits { body_bytes_max: CONTROL_BYTES_MAX, descriptors_max: 0 };
    let mut stream = Stream { link, slate, decoder: Decoder::new(limits), frame_deadline: None };
    let Some(agreement) = greet(&mut stream) else { return };
    // Set once: a link has one thread.
    let _ = link.agreement.set(agreement);
    stream.decoder.set_limits(agreement.limits_of_receiver());
    let connection = Connection(Arc::clone(link));
    let session = match catch_unwind(AssertUnwindSafe(|| handler.connected(&connection))) {
        Ok(Ok(session)) => Arc::new(session),
        refused => {
            count(&link.hub.counters.refused_by_handler);
            let refusal =
                refused.map_or(Refusal::Panicked, |it| it.err().unwrap_or(Refusal::Panicked));
            let _ = link.refuse(0, refusal);
            return;
        }
    };
    count(&link.hub.counters.sessions);
    let session = Session { link, handler, queue, slate, state: session, connection };
    if link.welcome(agreement).is_err() {
        return;
    }
    if link.hub.gate.is_closed() {
        let _ = link.say(&Control::Goodbye, 0);
    }
    let end = session.requests(&mut stream);
    let counters = &link.hub.counters;
    match end {
        End::Gone => {}
        End::Trickling => {
            count(&counters.trickling);
            let what = "a frame did not come to its end in time".to_owned();
            let _ = link.refuse(0, Refusal::Protocol { what });
        }
        End::Protocol(error) => {
            count(&counters.protocol_errors);
            let _ = link.refuse(0, Refusal::protocol(&error));
        }
    }
}

/// Whole frames from the socket, each by its deadline.
struct Stream<'a> {
    link: &'a Arc<Link>,
    slate: &'a Slate,
    decoder: Decoder<OwnedFd>,
    frame_deadline: Option<Instant>,
}

impl Stream<'_> {
    /// The next frame. Between frames it waits for ever, or until `deadline`; a frame that was begun
    /// must be whole within the server's time for frames, however it trickles.
    fn next(&mut self, deadline: Option<Instant>) -> Result<Frame<OwnedFd>, End> {
        loop {
            if let Some(frame) = self.decoder.next()? {
                self.frame_deadline = None;
                return Ok(frame);
            }
            let deadline = if self.decoder.is_within_a_frame() {
                let time = self.link.hub.options.frame_timeout;
                let by = *self.frame_deadline.get_or_insert_with(|| after(time));
                Some(deadline.map_or(by, |deadline| deadline.min(by)))
            } else {
                deadline
            };
            self.receive(deadline)?;
        }
    }

    fn receive(&mut self, deadline: Option<Instant>) -> Result<(), End> {
        let socket = self.link.socket.get().map_err(|_| End::Gone)?;
        let received = self.slate.wait(|| {
            if deadline.is_some() {
                // An error here is an error of the read as well.
                let _ = transport::wait_for(socket, PollFlags::IN, deadline);
            }
            transport::receive(socket, &mut self.decoder, deadline.is_none())
        });
        match received? {
            Received::Bytes(bytes) => {
                add(&self.link.hub.counters.bytes_in, bytes);
                Ok(())
            }
            Received::End if self.decoder.is_within_a_frame() => Err(FrameError::Cut.into()),
            Received::End => Err(End::Gone),
            Received::Nothing if deadline.is_some_and(|deadline| Instant::now() >= deadline) => {
                Err(End::Trickling)
            }
            Received::Nothing => Ok(()),
        }
    }
}

/// Checks the client's user, and shakes hands. `None`: it was refused.
fn greet(stream: &mut Stream<'_>) -> Option<Agreement> {
    let link = stream.link;
    let (options, counters) = (&link.hub.options, &link.hub.counters);
    if !options.policy.admits(link.peer) {
        count(&counters.refused_users);
        let _ = link.refuse(0, Refusal::User { client: link.peer.uid, server: own_uid() });
        return None;
    }
    let deadline = after(options.handshake_timeout);
    let offer = Offer::new(options.features, options.limits);
    let hello = stream.next(Some(deadline)).and_then(|frame| match frame.header.kind {
        Kind::Control => Ok(Control::decode(&frame.body)?),
        _ => Err(FrameError::OutOfTurn.into()),
    });
    let refusal = match hello {
        Ok(Control::Hello(client)) => match offer.answer(&client) {
            Ok(agreement) => return Some(agreement),
            Err(refusal) => {
                count(&counters.refused_versions);
                refusal
            }
        },
        Ok(_) => {
            count(&counters.protocol_errors);
            Refusal::protocol(&FrameError::OutOfTurn)
        }
        Err(End::Gone) => return None,
        Err(End::Trickling) => {
            count(&counters.silent);
            Refusal::Protocol { what: "no hello came in time".to_owned() }
        }
        Err(End::Protocol(error)) => {
            if matches!(error, FrameError::Magic { .. }) && refuse_legacy(stream, deadline) {
                return None;
            }
            if matches!(error, FrameError::Version { .. }) {
                count(&counters.refused_versions);
            } else {
                count(&counters.protocol_errors);
            }
            Refusal::protocol(&error)
        }
    };
    let _ = link.refuse(0, refusal);
    None
}

/// A client of the 0.2 protocol gets an answer that it can read; `false` for anybody else.
fn refuse_legacy(stream: &mut Stream<'_>, deadline: Instant) -> bool {
    let message_bytes = loop {
        match legacy::recognise(stream.decoder.undecoded()) {
            Recognition::Legacy { message_bytes } => break message_bytes as usize,
            Recognition::Foreign => return false,
            Recognition::Undecided => {
                if stream.receive(Some(deadline)).is_err() {
                    return false;
                }
            }
        }
    };
    count(&stream.link.hub.counters.refused_legacy);
    let Ok(socket) = stream.link.socket.get() else { return true };
    // A fresh socket has room for it.
    let _ = transport::send(socket, [&legacy::refusal(), &[]], &[]);
    // Its client reads only when all of its message is sent.
    let mut left = (message_bytes + 4).saturating_sub(stream.decoder.undecoded().len());
    while left > 0 {
        let limits = FrameLimits { body_bytes_max: 0, descriptors_max: 0 };
        stream.decoder = Decoder::new(limits);
        if stream.receive(Some(deadline)).is_err() {
            break;
        }
        left = left.saturating_sub(stream.decoder.undecoded().len());
    }
    true
}

struct Session<'a, H: Handler> {
    link: &'a Arc<Link>,
    handler: &'a Arc<H>,
    queue: &'a Queue<H>,
    slate: &'a Slate,
    state: Arc<H::Session>,
    connection: Connection,
}

impl<H: Handler> Session<'_, H> {
    fn requests(&self, stream: &mut Stream<'_>) -> End {
        loop {
            let frame = match stream.next(None) {
                Ok(frame) => frame,
                Err(end) => return end,
            };
            let outcome = match frame.header.kind {
                Kind::Request => self.request(frame),
                Kind::Control => self.control(&frame),
                kind => Err(FrameError::Kind { found: kind as u16 }),
            };
            if let Err(error) = outcome {
                return End::Protocol(error);
            }
        }
    }

    fn control(&self, frame: &Frame<OwnedFd>) -> Result<(), FrameError> {
        if !frame.descriptors.is_empty() {
            return Err(FrameError::SurplusDescriptors { count: frame.descriptors.len() });
        }
        match Control::decode(&frame.body)? {
            Control::Ping => {
                count(&self.link.hub.counters.control_requests);
                // A client that has gone is noticed by the next read.
                let _ = self.link.say(&Control::Pong, frame.header.id);
            }
            Control::Cancel => self.link.cancel(frame.header.id),
            _ => return Err(FrameError::OutOfTurn),
        }
        Ok(())
    }

    fn request(&self, frame: Frame<OwnedFd>) -> Result<(), FrameError> {
        let Frame { header, body, descriptors } = frame;
        let hub = &self.link.hub;
        count(&hub.counters.requests);
        let is_control = self.handler.is_control(header.tag);
        let id = header.id;
        let Some(is_cancelled) = self.link.begin(id) else {
            return Err(FrameError::Id { id });
        };
        let admission = match self.admission(is_control, header.descriptors) {
            Ok(admission) => admission,
            Err(refusal) => {
                self.link.finish(id);
                let _ = self.link.refuse(id, refusal);
                return Ok(());
            }
        };
        let responder = Responder::new(self.link, id, is_cancelled, header.descriptors, admission);
        let call = Call { tag: header.tag, body, descriptors, responder };
        let _noted = self.slate.note(call.named());
        // The drop of its responder has told the client of a panic.
        let fast = AssertUnwindSafe(|| self.handler.fast(&self.state, call));
        let call = catch_unwind(fast).unwrap_or_default();
        match call {
            None if is_control => count(&hub.counters.control_requests),
            None => count(&hub.counters.fast_requests),
            Some(call) if is_control => {
                count(&hub.counters.control_requests);
                let call = AssertUnwindSafe(|| self.handler.call(&self.state, call));
                let _ = catch_unwind(call);
            }
            Some(call) => self.hand_over(call),
        }
        Ok(())
    }

    /// What a request needs to be begun; control requests need nothing.
    fn admission(&self, is_control: bool, descriptors: u8) -> Result<Option<Admission>, Refusal> {
        if is_control {
            return Ok(None);
        }
        let hub = &self.link.hub;
        let place = self.link.place(descriptors)?;
        let Some(pass) = Gate::enter(&hub.gate) else {
            count(&hub.counters.refused_stopping);
            return Err(Refusal::Stopping);
        };
        self.link.hold(descriptors);
        Ok(Some(Admission { place: Some(place), _pass: pass }))
    }

    fn hand_over(&self, call: Call) {
        let job = Job { session: Arc::clone(&self.state), call };
        let (job, refusal) = match self.queue.try_send(job) {
            Ok(()) => return,
            Err(TrySendError::Full(job)) => {
                count(&self.link.hub.counters.shed_queue);
                let limit = self.link.hub.options.queue_max;
                (job, Refusal::Queue { limit: u32::try_from(limit).unwrap_or(u32::MAX) })
            }
            Err(TrySendError::Disconnected(job)) => (job, Refusal::Stopping),
        };
        let _ = job.call.responder.refuse(refusal);
    }
}

impl<H: Handler> Drop for Session<'_, H> {
    fn drop(&mut self) {
        self.link.close();
        self.link.cancel_all();
        let told = AssertUnwindSafe(|| self.handler.disconnected(&self.state, &self.connection));
        // Whoever panics here has been told all the same.
        let _ = catch_unwind(told);
    }
}
