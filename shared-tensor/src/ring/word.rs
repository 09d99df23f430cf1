//! The three packed words of the ring: control, slot sequence and lease.
//!
//! Pure values and transitions, no memory and no atomics: what a word *means* is decided here, in
//! one place, and the protocol files only move words around.

/// Most slots that a ring can have: a lease word holds two bits for each.
pub const SLOTS_MAX: usize = 24;

/// Largest count that the control word can carry: 47 bits, four years at 1 MHz.
pub(crate) const COUNT_MAX: u64 = (1 << 47) - 1;

const COUNT_LOW_BITS: u32 = 31;
const COUNT_LOW_MASK: u64 = (1 << COUNT_LOW_BITS) - 1;

/// What the stream was doing when the control word was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No write in progress; the newest frame is the last one written.
    Idle,
    /// A writer has claimed a slot and is filling it.
    Writing,
    /// The last write was given up by its writer.
    Aborted,
    /// The last write ended with the death of its writer.
    Crashed,
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Idle => "idle",
            Self::Writing => "writing",
            Self::Aborted => "aborted",
            Self::Crashed => "crashed",
        })
    }
}

impl Phase {
    const fn code(self) -> u64 {
        match self {
            Self::Idle => 0,
            Self::Writing => 1,
            Self::Aborted => 2,
            Self::Crashed => 3,
        }
    }

    const fn of(code: u64) -> Self {
        match code & 3 {
            0 => Self::Idle,
            1 => Self::Writing,
            2 => Self::Aborted,
            _ => Self::Crashed,
        }
    }
}

/// The control word: everything that a reader or a waker has to know, in one atomic load.
///
/// ```text
/// bit  0       W      a reader may be parked on the low half
/// bits 1..32   count  low 31 bits of the publication count
/// bits 32..48  count  high 16 bits
/// bits 48..54  slot   newest slot
/// bits 54..56  phase  0 idle, 1 writing, 2 aborted, 3 crashed
/// bit  56      tomb   the name was unlinked
/// bits 57..64  epoch  fences off writers that were declared dead
/// ```
///
/// The low half is the futex: it changes with every publication and with W.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ctl(pub(crate) u64);

const WAITERS: u64 = 1;
const SLOT_SHIFT: u32 = 48;
const PHASE_SHIFT: u32 = 54;
const TOMB: u64 = 1 << 56;
const EPOCH_SHIFT: u32 = 57;

impl Ctl {
    pub(crate) const fn count(self) -> u64 {
        let low = (self.0 >> 1) & COUNT_LOW_MASK;
        let high = (self.0 >> 32) & 0xffff;
        (high << COUNT_LOW_BITS) | low
    }

    pub(crate) const fn slot(self) -> usize {
        ((self.0 >> SLOT_SHIFT) & 0x3f) as usize
    }

    pub(crate) const fn phase(self) -> Phase {
        Phase::of(self.0 >> PHASE_SHIFT)
    }

    pub(crate) const fn epoch(self) -> u64 {
        self.0 >> EPOCH_SHIFT
    }

    pub(crate) const fn is_unlinked(self) -> bool {
        self.0 & TOMB != 0
    }

    pub(crate) const fn has_waiters(self) -> bool {
        self.0 & WAITERS != 0
    }

    /// The half that readers park on.
    pub(crate) const fn low(self) -> u32 {
        self.0 as u32
    }

    pub(crate) const fn with_waiters(self) -> Self {
        Self(self.0 | WAITERS)
    }

    pub(crate) const fn without_waiters(self) -> Self {
        Self(self.0 & !WAITERS)
    }

    pub(crate) const fn with_phase(self, phase: Phase) -> Self {
        Self((self.0 & !(3 << PHASE_SHIFT)) | (phase.code() << PHASE_SHIFT))
    }

    pub(crate) const fn unlinked(self) -> Self {
        Self(self.0 | TOMB)
    }

    pub(crate) const fn with_next_epoch(self) -> Self {
        let epoch = (self.epoch() + 1) & 0x7f;
        Self((self.0 & !(0x7f << EPOCH_SHIFT)) | (epoch << EPOCH_SHIFT))
    }

    /// The word after publishing frame `count` in `slot`: idle, nobody parked.
    pub(crate) const fn published(self, count: u64, slot: usize) -> Self {
        let kept = self.0 & (TOMB | (0x7f << EPOCH_SHIFT));
        let low = (count & COUNT_LOW_MASK) << 1;
        let high = ((count >> COUNT_LOW_BITS) & 0xffff) << 32;
        Self(kept | low | high | ((slot as u64) << SLOT_SHIFT))
    }

    /// Whether `other` differs only in ways that do not concern a writer: parked readers and the
    /// tombstone. Anything else means that the writer was declared dead.
    pub(crate) const fn same_for_writer(self, other: Self) -> bool {
        (self.0 ^ other.0) & !(WAITERS | TOMB) == 0
    }
}

impl std::fmt::Debug for Ctl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ctl")
            .field("count", &self.count())
            .field("slot", &self.slot())
            .field("phase", &self.phase())
            .field("unlinked", &self.is_unlinked())
            .field("epoch", &self.epoch())
            .field("waiters", &self.has_waiters())
            .finish()
    }
}

/// What a slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SlotState {
    /// Nothing that anybody may read.
    Empty,
    /// A writer is filling it.
    Busy,
    /// A complete frame.
    Ready,
    /// Left by a writer declared dead whose end is not certain: reused last.
    Quarantined,
    /// A value that this protocol never writes: the memory is damaged.
    Invalid,
}

/// Bits of a frame's number in a [`Seq`].
pub(crate) const FRAME_BITS: u32 = 48;

/// A slot's sequence word: `frame:48 | epoch:8 | state:8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seq(pub(crate) u64);

impl Seq {
    pub(crate) const EMPTY: Self = Self(0);

    const fn pack(frame: u64, epoch: u64, state: u64) -> Self {
        Self((frame << 16) | ((epoch & 0xff) << 8) | state)
    }

    pub(crate) const fn busy(frame: u64, epoch: u64) -> Self {
        Self::pack(frame, epoch, 1)
    }

    pub(crate) const fn ready(frame: u64, epoch: u64) -> Self {
        Self::pack(frame, epoch, 2)
    }

    pub(crate) const fn quarantined(self) -> Self {
        Self((self.0 & !0xff) | 3)
    }

    pub(crate) const fn frame(self) -> u64 {
        self.0 >> 16
    }

    /// What a device writes when this frame is complete: frame and epoch. Frames that were never
    /// published share their number with the next one; their epochs differ.
    pub(crate) const fn ticket(self) -> u64 {
        self.0 >> 8
    }

    /// A frame that was published, by its ticket.
    pub(crate) const fn of_ticket(ticket: u64) -> Self {
        Self(ticket << 8 | 2)
    }

    pub(crate) const fn state(self) -> SlotState {
        match self.0 & 0xff {
            0 => SlotState::Empty,
            1 => SlotState::Busy,
            2 => SlotState::Ready,
            3 => SlotState::Quarantined,
            _ => SlotState::Invalid,
        }
    }

    pub(crate) const fn is_ready(self, frame: u64) -> bool {
        self.frame() == frame && matches!(self.state(), SlotState::Ready)
    }
}

/// A participant's lease word: `tag:16 | held:24 | pending:24`.
///
/// A *pending* bit asks writers to avoid the slot and may be revoked; a *held* bit forbids them to
/// touch it. The tag is the low half-word of the participant's id, so that a bit can be taken from
/// a dead participant without hitting whoever re-uses its entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeaseWord(pub(crate) u64);

impl LeaseWord {
    pub(crate) const fn new(id: u64) -> Self {
        Self((id & 0xffff) << 48)
    }

    pub(crate) const fn pending_bit(slot: usize) -> u64 {
        1 << slot
    }

    pub(crate) const fn held_bit(slot: usize) -> u64 {
        1 << (SLOTS_MAX + slot)
    }

    pub(crate) const fn is_pending(self, slot: usize) -> bool {
        self.0 & Self::pending_bit(slot) != 0
    }

    pub(crate) const fn is_held(self, slot: usize) -> bool {
        self.0 & Self::held_bit(slot) != 0
    }

    pub(crate) const fn tag(self) -> u64 {
        self.0 >> 48
    }

    pub(crate) const fn held_mask(self) -> u32 {
        ((self.0 >> SLOTS_MAX) & 0xff_ffff) as u32
    }

    /// Slots that this participant holds or is about to hold.
    pub(crate) const fn mask(self) -> u32 {
        self.held_mask() | (self.0 & 0xff_ffff) as u32
    }

    /// The word after a pending bit has become a held bit.
    pub(crate) const fn promoted(self, slot: usize) -> Self {
        Self((self.0 & !Self::pending_bit(slot)) | Self::held_bit(slot))
    }

    pub(crate) const fn without(self, bit: u64) -> Self {
        Self(self.0 & !bit)
    }
}

/// Distinct slots that may be leased at once in a ring of `slots`, so that a writer always finds a
/// slot that is neither newest, nor leased, nor being copied by a reader that pinned it softly.
pub(crate) const fn lease_budget(slots: usize) -> usize {
    match slots {
        0..=2 => 0,
        3 => 1,
        _ => slots - 3,
    }
}

/// Distinct slots that may be leased at once counting those that are so for a few instructions, while a
/// device is told to read them: beside the newest and these a writer finds one more.
pub(crate) const fn passing_budget(slots: usize) -> usize {
    slots.saturating_sub(2)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn publication_keeps_what_is_not_its_own(word: u64, count in 0..=COUNT_MAX, slot in 0..SLOTS_MAX) {
            let before = Ctl(word);
            let after = before.published(count, slot);
            prop_assert_eq!(after.count(), count);
            prop_assert_eq!(after.slot(), slot);
            prop_assert_eq!(after.phase(), Phase::Idle);
            prop_assert_eq!(after.epoch(), before.epoch());
            prop_assert_eq!(after.is_unlinked(), before.is_unlinked());
            prop_assert!(!after.has_waiters());
        }

        #[test]
        fn each_change_touches_one_field(word: u64) {
            let c = Ctl(word);
            for phase in [Phase::Idle, Phase::Writing, Phase::Aborted, Phase::Crashed] {
                let changed = c.with_phase(phase);
                prop_assert_eq!(changed.phase(), phase);
                prop_assert_eq!(changed.count(), c.count());
                prop_assert_eq!(changed.slot(), c.slot());
                prop_assert_eq!(changed.epoch(), c.epoch());
                prop_assert_eq!(changed.low(), c.low());
            }
            let fenced = c.with_next_epoch();
            prop_assert_eq!(fenced.epoch(), (c.epoch() + 1) % 128);
            prop_assert_eq!(fenced.count(), c.count());
            prop_assert!(!fenced.same_for_writer(c));
            prop_assert!(c.unlinked().with_waiters().same_for_writer(c));
            prop_assert_eq!(c.with_waiters().without_waiters().count(), c.count());
        }

        #[test]
        fn the_low_half_changes_with_every_publication(word: u64, count in 0..COUNT_MAX, slot in 0..SLOTS_MAX) {
            let now = Ctl(word).published(count, slot);
            let next = now.published(count + 1, slot);
            prop_assert_ne!(now.low(), next.low());
        }

        #[test]
        fn sequence_words_round_trip(frame in 0..(1_u64 << 48), epoch in 0_u64..128) {
            prop_assert!(Seq::ready(frame, epoch).is_ready(frame));
            prop_assert_eq!(Seq::busy(frame, epoch).state(), SlotState::Busy);
            prop_assert_eq!(Seq::busy(frame, epoch).quarantined().state(), SlotState::Quarantined);
            prop_assert_eq!(Seq::busy(frame, epoch).quarantined().frame(), frame);
        }

        #[test]
        fn lease_bits_are_distinct(id: u64, slot in 0..SLOTS_MAX) {
            let word = LeaseWord::new(id);
            prop_assert_eq!(word.mask(), 0);
            let pending = LeaseWord(word.0 | LeaseWord::pending_bit(slot));
            prop_assert!(pending.is_pending(slot) && !pending.is_held(slot));
            let held = pending.promoted(slot);
            prop_assert!(held.is_held(slot) && !held.is_pending(slot));
            prop_assert_eq!(held.mask(), 1 << slot);
            prop_assert_eq!(held.without(LeaseWord::held_bit(slot)), word);
        }
    }

    #[test]
    fn a_writer_always_has_a_slot_left() {
        for slots in 3..=SLOTS_MAX {
            assert!(
                lease_budget(slots) + 1 < slots,
                "newest and leased leave a slot at K = {slots}"
            );
        }
        assert_eq!(
            [lease_budget(1), lease_budget(2), lease_budget(3), lease_budget(4)],
            [0, 0, 1, 1]
        );
    }
}
