//! Locks in shared memory that survive the death of their owner.
//!
//! For processes of one Linux host that share memory and must take turns, although any of them may
//! be killed at any instruction. Start from [`FutexLock`]: a 32-bit word and a table of
//! participants, in anybody's memory ([`Memory`]) or in a file of their own ([`MemoryFile`]). For
//! set-up, before there is any shared memory, there is [`FileLock`] with the same guards; for
//! waiting until something happens, [`Broadcast`] and [`park`]; for those who may only read,
//! [`Onlooker`].
//!
//! ```
//! use std::sync::Arc;
//! use shm_lock::{FutexLock, Membership, MemoryFile, Wait};
//!
//! # let path = std::env::temp_dir().join(format!("shm-lock-doc-{}", std::process::id()));
//! let memory = Arc::new(MemoryFile::open(&path)?); // the same path in every process
//! let lock = FutexLock::new(Membership::join(memory)?);
//!
//! let guard = lock.acquire(&Wait::forever())?;
//! if let Some(dead) = guard.recovered() {
//!     eprintln!("pid {} died holding the lock: repair what it left", dead.pid);
//! }
//! drop(guard);
//! # std::fs::remove_file(path)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Guarantees
//!
//! | | |
//! |---|---|
//! | order | what a holder wrote before releasing is seen by the next one; so is what a notifier wrote before [`Broadcast::notify`] |
//! | cost | taking and releasing uncontended is one atomic operation each; neither that nor notifying nobody makes a system call |
//! | owner's death | the next owner gets the lock and is told ([`Guard::recovered`]): within a few milliseconds whatever the owner's size if pid and time namespace are shared, else when the kernel has torn its memory down |
//! | not a death | being stopped or traced, swapped out, or hidden from `/proc`; a leader thread that ends before the others; closing every descriptor; a pid or an entry that was used by somebody else before |
//! | is a death | a kill, an exit, an abort with or without core dump, and exec: what took the lock is gone |
//! | waiters | no wake-up is lost; a sleeper killed while being woken costs the others one slice of 2 ms, or 4 ms where more than eight sleep; of a [`Broadcast`], one of 50 ms if the notifier is killed |
//! | threads | guards are tokens: any thread may drop one, and no thread's end releases any |
//! | fork | a child owns nothing of its parent's, registers itself on first use, and keeps no owner alive |
//! | waiting | deadlines are points in time; a closure can interrupt ([`Wait::interruptible`]) |
//!
//! # The lock word
//!
//! All of a lock's state is one word, `0 | slot + 1 : 10 | id : 20 | WAITERS : 1` from the highest
//! bit to the lowest. Every change is a compare-and-swap from a value that was judged.
//!
//! | slot + 1 | WAITERS | meaning | may be changed by |
//! |---|---|---|---|
//! | 0 | 0 | free; all-zero memory is a free lock | anybody: to itself as holder |
//! | n | 0 | held by the participant in slot n - 1, nobody sleeps | the holder: to free. A waiter: sets WAITERS, then sleeps. Who finds the holder dead: to itself |
//! | n | 1 | held, and somebody may sleep | the holder: to free, then it wakes one sleeper. Who finds the holder dead: to itself, WAITERS stays |
//! | 0 | 1 | written by no version of this crate | anybody, like a free one |
//!
//! Who has slept takes the lock with WAITERS set, because it cannot know whether it was the only
//! one. The id field holds the low 20 bits of the holder's id. Ids are counted up and never used
//! again, so an entry that holds another id proves the named holder gone; a newcomer that would
//! be named like a dead holder takes the next id instead.
//!
//! # When is a holder dead?
//!
//! A waiter asks before its first sleep and after every slice, in this order:
//!
//! 1. Its entry belongs to somebody else, or to nobody: dead, for only entries of the dead and of
//!    those who left are given away.
//! 2. The byte `2^40 + id` of the memory's file is not locked: dead and [`Gone`](Liveness::Gone).
//!    Each participant holds that byte through an open file description which lives in nothing
//!    but an inaccessible mapping, so it is released by the end of the address space and by nothing
//!    else. The kernel gets there only after tearing down the memory: half a second for 8 GB.
//! 3. Pid and time namespace are ours, `/proc` is that of our own pid namespace, and its start time
//!    differs, or each of its threads is past the point of no return (exiting, dumping core, or
//!    killed), or there is no such pid: dead, [`Ending`](Liveness::Ending).
//! 4. Otherwise it is alive. What cannot be proven is alive.
//!
//! # What this crate does not do
//!
//! - Defend against participants with write access who mean harm: they can write the word. Damage
//!   is never undefined behaviour here, an error at best, and a lock that is never free at worst.
//! - Undo what a dead holder left half done: it tells the next owner, who must.
//! - Fairness, priorities, shared (read) locks, re-entrancy.
//! - Stop a holder that was taken for dead and is not. The rules above are built so that this does
//!   not happen; where a mistake would be fatal, let every recovery raise an epoch that the
//!   holder's last step compares.
//! - Notice a fork by raw `clone`, or run on NFS.
//!
//! # After a crash
//!
//! | left behind | cleaned by |
//! |---|---|
//! | a held lock | the next one that wants it, which is told |
//! | an entry in the table | the next one that joins |
//! | WAITERS without a sleeper | the next release, at the cost of one wake-up |
//! | the file of a [`MemoryFile`] or [`FileLock`] | nobody: they are small, and meant to be reused |
//!
//! # Safety
//!
//! `unsafe` lives in the module `sys` alone; its file begins with the numbered invariants that every
//! block cites. A [`Memory`] is implemented in safe code: whatever it returns, the worst is a lock
//! that does not exclude. Words read from shared memory are untrusted input.
//!
//! # Features
//!
//! None. `--cfg loom` builds the state machines on loom's atomics and a modelled futex,
//! `--cfg st_fault` lets a test break any kernel call.
//!
//! # Further reading
//!
//! The README has the short version; `docs/DESIGN.md` of the repository says why not a robust mutex.

#[cfg(not(target_os = "linux"))]
compile_error!(
    "shm-lock is for Linux only: it is built on futexes, open file description locks and /proc"
);
#[cfg(all(target_os = "linux", not(target_pointer_width = "64")))]
compile_error!("shm-lock needs a 64-bit target: participants hold locks on bytes beyond 2^40");

/// Runs the README's example.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod broadcast;
mod claim;
mod error;
#[cfg(not(st_fault))]
mod fault;
#[cfg(st_fault)]
#[doc(hidden)]
pub mod fault;
#[cfg(not(loom))]
mod file;
mod futex;
mod guard;
mod inherited;
mod membership;
mod memory;
#[cfg(not(loom))]
mod memory_file;
#[cfg(all(test, loom))]
mod models;
#[cfg(not(loom))]
mod onlooker;
pub mod park;
#[cfg_attr(loom, path = "modelled_presence.rs")]
mod presence;
#[cfg(not(loom))]
mod proc;
mod roster;
#[doc(hidden)]
pub mod sync;
#[expect(unsafe_code, reason = "futex words, pins and descriptors behind safe functions")]
mod sys;
mod wait;
mod word;

pub use broadcast::Broadcast;
pub use error::{AcquireError, JoinError, WaitError};
#[cfg(not(loom))]
pub use file::{FileGuard, FileLock, OwnedFileGuard};
pub use futex::{FutexLock, Guard, OwnedGuard};
pub use guard::{Holder, Lock, LockGuard, Recovered};
pub use inherited::InheritedMutex;
pub use membership::{Liveness, Me, Membership, ParticipantInfo};
pub use memory::Memory;
#[cfg(not(loom))]
pub use memory_file::{MemoryFile, MemoryFileError};
#[cfg(not(loom))]
pub use onlooker::Onlooker;
pub use roster::{PARTICIPANTS_MAX, Participant, Roster};
pub use sys::{PerProcess, process_token};
pub use wait::Wait;
pub use word::LockWord;
