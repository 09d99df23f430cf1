//! Named shared-memory segments and anonymous memory regions for the processes of one Linux host.
//!
//! For programs that keep a data structure of their own in shared memory and want the part below
//! it done right: creation that nobody can observe half-way, removal that never hits a successor,
//! errors instead of SIGBUS and OOM kills, and access to bytes that other processes change at any
//! moment. Start from [`SegmentOptions`] to create a [`Segment`], or from [`Segment::open`]; both
//! hand out [`SharedBytes`]. For memory without a name, passed on as a descriptor, there is
//! [`Region`].
//!
//! ```
//! use shm_core::{Access, Kind, Namespace, Segment, SegmentName, SegmentOptions};
//! use std::sync::atomic::{AtomicU64, Ordering};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let kind = Kind { magic: *b"counter\n", version: 1 };
//! let (place, name) = (Namespace::default(), SegmentName::new("hits of today")?);
//! # let name = SegmentName::new(format!("front page {}", std::process::id()))?;
//! let made = SegmentOptions::new(kind, 4096).create(&place, &name, |_| Ok(()))?;
//!
//! let opened = Segment::open(&place, &name, Access::ReadWrite, kind)?; // in any process
//! let bytes = opened.map(0..4096, Access::ReadWrite)?;
//! bytes.at::<AtomicU64>(512)?.fetch_add(1, Ordering::Relaxed);
//! made.unlink()?; // the name; the memory lives while it is mapped
//! # Ok(())
//! # }
//! ```
//!
//! # Guarantees
//!
//! | | |
//! |---|---|
//! | creation | a name that can be opened leads to a segment that is whole: sized, reserved, initialised by its creator, with its mode and group. It is named in one step or not at all. |
//! | names | any Unicode text up to 256 bytes; the full name is stored and compared, so two names never share a segment |
//! | generations | every creation has a random [`Generation`]; a name that was re-created is told apart by [`Segment::is_current`] |
//! | removal | removes the generation it looked at or nothing, whoever is killed or re-creates the name meanwhile |
//! | room | a full file system, or a limit past which the kernel would kill, is a [`Shortage`] error before anything is taken; reserved memory can be touched without failing |
//! | bounds | no offset, length or field read from shared memory or from a file leads out of a mapping, panics, or blocks |
//! | threads | all types are `Send + Sync`; views are cheap to clone and keep their mapping alive |
//! | fork | children inherit handles and mappings and count as attached together with the parent; [`Segment::reopen`] gives them a description of their own |
//! | exec | every descriptor is closed |
//!
//! # What this crate does not do
//!
//! - It does not synchronise: bytes are copied while others write them. Locks, sequence counters
//!   and wake-ups are the caller's, in words reached by [`SharedBytes::at`].
//! - It does not know what the bytes mean. [`Kind`] keeps formats apart, nothing more.
//! - It never resizes a segment. Make a new one under the same name.
//! - It does not defend against a peer of the same user: who may write a file may also cut it, and
//!   touching memory that was cut off ends a process with SIGBUS. A [`Region`] cannot be cut.
//! - It promises nothing for ranges that were left out of [`SegmentOptions::reserve`] and not
//!   reserved later: touched on a full file system, they end the process as well.
//! - It runs on Linux only, on 64-bit little-endian machines.
//!
//! # After a crash
//!
//! | died | left behind | cleaned by |
//! |---|---|---|
//! | while creating | nothing; where the file system knows no `O_TMPFILE`, a file with a temporary name | [`Namespace::purge`] |
//! | while open or mapped | the segment; others go on | the last user's [`Segment::unlink`], or a purge |
//! | while removing | the name, or no name | anybody, again |
//!
//! The kernel itself ends attachments, so a process that died is never taken for alive, nor one
//! with its process id. [`Namespace::list`] tells who is attached, and a purge removes what
//! nobody has open, with a dry run to look first.
//!
//! # Safety
//!
//! Unsafe code is in one private module, `sys`, whose head states eight invariants that each block
//! cites: who owns a mapping, where bounds are checked, why no plain reference covers shared bytes,
//! how racing bytes are copied (through calls the compiler cannot look into), and so on. The public
//! `unsafe` items are [`Shared`], by which your own records of atomics can be viewed in place, and
//! [`SharedBytes::at_for_loads`] with its slice form, for read-only mappings.
//!
//! One rule is left to the caller: views of *different sizes* over one place, used at the same time
//! from several threads, are outside what Rust's atomics define. Give every place one type.
//!
//! # Documents
//!
//! [The layout of the object header][layout], [the design and what was rejected][design],
//! [how it is tested][testing], [platforms][platform].
//!
//! [layout]: https://github.com/shared-tensor/shared-tensor/blob/main/docs/LAYOUT.md
//! [design]: https://github.com/shared-tensor/shared-tensor/blob/main/docs/DESIGN.md
//! [testing]: https://github.com/shared-tensor/shared-tensor/blob/main/docs/TESTING.md
//! [platform]: https://github.com/shared-tensor/shared-tensor/blob/main/docs/PLATFORM.md

#[cfg(not(target_os = "linux"))]
compile_error!(
    "shm-core runs on Linux only: it needs /dev/shm, memfd, O_TMPFILE and open-file-description \
     locks. macOS and Windows have no counterpart with the same guarantees."
);
#[cfg(not(all(target_pointer_width = "64", target_endian = "little")))]
compile_error!(
    "shm-core needs a 64-bit little-endian target: offsets in shared memory are 64 bits wide, and \
     its layout is fixed to one byte order."
);

mod attach;
mod cgroup;
mod creator;
mod error;
mod header;
mod headroom;
mod identity;
mod listing;
mod name;
mod namespace;
mod options;
mod pages;
mod patience;
mod populate;
mod probe;
mod purge;
mod region;
mod removal;
mod segment;
mod stage;
mod view;

#[expect(unsafe_code, reason = "mappings, racing copies and system calls; see its invariants")]
mod sys;

pub use creator::Creator;
pub use error::{
    CreateError, ListError, MapError, NamespaceError, OpenError, RegionError, ReserveError,
    UnlinkError,
};
pub use header::HEADER_BYTES;
pub use headroom::{Resource, Shortage};
pub use identity::{Access, Generation, Identity, Kind};
pub use listing::{Listing, Scan, Skipped};
pub use name::{NAME_BYTES_MAX, NameError, SegmentName};
pub use namespace::Namespace;
pub use options::{OpenOrCreateError, SegmentOptions};
pub use pages::{Obtained, Refusal, Residency};
pub use populate::{Populate, PopulateReport, Populator};
pub use purge::{PurgeOptions, PurgeReport};
pub use region::{Region, RegionOptions};
pub use removal::Unlinked;
pub use segment::{Current, Owner, Segment};
pub use sys::Shared;
pub use view::{OutOfBounds, SharedBytes, ViewError};

/// The README's code runs as a test of this crate.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
