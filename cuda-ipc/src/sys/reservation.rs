//! Address ranges, and what is mapped there.

use std::ffi::c_int;

use cudarc::driver::sys::{CUmemAccess_flags, CUmemAccessDesc, CUmemLocation, CUmemLocationType};

use super::context::Relaxed;
use super::fork::Generation;
use super::memory::Allocation;
use super::table::table;
use crate::error::{Absent, DriverError};

/// A range of addresses with allocations mapped one behind the other.
#[derive(Debug)]
pub(crate) struct Reservation {
    base: u64,
    bytes: usize,
    mapped: usize,
    /// What is mapped, from the lowest address on.
    allocations: Vec<Allocation>,
    made: Generation,
}

impl Reservation {
    pub(crate) fn new(bytes: usize) -> Result<Self, DriverError> {
        let table = table()?;
        let function = table.address_reserve.get()?;
        let made = Generation::watch().map_err(Absent::Fork)?;
        let _relaxed = Relaxed::begin();
        let mut base = 0;
        // SAFETY: D1, D3.
        let code = unsafe { function(&raw mut base, bytes, 0, 0, 0) };
        table.address_reserve.done(code)?;
        Ok(Self { base, bytes, mapped: 0, allocations: Vec::new(), made })
    }

    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Maps the whole of `allocation`, of `bytes`, behind what is mapped already.
    pub(crate) fn map(&mut self, allocation: Allocation, bytes: usize) -> Result<(), DriverError> {
        assert!(bytes <= self.bytes - self.mapped, "reserved for what is mapped");
        let table = table()?;
        let function = table.memory_map.get()?;
        let _relaxed = Relaxed::begin();
        let address = self.base + self.mapped as u64;
        // SAFETY: D1, D5, D6.
        let code = unsafe { function(address, bytes, 0, allocation.raw, 0) };
        table.memory_map.done(code)?;
        self.mapped += bytes;
        self.allocations.push(allocation);
        Ok(())
    }

    /// Lets a device at what is mapped, all of it in one step.
    pub(crate) fn allow(&self, ordinal: c_int, is_writable: bool) -> Result<(), DriverError> {
        let table = table()?;
        let function = table.memory_access.get()?;
        let _relaxed = Relaxed::begin();
        let access = CUmemAccessDesc {
            location: CUmemLocation {
                type_: CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE,
                id: ordinal,
            },
            flags: if is_writable {
                CUmemAccess_flags::CU_MEM_ACCESS_FLAGS_PROT_READWRITE
            } else {
                CUmemAccess_flags::CU_MEM_ACCESS_FLAGS_PROT_READ
            },
        };
        // SAFETY: D1, D3, D6.
        let code = unsafe { function(self.base, self.mapped, &raw const access, 1) };
        table.memory_access.done(code)?;
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.made.is_current() {
            return;
        }
        let Ok(table) = table() else { return };
        let _relaxed = Relaxed::begin();
        if self.mapped > 0
            && let Ok(function) = table.memory_unmap.get()
        {
            // SAFETY: D1, D6.
            unsafe { function(self.base, self.mapped) };
        }
        if let Ok(function) = table.address_free.get() {
            // SAFETY: D1, D6.
            unsafe { function(self.base, self.bytes) };
        }
    }
}
