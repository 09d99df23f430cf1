//! Getting an entry of the participant table.

use std::ops::Range;

use crate::error::JoinError;
use crate::memory::Memory;
use crate::roster::PARTICIPANTS_MAX;

/// What came of claiming.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    Slot(usize),
    /// The only entries to be had are ones that the lock word still names under the same low bits:
    /// with this id the newcomer would look like a dead holder come back to life.
    AnotherId,
}

/// Claims an entry for `id`: one that is empty or whose owner `is_gone`, the lowest first, else
/// the first that was never used.
pub(crate) fn claim<M: Memory>(
    memory: &M,
    id: u64,
    is_gone: impl Fn(u64) -> bool,
) -> Result<Claim, JoinError> {
    let capacity = capacity(memory);
    let mut ambiguous = false;
    let mut try_slot = |slot: usize| {
        let participant = memory.participant(slot);
        let entry = participant.entry();
        if !entry.id().is_none_or(&is_gone) {
            return false;
        }
        // Whoever owned the entry is gone, so the word cannot come to name it after this look.
        if memory.lock_word().observe().names(slot, id) {
            ambiguous = true;
            return false;
        }
        participant.claim(entry, id)
    };
    let used = used_slots(memory).end;
    if let Some(slot) = (0..used).find(|slot| try_slot(*slot)) {
        return Ok(Claim::Slot(slot));
    }
    for slot in used..capacity {
        memory.prepare(slot).map_err(|source| JoinError::Prepare { slot, source })?;
        memory.roster().raise_high_water(slot + 1);
        if try_slot(slot) {
            return Ok(Claim::Slot(slot));
        }
    }
    if ambiguous { Ok(Claim::AnotherId) } else { Err(JoinError::Full { limit: capacity }) }
}

/// How many entries there are, whatever the memory's owner says.
pub(crate) fn capacity<M: Memory>(memory: &M) -> usize {
    memory.capacity().min(PARTICIPANTS_MAX)
}

/// The slots that may hold somebody; a damaged head of the table cannot lead beyond its end.
pub(crate) fn used_slots<M: Memory>(memory: &M) -> Range<usize> {
    0..memory.roster().high_water().min(capacity(memory))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::BTreeMap;
    use std::io;
    use std::os::fd::OwnedFd;

    use proptest::prelude::*;

    use super::*;
    use crate::roster::{Entry, Identity};
    use crate::word::{Owner, Released, TAG_MASK};
    use crate::{LockWord, Participant, Roster};

    struct Table {
        word: LockWord,
        roster: Roster,
        participants: Vec<Participant>,
    }

    impl Memory for Table {
        fn lock_word(&self) -> &LockWord {
            &self.word
        }
        fn roster(&self) -> &Roster {
            &self.roster
        }
        fn capacity(&self) -> usize {
            self.participants.len()
        }
        fn participant(&self, slot: usize) -> &Participant {
            &self.participants[slot]
        }
        fn reopen(&self) -> io::Result<OwnedFd> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// Somebody joins whose id is this many after the last one.
        Join {
            after: u64,
        },
        /// One of the living leaves, dies, or dies holding the lock.
        Leave(prop::sample::Index),
        Die(prop::sample::Index),
        DieHolding(prop::sample::Index),
        /// The lock of the dead is taken over by somebody and given back.
        Recover,
    }

    fn step() -> impl Strategy<Value = Step> {
        // Now and then a whole turn of the low bits that the lock word has room for.
        let after = prop_oneof![4 => 1..4_u64, 1 => Just(TAG_MASK + 1), 1 => Just(TAG_MASK)];
        prop_oneof![
            4 => after.prop_map(|after| Step::Join { after }),
            1 => any::<prop::sample::Index>().prop_map(Step::Leave),
            1 => any::<prop::sample::Index>().prop_map(Step::Die),
            1 => any::<prop::sample::Index>().prop_map(Step::DieHolding),
            1 => Just(Step::Recover),
        ]
    }

    proptest! {
        #[test]
        fn the_living_keep_their_entries_and_the_dead_theirs_until_replaced(
            capacity in 1..5_usize,
            steps in prop::collection::vec(step(), 1..60),
        ) {
            let table = Table {
                word: LockWord::new(),
                roster: Roster::new(),
                participants: (0..capacity).map(|_| Participant::new()).collect(),
            };
            let mut alive = BTreeMap::new();
            let mut id = 0;
            let mut died_holding = None;
            let choose = |alive: &BTreeMap<u64, usize>, index: &prop::sample::Index| {
                let ids: Vec<u64> = alive.keys().copied().collect();
                (!ids.is_empty()).then(|| *index.get(&ids))
            };
            for step in steps {
                match step {
                    Step::Join { after } => {
                        id += after;
                        match claim(&table, id, |id| !alive.contains_key(&id)) {
                            Ok(Claim::Slot(slot)) => {
                                prop_assert!(!alive.values().any(|taken| *taken == slot));
                                prop_assert_eq!(
                                    table.participants[slot].entry(),
                                    Entry::Claiming { id }
                                );
                                table.participants[slot].publish(id, &Identity::default());
                                alive.insert(id, slot);
                            }
                            Ok(Claim::AnotherId) => prop_assert!(died_holding.is_some()),
                            Err(JoinError::Full { limit }) => {
                                prop_assert_eq!((limit, alive.len()), (capacity, capacity));
                            }
                            Err(error) => prop_assert!(false, "{}", error),
                        }
                    }
                    Step::Leave(index) => {
                        if let Some(id) = choose(&alive, &index) {
                            let slot = alive.remove(&id).unwrap();
                            table.participants[slot].leave(id);
                            prop_assert_eq!(table.participants[slot].entry(), Entry::Empty);
                        }
                    }
                    Step::Die(index) => {
                        if let Some(id) = choose(&alive, &index) {
                            alive.remove(&id);
                        }
                    }
                    Step::DieHolding(index) => {
                        if let Some(id) = choose(&alive, &index)
                            && let Ok(()) = table.word.try_take(Owner::new(alive[&id], id))
                        {
                            died_holding = alive.remove(&id).map(|slot| (slot, id));
                        }
                    }
                    Step::Recover => {
                        if died_holding.take().is_some() {
                            let owner = Owner::new(0, id);
                            table.word.take_over(table.word.observe(), owner).unwrap();
                            prop_assert_eq!(table.word.release(owner), Released::Quiet);
                        }
                    }
                }
                for (id, slot) in &alive {
                    prop_assert_eq!(table.participants[*slot].entry().id(), Some(*id));
                }
                // Nobody alive passes for the dead holder.
                if let Some((slot, dead)) = died_holding {
                    let word = table.word.observe();
                    prop_assert!(word.names(slot, dead));
                    prop_assert!(!alive.iter().any(|(id, slot)| word.names(*slot, *id)));
                }
                prop_assert!(used_slots(&table).end <= capacity);
            }
        }
    }
}
