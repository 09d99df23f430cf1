//! What all threads of a server share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use super::ServerOptions;
use super::flusher::Flusher;
use super::link::Link;
use super::roster::Roster;
use super::stats::Counters;
use crate::deadline::after;
use crate::gate::Gate;
use crate::sync::{lock, sleep};
use crate::sys::Generation;

#[derive(Debug)]
pub(crate) struct Hub {
    pub(super) options: ServerOptions,
    pub(super) generation: Generation,
    pub(super) counters: Counters,
    /// Requests in progress; closed when the server stops.
    pub(super) gate: Arc<Gate>,
    is_over: AtomicBool,
    pub(super) flusher: Flusher,
    /// Connections with something queued.
    pub(super) backlog: Tally,
    /// Bytes of what was queued that have gone to clients.
    pub(super) flushed: AtomicU64,
    /// Threads of connections and workers.
    pub(super) threads: Tally,
    /// What they are at.
    pub(super) roster: Roster,
    links: Mutex<HashMap<u64, Arc<Link>>>,
}

impl Hub {
    pub(super) fn new(options: ServerOptions, flusher: Flusher, generation: Generation) -> Self {
        Self {
            options,
            generation,
            counters: Counters::default(),
            gate: Arc::new(Gate::new()),
            is_over: AtomicBool::new(false),
            flusher,
            backlog: Tally::default(),
            flushed: AtomicU64::new(0),
            threads: Tally::default(),
            roster: Roster::default(),
            links: Mutex::new(HashMap::new()),
        }
    }

    pub(super) fn add(&self, link: &Arc<Link>) {
        lock(&self.links).insert(link.id, Arc::clone(link));
    }

    pub(super) fn remove(&self, id: u64) {
        let mut links = lock(&self.links);
        drop(links.remove(&id));
    }

    pub(super) fn link(&self, id: u64) -> Option<Arc<Link>> {
        lock(&self.links).get(&id).cloned()
    }

    pub(super) fn links(&self) -> Vec<Arc<Link>> {
        lock(&self.links).values().cloned().collect()
    }

    pub(super) fn connections(&self) -> usize {
        lock(&self.links).len()
    }

    /// The grace is over, for all clients at once: who is freed by the end of one's request must not
    /// begin another's.
    pub(super) fn end_grace(&self) {
        self.is_over.store(true, Ordering::Release);
    }

    /// Whether no request is begun or answered any more.
    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// Counts a thread until what is returned is dropped; a panic drops it as well.
    pub(super) fn thread(hub: &Arc<Self>) -> Alive {
        hub.threads.begin();
        Alive(Arc::clone(hub))
    }

    /// Waits until nothing is queued for anybody, as long as somebody reads at least every
    /// `patience`.
    pub(super) fn wait_for_readers(&self, deadline: Instant, patience: Duration) {
        loop {
            let before = self.flushed.load(Ordering::Relaxed);
            let look = after(patience).min(deadline);
            let is_over = self.backlog.wait_until_none(look) == 0 || Instant::now() >= deadline;
            if is_over || self.flushed.load(Ordering::Relaxed) == before {
                return;
            }
        }
    }

    /// Waits until all threads have ended, as long as a handler may take to come back. A thread of
    /// which no handler is known to keep it is waited for, however late the machine lets it run.
    pub(super) fn wait_for_threads(&self, patience: Duration) {
        let patience = patience.max(Duration::from_millis(1));
        while self.threads.wait_until_none(after(patience)) > 0 && self.roster.anybody_waits() {}
    }
}

#[derive(Debug)]
pub(super) struct Alive(Arc<Hub>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.threads.end();
    }
}

/// A number of things that end, and somebody who waits until all have.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    count: Mutex<usize>,
    changed: Condvar,
}

impl Tally {
    pub(super) fn begin(&self) {
        *lock(&self.count) += 1;
    }

    pub(super) fn end(&self) {
        let mut count = lock(&self.count);
        *count = count.saturating_sub(1);
        if *count == 0 {
            self.changed.notify_all();
        }
    }

    /// How many are left at the deadline, or none before it.
    pub(super) fn wait_until_none(&self, deadline: Instant) -> usize {
        let mut count = lock(&self.count);
        while *count > 0 && Instant::now() < deadline {
            count = sleep(&self.changed, count, Some(deadline));
        }
        *count
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::Hub;
    use crate::server::{Flusher, ServerOptions};
    use crate::sys::Generation;

    #[test]
    fn a_thread_that_the_machine_lets_wait_is_waited_for() {
        let generation = Generation::watch().unwrap();
        let flusher = Flusher::new().unwrap();
        let hub = Arc::new(Hub::new(ServerOptions::default(), flusher, generation));
        let (alive, slate) = (Hub::thread(&hub), hub.roster.join());
        let has_run = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let has_run = Arc::clone(&has_run);
            move || {
                // What it waited for has come, and it is not its turn yet.
                slate.wait(|| std::thread::sleep(Duration::from_millis(30)));
                has_run.store(true, Ordering::SeqCst);
                drop((slate, alive));
            }
        });
        hub.wait_for_threads(Duration::from_millis(1));
        assert!(has_run.load(Ordering::SeqCst));
        thread.join().unwrap();
    }

    #[test]
    fn a_thread_that_a_handler_keeps_is_not() {
        let generation = Generation::watch().unwrap();
        let flusher = Flusher::new().unwrap();
        let hub = Arc::new(Hub::new(ServerOptions::default(), flusher, generation));
        let (alive, slate) = (Hub::thread(&hub), hub.roster.join());
        slate.begin();
        hub.wait_for_threads(Duration::from_millis(1));
        drop((slate, alive));
    }
}
