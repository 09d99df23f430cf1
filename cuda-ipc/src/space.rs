//! Which parts of a range are taken.

use std::collections::BTreeMap;

/// A range from 0 on, parts of which are taken and given back.
#[derive(Debug)]
pub(crate) struct Space {
    bytes: u64,
    /// By where they begin; no two of them touch.
    free: BTreeMap<u64, u64>,
    taken: BTreeMap<u64, u64>,
}

impl Space {
    pub(crate) fn new(bytes: u64) -> Self {
        Self { bytes, free: BTreeMap::from([(0, bytes)]), taken: BTreeMap::new() }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn is_unused(&self) -> bool {
        self.taken.is_empty()
    }

    /// Where a part of so many bytes begins that is nobody else's; the first that is large enough.
    pub(crate) fn take(&mut self, bytes: u64) -> Option<u64> {
        let (&at, &length) = self.free.iter().find(|(_, length)| **length >= bytes)?;
        self.free.remove(&at);
        if length > bytes {
            self.free.insert(at + bytes, length - bytes);
        }
        self.taken.insert(at, bytes);
        Some(at)
    }

    /// Gives back what begins there. Returns whether it was taken.
    pub(crate) fn give_back(&mut self, at: u64) -> bool {
        let Some(bytes) = self.taken.remove(&at) else { return false };
        let (mut begin, mut end) = (at, at + bytes);
        if let Some(length) = self.free.remove(&end) {
            end += length;
        }
        if let Some((&before, &length)) = self.free.range(..begin).next_back()
            && before + length == begin
        {
            begin = before;
        }
        self.free.insert(begin, end - begin);
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parts_do_not_overlap_and_all_comes_back(
            steps in proptest::collection::vec((1_u64..9, any::<bool>(), any::<prop::sample::Index>()), 1..60),
        ) {
            let mut space = Space::new(32);
            let mut mine: Vec<(u64, u64)> = Vec::new();
            for (bytes, takes, which) in steps {
                if takes {
                    if let Some(at) = space.take(bytes) {
                        prop_assert!(at + bytes <= 32);
                        prop_assert!(mine.iter().all(|(a, b)| at + bytes <= *a || a + b <= at));
                        mine.push((at, bytes));
                    } else {
                        let used: u64 = mine.iter().map(|(_, bytes)| bytes).sum();
                        prop_assert!(32 - used < bytes || space.free.len() > 1);
                    }
                } else if !mine.is_empty() {
                    let (at, _) = mine.swap_remove(which.index(mine.len()));
                    prop_assert!(space.give_back(at));
                    prop_assert!(!space.give_back(at));
                }
            }
            for (at, _) in mine {
                prop_assert!(space.give_back(at));
            }
            prop_assert!(space.is_unused());
            prop_assert_eq!(space.take(32), Some(0));
        }
    }
}
