//! The handles of CUDA 4: 64 bytes that name another process's `cudaMalloc`.

use std::ffi::{c_char, c_uint};
use std::mem::MaybeUninit;

use cudarc::driver::sys::CUipcMemHandle;

use super::context::Relaxed;
use super::fork::Generation;
use super::table::table;
use crate::error::{Absent, DriverError};

/// The handle of the allocation that holds an address.
pub(crate) fn legacy_handle(address: u64) -> Result<[u8; 64], DriverError> {
    let table = table()?;
    let function = table.ipc_handle.get()?;
    let mut handle = MaybeUninit::<CUipcMemHandle>::zeroed();
    // SAFETY: D1, D3, D6.
    let code = unsafe { function(handle.as_mut_ptr(), address) };
    table.ipc_handle.done(code)?;
    // SAFETY: zeroed and filled in; bytes of any value.
    let handle = unsafe { handle.assume_init() };
    Ok(handle.reserved.map(c_char::cast_unsigned))
}

/// Another process's allocation, opened in the context that was current.
#[derive(Debug)]
pub(crate) struct LegacyMapping {
    address: u64,
    made: Generation,
}

impl LegacyMapping {
    pub(crate) fn open(handle: &[u8; 64]) -> Result<Self, DriverError> {
        const LAZY_PEER_ACCESS: c_uint = 1;
        let table = table()?;
        let function = table.ipc_open.get()?;
        let made = Generation::watch().map_err(Absent::Fork)?;
        let handle = CUipcMemHandle { reserved: handle.map(u8::cast_signed) };
        let mut address = 0;
        // SAFETY: D1, D3; a handle that is none is refused.
        let code = unsafe { function(&raw mut address, handle, LAZY_PEER_ACCESS) };
        table.ipc_open.done(code)?;
        Ok(Self { address, made })
    }

    pub(crate) fn address(&self) -> u64 {
        self.address
    }
}

impl Drop for LegacyMapping {
    fn drop(&mut self) {
        if !self.made.is_current() {
            return;
        }
        let Ok(table) = table() else { return };
        let Ok(function) = table.ipc_close.get() else { return };
        let _relaxed = Relaxed::begin();
        // SAFETY: D1, D6.
        unsafe { function(self.address) };
    }
}
