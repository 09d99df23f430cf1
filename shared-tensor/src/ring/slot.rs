//! One slot's words.

use crate::sync::AtomicU64;

/// One slot's sequence word and the description of the frame in it. Written by the lock holder.
#[repr(C, align(128))]
#[derive(Debug, Default)]
pub(crate) struct Slot {
    pub(crate) seq: AtomicU64,
    /// `owner` is the participant id, `owner_entry` its place in the table.
    pub(crate) owner: AtomicU64,
    pub(crate) owner_entry: AtomicU64,
    pub(crate) frame_id: AtomicU64,
    pub(crate) published_unix_ns: AtomicU64,
    pub(crate) published_monotonic_ns: AtomicU64,
    pub(crate) acquired_unix_ns: AtomicU64,
    /// Bit 0: `frame_id` was given with this frame; bit 1: `acquired_unix_ns` was.
    pub(crate) given: AtomicU64,
    pub(crate) metadata: [AtomicU64; 8],
}
