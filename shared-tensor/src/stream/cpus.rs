//! How many CPUs this thread may run on.

use rustix::thread::sched_getaffinity;

/// Whether there is only one, so that whoever is waited for cannot run meanwhile.
///
/// One system call, where the standard library's `available_parallelism` also reads the cgroup's
/// files: some 25 us, much for making a reader and for a copy. A CPU quota is no reason not to run
/// two threads at once.
pub(crate) fn is_single() -> bool {
    sched_getaffinity(None).is_ok_and(|cpus| cpus.count() == 1)
}
