//! Which thread of this process holds a stream's lock.
//!
//! The engine's lock belongs to a process and is a value that anybody may drop. Python programs
//! expect it to belong to a thread: the same thread may write within its own scope, another one of
//! the same process waits. The value is therefore kept here, with the thread that took it, for all
//! handles of the stream in this process.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use pyo3::prelude::*;
use pyo3::types::PyWeakrefReference;
use shared_tensor::lock::PerProcess;
use shared_tensor::shm::Generation;
use shared_tensor::stream::OwnedLocked;
use smallvec::{SmallVec, smallvec};

/// A thread of this process, for as long as the process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ThreadId(u64);

thread_local! {
    static THIS: ThreadId = {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        ThreadId(NEXT.fetch_add(1, Ordering::Relaxed))
    };
    static HELD: RefCell<HeldByThread> =
        RefCell::new(HeldByThread { thread: THIS.with(|id| *id), held: Vec::new() });
}

impl ThreadId {
    /// The calling thread.
    pub(crate) fn current() -> Self {
        // Nothing to drop: it is there to the thread's end.
        THIS.with(|id| *id)
    }
}

/// What a thread holds, given back when it ends.
struct HeldByThread {
    thread: ThreadId,
    held: Vec<Weak<Ownership>>,
}

impl Drop for HeldByThread {
    fn drop(&mut self) {
        for ownership in self.held.drain(..).filter_map(|held| held.upgrade()) {
            // Nobody else can be meant: a tenure ends before another one begins, and this thread's
            // number is never given to another thread.
            let view = {
                let mut current = ownership.current();
                match &*current {
                    Some(tenure) if tenure.thread == self.thread => ownership.end(&mut current),
                    _ => None,
                }
            };
            drop(view);
        }
    }
}

/// Who holds the lock of one stream, in this process.
#[derive(Debug, Default)]
pub(crate) struct Ownership {
    current: PerProcess<Mutex<Option<Tenure>>>,
    /// The number of the thread of `current`, 0 for none: a thread that has not this number holds
    /// nothing, and need not wait for one that copies a large frame under the mutex.
    owner: AtomicU64,
}

/// The time during which a thread holds the lock.
#[derive(Debug)]
pub(crate) struct Tenure {
    pub(crate) thread: ThreadId,
    /// The handle through which each acquisition was made: as many as there are to release.
    pub(crate) through: SmallVec<[u64; 2]>,
    pub(crate) locked: OwnedLocked,
    /// The array through which the frame is written.
    view: Option<Py<PyWeakrefReference>>,
}

/// Why the calling thread cannot release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotOwner {
    Nobody,
    AnotherThread,
}

/// The calling thread runs its last destructors, and those of its locks have run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ThreadEnds;

static OWNERSHIPS: PerProcess<Mutex<HashMap<Generation, Weak<Ownership>>>> = PerProcess::new();

impl Ownership {
    /// That of a stream: the same for all its handles in this process.
    pub(crate) fn of(generation: Generation) -> Arc<Self> {
        let known = OWNERSHIPS.get_or_init(Mutex::default);
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(existing) = known.get(&generation).and_then(Weak::upgrade) {
            return existing;
        }
        known.retain(|_, ownership| ownership.strong_count() > 0);
        let fresh = Arc::new(Self::default());
        known.insert(generation, Arc::downgrade(&fresh));
        fresh
    }

    /// The present tenure; a forked child finds none.
    pub(crate) fn current(&self) -> MutexGuard<'_, Option<Tenure>> {
        self.current.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The calling thread's tenure, given to `then`.
    pub(crate) fn with_mine<T>(&self, then: impl FnOnce(&mut Tenure) -> T) -> Option<T> {
        let me = ThreadId::current();
        if self.owner.load(Ordering::Relaxed) != me.0 {
            return None;
        }
        self.current().as_mut().filter(|tenure| tenure.thread == me).map(then)
    }

    pub(crate) fn is_mine(&self) -> bool {
        self.with_mine(|_| ()).is_some()
    }

    /// Begins the calling thread's tenure with a lock that it has just taken, unless the thread is so
    /// near its end that nobody would give the lock back: then the lock is released.
    #[inline]
    pub(crate) fn begin(
        self: &Arc<Self>,
        locked: OwnedLocked,
        through: u64,
    ) -> Result<(), ThreadEnds> {
        let noted = HELD.try_with(|held| {
            let mut held = held.borrow_mut();
            if !held.held.iter().any(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(self))) {
                held.held.retain(|known| known.strong_count() > 0);
                held.held.push(Arc::downgrade(self));
            }
        });
        noted.map_err(|_| ThreadEnds)?;
        let thread = ThreadId::current();
        *self.current() = Some(Tenure { thread, through: smallvec![through], locked, view: None });
        self.owner.store(thread.0, Ordering::Relaxed);
        Ok(())
    }

    /// Ends the tenure, and releases the lock. What is returned is to be dropped outside the mutex: Python
    /// may run other threads meanwhile.
    #[inline]
    fn end(&self, current: &mut Option<Tenure>) -> Option<Py<PyWeakrefReference>> {
        self.owner.store(0, Ordering::Relaxed);
        let view = current.as_mut().and_then(|tenure| tenure.view.take());
        // Where it is: to move it out of the mutex takes longer than to unlock.
        *current = None;
        view
    }

    /// Says through which array the calling thread writes its frame, or that it does not any more.
    pub(crate) fn set_open_view(&self, array: Option<&Bound<'_, PyAny>>) {
        let view = array.and_then(|array| PyWeakrefReference::new(array).ok()).map(Bound::unbind);
        let last = self.with_mine(|tenure| std::mem::replace(&mut tenure.view, view));
        drop(last);
    }

    /// The array through which the calling thread writes a frame.
    pub(crate) fn open_view<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let view = self.with_mine(|tenure| tenure.view.as_ref().map(|view| view.clone_ref(py)));
        view.flatten().and_then(|view| view.bind(py).upgrade())
    }

    /// Undoes one acquisition of the calling thread, the last one through `handle` if there is one.
    pub(crate) fn release(&self, handle: u64) -> Result<(), NotOwner> {
        let view = {
            let mut current = self.current();
            let Some(tenure) = current.as_mut() else { return Err(NotOwner::Nobody) };
            if tenure.thread != ThreadId::current() {
                return Err(NotOwner::AnotherThread);
            }
            match tenure.through.iter().rposition(|&through| through == handle) {
                Some(index) => drop(tenure.through.remove(index)),
                None => drop(tenure.through.pop()),
            }
            if tenure.through.is_empty() { self.end(&mut current) } else { None }
        };
        drop(view);
        Ok(())
    }

    /// Whether another thread than the calling one holds the lock through this handle.
    pub(crate) fn is_anothers_through(&self, handle: u64) -> bool {
        let me = ThreadId::current();
        self.current()
            .as_ref()
            .is_some_and(|tenure| tenure.thread != me && tenure.through.contains(&handle))
    }

    /// Undoes every acquisition that was made through a handle which is being closed.
    pub(crate) fn release_all_through(&self, handle: u64) -> Result<(), NotOwner> {
        let view = {
            let mut current = self.current();
            let Some(tenure) = current.as_mut() else { return Ok(()) };
            if !tenure.through.contains(&handle) {
                return Ok(());
            }
            if tenure.thread != ThreadId::current() {
                return Err(NotOwner::AnotherThread);
            }
            tenure.through.retain(|through| *through != handle);
            if tenure.through.is_empty() { self.end(&mut current) } else { None }
        };
        drop(view);
        Ok(())
    }
}
