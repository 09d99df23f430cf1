//! What the tests need and safe Rust does not offer.

use std::io;
use std::os::unix::thread::JoinHandleExt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use rustix::thread::Timespec;
use shm_core::{SharedBytes, ViewError};

/// A forked copy of this process that does nothing but exist until it is killed.
#[derive(Debug)]
pub(crate) struct IdleFork(Pid);

impl IdleFork {
    pub(crate) fn new() -> IdleFork {
        IdleFork(fork(|| {
            loop {
                let hour = Timespec { tv_sec: 3600, tv_nsec: 0 };
                let _ = rustix::thread::nanosleep(&hour);
            }
        }))
    }

    pub(crate) fn kill(self) {
        rustix::process::kill_process(self.0, Signal::KILL).expect("a child of ours");
        wait(self.0);
    }
}

/// Runs `work` in a forked child; whether it ended by itself and `work` returned true.
pub(crate) fn in_forked_child(work: impl FnOnce() -> bool) -> bool {
    wait(fork(|| i32::from(!work()))).exit_status() == Some(0)
}

/// A child that runs `work`, ends with that exit code, and dies with its parent.
fn fork(work: impl FnOnce() -> i32) -> Pid {
    // SAFETY: the child runs code of this crate that takes no lock another thread may have held.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork: {}", io::Error::last_os_error());
    let Some(child) = Pid::from_raw(pid) else {
        let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
        let code = work();
        // SAFETY: ends the child without running the parent's destructors.
        unsafe { libc::_exit(code) }
    };
    child
}

fn wait(child: Pid) -> WaitStatus {
    let waited = rustix::process::waitpid(Some(child), WaitOptions::empty());
    waited.expect("a child of ours").expect("without NOHANG there is a status").1
}

/// Loads a word, also from a read-only view.
pub(crate) fn load_u32(bytes: &SharedBytes, offset: usize) -> Result<u32, ViewError> {
    // SAFETY: four bytes are loaded, relaxed, and nothing is stored.
    unsafe { bytes.at_for_loads::<AtomicU32>(offset) }.map(|word| word.load(Ordering::Relaxed))
}

/// Runs `work` on a thread that is sent a signal about every 200 microseconds.
pub(crate) fn under_a_fast_timer<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    extern "C" fn ignore(_: libc::c_int) {}
    let handler = ignore as extern "C" fn(libc::c_int);
    // SAFETY: the handler does nothing at all.
    let old = unsafe { libc::signal(libc::SIGALRM, handler as libc::sighandler_t) };
    assert_ne!(old, libc::SIG_ERR, "signal");
    let worker = std::thread::spawn(work);
    while !worker.is_finished() {
        let started = Instant::now();
        while started.elapsed() < Duration::from_micros(200) {
            std::hint::spin_loop();
        }
        // SAFETY: the thread is joined only after this loop, so its handle is valid.
        unsafe { libc::pthread_kill(worker.as_pthread_t(), libc::SIGALRM) };
    }
    worker.join().expect("no panic")
}
