//! The call that a thread of a server is busy with, for the endpoint's own code.

use std::cell::RefCell;

use pyo3::prelude::*;
use shared_tensor::service::Call;

thread_local! {
    static CALLS: RefCell<Vec<Call>> = const { RefCell::new(Vec::new()) };
}

/// Runs `act` as the code of a call.
pub(super) fn within<R>(call: &Call, act: impl FnOnce() -> R) -> R {
    struct Done;
    impl Drop for Done {
        fn drop(&mut self) {
            CALLS.with_borrow_mut(|calls| drop(calls.pop()));
        }
    }
    CALLS.with_borrow_mut(|calls| calls.push(call.clone()));
    let _done = Done;
    act()
}

fn current() -> Option<Call> {
    CALLS.with_borrow(|calls| calls.last().cloned())
}

/// Tell those who wait for the call that this thread is busy with.
#[pyfunction]
pub(crate) fn service_progress(py: Python<'_>, done: u64, total: u64, note: String) {
    if let Some(call) = current() {
        py.detach(|| call.progress(done, total, note));
    }
}

/// Whether the result of the call that this thread is busy with is not wanted any more.
#[pyfunction]
pub(crate) fn service_cancelled(py: Python<'_>) -> bool {
    current().is_some_and(|call| py.detach(|| call.cancelled()))
}
