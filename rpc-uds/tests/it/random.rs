//! Chance that can be had again.

/// A generator whose whole state is a seed (xorshift64, Marsaglia 2003).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }

    /// Changes one byte from `from` on, to another value.
    pub(crate) fn mutate(&mut self, bytes: &mut [u8], from: usize) {
        let at = from + self.below(bytes.len() - from);
        bytes[at] ^= 1 + self.below(255) as u8;
    }
}
