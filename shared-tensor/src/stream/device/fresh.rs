//! What is mostly over before anybody looks.
//!
//! Nearly all that is waited for comes within a fraction of a millisecond, some ten thousand times a second. If
//! another thread were to take each, and let go of it, the memory of each would go from one processor to another and
//! back: that took as long as a call of the driver. So whoever adds something lets go of what is over by then, and the
//! other thread takes what it has seen twice.

use std::collections::VecDeque;

/// In the order in which they came.
#[derive(Debug)]
pub(super) struct Fresh<T> {
    all: VecDeque<Item<T>>,
}

#[derive(Debug)]
struct Item<T> {
    it: T,
    is_seen: bool,
}

impl<T> Default for Fresh<T> {
    fn default() -> Self {
        Self { all: VecDeque::new() }
    }
}

impl<T> Fresh<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn push(&mut self, it: T) {
        self.all.push_back(Item { it, is_seen: false });
    }

    /// Takes the oldest one out if it is over. To be let go of when nothing is locked.
    pub(super) fn pop_if(&mut self, is_over: impl FnOnce(&T) -> bool) -> Option<T> {
        let oldest = self.all.front()?;
        if is_over(&oldest.it) { self.all.pop_front().map(|item| item.it) } else { None }
    }

    /// Takes out all but the `kept` oldest.
    pub(super) fn split_off(&mut self, kept: usize) -> Vec<T> {
        self.all.split_off(kept.min(self.all.len())).into_iter().map(|item| item.it).collect()
    }

    /// Takes out what was there at the last look already.
    pub(super) fn take_seen(&mut self) -> Vec<T> {
        // Those come first.
        let seen = self.all.iter().take_while(|item| item.is_seen).count();
        let taken = self.all.drain(..seen).map(|item| item.it).collect();
        for item in &mut self.all {
            item.is_seen = true;
        }
        taken
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_is_seen_twice_is_taken() {
        let mut fresh = Fresh::default();
        fresh.push(1);
        fresh.push(2);
        assert!(fresh.take_seen().is_empty());
        fresh.push(3);
        assert_eq!(fresh.take_seen(), [1, 2]);
        assert_eq!(fresh.take_seen(), [3]);
        assert!(fresh.is_empty());
    }

    #[test]
    fn the_oldest_goes_when_it_is_over() {
        let mut fresh = Fresh::default();
        for it in 1..=3 {
            fresh.push(it);
        }
        assert_eq!(fresh.pop_if(|it| *it == 2), None, "it is behind one that is not");
        assert_eq!(fresh.pop_if(|it| *it == 1), Some(1));
        assert_eq!(fresh.split_off(1), [3]);
        assert_eq!((fresh.len(), fresh.split_off(7)), (1, vec![]));
    }
}
