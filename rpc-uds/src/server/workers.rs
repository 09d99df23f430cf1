//! The threads that do what takes its time.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crossbeam_channel::Receiver;

use super::handler::{Call, Handler};

/// A request on its way to a worker.
pub(super) struct Job<H: Handler> {
    pub(super) session: Arc<H::Session>,
    pub(super) call: Call,
}

/// Works until every sender of the queue is gone.
pub(super) fn work<H: Handler>(handler: &Arc<H>, queue: &Receiver<Job<H>>) {
    let mut until_closed = || {
        while let Ok(Job { session, call }) = queue.recv() {
            if call.responder.is_cancelled() {
                continue;
            }
            // The drop of the responder has told the client of a panic.
            let _ = catch_unwind(AssertUnwindSafe(|| handler.call(&session, call)));
        }
    };
    // A handler whose set-up fails has its work done without.
    let _ = catch_unwind(AssertUnwindSafe(|| handler.around_worker(&mut until_closed)));
    until_closed();
}
