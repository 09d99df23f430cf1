//! Random choices that can be made again.

use std::time::{SystemTime, UNIX_EPOCH};

/// A small generator of numbers (splitmix64). A test that fails prints the number it started from.
#[derive(Debug)]
pub struct Seed {
    start: u64,
    state: u64,
}

impl Seed {
    /// The one in the variable `ST_SEED`, decimal or with `0x`, or a new one from the clock.
    ///
    /// # Panics
    /// When the variable holds something else.
    pub fn from_environment() -> Self {
        let Ok(text) = std::env::var("ST_SEED") else {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            return Self::new(mix(now.as_nanos() as u64 ^ u64::from(std::process::id())));
        };
        let parsed = match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => text.parse(),
        };
        Self::new(parsed.unwrap_or_else(|_| panic!("ST_SEED is `{text}`, not a number")))
    }

    /// One that always makes the same choices.
    pub const fn new(start: u64) -> Self {
        Self { start, state: start }
    }

    /// The number to start from to make the same choices again.
    pub const fn start(&self) -> u64 {
        self.start
    }

    /// Any number.
    pub const fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }

    /// A number from zero to less than `bound`.
    ///
    /// # Panics
    /// When `bound` is zero.
    pub const fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "nothing is below zero");
        // The high half of the product: even enough for tests, and without a loop.
        ((self.number() as u128 * bound as u128) >> 64) as u64
    }

    /// True once in `n` times.
    pub const fn once_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of them.
    ///
    /// # Panics
    /// When there are none.
    pub const fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len() as u64) as usize]
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("to make the same choices again: ST_SEED={:#x}", self.start);
        }
    }
}

const fn mix(state: u64) -> u64 {
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

#[cfg(test)]
mod tests {
    use super::Seed;

    #[test]
    fn the_same_seed_makes_the_same_choices() {
        let numbers = |start| {
            let mut seed = Seed::new(start);
            [seed.number(), seed.below(1000), *seed.pick(&[1, 2, 3])]
        };
        assert_eq!(numbers(7), numbers(7));
        assert_ne!(numbers(7), numbers(8));
    }

    #[test]
    fn the_published_sequence_of_splitmix64_comes_out() {
        let mut seed = Seed::new(1_234_567);
        assert_eq!(seed.number(), 6_457_827_717_110_365_317);
        assert_eq!(seed.number(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn bounds_hold_and_are_reached() {
        let mut seed = Seed::new(1);
        let mut reached = [false; 5];
        for _ in 0..1000 {
            reached[seed.below(5) as usize] = true;
        }
        assert_eq!(reached, [true; 5]);
    }
}
