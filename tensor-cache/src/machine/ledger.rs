//! The bytes of every device, by what they are bound in.

use std::collections::BTreeMap;

use crate::{Charges, Device, DeviceUse};

/// What bytes are bound in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Leased,
    Idle,
    Building,
}

#[derive(Default)]
pub(super) struct Ledger(BTreeMap<Device, DeviceUse>);

impl DeviceUse {
    fn side(&mut self, standing: Standing) -> &mut u64 {
        match standing {
            Standing::Leased => &mut self.leased,
            Standing::Idle => &mut self.idle,
            Standing::Building => &mut self.building,
        }
    }

    fn total_limit(&self) -> u128 {
        u128::from(self.limit.unwrap_or(u64::MAX))
    }

    fn bound(&self) -> u128 {
        u128::from(self.leased) + u128::from(self.building)
    }
}

impl Ledger {
    pub(super) fn limit(&mut self, device: Device, bytes: Option<u64>) {
        self.0.entry(device).or_default().limit = bytes;
    }

    pub(super) fn add(&mut self, standing: Standing, charges: &Charges) {
        for (device, bytes) in charges.iter() {
            *self.0.entry(device).or_default().side(standing) += bytes;
        }
    }

    pub(super) fn remove(&mut self, standing: Standing, charges: &Charges) {
        for (device, bytes) in charges.iter() {
            *self.0.entry(device).or_default().side(standing) -= bytes;
        }
    }

    pub(super) fn shift(&mut self, from: Standing, to: Standing, charges: &Charges) {
        self.remove(from, charges);
        self.add(to, charges);
    }

    /// A device that has no room for `charges` even with nothing idle left.
    pub(super) fn refusal(&self, charges: &Charges) -> Option<Device> {
        let refuses = |(device, bytes): (Device, u64)| {
            let room = self.use_of(device);
            (room.bound() + u128::from(bytes) > room.total_limit()).then_some(device)
        };
        charges.iter().find_map(refuses)
    }

    /// Whether `device` has to let something idle go before `bytes` fit.
    pub(super) fn is_tight(&self, device: Device, bytes: u64) -> bool {
        let room = self.use_of(device);
        room.bound() + u128::from(room.idle) + u128::from(bytes) > room.total_limit()
    }

    pub(super) fn use_of(&self, device: Device) -> DeviceUse {
        self.0.get(&device).copied().unwrap_or_default()
    }

    pub(super) fn uses(&self) -> impl Iterator<Item = (Device, DeviceUse)> + '_ {
        self.0.iter().map(|(device, room)| (*device, *room))
    }
}
