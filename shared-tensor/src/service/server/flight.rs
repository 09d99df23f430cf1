//! A build that several may wait for.

use std::sync::{Arc, Mutex};

use crate::service::endpoint::{Flag, Ticker};
use crate::service::monitor::lock;

/// What those who wait for a build share.
#[derive(Default)]
pub(crate) struct Flight {
    /// Tells all of them how far it is.
    pub(crate) ticker: Arc<Ticker>,
    /// One for each; raised by who does not want it any more.
    wishes: Mutex<Vec<Arc<Flag>>>,
}

impl Flight {
    /// One more waits for it.
    pub(crate) fn join(&self, wish: Arc<Flag>) {
        lock(&self.wishes).push(wish);
    }

    /// Raised when nobody wants it any more: one who gives up does not take it from the others.
    pub(crate) fn flag(self: &Arc<Self>) -> Arc<Flag> {
        let flag = Flag::default();
        let own = Arc::downgrade(self);
        flag.watch(move || own.upgrade().is_some_and(|flight| flight.is_deserted()));
        Arc::new(flag)
    }

    fn is_deserted(&self) -> bool {
        let wishes = lock(&self.wishes);
        !wishes.is_empty() && wishes.iter().all(|wish| wish.is_raised())
    }
}
