//! Threads for the functions of endpoints.
//!
//! There are as many places as the server's options say, and a thread for each that is needed. A
//! function that makes a call and waits for it gives its place away meanwhile: its own call may need
//! one. So nested calls end whatever the number of places, and no more than that many functions
//! compute at once.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::service::monitor::lock;

pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// Runs the whole life of a worker; it calls what it is given once.
pub(crate) type Around = dyn Fn(&mut dyn FnMut()) + Send + Sync;

/// A nested call starts a thread when its caller waits; so deep may they be nested in all.
const THREADS_MAX: usize = 1024;
/// How long a thread without work stays.
const IDLE: Duration = Duration::from_secs(10);

pub(crate) struct Pool {
    label: &'static str,
    places: usize,
    stack_bytes: usize,
    around: Option<Arc<Around>>,
    state: Mutex<State>,
    work: Condvar,
    ended: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    threads: usize,
    idle: usize,
    /// Threads that gave their place away.
    waiting: usize,
    is_closed: bool,
    next_number: usize,
    /// Threads that have ended, or are about to: joined by whoever comes next.
    handles: Vec<JoinHandle<()>>,
}

thread_local! {
    static OWN: RefCell<Option<Arc<Pool>>> = const { RefCell::new(None) };
}

impl Pool {
    pub(crate) fn new(
        label: &'static str,
        places: usize,
        stack_bytes: usize,
        around: Option<Arc<Around>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            label,
            places: places.max(1),
            stack_bytes,
            around,
            state: Mutex::default(),
            work: Condvar::new(),
            ended: Condvar::new(),
        })
    }

    /// Queues a job; gives it back if the pool is closed, or there is no thread to be had.
    pub(crate) fn submit(self: &Arc<Self>, job: Job) -> Result<(), Job> {
        let mut state = lock(&self.state);
        if state.is_closed {
            drop(state);
            return Err(job);
        }
        state.queue.push_back(job);
        self.staff(&mut state);
        if state.threads == state.waiting {
            // There is no thread for it, and those there are may wait for it: better told than left.
            let job = state.queue.pop_back();
            drop(state);
            return job.map_or(Ok(()), Err);
        }
        Ok(())
    }

    /// How many jobs wait for a place.
    pub(crate) fn queued(&self) -> usize {
        lock(&self.state).queue.len()
    }

    /// Wakes or starts a thread for what is queued, if a place is free.
    fn staff(self: &Arc<Self>, state: &mut State) {
        if state.queue.is_empty() {
            return;
        }
        if state.idle > 0 {
            self.work.notify_one();
        }
        // Who was woken before, and has not got the lock yet, is still counted as idle.
        let is_enough = state.queue.len() <= state.idle;
        if is_enough || state.threads - state.waiting >= self.places.min(THREADS_MAX) {
            return;
        }
        if state.threads >= THREADS_MAX {
            return;
        }
        state.next_number += 1;
        let name = format!("{} {}", self.label, state.next_number);
        let pool = Arc::clone(self);
        let builder = thread::Builder::new().name(name).stack_size(self.stack_bytes);
        state.threads += 1;
        match builder.spawn(move || pool.live()) {
            Ok(handle) => {
                let (done, running) = state.handles.drain(..).partition(JoinHandle::is_finished);
                let done: Vec<JoinHandle<()>> = done;
                state.handles = running;
                state.handles.push(handle);
                for thread in done {
                    // It has caught its panics, and has finished.
                    let _ = thread.join();
                }
            }
            // What is queued waits for a thread that there is; without any, for the next try.
            Err(_) => state.threads -= 1,
        }
    }

    fn live(self: Arc<Self>) {
        OWN.set(Some(Arc::clone(&self)));
        let mut work = || self.work_until_closed();
        // A worker whose set-up fails works without.
        let around = self.around.clone();
        let lived = around
            .is_some_and(|around| catch_unwind(AssertUnwindSafe(|| around(&mut work))).is_ok());
        if !lived {
            work();
        }
        OWN.set(None);
        let mut state = lock(&self.state);
        state.threads -= 1;
        // Somebody may have counted on this one.
        self.staff(&mut state);
        drop(state);
        self.ended.notify_all();
    }

    fn work_until_closed(&self) {
        let mut state = lock(&self.state);
        loop {
            let busy = state.threads - state.idle - state.waiting;
            // Those that came back from waiting are more than there are places: some go.
            if busy <= self.places
                && let Some(job) = state.queue.pop_front()
            {
                drop(state);
                // Jobs tell of their panics themselves.
                let _ = catch_unwind(AssertUnwindSafe(job));
                state = lock(&self.state);
                continue;
            }
            if state.is_closed || busy > self.places {
                return;
            }
            state.idle += 1;
            let begun = Instant::now();
            let waited = self.work.wait_timeout(state, IDLE);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            state.idle -= 1;
            if state.queue.is_empty() && begun.elapsed() >= IDLE {
                return;
            }
        }
    }

    /// Takes no more jobs and drops those that wait.
    pub(crate) fn close(&self) {
        let mut state = lock(&self.state);
        state.is_closed = true;
        let dropped = std::mem::take(&mut state.queue);
        drop(state);
        self.work.notify_all();
        // Outside of the lock: dropping a job tells those who wait for it.
        drop(dropped);
    }

    /// Waits until no job runs or waits, or the deadline.
    pub(crate) fn wait_until_idle(&self, deadline: Instant) -> bool {
        let mut state = lock(&self.state);
        loop {
            if state.threads == state.idle && state.queue.is_empty() {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            // Nobody says when a job ends, only when a thread does: looked at now and then.
            let slice = left.min(Duration::from_millis(5));
            let waited = self.ended.wait_timeout(state, slice);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for the threads of a closed pool to end; returns how many have not by the deadline.
    pub(crate) fn join(&self, deadline: Instant) -> usize {
        let mut state = lock(&self.state);
        while state.threads > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.ended.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let left = state.threads;
        let handles = std::mem::take(&mut state.handles);
        drop(state);
        if left == 0 {
            let own = thread::current().id();
            for handle in handles {
                if handle.thread().id() != own {
                    // It has caught its panics.
                    let _ = handle.join();
                }
            }
        }
        left
    }
}

/// Waits by `wait` for somebody else. On a worker, its place is free for another one meanwhile.
pub(crate) fn giving_place_away<R>(wait: impl FnOnce() -> R) -> R {
    struct Back(Arc<Pool>);
    impl Drop for Back {
        fn drop(&mut self) {
            lock(&self.0.state).waiting -= 1;
            OWN.set(Some(Arc::clone(&self.0)));
        }
    }
    // Whoever waits within a wait, in a callback say, has only one place to give.
    let own = OWN.take();
    let _back = own.map(|pool| {
        let mut state = lock(&pool.state);
        state.waiting += 1;
        pool.staff(&mut state);
        drop(state);
        Back(pool)
    });
    wait()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn pool(places: usize) -> Arc<Pool> {
        Pool::new("test", places, 256 * 1024, None)
    }

    #[test]
    fn one_place_runs_one_job_at_a_time_in_order() {
        let pool = pool(1);
        let (tell, told) = mpsc::channel();
        for number in 0..20 {
            let tell = tell.clone();
            assert!(pool.submit(Box::new(move || tell.send(number).unwrap())).is_ok());
        }
        assert_eq!(told.iter().take(20).collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
        assert!(pool.wait_until_idle(Instant::now() + Duration::from_secs(60)));
        assert_eq!(lock(&pool.state).threads, 1);
        pool.close();
        assert_eq!(pool.join(Instant::now() + Duration::from_secs(60)), 0);
    }

    #[test]
    fn whoever_waits_lets_others_work() {
        let pool = pool(1);
        let (tell, told) = mpsc::channel();
        let inner = Arc::clone(&pool);
        let nested = move || {
            let (done, wait) = mpsc::channel();
            let innermost = Arc::clone(&inner);
            let job = move || {
                let (done_too, wait) = mpsc::channel();
                let job = move || done_too.send(1).unwrap();
                assert!(innermost.submit(Box::new(job)).is_ok());
                let number: i32 = giving_place_away(|| wait.recv().unwrap());
                done.send(number + 1).unwrap();
            };
            assert!(inner.submit(Box::new(job)).is_ok());
            let number = giving_place_away(|| wait.recv().unwrap());
            tell.send(number + 1).unwrap();
        };
        assert!(pool.submit(Box::new(nested)).is_ok());
        assert_eq!(told.recv(), Ok(3));
        pool.close();
        assert_eq!(pool.join(Instant::now() + Duration::from_secs(60)), 0);
    }

    #[test]
    fn a_wait_within_a_wait_gives_one_place_away() {
        let pool = pool(2);
        let (tell, told) = mpsc::channel();
        let inner = Arc::clone(&pool);
        let waiting = move || {
            let number = || lock(&inner.state).waiting;
            let within = giving_place_away(|| (giving_place_away(number), number()));
            tell.send((within, number(), giving_place_away(number))).unwrap();
        };
        assert!(pool.submit(Box::new(waiting)).is_ok());
        assert_eq!(told.recv(), Ok(((1, 1), 0, 1)));
        pool.close();
        assert_eq!(pool.join(Instant::now() + Duration::from_secs(60)), 0);
    }

    #[test]
    fn a_job_without_a_thread_is_given_back() {
        // No thread can have such a stack.
        let pool = Pool::new("test", 1, 1 << 46, None);
        assert!(pool.submit(Box::new(|| ())).is_err());
        assert_eq!(pool.queued(), 0);
    }

    #[test]
    fn a_panic_costs_a_job_and_no_worker() {
        let pool = pool(1);
        let (tell, told) = mpsc::channel();
        assert!(pool.submit(Box::new(|| panic!("on purpose"))).is_ok());
        assert!(pool.submit(Box::new(move || tell.send(()).unwrap())).is_ok());
        assert_eq!(told.recv(), Ok(()));
        pool.close();
        assert!(pool.submit(Box::new(|| ())).is_err());
        assert_eq!(pool.join(Instant::now() + Duration::from_secs(60)), 0);
    }
}
