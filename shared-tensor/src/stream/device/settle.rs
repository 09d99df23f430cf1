//! Frames that are on their way when their process ends.
//!
//! A frame is published when the work that fills it has been queued, and a process that ends takes such
//! work with it. One that ends of its own accord is kept until the work is done.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use shm_lock::PerProcess;

use crate::stream::device::seat::Taken;
use crate::sys;

/// How long the end of a process is held up. Frames may wait for the devices of others, which may be
/// stopped.
const AT_EXIT: Duration = Duration::from_secs(5);
/// How often it is looked.
const LOOK: (Duration, Duration) = (Duration::from_micros(50), Duration::from_millis(2));

static TAKEN: PerProcess<Mutex<Vec<Weak<Taken>>>> = PerProcess::new();

/// Has the end of the process wait for what is written from a seat.
pub(super) fn note(taken: &Arc<Taken>) {
    let mut is_first = false;
    let all = TAKEN.get_or_init(|| {
        is_first = true;
        Mutex::default()
    });
    {
        let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|it| it.strong_count() > 0);
        all.push(Arc::downgrade(taken));
    }
    if is_first {
        sys::at_exit(at_exit);
    }
}

/// Has others know of what this process's GPUs do not do any more, as their contexts are lost.
pub(super) fn tell_if_lost() {
    for taken in of_this_process() {
        taken.tell_if_lost();
    }
}

fn of_this_process() -> Vec<Arc<Taken>> {
    let Some(all) = TAKEN.get() else { return Vec::new() };
    let all = all.lock().unwrap_or_else(PoisonError::into_inner);
    all.iter().filter_map(Weak::upgrade).collect()
}

/// Waits until every frame is there that GPUs were told to make by this process, and not longer than until
/// `deadline`. Whether they are.
///
/// A process that returns from `main`, or calls `exit`, does so by itself, for up to 5 s. One that ends
/// otherwise loses the frames that are not there yet, to whose readers the last whole one is given.
pub fn settle(deadline: Instant) -> bool {
    let mut pause = LOOK.0;
    loop {
        if of_this_process().iter().all(|it| it.has_written()) {
            return true;
        }
        // A context that is lost makes nothing any more.
        if Instant::now() >= deadline || cuda_ipc::lost().is_some() {
            return false;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(LOOK.1);
    }
}

extern "C" fn at_exit() {
    settle(Instant::now() + AT_EXIT);
}
