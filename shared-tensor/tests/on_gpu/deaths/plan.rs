//! How large, how many, and for how long.

use std::time::Duration;

/// For how many seconds a soak is to go on, where that is longer than its arguments say.
const SECONDS: &str = "ST_SOAK_S";

#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Bytes of a frame.
    pub(crate) bytes: u64,
    pub(crate) slots: usize,
    /// How many frames a writer that is killed may be ahead of its device.
    pub(crate) ahead: u64,
    /// How many processes are killed.
    pub(crate) kills: usize,
    /// How many of them are there at a time, at most.
    pub(crate) at_once: usize,
    /// How many processes read meanwhile.
    pub(crate) readers: usize,
    /// For how long it goes on where nobody is killed.
    pub(crate) seconds: u64,
    /// Which random numbers come.
    pub(crate) seed: u64,
}

impl Plan {
    /// From arguments of the form `--name=number`; the others are for somebody else.
    pub(crate) fn read(arguments: impl Iterator<Item = String>) -> Self {
        let mut plan = Self {
            bytes: 24_000,
            slots: 4,
            ahead: 3,
            kills: 24,
            at_once: 6,
            readers: 2,
            seconds: 1,
            seed: 1,
        };
        for argument in arguments {
            let Some((name, number)) = argument.split_once('=') else { continue };
            let Ok(number) = number.parse::<u64>() else { continue };
            let few = usize::try_from(number).expect("64 bits");
            match name {
                "--bytes" => plan.bytes = number,
                "--slots" => plan.slots = few,
                "--ahead" => plan.ahead = number,
                "--kills" => plan.kills = few,
                "--at-once" => plan.at_once = few,
                "--readers" => plan.readers = few,
                "--seconds" => plan.seconds = number,
                "--seed" => plan.seed = number,
                _ => {}
            }
        }
        assert!(plan.bytes.is_multiple_of(16) && plan.bytes > 0, "words, and halves of them");
        assert!(
            plan.slots >= 3
                && plan.ahead > 0
                && plan.kills > 0
                && plan.at_once > 0
                && plan.readers > 0
        );
        plan
    }

    /// Whether a writer that is as far ahead as it may be finds a slot whose frame is complete, beside that of
    /// the last whole one.
    pub(crate) fn never_claims_incomplete(&self) -> bool {
        self.ahead < self.slots as u64
    }

    /// What others of this program read it from.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let Self { bytes, slots, ahead, .. } = self;
        vec![format!("--bytes={bytes}"), format!("--slots={slots}"), format!("--ahead={ahead}")]
    }

    pub(crate) fn duration(&self) -> Duration {
        let asked = std::env::var(SECONDS).ok().and_then(|text| text.parse::<f64>().ok());
        Duration::from_secs(self.seconds).max(Duration::from_secs_f64(asked.unwrap_or(0.0)))
    }
}

/// Numbers that look random, and are the same again for the same seed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// One of `0..count`.
    pub(crate) fn below(&mut self, count: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % count
    }
}
