//! When something is over: one alarm at most per object or remembered failure.

use super::{Machine, Nanos, Slot};
use crate::{Key, ObjectId};

pub(super) enum Alarm<K> {
    Object(ObjectId),
    Failure(K),
}

impl<K: Key, V, E> Machine<K, V, E> {
    /// When [`tick`](Self::tick) has something to do.
    pub(crate) fn next_alarm(&self) -> Option<Nanos> {
        self.alarms.first_key_value().map(|((at, _), _)| *at)
    }

    /// Ends what is over.
    pub(crate) fn tick(&mut self, now: Nanos) {
        while let Some(first) = self.alarms.first_entry() {
            if first.key().0 > now {
                return;
            }
            match first.remove() {
                Alarm::Failure(key) => self.forget_failure(&key),
                Alarm::Object(id) => {
                    self.object_mut(id).alarm = None;
                    self.expire(id);
                }
            }
        }
    }

    /// Sets the alarm of an object to the moment at which it is over as things stand.
    pub(super) fn rearm(&mut self, id: ObjectId) {
        let object = self.object_mut(id);
        let due = object.due();
        let before = std::mem::replace(&mut object.alarm, due);
        if before == due {
            return;
        }
        if let Some(before) = before {
            self.alarms.remove(&(before, id.raw()));
        }
        if let Some(due) = due {
            self.alarms.insert((due, id.raw()), Alarm::Object(id));
        }
    }

    /// Removes a remembered failure if `key` leads to one.
    pub(super) fn forget_failure(&mut self, key: &K) {
        let Some(Slot::Failed { until, serial, .. }) = self.slots.get(key) else { return };
        self.alarms.remove(&(*until, *serial));
        if let Some(Slot::Failed { error, .. }) = self.slots.remove(key) {
            self.debris.errors.push(error);
        }
    }
}
