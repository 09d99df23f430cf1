//! How a cache is to behave.

use std::time::Duration;

use crate::Device;

/// The choices that hold for a whole cache.
#[derive(Clone, Debug)]
pub struct Options {
    pub(crate) budgets: Vec<(Device, u64)>,
    pub(crate) failures_kept: Duration,
}

impl Options {
    /// No budgets; failures are remembered for one second.
    pub fn new() -> Self {
        Self { budgets: Vec::new(), failures_kept: Duration::from_secs(1) }
    }

    /// At most `bytes` on `device`, builds that reserve included.
    #[must_use]
    pub fn budget(mut self, device: Device, bytes: u64) -> Self {
        self.budgets.push((device, bytes));
        self
    }

    /// How long the error of a failed or panicked build answers those who ask for its key, so that
    /// many clients of something broken do not try it one after the other. Zero switches it off.
    #[must_use]
    pub fn keep_failures(mut self, time: Duration) -> Self {
        self.failures_kept = time;
        self
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}
