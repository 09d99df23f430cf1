//! Hashing of numbers that nobody chooses.
//!
//! Objects, sessions, builds and waiters are numbered by a counter of this crate. A map of them holds
//! only such numbers, whatever is looked up in it, so nobody can bring about collisions, and a hash
//! that costs one multiplication will do (multiplicative hashing, Knuth, The Art of Computer
//! Programming 3, 6.4).

use std::hash::Hasher;

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NumberHash(u64);

/// 2^64 divided by the golden ratio, and odd.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

impl Hasher for NumberHash {
    fn finish(&self) -> u64 {
        // The maps look at the highest and at the lowest bits; a product is good at the highest.
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(FACTOR);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::HashSet;
    use std::hash::{BuildHasher, BuildHasherDefault};

    use super::*;
    use crate::ObjectId;

    #[test]
    fn numbers_in_a_row_spread_over_both_ends() {
        let builder = BuildHasherDefault::<NumberHash>::default();
        for step in [1, 2, 3, 64, 4096] {
            let hashes = (0..4096).map(|at| builder.hash_one(ObjectId::from_raw(at * step)));
            let (mut high, mut low) = (HashSet::new(), [0_u32; 4096]);
            for hash in hashes {
                high.insert(hash >> 57);
                low[(hash & 4095) as usize] += 1;
            }
            assert_eq!(high.len(), 128);
            // By chance 63 % of the places are taken, and none by more than about eight.
            let taken = low.iter().filter(|count| **count > 0).count();
            assert!(taken > 2000, "{taken} places for a step of {step}");
            assert!(low.iter().all(|count| *count < 32), "for a step of {step}");
        }
    }
}
