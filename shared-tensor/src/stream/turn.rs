//! Threads of one process under the lock that it holds.
//!
//! Who holds the lock of a stream on a GPU may wait for a frame that only this process can fill, for a writer
//! that is gone; and to fill it takes the lock. So the thread that does works under the lock of whoever holds it
//! in this process, in turn with what that one does to the ring.

use std::sync::{Mutex, MutexGuard, PoisonError};

use shm_lock::{PerProcess, Wait};

use crate::stream::attachment::Attachment;
use crate::stream::locked::Locked;
use crate::stream::tenure::Tenure;

/// What the threads of a process tell each other. A forked child holds nothing.
#[derive(Debug)]
pub(crate) struct Turns(PerProcess<Mutex<Turn>>);

/// While it is locked, no other thread of this process does anything to the ring under the stream's lock, nor
/// lets go of it.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    is_held: bool,
    /// The claimed slot that this process itself fills.
    pub(crate) open: Option<usize>,
}

impl Turns {
    pub(crate) const fn new() -> Self {
        Self(PerProcess::new())
    }

    fn turn(&self) -> MutexGuard<'_, Turn> {
        self.0.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Attachment {
    /// Waits for its turn, in a stream where more than one thread may need it.
    #[inline]
    pub(crate) fn turn(&self) -> Option<MutexGuard<'_, Turn>> {
        self.turns.as_ref().map(Turns::turn)
    }

    /// Notes that this process holds the lock.
    #[inline]
    pub(crate) fn note_held(&self) {
        if let Some(mut turn) = self.turn() {
            turn.is_held = true;
        }
    }

    /// Notes that it is about to let go.
    #[inline]
    pub(crate) fn note_let_go(&self) {
        if let Some(mut turn) = self.turn() {
            *turn = Turn::default();
        }
    }

    /// Runs `act` under the stream's lock: in turn with the thread that has it, if one of this process has, and
    /// otherwise if it is free. It is told which slot that thread is filling.
    pub(crate) fn under_lock<T>(
        &self,
        act: impl FnOnce(Tenure<'_>, Option<usize>) -> T,
    ) -> Option<T> {
        if let Some(turn) = self.turn()
            && turn.is_held
        {
            let member = self.member().ok()?;
            return Some(act(Tenure { attachment: self, member }, turn.open));
        }
        let locked = Locked::acquire(self, &Wait::never()).ok()?;
        Some(act(locked.tenure(), None))
    }
}
