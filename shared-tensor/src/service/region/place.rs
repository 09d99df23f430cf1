//! Where bytes are.

use std::fmt;
use std::sync::Mutex;

use cuda_ipc::Uuid;

use crate::service::monitor::lock;

/// Where the bytes of a region are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Place {
    /// Memory of the host.
    Cpu,
    /// Memory of the GPU with this identity, which is the same in every process.
    Cuda(Uuid),
}

/// The GPUs of which this process has heard, in that order.
static KNOWN: Mutex<Vec<Uuid>> = Mutex::new(Vec::new());

impl Place {
    /// The number by which budgets know it, the same as long as this process lives.
    pub(crate) fn budget(self) -> tensor_cache::Device {
        let Self::Cuda(device) = self else { return tensor_cache::Device(0) };
        let mut known = lock(&KNOWN);
        let index = known.iter().position(|it| *it == device).unwrap_or_else(|| {
            known.push(device);
            known.len() - 1
        });
        tensor_cache::Device(u32::try_from(index + 1).unwrap_or(u32::MAX))
    }

    /// The place with this number.
    pub(crate) fn of_budget(number: tensor_cache::Device) -> Self {
        let known = lock(&KNOWN);
        let index = (number.0 as usize).checked_sub(1);
        index.and_then(|index| known.get(index)).map_or(Self::Cpu, |device| Self::Cuda(*device))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(device) => device.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_tell_places_apart() {
        let (one, two) = (Uuid::from_bytes([1; 16]), Uuid::from_bytes([2; 16]));
        for place in [Place::Cpu, Place::Cuda(one), Place::Cuda(two), Place::Cuda(one)] {
            assert_eq!(Place::of_budget(place.budget()), place);
        }
        assert_ne!(Place::Cuda(one).budget(), Place::Cuda(two).budget());
    }
}
