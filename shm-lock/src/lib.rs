//! Locks in shared memory that survive the death of their owner.
//!
//! ```
//! use std::sync::Arc;
//! use shm_lock::{FutexLock, Membership, MemoryFile, Wait};
//!
//! let memory = Arc::new(MemoryFile::anonymous()?);
//! let lock = FutexLock::new(Membership::join(memory)?);
//! let guard = lock.acquire(&Wait::forever())?;
//! assert!(guard.recovered().is_none());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[cfg(not(target_os = "linux"))]
compile_error!(
    "shm-lock is for Linux only: it is built on futexes, open file description locks and /proc"
);
#[cfg(all(target_os = "linux", not(target_pointer_width = "64")))]
compile_error!("shm-lock needs a 64-bit target: participants hold locks on bytes beyond 2^40");

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
pub use membership::{Liveness, Me, Membership, ParticipantInfo};
pub use memory::Memory;
#[cfg(not(loom))]
pub use memory_file::{MemoryFile, MemoryFileError};
#[cfg(not(loom))]
pub use onlooker::Onlooker;
pub use roster::{PARTICIPANTS_MAX, Participant, Roster};
pub use sys::process_token;
pub use wait::Wait;
pub use word::LockWord;
