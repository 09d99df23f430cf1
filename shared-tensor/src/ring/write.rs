//! The write side: claim a slot, publish it or give it up, and heal what a dead writer left.

use crate::ring::word::{COUNT_MAX, Ctl, FRAME_BITS, LeaseWord, Phase, Seq, SlotState};
use crate::ring::{Identity, Liveness, Ring, Slot, Standing, lessees, reclaim_ended_lessees};
use crate::sync::{Ordering, fence};

/// Passes over all slots before a writer gives up: each pass fails only if a lease moved under it.
#[cfg(not(loom))]
const PASSES_MAX: usize = 1 << 14;
#[cfg(loom)]
const PASSES_MAX: usize = 2;

/// For so many passes the last whole frame is spared, while readers hold the other slots for a moment.
const PASSES_SPARING: usize = PASSES_MAX / 2;

/// Passes for each look at whether the holders of leases still live.
const PASSES_PER_PROBE: usize = 16;

/// Why a slot could not be claimed or published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriteFault {
    /// Somebody declared this writer dead and took over.
    Fenced,
    /// No slot came free.
    Exhausted,
    /// Devices have work with every slot that is free otherwise.
    InUse,
    /// The count would not fit.
    CountExhausted,
    /// A word holds a value that the protocol never writes.
    Damaged,
}

/// How both words of a publication are stored: whoever sees them sees the payload.
#[cfg(not(st_mutant = "commit-release"))]
const PUBLISH: Ordering = Ordering::AcqRel;
#[cfg(st_mutant = "commit-release")]
const PUBLISH: Ordering = Ordering::Relaxed;

/// Who fills a claimed slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filler {
    /// This process, at once: of slots that devices have work with only those of the dead will do.
    Host,
    /// A device, behind what others have to do with the slot.
    Device,
}

/// A slot being written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim {
    pub(crate) slot: usize,
    pub(crate) filler: Filler,
    /// The count that this frame will have.
    pub(crate) count: u64,
    pub(crate) busy: Seq,
    /// What the slot held before.
    pub(crate) previous: Seq,
    /// The control word while writing.
    ctl: Ctl,
    /// Slots passed over because they were leased.
    pub(crate) skipped: u32,
    /// Soft pins taken from readers.
    pub(crate) revoked: u32,
}

impl Claim {
    /// The slot of the newest frame while this one is written: one that the ring has.
    pub(crate) fn newest(&self) -> usize {
        self.ctl.slot()
    }
}

/// Makes the ring whole after a writer that did not finish. The caller holds the lock.
///
/// The epoch goes up first: from then on nothing that the previous writer does can succeed. Parked
/// readers must always be woken after this: the dead may have published without waking.
pub(crate) fn heal(ring: &impl Ring, liveness: &impl Liveness) {
    let mut before = Ctl(ring.ctl_word().load(Ordering::Acquire));
    loop {
        #[cfg(not(st_mutant = "heal-epoch"))]
        let mut after = before.with_next_epoch().without_waiters();
        #[cfg(st_mutant = "heal-epoch")]
        let mut after = before.without_waiters();
        if before.phase() == Phase::Writing || has_lost_its_frame(ring, before) {
            after = after.with_phase(Phase::Crashed);
        }
        match ring.ctl_word().compare_exchange(
            before.0,
            after.0,
            Ordering::AcqRel,
            Ordering::Acquire,
        ) {
            Ok(_) => break,
            Err(now) => before = Ctl(now),
        }
    }
    let count = before.count();
    for index in 0..ring.slots() {
        let slot = ring.slot(index);
        let mut seen = Seq(slot.seq.load(Ordering::Acquire));
        loop {
            let unfinished = match seen.state() {
                SlotState::Busy | SlotState::Invalid => true,
                // Written to the end, but the control word never said so: not a publication.
                #[cfg(not(st_mutant = "heal-unpublished"))]
                SlotState::Ready => seen.frame() > count,
                #[cfg(st_mutant = "heal-unpublished")]
                SlotState::Ready => false,
                SlotState::Empty | SlotState::Quarantined => false,
            };
            if !unfinished {
                break;
            }
            let owner = slot_owner(slot);
            let healed = if liveness.is_gone(owner) { Seq::EMPTY } else { seen.quarantined() };
            match slot.seq.compare_exchange(seen.0, healed.0, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => break,
                Err(now) => seen = Seq(now),
            }
        }
    }
}

/// Whether the only slot was marked by a writer that died before it could say so: its frame is
/// gone, and readers must not wait for it.
fn has_lost_its_frame(ring: &impl Ring, ctl: Ctl) -> bool {
    ring.slots() == 1
        && ctl.phase() == Phase::Idle
        && !Seq(ring.slot(0).seq.load(Ordering::Acquire)).is_ready(ctl.count())
}

/// Who claimed a slot last.
pub(crate) fn slot_owner(slot: &Slot) -> Identity {
    Identity {
        entry: usize::try_from(slot.owner_entry.load(Ordering::Relaxed)).unwrap_or(usize::MAX),
        id: slot.owner.load(Ordering::Relaxed),
    }
}

/// How willingly a slot is claimed: the lowest first, among equals the oldest frame.
mod rank {
    pub(super) const FREE: u64 = 0;
    pub(super) const SOFTLY_PINNED: u64 = 1;
    pub(super) const IN_USE: u64 = 2;
    pub(super) const QUARANTINED: u64 = 3;
}

/// Claims a slot for the next frame and marks the stream as being written. The caller holds the
/// lock and has healed the ring if it was left open.
#[inline]
pub(crate) fn claim(
    ring: &impl Ring,
    me: Identity,
    filler: Filler,
    liveness: &impl Liveness,
) -> Result<Claim, WriteFault> {
    let base = Ctl(ring.ctl_word().load(Ordering::Acquire));
    if base.slot() >= ring.slots() {
        return Err(WriteFault::Damaged);
    }
    if base.count() >= COUNT_MAX {
        return Err(WriteFault::CountExhausted);
    }
    let count = base.count() + 1;
    let busy = Seq::busy(count, base.epoch());
    let mut skipped = 0;
    let mut revoked = 0;
    let mut is_choosy = true;
    for pass in 0..PASSES_MAX {
        let spared = last_whole(ring, base).filter(|_| is_choosy && pass < PASSES_SPARING);
        let mut tried = spared.map_or(0, |index| 1_u32 << index);
        let mut in_use = false;
        while let Some((index, previous)) = candidate(ring, base, tried, me, liveness) {
            tried |= 1 << index;
            let slot = ring.slot(index);
            if !may_fill(ring, filler, index, liveness) {
                in_use = true;
                continue;
            }
            if slot
                .seq
                .compare_exchange(previous.0, busy.0, Ordering::AcqRel, Ordering::Relaxed)
                .is_err()
            {
                continue;
            }
            let previous_owner = slot_owner(slot);
            slot.owner.store(me.id, Ordering::Relaxed);
            slot.owner_entry.store(me.entry as u64, Ordering::Relaxed);
            // SYNC: lease-handshake. Pairs with the fence in `pin`: either this scan sees the
            // reader's bit, or the reader sees the busy mark and backs off.
            // SYNC: copy. As a release fence it also puts the busy mark before the payload: a reader
            // that copied any of the new bytes finds the mark in `is_unchanged`.
            #[cfg(not(st_mutant = "claim-fence"))]
            fence(Ordering::SeqCst);
            let pins = take_pins(ring, index);
            // Once more: what readers had queued before they let go of their leases.
            #[cfg(not(st_mutant = "use-unlooked"))]
            let may_fill = may_fill(ring, filler, index, liveness);
            #[cfg(st_mutant = "use-unlooked")]
            let may_fill = true;
            in_use |= !may_fill;
            if let Ok(pins) = pins
                && may_fill
            {
                revoked += pins;
                let ctl = mark_writing(ring, index, busy, base)?;
                return Ok(Claim {
                    slot: index,
                    filler,
                    count,
                    busy,
                    previous,
                    ctl,
                    skipped,
                    revoked,
                });
            }
            skipped += u32::from(pins.is_err());
            // The payload is untouched: the frame in it is as good as before, and who fills it is the same.
            slot.owner.store(previous_owner.id, Ordering::Relaxed);
            slot.owner_entry.store(previous_owner.entry as u64, Ordering::Relaxed);
            let _ =
                slot.seq.compare_exchange(busy.0, previous.0, Ordering::AcqRel, Ordering::Relaxed);
        }
        // Asking after the living costs system calls, under the lock: not in every pass.
        match pass % PASSES_PER_PROBE {
            0 => drop(reclaim_ended_lessees(ring, liveness)),
            1 => crate::sync::yield_now(),
            _ => {}
        }
        if !Ctl(ring.ctl_word().load(Ordering::Acquire)).same_for_writer(base) {
            return Err(WriteFault::Fenced);
        }
        // Devices take their time, for which the caller waits as it likes. Sooner than that, the frame that
        // is complete has another after it.
        if in_use && spared.is_none() {
            return Err(WriteFault::InUse);
        }
        is_choosy &= !in_use;
    }
    Err(WriteFault::Exhausted)
}

/// Whether whoever fills a slot next need not wait for devices, or has its own wait for them.
#[inline]
fn may_fill(ring: &impl Ring, filler: Filler, slot: usize, liveness: &impl Liveness) -> bool {
    if filler == Filler::Device {
        return true;
    }
    match ring.standing(slot) {
        Standing::Done => true,
        Standing::InUse => false,
        // Nobody completes it, and nobody has a device wait for that.
        Standing::Incomplete => ring.is_abandoned(slot, liveness) && !ring.is_in_use(slot),
    }
}

/// The best slot that this pass has not tried: oldest frame first, then softly pinned ones, then those
/// that devices have work with, then those of a writer whose end is now certain.
fn candidate(
    ring: &impl Ring,
    base: Ctl,
    tried: u32,
    me: Identity,
    liveness: &impl Liveness,
) -> Option<(usize, Seq)> {
    let mut held = 0;
    let mut pinned = 0;
    for entry in lessees(ring) {
        let lease = LeaseWord(ring.lease(entry).load(Ordering::Relaxed));
        held |= lease.held_mask();
        pinned |= lease.mask();
    }
    let newest = if ring.slots() == 1 { 0 } else { 1_u32 << base.slot() };
    let barred = tried | held | newest;
    let mut best: Option<(u64, usize, Seq)> = None;
    for index in 0..ring.slots() {
        let bit = 1_u32 << index;
        if barred & bit != 0 {
            continue;
        }
        let seen = Seq(ring.slot(index).seq.load(Ordering::Relaxed));
        let wanted = match ring.standing(index) {
            Standing::Done if pinned & bit == 0 => rank::FREE,
            Standing::Done => rank::SOFTLY_PINNED,
            Standing::InUse => rank::IN_USE,
            Standing::Incomplete => {
                let owner = ring.debtor(index);
                // Its device may write still, and nobody can queue a wait for that.
                if owner != me && liveness.has_ended(owner) && !liveness.is_gone(owner) {
                    continue;
                }
                rank::IN_USE
            }
        };
        // One number to compare, and the usual state first: this loop is a fifth of a small write.
        let key = if seen.state() == SlotState::Ready {
            wanted << FRAME_BITS | seen.frame()
        } else if matches!(seen.state(), SlotState::Empty | SlotState::Invalid) {
            wanted << FRAME_BITS
        } else {
            rank::QUARANTINED << FRAME_BITS
        };
        if best.is_some_and(|(least, ..)| least <= key) {
            continue;
        }
        if key == rank::QUARANTINED << FRAME_BITS && !liveness.is_gone(slot_owner(ring.slot(index)))
        {
            continue;
        }
        best = Some((key, index, seen));
    }
    best.map(|(_, index, seen)| (index, seen))
}

/// What is left if devices are never done with the newest frame: the last one that they are done with.
/// Of two slots both are needed.
#[inline]
fn last_whole(ring: &impl Ring, base: Ctl) -> Option<usize> {
    let seq = |index: usize| Seq(ring.slot(index).seq.load(Ordering::Relaxed));
    let is_whole = |index: usize| ring.standing(index) != Standing::Incomplete;
    if ring.slots() < 3 || is_whole(base.slot()) {
        return None;
    }
    let frames = (0..ring.slots()).filter(|index| {
        let seq = seq(*index);
        seq.state() == SlotState::Ready && seq.frame() <= base.count() && is_whole(*index)
    });
    frames.max_by_key(|index| seq(*index).frame())
}

/// A reader holds the slot.
struct Held;

/// Takes every soft pin off a slot that was just marked busy.
fn take_pins(ring: &impl Ring, slot: usize) -> Result<u32, Held> {
    let mut revoked = 0;
    for entry in lessees(ring) {
        let word = ring.lease(entry);
        let mut seen = LeaseWord(word.load(Ordering::Acquire));
        loop {
            if seen.is_held(slot) {
                return Err(Held);
            }
            if !seen.is_pending(slot) {
                break;
            }
            let without = seen.without(LeaseWord::pending_bit(slot));
            match word.compare_exchange(seen.0, without.0, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    revoked += 1;
                    break;
                }
                Err(now) => seen = LeaseWord(now),
            }
        }
    }
    Ok(revoked)
}

/// Says that a slot marked `busy` is being written, unless this writer was declared dead.
fn mark_writing(ring: &impl Ring, slot: usize, busy: Seq, base: Ctl) -> Result<Ctl, WriteFault> {
    let mut seen = base;
    loop {
        let writing = seen.with_phase(Phase::Writing);
        match ring.ctl_word().compare_exchange(
            seen.0,
            writing.0,
            Ordering::AcqRel,
            Ordering::Acquire,
        ) {
            Ok(_) => return Ok(writing),
            Err(now) if Ctl(now).same_for_writer(base) => seen = Ctl(now),
            Err(_) => {
                let _ = ring.slot(slot).seq.compare_exchange(
                    busy.0,
                    Seq::EMPTY.0,
                    Ordering::AcqRel,
                    Ordering::Relaxed,
                );
                return Err(WriteFault::Fenced);
            }
        }
    }
}

/// Publishes a claimed slot whose payload and description are complete. Returns whether somebody
/// may be parked.
#[inline]
pub(crate) fn commit(ring: &impl Ring, claim: &Claim) -> Result<bool, WriteFault> {
    let seq = &ring.slot(claim.slot).seq;
    let ready = Seq::ready(claim.count, claim.ctl.epoch());
    // SYNC: frame. Pairs with the reader's acquire load of this word and of the control word.
    if seq.compare_exchange(claim.busy.0, ready.0, PUBLISH, Ordering::Relaxed).is_err() {
        return Err(WriteFault::Fenced);
    }
    match finish(ring, claim, |ctl| ctl.published(claim.count, claim.slot)) {
        Ok(waiters) => Ok(waiters),
        Err(fault) => {
            let _ =
                seq.compare_exchange(ready.0, Seq::EMPTY.0, Ordering::AcqRel, Ordering::Relaxed);
            Err(fault)
        }
    }
}

/// Gives a claimed slot up. Returns whether somebody may be parked.
pub(crate) fn abort(ring: &impl Ring, claim: &Claim) -> Result<bool, WriteFault> {
    let seq = &ring.slot(claim.slot).seq;
    let _ = seq.compare_exchange(claim.busy.0, Seq::EMPTY.0, Ordering::AcqRel, Ordering::Relaxed);
    finish(ring, claim, |ctl| ctl.with_phase(Phase::Aborted).without_waiters())
}

/// Stores the control word that ends a write, unless this writer was declared dead.
fn finish(ring: &impl Ring, claim: &Claim, end: impl Fn(Ctl) -> Ctl) -> Result<bool, WriteFault> {
    let mut seen = claim.ctl;
    loop {
        let after = end(seen);
        // SYNC: frame. Pairs with the acquire load of the control word in `newest`.
        // SYNC: park. The exchange sees W or changes the word before W can be set.
        match ring.ctl_word().compare_exchange(seen.0, after.0, PUBLISH, Ordering::Relaxed) {
            Ok(_) => return Ok(seen.has_waiters()),
            Err(now) if Ctl(now).same_for_writer(claim.ctl) => seen = Ctl(now),
            Err(_) => return Err(WriteFault::Fenced),
        }
    }
}
