//! One connection to a server, and what came over it.

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rpc_uds::{CallError, Message, PendingCall, Request};

use super::answer::{Answer, Handle, Lease};
use super::error::Error;
use super::lane::{Lane, guarded};
use crate::service::custody::{Table, Unused};
use crate::service::monitor::lock;
use crate::service::reaper::{self, Errand};
use crate::service::region::{Region, RegionError, Rights};
use crate::service::value::{Keeper, Value};
use crate::service::wire::DecodeError;
use crate::service::wire::messages::{
    CallHead, Custody, CustodyAt, Delivery, FailureEntry, LeaseEntry, Progress, RegionEntry, Told,
    answer, ask, decode, decode_all, encode, push,
};
use crate::service::wire::payload::{Packed, Unpacker};

/// How many leases are given back by one message.
const GIVEN_BACK_MAX: usize = 256;

/// How many regions may be without a user, and not given back, before the next call waits for that, and
/// how long it does: a server that does not answer at once holds calls up, but does not stop them.
const UNUSED_MAX: usize = 128;
const UNUSED_PATIENCE: Duration = Duration::from_millis(20);

pub(crate) type OnProgress = Box<dyn FnMut(&Progress) + Send>;

/// Somebody who is told of progress.
struct Ticket(Mutex<Listening>);

struct Listening {
    /// Taken out while it is called: it may close its own ticket, or make a call.
    listener: Option<OnProgress>,
    /// What came meanwhile.
    untold: VecDeque<Progress>,
}

impl Ticket {
    /// Calls the listener, or leaves it to the thread that is at that.
    fn tell(&self, progress: Progress) {
        let mut listening = lock(&self.0);
        listening.untold.push_back(progress);
        let Some(mut listener) = listening.listener.take() else { return };
        while let Some(progress) = listening.untold.pop_front() {
            drop(listening);
            if !guarded(|| listener(&progress)) {
                // It is not called again.
                listener = Box::new(|_| ());
            }
            listening = lock(&self.0);
        }
        listening.listener = Some(listener);
    }
}

pub(crate) struct Link {
    pub(crate) rpc: rpc_uds::Client,
    /// What tells the client that made it from all others.
    client: Arc<()>,
    pub(crate) table: Table,
    /// Set for a connection whose replies are handed out by callbacks.
    pub(crate) lane: Option<Lane>,
    /// Set when a call found it dead.
    pub(crate) is_dead: AtomicBool,
    tickets: Mutex<HashMap<u64, Arc<Ticket>>>,
    next_ticket: AtomicU64,
    result_bytes_max: usize,
    /// Leases that ended here, of which the server has not been told.
    ended: Mutex<Vec<LeaseEntry>>,
    /// Held by who takes them until they are sent: to find none is to come after them.
    giving_back: Mutex<()>,
}

impl Link {
    pub(crate) fn new(rpc: rpc_uds::Client, lane: Option<Lane>, client: Arc<()>) -> Self {
        let bytes = rpc.agreement().body_bytes_max.saturating_sub(super::super::HEAD_BYTES_MAX);
        Self {
            rpc,
            client,
            table: Table::default(),
            lane,
            is_dead: AtomicBool::new(false),
            tickets: Mutex::default(),
            next_ticket: AtomicU64::new(1),
            result_bytes_max: bytes as usize,
            ended: Mutex::default(),
            giving_back: Mutex::default(),
        }
    }

    /// Whether it is that client's.
    pub(super) fn is_of(&self, client: &Arc<()>) -> bool {
        Arc::ptr_eq(&self.client, client)
    }

    /// How long a payload may be.
    pub(crate) fn payload_bytes_max(&self) -> usize {
        self.result_bytes_max
    }

    /// A request for a value, ready to be sent.
    pub(crate) fn request(
        &self,
        endpoint: &str,
        packed: &Packed,
        ticket: u64,
        parent: u64,
    ) -> Result<Parcel<'_>, Error> {
        let mut regions = Vec::with_capacity(packed.regions.len());
        let mut descriptors = Vec::with_capacity(packed.regions.len());
        for region in &packed.regions {
            if !region.may_go_to(self.rpc.server().pid) {
                return Err(RegionError::Astray.into());
            }
            let (descriptor, rights) = lend_all(region)?;
            regions.push(RegionEntry::new(region, rights, true));
            descriptors.extend(descriptor);
        }
        let order = self.table.order();
        let confirmed = self.table.to_confirm();
        let order = Some(order).filter(|_| !confirmed.is_empty());
        let mut body = encode(&CallHead { endpoint, ticket, parent, regions, confirmed });
        body.extend_from_slice(&packed.bytes);
        Ok(Parcel { body, descriptors, _order: order })
    }

    /// Calls `on_progress` with what is told under the ticket, until it is [closed](Self::close_ticket).
    pub(crate) fn open_ticket(&self, on_progress: OnProgress) -> u64 {
        let ticket = self.next_ticket.fetch_add(1, Ordering::Relaxed);
        let listening = Listening { listener: Some(on_progress), untold: VecDeque::new() };
        lock(&self.tickets).insert(ticket, Arc::new(Ticket(Mutex::new(listening))));
        ticket
    }

    pub(crate) fn close_ticket(&self, ticket: u64) {
        let closed = lock(&self.tickets).remove(&ticket);
        drop(closed);
    }

    /// Closes a ticket whose call was not sent, for another try.
    pub(crate) fn take_ticket(&self, ticket: u64) -> Option<OnProgress> {
        let closed = lock(&self.tickets).remove(&ticket)?;
        lock(&closed.0).listener.take()
    }

    /// Hands out what was pushed.
    pub(crate) fn take_pushes(&self) {
        while let Ok(Some(message)) = self.rpc.try_next_push() {
            if message.tag != push::PROGRESS {
                // Said by a later release.
                continue;
            }
            let Ok(Told { ticket, progress }) = decode_all::<Told>(&message.body) else { continue };
            let listening = lock(&self.tickets).get(&ticket).cloned();
            if let Some(listening) = listening {
                listening.tell(progress);
            }
        }
    }

    /// Takes in what came for calls that were given up, and lets go of it: the server believes it
    /// delivered.
    pub(crate) fn take_late(self: &Arc<Self>) {
        while let Ok(Some(message)) = self.rpc.try_next_late() {
            // A failure needs no answer, and what cannot be read was not for us.
            drop(self.receive(message));
        }
    }

    /// The same, and reads for it if nobody else does; whether more is to come. By the reaper.
    pub(crate) fn sweep(self: &Arc<Self>) -> bool {
        if !self.is_driven() {
            // Its end is told to whoever makes the next call.
            let _ = self.rpc.try_receive();
        }
        self.take_late();
        self.rpc.awaits_late().unwrap_or(false)
    }

    /// Waits for the reaper if it is far behind those who drop: each region that is not given back
    /// takes a descriptor here. Not for who may not wait.
    pub(super) fn let_reaper_catch_up(self: &Arc<Self>, deadline: Option<Instant>) {
        if self.table.waiting() > UNUSED_MAX {
            let until = Instant::now() + UNUSED_PATIENCE;
            let until = deadline.map_or(until, |deadline| deadline.min(until));
            reaper::settle(vec![Arc::downgrade(self)], Some(until));
        }
    }

    /// Says that a call was given up. What it brings, if it was under way already, is let go of.
    pub(crate) fn gave_up(self: &Arc<Self>) {
        reaper::send(Errand::Late(Arc::downgrade(self)));
    }

    /// The value in a reply, with what it hangs on.
    pub(crate) fn receive(self: &Arc<Self>, message: Message) -> Result<Answer, Error> {
        let Message { tag, body, descriptors, .. } = message;
        self.check(tag, &body)?;
        let (delivery, payload) = decode::<Delivery>(&body)?;
        let lease = delivery.lease.map(|entry| Lease::new(self, entry));
        let (link, serial) = (Arc::downgrade(self), delivery.serial);
        let maker = self.rpc.server().pid;
        let regions = self.table.receive(&link, serial, &delivery.regions, descriptors)?;
        let regions: Vec<Region> = regions.into_iter().map(|it| it.made_by(maker)).collect();
        let keeper = lease.clone().map(|lease| Arc::new(lease) as Keeper);
        let mut unpacker =
            Unpacker::open(payload, &regions, keeper.as_ref(), self.rpc.server().pid)?;
        let value = unpacker.value()?;
        unpacker.finish()?;
        let handle = delivery.handle.map(|it| Handle { object: it.object, server: it.server });
        Ok(Answer { value, handle, lease })
    }

    /// The structure in a reply.
    pub(crate) fn read<T: serde::de::DeserializeOwned>(
        &self,
        message: &Message,
    ) -> Result<T, Error> {
        self.check(message.tag, &message.body)?;
        Ok(decode_all(&message.body)?)
    }

    /// The value in a reply that has no regions.
    pub(crate) fn read_value(&self, message: &Message) -> Result<Value, Error> {
        self.check(message.tag, &message.body)?;
        let mut unpacker = Unpacker::open(&message.body, &[], None, None)?;
        let value = unpacker.value()?;
        unpacker.finish()?;
        Ok(value)
    }

    #[expect(clippy::unused_self, reason = "what is said depends on the connection")]
    fn check(&self, tag: u16, body: &[u8]) -> Result<(), Error> {
        match tag {
            answer::DONE => Ok(()),
            answer::FAILED => Err(Error::Failed(decode_all::<FailureEntry>(body)?.into())),
            tag => Err(DecodeError::Code {
                what: crate::service::wire::PayloadKind::Tag,
                found: tag.into(),
            }
            .into()),
        }
    }

    /// Whether an event loop reads, and is not to be forestalled.
    pub(crate) fn is_driven(&self) -> bool {
        self.lane.as_ref().is_some_and(Lane::is_driven)
    }

    /// Notes a lease that has ended. It is given back ahead of the next request, or by the reaper.
    pub(super) fn ended(self: Arc<Self>, lease: LeaseEntry) {
        lock(&self.ended).push(lease);
        reaper::send(Errand::Leases(self));
    }

    /// Takes back the word that leases were given back: the server has not heard it, or may not have.
    /// To hear it twice does no harm.
    pub(crate) fn give_back_again(&self, leases: Vec<LeaseEntry>) {
        lock(&self.ended).extend(leases);
    }

    /// Gives leases back that have ended, without waiting; `None` if there are none.
    pub(crate) fn start_giving_back(
        &self,
    ) -> Result<Option<(PendingCall, Vec<LeaseEntry>)>, CallError> {
        let _giving_back = lock(&self.giving_back);
        let leases = {
            let mut ended = lock(&self.ended);
            let rest = ended.len().saturating_sub(GIVEN_BACK_MAX);
            ended.split_off(rest)
        };
        if leases.is_empty() {
            return Ok(None);
        }
        let body = encode(&leases);
        match self.rpc.start_now(Request::new(ask::RELEASE_LEASES, &body)) {
            Ok(call) => Ok(Some((call, leases))),
            Err(error) => {
                self.give_back_again(leases);
                Err(error)
            }
        }
    }

    /// Gives back what has ended ahead of a request that is sent next: a server that is short of room
    /// is to know of it then. What is returned is kept until that is answered, which is later.
    pub(super) fn give_back_ahead(&self) -> Option<PendingCall> {
        // A socket that takes nothing now is the reaper's concern.
        Some(self.start_giving_back().ok()??.0)
    }

    /// Asks to be forgotten as a holder of regions without users, without waiting. By the reaper.
    pub(crate) fn start_forgetting(&self, unused: &[Custody]) -> Result<Forgetting, CallError> {
        // Before the lock: what goes is unmapped after it.
        let (mut asked, mut dropped, mut later) = (Vec::new(), Vec::new(), Vec::new());
        let order = self.table.order();
        for custody in unused {
            match self.table.unused(*custody) {
                Unused::Ask(at) => asked.push(at),
                Unused::Dropped(region) => dropped.push(region),
                Unused::Later => later.push(*custody),
                Unused::No => {}
            }
        }
        if asked.is_empty() {
            return Ok(Forgetting { asked: None, later });
        }
        let started = self.rpc.start_now(Request::new(ask::FORGET, &encode(&asked)));
        drop(order);
        Ok(Forgetting { asked: Some((started?, asked)), later })
    }

    /// The server's answer to that; those that it is to be asked for again.
    pub(crate) fn forgotten(&self, answer: &Message, asked: Vec<CustodyAt>) -> Vec<Custody> {
        // What cannot be read was said by no server of ours.
        let forgotten = self.read::<Vec<bool>>(answer).unwrap_or_default();
        let mut again = Vec::new();
        for (at, is_forgotten) in asked.into_iter().zip(forgotten) {
            if is_forgotten {
                drop(self.table.forgotten(at));
            } else {
                again.push(at.custody);
            }
        }
        again
    }

    /// Whether the end of the connection was noticed.
    pub(crate) fn is_lost(&self) -> bool {
        self.is_dead.load(Ordering::Acquire) || self.rpc.lost().is_ok_and(|lost| lost.is_some())
    }

    pub(crate) fn regions(&self) -> usize {
        self.table.len()
    }
}

/// What came of asking to be forgotten.
pub(crate) struct Forgetting {
    /// What was sent, if there was anything to ask.
    pub(crate) asked: Option<(PendingCall, Vec<CustodyAt>)>,
    /// What is to be asked for another time.
    pub(crate) later: Vec<Custody>,
}

/// Writable, if this side may give that away; memory that came read-only goes on so.
fn lend_all(region: &Region) -> Result<(Option<Arc<OwnedFd>>, Rights), Error> {
    if region.rights() == Rights::Write
        && let Ok(descriptor) = region.lend(Rights::Write)
    {
        return Ok((descriptor, Rights::Write));
    }
    Ok((region.lend(Rights::Read)?, Rights::Read))
}

/// A request's bytes and descriptors.
pub(crate) struct Parcel<'a> {
    pub(crate) body: Vec<u8>,
    descriptors: Vec<Arc<OwnedFd>>,
    /// Until it is sent.
    _order: Option<MutexGuard<'a, ()>>,
}

impl Parcel<'_> {
    pub(crate) fn plain(body: Vec<u8>) -> Self {
        Self { body, descriptors: Vec::new(), _order: None }
    }

    pub(crate) fn with<R>(self, tag: u16, send: impl FnOnce(Request<'_>) -> R) -> R {
        let descriptors: Vec<BorrowedFd<'_>> =
            self.descriptors.iter().map(|fd| fd.as_fd()).collect();
        let request = Request::new(tag, &self.body).with_descriptors(&descriptors);
        // These replies bring a lease, and regions: somebody has to give them back.
        let is_delivered = matches!(tag, ask::CALL | ask::TASK_RESULT);
        send(if is_delivered { request.keeping_late_reply() } else { request })
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("server", &self.rpc.server()).finish_non_exhaustive()
    }
}
