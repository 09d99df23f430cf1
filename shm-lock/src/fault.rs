//! The hook that lets a test break any kernel call of this crate.
//!
//! Under `--cfg st_fault` the n-th call, n from `ST_FAULT_AT`, either fails (`ST_FAULT=error`) or
//! kills the process before it is made (`ST_FAULT=kill`). In every other build the hook is
//! nothing.

use std::io;

#[cfg(not(st_fault))]
#[expect(clippy::unnecessary_wraps, reason = "the faulty build of this function does fail")]
#[inline]
pub(crate) fn point(_operation: &str) -> io::Result<()> {
    Ok(())
}

#[cfg(st_fault)]
pub(crate) fn point(operation: &str) -> io::Result<()> {
    plan::pass(operation)
}

/// How many calls have been passed so far, the broken one included.
#[cfg(st_fault)]
pub fn passed() -> u64 {
    plan::PASSED.load(std::sync::atomic::Ordering::Relaxed)
}

#[cfg(st_fault)]
mod plan {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::{env, io};

    use rustix::process::{Signal, getpid, kill_process};

    pub(super) static PASSED: AtomicU64 = AtomicU64::new(0);

    struct Plan {
        at: u64,
        kill: bool,
    }

    fn plan() -> Option<&'static Plan> {
        static PLAN: OnceLock<Option<Plan>> = OnceLock::new();
        let read = || {
            let at = env::var("ST_FAULT_AT").ok()?.parse().ok()?;
            let kill = env::var("ST_FAULT").ok()? == "kill";
            Some(Plan { at, kill })
        };
        PLAN.get_or_init(read).as_ref()
    }

    pub(super) fn pass(operation: &str) -> io::Result<()> {
        let passed = PASSED.fetch_add(1, Ordering::Relaxed) + 1;
        match plan() {
            Some(plan) if plan.at == passed => {
                if plan.kill {
                    kill_process(getpid(), Signal::KILL)?;
                }
                Err(io::Error::other(format!("fault injected at call {passed}, `{operation}`")))
            }
            _ => Ok(()),
        }
    }
}
