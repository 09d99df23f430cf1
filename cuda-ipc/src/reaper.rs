//! Unmapping after everybody has gone and the device is done.
//!
//! Not where a reference is dropped: that may be a destructor in any thread, while kernels that use the
//! memory are queued, or while a graph is captured. And not after waiting for the whole context, as is
//! usual: that spoils every capture in it, whatever the capture mode of the thread that waits. So the
//! streams that were named are waited for, one by one, and none of them while it is captured.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::{Arc, Condvar, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::DriverError;
use crate::mapping::Mapping;
use crate::references::References;
use crate::sync::{Mutex, lock};
use crate::sys::{Generation, table};
use crate::uses::Moments;
use crate::waits;

/// Nothing tells when a stream comes to a moment, but a callback within the stream, which is the
/// user's. So it is asked for, this often.
const ASK: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// What two rounds take.
const ROUNDS: Duration = Duration::from_millis(500);

/// What is given back when nobody refers to it and the devices are done with it.
pub(crate) trait Reaped: Send + Sync {
    fn references(&self) -> &References;

    /// Whether it is kept for a while, in case that somebody wants it again.
    fn lingers(&self) -> bool;

    /// Whether the driver waits for all streams when it is given back.
    fn waits_for_devices(&self) -> bool;

    /// Takes it out of its table, unless somebody has referred to it since a moment; it is given back
    /// then, at the latest with its last reference. Returns whether it is out.
    fn take(&self, since: Instant) -> bool;
}

struct Reaper {
    waiting: Vec<Waiting>,
    leaving: Vec<Leaving>,
    /// How many ever came to be there.
    left: u64,
    linger: Duration,
    /// How many flushes have been asked for: while there are any nothing lingers.
    flushes: usize,
    /// The process in which the thread runs.
    runs: Option<Generation>,
    /// Whether the thread has taken what waits, to look at it.
    is_busy: bool,
    /// Raised after each round.
    rounds: u64,
}

/// Something that nobody refers to.
struct Waiting {
    what: Arc<dyn Reaped>,
    /// What must have come before it is given back, once it does not linger any more; and the end of use
    /// after which that was recorded.
    moments: Option<(Instant, Moments)>,
    /// Whether it is out of its table, so that nobody refers to it again.
    is_out: bool,
}

/// Something that is let go of when the device is done with a mapping.
struct Leaving {
    /// Counted from 0.
    number: u64,
    mapping: Mapping,
    moments: Option<Moments>,
    kept: Box<dyn Any + Send>,
}

static REAPER: Mutex<Reaper> = Mutex::new(Reaper {
    waiting: Vec::new(),
    leaving: Vec::new(),
    left: 0,
    linger: Duration::from_millis(500),
    flushes: 0,
    runs: None,
    is_busy: false,
    rounds: 0,
});
static TOLD: Condvar = Condvar::new();
static DONE: Condvar = Condvar::new();

/// Sets for how long what nobody refers to stays mapped, so that opening it again costs nothing.
/// Default: half a second. Memory is not free on the device before.
pub fn set_linger(linger: Duration) {
    lock(&REAPER).linger = linger;
    TOLD.notify_all();
}

/// Unmaps what nobody refers to, without lingering, and returns when that is done or at `deadline`.
/// Returns whether it is done: work in a stream, a capture of one, or a wait for a word may take longer.
pub fn flush(deadline: Instant) -> bool {
    if table().is_err() {
        // Nothing was ever mapped, or not by this process.
        return true;
    }
    let mut reaper = lock(&REAPER);
    reaper.flushes += 1;
    TOLD.notify_all();
    // What is unmapped in the round in which this came may have been judged before it. The driver may take longer
    // over one.
    let enough = reaper.rounds + 2;
    let by = deadline.max(Instant::now() + ROUNDS);
    let is_done = loop {
        let is_done = reaper.is_empty() && !reaper.is_busy;
        if is_done || !runs(&reaper) {
            break is_done;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() && (reaper.rounds >= enough || Instant::now() >= by) {
            break false;
        }
        let slice = if left.is_zero() { ASK.1 } else { left.min(ASK.1) };
        reaper = DONE.wait_timeout(reaper, slice).unwrap_or_else(PoisonError::into_inner).0;
    };
    reaper.flushes -= 1;
    is_done
}

/// Returns when everything is let go of that was left to
/// [`let_go_when_done`](Mapping::let_go_when_done) so far, or at `deadline`. Returns whether it is. What
/// lingers goes on to.
pub fn settle(deadline: Instant) -> bool {
    if table().is_err() {
        return true;
    }
    let mut reaper = lock(&REAPER);
    let left = reaper.left;
    loop {
        let is_done = !reaper.is_busy && reaper.leaving.iter().all(|it| it.number >= left);
        let patience = deadline.saturating_duration_since(Instant::now());
        if is_done || !runs(&reaper) || patience.is_zero() {
            return is_done;
        }
        reaper = DONE.wait_timeout(reaper, patience).unwrap_or_else(PoisonError::into_inner).0;
    }
}

fn runs(reaper: &Reaper) -> bool {
    reaper.runs.is_some_and(Generation::is_current)
}

/// Says that nobody refers to `what` any more. Calls nothing of the driver, waits for nothing.
pub(crate) fn tell(what: Arc<dyn Reaped>) {
    let made = what.references().made;
    if !made.is_current() {
        // In a forked child nothing of the driver is left to give back.
        return;
    }
    let mut reaper = lock(&REAPER);
    if reaper.waiting.iter().all(|known| !is_same(&known.what, &what)) {
        reaper.waiting.push(Waiting { what, moments: None, is_out: false });
    }
    reaper.wake(made);
}

fn is_same(one: &Arc<dyn Reaped>, other: &Arc<dyn Reaped>) -> bool {
    ptr::addr_eq(Arc::as_ptr(one), Arc::as_ptr(other))
}

/// Lets go of `kept`, and of the mapping, when what is queued in its streams is done. As [`tell`].
pub(crate) fn let_go_when_done(mapping: Mapping, kept: Box<dyn Any + Send>) {
    let made = mapping.mapped().references.made;
    if !made.is_current() {
        return;
    }
    let mut reaper = lock(&REAPER);
    let number = reaper.left;
    reaper.left += 1;
    reaper.leaving.push(Leaving { number, mapping, moments: None, kept });
    reaper.wake(made);
}

impl Reaper {
    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.leaving.is_empty()
    }

    fn wake(&mut self, generation: Generation) {
        if !runs(self) {
            let builder = thread::Builder::new().name("cuda-ipc reaper".to_owned());
            // Without a thread everything stays until the next one is told of.
            if builder.spawn(run).is_ok() {
                self.runs = Some(generation);
            }
        }
        TOLD.notify_all();
    }
}

fn run() {
    let mut pause = ASK.0;
    loop {
        let (mut waiting, mut leaving, linger) = {
            let mut reaper = lock(&REAPER);
            while reaper.is_empty() {
                reaper = TOLD.wait(reaper).unwrap_or_else(PoisonError::into_inner);
            }
            reaper.is_busy = true;
            let linger = if reaper.flushes > 0 { Duration::ZERO } else { reaper.linger };
            (std::mem::take(&mut reaper.waiting), std::mem::take(&mut reaper.leaving), linger)
        };
        let before = waiting.len() + leaving.len();
        let ended = leaving.extract_if(.., Leaving::is_over);
        // What is kept is the caller's, and this thread everybody's.
        for ended in ended {
            let _ = catch_unwind(AssertUnwindSafe(|| ended.end()));
        }
        for ended in waiting.extract_if(.., |waiting| waiting.is_over(linger)) {
            let _ = catch_unwind(AssertUnwindSafe(|| drop(ended)));
        }
        let is_news = waiting.len() + leaving.len() < before;
        pause = if is_news { ASK.0 } else { (pause * 2).min(ASK.1) };
        let mut reaper = lock(&REAPER);
        reaper.leaving.append(&mut leaving);
        // What was told of meanwhile may be there already.
        for old in waiting {
            if reaper.waiting.iter().all(|new| !is_same(&new.what, &old.what)) {
                reaper.waiting.push(old);
            }
        }
        reaper.is_busy = false;
        reaper.rounds += 1;
        DONE.notify_all();
        if !reaper.is_empty() {
            drop(TOLD.wait_timeout(reaper, pause).unwrap_or_else(PoisonError::into_inner));
        }
    }
}

impl Waiting {
    /// Whether it is given back, or in use again.
    fn is_over(&mut self, linger: Duration) -> bool {
        if !self.is_out && !self.is_in_use_or_out(linger) {
            return false;
        }
        // Whoever told of it may still be about to let go of it, and is not to be the one that gives it back.
        !self.is_out || Arc::strong_count(&self.what) == 1
    }

    fn is_in_use_or_out(&mut self, linger: Duration) -> bool {
        let references = self.what.references();
        let Some(since) = references.since() else { return true };
        if references.are_there() {
            // Told of again when they have gone. They keep it now.
            references.drop_kept();
            return true;
        }
        if self.what.lingers() && since.elapsed() < linger {
            return false;
        }
        self.is_out = is_certain(self.is_done(since)) && self.take(since);
        self.is_out
    }

    fn take(&self, since: Instant) -> bool {
        (!self.what.waits_for_devices() || waits::give_way(since)) && self.what.take(since)
    }

    fn is_done(&mut self, since: Instant) -> Result<bool, DriverError> {
        if self.moments.as_ref().is_none_or(|(then, _)| *then != since) {
            let Some(moments) = self.what.references().recorded()? else { return Ok(false) };
            self.moments = Some((since, moments));
        }
        self.moments.as_ref().map_or(Ok(true), |(_, moments)| moments.have_come())
    }
}

impl Leaving {
    /// Whether the device is done with it.
    fn is_over(&mut self) -> bool {
        is_certain(self.is_done())
    }

    fn is_done(&mut self) -> Result<bool, DriverError> {
        if self.moments.is_none() {
            self.moments = self.mapping.mapped().references.recorded()?;
        }
        self.moments.as_ref().map_or(Ok(false), Moments::have_come)
    }

    fn end(self) {
        let mapped = self.mapping.mapped();
        // This one is not dropped yet: whoever else there is has something that keeps the allocation.
        if mapped.is_allocation() && mapped.references.count() == 1 {
            mapped.references.keep(self.kept);
        }
    }
}

/// A stream that another one's capture keeps from being asked is asked again. A context that is lost runs
/// nothing any more.
fn is_certain(is_done: Result<bool, DriverError>) -> bool {
    match is_done {
        Ok(is_done) => is_done,
        Err(DriverError::Call(error)) => !error.is_capture(),
        Err(_) => true,
    }
}
