//! The end of a handle, and of its stream's name.

use std::sync::atomic::Ordering;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use shared_tensor::ErrorKind;
use shared_tensor::stream::OpenOptions;

use super::Handle;
use crate::errors::{self, StaleStreamError};
use crate::patience::Patience;
use crate::watcher;

impl Drop for Handle {
    fn drop(&mut self) {
        // What was acquired through this handle by another thread ends with that thread.
        let _ = self.ownership.release_all_through(self.id);
    }
}

#[pymethods]
impl Handle {
    /// Close the handle, not the stream: others go on, and it can be opened again by name.
    ///
    /// Waits of other threads on this handle end with RuntimeError. What this thread acquired through it
    /// is released, and a frame that it is writing is given up. Arrays that it gave out stay valid. Closing
    /// twice does nothing.
    ///
    /// Parameters
    /// ----------
    /// timeout : float, optional
    ///     Seconds to wait for the calls of other threads to end, 5.0. None waits for ever.
    ///
    /// Raises
    /// ------
    /// RuntimeError
    ///     Another thread owns the lock through this handle, or a call did not end in time: the handle
    ///     stays open.
    #[pyo3(signature = (timeout=Some(5.0)), text_signature = "($self, timeout=5.0)")]
    fn close(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        let patience = Patience::of(timeout)?;
        if self.open.load().is_none() {
            return Ok(());
        }
        if self.ownership.is_anothers_through(self.id) {
            return Err(self.owned_elsewhere());
        }
        self.closed.store(true, Ordering::Release);
        watcher::ring_all();
        let ended = py.detach(|| self.await_waits(patience)).and_then(|ended| {
            ended.ok_or_else(|| {
                PyRuntimeError::new_err(format!(
                    "cannot close stream '{}': a read is still waiting after {} s",
                    self.name,
                    timeout.unwrap_or_default()
                ))
            })
        });
        // Dropping the tenure gives up a frame and wakes, which is quick; no lock is waited for. Last,
        // as a handle that stays open keeps what it holds.
        let released = ended.and_then(|()| {
            self.ownership.release_all_through(self.id).map_err(|_| self.owned_elsewhere())
        });
        if let Err(error) = released {
            // Unless another call has closed it meanwhile.
            self.closed.store(self.is_closed(), Ordering::Release);
            return Err(error);
        }
        let inner = {
            // Nobody goes on with a successor after this.
            let _position = self.position();
            self.open.swap(None)
        };
        // Unmapping is not always quick.
        py.detach(|| drop(inner));
        Ok(())
    }

    /// Removes the stream's name, if it still leads to this generation. False if it was gone.
    fn unlink(&self, py: Python<'_>) -> PyResult<bool> {
        self.refuse_if_readonly("unlink")?;
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
    #[cold]
    fn owned_elsewhere(&self) -> PyErr {
        PyRuntimeError::new_err(format!(
            "cannot close stream '{}': another thread owns its lock through this handle; release it \
             there first",
            self.name
        ))
    }

    /// After closing: by name, if it still means this stream; `None` if it means another one.
    fn unlink_by_name(&self) -> shared_tensor::Result<Option<bool>> {
        match OpenOptions::new().namespace(self.namespace.clone()).open(&self.name) {
            Ok(stream) if stream.generation() == self.origin.load().generation => {
                stream.unlink().map(Some)
            }
            Ok(_) => Ok(None),
            Err(error) if error.is_not_found() => Ok(Some(false)),
            Err(error) => Err(error),
        }
    }
}
