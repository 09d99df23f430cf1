//! Looking on without write permission: has whoever holds the lock gone?

use std::io;
use std::os::fd::OwnedFd;

use crate::presence::FIRST_BYTE;
use crate::roster::Participant;
use crate::sys::{Inode, Prober};
use crate::word::LockWord;

/// What somebody can tell about a lock who may read its memory but not write it.
///
/// An onlooker is no participant: it takes no lock and leaves no trace. It goes by the bytes that
/// the kernel keeps for participants, so it sees a death when the memory of the dead has been torn
/// down, not before.
#[derive(Debug)]
pub struct Onlooker {
    prober: Prober,
}

impl Onlooker {
    /// Looks through `file`, an open file description of the memory's inode. Read permission is
    /// enough.
    ///
    /// # Errors
    /// The kernel's, if the file cannot be examined.
    pub fn new(file: OwnedFd) -> io::Result<Self> {
        let inode = Inode::of(&file)?;
        Ok(Self { prober: Prober::keep(file, inode, 0)? })
    }

    /// Whether the participant that holds the lock is gone; `None` if the lock is free. What cannot
    /// be shown is `Some(false)`.
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
        let is_gone =
            !seen.names(seen.slot(), id) || self.prober.is_held(FIRST_BYTE + id) == Some(false);
        // The verdict is about the holder that was seen, not about one that came since.
        Some(is_gone && word.observe() == seen)
    }
}
