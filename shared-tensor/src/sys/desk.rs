//! Where one thread lends a job that lives on its stack to another one.

use std::ptr::NonNull;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A job on somebody's stack, lent to another thread (S4).
#[derive(Debug)]
struct BorrowedJob(NonNull<dyn FnMut() + Send>);

// SAFETY: the job is `Send` and, by S4, used by one thread at a time.
unsafe impl Send for BorrowedJob {}

impl BorrowedJob {
    /// Forgets the lifetime of a job; see S4.
    fn lend<'job>(job: &'job mut (dyn FnMut() + Send + 'job)) -> Self {
        let job: NonNull<dyn FnMut() + Send + 'job> = NonNull::from(job);
        // SAFETY: only the lifetime changes; the pointer is used while the job lives (S4).
        Self(unsafe {
            std::mem::transmute::<NonNull<dyn FnMut() + Send + 'job>, NonNull<dyn FnMut() + Send>>(
                job,
            )
        })
    }

    /// Runs the job.
    fn run(mut self) {
        // SAFETY: S4.
        let job = unsafe { self.0.as_mut() };
        job();
    }
}

/// Where jobs are handed over, one at a time.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    job: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Idle,
    Waiting(BorrowedJob),
    Running,
    Done,
}

impl Default for &'static Desk {
    fn default() -> Self {
        // One per process that ever copies much: never freed, as its thread never ends.
        Box::leak(Box::default())
    }
}

/// How long either side looks again before it sleeps. A sleeper takes tens of microseconds to wake,
/// as long as a megabyte takes to copy: the lender's half and the helper's end about together, and
/// what is written is often read back at once.
const PATIENCE: Duration = Duration::from_micros(50);

/// A job borrows its lender's stack: nobody leaves before it is back, not even by a panic.
struct Return<'desk>(&'desk Desk);

impl Drop for Return<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock_after(|state| !matches!(state, State::Running));
        loop {
            match std::mem::take(&mut *state) {
                State::Done | State::Idle => return,
                // The helper did not get a CPU yet: it is quicker to do it here.
                State::Waiting(job) => {
                    if !std::thread::panicking() {
                        job.run();
                    }
                    return;
                }
                State::Running => {
                    *state = State::Running;
                    state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }
}

impl Desk {
    /// Lends a job to whoever [serves](Self::serve), does `meanwhile`, and comes back when both are
    /// done. If the desk is taken, `meanwhile` and then the job are done here.
    pub(crate) fn lend<R>(
        &self,
        job: &mut (dyn FnMut() + Send),
        meanwhile: impl FnOnce() -> R,
    ) -> R {
        let mut state = self.lock();
        if !matches!(*state, State::Idle) {
            drop(state);
            let result = meanwhile();
            job();
            return result;
        }
        // From here on the job is reached through the desk only, until `returned` is dropped (S4).
        let returned = Return(self);
        *state = State::Waiting(BorrowedJob::lend(job));
        drop(state);
        self.changed.notify_all();
        let result = meanwhile();
        drop(returned);
        result
    }

    /// The life of a thread that does what is lent to it.
    pub(crate) fn serve(&self) {
        let mut state = self.lock();
        loop {
            match std::mem::replace(&mut *state, State::Running) {
                State::Waiting(job) => {
                    drop(state);
                    // Whoever lent it waits for this, whatever the job does.
                    let finished = Finished(self);
                    job.run();
                    drop(finished);
                    state = self.lock_after(|state| matches!(state, State::Waiting(_)));
                }
                other => {
                    *state = other;
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    /// The state once it is as wished, or after [`PATIENCE`].
    fn lock_after(&self, wished: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        let begun = Instant::now();
        while !wished(&state) && begun.elapsed() < PATIENCE {
            drop(state);
            for _ in 0..32 {
                std::hint::spin_loop();
            }
            state = self.lock();
        }
        state
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.job.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says that the job is back, also when it panicked.
struct Finished<'desk>(&'desk Desk);

impl Drop for Finished<'_> {
    fn drop(&mut self) {
        *self.0.lock() = State::Done;
        self.0.changed.notify_all();
    }
}
