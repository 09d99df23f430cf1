//! One connection of a client: sending, reading and handing out.

use std::collections::VecDeque;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use super::{Answer, Message, Progress};
use crate::control::Control;
use crate::decoder::Decoder;
use crate::desk::{Delivery, Desk, Outcome};
use crate::error::{CallError, Forked, FrameError, Lost};
use crate::frame::{Frame, Header, Kind};
use crate::handshake::Agreement;
use crate::peer::Credentials;
use crate::sync::lock;
use crate::sys::{Generation, UnsharedFd};
use crate::transport::{self, Received};

/// A blocking read returns this often, so that a cancellation by another thread, or the closure that
/// interrupts a wait, is noticed by whoever reads. Set as the socket's receive timeout.
pub(super) const SLICE: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(crate) struct Connection {
    pub(super) socket: UnsharedFd,
    pub(super) generation: Generation,
    pub(super) desk: Desk<Answer>,
    pub(super) server: Credentials,
    pub(super) agreement: Agreement,
    /// Held by the leader.
    decoder: Mutex<Decoder<OwnedFd>>,
    outgoing: Mutex<Outgoing>,
    /// Set if there is a watcher.
    pub(super) kick: OnceLock<UnsharedFd>,
    goodbye: AtomicBool,
    late_replies: AtomicU64,
    /// Late replies that somebody wants all the same.
    late: Mutex<VecDeque<Message>>,
}

/// What the socket did not take at once. A frame that was begun is finished before the next one.
#[derive(Debug, Default)]
struct Outgoing {
    left: Vec<u8>,
    at: usize,
    /// All bytes ever put into `left`, and all ever sent from it.
    put: u64,
    sent: u64,
}

impl Outgoing {
    fn keep(&mut self, parts: [&[u8]; 2], from: usize) -> u64 {
        let [header, body] = parts;
        let in_body = from.saturating_sub(header.len());
        self.left.extend_from_slice(&header[from.min(header.len())..]);
        self.left.extend_from_slice(&body[in_body..]);
        self.put = self.sent + (self.left.len() - self.at) as u64;
        self.put
    }

    fn flush(&mut self, socket: BorrowedFd<'_>) -> Result<(), Errno> {
        while self.at < self.left.len() {
            match transport::send(socket, [&self.left[self.at..], &[]], &[])? {
                Some(count) => {
                    self.at += count;
                    self.sent += count as u64;
                }
                None => return Ok(()),
            }
        }
        self.left.clear();
        self.at = 0;
        Ok(())
    }
}

impl Connection {
    pub(super) fn new(
        socket: UnsharedFd,
        server: Credentials,
        agreement: Agreement,
        decoder: Decoder<OwnedFd>,
        pushes_max: usize,
    ) -> Self {
        Self {
            socket,
            generation: Generation::current(),
            desk: Desk::new(pushes_max),
            server,
            agreement,
            decoder: Mutex::new(decoder),
            outgoing: Mutex::new(Outgoing::default()),
            kick: OnceLock::new(),
            goodbye: AtomicBool::new(false),
            late_replies: AtomicU64::new(0),
            late: Mutex::default(),
        }
    }

    /// Sends a whole frame, or nothing, or loses the connection. At the deadline a frame that was
    /// begun, which `is_begun` tells, stays queued: who sends next sends its rest first.
    pub(super) fn send(
        &self,
        header: Header,
        body: &[u8],
        descriptors: &[BorrowedFd<'_>],
        deadline: Option<Instant>,
        is_begun: &mut bool,
    ) -> Result<(), CallError> {
        self.agreement.limits().check(body.len(), descriptors.len()).map_err(CallError::TooMuch)?;
        let socket = self.socket.get()?;
        let header = header.encode();
        let parts = [&header[..], body];
        let begun = Instant::now();
        let mut rest = None;
        loop {
            {
                let mut outgoing = lock(&self.outgoing);
                outgoing.flush(socket).map_err(|errno| self.broken(errno))?;
                match rest {
                    Some(end) if outgoing.sent >= end => return Ok(()),
                    None if outgoing.left.is_empty() => {
                        match transport::send(socket, parts, descriptors) {
                            Ok(Some(count)) if count == header.len() + body.len() => return Ok(()),
                            Ok(Some(count)) => {
                                rest = Some(outgoing.keep(parts, count));
                                *is_begun = true;
                            }
                            Ok(None) => {}
                            Err(errno)
                                if !descriptors.is_empty()
                                    && transport::concerns_descriptors(errno) =>
                            {
                                return Err(CallError::Descriptors { code: errno.raw_os_error() });
                            }
                            Err(errno) => return Err(self.broken(errno)),
                        }
                    }
                    // Its own rest, or somebody else's, is still to go.
                    _ => {}
                }
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(CallError::TimedOut { waited: begun.elapsed() });
            }
            // An error here is an error of the next send as well.
            let _ = transport::wait_for(socket, PollFlags::OUT, deadline);
            if let Some(lost) = self.desk.lost() {
                return Err(CallError::Lost(lost));
            }
        }
    }

    /// Tells the server without waiting. What the socket does not take goes with the next frame.
    pub(super) fn tell(&self, control: &Control, id: u64) {
        let Ok(socket) = self.socket.get() else { return };
        let (header, body) = control.frame(id);
        let mut outgoing = lock(&self.outgoing);
        let sent = outgoing.flush(socket).and_then(|()| {
            if outgoing.left.is_empty() {
                Ok(transport::send(socket, [&header, &body], &[])?.unwrap_or(0))
            } else {
                Ok(0)
            }
        });
        match sent {
            Ok(sent) if sent < header.len() + body.len() => {
                outgoing.keep([&header, &body], sent);
            }
            Ok(_) => {}
            Err(errno) => {
                drop(outgoing);
                // Whoever makes the next call is told.
                let _ = self.broken(errno);
            }
        }
    }

    /// Sending failed: what the server said last may tell why.
    fn broken(&self, errno: Errno) -> CallError {
        if self.desk.lead_if_free() {
            let mut tally = Progress::default();
            let lost = loop {
                match self.read(false, None, &mut tally) {
                    Ok((Received::Bytes(_), _)) => {}
                    Ok(_) if errno == Errno::PIPE => break Lost::Closed,
                    Ok(_) => break Lost::Kernel { code: errno.raw_os_error() },
                    Err(lost) => break lost,
                }
            };
            self.lose(lost);
            self.desk.step_down();
        }
        if let Ok(socket) = self.socket.get() {
            // Whatever the error was, the server is not to wait for the rest of a frame. This also
            // ends the reading of whoever reads.
            let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Both);
        }
        CallError::Lost(self.desk.lost().unwrap_or(Lost::Closed))
    }

    /// Reads once and hands out whatever is whole. By the leader. The reply to `own` is returned.
    pub(super) fn read(
        &self,
        wait: bool,
        own: Option<u64>,
        tally: &mut Progress,
    ) -> Result<(Received, Option<Answer>), Lost> {
        let socket = self.socket.get().map_err(|Forked| Lost::ClosedHere)?;
        let mut decoder = lock(&self.decoder);
        let received = transport::receive(socket, &mut decoder, wait)?;
        if received == Received::End {
            return Err(self.end(&decoder));
        }
        let mut mine = None;
        if matches!(received, Received::Bytes(_)) {
            while let Some(frame) = decoder.next().map_err(Lost::Protocol)? {
                self.hand_out(frame, own, &mut mine, tally)?;
            }
        }
        Ok((received, mine))
    }

    /// Hands out what the handshake has read beyond itself.
    pub(super) fn hand_out_read_ahead(&self) -> Result<(), Lost> {
        let mut decoder = lock(&self.decoder);
        while let Some(frame) = decoder.next().map_err(Lost::Protocol)? {
            self.hand_out(frame, None, &mut None, &mut Progress::default())?;
        }
        Ok(())
    }

    fn end(&self, decoder: &Decoder<OwnedFd>) -> Lost {
        if decoder.is_within_a_frame() {
            Lost::Protocol(FrameError::Cut)
        } else if self.goodbye.load(Ordering::Relaxed) {
            Lost::Stopped
        } else {
            Lost::Closed
        }
    }

    fn hand_out(
        &self,
        frame: Frame<OwnedFd>,
        own: Option<u64>,
        mine: &mut Option<Answer>,
        tally: &mut Progress,
    ) -> Result<(), Lost> {
        let Frame { header, body, descriptors } = frame;
        let message = |body| Message { tag: header.tag, body, descriptors };
        let answer = match header.kind {
            Kind::Reply => Ok(message(body)),
            Kind::Push => {
                tally.pushes += 1;
                let pushed = self.desk.push(Ok(message(body)));
                if pushed.kick {
                    self.kick();
                }
                return Ok(());
            }
            Kind::Control => match Control::decode(&body).map_err(Lost::Protocol)? {
                Control::Pong => Ok(message(Vec::new())),
                Control::Refusal(refusal) if header.id == 0 => return Err(Lost::Refused(refusal)),
                Control::Refusal(refusal) => Err(refusal),
                Control::Goodbye => {
                    self.goodbye.store(true, Ordering::Relaxed);
                    return Ok(());
                }
                _ => return Err(Lost::Protocol(FrameError::OutOfTurn)),
            },
            Kind::Request => {
                return Err(Lost::Protocol(FrameError::Kind { found: header.kind as u16 }));
            }
        };
        if own == Some(header.id) && mine.is_none() {
            tally.replies += 1;
            *mine = Some(answer);
            return Ok(());
        }
        match self.desk.deliver(header.id, answer) {
            Delivery::Taken => tally.replies += 1,
            Delivery::Unwanted(_) => {
                self.late_replies.fetch_add(1, Ordering::Relaxed);
            }
            Delivery::Late(answer) => {
                self.late_replies.fetch_add(1, Ordering::Relaxed);
                if let Ok(message) = answer {
                    self.keep_late(message);
                }
            }
            Delivery::NeverAsked(_) => {
                return Err(Lost::Protocol(FrameError::Id { id: header.id }));
            }
        }
        Ok(())
    }

    /// Reads for everybody until there is something for `id`, or the deadline.
    pub(super) fn lead(
        &self,
        id: u64,
        wants_push: bool,
        deadline: Option<Instant>,
    ) -> Result<Option<Outcome<Answer>>, Lost> {
        let mut tally = Progress::default();
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let is_short = left.is_some_and(|left| left < SLICE);
            if is_short {
                let socket = self.socket.get().map_err(|Forked| Lost::ClosedHere)?;
                // An error here is an error of the read as well.
                let _ = transport::wait_for(socket, PollFlags::IN, deadline);
            }
            let own = (!wants_push).then_some(id);
            let (received, mine) = match self.read(!is_short, own, &mut tally) {
                Ok(read) => read,
                Err(lost) => {
                    let lost = self.lose(lost);
                    // A reply that came just before the end counts.
                    let outcome = self.desk.leave(id, true);
                    return outcome.map_or(Err(lost), |outcome| Ok(Some(outcome)));
                }
            };
            if let Some(answer) = mine {
                self.desk.leave(id, true);
                return Ok(Some(Outcome::Here(answer)));
            }
            if let Some(outcome) = self.desk.outcome(id) {
                self.desk.step_down();
                return Ok(Some(outcome));
            }
            let is_late = left.is_some_and(|left| left.is_zero());
            if is_late || received == Received::Nothing {
                // The seat remains: the caller looks at its clock and comes back, or leaves.
                self.desk.step_down();
                return Ok(None);
            }
        }
    }

    /// Reads what is there, if nobody else reads.
    pub(super) fn receive_now(&self) -> Result<Progress, CallError> {
        self.generation.check()?;
        let mut tally = Progress::default();
        if let Some(lost) = self.desk.lost() {
            return Err(CallError::Lost(lost));
        }
        if !self.desk.lead_if_free() {
            return Ok(tally);
        }
        let outcome = loop {
            match self.read(false, None, &mut tally) {
                Ok((Received::Bytes(_), _)) => {}
                Ok(_) => break Ok(tally),
                Err(lost) => {
                    break Err(CallError::Lost(self.lose(lost)));
                }
            }
        };
        self.desk.step_down();
        outcome
    }

    /// Keeps a reply that came, or was fetched, too late for whoever waited.
    pub(super) fn keep_late(&self, message: Message) {
        lock(&self.late).push_back(message);
    }

    pub(super) fn take_late(&self) -> Option<Message> {
        lock(&self.late).pop_front()
    }

    pub(super) fn late_replies(&self) -> u64 {
        self.late_replies.load(Ordering::Relaxed)
    }

    fn lose(&self, lost: Lost) -> Lost {
        let first = self.desk.lose(lost);
        self.kick();
        first
    }

    /// Wakes the watcher, if there is one, from its poll.
    fn kick(&self) {
        if let Some(Ok(kick)) = self.kick.get().map(UnsharedFd::get) {
            // A counter that is full is readable as well.
            let _ = rustix::io::write(kick, &1_u64.to_ne_bytes());
        }
    }

    /// Waits until something comes or the watcher is kicked. By the watcher.
    pub(super) fn poll(&self) {
        let (Ok(socket), Some(Ok(kick))) =
            (self.socket.get(), self.kick.get().map(UnsharedFd::get))
        else {
            return;
        };
        let mut polled = [
            PollFd::from_borrowed_fd(socket, PollFlags::IN),
            PollFd::from_borrowed_fd(kick, PollFlags::IN),
        ];
        // Errors and ends make the socket readable: they are found by reading.
        let _ = transport::poll_until(&mut polled, None);
        // What is queued is looked at next, whatever it was; without a kick there is nothing to read.
        let _ = rustix::io::read(kick, &mut [0; 8]);
    }

    /// Ends the connection, and every wait on it. In the process that made it only.
    pub(super) fn close(&self) {
        self.lose(Lost::ClosedHere);
        if let Ok(socket) = self.socket.get() {
            // Wakes whoever reads or polls. It fails only if the peer was first.
            let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Both);
        }
    }
}
