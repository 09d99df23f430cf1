//! Who hands out the memory of a CUDA stream.
//!
//! The frames lie in a chunk of a GPU's memory, which is a descriptor; the stream's file can only name it.
//! So every process that holds the chunk answers on a socket of its own, and is listed with the socket's
//! name in the file. Whoever opens the stream asks one after the other until one answers: the stream lives
//! as long as any of them does, whoever created it.
//!
//! | file | idea |
//! |---|---|
//! | `roll` | the lines in the file: taking one, reading one that anybody may have written |
//! | `name` | names of sockets |
//! | `counter` | what this process hands out, and waiting until nobody is being served |
//! | `office` | the one socket of this process, for all its streams |
//! | `offer` | being listed |
//! | `wire` | what is said |
//! | `ask` | one question to one holder |
//! | `fetch` | all of them in turn, until a deadline |
//! | `after` | asking all of them after their contexts |
//!
//! A holder answers at any moment of its life, whatever its own code is at, and needs no CUDA for it; only one
//! that is stopped does not. Answers are given by threads of `rpc-uds`; no Python is run.

mod after;
mod ask;
mod counter;
mod fetch;
mod name;
mod offer;
mod office;
mod roll;
#[cfg(test)]
mod tests;
mod wire;

pub(crate) use after::ask_after_contexts;
pub(crate) use fetch::fetch;
pub(crate) use offer::Offer;

use cuda_ipc::ChunkLabel;
use rpc_uds::PeerPolicy;
use shm_core::Generation;

/// What is asked for and handed out: one chunk, as the memory of one creation of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Subject {
    generation: Generation,
    label: ChunkLabel,
}

/// Who may be at the other end of a socket: this user, and root.
fn trusted() -> PeerPolicy {
    PeerPolicy::Users(vec![rustix::process::geteuid().as_raw(), 0])
}
