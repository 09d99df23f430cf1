//! The thread that ends what is over, so that memory is free when its time has come and not when
//! somebody next asks for something.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::Key;
use crate::dropper::{Dropper, Place};
use crate::shared::Shared;
use crate::sync;

pub(crate) struct Timer {
    thread: Option<JoinHandle<()>>,
    dropper: Place,
}

impl Timer {
    pub(crate) fn start<K, V, E>(shared: Arc<Shared<K, V, E>>) -> io::Result<Self>
    where
        K: Key,
        V: Send + Sync + 'static,
        E: Send + Sync + 'static,
    {
        let builder = thread::Builder::new().name("tensor-cache".to_owned());
        let dropper = Place::default();
        let place = dropper.clone();
        let thread = builder.spawn(move || run(&shared, Dropper::new(place)))?;
        Ok(Self { thread: Some(thread), dropper })
    }

    /// Waits for the end of the thread, which was asked for, and of what it has left to another.
    pub(crate) fn join(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        // A value that the timer had to drop itself may own the last handle of its cache.
        if thread.thread().id() != thread::current().id() {
            // It runs no code that can panic past it.
            let _ = thread.join();
            self.dropper.join();
        }
    }
}

fn run<K, V, E>(shared: &Shared<K, V, E>, mut dropper: Dropper<V, E>)
where
    K: Key,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    loop {
        // Any step ends what is over.
        let ((), debris) = shared.step(|_, _| ());
        dropper.leave(debris);
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
