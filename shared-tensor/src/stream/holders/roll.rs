//! The list of holders in the stream's file.
//!
//! | step | by | word |
//! |---|---|---|
//! | claim | who finds the line free | `id`, by compare-and-swap from 0 or from the id of somebody who has ended |
//! | clear | its owner, just then | `name_bytes` = 0: claimed, and not listening yet |
//! | name | its owner | `entry`, `name`, then `name_bytes`: whoever reads the length reads the name |
//! | leave | its owner | `name_bytes` = 0, then `id` by compare-and-swap from its own to 0 |
//!
//! Whoever reads between claim and clear sees the name of the one before under the id of the new one, and
//! asks at a socket of the dead. That costs an attempt: whatever a line says, it is the answer that is
//! checked.

use super::name::{NameError, SocketName};
use crate::ring::{Identity, Liveness, Ring};
use crate::stream::layout::{Holder, SEATS};
use crate::stream::memory::StreamMemory;
use crate::sync::{Ordering, fence};

use shm_lock::Memory;

/// The lines, and who judges by whom they are held.
pub(super) struct Roll<'a, L> {
    pub(super) memory: &'a StreamMemory,
    pub(super) peers: &'a L,
}

/// What a line says whose holder lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    /// The holder, as a participant.
    pub(super) id: u64,
    /// Where it listens; `None` if it does not yet.
    pub(super) socket: Result<Option<SocketName>, NameError>,
}

impl<L: Liveness> Roll<'_, L> {
    /// Takes a free line for `me`; `None` if the living have all of them.
    pub(super) fn claim(&self, me: Identity) -> Option<usize> {
        (0..SEATS).find(|&line| {
            let holder = self.line(line);
            let found = holder.id.load(Ordering::Acquire);
            if found != 0 && !self.has_ended(holder, found) {
                return false;
            }
            let claimed =
                holder.id.compare_exchange(found, me.id, Ordering::AcqRel, Ordering::Relaxed);
            if claimed.is_ok() {
                holder.name_bytes.store(0, Ordering::Release);
            }
            claimed.is_ok()
        })
    }

    /// What a line says; `None` if nobody alive has it.
    pub(super) fn read(&self, line: usize) -> Option<Listed> {
        let holder = self.line(line);
        let id = holder.id.load(Ordering::Acquire);
        if id == 0 || self.has_ended(holder, id) {
            return None;
        }
        let bytes = holder.name_bytes.load(Ordering::Acquire);
        let words = holder.name.each_ref().map(|word| word.load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        let is_settled = bytes != 0
            && holder.name_bytes.load(Ordering::Relaxed) == bytes
            && holder.id.load(Ordering::Relaxed) == id;
        let socket = if is_settled { SocketName::parse(words, bytes).map(Some) } else { Ok(None) };
        Some(Listed { id, socket })
    }

    /// Whether whoever claimed the line has ended.
    ///
    /// Its place in the table is found by its id, which nobody else ever gets. What the line says of the
    /// place is where to look first: a holder that has just claimed the line has not written it yet, and
    /// must not be taken for dead by the place of its predecessor.
    fn has_ended(&self, holder: &Holder, id: u64) -> bool {
        let used = self.memory.high_water();
        let is_its = |&entry: &usize| self.memory.participant(entry).id() == id;
        let said = usize::try_from(holder.entry.load(Ordering::Relaxed)).ok();
        let entry = said.filter(|&entry| entry < used).filter(is_its);
        let entry = entry.or_else(|| (0..used).find(is_its));
        entry.is_none_or(|entry| self.peers.has_ended(Identity { entry, id }))
    }

    fn line(&self, line: usize) -> &Holder {
        holder(self.memory, line)
    }
}

/// Says where the owner of a claimed line listens.
pub(super) fn name(memory: &StreamMemory, line: usize, me: Identity, socket: &SocketName) {
    let holder = holder(memory, line);
    holder.entry.store(me.entry as u64, Ordering::Relaxed);
    for (word, value) in holder.name.iter().zip(socket.words()) {
        word.store(value, Ordering::Relaxed);
    }
    holder.name_bytes.store(socket.as_str().len() as u64, Ordering::Release);
}

/// Gives a line back, if it still is `me`'s.
pub(super) fn leave(memory: &StreamMemory, line: usize, me: Identity) {
    let holder = holder(memory, line);
    if holder.id.load(Ordering::Relaxed) != me.id {
        return;
    }
    holder.name_bytes.store(0, Ordering::Relaxed);
    // Failure means that somebody took this process for dead: the line is theirs.
    let _ = holder.id.compare_exchange(me.id, 0, Ordering::Release, Ordering::Relaxed);
}

pub(super) fn holder(memory: &StreamMemory, line: usize) -> &Holder {
    &memory.shared.control().holders[line].0
}
