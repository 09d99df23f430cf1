//! What keeps memory alive under tensors.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use pyo3::prelude::*;

use crate::sys;

/// A share in whatever must live as long as a tensor: a mapping, a lease, a Python object.
#[derive(Clone)]
pub(crate) struct Keep {
    _owner: Arc<dyn Any + Send + Sync>,
}

impl Keep {
    /// The first share of `owner`, which is dropped on whatever thread drops the last.
    pub(crate) fn new(owner: impl Any + Send + Sync) -> Self {
        Self { _owner: Arc::new(owner) }
    }

    /// Keeps a Python object. The last tensor lets go of it at once, not when somebody next calls us.
    pub(crate) fn object(object: Py<PyAny>) -> Self {
        Self::new(Kept(Some(object)))
    }
}

impl fmt::Debug for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keep").finish_non_exhaustive()
    }
}

struct Kept(Option<Py<PyAny>>);

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(object) = self.0.take() {
            sys::drop_now(object);
        }
    }
}
