//! Being listed as somebody who hands out a chunk.

use std::sync::Arc;

use cuda_ipc::Chunk;
use shm_core::Generation;
use shm_lock::PerProcess;

use super::Subject;
use super::counter::Ticket;
use super::office::Office;
use super::roll::{self, Roll};
use crate::error::Result;
use crate::ring::Identity;
use crate::stream::memory::{Peers, StreamMemory};

/// This process hands out a stream's chunk until this is dropped.
///
/// Dropping it takes the line in the stream's file back, and returns when no request is being served with
/// it. A forked child inherits none: dropping the copy of its parent's does nothing there but to let go of
/// the chunk.
#[derive(Debug)]
pub(crate) struct Offer {
    memory: Arc<StreamMemory>,
    me: Identity,
    /// `None` if the living have all lines.
    line: Option<usize>,
    ticket: Ticket,
    /// Filled in the process that offers.
    here: PerProcess<()>,
    _chunk: Arc<Chunk>,
}

impl Offer {
    /// Lists this process, and answers for `generation` from now on.
    ///
    /// If all lines belong to the living, other processes have enough holders to ask: this one hands out
    /// nothing then, but to itself.
    ///
    /// # Errors
    /// [`ErrorKind::Os`](crate::ErrorKind::Os) if no socket can be made.
    pub(crate) fn begin(
        memory: &Arc<StreamMemory>,
        peers: &Peers<'_>,
        me: Identity,
        generation: Generation,
        chunk: Arc<Chunk>,
    ) -> Result<Self> {
        let here = PerProcess::new();
        here.get_or_init(|| ());
        let office = Office::of_this_process();
        let subject = Subject { generation, label: *chunk.label() };
        // From here on what fails is undone by the drop.
        let mut offer = Self {
            memory: Arc::clone(memory),
            me,
            line: None,
            ticket: office.counter.add(subject, &chunk),
            here,
            _chunk: chunk,
        };
        if let Some(line) = (Roll { memory, peers }).claim(me) {
            match office.open() {
                Ok(socket) => {
                    offer.line = Some(line);
                    roll::name(memory, line, me, &socket);
                }
                Err(error) => {
                    roll::leave(memory, line, me);
                    return Err(error);
                }
            }
        }
        Ok(offer)
    }

    /// Whether other processes find this one.
    #[cfg(test)]
    pub(super) fn is_listed(&self) -> bool {
        self.line.is_some()
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        if self.here.get().is_none() {
            return;
        }
        let office = Office::of_this_process();
        if let Some(line) = self.line {
            roll::leave(&self.memory, line, self.me);
        }
        office.counter.remove(self.ticket);
        if self.line.is_some() {
            office.close();
        }
    }
}
