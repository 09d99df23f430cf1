//! Share tensors between the processes of one Linux host.
//!
//! For cameras, control loops and model servers that hand whole arrays from one process to others.
//! Start from [`stream::Stream`]: a named ring of tensors in shared memory; or from
//! [`service::Server`]: functions whose results others read in place.
//!
//! ```no_run
//! use shared_tensor::DType;
//! use shared_tensor::stream::{Stream, StreamOptions, Wait};
//!
//! // One process writes ...
//! let stream = StreamOptions::new(DType::F32, [480, 640]).create("cam0")?;
//! let mut writer = stream.writer()?;
//! // ... others read what comes from now on.
//! let mut reader = Stream::open("cam0")?.reader();
//! writer.write_slice(&vec![0.0_f32; 480 * 640])?;
//! let frame = reader.next(&Wait::forever())?;
//! println!("frame {}", frame.publication().count);
//! # Ok::<(), shared_tensor::Error>(())
//! ```
//!
//! | one writer at a time, many readers, the newest or the next frame | [`stream`] |
//! |---|---|
//! | values that are built once, on request, and lent to many | [`service`] |
//! | what a module consists of, without pickle | [`manifest`] |
//! | named bytes, no tensors | [`shm`], the crate `shm-core` |
//! | a lock between processes, in memory of your own | [`lock`], the crate `shm-lock` |
//! | requests over a socket, with open files | [`rpc`], the crate `rpc-uds` |
//! | values built once and lent, within a process | [`cache`], the crate `tensor-cache` |
//!
//! # Guarantees
//!
//! | | |
//! |---|---|
//! | frames | whole, or an error; in order of publication; what was missed is counted |
//! | waiting | no read waits for a writer, no write for a reader (rings of three slots and more) |
//! | death | any process may be killed anywhere: the rest go on, the next writer repairs the ring |
//! | fork | a forked child may use every handle it inherits; it owns none of its parent's locks, leases or writes |
//! | threads | handles are `Send` and `Sync`; a [`stream::Reader`] belongs to one thread at a time |
//!
//! Those of the service stand at the top of [`service`].
//!
//! # What this crate does not do
//!
//! A stream is not a queue: a reader that falls behind by a whole ring loses frames and is told how many.
//! It crosses no network and no trust boundary: whoever may write to a stream can damage it, and
//! what is read from it is checked, so that the damage is an error and never undefined behaviour.
//!
//! # After a crash
//!
//! Nothing has to be cleaned up by hand. A writer killed in a write costs that frame; the slot comes
//! back with the next lock. A killed reader's leases come back when somebody needs the slot. A name
//! stays until it is unlinked, and leads to a whole stream or to nothing.
//!
//! # Safety
//!
//! All `unsafe` is in one module, `sys`, behind numbered invariants: no reference but to atomics ever
//! covers bytes that another process may write, unless the caller of an `unsafe` function promises
//! that none does ([`service::TensorView::as_slice`]), and copies of such bytes go through `shm-core`'s
//! bounded views. Layouts are asserted byte by byte; `docs/LAYOUT.md` shows them.
//!
//! # Further reading
//!
//! `docs/ARCHITECTURE.md` says where things live, `docs/DESIGN.md` why the protocol is as it is,
//! `docs/TESTING.md` how it is proven.

#![cfg_attr(
    loom,
    allow(
        dead_code,
        unreachable_pub,
        unused_imports,
        reason = "only the protocol is compiled for loom: what uses it is not there"
    )
)]

#[cfg(not(target_os = "linux"))]
compile_error!(
    "shared-tensor is for Linux: it stands on /dev/shm, futexes across processes and open file \
     description locks (docs/PLATFORM.md says why there is no macOS or Windows version)"
);

mod error;
#[cfg(not(loom))]
pub mod manifest;
mod ring;
#[cfg(not(loom))]
pub mod service;
#[cfg(not(loom))]
pub mod stream;
mod sync;
#[cfg(not(loom))]
#[expect(unsafe_code, reason = "views of shared memory and one lent job, fenced in one file")]
mod sys;
mod tensor;

pub use error::{Error, ErrorKind, Result};
pub use tensor::{DIMENSIONS_MAX, DType, Element, Shape};

pub use shm_core as shm;
pub use shm_lock as lock;

#[cfg(not(loom))]
pub use rpc_uds as rpc;
#[cfg(not(loom))]
pub use tensor_cache as cache;

/// The examples of the README, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
