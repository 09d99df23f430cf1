//! A build that several may wait for.

use std::fmt;
use std::sync::Arc;

use crate::service::endpoint::{Flag, Ticker};
use crate::service::failure::Failure;

/// What those who wait for a build share.
#[derive(Default)]
pub(crate) struct Flight {
    /// Tells all of them how far it is.
    pub(crate) ticker: Arc<Ticker>,
    /// Raised when nobody wants it any more: one who gives up does not take it from the others.
    pub(crate) flag: Arc<Flag>,
}

/// How a build failed.
#[derive(Debug)]
pub(crate) struct BuildFailure {
    pub(crate) failure: Failure,
    /// It was given up, or told to stop: that says nothing to those who have come since. Told with the
    /// failure, because they may come to the build so late that nothing else is known of it any more.
    pub(crate) is_deserted: bool,
}

impl fmt::Display for BuildFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.failure.fmt(f)
    }
}

impl From<Failure> for BuildFailure {
    fn from(failure: Failure) -> Self {
        Self { failure, is_deserted: false }
    }
}

impl Flight {
    /// One more waits for it, until `wish` is raised.
    pub(crate) fn join(&self, wish: Arc<Flag>) {
        self.flag.share(wish);
    }
}
