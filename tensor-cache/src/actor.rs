//! Who builds and who waits, as the search for deadlocks sees it.

use crate::sync;

/// Something that can do one thing at a time: a thread, or a task that moves between threads.
///
/// A build has an actor while somebody runs it, a wait while it blocks somebody. A wait that would
/// close a circle of actors is refused with
/// [`GetError::WouldDeadlock`](crate::GetError::WouldDeadlock).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Actor(u64);

impl Actor {
    /// The calling thread: what blocking calls stand for if nothing else is said.
    pub fn current_thread() -> Self {
        Self(sync::this_thread())
    }

    /// An actor like no other.
    pub fn unique() -> Self {
        Self(sync::next_actor())
    }
}
