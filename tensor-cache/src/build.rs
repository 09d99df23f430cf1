//! The right and the duty to build a value.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use crate::shared::Shared;
use crate::{Actor, Charges, Device, Finished, FlightError, FlightId, Key};

/// A value that was built, with the bytes it takes.
#[derive(Debug)]
pub struct Built<V> {
    value: V,
    charges: Charges,
}

impl<V> Built<V> {
    /// A value that takes no bytes that a budget counts.
    pub const fn new(value: V) -> Self {
        Self { value, charges: Charges::none() }
    }

    /// And takes `bytes` on `device`.
    #[must_use]
    pub fn charge(mut self, device: Device, bytes: u64) -> Self {
        self.charges = self.charges.and(device, bytes);
        self
    }

    /// And takes these bytes, in place of those named so far.
    #[must_use]
    pub fn charges(mut self, charges: Charges) -> Self {
        self.charges = charges;
        self
    }

    pub(crate) fn into_parts(self) -> (Arc<V>, Charges) {
        (Arc::new(self.value), self.charges)
    }
}

/// A build in progress, in the hands of whoever builds. Everybody else who asks for the key waits
/// for it.
///
/// It always ends: by [`finish`](Self::finish), by [`fail`](Self::fail), or by being dropped, which
/// those who wait see as [`FlightError::Abandoned`], or as [`FlightError::Panicked`] if the thread
/// is unwinding.
pub struct Build<K: Key, V, E> {
    shared: Arc<Shared<K, V, E>>,
    flight: FlightId,
    key: K,
    actor: Option<Actor>,
    has_ended: bool,
}

impl<K: Key, V, E> Build<K, V, E> {
    pub(crate) fn new(
        shared: Arc<Shared<K, V, E>>,
        flight: FlightId,
        key: K,
        actor: Option<Actor>,
    ) -> Self {
        Self { shared, flight, key, actor, has_ended: false }
    }

    /// What identifies this build.
    pub const fn id(&self) -> FlightId {
        self.flight
    }

    /// What is to be built.
    pub const fn key(&self) -> &K {
        &self.key
    }

    /// Ends the build with a value, which everybody who waits gets a lease on.
    ///
    /// If the key was invalidated since the build began, the value reaches those who waited before
    /// that and is not kept.
    ///
    /// # Errors
    ///
    /// [`FlightError::OverBudget`] if there is no room for the value, which is what those who wait
    /// get as well; [`FlightError::Abandoned`] if the build was ended from elsewhere. The value is
    /// dropped in both cases.
    pub fn finish(mut self, built: Built<V>) -> Result<Finished, FlightError<E>> {
        self.has_ended = true;
        let (value, charges) = built.into_parts();
        let flight = self.flight;
        self.shared
            .with(|state, now| state.machine.finish(now, flight, value, charges))
            .unwrap_or_else(|| Err(self.abandoned()))
    }

    /// Ends the build with an error, which everybody who waits gets, and for a while those who ask.
    pub fn fail(mut self, error: E) -> FlightError<E> {
        self.end(FlightError::Failed(Arc::new(error)))
    }

    /// Builds: runs `build` on this thread and ends the build with what it returns.
    ///
    /// While it runs, the thread counts as the builder: a lookup on it that needs this very build
    /// is refused instead of waiting for ever. A panic is passed on to the caller after those who
    /// wait were told.
    ///
    /// # Errors
    ///
    /// Those of [`finish`](Self::finish), and [`FlightError::Failed`] with what `build` returned.
    pub fn run(
        mut self,
        build: impl FnOnce(&Self) -> Result<Built<V>, E>,
    ) -> Result<Finished, FlightError<E>> {
        let actor = self.actor.unwrap_or_else(Actor::current_thread);
        self.built_by(Some(actor));
        // Nothing of ours is seen half changed: the closure only has `&self`.
        match catch_unwind(AssertUnwindSafe(|| build(&self))) {
            Ok(Ok(value)) => self.finish(value),
            Ok(Err(error)) => Err(self.fail(error)),
            Err(panic) => {
                let message = message_of(&*panic).into();
                let key = self.key.name().into();
                self.end(FlightError::Panicked { key, message });
                resume_unwind(panic)
            }
        }
    }

    /// Makes ready for being sent to another thread: until that runs the build, a wait for it on
    /// this thread is not taken for a deadlock.
    #[must_use]
    pub fn hand_over(self) -> Self {
        if self.actor.is_none() {
            self.built_by(None);
        }
        self
    }

    /// Tells those who wait how far the build is, in a unit of one's own; `total` 0 if not known.
    pub fn progress(&self, done: u64, total: u64, note: impl Into<String>) {
        let note = note.into();
        self.shared.with(|state, _| state.machine.report(self.flight, done, total, note));
    }

    /// Whether the build may be given up: it was cancelled or ended from elsewhere, or nobody waits
    /// and the request said [`Unwanted::Cancel`](crate::Unwanted::Cancel). Once true it stays so,
    /// and the next one who asks for the key starts another build.
    pub fn is_cancelled(&self) -> bool {
        self.shared.with(|state, _| state.machine.is_cancelled(self.flight))
    }

    fn built_by(&self, actor: Option<Actor>) {
        self.shared.with(|state, _| state.machine.build_as(self.flight, actor));
    }

    fn abandoned(&self) -> FlightError<E> {
        FlightError::Abandoned { key: self.key.name().into() }
    }

    fn end(&mut self, error: FlightError<E>) -> FlightError<E> {
        self.has_ended = true;
        let flight = self.flight;
        if self.shared.with(|state, now| state.machine.end(now, flight, &error)) {
            error
        } else {
            self.abandoned()
        }
    }
}

impl<K: Key, V, E> Drop for Build<K, V, E> {
    fn drop(&mut self) {
        if self.has_ended || cfg!(st_mutant = "drop_ends_nothing") {
            return;
        }
        if std::thread::panicking() {
            let message = "the thread that held it was unwinding".into();
            self.end(FlightError::Panicked { key: self.key.name().into(), message });
        } else {
            self.end(self.abandoned());
        }
    }
}

impl<K: Key, V, E> fmt::Debug for Build<K, V, E> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Build")
            .field("id", &self.flight)
            .field("key", &self.key.name())
            .finish_non_exhaustive()
    }
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a value that is no text").to_owned()
}
