//! The thread that ends what is over, so that memory is free when its time has come and not when
//! somebody next asks for something.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::Key;
use crate::shared::Shared;
use crate::sync;

pub(crate) struct Timer(Option<JoinHandle<()>>);

impl Timer {
    pub(crate) fn start<K, V, E>(shared: Arc<Shared<K, V, E>>) -> io::Result<Self>
    where
        K: Key,
        V: Send + Sync + 'static,
        E: Send + Sync + 'static,
    {
        let builder = thread::Builder::new().name("tensor-cache".to_owned());
        Ok(Self(Some(builder.spawn(move || run(&shared))?)))
    }

    /// Waits for the end of the thread, which was asked for.
    pub(crate) fn join(&mut self) {
        let Some(thread) = self.0.take() else { return };
        // A value that the timer drops may own the last handle of its cache.
        if thread.thread().id() != thread::current().id() {
            // It runs no code that can panic past it.
            let _ = thread.join();
        }
    }
}

fn run<K: Key, V, E>(shared: &Shared<K, V, E>) {
    loop {
        // Any step ends what is over; what it lets go of is dropped here, without the lock.
        shared.with(|_, _| ());
        let mut state = shared.lock();
        if state.is_stopping {
            return;
        }
        let next = state.machine.next_alarm();
        let left = next.map(|next| next.saturating_sub(shared.now()));
        if left == Some(0) {
            continue;
        }
        state.timer_sleeps_until = Some(next.unwrap_or(u64::MAX));
        state = sync::wait(&shared.timer, state, left.map(Duration::from_nanos));
        state.timer_sleeps_until = None;
    }
}
