//! The only module with `unsafe` code. Everything it exports is safe to call.
//!
//! - **S1** A descriptor whose bit is set in the table of [`fork`] is owned by exactly one
//!   [`UnsharedFd`] made before the fork. In the child that owner never uses or closes the number,
//!   because it compares the generation first; so the child's fork handler may close it.
//! - **S2** Fork handlers and signal handlers touch nothing but atomics and async-signal-safe calls
//!   (`sched_yield` is one in all but name).
//! - **S3** The range of a [`Pin`] was returned by `mmap`, is `PROT_NONE`, never becomes a pointer
//!   that is dereferenced, and is unmapped once, in the process that mapped it.
//! - **S4** Structures passed to the kernel are fully initialised, and their sizes passed with them.

mod credentials;
mod fork;
mod pin;
mod signal;

pub(crate) use self::credentials::peer_credentials;
pub(crate) use self::fork::{Generation, Still, UnsharedFd, still};
pub(crate) use self::pin::Pin;
pub(crate) use self::signal::Handlers;
