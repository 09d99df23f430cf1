//! The crate's only unsafe code and its only door to the kernel.
//!
//! Everything outside this folder is safe Rust over the functions exported here, whose argument
//! types or own checks carry every precondition. Each SAFETY comment cites these invariants:
//!
//! - **S1, ownership**: a [`Mapping`] owns the address range that one `mmap` gave it. It is
//!   unmapped in its `Drop` and nowhere else, and every pointer or reference handed out is
//!   bounded by a borrow of the `Mapping`.
//! - **S2, bounds**: before a pointer into a mapping is formed, `offset + length <= len` has been
//!   checked in this folder, without overflow, against the mapping's own length, never against a
//!   number read from shared memory.
//! - **S3, no plain references**: no Rust reference covers shared bytes except to [`Shared`]
//!   types, which are built of atomics, for which every bit pattern is valid.
//! - **S4, opaque copies**: bytes that another process may change during a copy are read and
//!   written by code that the compiler cannot look into (a call made from `asm!`) or by atomics,
//!   so it cannot assume that they stay the same.
//! - **S5, stores need permission**: a reference through which safe code can store is made only
//!   over a writable mapping; for read-only mappings the caller of the `unsafe fn` promises loads.
//! - **S6, pages stay**: no call here shrinks a file that has a name or was handed out. A peer that
//!   truncates one kills its users with SIGBUS, which ends the process and is no undefined
//!   behaviour; sealed memfds exclude it.
//! - **S7, kernel arguments**: pointers passed to system calls lead to live locals of the type the
//!   call expects, and descriptors are borrowed for the length of the call.
//! - **S8, local memory**: a slice argument is valid for its length, and cannot overlap a mapping,
//!   because no plain reference into a mapping exists (S3).

mod copy;
mod loads;
mod lock;
mod map;
mod memfd;
mod pages;
mod proc;
mod shared;

pub(crate) mod fault;
pub(crate) mod file;

pub(crate) use lock::{Probe, try_lock_exclusive, try_lock_shared, unlock, would_conflict};
pub(crate) use map::{Mapping, Stores};
pub(crate) use memfd::{SealState, access_mode, add_seals, create_memfd, pool_page_bytes, seals};
pub(crate) use pages::{Advice, huge_page_bytes, mask_signals, page_bytes};
pub(crate) use proc::{answers, process, read_text, user};
pub use shared::Shared;
