//! What lies at an address that somebody else made.

use std::ffi::c_void;

use cudarc::driver::sys::CUpointer_attribute;

use super::table::table;
use crate::error::DriverError;

/// What the driver knows of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pointer {
    pub(crate) kind: Kind,
    pub(crate) ordinal: i32,
}

/// Who made what lies at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Host,
    Managed,
    /// From `cudaMalloc`.
    Allocated,
    /// From a memory pool.
    Pooled,
    /// Mapped by the functions of virtual memory.
    Mapped,
}

const DEVICE: u32 = 2;

fn attribute<T: Default>(address: u64, attribute: CUpointer_attribute) -> Result<T, DriverError> {
    let table = table()?;
    let function = table.pointer_attribute.get()?;
    let mut value = T::default();
    // SAFETY: D1, D3, each caller asks for the type of its attribute; D6.
    let code = unsafe { function((&raw mut value).cast::<c_void>(), attribute as u32, address) };
    table.pointer_attribute.done(code)?;
    Ok(value)
}

/// `None`: the driver does not know the address.
pub(crate) fn pointer(address: u64) -> Result<Option<Pointer>, DriverError> {
    use CUpointer_attribute as Attribute;
    const INVALID_VALUE: u32 = 1;
    let kind = attribute::<u32>(address, Attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE);
    let kind = match kind {
        Ok(kind) => kind,
        Err(DriverError::Call(error)) if error.code() == INVALID_VALUE => return Ok(None),
        Err(error) => return Err(error),
    };
    // Flags are one byte wide; the rest stays 0.
    let flag = |which| Ok::<_, DriverError>(attribute::<u32>(address, which)? != 0);
    let kind = if flag(Attribute::CU_POINTER_ATTRIBUTE_IS_MANAGED)? {
        Kind::Managed
    } else if kind != DEVICE {
        Kind::Host
    } else if flag(Attribute::CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE)? {
        Kind::Allocated
    } else if attribute::<usize>(address, Attribute::CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE)? != 0 {
        Kind::Pooled
    } else {
        Kind::Mapped
    };
    let ordinal = attribute::<i32>(address, Attribute::CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL)?;
    Ok(Some(Pointer { kind, ordinal }))
}

/// Where the allocation, or the mapping of one, that holds an address begins, and its bytes.
pub(crate) fn address_range(address: u64) -> Result<(u64, usize), DriverError> {
    let table = table()?;
    let function = table.address_range.get()?;
    let (mut base, mut bytes) = (0, 0);
    // SAFETY: D1, D3, D6.
    let code = unsafe { function(&raw mut base, &raw mut bytes, address) };
    table.address_range.done(code)?;
    Ok((base, bytes))
}
