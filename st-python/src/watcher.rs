//! Waiting for coroutines: threads of our own that wait for many streams each, and a descriptor by
//! which an event loop learns that something came.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use rustix::event::{EventfdFlags, eventfd};
use shared_tensor::lock::PerProcess;
use shared_tensor::stream::{Bell, Wait, wait_any_or_bell};

use crate::gpu::AnyReader;
use crate::handle::Handle;
use crate::options::Whole;

/// Streams that one thread waits for: the kernel's limit, less the bell.
const STREAMS_PER_THREAD: usize = 127;

/// Waits for any number of streams on behalf of one event loop.
///
/// It never runs Python code: when a wait is over its descriptor becomes readable, and whoever reads
/// it asks which waits are over.
#[pyclass(frozen, module = "shared_tensor._native")]
pub(crate) struct Watcher {
    outbox: Arc<Outbox>,
    threads: Mutex<Vec<Arc<Thread>>>,
    next: AtomicU64,
}

/// What is over, and the descriptor that says so.
struct Outbox {
    done: Mutex<Vec<u64>>,
    descriptor: OwnedFd,
}

/// One thread, and what it is asked to do.
struct Thread {
    bell: Bell,
    inbox: Mutex<Inbox>,
    ends: AtomicBool,
}

#[derive(Default)]
struct Inbox {
    added: Vec<Entry>,
    removed: Vec<u64>,
    /// Waits that were given to the thread and are not over.
    load: usize,
}

/// One wait.
struct Entry {
    token: u64,
    reader: AnyReader,
    closed: Arc<AtomicBool>,
}

/// The threads of this process, to be told when a handle is closed.
static THREADS: PerProcess<Mutex<Vec<Weak<Thread>>>> = PerProcess::new();

/// Makes every watcher look whether handles were closed.
pub(crate) fn ring_all() {
    let Some(threads) = THREADS.get() else { return };
    for thread in locked(threads).iter().filter_map(Weak::upgrade) {
        thread.bell.ring();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Outbox {
    fn put(&self, token: u64) {
        locked(&self.done).push(token);
        // A full counter is readable, which is all that matters.
        let _ = rustix::io::write(&self.descriptor, &1_u64.to_ne_bytes());
    }
}

impl Thread {
    fn start(outbox: &Arc<Outbox>) -> std::io::Result<Arc<Self>> {
        let thread = Arc::new(Self {
            bell: Bell::new(),
            inbox: Mutex::default(),
            ends: AtomicBool::new(false),
        });
        let (own, outbox) = (Arc::clone(&thread), Arc::clone(outbox));
        std::thread::Builder::new().name("st-watch".into()).spawn(move || own.watch(&outbox))?;
        let known = THREADS.get_or_init(Mutex::default);
        let mut known = locked(known);
        known.retain(|thread| thread.strong_count() > 0);
        known.push(Arc::downgrade(&thread));
        Ok(thread)
    }

    /// The life of the thread.
    fn watch(&self, outbox: &Outbox) {
        let mut entries: Vec<Entry> = Vec::new();
        while !self.ends.load(Ordering::Acquire) {
            {
                let mut inbox = locked(&self.inbox);
                entries.append(&mut inbox.added);
                let removed = std::mem::take(&mut inbox.removed);
                let before = entries.len();
                entries.retain(|entry| !removed.contains(&entry.token));
                inbox.load -= before - entries.len();
            }
            // Of handles that were closed, whoever waits is told.
            let mut over: Vec<u64> = Vec::new();
            entries.retain(|entry| {
                let closed = entry.closed.load(Ordering::Acquire);
                if closed {
                    over.push(entry.token);
                }
                !closed
            });
            if over.is_empty() {
                let mut readers: Vec<_> =
                    entries.iter_mut().map(|entry| entry.reader.waiting()).collect();
                match wait_any_or_bell(&mut readers, &self.bell, &Wait::forever()) {
                    Ok(Some(index)) => over.push(entries.swap_remove(index).token),
                    Ok(None) => {}
                    // One of them cannot be waited for: each says so itself when it is asked.
                    Err(_) => over.extend(entries.drain(..).map(|entry| entry.token)),
                }
            }
            locked(&self.inbox).load -= over.len();
            for token in over {
                outbox.put(token);
            }
        }
    }

    /// Whether the thread takes another wait.
    fn take(&self, entry: Entry) -> Option<Entry> {
        {
            let mut inbox = locked(&self.inbox);
            if inbox.load >= STREAMS_PER_THREAD {
                return Some(entry);
            }
            inbox.load += 1;
            inbox.added.push(entry);
        }
        self.bell.ring();
        None
    }
}

#[pymethods]
impl Watcher {
    #[new]
    fn new() -> PyResult<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let descriptor = eventfd(0, flags).map_err(|error| {
            PyOSError::new_err((error.raw_os_error(), "cannot make an eventfd".to_owned()))
        })?;
        let outbox = Arc::new(Outbox { done: Mutex::default(), descriptor });
        Ok(Self { outbox, threads: Mutex::default(), next: AtomicU64::new(1) })
    }

    /// The descriptor that becomes readable when a wait is over.
    fn fileno(&self) -> i32 {
        self.outbox.descriptor.as_raw_fd()
    }

    /// Waits until `handle` has more than `after` frames, was unlinked, closed, or fails. The number
    /// by which `drain` names this wait.
    fn add(&self, handle: &Bound<'_, Handle>, after: Whole<u64>) -> PyResult<u64> {
        let handle = handle.get();
        let reader = handle.reader_after(after.0)?;
        let token = self.next.fetch_add(1, Ordering::Relaxed);
        let mut entry = Entry { token, reader, closed: Arc::clone(&handle.closed) };
        let mut threads = locked(&self.threads);
        for thread in &*threads {
            match thread.take(entry) {
                None => return Ok(token),
                Some(refused) => entry = refused,
            }
        }
        let fresh = Thread::start(&self.outbox).map_err(|error| {
            PyOSError::new_err(format!("cannot start a thread that waits: {error}"))
        })?;
        let refused = fresh.take(entry);
        debug_assert!(refused.is_none(), "a fresh thread has room");
        threads.push(fresh);
        Ok(token)
    }

    /// Gives a wait up.
    fn remove(&self, token: u64) {
        for thread in &*locked(&self.threads) {
            locked(&thread.inbox).removed.push(token);
            thread.bell.ring();
        }
    }

    /// The waits that are over.
    fn drain(&self) -> Vec<u64> {
        let mut counter = [0; 8];
        let _ = rustix::io::read(&self.outbox.descriptor, &mut counter);
        std::mem::take(&mut *locked(&self.outbox.done))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        for thread in &*locked(&self.threads) {
            thread.ends.store(true, Ordering::Release);
            thread.bell.ring();
        }
    }
}
