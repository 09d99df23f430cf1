//! Reading: the newest frame, the next in order, in place, and waiting for one.

use std::mem::MaybeUninit;
use std::sync::Arc;

use pyo3::exceptions::{PyRuntimeError, PyTimeoutError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use shared_tensor::stream::{OnFull, OnWriting, Phase, Publication, Reader, Wait};

use crate::arrays::Output;
use crate::handle::{Handle, Inner};
use crate::patience::Patience;
use crate::{lending, report};

/// Frames from this size on are copied while other Python threads run.
pub(crate) const DETACH_BYTES_MIN: usize = 256 << 10;

/// Which frame is read.
#[derive(Clone, Copy)]
enum Which {
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
    ) -> PyResult<(Bound<'py, PyAny>, Publication)> {
        let inner = self.readable()?;
        let patience = Patience::of(timeout)?;
        self.refuse_to_wait_for_myself(&inner, patience)?;
        let mut output = match out {
            Some(out) => self.frames.output(out)?,
            None => self.frames.fresh(py)?,
        };
        let mut publication = self.fill(py, &inner, which, &mut output, patience)?;
        self.has_read(&mut publication);
        Ok((output.into_any(), publication))
    }

    fn fill(
        &self,
        py: Python<'_>,
        inner: &Arc<Inner>,
        which: Which,
        output: &mut Output<'_>,
        patience: Patience,
    ) -> PyResult<Publication> {
        let last = self.position().last;
        let out = output.bytes();
        if out.len() < DETACH_BYTES_MIN {
            // Most reads neither wait nor take long: one try without letting other threads run. More
            // would be a deadlock if the writer is one of them.
            let tried = inner.with_reader(self.behaviour, last, |reader| {
                Patience::none()
                    .run_short(&self.name, &self.closed, |wait| which.copy(reader, &mut *out, wait))
            });
            match tried {
                Err(error) if is_timeout(py, &error) => {}
                outcome => return outcome,
            }
        }
        let _waiting = self.waiting();
        patience.run(py, &self.name, &self.closed, |wait| {
            inner.with_reader(self.behaviour, last, |reader| which.copy(reader, out, wait))
        })
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
            "stream '{}': this thread is writing a frame, so a read would wait for it for ever; read \
             after the write, or with a timeout",
            self.name
        )))
    }

    fn wait_above(&self, py: Python<'_>, after: u64, timeout: Option<f64>) -> PyResult<u64> {
        let inner = self.live()?;
        let patience = Patience::of(timeout)?;
        self.refuse_to_wait_for_myself(&inner, patience)?;
        let wait_for = |wait: &Wait<'_>| {
            inner.with_reader(self.behaviour, after, |reader| reader.wait(after, wait))
        };
        let tried = Patience::none().run_short(&self.name, &self.closed, wait_for);
        match tried {
            Err(error) if is_timeout(py, &error) => {}
            outcome => return outcome,
        }
        let _waiting = self.waiting();
        patience.run(py, &self.name, &self.closed, wait_for)
    }
}

#[pymethods]
impl Handle {
    /// The newest frame, copied: a new array, or `out`.
    #[pyo3(signature = (out=None, timeout=None))]
    fn latest<'py>(
        &self,
        py: Python<'py>,
        out: Option<&Bound<'py, PyAny>>,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.copy(py, Which::Newest, out, timeout)?.0)
    }

    /// The newest frame as unsigned integers of the same size: for element types that NumPy lacks.
    #[pyo3(signature = (timeout=None))]
    fn latest_bits<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let inner = self.readable()?;
        let patience = Patience::of(timeout)?;
        self.refuse_to_wait_for_myself(&inner, patience)?;
        let mut output = self.frames.fresh_bits(py)?;
        let mut publication = self.fill(py, &inner, Which::Newest, &mut output, patience)?;
        self.has_read(&mut publication);
        Ok(output.into_any())
    }

    /// As `latest`, with what is known about the frame.
    #[pyo3(signature = (out=None, timeout=None))]
    fn read_publication<'py>(
        &self,
        py: Python<'py>,
        out: Option<&Bound<'py, PyAny>>,
        timeout: Option<f64>,
    ) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        let (array, publication) = self.copy(py, Which::Newest, out, timeout)?;
        Ok((array, report::publication(py, &publication)?))
    }

    /// The newest frame, once more than `after` were published.
    #[pyo3(signature = (after, out=None, timeout=None))]
    fn read_after<'py>(
        &self,
        py: Python<'py>,
        after: u64,
        out: Option<&Bound<'py, PyAny>>,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.copy(py, Which::NewestAfter(after), out, timeout)?.0)
    }

    /// As `read_after`, with what is known about the frame.
    #[pyo3(signature = (after, out=None, timeout=None))]
    fn read_after_publication<'py>(
        &self,
        py: Python<'py>,
        after: u64,
        out: Option<&Bound<'py, PyAny>>,
        timeout: Option<f64>,
    ) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        let (array, publication) = self.copy(py, Which::NewestAfter(after), out, timeout)?;
        Ok((array, report::publication(py, &publication)?))
    }

    /// The next frame in order that this handle has not seen.
    #[pyo3(signature = (timeout=None, out=None))]
    fn next<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<f64>,
        out: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.copy(py, Which::Next, out, timeout)?.0)
    }

    /// As `next`, with what is known about the frame.
    #[pyo3(signature = (timeout=None, out=None))]
    fn next_publication<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<f64>,
        out: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        let (array, publication) = self.copy(py, Which::Next, out, timeout)?;
        Ok((array, report::publication(py, &publication)?))
    }

    /// Waits until more than `after` frames were published; how many were.
    #[pyo3(signature = (after, timeout=None))]
    fn wait(&self, py: Python<'_>, after: u64, timeout: Option<f64>) -> PyResult<u64> {
        self.wait_above(py, after, timeout)
    }

    /// Goes on after the frame `count` with `next`.
    fn seek(&self, count: u64) -> PyResult<()> {
        self.live()?;
        self.position().last = count;
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
        let (array, publication) = self.leased(py, on_full, wait)?;
        Ok((array, report::publication(py, &publication)?))
    }

    /// The newest frame in place: as `lease`, the array alone.
    #[pyo3(signature = (on_full="copy", wait=None))]
    fn numpy<'py>(
        &self,
        py: Python<'py>,
        on_full: &str,
        wait: Option<f64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.leased(py, on_full, wait)?.0)
    }

    /// Whether a leased array is a private copy, because the ring had no slot to spare.
    #[staticmethod]
    fn lease_is_copy(array: &Bound<'_, PyAny>) -> PyResult<bool> {
        Ok(lending::lease_of(array)?.get().lease.is_copy())
    }

    /// Whether the slot under a leased array was taken away, so that it may hold another frame.
    #[staticmethod]
    fn lease_is_revoked(array: &Bound<'_, PyAny>) -> PyResult<bool> {
        Ok(lending::lease_of(array)?.get().lease.is_revoked())
    }
}

impl Handle {
    fn leased<'py>(
        &self,
        py: Python<'py>,
        on_full: &str,
        wait: Option<f64>,
    ) -> PyResult<(Bound<'py, PyAny>, Publication)> {
        let inner = self.readable()?;
        self.refuse_to_wait_for_myself(&inner, Patience::of(None)?)?;
        let on_full = match on_full {
            "copy" => OnFull::Copy,
            "revoke" => OnFull::Revoke,
            "wait" => OnFull::Wait(Patience::duration(wait)?),
            other => {
                return Err(PyValueError::new_err(format!(
                    "on_full must be 'copy', 'wait' or 'revoke', got '{other}'"
                )));
            }
        };
        let last = self.position().last;
        let lease = |wait: &Wait<'_>| {
            inner.with_reader(self.behaviour, last, |reader| reader.lease_with(on_full, wait))
        };
        // A slot may be waited for, and the private copy that replaces a lease may be large.
        let is_short =
            !matches!(on_full, OnFull::Wait(_)) && self.frames.bytes() < DETACH_BYTES_MIN;
        let tried = is_short
            .then(|| Patience::none().run_short(&self.name, &self.closed, lease))
            .filter(|tried| !tried.as_ref().is_err_and(|error| is_timeout(py, error)));
        let lease = if let Some(outcome) = tried {
            outcome?
        } else {
            let _waiting = self.waiting();
            Patience::of(None)?.run(py, &self.name, &self.closed, lease)?
        };
        let mut publication = *lease.publication();
        self.has_read(&mut publication);
        Ok((self.frames.lent(py, lease)?, publication))
    }
}

fn is_timeout(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PyTimeoutError>(py)
}
