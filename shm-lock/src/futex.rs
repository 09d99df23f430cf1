//! The lock on a word in shared memory.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use crate::claim::used_slots;
use crate::error::AcquireError;
use crate::guard::{Holder, Lock, LockGuard, OfProcess, Recovered, Sealed};
use crate::membership::{Me, Membership};
use crate::memory::Memory;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{self, futex};
use crate::wait::Wait;
use crate::word::{LockWord, Observed, Owner, Released};

/// How often a contended lock is looked at before sleeping: about as long as a short critical
/// section on another core.
const SPINS: u32 = if cfg!(loom) { 0 } else { 100 };
/// How long a sleeper goes without asking whether the holder is alive.
const SLICE: Duration = Duration::from_millis(2);
/// The same in a crowd, where somebody asks every few microseconds anyway.
const SLICE_IN_A_CROWD: Duration = Duration::from_millis(4);
const CROWD: u64 = 8;
/// After how many slices the crowd is counted again.
const SLICES_PER_COUNT: u32 = 16;

/// A mutual exclusion lock between processes that survives the death of its holder.
///
/// Taking and releasing it uncontended is one atomic operation each, without a system call. Its
/// guards are tokens: they may be moved to and dropped by any thread. The lock is not re-entrant:
/// a process that waits for a lock it holds itself waits for its deadline.
pub struct FutexLock<M: Memory> {
    membership: Arc<Membership<M>>,
}

/// A held [`FutexLock`]; dropping it releases.
#[must_use = "the lock is released as soon as its guard is dropped"]
pub struct Guard<'a, M: Memory> {
    lock: &'a FutexLock<M>,
    hold: Hold,
}

/// A held [`FutexLock`] that keeps the lock's handle alive, or what it is part of; dropping it releases.
#[must_use = "the lock is released as soon as its guard is dropped"]
pub struct OwnedGuard<M: Memory, L: Deref<Target = FutexLock<M>> = Arc<FutexLock<M>>> {
    lock: L,
    hold: Hold,
}

#[derive(Debug)]
struct Hold {
    owner: Owner,
    process: OfProcess,
    /// Boxed, as it is rare and a guard is moved by everybody.
    recovered: Option<Box<Recovered>>,
}

impl<M: Memory> FutexLock<M> {
    /// The lock in the memory that `membership` has joined.
    pub fn new(membership: Arc<Membership<M>>) -> Self {
        Self { membership }
    }

    /// Waits for the lock.
    ///
    /// If its holder is found dead the lock is taken over and the guard says so. An attempt is
    /// made even if the deadline has passed.
    #[inline]
    pub fn acquire(&self, wait: &Wait<'_>) -> Result<Guard<'_, M>, AcquireError> {
        match self.acquire_if_free() {
            Some(guard) => Ok(guard),
            None => self.acquire_slowly(wait),
        }
    }

    /// Takes the lock if nobody holds it and this process is registered: one atomic exchange, no
    /// call. `None` says that [`acquire`](Self::acquire) has more to do, not that it would wait.
    // Without an error type the guard stays in registers, where it is made as where it is moved to.
    #[inline]
    pub fn acquire_if_free(&self) -> Option<Guard<'_, M>> {
        Some(Guard { lock: self, hold: self.enter_if_free()? })
    }

    /// Takes the lock if it is free or its holder is dead.
    #[inline]
    pub fn try_acquire(&self) -> Result<Guard<'_, M>, AcquireError> {
        let me = self.membership.me()?;
        let owner = Owner::new(me.slot, me.id);
        let recovered = match self.word().try_take(owner) {
            Ok(()) => None,
            Err(observed) => self.try_take_over(observed, owner)?,
        };
        Ok(Guard { lock: self, hold: Hold::new(owner, recovered) })
    }

    /// Like [`acquire`](Self::acquire), for a guard that is not tied to a borrow.
    pub fn acquire_owned(self: &Arc<Self>, wait: &Wait<'_>) -> Result<OwnedGuard<M>, AcquireError> {
        Self::acquire_through(Arc::clone(self), wait)
    }

    /// Like [`acquire_owned`](Self::acquire_owned) for a lock that is part of something else: the guard
    /// keeps `way`, which leads to the lock and always to the same one.
    #[inline]
    pub fn acquire_through<L: Deref<Target = Self>>(
        way: L,
        wait: &Wait<'_>,
    ) -> Result<OwnedGuard<M, L>, AcquireError> {
        let hold = match way.enter_if_free() {
            Some(hold) => hold,
            None => way.enter_slowly(wait)?,
        };
        Ok(OwnedGuard { lock: way, hold })
    }

    /// Like [`acquire_if_free`](Self::acquire_if_free), for a guard that keeps the `way` to the lock.
    #[inline]
    pub fn acquire_through_if_free<L: Deref<Target = Self>>(way: L) -> Option<OwnedGuard<M, L>> {
        let hold = way.enter_if_free()?;
        Some(OwnedGuard { lock: way, hold })
    }

    /// Who holds the lock at this moment.
    pub fn holder(&self) -> Option<Holder> {
        let (slot, id, pid) = self.membership.holder_of(self.word().observe())?;
        Some(Holder { slot, id, pid })
    }

    /// The registration that the lock is used under.
    pub fn membership(&self) -> &Arc<Membership<M>> {
        &self.membership
    }

    #[inline]
    fn word(&self) -> &LockWord {
        self.membership.memory().lock_word()
    }

    #[cold]
    fn acquire_slowly(&self, wait: &Wait<'_>) -> Result<Guard<'_, M>, AcquireError> {
        Ok(Guard { lock: self, hold: self.enter(wait)? })
    }

    #[cold]
    fn enter_slowly(&self, wait: &Wait<'_>) -> Result<Hold, AcquireError> {
        self.enter(wait)
    }

    #[inline]
    fn enter_if_free(&self) -> Option<Hold> {
        let me = self.membership.me_if_registered()?;
        let owner = Owner::new(me.slot, me.id);
        self.word().try_take(owner).ok()?;
        Some(Hold::new(owner, None))
    }

    fn enter(&self, wait: &Wait<'_>) -> Result<Hold, AcquireError> {
        let me = self.membership.me()?;
        let owner = Owner::new(me.slot, me.id);
        let recovered = match self.word().try_take(owner) {
            Ok(()) => None,
            Err(_) => self.enter_contended(me, owner, wait)?,
        };
        Ok(Hold::new(owner, recovered))
    }

    fn enter_contended(
        &self,
        me: Me,
        owner: Owner,
        wait: &Wait<'_>,
    ) -> Result<Option<Recovered>, AcquireError> {
        for _ in 0..SPINS {
            if self.word().observe().is_free() && self.word().try_take(owner).is_ok() {
                return Ok(None);
            }
            sync::relax();
        }
        let waiting = wait.begin();
        let _counted = Counted::among(self.membership.memory().participant(me.slot).waiting());
        let mut slice = SLICE;
        let mut slices = 0;
        // The holder is asked after before the first sleep: it may have been dead for hours.
        let mut suspicious = true;
        let mut slept = false;
        loop {
            let observed = self.word().observe();
            if observed.is_free() {
                match self.word().take_free(observed, owner, slept) {
                    Ok(()) => return Ok(None),
                    Err(_) => continue,
                }
            }
            let Ok(observed) = self.word().announce(observed) else { continue };
            if suspicious && let Some(dead) = self.verdict_on(observed) {
                match self.word().take_over(observed, owner) {
                    Ok(()) => return Ok(Some(dead)),
                    Err(_) => continue,
                }
            }
            if slices % SLICES_PER_COUNT == 0 {
                slice = if self.is_crowded() { SLICE_IN_A_CROWD } else { SLICE };
            }
            slices += 1;
            let slice = waiting
                .next_slice(slice)
                .map_err(|error| AcquireError::from_wait(error, self.holder_pid(observed)))?;
            suspicious = self.sleep(observed, slice);
            slept = true;
        }
    }

    /// Sleeps while the word is as observed. True if the holder should be asked after.
    fn sleep(&self, observed: Observed, slice: Duration) -> bool {
        use crate::park::Parked;
        let expected = if cfg!(st_mutant = "park_without_recheck") {
            self.word().observe().bits()
        } else {
            observed.bits()
        };
        match futex::wait(self.word().as_atomic(), expected, slice) {
            Parked::TimedOut | Parked::Interrupted => true,
            Parked::Woken | Parked::Changed => false,
        }
    }

    /// Whether more than [`CROWD`] threads sleep on the lock. Those who were killed asleep count
    /// until their entry has a new owner, which costs the others two milliseconds at most.
    fn is_crowded(&self) -> bool {
        let memory = &**self.membership.memory();
        let mut asleep = 0_u64;
        used_slots(memory).any(|slot| {
            let here = memory.participant(slot).waiting().load(Ordering::Relaxed);
            asleep = asleep.saturating_add(here);
            asleep > CROWD
        })
    }

    #[cold]
    fn try_take_over(
        &self,
        observed: Observed,
        owner: Owner,
    ) -> Result<Option<Recovered>, AcquireError> {
        let dead = self.verdict_on(observed);
        if (dead.is_some() || observed.is_free()) && self.word().take_over(observed, owner).is_ok()
        {
            return Ok(dead);
        }
        Err(AcquireError::WouldBlock { holder: self.holder_pid(observed) })
    }

    fn verdict_on(&self, observed: Observed) -> Option<Recovered> {
        let verdict = self.membership.verdict_on(observed)?;
        Some(Recovered {
            slot: verdict.slot,
            id: verdict.id,
            pid: verdict.pid,
            liveness: verdict.liveness,
        })
    }

    fn holder_pid(&self, observed: Observed) -> Option<u32> {
        self.membership.holder_of(observed).map(|(_, _, pid)| pid)
    }

    #[inline]
    fn leave(&self, hold: &Hold) {
        // A forked child owns nothing of its parent's.
        if hold.process.is_this() && self.word().release(hold.owner) == Released::WakeOne {
            futex::wake(self.word().as_atomic(), 1);
        }
    }
}

impl Hold {
    #[inline]
    fn new(owner: Owner, recovered: Option<Recovered>) -> Self {
        Self { owner, process: OfProcess::this(), recovered: recovered.map(Box::new) }
    }
}

/// Counts one sleeper for as long as it lives, in the process that sleeps.
struct Counted<'a> {
    waiting: &'a AtomicU64,
    process: OfProcess,
}

impl<'a> Counted<'a> {
    fn among(waiting: &'a AtomicU64) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self { waiting, process: OfProcess::this() }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        if self.process.is_this() {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl<M: Memory> Guard<'_, M> {
    /// Whether this process took the lock: false in a forked child, which inherits the guard and not
    /// the lock.
    #[inline]
    pub fn is_of_this_process(&self) -> bool {
        self.hold.process.is_this()
    }

    /// The previous holder, if it died holding the lock.
    pub fn recovered(&self) -> Option<&Recovered> {
        self.hold.recovered.as_deref()
    }
}

impl<M: Memory, L: Deref<Target = FutexLock<M>>> OwnedGuard<M, L> {
    /// What it keeps, which leads to the lock.
    #[inline]
    pub fn way(&self) -> &L {
        &self.lock
    }

    /// Whether this process took the lock: false in a forked child, which inherits the guard and not
    /// the lock.
    #[inline]
    pub fn is_of_this_process(&self) -> bool {
        self.hold.process.is_this()
    }

    /// The previous holder, if it died holding the lock.
    pub fn recovered(&self) -> Option<&Recovered> {
        self.hold.recovered.as_deref()
    }
}

impl<M: Memory> Drop for Guard<'_, M> {
    #[inline]
    fn drop(&mut self) {
        self.lock.leave(&self.hold);
    }
}

impl<M: Memory, L: Deref<Target = FutexLock<M>>> Drop for OwnedGuard<M, L> {
    #[inline]
    fn drop(&mut self) {
        self.lock.leave(&self.hold);
    }
}

impl<M: Memory> Sealed for FutexLock<M> {}
impl<M: Memory> Sealed for Guard<'_, M> {}
impl<M: Memory, L: Deref<Target = FutexLock<M>>> Sealed for OwnedGuard<M, L> {}

impl<M: Memory> Lock for FutexLock<M> {
    type Guard<'a> = Guard<'a, M>;

    fn acquire(&self, wait: &Wait<'_>) -> Result<Guard<'_, M>, AcquireError> {
        self.acquire(wait)
    }

    fn try_acquire(&self) -> Result<Guard<'_, M>, AcquireError> {
        self.try_acquire()
    }

    fn holder(&self) -> Option<Holder> {
        self.holder()
    }
}

impl<M: Memory> LockGuard for Guard<'_, M> {
    fn recovered(&self) -> Option<&Recovered> {
        self.recovered()
    }
}

impl<M: Memory, L: Deref<Target = FutexLock<M>> + Send> LockGuard for OwnedGuard<M, L> {
    fn recovered(&self) -> Option<&Recovered> {
        self.recovered()
    }
}

impl<M: Memory> fmt::Debug for FutexLock<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FutexLock").field("membership", &self.membership).finish()
    }
}

impl<M: Memory> fmt::Debug for Guard<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("recovered", &self.hold.recovered).finish_non_exhaustive()
    }
}

impl<M: Memory, L: Deref<Target = FutexLock<M>>> fmt::Debug for OwnedGuard<M, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnedGuard")
            .field("recovered", &self.hold.recovered)
            .finish_non_exhaustive()
    }
}
