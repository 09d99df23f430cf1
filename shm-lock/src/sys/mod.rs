//! The only module with `unsafe` code. Everything it exports is safe to call.
//!
//! - **S1** The address range of a [`Pin`] was returned by `mmap` to the process whose token it
//!   carries. It is unmapped once, by its `Drop`, in that process only.
//! - **S2** A pin is `PROT_NONE` and its address never becomes a pointer that is dereferenced.
//! - **S3** `LockWord` and `Broadcast` are `repr(transparent)` over `AtomicU32`, `Participant` and
//!   `Roster` are `repr(C)` of exactly sixteen `AtomicU64`: a cast between references to them
//!   changes neither size nor the width of any atomic access; alignment is checked where it grows.
//! - **S4** A node of a [`PerProcess`] comes from `Box::into_raw`, is linked once, never changed
//!   afterwards, and freed only by the drop of its cell, which has exclusive access.
//! - **S5** The token page is mapped once per address space, holds one aligned `AtomicU64`, and is
//!   never unmapped.
//! - **S6** The raw descriptors handled here are only asked (`fstat`, `lseek`, `F_OFD_GETLK`). An
//!   answer counts only if the descriptor is shown, before and after, to be the one meant.
//! - **S7** A [`Mapping`] is mapped from its making to its drop, `MAP_SHARED`, and reached only
//!   through references to atomics that borrow it. One offset is always used at one width.

mod cast;
mod per_process;
mod token;

pub use per_process::PerProcess;
pub use token::process_token;

/// What only real memory and a real kernel have; the models do without.
#[cfg(not(loom))]
mod atfork;
#[cfg(not(loom))]
mod mapping;
#[cfg(not(loom))]
mod ofd;
#[cfg(not(loom))]
mod pin;
#[cfg(not(loom))]
mod prober;

#[cfg(not(loom))]
pub(crate) use self::{
    atfork::Forks,
    cast::with_low_half,
    mapping::Mapping,
    ofd::{read_lock, unlock},
    pin::Pin,
    prober::{Inode, Prober},
};
