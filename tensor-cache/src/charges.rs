//! How many bytes a value takes, and where.

use crate::Device;

/// Bytes per device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Charges(Vec<(Device, u64)>);

impl Charges {
    /// Nothing that a budget counts.
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// `bytes` on `device`.
    pub fn on(device: Device, bytes: u64) -> Self {
        Self::none().and(device, bytes)
    }

    /// The same and `bytes` on `device`. A sum beyond `u64` stays at the largest number, for which
    /// no budget has room.
    #[must_use]
    pub fn and(mut self, device: Device, bytes: u64) -> Self {
        match self.0.iter_mut().find(|(known, _)| *known == device) {
            Some((_, sum)) => *sum = sum.saturating_add(bytes),
            None if bytes > 0 => self.0.push((device, bytes)),
            None => {}
        }
        self
    }

    /// The bytes on `device`.
    pub fn bytes_on(&self, device: Device) -> u64 {
        self.iter().find(|(known, _)| *known == device).map_or(0, |(_, bytes)| bytes)
    }

    /// The devices that have any, with their bytes.
    pub fn iter(&self) -> impl Iterator<Item = (Device, u64)> + '_ {
        self.0.iter().copied()
    }
}

impl FromIterator<(Device, u64)> for Charges {
    fn from_iter<I: IntoIterator<Item = (Device, u64)>>(charges: I) -> Self {
        let add = |sum: Self, (device, bytes)| sum.and(device, bytes);
        charges.into_iter().fold(Self::none(), add)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_named_once_and_never_wraps() {
        let (one, two) = (Device(1), Device(2));
        let charges: Charges = [(one, 5), (two, 0), (one, 2)].into_iter().collect();
        assert_eq!(charges.iter().collect::<Vec<_>>(), [(one, 7)]);
        assert_eq!(charges.bytes_on(two), 0);
        assert_eq!(charges.and(one, u64::MAX).bytes_on(one), u64::MAX);
    }
}
