//! What the kernel knows of a participant, for loom: a set of bytes that are held.

use std::collections::BTreeSet;

use loom::sync::Mutex;

use crate::error::JoinError;
use crate::memory::Memory;
use crate::roster::Identity;
use crate::sync::futex;

loom::lazy_static! {
    /// The bytes held, by the memory they belong to.
    static ref HELD: Mutex<BTreeSet<(usize, u64)>> = Mutex::new(BTreeSet::new());
}

#[derive(Debug)]
pub(crate) struct Presence {
    memory: usize,
    id: u64,
    identity: Identity,
}

impl Presence {
    pub(crate) fn establish<M: Memory>(memory: &M, id: u64) -> Result<Self, JoinError> {
        let memory = std::ptr::from_ref(memory.roster()).addr();
        HELD.lock().expect("a model does not panic under this lock").insert((memory, id));
        // Recognisable, so that a reader can tell whose fields it sees.
        let identity = Identity { pid: id as u32, start_ticks: id, ..Identity::default() };
        Ok(Self { memory, id, identity })
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(crate) fn is_gone<M: Memory>(&self, _memory: &M, id: u64) -> bool {
        let held = HELD.lock().expect("a model does not panic under this lock");
        !held.contains(&(self.memory, id))
    }

    /// In a model everybody whose fields can be read consistently is alive: fields that belong to
    /// somebody else are what a torn read looks like, and the verdict it would lead to.
    pub(crate) fn is_ending(&self, them: &Identity) -> bool {
        u64::from(them.pid) != them.start_ticks
    }

    /// The process dies: its byte is free from now on, and whoever waits finds out in a while.
    pub(crate) fn die(&self) {
        HELD.lock()
            .expect("a model does not panic under this lock")
            .remove(&(self.memory, self.id));
        futex::tick();
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        HELD.lock()
            .expect("a model does not panic under this lock")
            .remove(&(self.memory, self.id));
    }
}
