//! An open stream, as Python holds it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use pyo3::exceptions::{PyPermissionError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use shared_tensor::ErrorKind;
use shared_tensor::lock::PerProcess;
use shared_tensor::shm::{Creator, Generation, Namespace};
use shared_tensor::stream::{
    OpenOptions, Phase, Publication, Reader, ReaderOptions, Stream, Writer,
};

use crate::arrays::Frames;
use crate::errors::{self, StaleStreamError};
use crate::options::{self, Creation};
use crate::ownership::{NotOwner, Ownership};
use crate::patience::Patience;
use crate::{report, watcher};

/// An open stream: the core that `shared_tensor.Stream` and `shared_tensor.streams.SharedMemory`
/// are layers over.
///
/// Threads may share a handle. Closing it ends its waits; arrays that it gave out stay valid.
#[pyclass(frozen, subclass, weakref, module = "shared_tensor._native")]
pub(crate) struct Handle {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) frames: Frames,
    pub(crate) readonly: bool,
    /// Whether frames may be read and written, or only the lock and what is known be used.
    attached: bool,
    pub(crate) behaviour: ReaderOptions,
    pub(crate) ownership: Arc<Ownership>,
    pub(crate) closed: Arc<AtomicBool>,
    open: ArcSwapOption<Inner>,
    position: Mutex<Position>,
    waits: PerProcess<Waits>,
    generation: Generation,
    creator: Creator,
    namespace: Namespace,
    dtype: &'static str,
    slots: usize,
    tag: u32,
}

/// What closing lets go of.
pub(crate) struct Inner {
    pub(crate) stream: Stream,
    writer: OnceLock<Writer>,
    /// Readers that no thread uses at the moment.
    readers: PerProcess<Mutex<Vec<Reader>>>,
}

/// What this handle has read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Position {
    pub(crate) last: u64,
    missed: u64,
    missed_total: u64,
}

/// Calls that wait, so that closing can wait for them in its turn.
#[derive(Debug, Default)]
struct Waits {
    going_on: Mutex<u32>,
    ended: Condvar,
}

/// One call that waits.
pub(crate) struct Waiting<'a>(&'a Waits);

impl Waits {
    fn count(&self) -> MutexGuard<'_, u32> {
        self.going_on.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        *self.0.count() -= 1;
        self.0.ended.notify_all();
    }
}

impl Inner {
    /// The writer of this handle; the first one starts to populate the ring's pages.
    pub(crate) fn writer(&self) -> shared_tensor::Result<&Writer> {
        if let Some(writer) = self.writer.get() {
            return Ok(writer);
        }
        let fresh = self.stream.writer()?;
        Ok(self.writer.get_or_init(|| fresh))
    }

    /// Runs `read` with a reader that has seen the frames up to `last`.
    pub(crate) fn with_reader<T>(
        &self,
        behaviour: ReaderOptions,
        last: u64,
        read: impl FnOnce(&mut Reader) -> T,
    ) -> T {
        let spare = self.readers.get_or_init(Mutex::default);
        let idle = spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut reader = idle.unwrap_or_else(|| self.stream.reader_with(behaviour));
        reader.seek(last);
        let outcome = read(&mut reader);
        spare.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
        outcome
    }
}

impl Handle {
    /// What is open.
    ///
    /// # Errors
    /// `RuntimeError` after closing.
    #[inline]
    pub(crate) fn live(&self) -> PyResult<Arc<Inner>> {
        // While it is being closed no new call begins, or closing would wait for ever for a thread that
        // reads in a loop.
        let open = if self.closed.load(Ordering::Acquire) { None } else { self.open.load_full() };
        open.ok_or_else(|| errors::closed(&self.name))
    }

    /// What frames may be read from.
    ///
    /// # Errors
    /// As [`live`](Self::live); `RuntimeError` for handles that were opened without the payload.
    #[inline]
    pub(crate) fn readable(&self) -> PyResult<Arc<Inner>> {
        let inner = self.live()?;
        if self.attached { Ok(inner) } else { Err(self.not_attached()) }
    }

    #[cold]
    pub(crate) fn not_attached(&self) -> PyErr {
        PyRuntimeError::new_err(format!(
            "stream '{}' was opened with attach=False, for its lock and what is known of it: open it \
             again to read or write frames",
            self.name
        ))
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.open.load().is_none()
    }

    pub(crate) fn is_attached(&self) -> bool {
        self.attached
    }

    /// What may be written to.
    ///
    /// # Errors
    /// As [`live`](Self::live); `PermissionError` for read-only handles.
    pub(crate) fn writable(&self, what: &str) -> PyResult<Arc<Inner>> {
        let inner = self.live()?;
        if self.readonly {
            return Err(PyPermissionError::new_err(format!(
                "stream '{}': this handle is read-only and cannot {what}; open the stream without \
                 readonly",
                self.name
            )));
        }
        Ok(inner)
    }

    pub(crate) fn position(&self) -> MutexGuard<'_, Position> {
        self.position.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a frame that was read: what lies between it and the last one was missed.
    pub(crate) fn has_read(&self, publication: &mut Publication) {
        let mut position = self.position();
        let count = publication.count;
        position.missed = count.saturating_sub(position.last).saturating_sub(1);
        position.missed_total += position.missed;
        position.last = position.last.max(count);
        // Of this handle, which threads may share; the reader that was used knows of its own only.
        publication.missed = position.missed;
    }

    /// Announces a wait, until the value is dropped.
    pub(crate) fn waiting(&self) -> Waiting<'_> {
        let waits = self.waits.get_or_init(Waits::default);
        *waits.count() += 1;
        Waiting(waits)
    }

    fn of(
        stream: Stream,
        readonly: bool,
        attached: bool,
        behaviour: ReaderOptions,
        casting: &str,
    ) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let last = stream.count();
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            name: stream.name().to_owned(),
            frames: Frames::new(&stream, casting.to_owned()),
            readonly,
            attached,
            behaviour,
            ownership: Ownership::of(stream.generation()),
            closed: Arc::default(),
            position: Mutex::new(Position { last, ..Position::default() }),
            waits: PerProcess::new(),
            generation: stream.generation(),
            creator: stream.creator(),
            namespace: stream.namespace().clone(),
            dtype: stream.dtype().name(),
            slots: stream.slots(),
            tag: stream.tag(),
            open: ArcSwapOption::from_pointee(Inner {
                stream,
                writer: OnceLock::new(),
                readers: PerProcess::new(),
            }),
        }
    }

    /// Waits until no call of this handle waits any more.
    fn await_waits(&self, inner: &Inner, patience: Patience) -> bool {
        let Some(waits) = self.waits.get() else { return true };
        let until = patience.deadline();
        let mut count = waits.count();
        while *count > 0 {
            if until.is_some_and(|until| Instant::now() >= until) {
                return false;
            }
            // Again and again: who looked at the flag just before it was set may fall asleep after a
            // nudge.
            inner.stream.nudge();
            let slice = Duration::from_millis(2);
            count =
                waits.ended.wait_timeout(count, slice).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // What was acquired through this handle by another thread ends with that thread.
        let _ = self.ownership.release_all_through(self.id);
    }
}

#[pymethods]
impl Handle {
    #[new]
    #[pyo3(signature = (
        action, name, shape=None, dtype=None, *, slots=None, mode=0o600, group=None, directory=None,
        prefix=None, lock_memory=false, tag=0, readonly=false, attach=true, timeout=Some(0.0),
        on_abort="serve", on_writing="serve", on_empty="raise", reattach=false, spin=None,
        casting="same_kind",
    ), text_signature = "(action, name, shape=None, dtype=None, *, slots=None, mode=0o600, group=None, \
        directory=None, prefix=None, lock_memory=False, tag=0, readonly=False, attach=True, \
        timeout=0.0, on_abort='serve', on_writing='serve', on_empty='raise', reattach=False, \
        spin=None, casting='same_kind')")]
    #[expect(clippy::too_many_arguments, reason = "keywords of Python")]
    #[expect(clippy::fn_params_excessive_bools, reason = "keywords of Python")]
    fn new(
        py: Python<'_>,
        action: &str,
        name: &str,
        shape: Option<&Bound<'_, PyAny>>,
        dtype: Option<&Bound<'_, PyAny>>,
        slots: Option<usize>,
        mode: u32,
        group: Option<u32>,
        directory: Option<&str>,
        prefix: Option<&str>,
        lock_memory: bool,
        tag: u32,
        readonly: bool,
        attach: bool,
        timeout: Option<f64>,
        on_abort: &str,
        on_writing: &str,
        on_empty: &str,
        reattach: bool,
        spin: Option<f64>,
        casting: &str,
    ) -> PyResult<Self> {
        let namespace = options::namespace(directory, prefix)?;
        let behaviour = options::reading(on_abort, on_writing, on_empty, reattach, spin)?;
        let patience = Patience::of(timeout)?;
        let creation = Creation { shape, dtype, slots, mode, group, lock_memory, tag };
        let stream = match action {
            "create" => {
                let options = creation.options(namespace)?;
                py.detach(|| options.create(name)).map_err(|error| errors::raised(&error))?
            }
            "open_or_create" => {
                let options = creation.options(namespace)?;
                py.detach(|| options.open_or_create(name))
                    .map_err(|error| errors::raised(&error))?
            }
            "open" => {
                let options = OpenOptions::new()
                    .namespace(namespace)
                    .read_only(readonly)
                    .lock_memory(lock_memory);
                if timeout == Some(0.0) {
                    options.open(name).map_err(|error| errors::raised(&error))?
                } else {
                    let never = AtomicBool::new(false);
                    patience.run(py, name, &never, |wait| options.open_when_created(name, wait))?
                }
            }
            other => {
                return Err(PyValueError::new_err(format!(
                    "action must be 'create', 'open' or 'open_or_create', got '{other}'"
                )));
            }
        };
        let handle = Self::of(stream, readonly, attach, behaviour, casting);
        if attach {
            handle.frames.prepare(py);
        }
        Ok(handle)
    }

    /// The stream's name.
    #[getter]
    fn name(&self) -> &str {
        &self.name
    }

    /// The shape of every frame.
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.frames.shape())
    }

    /// The element type by its NumPy name.
    #[getter]
    fn dtype_name(&self) -> &'static str {
        self.dtype
    }

    /// Bytes of one frame.
    #[getter]
    fn frame_bytes(&self) -> usize {
        self.frames.bytes()
    }

    /// Slots of the ring.
    #[getter]
    fn slots(&self) -> usize {
        self.slots
    }

    /// Which creation of the name this is: 32 hexadecimal digits.
    #[getter]
    fn generation(&self) -> String {
        self.generation.to_string()
    }

    /// Whether this handle was opened for reading only.
    #[getter]
    fn readonly(&self) -> bool {
        self.readonly
    }

    /// Whether this handle was closed.
    #[getter]
    fn closed(&self) -> bool {
        self.is_closed()
    }

    /// Directory of the stream's file.
    #[getter]
    fn directory(&self) -> String {
        self.namespace.directory().display().to_string()
    }

    /// What the name of the stream's file starts with.
    #[getter]
    fn prefix(&self) -> &str {
        self.namespace.prefix()
    }

    /// The process that created the stream, in its own pid namespace.
    #[getter]
    fn creator_pid(&self) -> u32 {
        self.creator.pid
    }

    /// The creator's number for whoever opens the stream.
    #[getter]
    fn tag(&self) -> u32 {
        self.tag
    }

    /// How many frames were published so far.
    #[getter]
    #[inline]
    fn count(&self) -> PyResult<u64> {
        match &*self.open.load() {
            Some(inner) => Ok(inner.stream.count()),
            None => Err(errors::closed(&self.name)),
        }
    }

    /// Whether the name was unlinked since.
    #[getter]
    fn unlinked(&self) -> PyResult<bool> {
        Ok(self.live()?.stream.is_unlinked())
    }

    /// What the write side is doing: idle, writing, aborted or crashed.
    #[getter]
    fn phase(&self) -> PyResult<String> {
        let inner = self.live()?;
        let phase = match inner.stream.phase() {
            Phase::Writing if inner.stream.is_abandoned() => Phase::Crashed,
            phase => phase,
        };
        Ok(phase.to_string())
    }

    /// Twice the count while the stream is stable, odd while a write is in progress, negative after
    /// one that was given up or whose writer died.
    #[getter]
    fn write_sequence(&self) -> PyResult<i64> {
        let inner = self.live()?;
        let (count, phase) = inner.stream.state();
        // 47 bits.
        let stable = 2 * count.cast_signed();
        Ok(match phase {
            Phase::Idle => stable,
            Phase::Writing if !inner.stream.is_abandoned() => stable + 1,
            Phase::Writing | Phase::Aborted | Phase::Crashed => -(stable + 1),
        })
    }

    /// When the newest frame was published, in seconds since 1970; 0.0 before the first one.
    #[getter]
    fn write_time(&self) -> PyResult<f64> {
        let newest = self.live()?.stream.publication();
        Ok(newest.map_or(0.0, |publication| report::seconds(publication.published_unix_ns)))
    }

    /// The last number that a writer gave to a frame; 0 if none did.
    #[getter]
    fn frame_id(&self) -> PyResult<u64> {
        Ok(self.live()?.stream.publication().map_or(0, |publication| publication.frame_id))
    }

    /// The count of the last frame that this handle read, or at which it was opened.
    #[getter]
    fn last_read_count(&self) -> PyResult<u64> {
        self.live()?;
        Ok(self.position().last)
    }

    /// Frames that were skipped before the last one read.
    #[getter]
    fn missed(&self) -> PyResult<u64> {
        self.live()?;
        Ok(self.position().missed)
    }

    /// Frames that this handle never saw.
    #[getter]
    fn missed_total(&self) -> PyResult<u64> {
        self.live()?;
        Ok(self.position().missed_total)
    }

    /// Whether the process that created the stream still runs, as far as can be told from here.
    #[getter]
    fn creator_alive(&self) -> PyResult<bool> {
        self.live()?;
        Ok(report::is_alive(&self.creator))
    }

    /// Where this process has mapped the payload: first address and the one behind the last.
    fn address_range(&self) -> PyResult<(usize, usize)> {
        let addresses = self.live()?.stream.payload_addresses();
        Ok((addresses.start, addresses.end))
    }

    /// Everything that can be said about the stream.
    fn info<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let inner = self.live()?;
        let info = py.detach(|| inner.stream.info());
        report::info(py, &info)
    }

    /// Wakes every wait of this handle, which looks at its interrupts and goes on.
    fn interrupt(&self) -> PyResult<()> {
        self.live()?.stream.nudge();
        Ok(())
    }

    /// Closes the handle. Its waits end with an error and are waited for, `timeout` seconds at most.
    /// What was acquired through it by this thread is released; arrays stay valid.
    #[pyo3(signature = (timeout=Some(5.0)), text_signature = "($self, timeout=5.0)")]
    fn close(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        let patience = Patience::of(timeout)?;
        if self.open.load().is_none() {
            return Ok(());
        }
        // Dropping the tenure gives up a frame and wakes, which is quick; no lock is waited for.
        self.ownership.release_all_through(self.id).map_err(|_| {
            PyRuntimeError::new_err(format!(
                "cannot close stream '{}': another thread owns its lock through this handle; \
                 release it there first",
                self.name
            ))
        })?;
        let Some(inner) = self.open.load_full() else { return Ok(()) };
        self.closed.store(true, Ordering::Release);
        watcher::ring_all();
        if !py.detach(|| self.await_waits(&inner, patience)) {
            self.closed.store(false, Ordering::Release);
            return Err(PyRuntimeError::new_err(format!(
                "cannot close stream '{}': a read is still waiting after {} s",
                self.name,
                timeout.unwrap_or_default()
            )));
        }
        self.open.store(None);
        // Unmapping is not always quick.
        py.detach(|| drop(inner));
        Ok(())
    }

    /// Removes the stream's name, if it still leads to this generation. False if it was gone.
    fn unlink(&self, py: Python<'_>) -> PyResult<bool> {
        if self.readonly {
            return Err(PyPermissionError::new_err(format!(
                "stream '{}': this handle is read-only and cannot unlink; open the stream without \
                 readonly",
                self.name
            )));
        }
        let removed = match self.open.load_full() {
            Some(inner) => py.detach(|| inner.stream.unlink()).map(Some),
            None => py.detach(|| self.unlink_by_name()),
        };
        let stale = || {
            StaleStreamError::new_err(format!(
                "stream '{}' was replaced by a newer generation, which is left alone: open the name \
                 again",
                self.name
            ))
        };
        match removed {
            Ok(Some(removed)) => Ok(removed),
            Ok(None) => Err(stale()),
            Err(error) if error.kind() == ErrorKind::Changed => Err(stale()),
            Err(error) => Err(errors::raised(&error)),
        }
    }
}

impl Handle {
    /// After closing: by name, if it still means this stream; `None` if it means another one.
    fn unlink_by_name(&self) -> shared_tensor::Result<Option<bool>> {
        match OpenOptions::new().namespace(self.namespace.clone()).open(&self.name) {
            Ok(stream) if stream.generation() == self.generation => stream.unlink().map(Some),
            Ok(_) => Ok(None),
            Err(error) if error.is_not_found() => Ok(Some(false)),
            Err(error) => Err(error),
        }
    }

    /// The error of a release that was not the caller's to make.
    pub(crate) fn not_owner(&self, why: NotOwner) -> PyErr {
        PyRuntimeError::new_err(match why {
            NotOwner::Nobody => {
                format!("cannot release stream '{}': it is unlocked in this process", self.name)
            }
            NotOwner::AnotherThread => format!(
                "cannot release stream '{}': another thread of this process owns the lock",
                self.name
            ),
        })
    }
}
