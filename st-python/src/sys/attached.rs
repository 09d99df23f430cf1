//! Letting go of Python objects in code that others call when they please.

use pyo3::ffi;
use pyo3::prelude::*;

/// Lets go of an object now, on a thread that may or may not have the interpreter.
///
/// Torch frees storages without the interpreter, also on threads where Rust code further up the stack
/// has it; `Python::try_attach` believes that code. After the interpreter's end nothing is done.
pub(crate) fn drop_now(object: Py<PyAny>) {
    let mut object = Some(object);
    // SAFETY: may be asked at any time.
    if unsafe { ffi::Py_IsInitialized() } != 0 {
        // SAFETY: there is an interpreter; it is taken, or found to be this thread's already (S5).
        let state = unsafe { ffi::PyGILState_Ensure() };
        Python::try_attach(|_| drop(object.take()));
        // SAFETY: what was taken above, on the same thread.
        unsafe { ffi::PyGILState_Release(state) };
    }
    // There is nothing to give it back to.
    std::mem::forget(object);
}
