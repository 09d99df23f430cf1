//! A call that was begun and is not waited for.

use pyo3::prelude::*;
use shared_tensor::service::Started;

/// A call that was begun.
#[pyclass(frozen, module = "shared_tensor._native")]
pub(crate) struct ServiceStarted {
    pub(super) started: Started,
}

#[pymethods]
impl ServiceStarted {
    /// Give it up; whether it was still under way.
    fn cancel(&self, py: Python<'_>) -> bool {
        py.detach(|| self.started.cancel())
    }
}
