//! The ring in a mapped segment: what the protocol files see of it.

use std::io;
use std::mem::size_of;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use shm_core::Segment;
use shm_lock::park::wake_all_low_half;
use shm_lock::{LockWord, Membership, Memory, Onlooker, Participant, Roster};

use crate::ring::arrivals;
use crate::ring::device::{self, DeviceWords};
use crate::ring::word::{Ctl, LeaseWord, Seq};
use crate::ring::{Identity, Liveness, Ring, RingLoads, Slot, Standing};
use crate::stream::device::seat;
use crate::stream::layout::{
    LANES_PER_SEAT, Layout, PARTICIPANTS, PARTICIPANTS_OFFSET, ParticipantRecord,
    RESERVED_AT_CREATION, SEATS, Seat, SlotWords,
};
use crate::sync::{AtomicU64, Ordering};
use crate::sys::{ObservedControl, SharedControl, SharedSeats};

/// Control memory that this process may write.
#[derive(Debug)]
pub(crate) struct StreamMemory {
    pub(crate) segment: Arc<Segment>,
    pub(crate) shared: SharedControl,
    /// Of CUDA streams.
    seats: Option<SharedSeats>,
    slots: usize,
    is_mirrored: bool,
    always_wakes: bool,
}

impl StreamMemory {
    pub(crate) fn new(
        segment: Arc<Segment>,
        shared: SharedControl,
        seats: Option<SharedSeats>,
        layout: &Layout,
    ) -> Self {
        Self {
            segment,
            shared,
            seats,
            slots: layout.slots,
            is_mirrored: layout.is_mirrored(),
            always_wakes: layout.always_wakes(),
        }
    }

    /// Says that the file of a mirrored stream may have something new, and wakes whoever waits for that.
    #[inline]
    pub(crate) fn tell_arrival(&self) {
        if self.is_mirrored && (arrivals::tell(self.arrivals()) || self.always_wakes) {
            wake_all_low_half(self.arrivals());
        }
    }

    /// The word that readers of a mirrored stream's file park on.
    pub(crate) fn arrivals(&self) -> &AtomicU64 {
        &self.shared.control().arrivals.0
    }

    /// The seats of a CUDA stream; none of another.
    #[inline]
    pub(crate) fn seats(&self) -> &[Seat] {
        self.seats.as_ref().map_or(&[], SharedSeats::seats)
    }

    /// The seats that were ever taken, by their places.
    #[inline]
    pub(crate) fn seated(&self) -> impl Iterator<Item = usize> + use<> {
        // SYNC: seated. Whose use has to be found has set its bit before it noted the use.
        let mut seated = self.shared.control().seated.load(Ordering::Relaxed);
        std::iter::from_fn(move || {
            let seat = seated.trailing_zeros() as usize;
            seated &= seated.wrapping_sub(1);
            (seat < SEATS).then_some(seat)
        })
    }

    /// What devices, and who tells them, say of a slot.
    #[inline]
    pub(crate) fn slot_words(&self, slot: usize) -> &SlotWords {
        &self.shared.control().device.slots[slot].0
    }

    /// What the participant at `entry` owns.
    pub(crate) fn record(&self, entry: usize) -> &ParticipantRecord {
        &self.shared.participants()[entry]
    }
}

impl Memory for StreamMemory {
    fn lock_word(&self) -> &LockWord {
        &self.shared.control().lock.0
    }

    fn roster(&self) -> &Roster {
        &self.shared.control().roster
    }

    fn capacity(&self) -> usize {
        PARTICIPANTS
    }

    fn participant(&self, slot: usize) -> &Participant {
        &self.record(slot).identity
    }

    fn prepare(&self, slot: usize) -> io::Result<()> {
        // The table is a hole in the file until somebody needs its next page: reserving it now
        // makes a full file system an error here instead of a signal at the first store.
        let start = PARTICIPANTS_OFFSET + slot * size_of::<ParticipantRecord>();
        let end = start + size_of::<ParticipantRecord>();
        if end <= RESERVED_AT_CREATION {
            return Ok(());
        }
        self.segment.reserve(start as u64..end as u64).map_err(io::Error::other)
    }

    fn claimed(&self, slot: usize, id: u64) {
        let record = self.record(slot);
        record.lease.0.store(LeaseWord::new(id).0, Ordering::Release);
        record.reader.0.reset();
    }

    fn reopen(&self) -> io::Result<OwnedFd> {
        self.segment.reopen()
    }
}

impl RingLoads for StreamMemory {
    fn slots(&self) -> usize {
        self.slots
    }

    #[inline]
    fn ctl(&self, order: Ordering) -> Ctl {
        Ctl(self.shared.control().ctl.0.load(order))
    }

    #[inline]
    fn seq(&self, slot: usize, order: Ordering) -> Seq {
        Seq(self.slot(slot).seq.load(order))
    }

    #[inline]
    fn is_in_file(&self, slot: usize, seq: Seq) -> bool {
        self.mirrored(slot).is_none_or(|word| word.load(Ordering::Acquire) >= seq.ticket())
    }
}

impl Ring for StreamMemory {
    #[inline]
    fn ctl_word(&self) -> &AtomicU64 {
        &self.shared.control().ctl.0
    }

    #[inline]
    fn slot(&self, slot: usize) -> &Slot {
        &self.shared.control().slots[slot]
    }

    #[inline]
    fn high_water(&self) -> usize {
        self.shared.control().roster.high_water().min(PARTICIPANTS)
    }

    #[inline]
    fn lease(&self, entry: usize) -> &AtomicU64 {
        &self.record(entry).lease.0
    }

    #[inline]
    fn lessees(&self, group: usize) -> &AtomicU64 {
        &self.shared.control().lessees.0[group]
    }

    #[inline]
    fn standing(&self, slot: usize) -> Standing {
        if self.seats.is_none() { Standing::Done } else { device::standing(self, slot) }
    }

    fn debtor(&self, slot: usize) -> Identity {
        seat::who_of(self.slot_words(slot).owed_by.load(Ordering::Acquire))
    }

    fn is_abandoned(&self, slot: usize, liveness: &impl Liveness) -> bool {
        let has_ended = |who| liveness.has_ended(who);
        seat::fills_nothing(self, self.debtor(slot), has_ended)
            && seat::is_abandoned(self, slot, has_ended)
    }

    #[inline]
    fn is_in_use(&self, slot: usize) -> bool {
        device::uses(self, slot).next().is_some()
    }
}

impl DeviceWords for StreamMemory {
    #[inline]
    fn ready(&self, slot: usize) -> &AtomicU64 {
        &self.slot_words(slot).ready
    }

    #[inline]
    fn mirrored(&self, slot: usize) -> Option<&AtomicU64> {
        self.is_mirrored.then(|| &self.slot_words(slot).mirrored)
    }

    #[inline]
    fn owed(&self, slot: usize) -> &AtomicU64 {
        &self.slot_words(slot).owed
    }

    #[inline]
    fn done(&self, lane: usize) -> &AtomicU64 {
        &self.shared.control().device.done[lane]
    }

    #[inline]
    fn used(&self, lane: usize, slot: usize) -> &AtomicU64 {
        &self.seats()[lane / LANES_PER_SEAT].used[lane % LANES_PER_SEAT][slot]
    }

    #[inline]
    fn used_for(&self, lane: usize, slot: usize) -> &AtomicU64 {
        &self.seats()[lane / LANES_PER_SEAT].used_for[lane % LANES_PER_SEAT][slot]
    }

    #[inline]
    fn used_before(&self, lane: usize, slot: usize) -> &AtomicU64 {
        &self.seats()[lane / LANES_PER_SEAT].used_before[lane % LANES_PER_SEAT][slot]
    }

    #[inline]
    fn lanes(&self) -> impl Iterator<Item = usize> + '_ {
        self.seated().flat_map(|seat| seat * LANES_PER_SEAT..(seat + 1) * LANES_PER_SEAT)
    }
}

/// Control memory that this process may only read.
#[derive(Debug)]
pub(crate) struct ObservedMemory {
    pub(crate) observed: ObservedControl,
    pub(crate) onlooker: Onlooker,
    pub(crate) slots: usize,
    pub(crate) is_mirrored: bool,
}

impl RingLoads for ObservedMemory {
    fn slots(&self) -> usize {
        self.slots
    }

    #[inline]
    fn ctl(&self, order: Ordering) -> Ctl {
        Ctl(self.observed.ctl(order))
    }

    #[inline]
    fn seq(&self, slot: usize, order: Ordering) -> Seq {
        Seq(self.observed.seq(slot, order))
    }

    #[inline]
    fn is_in_file(&self, slot: usize, seq: Seq) -> bool {
        !self.is_mirrored || self.observed.mirrored(slot) >= seq.ticket()
    }
}

/// Asks the lock's participant table about other processes.
pub(crate) struct Peers<'a>(pub(crate) &'a Membership<StreamMemory>);

impl Liveness for Peers<'_> {
    fn has_ended(&self, who: Identity) -> bool {
        // Bytes outside the table name nobody.
        who.entry >= PARTICIPANTS
            || !matches!(self.0.liveness(who.entry, who.id), shm_lock::Liveness::Alive)
    }

    fn is_gone(&self, who: Identity) -> bool {
        // Devices go on for a moment after the end of a process's threads.
        self.has_ended(who) && seat::is_gone(self.0.memory(), who)
    }

    fn occupant(&self, entry: usize) -> Identity {
        Identity { entry, id: self.0.memory().participant(entry).id() }
    }
}
