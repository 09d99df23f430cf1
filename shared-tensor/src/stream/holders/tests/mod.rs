//! Holders between processes. The descriptors are those of anonymous files: nothing here needs a GPU.

mod crowd;
mod death;
mod forks;
mod hostile;
mod hostile_server;
mod leaks;
mod peer;
mod roles;
mod roll;
mod scene;

use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use cuda_ipc::{Chunk, ChunkId, ChunkLabel, Uuid};
use rustix::fs::{MemfdFlags, memfd_create};
use shm_core::Generation;

use super::Subject;

pub(super) const CHUNK_BYTES: u64 = 4096;

/// The label of all chunks here.
fn label() -> ChunkLabel {
    ChunkLabel::new(ChunkId::from_bytes([7; 16]), Uuid::from_bytes([9; 16]), CHUNK_BYTES)
}

/// The chunk of a generation with this number.
pub(super) fn subject(number: u8) -> Subject {
    Subject { generation: Generation::from_bytes([number; 16]), label: label() }
}

/// Memory that begins with `text`.
pub(super) fn chunk(text: &str) -> Arc<Chunk> {
    let mut file = File::from(memfd_create("st-holders", MemfdFlags::CLOEXEC).unwrap());
    file.set_len(CHUNK_BYTES).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    Arc::new(Chunk::from_parts(label(), file.into()))
}
