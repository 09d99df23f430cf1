//! The threads that do what takes its time, and the queue before them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError, RwLock};

use crossbeam_channel::{Receiver, Sender, TrySendError};

use super::handler::{Call, Handler};
use super::roster::Slate;

/// A request on its way to a worker.
pub(super) struct Job<H: Handler> {
    pub(super) session: Arc<H::Session>,
    pub(super) call: Call,
}

/// The way to the workers, until it is closed: a connection whose handler does not come back must
/// not keep them waiting for more.
pub(super) struct Queue<H: Handler>(RwLock<Option<Sender<Job<H>>>>);

impl<H: Handler> Queue<H> {
    /// For at most `jobs_max` jobs.
    pub(super) fn new(jobs_max: usize) -> (Self, Receiver<Job<H>>) {
        let (sender, receiver) = crossbeam_channel::bounded(jobs_max);
        (Self(RwLock::new(Some(sender))), receiver)
    }

    pub(super) fn try_send(&self, job: Job<H>) -> Result<(), TrySendError<Job<H>>> {
        match &*self.0.read().unwrap_or_else(PoisonError::into_inner) {
            Some(sender) => sender.try_send(job),
            None => Err(TrySendError::Disconnected(job)),
        }
    }

    /// Workers end when they have done what is in it.
    pub(super) fn close(&self) {
        let sender = self.0.write().unwrap_or_else(PoisonError::into_inner).take();
        drop(sender);
    }
}

/// Works until the queue is closed.
pub(super) fn work<H: Handler>(handler: &Arc<H>, queue: &Receiver<Job<H>>, slate: &Slate) {
    let mut until_closed = || {
        while let Ok(Job { session, call }) = slate.wait(|| queue.recv()) {
            if !call.responder.is_cancelled() {
                let noted = slate.note(call.named());
                // The drop of the responder has told the client of a panic.
                let _ = catch_unwind(AssertUnwindSafe(|| handler.call(&session, call)));
                drop(noted);
            }
            // It may be the last to hold the session, whose drop is not ours either.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(session)));
        }
    };
    // A handler whose set-up fails has its work done without.
    let _ = catch_unwind(AssertUnwindSafe(|| handler.around_worker(&mut until_closed)));
    until_closed();
}
