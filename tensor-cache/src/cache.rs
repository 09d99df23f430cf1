//! The cache as its owner has it.

use std::fmt;
use std::io;
use std::sync::Arc;

use crate::shared::Shared;
#[cfg(not(loom))]
use crate::timer::Timer;
use crate::{
    BoxError, Device, Entry, FlightId, InFlight, Invalidated, Key, ObjectId, Options, Session,
    Stats,
};

/// A cache that builds each value once and lends it to many.
///
/// Clones are the same cache. When the last one is dropped, its values are no longer found, those
/// without leases are dropped, and its thread ends; leases, waits and builds that still exist come
/// to their ends as ever.
pub struct Cache<K, V, E = BoxError>
where
    K: Key,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    owned: Arc<Owned<K, V, E>>,
}

/// What ends with the last handle.
struct Owned<K, V, E>
where
    K: Key,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    shared: Arc<Shared<K, V, E>>,
    #[cfg(not(loom))]
    timer: Timer,
}

impl<K, V, E> Cache<K, V, E>
where
    K: Key,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    /// An empty cache, with a thread that ends what is over.
    ///
    /// # Errors
    ///
    /// The system's, if it has no thread to give.
    #[cfg_attr(loom, expect(clippy::unnecessary_wraps, reason = "a model has no thread to start"))]
    pub fn new(options: &Options) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(options));
        #[cfg(not(loom))]
        let timer = Timer::start(Arc::clone(&shared))?;
        let owned = Owned {
            shared,
            #[cfg(not(loom))]
            timer,
        };
        Ok(Self { owned: Arc::new(owned) })
    }

    /// A new holder of leases.
    pub fn open_session(&self) -> Session<K, V, E> {
        Session::open(Arc::clone(&self.owned.shared))
    }

    /// Makes the value of `key` out of date, if there is one, or the build of it, if there is one:
    /// who asks from now on gets a new build. Leases are not disturbed, and a build in progress
    /// ends as ever for those who wait for it, but its value is not kept.
    pub fn invalidate(&self, key: &K) -> Invalidated {
        self.owned.shared.with(|state, _| state.machine.invalidate(key))
    }

    /// [`invalidate`](Self::invalidate) for every key of a group, in one step.
    pub fn invalidate_group(&self, group: &K::Group) -> Invalidated {
        self.owned.shared.with(|state, _| state.machine.invalidate_group(group))
    }

    /// Ends a build whose builder is gone, with
    /// [`FlightError::Abandoned`](crate::FlightError::Abandoned) for those who wait. `false` if
    /// there is no such build.
    pub fn abandon(&self, flight: FlightId) -> bool {
        self.owned.shared.with(|state, now| state.machine.abandon(now, flight))
    }

    /// Asks a builder to stop, which it sees by
    /// [`Build::is_cancelled`](crate::Build::is_cancelled). Those who wait get what it ends with,
    /// who asks from now on a new build. `false` if there is no such build.
    pub fn cancel(&self, flight: FlightId) -> bool {
        self.owned.shared.with(|state, _| state.machine.cancel(flight))
    }

    /// Sets the budget of a device, `None` for none. What is over it and has no lease is evicted.
    pub fn set_budget(&self, device: Device, bytes: Option<u64>) {
        self.owned.shared.with(|state, _| state.machine.limit(device, bytes));
    }

    /// Drops every value without a lease, makes the others impossible to find, and forgets
    /// remembered errors. Builds in progress are not touched.
    pub fn clear(&self) {
        self.owned.shared.with(|state, _| state.machine.clear());
    }

    /// How many leases there are on an object; `None` if it is gone.
    pub fn refcount(&self, object: ObjectId) -> Option<u64> {
        self.owned.shared.with(|state, _| state.machine.refcount(object))
    }

    /// What there is to know of an object; `None` if it is gone.
    pub fn entry(&self, object: ObjectId) -> Option<Entry<K>> {
        self.owned.shared.with(|state, now| state.machine.entry(now, object))
    }

    /// Every object, oldest first.
    pub fn entries(&self) -> Vec<Entry<K>> {
        self.owned.shared.with(|state, now| state.machine.entries(now))
    }

    /// Every build in progress, oldest first.
    pub fn flights(&self) -> Vec<InFlight<K>> {
        self.owned.shared.with(|state, now| state.machine.in_flight(now))
    }

    /// Counts and bytes, all of one moment.
    pub fn stats(&self) -> Stats {
        self.owned.shared.with(|state, _| state.machine.stats())
    }
}

impl<K, V, E> Clone for Cache<K, V, E>
where
    K: Key,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    fn clone(&self) -> Self {
        Self { owned: Arc::clone(&self.owned) }
    }
}

impl<K, V, E> Drop for Owned<K, V, E>
where
    K: Key,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    fn drop(&mut self) {
        self.shared.with(|state, _| {
            state.is_stopping = true;
            state.machine.clear();
        });
        self.shared.timer.notify_all();
        #[cfg(not(loom))]
        self.timer.join();
    }
}

impl<K, V, E> fmt::Debug for Cache<K, V, E>
where
    K: Key,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Cache").field("stats", &self.stats()).finish_non_exhaustive()
    }
}
