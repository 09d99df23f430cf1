//! The state of a cache and everything that can happen to it, as plain data.
//!
//! No clock, no lock, no thread, no input or output: time is a parameter, in nanoseconds, and what
//! must happen outside of the lock is left in [`Debris`] and [`Machine::take_news`] for the shell.
//! [`Machine::tick`] comes before every other step of a moment, so that no step meets anything whose
//! time is over.

mod alarm;
#[cfg(all(test, not(loom)))]
mod check;
mod cycle;
#[cfg(all(test, not(loom)))]
mod cycle_model;
mod flight;
mod ledger;
#[cfg(all(test, not(loom)))]
mod model;
mod object;
mod report;
mod session;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::request::Plan;
use crate::sync::{KeyMap, NumberMap};
use crate::{
    Actor, Charges, Device, FlightError, FlightId, Key, LeaseId, ObjectId, OverBudget, Progress,
    Request, SessionId, WaiterId,
};

use alarm::Alarm;
use ledger::Ledger;

/// Nanoseconds since the cache was made.
pub(crate) type Nanos = u64;

pub(crate) struct Machine<K: Key, V, E> {
    /// What a lookup finds.
    slots: KeyMap<K, Slot<E>>,
    objects: NumberMap<ObjectId, Object<K, V>>,
    flights: NumberMap<FlightId, Flight<K>>,
    waiters: NumberMap<WaiterId, Waiter<V, E>>,
    sessions: NumberMap<SessionId, Session>,
    ledger: Ledger,
    /// The number makes two alarms of one moment different.
    alarms: BTreeMap<(Nanos, u64), Alarm<K>>,
    failures_kept: Nanos,
    counts: Counts,
    /// The last number given to anything.
    last: u64,
    news: Vec<WaiterId>,
    debris: Debris<V, E>,
}

/// What a key leads to.
enum Slot<E> {
    Ready(ObjectId),
    Building(FlightId),
    Failed { until: Nanos, serial: u64, error: FlightError<E> },
}

struct Object<K, V> {
    key: K,
    value: Arc<V>,
    charges: Charges,
    leases: u64,
    /// Whether the slot of `key` is `Ready` with this object.
    is_listed: bool,
    /// Whether it may be there without a lease.
    is_kept: bool,
    built_at: Nanos,
    used_at: Nanos,
    /// Orders uses, also those of one nanosecond.
    used: u64,
    hits: u64,
    expires_at: Option<Nanos>,
    time_to_idle: Option<Nanos>,
    alarm: Option<Nanos>,
}

struct Flight<K> {
    key: K,
    plan: Plan,
    session: SessionId,
    began_at: Nanos,
    builder: Option<Actor>,
    /// Whether the slot of `key` is `Building` with this flight: if not, its value is out of date
    /// before it is there.
    is_listed: bool,
    is_cancelled: bool,
    /// In the order in which they came. Those that have an outcome are gone from here.
    waiters: Vec<WaiterId>,
    progress: Option<Progress>,
}

struct Waiter<V, E> {
    session: SessionId,
    flight: FlightId,
    /// Who cannot do anything else until there is an outcome.
    blocked: Option<Actor>,
    outcome: Option<Outcome<V, E>>,
}

#[derive(Default)]
struct Session {
    leases: BTreeSet<LeaseId>,
    waiters: BTreeSet<WaiterId>,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    hits: u64,
    misses: u64,
    joins: u64,
    remembered_failures: u64,
    builds: u64,
    failures: u64,
    evictions: u64,
    expirations: u64,
    invalidations: u64,
}

/// A lease with what it is on.
pub(crate) struct Granted<V> {
    pub(crate) lease: LeaseId,
    pub(crate) value: Arc<V>,
}

pub(crate) enum Outcome<V, E> {
    Granted(Granted<V>),
    Failed(FlightError<E>),
    SessionClosed,
}

/// What a lookup decided. Whatever it is has happened by then.
pub(crate) enum Decision<V> {
    Hit(Granted<V>),
    Join { flight: FlightId, waiter: WaiterId },
    Build { flight: FlightId, waiter: WaiterId },
}

/// Why a lookup decided nothing.
pub(crate) enum Refusal<E> {
    Remembered(FlightError<E>),
    WouldDeadlock(Vec<String>),
    OverBudget(Arc<OverBudget>),
    SessionClosed,
}

/// Why an object was not taken in.
pub(crate) enum AdmitRefusal {
    OverBudget(Arc<OverBudget>),
    SessionClosed,
}

/// What a key leads to at some moment.
pub(crate) enum Found<E> {
    Ready(ObjectId),
    Building(FlightId),
    Failed(FlightError<E>),
    Nothing,
}

/// What the machine has let go of. Dropping it may take long or use the cache, so it is not dropped
/// under the lock.
pub(crate) struct Debris<V, E> {
    pub(crate) values: Vec<Arc<V>>,
    pub(crate) errors: Vec<FlightError<E>>,
    pub(crate) outcomes: Vec<Outcome<V, E>>,
}

impl<V, E> Default for Debris<V, E> {
    fn default() -> Self {
        Self { values: Vec::new(), errors: Vec::new(), outcomes: Vec::new() }
    }
}

impl<K: Key, V, E> Machine<K, V, E> {
    pub(crate) fn new(budgets: &[(Device, u64)], failures_kept: Nanos) -> Self {
        let mut ledger = Ledger::default();
        for (device, bytes) in budgets {
            ledger.limit(*device, Some(*bytes));
        }
        Self {
            slots: KeyMap::default(),
            objects: NumberMap::default(),
            flights: NumberMap::default(),
            waiters: NumberMap::default(),
            sessions: NumberMap::default(),
            ledger,
            alarms: BTreeMap::new(),
            failures_kept,
            counts: Counts::default(),
            last: 0,
            news: Vec::new(),
            debris: Debris::default(),
        }
    }

    /// Finds a value and leases it, or joins a build, or starts one: one step.
    pub(crate) fn lookup(
        &mut self,
        now: Nanos,
        session: SessionId,
        request: &Request<K>,
    ) -> Result<Decision<V>, Refusal<E>> {
        let found = self.find(&request.key);
        self.follow(now, session, request, found)
    }

    /// Leases what `key` leads to, if that is a value.
    pub(crate) fn lookup_ready(
        &mut self,
        now: Nanos,
        session: SessionId,
        key: &K,
    ) -> Option<Granted<V>> {
        let Some(Slot::Ready(object)) = self.slots.get(key) else { return None };
        let object = *object;
        self.sessions.contains_key(&session).then(|| self.hit(now, session, object))
    }

    fn hit(&mut self, now: Nanos, session: SessionId, object: ObjectId) -> Granted<V> {
        self.counts.hits += 1;
        self.use_of(now, object).hits += 1;
        self.grant(session, object)
    }

    /// What `key` leads to.
    pub(crate) fn find(&self, key: &K) -> Found<E> {
        match self.slots.get(key) {
            Some(Slot::Ready(object)) => Found::Ready(*object),
            Some(Slot::Building(flight)) => Found::Building(*flight),
            Some(Slot::Failed { error, .. }) => Found::Failed(error.clone()),
            None => Found::Nothing,
        }
    }

    /// Acts on what was found, which must still be so.
    pub(crate) fn follow(
        &mut self,
        now: Nanos,
        session: SessionId,
        request: &Request<K>,
        found: Found<E>,
    ) -> Result<Decision<V>, Refusal<E>> {
        if !self.sessions.contains_key(&session) {
            return Err(Refusal::SessionClosed);
        }
        match found {
            Found::Ready(object) => Ok(Decision::Hit(self.hit(now, session, object))),
            Found::Building(flight) => {
                let chain = request.actor.and_then(|actor| self.chain(actor, flight));
                if let Some(chain) = chain {
                    return Err(Refusal::WouldDeadlock(chain));
                }
                self.counts.joins += 1;
                let waiter = self.join(session, flight, request.actor);
                Ok(Decision::Join { flight, waiter })
            }
            Found::Failed(error) => {
                self.counts.remembered_failures += 1;
                Err(Refusal::Remembered(error))
            }
            Found::Nothing => {
                self.make_room(&request.plan.reserve).map_err(Refusal::OverBudget)?;
                self.counts.misses += 1;
                let flight = self.start(now, session, request);
                let waiter = self.join(session, flight, request.actor);
                Ok(Decision::Build { flight, waiter })
            }
        }
    }

    /// Whose outcome or progress has changed since the last time this was asked.
    pub(crate) fn take_news(&mut self) -> Vec<WaiterId> {
        std::mem::take(&mut self.news)
    }

    /// What is to be dropped outside of the lock.
    pub(crate) fn take_debris(&mut self) -> Debris<V, E> {
        std::mem::take(&mut self.debris)
    }

    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn object(&self, id: ObjectId) -> &Object<K, V> {
        self.objects.get(&id).expect("an object with a slot or a lease exists")
    }

    fn object_mut(&mut self, id: ObjectId) -> &mut Object<K, V> {
        self.objects.get_mut(&id).expect("an object with a slot or a lease exists")
    }
}
