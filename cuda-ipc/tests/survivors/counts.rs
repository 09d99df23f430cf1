//! What a test counted, as a line of JSON in the file that `ST_COUNTS` names.

use std::fs::OpenOptions;
use std::io::Write;

use crate::plan::Plan;

const FILE: &str = "ST_COUNTS";

/// What readers found.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    /// Objects that were read whole.
    pub(crate) passes: u64,
    pub(crate) bytes: u64,
    /// Words that were not what they are to be.
    pub(crate) wrong: u64,
}

impl Tally {
    pub(crate) const BYTES: usize = 24;

    pub(crate) fn add(&mut self, other: Self) {
        self.passes += other.passes;
        self.bytes += other.bytes;
        self.wrong += other.wrong;
    }

    pub(crate) fn encode(self) -> [u8; Self::BYTES] {
        let mut form = [0; Self::BYTES];
        for (at, number) in [self.passes, self.bytes, self.wrong].into_iter().enumerate() {
            form[at * 8..][..8].copy_from_slice(&number.to_le_bytes());
        }
        form
    }

    pub(crate) fn decode(form: &[u8; Self::BYTES]) -> Self {
        let number =
            |at: usize| u64::from_le_bytes(form[at * 8..][..8].try_into().expect("eight bytes"));
        Self { passes: number(0), bytes: number(1), wrong: number(2) }
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) kills: usize,
    pub(crate) at_once: usize,
    pub(crate) tally: Tally,
    /// How many processes opened for the first time what others had left.
    pub(crate) first_opens: usize,
    /// What a holder took of the device beside what it holds; signed, since others use the device.
    pub(crate) holder_bytes: i64,
    /// What was free before, less what was free afterwards.
    pub(crate) missing_bytes: i64,
    pub(crate) leaked_descriptors: i64,
}

impl Counts {
    /// Adds a line, if that was asked for. `counts` can be added up over runs, `sizes` cannot.
    pub(crate) fn note(&self, name: &str, plan: &Plan) {
        let Some(path) = std::env::var_os(FILE) else { return };
        let line = format!(
            "{{\"name\": {name:?}, \"counts\": {{\"kills\": {}, \"objects_read\": {}, \
             \"bytes_read\": {}, \"wrong_words\": {}, \"first_opens\": {}, \"leaked_descriptors\": {}, \
             \"missing_bytes\": {}, \"holder_bytes\": {}}}, \"sizes\": {{\"bytes\": {}, \
             \"chunk_bytes\": {}, \"at_once\": {}, \"readers\": {}}}}}\n",
            self.kills,
            self.tally.passes,
            self.tally.bytes,
            self.tally.wrong,
            self.first_opens,
            self.leaked_descriptors,
            self.missing_bytes,
            self.holder_bytes,
            plan.bytes,
            plan.chunk,
            self.at_once,
            plan.readers,
        );
        let file = OpenOptions::new().append(true).create(true).open(path);
        let noted = file.and_then(|mut file| file.write_all(line.as_bytes()));
        noted.expect("the file named by ST_COUNTS can be written");
    }
}
