//! Noticing a fork: the driver does not survive one.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

static GENERATION: AtomicU64 = AtomicU64::new(0);

/// The process in which something was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Generation(u64);

extern "C" fn in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
}

impl Generation {
    /// Installs the handler; without it forks would go unnoticed. Fails with an `errno`.
    pub(crate) fn watch() -> Result<Self, i32> {
        static WATCHED: OnceLock<i32> = OnceLock::new();
        // SAFETY: D4.
        let code =
            *WATCHED.get_or_init(|| unsafe { libc::pthread_atfork(None, None, Some(in_child)) });
        if code == 0 { Ok(Self::current()) } else { Err(code) }
    }

    fn current() -> Self {
        Self(GENERATION.load(Ordering::Relaxed))
    }

    pub(crate) fn is_current(self) -> bool {
        self == Self::current()
    }
}
