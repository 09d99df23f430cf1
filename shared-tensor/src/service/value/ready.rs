//! When the bytes of a storage on a GPU are there.

use crate::service::owed;
use crate::service::region::{Region, RegionError};

/// A word in shared memory that a stream writes when what was queued in it before is done.
///
/// Who opens the storage has its own stream wait for that, on the device: no host waits. Words only grow,
/// and are compared as such.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    words: Region,
    index: u64,
    value: u64,
}

impl Ready {
    /// The word number `index` of `words`, from `value` on: memory of the host, writable.
    ///
    /// # Errors
    /// [`RegionError::Sealed`], if `words` cannot be written to by others too;
    /// [`RegionError::OnDevice`], if it is no memory of the host.
    pub fn new(words: &Region, index: u64, value: u64) -> Result<Self, RegionError> {
        Ok(Self { words: words.for_writers()?, index, value })
    }

    /// One that came from another process. Its word is written by us when that process dies first.
    pub(crate) fn received(
        words: &Region,
        index: u64,
        value: u64,
        writer: Option<u32>,
    ) -> Option<Self> {
        if index >= words.bytes() / size_of::<u64>() as u64 {
            return None;
        }
        let words = words.for_writers().ok()?;
        if let Some(writer) = writer {
            owed::watch(&words, writer);
        }
        Some(Self { words, index, value })
    }

    /// The memory that the word lies in.
    pub fn words(&self) -> &Region {
        &self.words
    }

    /// Which word it is.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// What it becomes at least.
    pub fn value(&self) -> u64 {
        self.value
    }

    /// Whether a word with this content says that its writer died: what it was to tell of is not there,
    /// or not whole.
    pub fn is_abandoned(word: u64) -> bool {
        word >= owed::ABANDONED
    }
}
