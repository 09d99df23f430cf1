//! Builds in progress: joining, leaving, and the three ways to end.

use std::sync::Arc;

use super::alarm::Alarm;
use super::ledger::Standing;
use super::{Flight, Machine, Nanos, Outcome, Slot, Waiter};
use crate::{
    Actor, Charges, Finished, FlightError, FlightId, Invalidated, Key, Progress, Request,
    Retention, SessionId, Unwanted, WaiterId,
};

impl<K: Key, V, E> Machine<K, V, E> {
    /// Starts a build, for which there is room.
    pub(super) fn start(
        &mut self,
        now: Nanos,
        session: SessionId,
        request: &Request<K>,
    ) -> FlightId {
        let id = FlightId::from_raw(self.next());
        self.ledger.add(Standing::Building, &request.plan.reserve);
        let flight = Flight {
            key: request.key.clone(),
            plan: request.plan.clone(),
            session,
            began_at: now,
            builder: None,
            is_listed: true,
            is_cancelled: false,
            waiters: Vec::new(),
            progress: None,
        };
        self.flights.insert(id, flight);
        self.slots.insert(request.key.clone(), Slot::Building(id));
        id
    }

    /// Waits for a flight, in a session that is open.
    pub(super) fn join(
        &mut self,
        session: SessionId,
        flight: FlightId,
        blocked: Option<Actor>,
    ) -> WaiterId {
        let id = WaiterId(self.next());
        self.waiters.insert(id, Waiter { session, flight, blocked, outcome: None });
        self.flights.get_mut(&flight).expect("a flight that is joined exists").waiters.push(id);
        let session = self.sessions.get_mut(&session).expect("a session that waits is open");
        session.waiters.insert(id);
        id
    }

    /// Who runs the build from now on.
    pub(crate) fn build_as(&mut self, flight: FlightId, builder: Option<Actor>) {
        if let Some(flight) = self.flights.get_mut(&flight) {
            flight.builder = builder;
        }
    }

    /// Says that `actor` can do nothing but wait, unless that would be for ever.
    pub(crate) fn block(&mut self, waiter: WaiterId, actor: Actor) -> Result<(), Vec<String>> {
        let Some(flight) = self.waiters.get(&waiter).map(|waiter| waiter.flight) else {
            return Ok(());
        };
        if let Some(chain) = self.chain(actor, flight) {
            return Err(chain);
        }
        if let Some(waiter) = self.waiters.get_mut(&waiter) {
            waiter.blocked = Some(actor).filter(|_| !cfg!(st_mutant = "blocked_unseen"));
        }
        Ok(())
    }

    /// Says that the waiter no longer blocks anybody.
    pub(crate) fn unblock(&mut self, waiter: WaiterId, before: Option<Actor>) {
        if let Some(waiter) = self.waiters.get_mut(&waiter) {
            waiter.blocked = before;
        }
    }

    /// Whether [`collect`](Self::collect) has something to give.
    pub(crate) fn is_settled(&self, waiter: WaiterId) -> bool {
        self.waiters.get(&waiter).is_none_or(|waiter| waiter.outcome.is_some())
    }

    /// Takes the outcome, if there is one; the waiter is gone with it.
    pub(crate) fn collect(&mut self, waiter: WaiterId) -> Option<Outcome<V, E>> {
        self.waiters.get(&waiter)?.outcome.as_ref()?;
        let settled = self.waiters.remove(&waiter)?;
        if let Some(session) = self.sessions.get_mut(&settled.session) {
            session.waiters.remove(&waiter);
        }
        settled.outcome
    }

    /// Ends a wait, with whatever it may have got in the meantime.
    pub(crate) fn leave(&mut self, now: Nanos, waiter: WaiterId) {
        let Some(left) = self.waiters.remove(&waiter) else { return };
        if let Some(session) = self.sessions.get_mut(&left.session) {
            session.waiters.remove(&waiter);
        }
        if let Some(flight) = self.flights.get_mut(&left.flight) {
            flight.waiters.retain(|other| *other != waiter);
        }
        if let Some(Outcome::Granted(granted)) = &left.outcome {
            self.release(now, left.session, granted.lease);
        }
        self.debris.outcomes.extend(left.outcome);
    }

    /// Notes what the builder tells.
    pub(crate) fn report(&mut self, flight: FlightId, done: u64, total: u64, note: String) {
        let Some(flight) = self.flights.get_mut(&flight) else { return };
        let serial = flight.progress.as_ref().map_or(0, |progress| progress.serial) + 1;
        flight.progress = Some(Progress { done, total, note, serial });
        self.news.extend(&flight.waiters);
    }

    /// The latest that the builder told.
    pub(crate) fn progress(&self, flight: FlightId) -> Option<&Progress> {
        self.flights.get(&flight)?.progress.as_ref()
    }

    /// Whether the builder may stop. If so the build is over for those who come from now on.
    pub(crate) fn is_cancelled(&mut self, id: FlightId) -> bool {
        let Some(flight) = self.flights.get(&id) else { return true };
        let is_unwanted = flight.plan.unwanted == Unwanted::Cancel && flight.waiters.is_empty();
        let is_cancelled = flight.is_cancelled || is_unwanted;
        if is_cancelled {
            self.cancel(id);
        }
        is_cancelled
    }

    /// Asks the builder to stop. Those who wait get whatever it ends with; others start anew.
    pub(crate) fn cancel(&mut self, id: FlightId) -> bool {
        let Some(flight) = self.flights.get_mut(&id) else { return false };
        flight.is_cancelled = true;
        self.unlist_flight(id);
        true
    }

    /// Ends a build with a value: takes it in and leases it to everybody who waits, in one step.
    /// `None` if the build has ended before.
    pub(crate) fn finish(
        &mut self,
        now: Nanos,
        id: FlightId,
        value: Arc<V>,
        charges: Charges,
    ) -> Option<Result<Finished, FlightError<E>>> {
        let Some(flight) = self.flights.get(&id) else {
            self.debris.values.push(value);
            return None;
        };
        let is_kept = flight.plan.retention == Retention::Keep;
        if flight.waiters.is_empty() && !(flight.is_listed && is_kept) {
            self.counts.builds += 1;
            self.land(id);
            self.debris.values.push(value);
            return Some(Ok(Finished { object: None, delivered: 0, is_listed: false }));
        }
        // What was reserved is the builder's own room.
        let reserve = std::mem::take(&mut self.flight_mut(id).plan.reserve);
        self.ledger.remove(Standing::Building, &reserve);
        if let Err(error) = self.make_room(&charges) {
            self.debris.values.push(value);
            let error = FlightError::OverBudget(error);
            self.end(now, id, &error);
            return Some(Err(error));
        }
        self.counts.builds += 1;
        let flight = self.land(id);
        let is_listed = flight.is_listed || cfg!(st_mutant = "finish_forgets_invalidation");
        let object = self.insert(now, flight.key.clone(), value, charges);
        if is_listed {
            self.slots.insert(flight.key, Slot::Ready(object));
            let after = |time: std::time::Duration| now.saturating_add(nanos(time));
            let listed = self.object_mut(object);
            listed.is_listed = true;
            listed.is_kept = is_kept;
            listed.expires_at = flight.plan.time_to_live.map(after);
            listed.time_to_idle = flight.plan.time_to_idle.map(nanos);
            self.rearm(object);
        }
        let delivered = flight.waiters.len();
        for waiter in flight.waiters {
            let session = self.waiters.get(&waiter).map(|waiter| waiter.session);
            let session = session.expect("who waits for a flight exists");
            let granted = self.grant(session, object);
            self.settle(waiter, Outcome::Granted(granted));
        }
        Some(Ok(Finished { object: Some(object), delivered, is_listed }))
    }

    /// Ends a build without a value. A failure or a panic is remembered for a while.
    pub(crate) fn end(&mut self, now: Nanos, id: FlightId, error: &FlightError<E>) -> bool {
        if !self.flights.contains_key(&id) {
            return false;
        }
        self.counts.failures += 1;
        let flight = self.land(id);
        let is_remembered = matches!(error, FlightError::Failed(_) | FlightError::Panicked { .. });
        if is_remembered && flight.is_listed && self.failures_kept > 0 {
            let (until, serial) = (now.saturating_add(self.failures_kept), self.next());
            self.alarms.insert((until, serial), Alarm::Failure(flight.key.clone()));
            self.slots.insert(flight.key, Slot::Failed { until, serial, error: error.clone() });
        }
        for waiter in flight.waiters {
            self.settle(waiter, Outcome::Failed(error.clone()));
        }
        true
    }

    /// Ends a build whose builder is gone.
    pub(crate) fn abandon(&mut self, now: Nanos, id: FlightId) -> bool {
        let Some(flight) = self.flights.get(&id) else { return false };
        let error = FlightError::Abandoned { key: flight.key.name().into() };
        self.end(now, id, &error)
    }

    /// Makes what `key` leads to out of date. Leases and waits go on.
    pub(crate) fn invalidate(&mut self, key: &K) -> Invalidated {
        match self.slots.get(key) {
            Some(Slot::Ready(object)) => {
                let object = *object;
                self.counts.invalidations += 1;
                self.unlist(object);
                Invalidated { entries: 1, builds: 0 }
            }
            Some(Slot::Building(flight)) => {
                let flight = *flight;
                self.unlist_flight(flight);
                Invalidated { entries: 0, builds: 1 }
            }
            Some(Slot::Failed { .. }) => {
                self.forget_failure(key);
                Invalidated::default()
            }
            None => Invalidated::default(),
        }
    }

    /// Makes everything of a group out of date.
    pub(crate) fn invalidate_group(&mut self, group: &K::Group) -> Invalidated {
        let keys = self.slots.keys().filter(|key| key.group() == *group);
        let keys: Vec<K> = keys.cloned().collect();
        let mut sum = Invalidated::default();
        for key in keys {
            let hit = self.invalidate(&key);
            sum.entries += hit.entries;
            sum.builds += hit.builds;
        }
        sum
    }

    /// Gives a waiter its outcome.
    pub(super) fn settle(&mut self, waiter: WaiterId, outcome: Outcome<V, E>) {
        let settled = self.waiters.get_mut(&waiter).expect("who waits for a flight exists");
        settled.outcome = Some(outcome);
        settled.blocked = None;
        self.news.push(waiter);
    }

    /// Takes a flight out: its reservation is free, its key leads nowhere.
    fn land(&mut self, id: FlightId) -> Flight<K> {
        let flight = self.flights.remove(&id).expect("a flight lands once");
        self.ledger.remove(Standing::Building, &flight.plan.reserve);
        if flight.is_listed {
            self.slots.remove(&flight.key);
        }
        flight
    }

    fn unlist_flight(&mut self, id: FlightId) {
        let flight = self.flights.get_mut(&id).expect("a flight taken off the list exists");
        if flight.is_listed {
            flight.is_listed = false;
            self.slots.remove(&flight.key);
        }
    }

    fn flight_mut(&mut self, id: FlightId) -> &mut Flight<K> {
        self.flights.get_mut(&id).expect("the flight exists")
    }
}

fn nanos(time: std::time::Duration) -> Nanos {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
