//! Faults on demand: under `--cfg st_fault` every kernel call announces itself here first.
//!
//! `ST_FAULT_AT=n` picks the n-th call of this process, `ST_FAULT` what happens there:
//! `kill` (the process gets SIGKILL), `error` (this one call fails) or `error-from` (this and
//! every later call fail). Without the cfg a point costs nothing.

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

    #[derive(Clone, Copy)]
    enum Effect {
        Kill,
        Error,
        ErrorFrom,
    }

    static CALLS: AtomicU64 = AtomicU64::new(0);
    static PLAN: OnceLock<Option<(u64, Effect)>> = OnceLock::new();

    fn plan() -> Option<(u64, Effect)> {
        *PLAN.get_or_init(|| {
            let at = std::env::var("ST_FAULT_AT").ok()?.parse().ok()?;
            let effect = match std::env::var("ST_FAULT").ok()?.as_str() {
                "kill" => Effect::Kill,
                "error" => Effect::Error,
                "error-from" => Effect::ErrorFrom,
                _ => return None,
            };
            Some((at, effect))
        })
    }

    pub(crate) fn point(name: &'static str) -> io::Result<()> {
        let Some((at, effect)) = plan() else { return Ok(()) };
        let call = CALLS.fetch_add(1, Ordering::Relaxed) + 1;
        match effect {
            Effect::Kill if call == at => {
                eprintln!("fault: killed before call {call}, {name}");
                let me = rustix::process::getpid();
                let _ = rustix::process::kill_process(me, rustix::process::Signal::KILL);
                Ok(())
            }
            Effect::Error if call == at => fail(call, name),
            Effect::ErrorFrom if call >= at => fail(call, name),
            _ => Ok(()),
        }
    }

    fn fail(call: u64, name: &'static str) -> io::Result<()> {
        eprintln!("fault: call {call}, {name}, fails");
        let code = if name == "fallocate" { libc::ENOSPC } else { libc::EIO };
        Err(io::Error::from_raw_os_error(code))
    }
}
