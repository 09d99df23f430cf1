//! What there is, for people and for error messages.

use std::cmp::Reverse;
use std::time::Duration;

use super::{Machine, Nanos, Object};
use crate::{Device, Entry, Holder, HolderKind, InFlight, Key, ObjectId, OverBudget, Stats};

impl<K: Key, V, E> Machine<K, V, E> {
    pub(crate) fn stats(&self) -> Stats {
        let counts = self.counts;
        Stats {
            hits: counts.hits,
            misses: counts.misses,
            joins: counts.joins,
            remembered_failures: counts.remembered_failures,
            builds: counts.builds,
            failures: counts.failures,
            evictions: counts.evictions,
            expirations: counts.expirations,
            invalidations: counts.invalidations,
            entries: self.objects.values().filter(|object| object.is_listed).count(),
            objects: self.objects.len(),
            flights: self.flights.len(),
            waiters: self.flights.values().map(|flight| flight.waiters.len()).sum(),
            leases: self.objects.values().map(|object| object.leases).sum(),
            sessions: self.sessions.len(),
            devices: self.ledger.uses().collect(),
        }
    }

    /// Every object, oldest first.
    pub(crate) fn entries(&self, now: Nanos) -> Vec<Entry<K>> {
        let mut entries: Vec<_> =
            self.objects.iter().map(|(id, object)| entry(now, *id, object)).collect();
        entries.sort_unstable_by_key(|entry| entry.object);
        entries
    }

    /// Every build, oldest first.
    pub(crate) fn in_flight(&self, now: Nanos) -> Vec<InFlight<K>> {
        let flights = self.flights.iter().map(|(id, flight)| InFlight {
            key: flight.key.clone(),
            flight: *id,
            session: flight.session,
            waiters: flight.waiters.len(),
            reserved: flight.plan.reserve.clone(),
            age: Duration::from_nanos(now.saturating_sub(flight.began_at)),
            progress: flight.progress.clone(),
            is_listed: flight.is_listed,
        });
        let mut flights: Vec<_> = flights.collect();
        flights.sort_unstable_by_key(|it| it.flight);
        flights
    }

    pub(crate) fn entry(&self, now: Nanos, id: ObjectId) -> Option<Entry<K>> {
        self.objects.get(&id).map(|object| entry(now, id, object))
    }

    pub(crate) fn refcount(&self, id: ObjectId) -> Option<u64> {
        self.objects.get(&id).map(|object| object.leases)
    }

    /// The refusal of `needed` bytes on `device`, with who holds what.
    pub(super) fn over_budget(&self, device: Device, needed: u64) -> OverBudget {
        let room = self.ledger.use_of(device);
        let leased =
            self.objects.iter().filter(|(_, object)| object.leases > 0).map(|(id, object)| {
                (object.charges.bytes_on(device), id.raw(), &object.key, Some(*id))
            });
        let building = self.flights.iter().map(|(id, flight)| {
            (flight.plan.reserve.bytes_on(device), id.raw(), &flight.key, None)
        });
        let mut all: Vec<_> = leased.chain(building).filter(|(bytes, ..)| *bytes > 0).collect();
        all.sort_unstable_by_key(|(bytes, number, ..)| (Reverse(*bytes), *number));
        all.truncate(OverBudget::HOLDERS_MAX);
        let holder = |(bytes, number, key, object): (u64, u64, &K, Option<ObjectId>)| {
            let kind = match object {
                Some(object) => HolderKind::Leased {
                    object,
                    leases: self.object(object).leases,
                    sessions: self.holders_of(object),
                },
                None => HolderKind::Building { flight: crate::FlightId::from_raw(number) },
            };
            Holder { key: key.name(), bytes, kind }
        };
        OverBudget {
            device,
            needed,
            limit: room.limit.unwrap_or(u64::MAX),
            leased: room.leased,
            building: room.building,
            holders: all.into_iter().map(holder).collect(),
        }
    }
}

fn entry<K: Key, V>(now: Nanos, id: ObjectId, object: &Object<K, V>) -> Entry<K> {
    Entry {
        key: object.key.clone(),
        object: id,
        charges: object.charges.clone(),
        leases: object.leases,
        age: Duration::from_nanos(now.saturating_sub(object.built_at)),
        unused: Duration::from_nanos(now.saturating_sub(object.used_at)),
        hits: object.hits,
        is_listed: object.is_listed,
    }
}
