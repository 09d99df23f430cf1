//! Slots that GPUs fill and read, after the calls that queue their work have returned.
//!
//! What processes do to a ring is as for memory of the host. Two kinds of words say how far devices
//! have come with what was queued: of each slot, which frame is complete there, and of each lane, how
//! many of its uses are over. A *lane* is one stream of one process; what is queued there is done in
//! order, so a number is enough. A *use* is what was queued in a lane that reads a slot.
//!
//! - Who reads leases the slot, queues a wait for the frame, the work, and a write of the lane's next
//!   number; notes that number beside the slot, and only then lets go of the lease.
//! - Who writes claims a slot as ever, queues waits for the frame and the uses that are not over
//!   there, the work, and a write of the frame's ticket; and only then publishes.
//!
//! **A wait is queued only when the write that ends it has been queued.** So each of them is for
//! something earlier, and streams never wait for each other in a circle, whoever reads and writes
//! what. What a dead process does not write any more is written by those who wait for it: the end of a use
//! ([`release_use`]) at once, a frame when nothing of its writer's work can be going on, nor of those whom
//! that would have waited for ([`uses_before`]).

use crate::ring::word::{Ctl, LeaseWord, Phase, Seq, SlotState};
use crate::ring::{Identity, Ring, Standing};
use crate::sync::{AtomicU64, Ordering, fence};

/// The words that devices write, and the notes beside them.
pub(crate) trait DeviceWords: Ring {
    /// The ticket of the last frame that is complete in a slot. Written by devices.
    fn ready(&self, slot: usize) -> &AtomicU64;
    /// Of mirrored streams: the ticket of the last frame that is complete in the file. Written by devices,
    /// behind the former, and by processes that fill the file's slot.
    fn mirrored(&self, slot: usize) -> Option<&AtomicU64>;
    /// The ticket of the last frame that a device was told to fill a slot with.
    fn owed(&self, slot: usize) -> &AtomicU64;
    /// The number of the last use of a lane that is over. Written by devices.
    fn done(&self, lane: usize) -> &AtomicU64;
    /// The number of the last use of a slot in a lane. Written by the lane's process.
    fn used(&self, lane: usize, slot: usize) -> &AtomicU64;
    /// The ticket of the frame of that use.
    fn used_for(&self, lane: usize, slot: usize) -> &AtomicU64;
    /// The number of the last use of an earlier frame of the slot.
    fn used_before(&self, lane: usize, slot: usize) -> &AtomicU64;
    /// Those that may have uses.
    fn lanes(&self) -> impl Iterator<Item = usize> + '_;
}

/// Something queued by somebody that is not over: what a wait has to be for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Use {
    pub(crate) lane: usize,
    pub(crate) number: u64,
}

/// Whether nothing has to be done any more to complete the frame of a slot's sequence word. In a mirrored
/// stream that is so when it is in the file, where it comes last, and alone if a process has written it.
pub(crate) fn is_settled(ring: &impl DeviceWords, slot: usize, seq: Seq) -> bool {
    match ring.mirrored(slot) {
        Some(word) => word.load(Ordering::Acquire) >= seq.ticket(),
        None => is_complete(ring, slot, seq),
    }
}

/// Whether a frame was written by a process, so that it is in the file and not on the device.
pub(crate) fn is_only_in_file(ring: &impl DeviceWords, slot: usize, seq: Seq) -> bool {
    // In this order: of a device's frame the second word is written before the first.
    ring.mirrored(slot).is_some() && is_settled(ring, slot, seq) && !is_complete(ring, slot, seq)
}

/// Whether the frame of a slot's sequence word is on the device.
pub(crate) fn is_complete(ring: &impl DeviceWords, slot: usize, seq: Seq) -> bool {
    ring.ready(slot).load(Ordering::Acquire) >= seq.ticket()
}

/// The ticket of the last frame that is where it comes last: in the file of a mirrored stream, and on the
/// device otherwise.
pub(crate) fn settled(ring: &impl DeviceWords, slot: usize) -> u64 {
    ring.mirrored(slot).unwrap_or_else(|| ring.ready(slot)).load(Ordering::Acquire)
}

/// The frame that a device was told to fill a slot with and has not, whatever the sequence word says: who
/// claimed the slot since may have died before it published.
pub(crate) fn outstanding(ring: &impl DeviceWords, slot: usize) -> Option<Seq> {
    let owed = ring.owed(slot).load(Ordering::Acquire);
    (settled(ring, slot) < owed).then_some(Seq::of_ticket(owed))
}

/// Notes, beside a claimed slot, the frame that a device is about to be told to fill it with; and gives what
/// was noted before. The caller has the lock.
pub(crate) fn note_owed(ring: &impl DeviceWords, slot: usize, seq: Seq) -> u64 {
    let before = ring.owed(slot).load(Ordering::Relaxed);
    #[cfg(not(st_mutant = "owed-unnoted"))]
    ring.owed(slot).store(seq.ticket(), Ordering::Release);
    #[cfg(st_mutant = "owed-unnoted")]
    let _ = seq;
    before
}

/// How far devices are with a slot.
pub(crate) fn standing(ring: &impl DeviceWords, slot: usize) -> Standing {
    if outstanding(ring, slot).is_some() {
        Standing::Incomplete
    } else if uses(ring, slot).next().is_some() {
        Standing::InUse
    } else {
        Standing::Done
    }
}

/// What reads a slot and is not over. The caller has claimed the slot, so that there will be no more.
pub(crate) fn uses(ring: &impl DeviceWords, slot: usize) -> impl Iterator<Item = Use> {
    ring.lanes().filter_map(move |lane| {
        // SYNC: device-use. Whoever let go of its lease before the claim looked for leases has noted
        // its use before that.
        let number = ring.used(lane, slot).load(Ordering::Acquire);
        (number > ring.done(lane).load(Ordering::Acquire)).then_some(Use { lane, number })
    })
}

/// What reads the frames that a slot had before this one, and is not over. The caller has leased the frame,
/// or claimed the slot after it, so that there will be no more.
pub(crate) fn uses_before(
    ring: &impl DeviceWords,
    slot: usize,
    seq: Seq,
) -> impl Iterator<Item = Use> {
    ring.lanes().filter_map(move |lane| {
        // SYNC: device-use-before. The reverse of the order in which they are noted.
        let last = ring.used(lane, slot).load(Ordering::Acquire);
        let is_earlier = ring.used_for(lane, slot).load(Ordering::Acquire) < seq.ticket();
        let before = ring.used_before(lane, slot).load(Ordering::Acquire);
        let number = if is_earlier { last } else { before };
        (number > ring.done(lane).load(Ordering::Acquire)).then_some(Use { lane, number })
    })
}

/// Notes the use of a slot's frame that was queued just now, with the write that ends it. `false`: the lease
/// was taken away meanwhile, and what was read may be another frame.
pub(crate) fn note_use(
    ring: &impl DeviceWords,
    me: Identity,
    slot: usize,
    seq: Seq,
    it: Use,
) -> bool {
    let (used, used_for) = (ring.used(it.lane, slot), ring.used_for(it.lane, slot));
    if used_for.load(Ordering::Relaxed) != seq.ticket() {
        // SYNC: device-use-before. Who sees one of these sees those above it.
        ring.used_before(it.lane, slot).store(used.load(Ordering::Relaxed), Ordering::Release);
        used_for.store(seq.ticket(), Ordering::Release);
    }
    // SYNC: device-use. Release: the words that were queued come first.
    #[cfg(not(st_mutant = "use-unnoted"))]
    used.store(it.number, Ordering::Release);
    // Either a revocation comes later, and its writer finds the use; or this finds the revocation.
    fence(Ordering::SeqCst);
    LeaseWord(ring.lease(me.entry).load(Ordering::Acquire)).is_held(slot)
}

/// The last whole frame before another one, on the device or in the file; the first one after it if there is
/// none. The caller has the lock.
pub(crate) fn last_whole(ring: &impl DeviceWords, before: Seq) -> Option<(usize, Seq)> {
    let count = ring.ctl(Ordering::Acquire).count();
    (0..ring.slots())
        .map(|slot| (slot, ring.seq(slot, Ordering::Acquire)))
        .filter(|(slot, seq)| {
            seq.state() == SlotState::Ready
                && seq.frame() <= count
                && (is_complete(ring, *slot, *seq) || is_settled(ring, *slot, *seq))
        })
        .max_by_key(|(_, seq)| {
            let is_earlier = seq.frame() < before.frame();
            (is_earlier, if is_earlier { seq.frame() } else { u64::MAX - seq.frame() })
        })
}

/// Says that the last write crashed, unless another one is going on. The caller has the lock.
pub(crate) fn crashed(ring: &impl Ring) {
    let word = ring.ctl_word();
    let mut seen = Ctl(word.load(Ordering::Acquire));
    while seen.phase() != Phase::Writing {
        let after = seen.with_phase(Phase::Crashed).without_waiters();
        match word.compare_exchange(seen.0, after.0, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => break,
            Err(now) => seen = Ctl(now),
        }
    }
}

/// Writes what the device of a dead reader will not. It may read still, which harms nobody.
pub(crate) fn release_use(ring: &impl DeviceWords, it: Use) {
    ring.done(it.lane).fetch_max(it.number, Ordering::AcqRel);
}
