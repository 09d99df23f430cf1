//! Which call each thread is at, for the one who stops and has to say what did not end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};

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
#[derive(Debug, Default)]
pub(super) struct Slate(Mutex<Option<Unfinished>>);

impl Slate {
    /// At `call` until what is returned is dropped, however that comes.
    pub(super) fn note(&self, call: Unfinished) -> Noted<'_> {
        *lock(&self.0) = Some(call);
        Noted(self)
    }
}

pub(super) struct Noted<'a>(&'a Slate);

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        *lock(&self.0.0) = None;
    }
}

/// The slates of all threads that run handlers.
#[derive(Debug, Default)]
pub(super) struct Roster(Mutex<HashMap<ThreadId, Arc<Slate>>>);

impl Roster {
    /// A slate for the calling thread, until [`leave`](Self::leave).
    pub(super) fn join(&self) -> Arc<Slate> {
        let slate = Arc::<Slate>::default();
        lock(&self.0).insert(thread::current().id(), Arc::clone(&slate));
        slate
    }

    pub(super) fn leave(&self) {
        lock(&self.0).remove(&thread::current().id());
    }

    /// What is being done, by connection and request.
    pub(super) fn calls(&self) -> Vec<Unfinished> {
        let mut calls: Vec<_> =
            lock(&self.0).values().filter_map(|slate| *lock(&slate.0)).collect();
        calls.sort_unstable_by_key(|call| (call.connection, call.id));
        calls
    }
}
