//! Who is attached: a lock that lives exactly as long as anybody can reach the bytes.
//!
//! Every handle holds a read lock on the byte [`ATTACH`], owned by its open file description. A
//! mapping keeps the description alive after the descriptor is closed, so the lock ends with the
//! last mapping, descriptor or forked copy, and the kernel drops it when processes die.

use std::io;
use std::os::fd::BorrowedFd;

use crate::sys::{self, Probe};

/// The byte whose read lock says "attached". Bytes from 2^40 on belong to the caller.
const ATTACH: u64 = (1 << 40) - 1;

/// The byte whose write lock its holder needs to remove a name of the file.
const REMOVAL: u64 = 1 << 39;

/// Marks the description of `fd` as attached; `false`: somebody is removing the file, and did so
/// because nobody was attached.
pub(crate) fn attach(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(sys::try_lock_shared(fd, ATTACH)? == Probe::Free)
}

/// Whether any description but that of `fd` is attached.
pub(crate) fn is_attached_elsewhere(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(sys::would_conflict(fd, ATTACH)? == Probe::Held)
}

/// The right to remove names of a file. It ends when this value is dropped, not when the descriptor
/// is closed: a thread that forks at this moment leaves its child a copy of the descriptor, and the
/// lock would live as long as the child.
#[derive(Debug)]
pub(crate) struct Claim<'fd>(BorrowedFd<'fd>);

impl<'fd> Claim<'fd> {
    /// Takes the right over the file behind `fd`, a description of the caller's own that is not
    /// attached; `None`: somebody else has it.
    pub(crate) fn take(fd: BorrowedFd<'fd>) -> io::Result<Option<Claim<'fd>>> {
        let taken = sys::try_lock_exclusive(fd, REMOVAL)? == Probe::Free;
        Ok(taken.then_some(Claim(fd)))
    }

    /// Keeps everybody from attaching as well; `false`: somebody is attached.
    pub(crate) fn exclude(&self) -> io::Result<bool> {
        Ok(sys::try_lock_exclusive(self.0, ATTACH)? == Probe::Free)
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        // What cannot be released here is released when the description closes.
        let _ = sys::unlock(self.0, ATTACH);
        let _ = sys::unlock(self.0, REMOVAL);
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::sys::{create_memfd, file};

    /// A duplicate shares the description, as a child does that was forked at this moment.
    #[test]
    fn a_right_ends_with_its_value_although_a_copy_of_the_descriptor_lives() {
        let fd = create_memfd("claim", false).expect("a memfd");
        let inherited = file::duplicate(fd.as_fd()).expect("a copy");
        let other = file::reopen(fd.as_fd(), true).expect("a description");
        let claim = Claim::take(fd.as_fd()).expect("lockable").expect("free");
        assert!(claim.exclude().expect("lockable"));
        assert!(Claim::take(other.as_fd()).expect("lockable").is_none(), "taken");
        assert!(!attach(other.as_fd()).expect("lockable"), "excluded");
        drop(claim);
        drop(fd);
        assert!(attach(other.as_fd()).expect("lockable"));
        let again = file::reopen(inherited.as_fd(), true).expect("a description");
        let claim = Claim::take(again.as_fd()).expect("lockable").expect("free again");
        assert!(!claim.exclude().expect("lockable"), "somebody is attached");
    }
}
