//! Waiting for somebody who needs microseconds, without a lock that could hang for ever.

use std::thread;
use std::time::{Duration, Instant};

/// Far beyond what a live holder needs, even on a machine with many more processes than CPUs.
const LIMIT: Duration = Duration::from_secs(10);

/// Tests that freeze the holder on purpose need not wait that long for the error.
fn limit() -> Duration {
    #[cfg(st_fault)]
    if let Some(millis) = std::env::var("ST_PATIENCE_MS").ok().and_then(|text| text.parse().ok()) {
        return Duration::from_millis(millis);
    }
    LIMIT
}

/// Yields first, then sleeps longer and longer, until a limit is reached.
#[derive(Debug)]
pub(crate) struct Patience {
    started: Instant,
    turns: u32,
}

impl Patience {
    pub(crate) fn new() -> Patience {
        Patience { started: Instant::now(), turns: 0 }
    }

    /// Gives others a turn; `false` once the limit has passed.
    pub(crate) fn wait(&mut self) -> bool {
        if self.started.elapsed() > limit() {
            return false;
        }
        match self.turns {
            0..16 => thread::yield_now(),
            turns => thread::sleep(Duration::from_micros(50 << (turns - 16).min(6))),
        }
        self.turns += 1;
        true
    }
}
