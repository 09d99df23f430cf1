//! What cached results are found by.

use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex};

use super::Call;
use crate::service::failure::Failure;
use crate::service::monitor::lock;

type Compute = dyn Fn(&Call) -> Result<String, Failure> + Send + Sync;

/// What tells the cached results of one endpoint apart.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum KeyRule {
    /// Nothing: there is one, whatever the arguments.
    #[default]
    Endpoint,
    /// Nothing: there is one, known by this text.
    Constant(Arc<str>),
    /// The arguments, value by value, texts of any length included. Calls with tensors are refused:
    /// their bytes may change.
    Arguments,
    /// A text computed from the arguments. It must always be the same for the same arguments: for
    /// those without tensors it is remembered.
    Computed(Arc<Compute>),
}

impl KeyRule {
    /// The rule that `compute` is.
    pub fn computed(
        compute: impl Fn(&Call) -> Result<String, Failure> + Send + Sync + 'static,
    ) -> Self {
        Self::Computed(Arc::new(compute))
    }
}

impl fmt::Debug for KeyRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoint => f.write_str("Endpoint"),
            Self::Constant(text) => f.debug_tuple("Constant").field(text).finish(),
            Self::Arguments => f.write_str("Arguments"),
            Self::Computed(_) => f.write_str("Computed(..)"),
        }
    }
}

/// An endpoint and what one of its results is found by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CacheKey {
    pub(crate) endpoint: Arc<str>,
    pub(crate) entry: Entry,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Text(Arc<str>),
    /// Arguments as they came; equal ones have equal bytes.
    Bytes(Arc<[u8]>),
}

impl Hash for CacheKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Within one endpoint all keys are of one form.
        match &self.entry {
            Entry::Text(text) => (&self.endpoint, text).hash(state),
            Entry::Bytes(bytes) => (&self.endpoint, bytes).hash(state),
        }
    }
}

impl CacheKey {
    /// The text that stands for it in what clients are told.
    pub(crate) fn text(&self) -> String {
        match &self.entry {
            Entry::Text(text) => text.to_string(),
            Entry::Bytes(bytes) => digest(bytes),
        }
    }
}

impl tensor_cache::Key for CacheKey {
    type Group = Arc<str>;

    fn group(&self) -> Arc<str> {
        Arc::clone(&self.endpoint)
    }

    fn name(&self) -> String {
        format!("{}/{}", self.endpoint, self.text())
    }
}

/// 32 hexadecimal digits that are likely to differ where the bytes do: FNV-1a with 128 bits
/// (Fowler, Noll and Vo, draft-eastlake-fnv).
pub(crate) fn digest(bytes: &[u8]) -> String {
    let mut hash = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128;
    for byte in bytes {
        hash ^= u128::from(*byte);
        hash = hash.wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
    }
    format!("{hash:032x}")
}

/// Keys that were computed before, by the bytes of the arguments.
#[derive(Debug, Default)]
pub(crate) struct Memo {
    known: Mutex<HashMap<Arc<[u8]>, Arc<str>>>,
}

/// How many keys are remembered, and of how long arguments.
const MEMO_ENTRIES_MAX: usize = 4096;
const MEMO_BYTES_MAX: usize = 4096;

impl Memo {
    pub(crate) fn find(&self, arguments: &[u8]) -> Option<Arc<str>> {
        lock(&self.known).get(arguments).cloned()
    }

    pub(crate) fn keep(&self, arguments: &[u8], key: &Arc<str>) {
        if arguments.len() > MEMO_BYTES_MAX {
            return;
        }
        let mut known = lock(&self.known);
        if known.len() >= MEMO_ENTRIES_MAX {
            // Computing some of them again is cheaper than keeping books of their use.
            known.clear();
        }
        known.insert(arguments.into(), Arc::clone(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_the_draft() {
        assert_eq!(digest(b""), "6c62272e07bb014262b821756295c58d");
        assert_eq!(digest(b"a"), "d228cb696f1a8caf78912b704e4a8964");
    }

    #[test]
    fn the_memo_is_bounded() {
        let memo = Memo::default();
        for number in 0..10_000_u32 {
            memo.keep(&number.to_le_bytes(), &"key".into());
            assert!(memo.find(&number.to_le_bytes()).is_some());
            assert!(lock(&memo.known).len() <= MEMO_ENTRIES_MAX);
        }
        memo.keep(&[0; MEMO_BYTES_MAX + 1], &"key".into());
        assert_eq!(memo.find(&[0; MEMO_BYTES_MAX + 1]), None);
    }
}
