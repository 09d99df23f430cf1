//! Share tensors between the processes of one Linux host.
//!
//! front page: written with the engine

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
mod per_process;
mod ring;
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
