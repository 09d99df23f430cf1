//! The lock word: 32 bits that say who holds the lock and whether anybody sleeps on it.
//!
//! This file knows nothing of processes, clocks or futexes: it is the complete list of transitions
//! that the word can make, and the memory ordering each of them needs. The table that explains
//! the bits stands on the crate's front page.

use crate::sync::atomic::{AtomicU32, Ordering};

const WAITERS: u32 = 1;
const TAG_SHIFT: u32 = 1;
const TAG_BITS: u32 = 20;
const SLOT_SHIFT: u32 = TAG_SHIFT + TAG_BITS;
const SLOT_MASK: u32 = 0x3ff << SLOT_SHIFT;

/// The low bits of a participant id that the word has room for.
pub(crate) const TAG_MASK: u64 = (1 << TAG_BITS) - 1;

/// A 32-bit lock in shared memory. All-zero is the free state.
///
/// The word has the size and the alignment of an [`AtomicU32`](std::sync::atomic::AtomicU32), so
/// it may live in any zeroed, four-byte aligned place that several processes map; see
/// [`LockWord::from_atomic`].
#[derive(Debug)]
#[repr(transparent)]
pub struct LockWord(AtomicU32);

/// Who a lock word names as its holder: `slot + 1` and the low bits of the id, in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner(u32);

/// One value read from a lock word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Observed(u32);

/// What a release found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Released {
    /// Nobody asked to be woken.
    Quiet,
    /// The `WAITERS` bit was set: wake one sleeper.
    WakeOne,
    /// The word no longer names us: somebody held us for dead and took over.
    NotOurs,
}

/// SYNC: lock-hand-over. What a holder wrote is seen by the next one.
const RELEASE: Ordering =
    if cfg!(st_mutant = "unlock_relaxed") { Ordering::Relaxed } else { Ordering::Release };

/// SYNC: lock-hand-over, and as a release SYNC: owner-entry: whoever reads our name in the word
/// also reads our entry in the table, otherwise we would look like somebody long gone.
const TAKE: Ordering = Ordering::AcqRel;

impl Owner {
    pub(crate) const fn new(slot: usize, id: u64) -> Self {
        let slot = (slot as u32 + 1) << SLOT_SHIFT;
        let tag = ((id & TAG_MASK) as u32) << TAG_SHIFT;
        Self(slot & SLOT_MASK | tag)
    }
}

impl Observed {
    /// Nobody is named. (A word that names nobody and yet has other bits set was written by no
    /// version of this crate; it is treated as free, because nobody could ever release it.)
    pub(crate) fn is_free(self) -> bool {
        self.0 & SLOT_MASK == 0
    }

    /// The slot of the holder; only meaningful when the word is not free.
    pub(crate) fn slot(self) -> usize {
        ((self.0 & SLOT_MASK) >> SLOT_SHIFT) as usize - 1
    }

    /// The low bits of the holder's id.
    pub(crate) fn tag(self) -> u64 {
        u64::from(self.0 >> TAG_SHIFT) & TAG_MASK
    }

    /// Whether this value names `id` in `slot`.
    pub(crate) fn names(self, slot: usize, id: u64) -> bool {
        !self.is_free() && self.slot() == slot && self.tag() == id & TAG_MASK
    }

    pub(crate) fn has_waiters(self) -> bool {
        self.0 & WAITERS != 0
    }

    pub(crate) fn bits(self) -> u32 {
        self.0
    }
}

impl LockWord {
    /// A free lock.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// A free lock.
    #[cfg(loom)]
    pub fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Whether nobody holds the lock at this moment.
    pub fn is_free(&self) -> bool {
        self.observe().is_free()
    }

    /// Whether somebody sleeps on the lock, or did when its holder died or it was last taken.
    pub fn has_waiters(&self) -> bool {
        self.observe().has_waiters()
    }

    /// The word itself, as the futex calls need it.
    pub(crate) fn as_atomic(&self) -> &AtomicU32 {
        &self.0
    }

    pub(crate) fn observe(&self) -> Observed {
        // SYNC: owner-entry. Pairs with TAKE: after reading a name, read that name's entry.
        Observed(self.0.load(Ordering::Acquire))
    }

    /// Takes a lock that nobody ever waited for: the whole uncontended path.
    #[inline]
    pub(crate) fn try_take(&self, owner: Owner) -> Result<(), Observed> {
        match self.0.compare_exchange(0, owner.0, TAKE, Ordering::Acquire) {
            Ok(_) => Ok(()),
            Err(found) => Err(Observed(found)),
        }
    }

    /// Takes a lock seen free. Whoever has `slept` must suppose that others still do, of whom the
    /// release that woke it does not tell, and so must wake one in its turn.
    pub(crate) fn take_free(
        &self,
        observed: Observed,
        owner: Owner,
        slept: bool,
    ) -> Result<(), Observed> {
        let slept = slept && !cfg!(st_mutant = "woken_forgets_the_others");
        let waiters = if slept { WAITERS } else { 0 };
        self.exchange(observed, owner.0 | waiters)
    }

    /// Takes a lock whose holder is dead. Works only from the very value that the verdict was
    /// made on, and keeps the waiters' bit: those who sleep will be woken by our release.
    pub(crate) fn take_over(&self, observed: Observed, owner: Owner) -> Result<(), Observed> {
        let kept =
            if cfg!(st_mutant = "takeover_drops_waiters") { 0 } else { observed.0 & WAITERS };
        if cfg!(st_mutant = "takeover_of_any_value") {
            self.0.store(owner.0 | kept, Ordering::Release);
            return Ok(());
        }
        self.exchange(observed, owner.0 | kept)
    }

    /// Sets the waiters' bit on exactly the observed value and returns the value to sleep on.
    pub(crate) fn announce(&self, observed: Observed) -> Result<Observed, Observed> {
        if observed.has_waiters() {
            return Ok(observed);
        }
        let announced = observed.0 | WAITERS;
        // Relaxed: the bit carries no data, and as a read-modify-write it leaves the holder's
        // release sequence intact.
        match self.0.compare_exchange(observed.0, announced, Ordering::Relaxed, Ordering::Acquire) {
            Ok(_) => Ok(Observed(announced)),
            Err(found) => Err(Observed(found)),
        }
    }

    /// Gives the lock back if it is still ours.
    #[inline]
    pub(crate) fn release(&self, owner: Owner) -> Released {
        let Err(found) = self.0.compare_exchange(owner.0, 0, RELEASE, Ordering::Relaxed) else {
            return Released::Quiet;
        };
        // The bit is only ever added while we hold the lock, so one retry settles it.
        let awaited = owner.0 | WAITERS;
        if found == awaited
            && self.0.compare_exchange(awaited, 0, RELEASE, Ordering::Relaxed).is_ok()
        {
            Released::WakeOne
        } else {
            Released::NotOurs
        }
    }

    fn exchange(&self, observed: Observed, new: u32) -> Result<(), Observed> {
        match self.0.compare_exchange(observed.0, new, TAKE, Ordering::Acquire) {
            Ok(_) => Ok(()),
            Err(found) => Err(Observed(found)),
        }
    }
}

impl Default for LockWord {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::PARTICIPANTS_MAX;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        TryTake(usize),
        TakeFree { who: usize, slept: bool },
        TakeOver(usize),
        Announce,
        Release(usize),
    }

    /// The word as one would say it.
    #[derive(Clone, Copy, Debug, Default, PartialEq)]
    struct Said {
        holder: Option<usize>,
        waiters: bool,
    }

    /// The four corners of what a word can name, and one in the middle.
    const PEOPLE: [(usize, u64); 5] = [
        (0, 1),
        (0, TAG_MASK),
        (PARTICIPANTS_MAX - 1, TAG_MASK + 1),
        (PARTICIPANTS_MAX - 1, (1 << 48) - 1),
        (511, 0xabcde),
    ];

    fn owner(who: usize) -> Owner {
        Owner::new(PEOPLE[who].0, PEOPLE[who].1)
    }

    fn say(observed: Observed) -> Said {
        let holder = PEOPLE.iter().position(|(slot, id)| observed.names(*slot, *id));
        assert_eq!(holder.is_none(), observed.is_free());
        Said { holder, waiters: observed.has_waiters() }
    }

    fn step() -> impl Strategy<Value = Step> {
        let who = 0..PEOPLE.len();
        prop_oneof![
            who.clone().prop_map(Step::TryTake),
            (who.clone(), any::<bool>()).prop_map(|(who, slept)| Step::TakeFree { who, slept }),
            who.clone().prop_map(Step::TakeOver),
            Just(Step::Announce),
            who.prop_map(Step::Release),
        ]
    }

    proptest! {
        #[test]
        fn the_word_does_what_its_table_says(steps in prop::collection::vec(step(), 1..50)) {
            let word = LockWord::new();
            let mut said = Said::default();
            // A value read earlier, on which slower participants act.
            let mut stale = word.observe();
            for (turn, step) in steps.into_iter().enumerate() {
                let fresh = word.observe();
                let observed = if turn % 3 == 0 { stale } else { fresh };
                let is_fresh = observed == fresh;
                match step {
                    Step::TryTake(who) => {
                        let free = said == Said::default();
                        prop_assert_eq!(word.try_take(owner(who)).is_ok(), free);
                        if free {
                            said = Said { holder: Some(who), waiters: false };
                        }
                    }
                    Step::TakeFree { who, slept } => {
                        if observed.is_free() {
                            let taken = word.take_free(observed, owner(who), slept).is_ok();
                            prop_assert_eq!(taken, is_fresh);
                            if taken {
                                said = Said { holder: Some(who), waiters: slept };
                            }
                        }
                    }
                    Step::TakeOver(who) => {
                        if !observed.is_free() {
                            let taken = word.take_over(observed, owner(who)).is_ok();
                            prop_assert_eq!(taken, is_fresh);
                            if taken {
                                said.holder = Some(who);
                            }
                        }
                    }
                    Step::Announce => {
                        if !observed.is_free() {
                            let announced = word.announce(observed);
                            if is_fresh {
                                said.waiters = true;
                                prop_assert_eq!(announced, Ok(word.observe()));
                            } else if let Ok(asleep_on) = announced {
                                // Nothing was written: the sleep will find another value.
                                prop_assert!(observed.has_waiters());
                                prop_assert_ne!(asleep_on, word.observe());
                            }
                        }
                    }
                    Step::Release(who) => {
                        let released = word.release(owner(who));
                        if said.holder == Some(who) {
                            let expected =
                                if said.waiters { Released::WakeOne } else { Released::Quiet };
                            prop_assert_eq!(released, expected);
                            said = Said::default();
                        } else {
                            prop_assert_eq!(released, Released::NotOurs);
                        }
                    }
                }
                prop_assert_eq!(say(word.observe()), said);
                prop_assert_eq!(word.observe().bits() >> 31, 0);
                if turn % 4 == 0 {
                    stale = fresh;
                }
            }
        }
    }
}
