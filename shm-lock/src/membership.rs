//! A process's registration on one lock's memory.

use std::fmt;
use std::sync::Arc;

use crate::claim::{Claim, capacity, claim, used_slots};
use crate::error::JoinError;
use crate::memory::Memory;
use crate::presence::Presence;
use crate::roster::{Entry, ID_MAX, Identity, PARTICIPANTS_MAX};
use crate::sys::PerProcess;
use crate::word::{Observed, TAG_MASK};

/// Who this process is on one lock's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Me {
    /// The entry of the participant table.
    pub slot: usize,
    /// The participant's id: never given to anybody else.
    pub id: u64,
}

/// Whether a participant lives, as far as it can be proven from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Liveness {
    /// Alive, stopped, or not proven otherwise.
    Alive,
    /// Every thread has ended for good, but the memory may not be torn down yet: devices may
    /// still write to what the process had mapped. Only seen from the same pid and time namespace.
    Ending,
    /// The address space no longer exists, or the participant has left.
    Gone,
}

/// One line of the participant table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParticipantInfo {
    /// The entry.
    pub slot: usize,
    /// The participant's id.
    pub id: u64,
    /// Its process, in the pid namespace of that process.
    pub pid: u32,
    /// The real user id of its process, in the user namespace of that process.
    pub uid: u32,
    /// Whether it lives.
    pub liveness: Liveness,
}

/// This process's registration on the memory of one lock.
///
/// It is an entry in the participant table and a byte of the memory's file that stays locked for
/// as long as the process's address space lives. A forked child is not its parent: on its first
/// use of an inherited membership it registers itself. Dropping the membership leaves, in the
/// process that joined.
///
/// A process may join the same memory several times: each membership is a participant of its own.
pub struct Membership<M: Memory> {
    memory: Arc<M>,
    registration: PerProcess<Registration>,
}

#[derive(Debug)]
struct Registration {
    me: Me,
    presence: Presence,
}

impl<M: Memory> Membership<M> {
    /// Registers this process.
    pub fn join(memory: Arc<M>) -> Result<Arc<Self>, JoinError> {
        let membership = Self { memory, registration: PerProcess::new() };
        membership.registration()?;
        Ok(Arc::new(membership))
    }

    /// Who this process is. In a forked child the first call registers the child, which is the
    /// only way it can fail.
    #[inline]
    pub fn me(&self) -> Result<Me, JoinError> {
        Ok(self.registration()?.me)
    }

    /// Who this process is, if it need not register first.
    #[inline]
    pub(crate) fn me_if_registered(&self) -> Option<Me> {
        Some(self.registration.get()?.me)
    }

    /// The memory that was joined.
    pub fn memory(&self) -> &Arc<M> {
        &self.memory
    }

    /// Whether the participant `id`, last seen in `slot`, lives.
    ///
    /// A verdict other than [`Alive`](Liveness::Alive) is final. What cannot be proven is `Alive`.
    pub fn liveness(&self, slot: usize, id: u64) -> Liveness {
        match self.registration() {
            Ok(registration) => registration.judge(&*self.memory, slot, id),
            Err(_) => Liveness::Alive,
        }
    }

    /// Everybody in the table, the dead that nobody has replaced yet included.
    pub fn participants(&self) -> Vec<ParticipantInfo> {
        let slots = used_slots(&*self.memory);
        slots.filter_map(|slot| self.participant_info(slot)).collect()
    }

    fn participant_info(&self, slot: usize) -> Option<ParticipantInfo> {
        let participant = self.memory.participant(slot);
        let id = participant.entry().id()?;
        let Identity { pid, uid, .. } = participant.identity_of(id)?;
        Some(ParticipantInfo { slot, id, pid, uid, liveness: self.liveness(slot, id) })
    }

    /// In a model: the process dies without leaving.
    #[cfg(loom)]
    #[doc(hidden)]
    pub fn die(&self) {
        if let Some(registration) = self.registration.get() {
            registration.presence.die();
        }
    }

    /// Judges the holder that a lock word names. `None` means that it may be alive.
    pub(crate) fn verdict_on(&self, observed: Observed) -> Option<Verdict> {
        let registration = self.registration().ok()?;
        registration.verdict_on(&*self.memory, observed)
    }

    /// The full id and the pid of the holder that a lock word names, if its entry still says so.
    pub(crate) fn holder_of(&self, observed: Observed) -> Option<(usize, u64, u32)> {
        if observed.is_free() || observed.slot() >= capacity(&*self.memory) {
            return None;
        }
        let slot = observed.slot();
        let participant = self.memory.participant(slot);
        let id = participant.entry().id().filter(|id| observed.names(slot, *id))?;
        Some((slot, id, participant.identity_of(id)?.pid))
    }

    #[inline]
    fn registration(&self) -> Result<&Registration, JoinError> {
        match self.registration.get() {
            Some(registration) => Ok(registration),
            None => self.register(),
        }
    }

    #[cold]
    fn register(&self) -> Result<&Registration, JoinError> {
        self.registration.get_or_try_init(|| Registration::establish(&*self.memory))
    }
}

impl<M: Memory> Drop for Membership<M> {
    fn drop(&mut self) {
        if let Some(Registration { me, .. }) = self.registration.get() {
            self.memory.participant(me.slot).leave(me.id);
        }
    }
}

impl<M: Memory> fmt::Debug for Membership<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Membership")
            .field("registration", &self.registration)
            .finish_non_exhaustive()
    }
}

/// A holder found dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) slot: usize,
    pub(crate) id: u64,
    pub(crate) pid: u32,
    pub(crate) liveness: Liveness,
}

impl Registration {
    fn establish<M: Memory>(memory: &M) -> Result<Self, JoinError> {
        let found = memory.capacity();
        if found > PARTICIPANTS_MAX {
            return Err(JoinError::Capacity { found, limit: PARTICIPANTS_MAX });
        }
        loop {
            let id = memory
                .roster()
                .next_id()
                .map_err(|found| JoinError::IdsExhausted { found, limit: ID_MAX })?;
            // The byte comes first: an entry is judged by it from the moment of the claim.
            let presence = Presence::establish(memory, id)?;
            let slot = match claim(memory, id, |other| presence.is_gone(memory, other))? {
                Claim::Slot(slot) => slot,
                Claim::AnotherId => continue,
            };
            let registration = Self { me: Me { slot, id }, presence };
            registration.publish(memory);
            return Ok(registration);
        }
    }

    fn publish<M: Memory>(&self, memory: &M) {
        let Me { slot, id } = self.me;
        memory.claimed(slot, id);
        memory.participant(slot).publish(id, self.presence.identity());
    }

    fn judge<M: Memory>(&self, memory: &M, slot: usize, id: u64) -> Liveness {
        if (Me { slot, id }) == self.me || slot >= capacity(memory) {
            return Liveness::Alive;
        }
        let participant = memory.participant(slot);
        let entry = participant.entry();
        if entry.id() != Some(id) || self.presence.is_gone(memory, id) {
            return Liveness::Gone;
        }
        // An entry being claimed has a byte of its own, but still the pid of the one before.
        match participant.identity_of(id) {
            Some(identity) if self.presence.is_ending(&identity) => Liveness::Ending,
            _ => Liveness::Alive,
        }
    }

    fn verdict_on<M: Memory>(&self, memory: &M, observed: Observed) -> Option<Verdict> {
        if observed.is_free() {
            return None;
        }
        let slot = observed.slot();
        if slot >= capacity(memory) {
            // No participant can have written this, so none will ever release it.
            let id = observed.tag();
            return Some(Verdict { slot, id, pid: 0, liveness: Liveness::Gone });
        }
        let participant = memory.participant(slot);
        let entry = participant.entry();
        let Some(id) = entry.id().filter(|id| observed.names(slot, *id)) else {
            // Claimed anew, or left: only somebody gone can have been replaced.
            let id = earlier_id(entry, observed);
            return Some(Verdict { slot, id, pid: 0, liveness: Liveness::Gone });
        };
        let pid = participant.identity_of(id).map_or(0, |identity| identity.pid);
        match self.judge(memory, slot, id) {
            Liveness::Alive => None,
            liveness => Some(Verdict { slot, id, pid, liveness }),
        }
    }
}

/// The largest id with the observed tag that is older than the entry's present owner.
fn earlier_id(entry: Entry, observed: Observed) -> u64 {
    let successor = entry.id().unwrap_or(0);
    let candidate = successor & !TAG_MASK | observed.tag();
    if candidate >= successor {
        candidate.saturating_sub(TAG_MASK + 1).max(observed.tag())
    } else {
        candidate
    }
}
