//! Reading: the newest frame, the next in order, in place, and waiting for one.

use std::ffi::CStr;
use std::mem::MaybeUninit;

use pyo3::Borrowed;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyFloat, PyInt, PyTuple};
use shared_tensor::stream::{Lease, OnFull, OnWriting, Phase, Publication, Reader, Wait};

use crate::arrays::Output;
use crate::handle::{Handle, Inner};
use crate::options::Whole;
use crate::patience::Patience;
use crate::sys::lanes::{self, Given, Lane, unless_none};
use crate::{gpu, lending, report};

/// Which frame is read.
#[derive(Clone, Copy)]
pub(crate) enum Which {
    Newest,
    /// The newest one, once there is one above this count.
    NewestAfter(u64),
    /// The oldest one that this handle has not seen.
    Next,
}

impl Which {
    fn copy(
        self,
        reader: &mut Reader,
        out: &mut [MaybeUninit<u8>],
        wait: &Wait<'_>,
    ) -> shared_tensor::Result<Publication> {
        match self {
            Self::Newest => reader.read_uninit(out, wait),
            Self::NewestAfter(after) => {
                reader.wait(after, wait)?;
                reader.read_uninit(out, wait)
            }
            Self::Next => reader.next_uninit(out, wait),
        }
    }
}

impl Handle {
    fn copy<'py>(
        &self,
        py: Python<'py>,
        which: Which,
        out: Option<&Bound<'py, PyAny>>,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.copy_with(py, which, out, timeout, |_| ())?.0)
    }

    /// As `copy`, wherever frames are read, with what `tell` makes of what is known about the frame.
    fn copy_with<'py, T>(
        &self,
        py: Python<'py>,
        which: Which,
        out: Option<&Bound<'py, PyAny>>,
        timeout: Option<f64>,
        tell: impl FnOnce(&mut Publication) -> T,
    ) -> PyResult<(Bound<'py, PyAny>, T)> {
        let inner = self.readable()?;
        let Some(gpu) = inner.gpu() else {
            return self.copy_to(py, which, timeout, || self.destination(py, out), tell);
        };
        let patience = Patience::of(timeout)?;
        self.refuse_to_wait_for_myself(&inner, patience)?;
        self.copy_on_gpu(py, (&inner, gpu), which, out, patience, tell)
    }

    /// As `copy`, with what is known about the frame.
    fn copy_known<'py>(
        &self,
        py: Python<'py>,
        which: Which,
        out: Option<&Bound<'py, PyAny>>,
        timeout: Option<f64>,
    ) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        let told = |publication: &mut Publication| self.told(py, publication);
        let (frame, told) = self.copy_with(py, which, out, timeout, told)?;
        Ok((frame, told?))
    }

    fn destination<'py>(
        &self,
        py: Python<'py>,
        out: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Output<'py>> {
        match out {
            Some(out) => self.frames.output(out),
            None => self.frames.fresh(py),
        }
    }

    // What is known about a frame is passed by reference: it is as large as a small frame, and a result
    // that holds it is moved at every return.
    fn copy_to<'py, T>(
        &self,
        py: Python<'py>,
        which: Which,
        timeout: Option<f64>,
        output: impl FnOnce() -> PyResult<Output<'py>>,
        tell: impl FnOnce(&mut Publication) -> T,
    ) -> PyResult<(Bound<'py, PyAny>, T)> {
        let inner = self.readable_by_host()?;
        let patience = Patience::of(timeout)?;
        self.refuse_to_wait_for_myself(&inner, patience)?;
        let mut output = output()?;
        let out = output.bytes();
        let last = self.last_of(&inner);
        let mut read = None;
        self.run(py, patience, self.is_quick_to_copy(), |wait| {
            let copy = |reader: &mut Reader, wait: &Wait<'_>| which.copy(reader, &mut *out, wait);
            read = Some(self.read_with(&inner, last, wait, copy)?);
            Ok(())
        })?;
        let (publication, of) = read.as_mut().expect("a read that succeeds has read a frame");
        self.has_read(*of, publication);
        let told = tell(publication);
        Ok((output.into_any(), told))
    }

    /// A read that waits for writes, by the thread that is writing, would wait for ever.
    fn refuse_to_wait_for_myself(&self, inner: &Inner, patience: Patience) -> PyResult<()> {
        if self.behaviour.on_writing == OnWriting::Serve
            || !patience.is_endless()
            || inner.stream.phase() != Phase::Writing
            || !self.ownership.with_mine(|tenure| tenure.locked.is_open()).unwrap_or(false)
        {
            return Ok(());
        }
        Err(PyRuntimeError::new_err(format!(
            "stream '{}': this thread is writing a frame, so to read would be to wait for it for \
             ever; publish it first",
            self.name
        )))
    }
}

#[pymethods]
impl Handle {
    /// Read the newest frame, copied. Never waits for the first frame or for a new one.
    ///
    /// Parameters
    /// ----------
    /// out : numpy.ndarray, optional
    ///     Where to copy to, of the stream's shape and element type, C-contiguous and writable; returned.
    ///     Left out, a new array.
    /// timeout : float, optional
    ///     Seconds to wait where a read may have to: with ``on_writing="wait"``, in a ring of one slot, or
    ///     when a faster writer overtakes every copy. Left out, there is no limit.
    ///
    /// Returns
    /// -------
    /// numpy.ndarray
    ///     A private copy that nothing changes.
    ///
    /// Raises
    /// ------
    /// EmptyStreamError
    ///     Nothing was published yet, unless the handle was opened with ``on_empty="zeros"``. To wait for
    ///     the first frame use ``next(timeout=...)``.
    /// InconsistentStreamError
    ///     With ``on_abort="raise"``: the last write was given up, or its writer died.
    /// TimeoutError
    ///     There was no whole frame to copy in time.
    /// TypeError, ValueError
    ///     `out` does not fit, or `timeout` is negative.
    /// RuntimeError
    ///     The handle is closed.
    #[pyo3(signature = (out=None, timeout=None))]
    fn latest<'py>(
        &self,
        py: Python<'py>,
        out: Option<&Bound<'py, PyAny>>,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.copy(py, Which::Newest, out, timeout)
    }

    /// The newest frame as unsigned integers of the same size: for element types that NumPy lacks.
    #[pyo3(signature = (timeout=None))]
    fn latest_bits<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.copy_to(py, Which::Newest, timeout, || self.frames.fresh_bits(py), |_| ())?.0)
    }

    /// As `latest`, with what is known about the frame.
    #[pyo3(signature = (out=None, timeout=None))]
    fn read_publication<'py>(
        &self,
        py: Python<'py>,
        out: Option<&Bound<'py, PyAny>>,
        timeout: Option<f64>,
    ) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        self.copy_known(py, Which::Newest, out, timeout)
    }

    /// Wait until more than `after` frames were published, and read the newest one, copied.
    ///
    /// Parameters
    /// ----------
    /// after : int
    ///     A count, such as ``count`` or ``last_read_count``.
    /// out : numpy.ndarray, optional
    ///     Where to copy to, of the stream's shape and element type, C-contiguous and writable; returned.
    ///     Left out, a new array.
    /// timeout : float, optional
    ///     Seconds to wait. Left out, there is no limit.
    ///
    /// Raises
    /// ------
    /// TimeoutError
    ///     Nothing newer came in time.
    /// UnlinkedStreamError
    ///     The stream was unlinked, and has nothing newer. Others as of ``latest``.
    #[pyo3(signature = (after, out=None, timeout=None))]
    fn read_after<'py>(
        &self,
        py: Python<'py>,
        after: Whole<u64>,
        out: Option<&Bound<'py, PyAny>>,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.copy(py, Which::NewestAfter(after.0), out, timeout)
    }

    /// As `read_after`, with what is known about the frame.
    #[pyo3(signature = (after, out=None, timeout=None))]
    fn read_after_publication<'py>(
        &self,
        py: Python<'py>,
        after: Whole<u64>,
        out: Option<&Bound<'py, PyAny>>,
        timeout: Option<f64>,
    ) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        self.copy_known(py, Which::NewestAfter(after.0), out, timeout)
    }

    /// Read the next frame in order that this handle has not read, copied, waiting for it if need be.
    ///
    /// A fresh handle begins after the newest frame that there was when it was opened: ``seek(0)`` goes
    /// back to the oldest that the ring still has. Frames that were overwritten before they were read are
    /// skipped and counted in ``missed`` and ``missed_total``. ``latest``, ``numpy`` and the other reads
    /// move on too: what they gave is not given again.
    ///
    /// Parameters
    /// ----------
    /// timeout : float, optional
    ///     Seconds to wait. Left out, there is no limit; 0.0 takes what is there.
    /// out : numpy.ndarray, optional
    ///     Where to copy to, of the stream's shape and element type, C-contiguous and writable; returned.
    ///     Left out, a new array.
    ///
    /// Raises
    /// ------
    /// TimeoutError
    ///     No frame came in time; the message says so if the writer died during a write.
    /// UnlinkedStreamError
    ///     The stream was unlinked, and every frame was read.
    /// InconsistentStreamError
    ///     With ``on_abort="raise"``: the last write was given up, or its writer died.
    /// TypeError, ValueError
    ///     `out` does not fit, or `timeout` is negative.
    /// RuntimeError
    ///     The handle is closed, perhaps during the wait.
    #[pyo3(signature = (timeout=None, out=None))]
    fn next<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<f64>,
        out: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.copy(py, Which::Next, out, timeout)
    }

    /// As `next`, with what is known about the frame.
    #[pyo3(signature = (timeout=None, out=None))]
    fn next_publication<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<f64>,
        out: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        self.copy_known(py, Which::Next, out, timeout)
    }

    /// Wait until more than `after` frames were published, without reading any.
    ///
    /// Parameters
    /// ----------
    /// after : int
    ///     A count, such as ``count``. Which frame ``next`` gives does not change.
    /// timeout : float, optional
    ///     Seconds to wait. Left out, there is no limit.
    ///
    /// Returns
    /// -------
    /// int
    ///     How many frames were published.
    ///
    /// Raises
    /// ------
    /// TimeoutError, UnlinkedStreamError, InconsistentStreamError, RuntimeError
    ///     As of ``next``.
    #[pyo3(signature = (after, timeout=None))]
    fn wait(&self, py: Python<'_>, after: Whole<u64>, timeout: Option<f64>) -> PyResult<u64> {
        let inner = self.live()?;
        let patience = Patience::of(timeout)?;
        self.refuse_to_wait_for_myself(&inner, patience)?;
        self.run(py, patience, true, |wait| match inner.gpu() {
            Some(gpu) => gpu.with_reader(after.0, |reader| reader.reader().wait(after.0, wait)),
            None => self.with_reader(&inner, after.0, |reader| reader.wait(after.0, wait)),
        })
    }

    /// Go on with the frame after number `count`: that one, or the oldest after it that the ring has, is
    /// what ``next`` gives. Frames are numbered from 1, so ``seek(0)`` goes back as far as possible, and
    /// ``seek(stream.count)`` skips everything that there is.
    fn seek(&self, count: Whole<u64>) -> PyResult<()> {
        self.live()?;
        self.go_to(count.0);
        Ok(())
    }

    /// The newest frame in place: a read-only array that holds it until the last view is gone, and
    /// what is known about it. `on_full` says what happens when the ring has no slot to spare:
    /// 'copy' gives a private copy, 'wait' waits `wait` seconds for one, 'revoke' takes the oldest.
    #[pyo3(signature = (on_full="copy", wait=None))]
    fn lease<'py>(
        &self,
        py: Python<'py>,
        on_full: &str,
        wait: Option<f64>,
    ) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        let inner = self.readable()?;
        if let Some(gpu) = inner.gpu() {
            self.refuse_to_wait_for_myself(&inner, Patience::endless())?;
            let on_full = when_full(on_full, wait)?;
            let (frame, mut publication) = self.lease_on_gpu(py, (&inner, gpu), on_full)?;
            return Ok((frame, self.told(py, &mut publication)?));
        }
        let (lease, mut publication) = self.leased(py, on_full, wait)?;
        Ok((self.frames.lent(py, lease)?, self.told(py, &mut publication)?))
    }

    /// Read the newest frame in place, without a copy.
    ///
    /// The array is read-only, and no writer touches it as long as it or a view of it lives. A ring of K
    /// slots lends K - 3 frames at once (1 of 3 slots, none below): delete arrays that are not needed.
    ///
    /// Parameters
    /// ----------
    /// on_full : str
    ///     When the ring has no slot to lend: "copy" gives a private copy, "wait" waits for a slot, "revoke"
    ///     takes the one of the oldest leased frame, whose arrays may then show another frame.
    /// wait : float, optional
    ///     Seconds that "wait" waits at most. Left out, there is no limit.
    ///
    /// Raises
    /// ------
    /// TimeoutError
    ///     No slot came free; the message says how many are leased.
    /// EmptyStreamError, InconsistentStreamError, RuntimeError
    ///     As of ``latest``.
    /// ValueError
    ///     `on_full` is none of these words, or `wait` is negative.
    #[pyo3(signature = (on_full="copy", wait=None))]
    fn numpy<'py>(
        &self,
        py: Python<'py>,
        on_full: &str,
        wait: Option<f64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.frames.lent(py, self.leased(py, on_full, wait)?.0)
    }

    /// The newest frame in place as unsigned integers of the same size: for element types that NumPy
    /// lacks. Otherwise as `numpy`.
    #[pyo3(signature = (on_full="copy", wait=None))]
    fn numpy_bits<'py>(
        &self,
        py: Python<'py>,
        on_full: &str,
        wait: Option<f64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.frames.lent_bits(py, self.leased(py, on_full, wait)?.0)
    }

    /// As `latest`, from memory of the host, also for handles on a GPU.
    #[pyo3(signature = (out=None, timeout=None))]
    fn latest_on_host<'py>(
        &self,
        py: Python<'py>,
        out: Option<&Bound<'py, PyAny>>,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.copy_to(py, Which::Newest, timeout, || self.destination(py, out), |_| ())?.0)
    }

    /// The page-locked buffer of a handle on a GPU: a tensor of torch in memory of the host.
    fn pinned_buffer<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let inner = self.writable("have a buffer to write from")?;
        inner.gpu().ok_or_else(|| self.not_on_gpu())?.pinned_buffer(py)
    }

    /// The newest frame of a handle on a GPU, for a library that knows DLPack.
    #[pyo3(signature = (stream=None, max_version=None, copy=None))]
    fn gpu_dlpack<'py>(
        &self,
        py: Python<'py>,
        stream: Option<isize>,
        max_version: Option<(u32, u32)>,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let inner = self.readable()?;
        let Some(gpu) = inner.gpu() else { return Err(self.not_on_gpu()) };
        self.refuse_to_wait_for_myself(&inner, Patience::endless())?;
        self.dlpack_on_gpu(py, (&inner, gpu), stream, max_version, copy)
    }

    /// Whether a leased array is a private copy, because the ring had no slot to spare.
    #[staticmethod]
    fn lease_is_copy(array: &Bound<'_, PyAny>) -> PyResult<bool> {
        if let Some(is_copy) = gpu::is_copy(array)? {
            return Ok(is_copy);
        }
        Ok(lending::lease_of(array)?.get().lease.is_copy())
    }

    /// Whether the slot under a leased array was taken away, so that it may hold another frame.
    #[staticmethod]
    fn lease_is_revoked(array: &Bound<'_, PyAny>) -> PyResult<bool> {
        if let Some(is_revoked) = gpu::is_revoked(array)? {
            return Ok(is_revoked);
        }
        Ok(lending::lease_of(array)?.get().lease.is_revoked())
    }
}

/// What a lease does when the ring has no slot to spare.
fn when_full(word: &str, wait: Option<f64>) -> PyResult<OnFull> {
    match word {
        "copy" => Ok(OnFull::Copy),
        "revoke" => Ok(OnFull::Revoke),
        "wait" => Ok(OnFull::Wait(Patience::duration(wait)?)),
        other => Err(PyValueError::new_err(format!(
            "on_full must be 'copy', 'wait' or 'revoke', got '{other}'"
        ))),
    }
}

impl Handle {
    fn leased(
        &self,
        py: Python<'_>,
        on_full: &str,
        wait: Option<f64>,
    ) -> PyResult<(Lease, Publication)> {
        let inner = self.readable_by_host()?;
        let patience = Patience::of(None)?;
        self.refuse_to_wait_for_myself(&inner, patience)?;
        let on_full = when_full(on_full, wait)?;
        // A slot may be waited for, and the private copy that replaces a lease may be large.
        let is_quick = !matches!(on_full, OnFull::Wait(_)) && self.is_quick_to_copy();
        let last = self.last_of(&inner);
        let (lease, of) = self.run(py, patience, is_quick, |wait| {
            self.read_with(&inner, last, wait, |reader, wait| reader.lease_with(on_full, wait))
        })?;
        let mut publication = *lease.publication();
        self.has_read(of, &mut publication);
        Ok((lease, publication))
    }

    /// What is known about a frame, as a tuple.
    fn told<'py>(
        &self,
        py: Python<'py>,
        publication: &mut Publication,
    ) -> PyResult<Bound<'py, PyTuple>> {
        if publication.phase == Phase::Writing {
            publication.phase = self.phase_of_writing();
        }
        report::publication(py, publication)
    }

    /// What a write in progress turns out to be when one asks after its writer: the frame says what the
    /// stream says.
    #[cold]
    fn phase_of_writing(&self) -> Phase {
        match self.live() {
            Ok(inner) if inner.stream.is_abandoned() => Phase::Crashed,
            _ => Phase::Writing,
        }
    }
}

pub(crate) fn open_lanes(py: Python<'_>) -> PyResult<()> {
    lanes::open::<Latest>(py)?;
    lanes::open::<Following>(py)?;
    lanes::open::<After>(py)?;
    lanes::open::<Waiting>(py)
}

/// `Handle.latest`.
struct Latest;

impl Lane for Latest {
    type Of = Handle;
    const NAME: &'static CStr = c"latest";
    const PARAMETERS: &'static [&'static str] = &["out", "timeout"];

    lanes::keeps_method!();

    fn call<'py>(
        this: &Bound<'py, Handle>,
        given: &Given<'_, 'py>,
    ) -> Option<PyResult<Bound<'py, PyAny>>> {
        let [out, timeout] = given.each()?;
        quickly(this, Which::Newest, out, timeout)
    }
}

/// `Handle.next`.
struct Following;

impl Lane for Following {
    type Of = Handle;
    const NAME: &'static CStr = c"next";
    const PARAMETERS: &'static [&'static str] = &["timeout", "out"];

    lanes::keeps_method!();

    fn call<'py>(
        this: &Bound<'py, Handle>,
        given: &Given<'_, 'py>,
    ) -> Option<PyResult<Bound<'py, PyAny>>> {
        let [timeout, out] = given.each()?;
        quickly(this, Which::Next, out, timeout)
    }
}

/// `Handle.read_after`.
struct After;

impl Lane for After {
    type Of = Handle;
    const NAME: &'static CStr = c"read_after";
    const PARAMETERS: &'static [&'static str] = &["after", "out", "timeout"];

    lanes::keeps_method!();

    fn call<'py>(
        this: &Bound<'py, Handle>,
        given: &Given<'_, 'py>,
    ) -> Option<PyResult<Bound<'py, PyAny>>> {
        let [after, out, timeout] = given.each()?;
        quickly(this, Which::NewestAfter(whole(after)?), out, timeout)
    }
}

/// `Handle.wait`.
struct Waiting;

impl Lane for Waiting {
    type Of = Handle;
    const NAME: &'static CStr = c"wait";
    const PARAMETERS: &'static [&'static str] = &["after", "timeout"];

    lanes::keeps_method!();

    fn call<'py>(
        this: &Bound<'py, Handle>,
        given: &Given<'_, 'py>,
    ) -> Option<PyResult<Bound<'py, PyAny>>> {
        let [after, timeout] = given.each()?;
        let (after, timeout, py) = (Whole(whole(after)?), seconds(timeout)?, this.py());
        Some(
            this.get().wait(py, after, timeout).and_then(|it| Ok(it.into_pyobject(py)?.into_any())),
        )
    }
}

/// A count that is an integer and no other object.
fn whole(given: Option<Borrowed<'_, '_, PyAny>>) -> Option<u64> {
    given?.cast_exact::<PyInt>().ok()?.extract().ok()
}

/// Seconds that are a float, or none.
#[expect(clippy::option_option, reason = "not these, or none given")]
fn seconds(given: Option<Borrowed<'_, '_, PyAny>>) -> Option<Option<f64>> {
    match unless_none(given) {
        None => Some(None),
        Some(given) => Some(Some(given.cast_exact::<PyFloat>().ok()?.value())),
    }
}

/// A frame, copied, unless seconds come as anything but a float.
fn quickly<'py>(
    this: &Bound<'py, Handle>,
    which: Which,
    out: Option<Borrowed<'_, 'py, PyAny>>,
    timeout: Option<Borrowed<'_, 'py, PyAny>>,
) -> Option<PyResult<Bound<'py, PyAny>>> {
    let (timeout, out) = (seconds(timeout)?, unless_none(out));
    Some(this.get().copy(this.py(), which, out.as_deref(), timeout))
}
