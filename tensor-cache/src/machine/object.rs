//! Built values: leasing, letting go, making room.

use std::sync::Arc;

use super::ledger::Standing;
use super::{AdmitRefusal, Granted, Machine, Nanos, Object, Slot};
use crate::{Charges, Device, Key, LeaseId, ObjectId, OverBudget, Released, SessionId};

impl<K, V> Object<K, V> {
    /// When it will be over, if nothing happens before.
    pub(super) fn due(&self) -> Option<Nanos> {
        if !self.is_listed {
            return None;
        }
        let idle = self.time_to_idle.filter(|_| self.leases == 0);
        let idle = idle.map(|time| self.used_at.saturating_add(time));
        match (self.expires_at, idle) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }
}

impl<K: Key, V, E> Machine<K, V, E> {
    /// Takes in a value that no lookup finds: it lives by its leases.
    pub(crate) fn admit(
        &mut self,
        now: Nanos,
        session: SessionId,
        key: K,
        value: Arc<V>,
        charges: Charges,
    ) -> Result<Granted<V>, AdmitRefusal> {
        let refusal = if self.sessions.contains_key(&session) {
            match self.make_room(&charges) {
                Ok(()) => {
                    let id = self.insert(now, key, value, charges);
                    return Ok(self.grant(session, id));
                }
                Err(error) => AdmitRefusal::OverBudget(error),
            }
        } else {
            AdmitRefusal::SessionClosed
        };
        self.debris.values.push(value);
        Err(refusal)
    }

    /// Takes one more lease on something that exists.
    pub(crate) fn lease(
        &mut self,
        now: Nanos,
        session: SessionId,
        object: ObjectId,
    ) -> Option<Granted<V>> {
        if !self.sessions.contains_key(&session) || !self.objects.contains_key(&object) {
            return None;
        }
        self.use_of(now, object);
        Some(self.grant(session, object))
    }

    /// Gives back one lease of `session`; `None` if it has no such lease.
    pub(crate) fn release(
        &mut self,
        now: Nanos,
        session: SessionId,
        lease: LeaseId,
    ) -> Option<Released> {
        if !self.sessions.get_mut(&session)?.leases.remove(&lease) {
            return None;
        }
        Some(self.drop_lease(now, lease.object))
    }

    /// Gives back the oldest lease that `session` has on `object`.
    pub(crate) fn release_object(
        &mut self,
        now: Nanos,
        session: SessionId,
        object: ObjectId,
    ) -> Option<Released> {
        let from = LeaseId { object, serial: 0 };
        let oldest = *self.sessions.get(&session)?.leases.range(from..).next()?;
        if oldest.object != object {
            return None;
        }
        self.release(now, session, oldest)
    }

    /// A new object without leases that no lookup finds. The caller changes one or the other.
    pub(super) fn insert(
        &mut self,
        now: Nanos,
        key: K,
        value: Arc<V>,
        charges: Charges,
    ) -> ObjectId {
        let id = ObjectId::from_raw(self.next());
        self.ledger.add(Standing::Idle, &charges);
        let object = Object {
            key,
            value,
            charges,
            leases: 0,
            is_listed: false,
            is_kept: false,
            built_at: now,
            used_at: now,
            used: id.raw(),
            hits: 0,
            expires_at: None,
            time_to_idle: None,
            alarm: None,
        };
        self.objects.insert(id, object);
        id
    }

    /// Notes that the object is used now.
    pub(super) fn use_of(&mut self, now: Nanos, id: ObjectId) -> &mut Object<K, V> {
        let used = self.next();
        let object = self.object_mut(id);
        object.used_at = now;
        object.used = used;
        object
    }

    /// Leases an object to a session, both of which exist.
    pub(super) fn grant(&mut self, session: SessionId, id: ObjectId) -> Granted<V> {
        let lease = LeaseId { object: id, serial: self.next() };
        let object = self.objects.get_mut(&id).expect("what is leased exists");
        object.leases += 1;
        let is_first = object.leases == 1;
        let value = Arc::clone(&object.value);
        if is_first {
            self.ledger.shift(Standing::Idle, Standing::Leased, &object.charges);
            self.rearm(id);
        }
        self.sessions
            .get_mut(&session)
            .expect("a session that leases is open")
            .leases
            .insert(lease);
        Granted { lease, value }
    }

    /// Takes one lease off an object, which no session has any more.
    pub(super) fn drop_lease(&mut self, now: Nanos, id: ObjectId) -> Released {
        let object = self.objects.get_mut(&id).expect("what is leased exists");
        object.leases -= 1;
        let leases_left = object.leases;
        if leases_left == 0 {
            self.ledger.shift(Standing::Leased, Standing::Idle, &object.charges);
            let stays = object.is_listed && object.is_kept;
            self.use_of(now, id);
            if stays {
                self.rearm(id);
                self.trim_for(id);
            } else {
                self.unlist(id);
            }
        }
        Released { object: id, leases_left, is_destroyed: !self.objects.contains_key(&id) }
    }

    /// Makes an object impossible to find; without leases it is gone with that.
    pub(super) fn unlist(&mut self, id: ObjectId) {
        let object = self.objects.get_mut(&id).expect("what is taken off the list exists");
        if object.is_listed {
            object.is_listed = false;
            self.slots.remove(&object.key);
            self.rearm(id);
        }
        if self.object(id).leases > 0 {
            return;
        }
        if let Some(object) = self.objects.remove(&id) {
            self.ledger.remove(Standing::Idle, &object.charges);
            self.debris.values.push(object.value);
        }
    }

    /// Takes an object off the list whose time is over.
    pub(super) fn expire(&mut self, id: ObjectId) {
        self.counts.expirations += 1;
        self.unlist(id);
    }

    /// Evicts until `charges` fit, or nothing if they cannot.
    pub(super) fn make_room(&mut self, charges: &Charges) -> Result<(), Arc<OverBudget>> {
        if let Some(device) = self.ledger.refusal(charges) {
            return Err(Arc::new(self.over_budget(device, charges.bytes_on(device))));
        }
        let is_tight = |machine: &Self| {
            charges.iter().any(|(device, bytes)| machine.ledger.is_tight(device, bytes))
        };
        if !is_tight(self) {
            return Ok(());
        }
        for id in self.longest_unused() {
            if !is_tight(self) {
                break;
            }
            self.evict_for(id, charges);
        }
        Ok(())
    }

    /// Sets or lifts the budget of a device and evicts what is over it. What is leased stays.
    pub(crate) fn limit(&mut self, device: Device, bytes: Option<u64>) {
        self.ledger.limit(device, bytes);
        self.trim(device);
    }

    /// Evicts what a device has beyond its budget.
    fn trim(&mut self, device: Device) {
        if !self.ledger.is_tight(device, 0) {
            return;
        }
        for id in self.longest_unused() {
            if !self.ledger.is_tight(device, 0) {
                break;
            }
            if self.object(id).charges.bytes_on(device) > 0 {
                self.counts.evictions += 1;
                self.unlist(id);
            }
        }
    }

    /// Drops everything that nobody has a lease on; what is leased is no longer found.
    pub(crate) fn clear(&mut self) {
        let listed = self.objects.iter().filter(|(_, object)| object.is_listed);
        let mut listed: Vec<ObjectId> = listed.map(|(id, _)| *id).collect();
        listed.sort_unstable();
        for id in listed {
            self.unlist(id);
        }
        let failed = self.slots.iter().filter(|(_, slot)| matches!(slot, Slot::Failed { .. }));
        let failed: Vec<K> = failed.map(|(key, _)| key.clone()).collect();
        for key in failed {
            self.forget_failure(&key);
        }
    }

    /// A budget that was lowered under leased bytes is kept once they are idle.
    fn trim_for(&mut self, id: ObjectId) {
        let devices = self.object(id).charges.iter().map(|(device, _)| device);
        let tight = devices.filter(|device| self.ledger.is_tight(*device, 0));
        for device in tight.collect::<Vec<_>>() {
            self.trim(device);
        }
    }

    fn evict_for(&mut self, id: ObjectId, charges: &Charges) {
        let object = self.object(id);
        let helps = |(device, bytes): (Device, u64)| {
            object.charges.bytes_on(device) > 0 && self.ledger.is_tight(device, bytes)
        };
        if charges.iter().any(helps) {
            self.counts.evictions += 1;
            self.unlist(id);
        }
    }

    /// What can be evicted, in the order in which it should be.
    fn longest_unused(&self) -> Vec<ObjectId> {
        let is_free = |object: &Object<K, V>| {
            object.leases == 0 || cfg!(st_mutant = "eviction_ignores_leases")
        };
        let idle = self.objects.iter().filter(|(_, object)| is_free(object));
        let mut idle: Vec<_> = idle.map(|(id, object)| (object.used, *id)).collect();
        idle.sort_unstable();
        idle.into_iter().map(|(_, id)| id).collect()
    }
}
