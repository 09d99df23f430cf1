//! What holding a lock looks like, whichever lock it is.

use crate::membership::Liveness;
use crate::sys::process_token;

/// The previous holder, which died holding the lock.
///
/// What it was writing may be half done: repair it before anybody else can see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovered {
    /// Its entry in the participant table; 0 for a file lock.
    pub slot: usize,
    /// Its participant id. If its entry had already been given to somebody else, the newest id
    /// that it can have had. For a file lock, the number of its acquisition.
    pub id: u64,
    /// Its process, in the pid namespace of that process; 0 if its entry had been given away.
    pub pid: u32,
    /// [`Ending`](Liveness::Ending): its threads have ended but its memory may not be torn down.
    /// [`Gone`](Liveness::Gone): nothing of it is left.
    pub liveness: Liveness,
}

/// Who holds a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// Its entry in the participant table; 0 for a file lock.
    pub slot: usize,
    /// Its participant id; the number of its acquisition for a file lock.
    pub id: u64,
    /// Its process, in the pid namespace of that process.
    pub pid: u32,
}

mod sealed {
    pub trait Sealed {}
}
pub(crate) use sealed::Sealed;

/// A held lock: dropping it releases.
///
/// A guard is a token: any thread may drop it. One inherited by a forked child releases nothing.
/// The trait is implemented by the guards of this crate only.
pub trait LockGuard: Send + Sealed {
    /// The previous holder, if it died holding the lock.
    fn recovered(&self) -> Option<&Recovered>;
}

/// A lock between processes: the same contract whatever it is made of.
///
/// The trait is implemented by the locks of this crate only.
pub trait Lock: Send + Sync + Sealed {
    /// What holding the lock looks like.
    type Guard<'a>: LockGuard
    where
        Self: 'a;

    /// Waits for the lock.
    fn acquire(&self, wait: &crate::Wait<'_>) -> Result<Self::Guard<'_>, crate::AcquireError>;

    /// Takes the lock if it is free or its holder is dead.
    fn try_acquire(&self) -> Result<Self::Guard<'_>, crate::AcquireError>;

    /// Who holds the lock at this moment.
    fn holder(&self) -> Option<Holder>;
}

/// The process that something belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OfProcess(u64);

impl OfProcess {
    #[inline]
    pub(crate) fn this() -> Self {
        Self(process_token())
    }

    /// False in a child that inherited the value by `fork`.
    #[inline]
    pub(crate) fn is_this(self) -> bool {
        self.0 == process_token()
    }
}
