//! Copies between the ring and private memory; large ones with a helper thread.
//!
//! One core cannot use the bandwidth of the memory system: from a few megabytes on, a second one
//! halves the time, even if it has to be woken first. On a busy host the gain is gone, so what is
//! used is what recently measured faster.

use std::mem::MaybeUninit;
use std::ops::Range;

use shm_core::{SharedBytes, ViewError};

use crate::stream::helper;

/// Where bytes are copied to.
pub(crate) enum Destination<'a> {
    Initialised(&'a mut [u8]),
    Uninitialised(&'a mut [MaybeUninit<u8>]),
}

/// Copies `payload` into shared memory.
pub(crate) fn into_shared(
    shared: &SharedBytes,
    start: usize,
    payload: &[u8],
) -> Result<(), ViewError> {
    if payload.len() < helper::BYTES_MIN {
        return shared.write_from(start, payload);
    }
    helper::split(payload.len(), |part: Range<usize>| {
        shared.write_from(start + part.start, &payload[part])
    })
}

/// Copies out of shared memory.
pub(crate) fn from_shared(
    shared: &SharedBytes,
    start: usize,
    destination: Destination<'_>,
) -> Result<(), ViewError> {
    match destination {
        Destination::Initialised(out) if out.len() < helper::BYTES_MIN => {
            shared.read_into(start, out)
        }
        Destination::Uninitialised(out) if out.len() < helper::BYTES_MIN => {
            shared.read_uninit(start, out)
        }
        Destination::Initialised(out) => {
            helper::split_mut(out, |at, part| shared.read_into(start + at, part))
        }
        Destination::Uninitialised(out) => {
            helper::split_mut(out, |at, part| shared.read_uninit(start + at, part))
        }
    }
}
