//! In which stream of CUDA something is queued.

use std::fmt::Display;
use std::sync::Arc;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use shared_tensor::service::cuda::{Copies, Stream as Queue};

use super::OnGpu;

/// The error of a driver.
#[cold]
pub(super) fn failed(error: &impl Display) -> PyErr {
    PyRuntimeError::new_err(error.to_string())
}

impl OnGpu {
    /// A stream of this handle's own, for which other libraries are asked to have their memory ready.
    pub(super) fn own_queue(&self) -> PyResult<Arc<Queue>> {
        if let Some(own) = self.own.get() {
            return Ok(Arc::clone(own));
        }
        let fresh = self.context.stream().map_err(|error| failed(&error))?;
        Ok(Arc::clone(self.own.get_or_init(|| Arc::new(fresh))))
    }

    /// One that others are made to wait for.
    pub(super) fn beside(&self) -> PyResult<&Arc<Copies>> {
        if let Some(beside) = self.beside.get() {
            return Ok(beside);
        }
        let fresh = Copies::new(&self.context).map_err(|error| failed(&error))?;
        Ok(self.beside.get_or_init(|| Arc::new(fresh)))
    }

    /// Waits on the host until everything is done that is queued in a stream.
    pub(super) fn synchronize(&self, py: Python<'_>, queue: &Queue) -> PyResult<()> {
        py.detach(|| self.context.synchronize(queue)).map_err(|error| failed(&error))
    }
}
