//! Events: moments in streams.

use std::ffi::c_uint;
use std::ptr;

use cudarc::driver::sys::CUevent;

use super::fork::Generation;
use super::stream::Stream;
use super::table::table;
use crate::error::{Absent, DriverError, NOT_READY};

/// A moment in a stream.
#[derive(Debug)]
pub(crate) struct Event {
    pub(super) raw: CUevent,
    made: Generation,
}

// SAFETY: D5, and events may be used from any thread.
unsafe impl Send for Event {}
// SAFETY: as for `Send`.
unsafe impl Sync for Event {}

impl Event {
    /// One of the current context, that nothing is timed by.
    pub(crate) fn create() -> Result<Self, DriverError> {
        const WITHOUT_TIMING: c_uint = 2;
        let table = table()?;
        let function = table.event_create.get()?;
        let made = Generation::watch().map_err(Absent::Fork)?;
        let mut raw = ptr::null_mut();
        // SAFETY: D1, D3.
        let code = unsafe { function(&raw mut raw, WITHOUT_TIMING) };
        table.event_create.done(code)?;
        Ok(Self { raw, made })
    }

    /// Means from now on what is queued in `stream` at this moment.
    pub(crate) fn record(&self, stream: &Stream) -> Result<(), DriverError> {
        let table = table()?;
        let function = table.event_record.get()?;
        // SAFETY: D1, D5.
        let code = unsafe { function(self.raw, stream.raw) };
        Ok(table.event_record.done(code)?)
    }

    /// Whether it has come.
    pub(crate) fn has_come(&self) -> Result<bool, DriverError> {
        let table = table()?;
        let function = table.event_query.get()?;
        // SAFETY: D1, D5.
        let code = unsafe { function(self.raw) };
        if code == NOT_READY {
            return Ok(false);
        }
        table.event_query.done(code)?;
        Ok(true)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if !self.made.is_current() {
            return;
        }
        let Ok(table) = table() else { return };
        let Ok(function) = table.event_destroy.get() else { return };
        // SAFETY: D1, D5.
        unsafe { function(self.raw) };
    }
}
