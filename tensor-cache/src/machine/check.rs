//! What is true after every step, whatever the step was.

use super::ledger::Standing;
use super::{Machine, Slot};
use crate::{Device, Key, LeaseId};

impl<K: Key, V, E> Machine<K, V, E> {
    pub(super) fn check(&self) {
        self.check_bytes();
        self.check_slots();
        self.check_leases();
        self.check_waiters();
        self.check_alarms();
    }

    /// The books say what the objects and flights say.
    fn check_bytes(&self) {
        for (device, room) in self.ledger.uses() {
            let sum = |standing| self.bytes(device, standing);
            assert_eq!(room.leased, sum(Standing::Leased), "leased bytes on {device}");
            assert_eq!(room.idle, sum(Standing::Idle), "idle bytes on {device}");
            assert_eq!(room.building, sum(Standing::Building), "reserved bytes on {device}");
            if let Some(limit) = room.limit.filter(|_| room.idle > 0) {
                let total = room.leased + room.idle + room.building;
                assert!(total <= limit, "{total} of {limit} bytes on {device}, some of them idle");
            }
        }
    }

    fn bytes(&self, device: Device, standing: Standing) -> u64 {
        if standing == Standing::Building {
            let reserves = self.flights.values().map(|flight| &flight.plan.reserve);
            return reserves.map(|reserve| reserve.bytes_on(device)).sum();
        }
        let is_leased = standing == Standing::Leased;
        let objects = self.objects.values().filter(|object| (object.leases > 0) == is_leased);
        objects.map(|object| object.charges.bytes_on(device)).sum()
    }

    /// Slots lead to what is listed, and to nothing else.
    fn check_slots(&self) {
        for (key, slot) in &self.slots {
            match slot {
                Slot::Ready(id) => {
                    assert!(self.objects[id].is_listed);
                    assert!(self.objects[id].key == *key);
                }
                Slot::Building(id) => {
                    assert!(self.flights[id].is_listed);
                    assert!(self.flights[id].key == *key);
                }
                Slot::Failed { until, serial, .. } => {
                    assert!(self.alarms.contains_key(&(*until, *serial)));
                }
            }
        }
        let count = |is: fn(&Slot<E>) -> bool| self.slots.values().filter(|slot| is(slot)).count();
        let objects = self.objects.values().filter(|object| object.is_listed).count();
        assert_eq!(objects, count(|slot| matches!(slot, Slot::Ready(_))));
        let flights = self.flights.values().filter(|flight| flight.is_listed).count();
        assert_eq!(flights, count(|slot| matches!(slot, Slot::Building(_))));
    }

    /// Every lease is one session's, and nothing exists that nobody can reach.
    fn check_leases(&self) {
        for (id, object) in &self.objects {
            let range =
                LeaseId { object: *id, serial: 0 }..=LeaseId { object: *id, serial: u64::MAX };
            let held: usize = self
                .sessions
                .values()
                .map(|session| session.leases.range(range.clone()).count())
                .sum();
            assert_eq!(object.leases, held as u64, "leases on {id}");
            assert!(
                object.leases > 0 || (object.is_listed && object.is_kept),
                "{id} is out of reach"
            );
        }
        let leases = self.sessions.values().flat_map(|session| &session.leases);
        assert!(leases.into_iter().all(|lease| self.objects.contains_key(&lease.object)));
    }

    /// Who waits is known to its flight and to its session, or has an outcome.
    fn check_waiters(&self) {
        for (id, waiter) in &self.waiters {
            if waiter.outcome.is_none() {
                assert!(self.flights[&waiter.flight].waiters.contains(id));
                assert!(self.sessions[&waiter.session].waiters.contains(id));
            } else {
                assert!(waiter.blocked.is_none());
            }
        }
        for flight in self.flights.values() {
            let waits = |id| self.waiters.get(id).is_some_and(|waiter| waiter.outcome.is_none());
            assert!(flight.waiters.iter().all(waits));
        }
        for session in self.sessions.values() {
            assert!(session.waiters.iter().all(|id| self.waiters.contains_key(id)));
        }
    }

    /// One alarm per object whose end is known and per remembered failure.
    fn check_alarms(&self) {
        for (id, object) in &self.objects {
            assert_eq!(object.alarm, object.due(), "the alarm of {id}");
            if let Some(at) = object.alarm {
                assert!(self.alarms.contains_key(&(at, id.raw())));
            }
        }
        let objects = self.objects.values().filter(|object| object.alarm.is_some()).count();
        let is_failed = |slot: &&Slot<E>| matches!(slot, Slot::Failed { .. });
        assert_eq!(self.alarms.len(), objects + self.slots.values().filter(is_failed).count());
    }
}
