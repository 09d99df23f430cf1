//! Memory on a device that this process alone can have.

use super::context::Relaxed;
use super::fork::Generation;
use super::table::table;
use crate::error::{Absent, DriverError};

/// An allocation of the context that was current. It is freed in the same one.
#[derive(Debug)]
pub(crate) struct Linear {
    address: u64,
    made: Generation,
}

impl Linear {
    /// Its content is undefined. May wait for the device.
    pub(crate) fn allocate(bytes: usize) -> Result<Self, DriverError> {
        let table = table()?;
        let function = table.memory_allocate.get()?;
        let made = Generation::watch().map_err(Absent::Fork)?;
        let _relaxed = Relaxed::begin();
        let mut address = 0;
        // SAFETY: D1, D3.
        let code = unsafe { function(&raw mut address, bytes) };
        table.memory_allocate.done(code)?;
        Ok(Self { address, made })
    }

    pub(crate) fn address(&self) -> u64 {
        self.address
    }
}

impl Drop for Linear {
    fn drop(&mut self) {
        if !self.made.is_current() {
            return;
        }
        let Ok(table) = table() else { return };
        let Ok(function) = table.memory_free.get() else { return };
        let _relaxed = Relaxed::begin();
        // SAFETY: D1, D5, D6.
        unsafe { function(self.address) };
    }
}
