//! Writes and waits of streams, one and many.

use std::ffi::c_uint;

use cudarc::driver::sys::CUstreamBatchMemOpParams;

use super::stream::Stream;
use super::table::table;
use crate::error::DriverError;

/// A write or a wait, as the driver takes many of them: `CUstreamBatchMemOpParams`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct WordCall {
    kind: c_uint,
    address: u64,
    value: u64,
    flags: c_uint,
    alias: u64,
    rest: u64,
}

const _: () = assert!(size_of::<WordCall>() == size_of::<CUstreamBatchMemOpParams>());

const WAIT: c_uint = 4;
const WRITE: c_uint = 5;
/// Of a wait: for the value or a later one. Of a write: with what was written before it.
const AT_LEAST_AND_ORDERED: c_uint = 0;
/// How many the driver takes at once: fewer than 256.
const AT_ONCE: usize = 255;

impl WordCall {
    fn new(kind: c_uint, address: u64, value: u64) -> Self {
        Self { kind, address, value, flags: AT_LEAST_AND_ORDERED, alias: 0, rest: 0 }
    }

    /// Until a word that the device can reach is `value` or later, by signed distance.
    pub(crate) fn wait(address: u64, value: u64) -> Self {
        Self::new(WAIT, address, value)
    }

    /// Of a word that the device can reach.
    pub(crate) fn write(address: u64, value: u64) -> Self {
        Self::new(WRITE, address, value)
    }
}

impl Stream {
    /// Queues one.
    pub(crate) fn word(&self, call: &WordCall) -> Result<(), DriverError> {
        let table = table()?;
        let entry = if call.kind == WAIT { &table.stream_wait } else { &table.stream_write };
        let function = entry.get()?;
        // SAFETY: D1, D5, D7.
        let code = unsafe { function(self.raw, call.address, call.value, call.flags) };
        Ok(entry.done(code)?)
    }

    /// Queues many, in their order.
    pub(crate) fn words(&self, calls: &[WordCall]) -> Result<(), DriverError> {
        let table = table()?;
        if !table.stream_words.is_there() {
            return calls.iter().try_for_each(|call| self.word(call));
        }
        for calls in calls.chunks(AT_ONCE) {
            let function = table.stream_words.get()?;
            let count = calls.len() as c_uint;
            // SAFETY: D1, D3, D5, D7; the driver reads them, though its type does not say so.
            let code = unsafe { function(self.raw, count, calls.as_ptr().cast_mut().cast(), 0) };
            table.stream_words.done(code)?;
        }
        Ok(())
    }
}
