//! One participant's presence in the kernel: the byte that shows it alive, and the means to see
//! the bytes of others.
//!
//! The byte is `2^40 + id` of the memory's file, read-locked by an open file description that is
//! held by nothing but a mapping. That makes the lock exactly as long-lived as the address space:
//! `close_range` does not end it, a forked child does not inherit it, exec and every kind of death
//! end it.

use std::os::fd::AsFd;

use crate::error::JoinError;
use crate::memory::Memory;
use crate::proc;
use crate::roster::Identity;
use crate::sys::{self, Forks, Inode, Pin, Prober};

pub(crate) const FIRST_BYTE: u64 = 1 << 40;
const ATTEMPTS: u32 = 64;

#[derive(Debug)]
pub(crate) struct Presence {
    id: u64,
    inode: Inode,
    identity: Identity,
    prober: Prober,
    _pin: Pin,
}

impl Presence {
    /// Takes the byte of `id` for this process.
    pub(crate) fn establish<M: Memory>(memory: &M, id: u64) -> Result<Self, JoinError> {
        let (pin, inode) = pin(memory, id)?;
        let file = memory.reopen().map_err(JoinError::Reopen)?;
        let other = Inode::of(&file).map_err(JoinError::Reopen)?;
        if other != inode {
            return Err(JoinError::NotReopened { found: "two calls led to two different files" });
        }
        let prober = Prober::keep(file, inode).map_err(JoinError::Reopen)?;
        // The proof that probing works here at all: our own byte, seen through another
        // description than the one that holds it.
        if prober.is_held(FIRST_BYTE + id) != Some(true) {
            return Err(JoinError::NotReopened {
                found: "a lock taken through one descriptor is not seen through the other",
            });
        }
        Ok(Self { id, inode, identity: proc::own_identity(), prober, _pin: pin })
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Whether the byte of `id` is free: its process is gone, memory and all. `false` if that
    /// cannot be shown.
    pub(crate) fn is_gone<M: Memory>(&self, memory: &M, id: u64) -> bool {
        if id == self.id {
            return false;
        }
        match self.prober.is_held(FIRST_BYTE + id) {
            Some(held) => !held && self.sees_itself(),
            None => {
                self.look_anew(memory) && {
                    self.prober.is_held(FIRST_BYTE + id) == Some(false) && self.sees_itself()
                }
            }
        }
    }

    /// Whether every thread of `them` has ended, though their memory may not be torn down yet.
    pub(crate) fn is_ending(&self, them: &Identity) -> bool {
        proc::is_ending(&self.identity, them)
    }

    fn sees_itself(&self) -> bool {
        self.prober.is_held(FIRST_BYTE + self.id) == Some(true)
    }

    /// Replaces a prober that somebody closed.
    fn look_anew<M: Memory>(&self, memory: &M) -> bool {
        let Ok(file) = memory.reopen() else { return false };
        Inode::of(&file).is_ok_and(|inode| inode == self.inode) && self.prober.replace(file).is_ok()
    }
}

fn pin<M: Memory>(memory: &M, id: u64) -> Result<(Pin, Inode), JoinError> {
    let because = |step| move |source| JoinError::Pin { step, source };
    for _ in 0..ATTEMPTS {
        let forks = Forks::watch();
        let file = memory.reopen().map_err(JoinError::Reopen)?;
        let inode = Inode::of(&file).map_err(JoinError::Reopen)?;
        let pin = Pin::hold(&file).map_err(because("pin the lock"))?;
        sys::read_lock(file.as_fd(), FIRST_BYTE + id).map_err(because("take the lock"))?;
        let Err(file) = forks.close_unshared(file) else { return Ok((pin, inode)) };
        // A child may share the description for as long as it lives: leave nothing on it.
        sys::unlock(file.as_fd(), FIRST_BYTE + id).map_err(because("give back a lock"))?;
    }
    Err(JoinError::Forking { attempts: ATTEMPTS })
}
