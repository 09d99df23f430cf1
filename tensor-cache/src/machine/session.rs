//! Sessions: who holds leases and waits.

use super::{Machine, Nanos, Outcome, Session};
use crate::{FlightId, Key, LeaseId, ObjectId, Released, SessionId};

impl<K: Key, V, E> Machine<K, V, E> {
    pub(crate) fn open_session(&mut self) -> SessionId {
        let id = SessionId::from_raw(self.next());
        self.sessions.insert(id, Session::default());
        id
    }

    /// Ends a session: its waits, its leases, and the builds that are bound to it. Tells what became
    /// of each object that it had leases on; `None` if there is no such session.
    pub(crate) fn close_session(&mut self, now: Nanos, id: SessionId) -> Option<Vec<Released>> {
        let session = self.sessions.remove(&id)?;
        for waiter in session.waiters {
            let known = self.waiters.get_mut(&waiter).expect("a session's waiter exists");
            let flight = known.flight;
            self.debris.outcomes.extend(known.outcome.take());
            if let Some(flight) = self.flights.get_mut(&flight) {
                flight.waiters.retain(|other| *other != waiter);
            }
            if !cfg!(st_mutant = "closing_wakes_nobody") {
                self.settle(waiter, Outcome::SessionClosed);
            }
        }
        let bound = self
            .flights
            .iter()
            .filter(|(_, flight)| flight.session == id && flight.plan.is_bound_to_session);
        let mut bound: Vec<FlightId> = bound.map(|(flight, _)| *flight).collect();
        bound.sort_unstable();
        for flight in bound {
            self.abandon(now, flight);
        }
        let mut released: Vec<Released> = Vec::new();
        for lease in session.leases {
            let left = self.drop_lease(now, lease.object);
            match released.last_mut().filter(|last| last.object == lease.object) {
                Some(last) => *last = left,
                None => released.push(left),
            }
        }
        Some(released)
    }

    /// The leases of a session, by object; `None` if there is no such session.
    pub(crate) fn leases_of(&self, session: SessionId) -> Option<Vec<LeaseId>> {
        Some(self.sessions.get(&session)?.leases.iter().copied().collect())
    }

    /// Who has leases on an object.
    pub(super) fn holders_of(&self, object: ObjectId) -> Vec<SessionId> {
        let range = LeaseId { object, serial: 0 }..=LeaseId { object, serial: u64::MAX };
        let has = |session: &Session| session.leases.range(range.clone()).next().is_some();
        let holders = self.sessions.iter().filter(|(_, session)| has(session));
        let mut holders: Vec<SessionId> = holders.map(|(id, _)| *id).collect();
        holders.sort_unstable();
        holders
    }
}
