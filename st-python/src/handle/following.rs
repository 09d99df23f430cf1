//! What a handle has read, and of which stream: one that reattaches goes on with the successor.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shared_tensor::shm::{Creator, Generation};
use shared_tensor::stream::{Publication, Reader, Stream, Wait};

use super::{Handle, Inner};
use crate::gpu::Attached;

/// What stays known of a stream after closing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    pub(super) generation: Generation,
    pub(super) creator: Creator,
    pub(super) slots: usize,
    pub(super) tag: u32,
}

/// What a handle has read of one generation of its stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Position {
    generation: Generation,
    pub(super) last: u64,
    pub(super) missed: u64,
    pub(super) missed_total: u64,
}

impl Origin {
    pub(super) fn of(stream: &Stream) -> Self {
        Self {
            generation: stream.generation(),
            creator: stream.creator(),
            slots: stream.slots(),
            tag: stream.tag(),
        }
    }
}

impl Position {
    pub(super) fn at_the_newest(stream: &Stream) -> Self {
        let (generation, last) = (stream.generation(), stream.count());
        Self { generation, last, missed: 0, missed_total: 0 }
    }
}

impl Position {
    /// Nothing was read of this stream, and nothing missed.
    fn before_any_of(generation: Generation) -> Self {
        Self { generation, last: 0, missed: 0, missed_total: 0 }
    }
}
/// Readers in boxes: they come and go with every read, and moving one takes longer than finding it.
pub(super) type Idle = Vec<Box<Reader>>;

impl Inner {
    fn idle_readers(&self) -> MutexGuard<'_, Idle> {
        let readers = self.readers.get_or_init(Mutex::default);
        readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Handle {
    pub(super) fn position(&self) -> MutexGuard<'_, Position> {
        // A child that was forked while another thread went on with a successor begins as a fresh handle.
        self.position.lock(|| match self.open.load_full() {
            Some(inner) => Position::at_the_newest(&inner.stream),
            None => Position::before_any_of(self.origin.load().generation),
        })
    }

    /// The last frame of `inner` that this handle has read.
    ///
    /// To be asked before other Python threads are let run: one of them may fork, and what this thread
    /// holds at that moment its child has lost.
    pub(crate) fn last_of(&self, inner: &Inner) -> u64 {
        let position = self.position();
        let is_of_inner =
            !self.behaviour.reattach || position.generation == inner.stream.generation();
        // Another thread has gone on with the successor, and so does this one.
        if is_of_inner { position.last } else { inner.stream.count() }
    }

    /// Reads a frame with a reader that has seen the frames up to `last`.
    pub(crate) fn read_with<T>(
        &self,
        inner: &Inner,
        last: u64,
        wait: &Wait<'_>,
        read: impl FnOnce(&mut Reader, &Wait<'_>) -> shared_tensor::Result<T>,
    ) -> shared_tensor::Result<(T, Generation)> {
        self.with_reader(inner, last, |reader| {
            let outcome = read(reader, wait)?;
            Ok((outcome, reader.generation()))
        })
    }

    /// Runs `with` with a reader that has seen the frames up to `last`.
    pub(crate) fn with_reader<T>(
        &self,
        inner: &Inner,
        last: u64,
        with: impl FnOnce(&mut Reader) -> T,
    ) -> T {
        let idle = inner.idle_readers().pop();
        let mut reader = idle.unwrap_or_else(|| Box::new(inner.stream.reader_with(self.behaviour)));
        reader.seek(last);
        let outcome = with(&mut reader);
        if self.behaviour.reattach && reader.generation() != inner.stream.generation() {
            self.go_on_with(inner, reader);
        } else {
            inner.idle_readers().push(reader);
        }
        outcome
    }

    pub(crate) fn go_to(&self, count: u64) {
        self.position().last = count;
    }

    /// Counts a frame that was read: what lies between it and the last one was missed.
    pub(crate) fn has_read(&self, generation: Generation, publication: &mut Publication) {
        let mut position = self.position();
        if position.generation != generation {
            // Another thread has gone on with a successor meanwhile.
            return;
        }
        let count = publication.count;
        position.missed = count.saturating_sub(position.last).saturating_sub(1);
        position.missed_total += position.missed;
        position.last = position.last.max(count);
        // Of this handle, which threads may share; the reader that was used knows of its own only.
        publication.missed = position.missed;
    }

    /// Takes the stream that `reader` has found for its own, unless another thread was first.
    fn go_on_with(&self, from: &Inner, reader: Box<Reader>) {
        let mut position = self.position();
        let Some(current) = self.open.load_full() else { return };
        if current.stream.generation() == reader.generation() {
            current.idle_readers().push(reader);
        } else if current.stream.generation() == from.stream.generation() {
            let stream = reader.stream();
            self.origin.store(Arc::new(Origin::of(&stream)));
            let missed_total = position.missed_total;
            *position = Position { missed_total, ..Position::before_any_of(reader.generation()) };
            let successor = Inner::new(stream, Attached::InHostMemory);
            successor.idle_readers().push(reader);
            self.open.store(Some(Arc::new(successor)));
        }
    }
}
