//! A build that several may wait for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::service::endpoint::{Flag, Ticker};

/// What those who wait for a build share.
#[derive(Default)]
pub(crate) struct Flight {
    /// Tells all of them how far it is.
    pub(crate) ticker: Arc<Ticker>,
    /// Raised when nobody wants it any more: one who gives up does not take it from the others.
    pub(crate) flag: Arc<Flag>,
    was_given_up: AtomicBool,
}

impl Flight {
    /// One more waits for it, until `wish` is raised.
    pub(crate) fn join(&self, wish: Arc<Flag>) {
        self.flag.share(wish);
    }

    /// It ends without having begun: nobody wants it.
    pub(crate) fn give_up(&self) {
        self.was_given_up.store(true, Ordering::Release);
    }

    /// Whether its failure says nothing to those who have come since it was given up, or told to stop.
    pub(crate) fn was_deserted(&self) -> bool {
        self.was_given_up.load(Ordering::Acquire) || self.flag.was_heard()
    }
}
