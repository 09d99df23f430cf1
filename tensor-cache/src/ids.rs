//! Numbers that name things. They are counted up and never used again.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $word:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(u64);

        impl $name {
            /// The name that a message carried. One that was never given out names nothing, which
            /// every operation says.
            pub const fn from_raw(raw: u64) -> Self {
                Self(raw)
            }

            /// The number, for a message.
            pub const fn raw(self) -> u64 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(out, concat!($word, " {}"), self.0)
            }
        }
    };
}

number! {
    /// One built value. The next value of the same key has another number.
    ObjectId, "object"
}
number! {
    /// One holder of leases, usually a client.
    SessionId, "session"
}
number! {
    /// One build in progress.
    FlightId, "build"
}

/// One waiter for a flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct WaiterId(pub(crate) u64);

/// One lease on an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseId {
    /// What is leased.
    pub object: ObjectId,
    /// Tells leases on one object apart.
    pub serial: u64,
}

impl fmt::Display for LeaseId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "lease {} on {}", self.serial, self.object)
    }
}

/// Where bytes are: an index that the caller gives a meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Device(pub u32);

impl fmt::Display for Device {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "device {}", self.0)
    }
}
