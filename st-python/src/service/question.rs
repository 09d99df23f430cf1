//! Questions that a thread waits for, given up by another one.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::prelude::*;
use pyo3::types::PyTuple;

thread_local! {
    static CURRENT: RefCell<Option<Arc<AtomicBool>>> = const { RefCell::new(None) };
}

/// What one thread asks of a server, so that another can give it up.
#[pyclass(frozen, module = "shared_tensor._native")]
pub(crate) struct ServiceQuestion {
    is_given_up: Arc<AtomicBool>,
}

#[pymethods]
impl ServiceQuestion {
    #[new]
    fn new() -> Self {
        Self { is_given_up: Arc::default() }
    }

    /// Call a function: what it waits for, of a server, ends once this is given up.
    #[pyo3(signature = (function, *arguments))]
    fn ask<'py>(
        &self,
        function: &Bound<'py, PyAny>,
        arguments: &Bound<'py, PyTuple>,
    ) -> PyResult<Bound<'py, PyAny>> {
        struct Done;
        impl Drop for Done {
            fn drop(&mut self) {
                CURRENT.set(None);
            }
        }
        CURRENT.set(Some(Arc::clone(&self.is_given_up)));
        let _done = Done;
        function.call1(arguments)
    }

    /// Let whoever asks go on, with an error.
    fn give_up(&self) {
        self.is_given_up.store(true, Ordering::Release);
    }
}

/// Whether what this thread asks was given up; to be asked on any thread.
pub(super) fn is_given_up() -> impl Fn() -> bool + Sync {
    let current = CURRENT.with_borrow(Clone::clone);
    move || current.as_ref().is_some_and(|it| it.load(Ordering::Acquire))
}
