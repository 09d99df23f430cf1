//! What comes before a frame in its slot.
//!
//! Whoever fills a slot for a writer that is gone comes in its place, and waits for what that writer's device
//! would have waited for: for those who read the frames before, and for those who fill the slot. It does so
//! on the host, and queues nothing before that is over: then no wait is behind another one in its stream, and
//! the streams of those who mend are in no circle.

use crate::ring::Identity;
use crate::ring::device::{DeviceWords as _, Use, settled, uses_before};
use crate::ring::word::Seq;
use crate::stream::device::seat::{self, Sitter};
use crate::stream::memory::StreamMemory;
use crate::sync::Ordering;

/// What was not over when somebody leased a frame, or claimed its slot after it.
#[derive(Clone, Debug)]
pub(super) struct Earlier {
    /// Uses of earlier frames, and by whom.
    uses: Vec<(Use, Sitter)>,
    /// Whose devices were told to fill the slot, and the tickets of the last frames of each; of the frame
    /// itself, too.
    fills: Vec<(Sitter, u64)>,
}

impl Earlier {
    /// The caller has leased the frame, or has the lock and the slot is not claimed after it: more comes to
    /// none of these.
    pub(super) fn of(memory: &StreamMemory, slot: usize, seq: Seq) -> Self {
        let uses = uses_before(memory, slot, seq);
        let uses = uses.filter_map(|it| Some((it, seat::user(memory, it)?))).collect();
        let fills = seat::fills(memory, slot).filter(|(_, ticket)| *ticket <= seq.ticket());
        Self { uses, fills: fills.collect() }
    }

    /// Whether nothing of it is going on any more. What devices read for the dead harms nobody; what they fill
    /// for them is over when these are gone.
    pub(super) fn is_over(
        &self,
        memory: &StreamMemory,
        slot: usize,
        has_ended: impl Fn(Identity) -> bool,
    ) -> bool {
        let is_read = |(it, user): &(Use, Sitter)| {
            memory.done(it.lane).load(Ordering::Acquire) < it.number
                && !user.reads_for_nobody(memory, &has_ended)
        };
        let is_filled = |(sitter, ticket): &(Sitter, u64)| {
            settled(memory, slot) < *ticket && !sitter.fills_nothing(memory, &has_ended)
        };
        !self.uses.iter().any(is_read) && !self.fills.iter().any(is_filled)
    }
}
