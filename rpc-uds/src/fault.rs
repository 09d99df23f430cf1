//! The hook that lets a test break any kernel call of this crate.
//!
//! Under `--cfg st_fault` the n-th call, n from `ST_FAULT_AT`, either fails (`ST_FAULT=error`) or
//! kills the process before it is made (`ST_FAULT=kill`). In every other build the hook is nothing.

#[cfg(not(st_fault))]
use rustix::io::Errno;

#[cfg(not(st_fault))]
#[expect(clippy::unnecessary_wraps, reason = "the faulty build of this function does fail")]
#[inline]
pub(crate) fn point(_operation: &str) -> Result<(), Errno> {
    Ok(())
}

#[cfg(st_fault)]
pub(crate) use plan::point;

/// How many calls have been made so far, the broken one included.
#[cfg(st_fault)]
pub fn passed() -> u64 {
    plan::PASSED.load(std::sync::atomic::Ordering::Relaxed)
}

#[cfg(st_fault)]
mod plan {
    use std::env;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use rustix::io::Errno;
    use rustix::process::{Signal, getpid, kill_process};

    pub(super) static PASSED: AtomicU64 = AtomicU64::new(0);

    #[derive(Debug)]
    struct Plan {
        at: u64,
        kill: bool,
    }

    fn plan() -> Option<&'static Plan> {
        static PLAN: OnceLock<Option<Plan>> = OnceLock::new();
        let read = || {
            let at = env::var("ST_FAULT_AT").ok()?.parse().ok()?;
            Some(Plan { at, kill: env::var("ST_FAULT").ok()? == "kill" })
        };
        PLAN.get_or_init(read).as_ref()
    }

    pub(crate) fn point(operation: &str) -> Result<(), Errno> {
        let passed = PASSED.fetch_add(1, Ordering::Relaxed) + 1;
        let Some(plan) = plan().filter(|plan| plan.at == passed) else { return Ok(()) };
        eprintln!("fault: call {passed}, {operation}");
        if plan.kill {
            kill_process(getpid(), Signal::KILL)?;
        }
        Err(Errno::IO)
    }
}
