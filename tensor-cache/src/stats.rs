//! What the cache tells about itself.

use std::time::Duration;

use crate::{Charges, Device, FlightId, ObjectId, Progress, SessionId};

/// Counts since the cache was made, and what there is now. All of it is of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Lookups that found a value.
    pub hits: u64,
    /// Lookups that started a build.
    pub misses: u64,
    /// Lookups that joined a build.
    pub joins: u64,
    /// Lookups that were answered with a remembered error.
    pub remembered_failures: u64,
    /// Builds that ended with a value.
    pub builds: u64,
    /// Builds that ended otherwise.
    pub failures: u64,
    /// Values that went to make room.
    pub evictions: u64,
    /// Values that went because their time was over.
    pub expirations: u64,
    /// Values that were invalidated.
    pub invalidations: u64,
    /// Values that can be found.
    pub entries: usize,
    /// Values that exist, those included that can no longer be found and live by their leases.
    pub objects: usize,
    /// Builds in progress.
    pub flights: usize,
    /// Waits for builds that have not ended.
    pub waiters: usize,
    /// Leases.
    pub leases: u64,
    /// Open sessions.
    pub sessions: usize,
    /// Every device that has a budget or ever had bytes.
    pub devices: Vec<(Device, DeviceUse)>,
}

/// The bytes of one device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceUse {
    /// The budget, if there is one.
    pub limit: Option<u64>,
    /// Bytes of objects with leases: they stay.
    pub leased: u64,
    /// Bytes of objects without: they go when room is needed.
    pub idle: u64,
    /// Bytes reserved by builds.
    pub building: u64,
}

/// One object, for people and tools that look.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry<K> {
    /// What it was built for.
    pub key: K,
    /// Its number.
    pub object: ObjectId,
    /// Its bytes.
    pub charges: Charges,
    /// How many leases it has.
    pub leases: u64,
    /// How long ago its build ended.
    pub age: Duration,
    /// How long ago it was last found, or last released if that is later.
    pub unused: Duration,
    /// How often it was found after it was built.
    pub hits: u64,
    /// Whether a lookup finds it.
    pub is_listed: bool,
}

/// One build in progress, for people and tools that look.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InFlight<K> {
    /// What is being built.
    pub key: K,
    /// Its number.
    pub flight: FlightId,
    /// Who asked first.
    pub session: SessionId,
    /// How many wait for it.
    pub waiters: usize,
    /// The bytes it has reserved.
    pub reserved: Charges,
    /// How long ago it began.
    pub age: Duration,
    /// The latest that the builder told.
    pub progress: Option<Progress>,
    /// Whether those who ask now wait for it: not if it was invalidated or cancelled.
    pub is_listed: bool,
}

/// What a release left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Released {
    /// What was leased.
    pub object: ObjectId,
    /// How many leases are left.
    pub leases_left: u64,
    /// Whether the object is gone: nobody has a lease and no lookup finds it.
    pub is_destroyed: bool,
}

/// What an invalidation hit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Invalidated {
    /// Values that will not be found again. What the value is does not matter.
    pub entries: usize,
    /// Builds in progress whose value will reach those who wait for it, and nobody else.
    pub builds: usize,
}

/// What became of a build that was finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finished {
    /// The value's number, unless nobody wanted it and it was not to be kept.
    pub object: Option<ObjectId>,
    /// How many waiters got a lease on it.
    pub delivered: usize,
    /// Whether lookups find it.
    pub is_listed: bool,
}
