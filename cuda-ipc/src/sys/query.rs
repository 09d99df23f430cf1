//! Questions about devices, none of which needs or makes a context.

use std::ffi::{CStr, c_char, c_int};
use std::mem::MaybeUninit;

use cudarc::driver::sys::CUuuid;

use super::table::table;
use crate::error::DriverError;

pub(crate) fn device_count() -> Result<usize, DriverError> {
    let table = table()?;
    let function = table.device_count.get()?;
    let mut count = 0;
    // SAFETY: D1, D3.
    let code = unsafe { function(&raw mut count) };
    table.device_count.done(code)?;
    Ok(usize::try_from(count).unwrap_or(0))
}

pub(crate) fn device_name(ordinal: c_int) -> Result<String, DriverError> {
    let table = table()?;
    let function = table.device_name.get()?;
    let mut name = [0 as c_char; 256];
    let room = c_int::try_from(name.len() - 1).unwrap_or(0);
    // SAFETY: D1, D3; the last byte stays zero.
    let code = unsafe { function(name.as_mut_ptr(), room, ordinal) };
    table.device_name.done(code)?;
    // SAFETY: ended by a zero within the array.
    Ok(unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned())
}

pub(crate) fn device_uuid(ordinal: c_int) -> Result<[u8; 16], DriverError> {
    let table = table()?;
    let newer = table.device_uuid.is_there();
    let entry = if newer { &table.device_uuid } else { &table.device_uuid_before_11_4 };
    let function = entry.get()?;
    let mut uuid = MaybeUninit::<CUuuid>::zeroed();
    // SAFETY: D1, D3.
    let code = unsafe { function(uuid.as_mut_ptr(), ordinal) };
    entry.done(code)?;
    // SAFETY: zeroed and filled in; sixteen bytes of any value.
    let uuid = unsafe { uuid.assume_init() };
    Ok(uuid.bytes.map(c_char::cast_unsigned))
}

pub(crate) fn device_memory(ordinal: c_int) -> Result<u64, DriverError> {
    let table = table()?;
    let function = table.device_memory.get()?;
    let mut bytes = 0;
    // SAFETY: D1, D3.
    let code = unsafe { function(&raw mut bytes, ordinal) };
    table.device_memory.done(code)?;
    Ok(bytes as u64)
}

/// An attribute by its number; an attribute that the driver does not know is 0.
pub(crate) fn attribute(ordinal: c_int, attribute: u32) -> Result<i32, DriverError> {
    const INVALID_VALUE: u32 = 1;
    let table = table()?;
    let function = table.device_attribute.get()?;
    let mut value = 0;
    // SAFETY: D1, D3.
    let code = unsafe { function(&raw mut value, attribute, ordinal) };
    if code == INVALID_VALUE {
        return Ok(0);
    }
    table.device_attribute.done(code)?;
    Ok(value)
}

pub(crate) fn can_access_peer(ordinal: c_int, peer: c_int) -> Result<bool, DriverError> {
    let table = table()?;
    let function = table.device_can_access_peer.get()?;
    let mut answer = 0;
    // SAFETY: D1, D3.
    let code = unsafe { function(&raw mut answer, ordinal, peer) };
    table.device_can_access_peer.done(code)?;
    Ok(answer != 0)
}

/// Whether this process has a primary context on the device already.
pub(crate) fn has_primary_context(ordinal: c_int) -> Result<bool, DriverError> {
    let table = table()?;
    let function = table.primary_context_state.get()?;
    let (mut flags, mut active) = (0, 0);
    // SAFETY: D1, D3.
    let code = unsafe { function(ordinal, &raw mut flags, &raw mut active) };
    table.primary_context_state.done(code)?;
    Ok(active != 0)
}
