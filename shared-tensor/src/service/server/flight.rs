//! A build that several may wait for.

use std::sync::atomic::{AtomicBool, Ordering};
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
    /// Whether it was given up, or told to stop, because nobody wanted it.
    was_deserted: AtomicBool,
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

    /// It ends without having begun: nobody wants it.
    pub(crate) fn give_up(&self) {
        self.was_deserted.store(true, Ordering::Release);
    }

    /// Whether its failure says nothing to those who have come since.
    pub(crate) fn was_deserted(&self) -> bool {
        self.was_deserted.load(Ordering::Acquire)
    }

    fn is_deserted(&self) -> bool {
        let wishes = lock(&self.wishes);
        let is_deserted = !wishes.is_empty() && wishes.iter().all(|wish| wish.is_raised());
        if is_deserted {
            self.give_up();
        }
        is_deserted
    }
}
