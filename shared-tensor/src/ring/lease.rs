//! Pins and leases: how a reader keeps writers off a slot.
//!
//! Every process has one lease word with a pending and a held bit per slot. Taking a lease is two
//! steps, so that it can be refused without a lock: pin (pending), look whether the frame is still
//! there and whether the ring can spare the slot, then promote (held).

use crate::ring::word::LeaseWord;
use crate::ring::{Found, Identity, Liveness, Ring};
use crate::sync::{Ordering, fence};

const LESSEES_PER_WORD: usize = 64;

/// The right to set the pins of one process: it has one of these, behind a lock.
///
/// Its threads share one pin bit per slot, and [`promote`] cannot tell whose pin it turns into a
/// lease. If another thread could pin in between, after a writer took the first pin and wrote over
/// its frame, the lease would be of the wrong frame.
#[derive(Debug, Default)]
pub(crate) struct Pins(());

/// Asks writers to avoid the slot. `false`: the frame is gone already, nothing was pinned.
///
/// A pin is only a wish: a writer that has no other slot takes it away, and the copy is checked as
/// any other.
pub(crate) fn pin(ring: &impl Ring, _: &mut Pins, me: Identity, found: &Found) -> bool {
    #[cfg(not(st_mutant = "enlist-late"))]
    enlist(ring, me);
    let bit = LeaseWord::pending_bit(found.slot);
    ring.lease(me.entry).fetch_or(bit, Ordering::AcqRel);
    // SYNC: lease-handshake. Pairs with the fence in `claim`.
    #[cfg(not(st_mutant = "pin-fence"))]
    fence(Ordering::SeqCst);
    #[cfg(st_mutant = "enlist-late")]
    enlist(ring, me);
    #[cfg(not(st_mutant = "pin-recheck"))]
    if ring.seq(found.slot, Ordering::Acquire) != found.seq {
        unpin(ring, me, found.slot);
        return false;
    }
    true
}

/// Tells writers to look at this participant's lease word: one bit, set once for good, so that the
/// many who never lease cost a writer nothing.
fn enlist(ring: &impl Ring, me: Identity) {
    let group = ring.lessees(me.entry / LESSEES_PER_WORD);
    let bit = 1 << (me.entry % LESSEES_PER_WORD);
    // SYNC: lease-handshake. Like the pin, the bit is set before the fence, by us or by whoever we
    // see to have set it.
    if group.load(Ordering::Relaxed) & bit == 0 {
        group.fetch_or(bit, Ordering::AcqRel);
    }
}

/// The entries whose lease words may say anything: those that ever pinned a slot.
pub(crate) fn lessees(ring: &impl Ring) -> impl Iterator<Item = usize> {
    let used = ring.high_water();
    (0..used.div_ceil(LESSEES_PER_WORD)).flat_map(move |group| {
        let mut listed = ring.lessees(group).load(Ordering::Acquire);
        let first = group * LESSEES_PER_WORD;
        std::iter::from_fn(move || {
            let index = (listed != 0).then(|| listed.trailing_zeros() as usize)?;
            listed &= listed - 1;
            Some(first + index)
        })
        // Bits of entries that there are not name nobody.
        .filter(move |&entry| entry < used)
    })
}

/// Takes the wish back.
pub(crate) fn unpin(ring: &impl Ring, me: Identity, slot: usize) {
    ring.lease(me.entry).fetch_and(!LeaseWord::pending_bit(slot), Ordering::AcqRel);
}

/// Why a pinned slot could not be leased.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeaseRefusal {
    /// A writer took the pin: the frame is gone.
    Revoked,
    /// As many distinct frames are leased as the ring can spare.
    BudgetSpent,
}

/// Turns a pin into a lease: from here on no writer touches the slot until [`release`]. The caller
/// has kept the right to pin since it pinned.
pub(crate) fn promote(
    ring: &impl Ring,
    _: &mut Pins,
    me: Identity,
    slot: usize,
    budget: usize,
) -> Result<(), LeaseRefusal> {
    if leased_mask(ring).count_ones() as usize > budget {
        unpin(ring, me, slot);
        return Err(LeaseRefusal::BudgetSpent);
    }
    let word = ring.lease(me.entry);
    let mut seen = LeaseWord(word.load(Ordering::Acquire));
    loop {
        if !seen.is_pending(slot) {
            return Err(LeaseRefusal::Revoked);
        }
        let promoted = seen.promoted(slot);
        match word.compare_exchange(seen.0, promoted.0, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return Ok(()),
            Err(now) => seen = LeaseWord(now),
        }
    }
}

/// Slots that anybody holds or is about to hold.
pub(crate) fn leased_mask(ring: &impl Ring) -> u32 {
    let leased = lessees(ring)
        .map(|entry| LeaseWord(ring.lease(entry).load(Ordering::Acquire)).mask())
        .fold(0, |all, mask| all | mask);
    // Bits of slots that there are not would count against the budget for ever.
    leased & ((1 << ring.slots()) - 1)
}

/// Gives a leased slot back.
pub(crate) fn release(ring: &impl Ring, me: Identity, slot: usize) {
    // Release: the reads through the lease come before the bit goes. A writer that sees the bit
    // gone (acquire, in `take_pins`) may overwrite what they read.
    ring.lease(me.entry).fetch_and(!LeaseWord::held_bit(slot), Ordering::Release);
}

/// Gives the slots of ended participants back.
pub(crate) fn reclaim_ended_lessees(ring: &impl Ring, liveness: &impl Liveness) -> u32 {
    let mut reclaimed = 0;
    for entry in lessees(ring) {
        let word = ring.lease(entry);
        let seen = LeaseWord(word.load(Ordering::Acquire));
        if seen.mask() == 0 {
            continue;
        }
        let who = liveness.occupant(entry);
        // The tag ties the word to the participant that was probed: an entry that somebody else
        // claimed meanwhile has another tag and the exchange fails. A word that had another tag
        // before the occupant was asked for is that of somebody replaced, and only the ended are:
        // the newcomer died, or has yet to come, between taking the entry and clearing its word.
        let tagged = LeaseWord::new(who.id);
        if seen.tag() != tagged.tag() || liveness.has_ended(who) {
            let taken =
                word.compare_exchange(seen.0, tagged.0, Ordering::AcqRel, Ordering::Relaxed);
            reclaimed += u32::from(taken.is_ok());
        }
    }
    reclaimed
}
