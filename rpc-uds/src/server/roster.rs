//! Which call each thread is at, for the one who stops and has to say what did not end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

use crate::peer::Credentials;
use crate::sync::lock;

/// A call whose handler had not come back when the server's stop gave up on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unfinished {
    /// Which method.
    pub tag: u16,
    /// The request's id on its connection.
    pub id: u64,
    /// [`Connection::id`](crate::Connection::id).
    pub connection: u64,
    /// Who asked.
    pub peer: Credentials,
}

/// Where a thread notes what it is at. Nobody else writes to it.
#[derive(Debug)]
pub(super) struct Slate {
    call: Mutex<Option<Unfinished>>,
    is_waiting: AtomicBool,
}

impl Slate {
    /// The thread runs; before it did it waited for its first turn.
    pub(super) fn begin(&self) {
        self.is_waiting.store(false, Ordering::Relaxed);
    }

    /// Waits for what this crate knows will come, at the latest when the server stops.
    pub(super) fn wait<T>(&self, wait: impl FnOnce() -> T) -> T {
        self.is_waiting.store(true, Ordering::Relaxed);
        let came = wait();
        self.begin();
        came
    }

    /// At `call` until what is returned is dropped, however that comes.
    pub(super) fn note(&self, call: Unfinished) -> Noted<'_> {
        *lock(&self.call) = Some(call);
        Noted(self)
    }
}

pub(super) struct Noted<'a>(&'a Slate);

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        *lock(&self.0.call) = None;
    }
}

/// The slates of all threads that run handlers.
#[derive(Debug, Default)]
pub(super) struct Roster(Mutex<Vec<Weak<Slate>>>);

impl Roster {
    /// A slate for a thread that is about to be started, which drops it at its end.
    pub(super) fn join(&self) -> Arc<Slate> {
        let slate = Arc::new(Slate { call: Mutex::default(), is_waiting: AtomicBool::new(true) });
        let mut slates = lock(&self.0);
        slates.retain(|slate| slate.strong_count() > 0);
        slates.push(Arc::downgrade(&slate));
        slate
    }

    /// Whether a thread waits, or has not been let run since what it waited for has come.
    pub(super) fn anybody_waits(&self) -> bool {
        let slates = lock(&self.0);
        slates.iter().filter_map(Weak::upgrade).any(|it| it.is_waiting.load(Ordering::Relaxed))
    }

    /// What is being done, by connection and request.
    pub(super) fn calls(&self) -> Vec<Unfinished> {
        let slates = lock(&self.0);
        let slates = slates.iter().filter_map(Weak::upgrade);
        let mut calls: Vec<_> = slates.filter_map(|slate| *lock(&slate.call)).collect();
        calls.sort_unstable_by_key(|call| (call.connection, call.id));
        calls
    }
}
