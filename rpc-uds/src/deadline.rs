//! Points in time.

use std::time::{Duration, Instant};

/// As good as for ever, and far from where a clock overflows.
const FAR: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// The moment `time` from now; a time that no clock can add stands for "without end".
pub(crate) fn after(time: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(time).unwrap_or_else(|| now + FAR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_time_is_too_long() {
        let now = Instant::now();
        assert!(after(Duration::MAX) > now + Duration::from_secs(1 << 31));
        assert!(after(Duration::ZERO) >= now);
    }
}
