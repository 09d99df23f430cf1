//! One parked thread per process that takes half of a large copy.
//!
//! Whether it is asked is decided by measurement: both ways are timed, the faster one is used, and
//! the other one is tried again now and then, because a busy host becomes idle and the reverse.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use shm_lock::PerProcess;

use crate::stream::cpus;
use crate::sys::Desk;

/// Copies below this are made alone: waking somebody costs as much as it saves.
pub(crate) const BYTES_MIN: usize = 4_000_000;

/// Copies that are made each way in turn before one is preferred.
const FIRST_TRIALS: u64 = 8;

/// Copies between two trials of the way that is not in use: odd, so that trials fall on writes and
/// on reads where the two alternate.
const TRIAL_EVERY: u64 = 31;

/// A copy slower than the fastest known raises that by one part in so many: pages touched for the
/// first time and lost time slices tell nothing, a host that stays busy does.
const FORGETTING: u64 = 8;

/// Runs `copy` over all of `0..bytes`, in one part or in two at once.
pub(crate) fn split<E: Send>(
    bytes: usize,
    copy: impl Fn(Range<usize>) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let crew = CREW.get_or_init(Crew::default);
    let together = crew.choose();
    let begun = Instant::now();
    let outcome = if together {
        let middle = (bytes / 2).next_multiple_of(4096).min(bytes);
        crew.run_beside(|| copy(middle..bytes), || copy(0..middle))
    } else {
        copy(0..bytes)
    };
    crew.learn(together, bytes, begun);
    outcome
}

/// As [`split`], over the two halves of a mutable slice; `copy` gets each half's offset.
pub(crate) fn split_mut<T: Send, E: Send>(
    out: &mut [T],
    copy: impl Fn(usize, &mut [T]) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let crew = CREW.get_or_init(Crew::default);
    let together = crew.choose();
    let begun = Instant::now();
    let bytes = out.len();
    let outcome = if together {
        let middle = (bytes / 2).next_multiple_of(4096).min(bytes);
        let (first, second) = out.split_at_mut(middle);
        let copy = &copy;
        crew.run_beside(move || copy(middle, second), move || copy(0, first))
    } else {
        copy(0, out)
    };
    crew.learn(together, bytes, begun);
    outcome
}

static CREW: PerProcess<Crew> = PerProcess::new();

/// The helper of this process and what is known about its use.
#[derive(Debug, Default)]
struct Crew {
    /// Picoseconds per byte, the fastest of late; 0: not measured yet.
    alone: AtomicU64,
    together: AtomicU64,
    copies: AtomicU64,
    /// Held by the copy that has the helper; others copy alone meanwhile.
    turn: Mutex<bool>,
    /// Never freed, as the helper's life never ends.
    desk: &'static Desk,
}

impl Crew {
    /// Whether the next copy is made by two.
    fn choose(&self) -> bool {
        if cpus::is_single() {
            return false;
        }
        let copies = self.copies.fetch_add(1, Ordering::Relaxed);
        if copies < FIRST_TRIALS {
            // In twos, as what is written is often read back next: each way gets both kinds.
            return copies % 4 >= 2;
        }
        let faster = self.together.load(Ordering::Relaxed) < self.alone.load(Ordering::Relaxed);
        faster != copies.is_multiple_of(TRIAL_EVERY)
    }

    fn learn(&self, together: bool, bytes: usize, begun: Instant) {
        let elapsed = begun.elapsed().as_nanos().saturating_mul(1000) / bytes.max(1) as u128;
        let now = u64::try_from(elapsed).unwrap_or(u64::MAX).max(1);
        let fastest = if together { &self.together } else { &self.alone };
        let before = fastest.load(Ordering::Relaxed);
        let after = if before == 0 { now } else { now.min(before + before / FORGETTING + 1) };
        fastest.store(after, Ordering::Relaxed);
    }

    /// Runs `theirs` on the helper thread and `ours` here; both here if the helper is taken.
    fn run_beside<E: Send>(
        &self,
        theirs: impl FnOnce() -> Result<(), E> + Send,
        ours: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        let Ok(mut started) = self.turn.try_lock() else {
            ours()?;
            return theirs();
        };
        if !*started {
            let desk = self.desk;
            let spawned =
                std::thread::Builder::new().name("st-copy".into()).spawn(move || desk.serve());
            if spawned.is_err() {
                ours()?;
                return theirs();
            }
            *started = true;
        }
        let mut theirs_outcome = None;
        let ours_outcome = {
            let outcome = &mut theirs_outcome;
            let mut job = Some(move || *outcome = Some(theirs()));
            let mut run = || {
                if let Some(job) = job.take() {
                    job();
                }
            };
            self.desk.lend(&mut run, ours)
        };
        match theirs_outcome {
            Some(outcome) => ours_outcome.and(outcome),
            // Half of the bytes were not copied, and nobody may take them for copied.
            None => std::panic::resume_unwind(Box::new("the copying thread panicked")),
        }
    }
}
