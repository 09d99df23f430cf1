//! The machine behind its lock, and what has to be done once the lock is free again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Waker;

use crate::machine::{Debris, Machine, Nanos};
use crate::sync::{self, Clock, Condvar, Mutex, MutexGuard, NumberMap};
use crate::{Key, LeaseId, Options, SessionId, WaiterId};

pub(crate) struct Shared<K: Key, V, E> {
    clock: Clock,
    state: Mutex<State<K, V, E>>,
    /// Wakes the timer's thread.
    pub(crate) timer: Condvar,
}

pub(crate) struct State<K: Key, V, E> {
    pub(crate) machine: Machine<K, V, E>,
    /// How to reach those who wait.
    pub(crate) signals: NumberMap<WaiterId, Signal>,
    /// The moment for which the timer sleeps; `None` while it is awake and will look by itself.
    pub(crate) timer_sleeps_until: Option<Nanos>,
    pub(crate) is_stopping: bool,
}

pub(crate) enum Signal {
    Thread(Arc<Condvar>),
    Task(Waker),
}

/// What is done without the lock: waking runs code of others, and so may dropping.
#[must_use]
struct Aftermath<V, E> {
    signals: Vec<Signal>,
    wakes_timer: bool,
    debris: Debris<V, E>,
}

impl<K: Key, V, E> Shared<K, V, E> {
    pub(crate) fn new(options: &Options) -> Self {
        let failures_kept = u64::try_from(options.failures_kept.as_nanos()).unwrap_or(u64::MAX);
        let state = State {
            machine: Machine::new(&options.budgets, failures_kept),
            signals: NumberMap::default(),
            timer_sleeps_until: None,
            is_stopping: false,
        };
        Self { clock: Clock::start(), state: Mutex::new(state), timer: Condvar::new() }
    }

    /// One step: what is over ends, then `act`, both with the lock held; everything else after it.
    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut State<K, V, E>, Nanos) -> R) -> R {
        let (result, debris) = self.step(act);
        debris.drop_alone();
        result
    }

    /// As [`with`](Self::with), but for what is to be dropped.
    pub(crate) fn step<R>(
        &self,
        act: impl FnOnce(&mut State<K, V, E>, Nanos) -> R,
    ) -> (R, Debris<V, E>) {
        let mut state = self.lock();
        // Under the lock, so that no step is earlier than the one before it.
        let now = self.clock.now();
        state.machine.tick(now);
        let result = act(&mut state, now);
        let aftermath = state.conclude();
        if cfg!(st_mutant = "dropped_under_the_lock") {
            self.wake(aftermath).drop_alone();
            return (result, Debris::default());
        }
        drop(state);
        (result, self.wake(aftermath))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State<K, V, E>> {
        sync::lock(&self.state)
    }

    #[cfg(not(loom))]
    pub(crate) fn now(&self) -> Nanos {
        self.clock.now()
    }

    /// Before any dropping, because that may take long.
    fn wake(&self, aftermath: Aftermath<V, E>) -> Debris<V, E> {
        if aftermath.wakes_timer {
            self.timer.notify_all();
        }
        for signal in aftermath.signals {
            match signal {
                _ if cfg!(st_mutant = "settled_in_silence") => {}
                Signal::Thread(sleeper) => sleeper.notify_all(),
                Signal::Task(waker) => unwinding_no_further(|| waker.wake()),
            }
        }
        aftermath.debris
    }
}

impl<V, E> Debris<V, E> {
    #[cfg(not(loom))]
    pub(crate) fn is_empty(&self) -> bool {
        self.values.is_empty() && self.errors.is_empty() && self.outcomes.is_empty()
    }

    /// Drops each thing so that the panic of one keeps no other from being dropped.
    pub(crate) fn drop_alone(self) {
        let Self { values, errors, outcomes } = self;
        values.into_iter().for_each(drop_alone);
        errors.into_iter().for_each(drop_alone);
        outcomes.into_iter().for_each(drop_alone);
    }
}

fn drop_alone<T>(value: T) {
    unwinding_no_further(|| drop(value));
}

/// Runs code that is neither ours nor the caller's. Its panic, which the panic hook has reported, must
/// not keep others from being woken or values from being dropped; nor may it take away what the step
/// came to, for a lease or a build that nobody knows of would never end.
fn unwinding_no_further(foreign: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(foreign));
}

impl<K: Key, V, E> State<K, V, E> {
    fn conclude(&mut self) -> Aftermath<V, E> {
        let signals = self.machine.take_news().into_iter().filter_map(|waiter| {
            match self.signals.get(&waiter)? {
                Signal::Thread(sleeper) => Some(Signal::Thread(Arc::clone(sleeper))),
                Signal::Task(_) => self.signals.remove(&waiter),
            }
        });
        let signals = signals.collect();
        let wakes_timer = match (self.machine.next_alarm(), self.timer_sleeps_until) {
            (Some(next), Some(until)) if next < until => {
                self.timer_sleeps_until = Some(next);
                true
            }
            _ => false,
        };
        Aftermath { signals, wakes_timer, debris: self.machine.take_debris() }
    }
}

/// What a lease needs of its cache, whatever the types of keys and errors.
pub(crate) trait Lender: Send + Sync {
    fn take_back(&self, session: SessionId, lease: LeaseId);
}

impl<K, V, E> Lender for Shared<K, V, E>
where
    K: Key,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    fn take_back(&self, session: SessionId, lease: LeaseId) {
        self.with(|state, now| state.machine.release(now, session, lease));
    }
}
