//! Fuzz targets: everything that decodes what another process sent.
//!
//! A target is a function of any bytes that panics when a promise is broken, and valid encodings to
//! begin with. `cargo xtask fuzz` runs them under libFuzzer; docs/TESTING.md says how.

#[path = "../../rpc-uds/tests/it/feed.rs"]
mod feed;
mod heap;
#[expect(unsafe_code, reason = "an allocator that counts")]
mod sys;

pub mod frame;
pub mod handshake;
pub mod manifest;
pub mod value;

/// A target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// What it is called, as is the program that fuzzes it.
    pub name: &'static str,
    /// What is done with an input.
    pub run: fn(&[u8]),
    /// Valid encodings.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All targets.
pub const TARGETS: [Target; 4] = [
    Target { name: "frame", run: frame::run, seeds: frame::seeds },
    Target { name: "handshake", run: handshake::run, seeds: handshake::seeds },
    Target { name: "manifest", run: manifest::run, seeds: manifest::seeds },
    Target { name: "value", run: value::run, seeds: value::seeds },
];

#[cfg(test)]
mod tests {
    use super::TARGETS;

    /// A small generator: what is drawn need not be good, only the same in every run.
    struct Random(u64);

    impl Random {
        fn below(&mut self, limit: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % limit.max(1) as u64) as usize
        }
    }

    #[test]
    fn seeds_and_what_is_near_them_keep_the_promises() {
        let mut random = Random(0x5eed);
        for target in TARGETS {
            let seeds = (target.seeds)();
            assert!(!seeds.is_empty());
            for seed in seeds {
                (target.run)(&seed);
                for _ in 0..500 {
                    let mut spoilt = seed.clone();
                    for _ in 0..=random.below(3) {
                        let at = random.below(spoilt.len());
                        match random.below(4) {
                            0 => spoilt.truncate(at),
                            1 => spoilt.insert(at, random.below(256) as u8),
                            _ if spoilt.is_empty() => {}
                            _ => spoilt[at] = random.below(256) as u8,
                        }
                    }
                    (target.run)(&spoilt);
                }
            }
        }
    }
}
