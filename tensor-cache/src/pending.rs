//! Waiting for a build.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use crate::machine::Outcome;
use crate::shared::{Lender, Shared, Signal};
use crate::sync::{self, Condvar};
use crate::{Actor, FlightId, GetError, Key, Lease, Progress, SessionId, WaiterId};

/// A place among those who wait for a build.
///
/// A thread waits by [`wait`](Self::wait) and its relatives; who has no thread for it polls this
/// as a [`Future`], or with a waker of its own, which is woken when the build ends, when the
/// session is closed, and when there is progress. Dropping it is leaving.
pub struct Pending<K, V, E>
where
    K: Key,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    shared: Arc<Shared<K, V, E>>,
    key: K,
    session: SessionId,
    flight: FlightId,
    /// Gone with the outcome.
    waiter: Option<WaiterId>,
    /// Who is blocked by this all the time.
    actor: Option<Actor>,
    progress_seen: u64,
}

/// What happened while waiting.
#[derive(Debug)]
pub enum News<V> {
    /// The builder told how far it is.
    Progress(Progress),
    /// The value is there.
    Ready(Lease<V>),
}

impl<K, V, E> Pending<K, V, E>
where
    K: Key,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    pub(crate) fn new(
        shared: Arc<Shared<K, V, E>>,
        key: K,
        session: SessionId,
        place: (FlightId, WaiterId),
        actor: Option<Actor>,
    ) -> Self {
        let (flight, waiter) = place;
        Self { shared, key, session, flight, waiter: Some(waiter), actor, progress_seen: 0 }
    }

    /// The build that is waited for.
    pub const fn flight(&self) -> FlightId {
        self.flight
    }

    /// Waits until the build ends.
    ///
    /// # Errors
    ///
    /// As [`wait_until`](Self::wait_until), without the deadline.
    pub fn wait(mut self) -> Result<Lease<V>, GetError<E>> {
        self.wait_for_end(None)
    }

    /// Waits until the build ends or `deadline` passes.
    ///
    /// # Errors
    ///
    /// [`GetError::Flight`] if it ends without a value; [`GetError::SessionClosed`];
    /// [`GetError::WouldDeadlock`] if the build needs something that the calling thread is building;
    /// [`GetError::Timeout`]. After the last two it can be waited again.
    ///
    /// # Panics
    ///
    /// If the outcome was taken before.
    pub fn wait_until(&mut self, deadline: Instant) -> Result<Lease<V>, GetError<E>> {
        self.wait_for_end(Some(deadline))
    }

    /// Waits until the build ends, there is progress that this has not returned yet, or `deadline`
    /// passes. Of several reports the latest is returned.
    ///
    /// # Errors
    ///
    /// As [`wait_until`](Self::wait_until).
    ///
    /// # Panics
    ///
    /// If the outcome was taken before.
    pub fn next_news(&mut self, deadline: Option<Instant>) -> Result<News<V>, GetError<E>> {
        self.sleep(deadline, true)
    }

    /// The outcome, if there is one.
    ///
    /// # Panics
    ///
    /// If the outcome was taken before.
    pub fn try_wait(&mut self) -> Option<Result<Lease<V>, GetError<E>>> {
        let waiter = self.waiter();
        let outcome = self.shared.with(|state, _| {
            let outcome = state.machine.collect(waiter)?;
            Some((outcome, state.signals.remove(&waiter)))
        });
        outcome.map(|(outcome, _signal)| self.accept(outcome))
    }

    /// The latest that the builder told, until the build ends.
    pub fn progress(&self) -> Option<Progress> {
        self.shared.with(|state, _| state.machine.progress(self.flight).cloned())
    }

    pub(crate) fn wait_for_end(
        &mut self,
        deadline: Option<Instant>,
    ) -> Result<Lease<V>, GetError<E>> {
        match self.sleep(deadline, false)? {
            News::Ready(lease) => Ok(lease),
            News::Progress(_) => unreachable!("progress was not asked for"),
        }
    }

    fn sleep(
        &mut self,
        deadline: Option<Instant>,
        heeds_progress: bool,
    ) -> Result<News<V>, GetError<E>> {
        let waiter = self.waiter();
        if let Some(outcome) = self.try_wait() {
            return outcome.map(News::Ready);
        }
        let started = Instant::now();
        let actor = self.actor.unwrap_or_else(Actor::current_thread);
        let bell = Arc::new(Condvar::new());
        let replaced = self.shared.with(|state, _| {
            state.machine.block(waiter, actor)?;
            Ok(state.signals.insert(waiter, Signal::Thread(Arc::clone(&bell))))
        });
        drop(replaced.map_err(|chain| GetError::WouldDeadlock { chain })?);
        let mut state = self.shared.lock();
        let mut skips_a_look = cfg!(st_mutant = "sleep_without_a_look");
        let mut progress = None;
        while skips_a_look || !state.machine.is_settled(waiter) {
            skips_a_look = false;
            let latest = state.machine.progress(self.flight).filter(|_| heeds_progress);
            progress = latest.filter(|latest| latest.serial > self.progress_seen).cloned();
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if progress.is_some() || left.is_some_and(|left| left.is_zero()) {
                break;
            }
            state = sync::wait(&bell, state, left);
        }
        state.signals.remove(&waiter);
        state.machine.unblock(waiter, self.actor);
        drop(state);
        if let Some(progress) = progress {
            self.progress_seen = progress.serial;
            return Ok(News::Progress(progress));
        }
        match self.try_wait() {
            Some(outcome) => outcome.map(News::Ready),
            None => Err(GetError::Timeout { key: self.key.name(), waited: started.elapsed() }),
        }
    }

    fn waiter(&self) -> WaiterId {
        self.waiter.expect("the outcome of a wait is taken once")
    }

    fn accept(&mut self, outcome: Outcome<V, E>) -> Result<Lease<V>, GetError<E>> {
        self.waiter = None;
        match outcome {
            Outcome::Granted(granted) => {
                let lender = Arc::clone(&self.shared) as Arc<dyn Lender>;
                Ok(Lease::new(granted, self.session, lender))
            }
            Outcome::Failed(error) => Err(GetError::Flight(error)),
            Outcome::SessionClosed => Err(GetError::SessionClosed { session: self.session }),
        }
    }
}

impl<K, V, E> Unpin for Pending<K, V, E>
where
    K: Key,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
}

impl<K, V, E> Future for Pending<K, V, E>
where
    K: Key,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    type Output = Result<Lease<V>, GetError<E>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let waiter = self.waiter();
        if cfg!(st_mutant = "waker_comes_late") {
            if let Some(outcome) = self.try_wait() {
                return Poll::Ready(outcome);
            }
            let signal = Signal::Task(context.waker().clone());
            drop(self.shared.with(|state, _| state.signals.insert(waiter, signal)));
            return Poll::Pending;
        }
        let signal = Signal::Task(context.waker().clone());
        // A waker that is replaced or not needed is somebody's, and dropped without the lock.
        let (outcome, _unused) = self.shared.with(|state, _| {
            let outcome = state.machine.collect(waiter);
            let unused = match outcome {
                Some(_) => [state.signals.remove(&waiter), Some(signal)],
                None => [state.signals.insert(waiter, signal), None],
            };
            (outcome, unused)
        });
        match outcome {
            Some(outcome) => Poll::Ready(self.accept(outcome)),
            None => Poll::Pending,
        }
    }
}

impl<K, V, E> Drop for Pending<K, V, E>
where
    K: Key,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    fn drop(&mut self) {
        let Some(waiter) = self.waiter.take() else { return };
        let signal = self.shared.with(|state, now| {
            state.machine.leave(now, waiter);
            state.signals.remove(&waiter)
        });
        drop(signal);
    }
}

impl<K, V, E> fmt::Debug for Pending<K, V, E>
where
    K: Key,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Pending")
            .field("key", &self.key.name())
            .field("flight", &self.flight)
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}
