//! A page-locked buffer to write from.

use std::sync::{Arc, PoisonError};

use pyo3::prelude::*;
use shared_tensor::stream::HostFrame;

use super::OnGpu;
use super::torch::Way;
use crate::errors;
use crate::sys::place::Place;

/// Memory of the host that devices read by themselves.
pub(super) struct Pinned {
    tensor: Py<PyAny>,
    frame: Arc<HostFrame>,
    address: usize,
}

impl OnGpu {
    /// A tensor of torch in page-locked memory of the host, for one frame: the same one each time. It stays
    /// valid memory after the handle is closed.
    pub(crate) fn pinned_buffer<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        if let Some(known) = &*self.pinned.lock().unwrap_or_else(PoisonError::into_inner) {
            return Ok(known.tensor.bind(py).clone());
        }
        let way = Way::needed(py)?;
        let frame = py.detach(|| self.writer()?.host_frame());
        let (place, frame) = Place::of_host_frame(frame.map_err(|error| errors::raised(&error))?);
        let tensor = way.tensor(py, &place, &self.kind)?.unbind();
        let made = Pinned { tensor, frame, address: place.address() };
        let mut pinned = self.pinned.lock().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have been quicker.
        Ok(pinned.get_or_insert(made).tensor.bind(py).clone())
    }

    /// The buffer, if these are its bytes.
    pub(super) fn pinned_frame(&self, bytes: &[u8]) -> Option<Arc<HostFrame>> {
        let pinned = self.pinned.lock().unwrap_or_else(PoisonError::into_inner);
        let known = pinned.as_ref()?;
        (known.address == bytes.as_ptr().addr() && bytes.len() == self.kind.bytes)
            .then(|| Arc::clone(&known.frame))
    }
}
