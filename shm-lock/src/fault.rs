//! The hook that lets a test break any kernel call of this crate.
//!
//! Under `--cfg st_fault` the n-th call, n from `ST_FAULT_AT`, either fails with `EIO`
//! (`ST_FAULT=error`) or kills the process before it is made (`ST_FAULT=kill`). In every other
//! build the hook is nothing.

#[cfg(st_fault)]
pub(crate) fn point(operation: &str) -> std::io::Result<()> {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static PASSED: AtomicU64 = AtomicU64::new(0);
    static PLAN: OnceLock<Option<(u64, String)>> = OnceLock::new();

    let plan = PLAN.get_or_init(|| {
        let at = std::env::var("ST_FAULT_AT").ok()?.parse().ok()?;
        Some((at, std::env::var("ST_FAULT").ok()?))
    });
    let Some((at, kind)) = plan else { return Ok(()) };
    if PASSED.fetch_add(1, Ordering::Relaxed) + 1 != *at {
        return Ok(());
    }
    if kind == "kill" {
        let me = rustix::process::getpid();
        rustix::process::kill_process(me, rustix::process::Signal::KILL)?;
    }
    let text = format!("fault injected at operation {at}, `{operation}`");
    Err(std::io::Error::other(text))
}

#[cfg(not(st_fault))]
#[expect(clippy::unnecessary_wraps, reason = "the faulty build of this function does fail")]
#[inline]
pub(crate) fn point(_operation: &str) -> std::io::Result<()> {
    Ok(())
}
