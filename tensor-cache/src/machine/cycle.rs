//! Who waits for whom: a build has an actor that runs it, an actor that is blocked waits for
//! builds. A circle can only be closed by a new wait, so every wait is judged before it begins.

use super::{Flight, Machine};
use crate::{Actor, FlightId, Key};

impl<K: Key, V, E> Machine<K, V, E> {
    /// The circle that would be closed if `asker` waited for `target`, as names of keys, the first
    /// one again at the end.
    pub(super) fn chain(&self, asker: Actor, target: FlightId) -> Option<Vec<String>> {
        let mut path = Vec::new();
        if !self.leads_to(asker, target, &mut path, &mut Vec::new()) {
            return None;
        }
        let own = *path.last()?;
        let mut chain = vec![own];
        chain.extend(self.builds_within(asker, own));
        chain.extend(path);
        let name = |id: &FlightId| self.flights.get(id).map(|flight: &Flight<K>| flight.key.name());
        Some(chain.iter().filter_map(name).collect())
    }

    /// Follows the waits from `target` on; `path` ends with the build of `asker` that is needed.
    fn leads_to(
        &self,
        asker: Actor,
        target: FlightId,
        path: &mut Vec<FlightId>,
        seen: &mut Vec<FlightId>,
    ) -> bool {
        let builder = self.flights.get(&target).and_then(|flight| flight.builder);
        let Some(builder) = builder.filter(|_| !seen.contains(&target)) else { return false };
        seen.push(target);
        let before = path.len();
        path.push(target);
        if builder == asker {
            return true;
        }
        path.extend(self.builds_within(builder, target));
        let mut awaited: Vec<FlightId> = self
            .waiters
            .values()
            .filter(|waiter| waiter.blocked == Some(builder) && waiter.outcome.is_none())
            .map(|waiter| waiter.flight)
            .collect();
        awaited.sort_unstable();
        if awaited.into_iter().any(|next| self.leads_to(asker, next, path, seen)) {
            return true;
        }
        path.truncate(before);
        false
    }

    /// The builds that `builder` began inside of `outer`, in that order.
    fn builds_within(&self, builder: Actor, outer: FlightId) -> Vec<FlightId> {
        let inner = self
            .flights
            .iter()
            .filter(|(id, flight)| **id > outer && flight.builder == Some(builder));
        let mut inner: Vec<FlightId> = inner.map(|(id, _)| *id).collect();
        inner.sort_unstable();
        inner
    }
}
