//! What is asked for, and how it is to be built and kept if it is not there.

use std::time::{Duration, Instant};

use crate::{Actor, Charges};

/// How long a built value is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Retention {
    /// Until it is evicted, expires or is invalidated.
    #[default]
    Keep,
    /// It is found by others while anybody has a lease on it, and goes with the last lease.
    WhileLeased,
}

/// What becomes of a build when everybody who waited for it has left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unwanted {
    /// It goes on, and its value is kept for the next who asks.
    #[default]
    Continue,
    /// [`Build::is_cancelled`](crate::Build::is_cancelled) becomes true.
    Cancel,
}

/// A key with everything that matters if a build has to be started for it. Those who find the value
/// or join a build take it as the first one wanted it.
#[derive(Clone, Debug)]
pub struct Request<K> {
    pub(crate) key: K,
    pub(crate) plan: Plan,
    pub(crate) actor: Option<Actor>,
    pub(crate) deadline: Option<Instant>,
}

/// The part of a request that goes with the build.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    pub(crate) reserve: Charges,
    pub(crate) time_to_live: Option<Duration>,
    pub(crate) time_to_idle: Option<Duration>,
    pub(crate) retention: Retention,
    pub(crate) unwanted: Unwanted,
    pub(crate) is_bound_to_session: bool,
}

impl<K> Request<K> {
    /// Asks for `key`, kept until it is evicted or invalidated.
    pub fn new(key: K) -> Self {
        Self { key, plan: Plan::default(), actor: None, deadline: None }
    }

    /// What is asked for.
    pub const fn key(&self) -> &K {
        &self.key
    }

    /// Takes room for a build before it starts, evicting what has to go: a value that cannot fit is
    /// refused before any work is done. At the end the true charges replace these.
    #[must_use]
    pub fn reserve(mut self, charges: Charges) -> Self {
        self.plan.reserve = charges;
        self
    }

    /// How long the value is served, counted from the end of its build.
    #[must_use]
    pub fn time_to_live(mut self, time: Duration) -> Self {
        self.plan.time_to_live = Some(time);
        self
    }

    /// How long the value is kept without any lease.
    #[must_use]
    pub fn time_to_idle(mut self, time: Duration) -> Self {
        self.plan.time_to_idle = Some(time);
        self
    }

    /// How long the value is kept.
    #[must_use]
    pub fn retention(mut self, retention: Retention) -> Self {
        self.plan.retention = retention;
        self
    }

    /// What becomes of the build when nobody waits for it any more.
    #[must_use]
    pub fn when_unwanted(mut self, unwanted: Unwanted) -> Self {
        self.plan.unwanted = unwanted;
        self
    }

    /// The session that asks is the one that builds: closing it abandons the build.
    #[must_use]
    pub fn bound_to_session(mut self) -> Self {
        self.plan.is_bound_to_session = true;
        self
    }

    /// Who asks, if not the calling thread. Waiting for the result counts as blocking this actor
    /// from the start, so a lookup that would close a circle is refused at once.
    #[must_use]
    pub fn on_behalf_of(mut self, actor: Actor) -> Self {
        self.actor = Some(actor);
        self
    }

    /// How long [`Session::get_or_build`](crate::Session::get_or_build) waits for somebody else's
    /// build. One's own build takes the time it takes.
    #[must_use]
    pub fn deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Some(deadline);
        self
    }
}
