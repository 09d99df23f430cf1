//! The driver's own functions, for what the tests need beside the crate.

use std::ffi::{c_int, c_uint, c_void};

use cuda_ipc::Context;
use libloading::os::unix::Library;

pub(crate) type Handle = *mut c_void;

/// A function of the driver that the crate does not use.
pub(crate) fn function<F: Copy>(symbol: &str) -> F {
    // SAFETY: the driver is loaded already.
    let library = unsafe { Library::new("libcuda.so.1") }.expect("the driver is there");
    // SAFETY: each caller gives the type of the driver's documentation.
    *unsafe { library.get::<F>(symbol.as_bytes()) }.expect("the driver has it")
}

/// Runs `act` with the device's primary context current.
pub(crate) fn entered<T>(context: &Context, act: impl FnOnce() -> T) -> T {
    type Retain = unsafe extern "C" fn(*mut Handle, c_int) -> c_uint;
    let retain = function::<Retain>("cuDevicePrimaryCtxRetain");
    let release = function::<unsafe extern "C" fn(c_int) -> c_uint>("cuDevicePrimaryCtxRelease_v2");
    let push = function::<unsafe extern "C" fn(Handle) -> c_uint>("cuCtxPushCurrent_v2");
    let pop = function::<unsafe extern "C" fn(*mut Handle) -> c_uint>("cuCtxPopCurrent_v2");
    let ordinal = c_int::try_from(context.device().ordinal()).expect("few devices");
    let mut raw: Handle = std::ptr::null_mut();
    // SAFETY: the variable is written to.
    assert_eq!(unsafe { retain(&raw mut raw, ordinal) }, 0);
    // SAFETY: it was retained.
    assert_eq!(unsafe { push(raw) }, 0);
    let outcome = act();
    // SAFETY: the variable is written to.
    assert_eq!(unsafe { pop(&raw mut raw) }, 0);
    // SAFETY: it was retained.
    assert_eq!(unsafe { release(ordinal) }, 0);
    outcome
}
