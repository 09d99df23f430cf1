//! One holder of leases.

use std::fmt;
use std::sync::Arc;

use crate::machine::{AdmitRefusal, Decision, Granted, Refusal};
use crate::shared::{Lender, Shared};
use crate::{
    Actor, AdmitError, Build, Built, FlightId, GetError, Key, Lease, LeaseId, ObjectId, Pending,
    Released, Request, SessionId, WaiterId,
};

/// Who asks, holds leases and waits, usually one client.
///
/// Closing it, or dropping it, gives back every lease of it at once and ends every wait of it, which
/// is what the death of a client should lead to.
pub struct Session<K, V, E>
where
    K: Key,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    shared: Arc<Shared<K, V, E>>,
    id: SessionId,
}

/// What a lookup came to, decided in one step.
pub enum Lookup<K, V, E>
where
    K: Key,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    /// The value is there, and leased.
    Hit(Lease<V>),
    /// Somebody builds it: wait.
    Join(Pending<K, V, E>),
    /// Build it, and take it from the second one, or drop that if the value is for others.
    Build(Build<K, V, E>, Pending<K, V, E>),
}

impl<K, V, E> fmt::Debug for Lookup<K, V, E>
where
    K: Key,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hit(lease) => out.debug_tuple("Hit").field(lease).finish(),
            Self::Join(pending) => out.debug_tuple("Join").field(pending).finish(),
            Self::Build(build, pending) => {
                out.debug_tuple("Build").field(build).field(pending).finish()
            }
        }
    }
}

impl<K, V, E> Session<K, V, E>
where
    K: Key,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    pub(crate) fn open(shared: Arc<Shared<K, V, E>>) -> Self {
        let id = shared.with(|state, _| state.machine.open_session());
        Self { shared, id }
    }

    /// What identifies this session.
    pub const fn id(&self) -> SessionId {
        self.id
    }

    /// The value, found, waited for, or built by `build` on this thread.
    ///
    /// # Errors
    ///
    /// Any [`GetError`]. The error of `build` comes back as [`FlightError::Failed`] to everybody who
    /// waited, this call included, and is remembered for a while
    /// ([`Options::keep_failures`](crate::Options::keep_failures)).
    ///
    /// # Panics
    ///
    /// If `build` does, after the others were told.
    ///
    /// [`FlightError::Failed`]: crate::FlightError::Failed
    pub fn get_or_build(
        &self,
        request: &Request<K>,
        build: impl FnOnce(&Build<K, V, E>) -> Result<Built<V>, E>,
    ) -> Result<Lease<V>, GetError<E>> {
        match self.lookup(request)? {
            Lookup::Hit(lease) => Ok(lease),
            Lookup::Join(mut pending) => pending.wait_for_end(request.deadline),
            Lookup::Build(token, pending) => {
                // The outcome is what everybody gets who waits for it.
                let _ = token.run(build);
                pending.wait()
            }
        }
    }

    /// The value, if it is there; neither waits nor begins anything. For who answers at once what can
    /// be, and leaves the rest to another thread: [`lookup`](Self::lookup) would begin a build.
    pub fn find(&self, key: &K) -> Option<Lease<V>> {
        let granted = self.shared.with(|state, now| state.machine.lookup_ready(now, self.id, key));
        granted.map(|granted| self.lent(granted))
    }

    /// Finds, joins or starts a build, and never waits.
    ///
    /// # Errors
    ///
    /// [`GetError::Flight`] with a remembered error; [`GetError::OverBudget`] if the room that was
    /// to be reserved is not to be had; [`GetError::WouldDeadlock`] if the request names an actor;
    /// [`GetError::SessionClosed`].
    pub fn lookup(&self, request: &Request<K>) -> Result<Lookup<K, V, E>, GetError<E>> {
        let decided = self.decide(request);
        let pending = |flight: FlightId, waiter: WaiterId| {
            let shared = Arc::clone(&self.shared);
            Pending::new(shared, request.key.clone(), self.id, (flight, waiter), request.actor)
        };
        match decided {
            Ok(Decision::Hit(granted)) => Ok(Lookup::Hit(self.lent(granted))),
            Ok(Decision::Join { flight, waiter }) => Ok(Lookup::Join(pending(flight, waiter))),
            Ok(Decision::Build { flight, waiter }) => {
                let shared = Arc::clone(&self.shared);
                let token = Build::new(shared, flight, request.key.clone(), request.actor);
                Ok(Lookup::Build(token, pending(flight, waiter)))
            }
            Err(Refusal::Remembered(error)) => Err(GetError::Flight(error)),
            Err(Refusal::WouldDeadlock(chain)) => Err(GetError::WouldDeadlock { chain }),
            Err(Refusal::OverBudget(error)) => Err(GetError::OverBudget(error)),
            Err(Refusal::SessionClosed) => Err(GetError::SessionClosed { session: self.id }),
        }
    }

    /// Takes in a value that is not to be found by others, with its first lease. It counts against
    /// the budgets and goes with its last lease; `key` only names it.
    ///
    /// # Errors
    ///
    /// Any [`AdmitError`]; the value is dropped.
    pub fn admit(&self, key: K, built: Built<V>) -> Result<Lease<V>, AdmitError> {
        let (value, charges) = built.into_parts();
        let admitted =
            self.shared.with(|state, now| state.machine.admit(now, self.id, key, value, charges));
        admitted.map(|granted| self.lent(granted)).map_err(|refusal| match refusal {
            AdmitRefusal::OverBudget(error) => AdmitError::OverBudget(error),
            AdmitRefusal::SessionClosed => AdmitError::SessionClosed { session: self.id },
        })
    }

    /// One more lease on something that exists, found or not by lookups. `None` if it is gone or
    /// the session is closed.
    pub fn lease(&self, object: ObjectId) -> Option<Lease<V>> {
        let granted = self.shared.with(|state, now| state.machine.lease(now, self.id, object));
        granted.map(|granted| self.lent(granted))
    }

    /// Gives back a lease that was left to this session. `None`, and nothing happens, if this session
    /// has no such lease: it never had, or gave it back before.
    pub fn release(&self, lease: LeaseId) -> Option<Released> {
        self.shared.with(|state, now| state.machine.release(now, self.id, lease))
    }

    /// Gives back the oldest lease that this session has on `object`; `None` if it has none.
    pub fn release_object(&self, object: ObjectId) -> Option<Released> {
        self.shared.with(|state, now| state.machine.release_object(now, self.id, object))
    }

    /// The leases of this session, by object and age.
    pub fn leases(&self) -> Vec<LeaseId> {
        self.shared.with(|state, _| state.machine.leases_of(self.id)).unwrap_or_default()
    }

    /// Gives back all leases, ends all waits with [`GetError::SessionClosed`], and abandons the builds
    /// that are [bound](Request::bound_to_session) to this session. Tells what is left of each
    /// object that it had leases on; nothing, if it was closed before.
    pub fn close(&self) -> Vec<Released> {
        let closed = self.shared.with(|state, now| state.machine.close_session(now, self.id));
        closed.unwrap_or_default()
    }

    fn decide(&self, request: &Request<K>) -> Result<Decision<V>, Refusal<E>> {
        let id = self.id;
        let builder = request.actor.unwrap_or_else(Actor::current_thread);
        if cfg!(st_mutant = "lookup_in_two_steps") {
            let found = self.shared.with(|state, _| state.machine.find(&request.key));
            return self.shared.with(|state, now| state.machine.follow(now, id, request, found));
        }
        self.shared.with(|state, now| {
            let decision = state.machine.lookup(now, id, request)?;
            if let Decision::Build { flight, .. } = decision {
                state.machine.build_as(flight, Some(builder));
            }
            Ok(decision)
        })
    }

    fn lent(&self, granted: Granted<V>) -> Lease<V> {
        Lease::new(granted, self.id, Arc::clone(&self.shared) as Arc<dyn Lender>)
    }
}

impl<K, V, E> Drop for Session<K, V, E>
where
    K: Key,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    fn drop(&mut self) {
        self.close();
    }
}

impl<K, V, E> fmt::Debug for Session<K, V, E>
where
    K: Key,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Session").field("id", &self.id).finish_non_exhaustive()
    }
}
