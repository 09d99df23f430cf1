//! Views of plain atomics as the words of this crate (S3).

use std::mem::align_of;

use crate::broadcast::Broadcast;
use crate::roster::{Participant, Roster};
use crate::sync::atomic::{AtomicU32, AtomicU64};
use crate::word::LockWord;

impl LockWord {
    /// Views an atomic that lives in shared memory as a lock word.
    pub fn from_atomic(word: &AtomicU32) -> &Self {
        let word: *const AtomicU32 = word;
        // SAFETY: S3, `LockWord` is `repr(transparent)` over the type pointed to.
        unsafe { &*word.cast::<Self>() }
    }
}

impl Broadcast {
    /// Views an atomic that lives in shared memory as a broadcast word.
    pub fn from_atomic(word: &AtomicU32) -> &Self {
        let word: *const AtomicU32 = word;
        // SAFETY: S3, `Broadcast` is `repr(transparent)` over the type pointed to.
        unsafe { &*word.cast::<Self>() }
    }
}

impl Participant {
    /// Views sixteen words that live in shared memory as an entry of the participant table;
    /// `None` unless they are aligned to 128 bytes.
    #[expect(clippy::cast_ptr_alignment, reason = "checked before the pointer is used")]
    pub fn from_words(words: &[AtomicU64; 16]) -> Option<&Self> {
        let words: *const [AtomicU64; 16] = words;
        let entry = words.cast::<Self>();
        // SAFETY: S3, sixteen atomics of the same width in `repr(C)`; alignment just checked.
        (entry.addr() % align_of::<Self>() == 0).then(|| unsafe { &*entry })
    }
}

impl Roster {
    /// Views sixteen words that live in shared memory as the head of the participant table;
    /// `None` unless they are aligned to 128 bytes.
    #[expect(clippy::cast_ptr_alignment, reason = "checked before the pointer is used")]
    pub fn from_words(words: &[AtomicU64; 16]) -> Option<&Self> {
        let words: *const [AtomicU64; 16] = words;
        let head = words.cast::<Self>();
        // SAFETY: S3, sixteen atomics of the same width in `repr(C)`; alignment just checked.
        (head.addr() % align_of::<Self>() == 0).then(|| unsafe { &*head })
    }
}

/// Lends the low half of `word` to a futex call.
///
/// The half must only be passed to the kernel: Rust code that accessed it would mix access
/// sizes, which its memory model does not allow.
#[cfg(not(loom))]
pub(crate) fn with_low_half<T>(word: &AtomicU64, call: impl FnOnce(&AtomicU32) -> T) -> T {
    let halves: *const AtomicU64 = word;
    let low = halves.cast::<AtomicU32>();
    let low = if cfg!(target_endian = "big") { low.wrapping_add(1) } else { low };
    // SAFETY: both halves lie within the eight bytes of `word`, and four-byte alignment follows
    // from its own; the callers in `sync::futex` make no access, only the kernel does.
    call(unsafe { &*low })
}
