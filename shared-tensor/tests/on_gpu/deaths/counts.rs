//! What a test counted, as a line of JSON in the file that `ST_COUNTS` names.

use std::fs::OpenOptions;
use std::io::Write;

use super::Has;
use super::plan::Plan;

const FILE: &str = "ST_COUNTS";

/// Added up over runs, each of them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) kills: usize,
    /// Frames that were compared word by word.
    pub(crate) read: u64,
    pub(crate) wrong_words: u64,
    /// Of those that were read: the last whole one in place of one that was lost.
    pub(crate) mended: u64,
    pub(crate) published: u64,
    pub(crate) leaked_descriptors: i64,
    /// Of the device: what was free before, less what was free afterwards.
    pub(crate) missing_bytes: i64,
    /// Of the host, in all processes that lived on: what they had more afterwards.
    pub(crate) grown_bytes: i64,
}

impl Counts {
    /// Notes what processes that lived on have more than before; each time anew.
    pub(crate) fn compare(&mut self, before: &[Has], now: &[Has]) {
        let pairs = || before.iter().zip(now);
        self.leaked_descriptors = pairs().map(|(one, it)| it.descriptors - one.descriptors).sum();
        self.grown_bytes = pairs().map(|(one, it)| it.bytes - one.bytes).sum();
    }

    /// Adds a line, if that was asked for.
    pub(crate) fn note(&self, name: &str, plan: &Plan) {
        let Some(path) = std::env::var_os(FILE) else { return };
        let line = format!(
            "{{\"name\": {name:?}, \"counts\": {{\"kills\": {}, \"objects_read\": {}, \
             \"bytes_read\": {}, \"wrong_words\": {}, \"mended\": {}, \"published\": {}, \
             \"leaked_descriptors\": {}, \"missing_bytes\": {}, \"grown_bytes\": {}}}, \
             \"sizes\": {{\"bytes\": {}, \"slots\": {}, \"at_once\": {}, \"readers\": {}}}}}\n",
            self.kills,
            self.read,
            self.read * plan.bytes,
            self.wrong_words,
            self.mended,
            self.published,
            self.leaked_descriptors,
            self.missing_bytes,
            self.grown_bytes,
            plan.bytes,
            plan.slots,
            plan.at_once,
            plan.readers,
        );
        let file = OpenOptions::new().append(true).create(true).open(path);
        let noted = file.and_then(|mut file| file.write_all(line.as_bytes()));
        noted.expect("the file named by ST_COUNTS can be written");
    }
}
