//! Physical memory on a device, as the driver's handles and as descriptors.

use std::ffi::{c_int, c_uint, c_ulonglong};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use cudarc::driver::sys::{
    CUmemAllocationHandleType, CUmemAllocationProp, CUmemAllocationProp_st__bindgen_ty_1,
    CUmemAllocationType, CUmemLocation, CUmemLocationType,
};
use rustix::io::FdFlags;

use super::context::Relaxed;
use super::fork::Generation;
use super::table::{RawProperties, table};
use crate::error::{Absent, DriverError};

/// The handle type of file descriptors.
const DESCRIPTOR: c_uint = 1;

fn properties(ordinal: c_int) -> CUmemAllocationProp {
    CUmemAllocationProp {
        type_: CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED,
        requestedHandleTypes: CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
        location: CUmemLocation {
            type_: CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE,
            id: ordinal,
        },
        win32HandleMetaData: ptr::null_mut(),
        allocFlags: CUmemAllocationProp_st__bindgen_ty_1 {
            compressionType: 0,
            gpuDirectRDMACapable: 0,
            usage: 0,
            reserved: [0; 4],
        },
    }
}

/// What sizes and addresses of memory on a device are multiples of.
pub(crate) fn granularity(ordinal: c_int) -> Result<usize, DriverError> {
    const MINIMUM: c_uint = 0;
    let table = table()?;
    let function = table.memory_granularity.get()?;
    let properties = properties(ordinal);
    let mut bytes = 0;
    // SAFETY: D1, D3.
    let code = unsafe { function(&raw mut bytes, &raw const properties, MINIMUM) };
    table.memory_granularity.done(code)?;
    Ok(bytes)
}

/// A reference to memory on a device: while one is left, here or in a descriptor or mapping of any
/// process, the memory is.
#[derive(Debug)]
pub(crate) struct Allocation {
    pub(super) raw: c_ulonglong,
    made: Generation,
}

impl Allocation {
    fn own(raw: c_ulonglong) -> Result<Self, DriverError> {
        Ok(Self { raw, made: Generation::watch().map_err(Absent::Fork)? })
    }

    /// New memory, its content undefined; `bytes` is a multiple of the granularity.
    pub(crate) fn create(ordinal: c_int, bytes: usize) -> Result<Self, DriverError> {
        let table = table()?;
        let function = table.memory_create.get()?;
        let _relaxed = Relaxed::begin();
        let properties = properties(ordinal);
        let mut raw = 0;
        // SAFETY: D1, D3.
        let code = unsafe { function(&raw mut raw, bytes, &raw const properties, 0) };
        table.memory_create.done(code)?;
        Self::own(raw)
    }

    /// What a descriptor refers to. The descriptor may be closed afterwards.
    pub(crate) fn import(descriptor: BorrowedFd<'_>) -> Result<Self, DriverError> {
        let table = table()?;
        let function = table.memory_import.get()?;
        let _relaxed = Relaxed::begin();
        let mut raw = 0;
        // The driver takes the number in place of a pointer.
        let number = ptr::without_provenance_mut(descriptor.as_raw_fd().cast_unsigned() as usize);
        // SAFETY: D1, D3; the descriptor is open, and one of other files is refused.
        let code = unsafe { function(&raw mut raw, number, DESCRIPTOR) };
        table.memory_import.done(code)?;
        Self::own(raw)
    }

    /// What is mapped at an address, by whomever in this process.
    pub(crate) fn retain(address: u64) -> Result<Self, DriverError> {
        let table = table()?;
        let function = table.memory_retain.get()?;
        let _relaxed = Relaxed::begin();
        let mut raw = 0;
        // SAFETY: D1, D3, D6.
        let code = unsafe { function(&raw mut raw, ptr::without_provenance_mut(address as usize)) };
        table.memory_retain.done(code)?;
        Self::own(raw)
    }

    /// A descriptor that is a reference of its own, closed on exec.
    pub(crate) fn export(&self) -> Result<OwnedFd, DriverError> {
        let table = table()?;
        let function = table.memory_export.get()?;
        let _relaxed = Relaxed::begin();
        let mut number: RawFd = -1;
        // SAFETY: D1, D3, D5.
        let code = unsafe { function((&raw mut number).cast(), self.raw, DESCRIPTOR, 0) };
        table.memory_export.done(code)?;
        // SAFETY: the driver made it for this call alone.
        let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
        // On an open descriptor this does not fail.
        let _ = rustix::io::fcntl_setfd(&descriptor, FdFlags::CLOEXEC);
        Ok(descriptor)
    }

    /// Whether it was made to be exported as a descriptor, and the ordinal of the device where it
    /// lies, as this process counts: `None` for a device that it does not see.
    pub(crate) fn origin(&self) -> Result<(bool, Option<c_int>), DriverError> {
        const DEVICE: c_uint = 1;
        let table = table()?;
        let function = table.memory_properties.get()?;
        let mut raw = RawProperties::default();
        // SAFETY: D1, D3, D5.
        let code = unsafe { function(&raw mut raw, self.raw) };
        table.memory_properties.done(code)?;
        let ordinal =
            (raw.location_kind == DEVICE && raw.location_id >= 0).then_some(raw.location_id);
        Ok((raw.handle_types & DESCRIPTOR != 0, ordinal))
    }
}

impl PartialEq for Allocation {
    /// Whether both are the same memory: a driver gives what is retained the handle that it was mapped
    /// by, and one that is kept is nobody else's.
    fn eq(&self, other: &Self) -> bool {
        self.raw == other.raw
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        if !self.made.is_current() {
            return;
        }
        let Ok(table) = table() else { return };
        let Ok(function) = table.memory_release.get() else { return };
        let _relaxed = Relaxed::begin();
        // SAFETY: D1, D5.
        unsafe { function(self.raw) };
    }
}
