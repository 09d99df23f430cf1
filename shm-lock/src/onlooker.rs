//! Looking on without write permission: has whoever holds the lock died?

use std::io;
use std::os::fd::OwnedFd;

use crate::presence::FIRST_BYTE;
use crate::proc;
use crate::roster::{Identity, Participant};
use crate::sys::{Inode, Prober};
use crate::word::LockWord;

/// What somebody can tell about a lock who may read its memory but not write it.
///
/// An onlooker is no participant: it takes no lock and leaves no trace. It judges like a waiter,
/// with one proof less: having no byte of its own, it cannot check that locks are seen at all on
/// this file system, and relies on the participants having checked when they joined.
#[derive(Debug)]
pub struct Onlooker {
    prober: Prober,
    identity: Identity,
}

impl Onlooker {
    /// Looks through `file`, an open file description of the memory's inode that nothing else
    /// uses. Read permission is enough.
    ///
    /// # Errors
    /// The kernel's, if the file cannot be examined.
    pub fn new(file: OwnedFd) -> io::Result<Self> {
        let inode = Inode::of(&file)?;
        Ok(Self { prober: Prober::keep(file, inode)?, identity: proc::own_identity() })
    }

    /// Whether the participant that holds the lock is dead; `None` if the lock is free. What
    /// cannot be shown is `Some(false)`.
    ///
    /// `participant` gives the table's entry at a slot, if it has one.
    pub fn holder_is_gone<'a>(
        &self,
        word: &LockWord,
        participant: impl FnOnce(usize) -> Option<&'a Participant>,
    ) -> Option<bool> {
        let seen = word.observe();
        if seen.is_free() {
            return None;
        }
        let Some(entry) = participant(seen.slot()) else { return Some(false) };
        let id = entry.id();
        // An entry that somebody else has claimed meanwhile: the holder's byte was free then.
        let is_dead = !seen.names(seen.slot(), id)
            || self.prober.is_held(FIRST_BYTE + id) == Some(false)
            || entry.identity_of(id).is_some_and(|them| proc::is_ending(&self.identity, &them));
        // The verdict is about the holder that was seen, not about one that came since.
        Some(is_dead && word.observe() == seen)
    }
}
