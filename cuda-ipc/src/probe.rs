//! Whether there is a driver, and what it can do.

use std::fmt;

use crate::device::Device;
use crate::error::{DeviceError, DriverError};
use crate::sys;
use crate::uuid::Uuid;

/// Looks for the driver, and starts it. Makes no context and takes no memory on any device.
///
/// The answer does not change while a process lives.
///
/// # Errors
///
/// [`DriverError::Absent`] with the reason, where there is none; [`DriverError::Forked`] in a process
/// whose parent had it already.
pub fn probe() -> Result<Driver, DriverError> {
    let version = sys::version()?;
    Ok(Driver { version: Version(version) })
}

/// Whether this crate has started the driver in this process already. Starts nothing.
pub fn is_loaded() -> bool {
    sys::was_loaded()
}

/// Every function that this crate may call, with the number of calls made so far in this process; none
/// before the driver was started. Starts nothing, and also answers in a forked child, which begins with
/// its parent's numbers.
///
/// Counting is one relaxed addition beside each call.
pub fn driver_calls() -> Vec<Function> {
    let entries = sys::entries().into_iter();
    entries.map(|(symbol, is_there, calls)| Function { symbol, is_there, calls }).collect()
}

/// A version of CUDA, as the driver supports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(i32);

impl Version {
    /// The first number.
    pub fn major(self) -> u32 {
        u32::try_from(self.0 / 1000).unwrap_or(0)
    }

    /// The second number.
    pub fn minor(self) -> u32 {
        u32::try_from(self.0 % 1000 / 10).unwrap_or(0)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major(), self.minor())
    }
}

/// The driver of this host, started.
#[derive(Clone, Copy, Debug)]
pub struct Driver {
    version: Version,
}

/// A function of the driver that this crate may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Function {
    /// Its name, with the suffix of the version that is meant.
    pub symbol: &'static str,
    /// Whether this driver has it.
    pub is_there: bool,
    /// How often it was called through this crate, in this process.
    pub calls: u64,
}

impl Driver {
    /// The newest CUDA that it supports.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The devices that this process sees, in its own order.
    pub fn devices(&self) -> Result<Vec<Device>, DriverError> {
        (0..sys::device_count()?).map(Device::at).collect()
    }

    /// The device with an identity.
    pub fn device(&self, uuid: Uuid) -> Result<Device, DeviceError> {
        let devices = self.devices()?;
        let count = devices.len();
        let found = devices.into_iter().find(|device| device.uuid() == uuid);
        found.ok_or(DeviceError::Unknown { uuid, count })
    }

    /// The device with a number of this process, from 0.
    pub fn device_at(&self, ordinal: usize) -> Result<Device, DeviceError> {
        let count = sys::device_count()?;
        if ordinal >= count {
            return Err(DeviceError::Ordinal { ordinal, count });
        }
        Ok(Device::at(ordinal)?)
    }

    /// Every function that this crate may call, with the number of calls made so far.
    pub fn functions(&self) -> Result<Vec<Function>, DriverError> {
        sys::table()?;
        Ok(driver_calls())
    }
}
