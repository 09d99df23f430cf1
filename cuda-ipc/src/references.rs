//! How many refer to something that devices use, and what must be over before it is given back.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crate::device::Context;
use crate::error::{Absent, DriverError};
use crate::sync::{Mutex, lock};
use crate::sys::{Event, Generation, Stream};
use crate::uses::{Moments, Uses};

/// The references to a thing, which the thing itself holds.
pub(crate) struct References {
    pub(crate) made: Generation,
    /// Changed from 0 under the lock of the thing's table only.
    users: AtomicUsize,
    rest: Mutex<Rest>,
}

#[derive(Default)]
struct Rest {
    uses: Uses,
    /// Since when nobody refers to it.
    since: Option<Instant>,
    /// What was let go of last, kept until the thing is given back or in use again.
    last: Option<Box<dyn Any + Send>>,
}

impl References {
    /// None so far.
    pub(crate) fn new() -> Result<Self, DriverError> {
        let made = Generation::watch().map_err(Absent::Fork)?;
        Ok(Self { made, users: AtomicUsize::new(0), rest: Mutex::default() })
    }

    /// One more.
    pub(crate) fn add(&self) {
        self.users.fetch_add(1, Ordering::AcqRel);
    }

    /// One less. Whether it was the last, of which the [reaper](crate::reaper) is to be told.
    pub(crate) fn remove(&self) -> bool {
        if self.users.fetch_sub(1, Ordering::AcqRel) > 1 {
            return false;
        }
        lock(&self.rest).since = Some(Instant::now());
        true
    }

    pub(crate) fn count(&self) -> usize {
        self.users.load(Ordering::Acquire)
    }

    pub(crate) fn are_there(&self) -> bool {
        self.count() > 0
    }

    pub(crate) fn since(&self) -> Option<Instant> {
        lock(&self.rest).since
    }

    /// Whether there have been none since a moment.
    pub(crate) fn are_none_since(&self, since: Instant) -> bool {
        !self.are_there() && self.since() == Some(since)
    }

    /// Runs `queue`, which queues something in `stream`, with its context current, so that the stream is
    /// waited for. `keeper` is a reference, for a graph if the stream is captured.
    pub(crate) fn used<K: Send + 'static>(
        &self,
        (context, stream): (&Context, &Stream),
        keeper: impl FnOnce() -> K,
        queue: impl FnOnce() -> Result<(), DriverError>,
    ) -> Result<(), DriverError> {
        let is_captured = stream.keep_in_graph(keeper)?;
        if !stream.is_lent() {
            lock(&self.rest).uses.note(context, stream);
            return queue();
        }
        if is_captured {
            return queue();
        }
        let event = Event::create()?;
        let queued = queue();
        // Also behind what was queued in part.
        event.record(stream)?;
        lock(&self.rest).uses.note_moment(context, event);
        queued
    }

    /// What comes when the streams that were noted are done with what is queued; `None` while one of them
    /// is captured.
    pub(crate) fn recorded(&self) -> Result<Option<Moments>, DriverError> {
        let uses = lock(&self.rest).uses.copied();
        uses.recorded()
    }

    /// Keeps `last` in place of what was let go of before.
    pub(crate) fn keep(&self, last: Box<dyn Any + Send>) {
        let before = lock(&self.rest).last.replace(last);
        drop(before);
    }

    /// Drops what was let go of last, which is the caller's: it may panic.
    pub(crate) fn drop_kept(&self) {
        let last = lock(&self.rest).last.take();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(last)));
    }
}
