//! Where the words of a lock live: the seam between this crate and anybody's shared memory.

use std::io;
use std::os::fd::OwnedFd;

use crate::roster::{Participant, Roster};
use crate::word::LockWord;

/// The shared memory of one lock and of those who use it.
///
/// Implement it for whatever maps the memory; [`MemoryFile`](crate::MemoryFile) is a ready-made
/// implementation. Every process must map the same bytes, see the same [`capacity`](Self::capacity)
/// and, through [`reopen`](Self::reopen), reach the same inode. The references must stay the same
/// for the life of the value.
///
/// The hooks run while a registration is under way: they must not call back into the
/// [`Membership`](crate::Membership) of this memory.
pub trait Memory: Send + Sync + 'static {
    /// The lock itself.
    fn lock_word(&self) -> &LockWord;

    /// The head of the participant table.
    fn roster(&self) -> &Roster;

    /// How many participants the table has room for, at most
    /// [`PARTICIPANTS_MAX`](crate::PARTICIPANTS_MAX).
    fn capacity(&self) -> usize;

    /// The entry of one participant; `slot` is less than [`capacity`](Self::capacity).
    fn participant(&self, slot: usize) -> &Participant;

    /// Called before the memory of `slot` is touched for the first time, possibly by several
    /// processes at once: the place to reserve its page, so that a full file system is an error
    /// here and not a signal later.
    fn prepare(&self, slot: usize) -> io::Result<()> {
        let _ = slot;
        Ok(())
    }

    /// The entry `slot` now belongs to `id`, which is not yet visible to others: reset whatever
    /// else is kept per participant.
    fn claimed(&self, slot: usize, id: u64) {
        let _ = (slot, id);
    }

    /// A *new* open file description of the inode that the memory lives in, readable at least and
    /// close-on-exec. Not a duplicate: file locks belong to descriptions.
    fn reopen(&self) -> io::Result<OwnedFd>;
}
