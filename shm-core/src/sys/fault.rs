//! Faults on demand: under `--cfg st_fault` every kernel call announces itself here first.
//!
//! `ST_FAULT_AT=n` picks the n-th call of this process (`n,m`: both), `ST_FAULT` what happens there:
//! `kill` (the process gets SIGKILL), `stop` (it freezes until SIGCONT), `error` (this one call
//! fails) or `error-from` (this and every later call fail). Without the cfg a point costs nothing.

#[cfg(not(st_fault))]
use std::io;

/// Announces the kernel call `name`; an error means that the call must fail instead of happening.
#[cfg(not(st_fault))]
#[inline(always)]
#[expect(clippy::unnecessary_wraps, reason = "the same signature as the one that can fail")]
#[expect(clippy::inline_always, reason = "must vanish from every build without the cfg")]
pub(crate) fn point(_name: &'static str) -> io::Result<()> {
    Ok(())
}

#[cfg(st_fault)]
pub(crate) use armed::point;

#[cfg(st_fault)]
mod armed {
    use std::io;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    enum Effect {
        Kill,
        Stop,
        Error,
        ErrorFrom,
    }

    static CALLS: AtomicU64 = AtomicU64::new(0);
    static PLAN: OnceLock<Option<(Vec<u64>, Effect)>> = OnceLock::new();

    fn plan() -> Option<&'static (Vec<u64>, Effect)> {
        let plan = PLAN.get_or_init(|| {
            let at = std::env::var("ST_FAULT_AT").ok()?;
            let at = at.split(',').map(|call| call.parse().ok()).collect::<Option<_>>()?;
            let effect = match std::env::var("ST_FAULT").ok()?.as_str() {
                "kill" => Effect::Kill,
                "stop" => Effect::Stop,
                "error" => Effect::Error,
                "error-from" => Effect::ErrorFrom,
                _ => return None,
            };
            Some((at, effect))
        });
        plan.as_ref()
    }

    pub(crate) fn point(name: &'static str) -> io::Result<()> {
        let Some((at, effect)) = plan() else { return Ok(()) };
        let call = CALLS.fetch_add(1, Ordering::Relaxed) + 1;
        match effect {
            Effect::Kill if at.contains(&call) => {
                eprintln!("fault: killed before call {call}, {name}");
                freeze_or_die(libc::SIGKILL)
            }
            Effect::Stop if at.contains(&call) => freeze_or_die(libc::SIGSTOP),
            Effect::Error if at.contains(&call) => fail(call, name),
            Effect::ErrorFrom if at.iter().any(|&first| call >= first) => fail(call, name),
            _ => Ok(()),
        }
    }

    /// Sent to this very thread, so that it takes effect before the call returns.
    fn freeze_or_die(signal: libc::c_int) -> io::Result<()> {
        // SAFETY: takes no arguments and names the calling thread, which lives.
        let this_thread = unsafe { libc::pthread_self() };
        // SAFETY: a live thread and a valid signal.
        match unsafe { libc::pthread_kill(this_thread, signal) } {
            0 => Ok(()),
            code => Err(io::Error::from_raw_os_error(code)),
        }
    }

    fn fail(call: u64, name: &'static str) -> io::Result<()> {
        eprintln!("fault: call {call}, {name}, fails");
        let code = if name == "fallocate" { libc::ENOSPC } else { libc::EIO };
        Err(io::Error::from_raw_os_error(code))
    }
}
