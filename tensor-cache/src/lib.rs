//! A singleflight cache with leases.

#![forbid(unsafe_code)]

mod actor;
mod build;
mod cache;
mod charges;
mod error;
mod ids;
mod key;
mod lease;
mod machine;
mod options;
mod pending;
mod progress;
mod request;
mod session;
mod shared;
mod stats;
mod sync;
#[cfg(not(loom))]
mod timer;

pub use actor::Actor;
pub use build::{Build, Built};
pub use cache::Cache;
pub use charges::Charges;
pub use error::{AdmitError, BoxError, FlightError, GetError, Holder, HolderKind, OverBudget};
pub use ids::{Device, FlightId, LeaseId, ObjectId, SessionId};
pub use key::Key;
pub use lease::Lease;
pub use options::Options;
pub use pending::{News, Pending};
pub use progress::Progress;
pub use request::{Request, Retention, Unwanted};
pub use session::{Lookup, Session};
pub use stats::{DeviceUse, Entry, Finished, Invalidated, Released, Stats};

pub(crate) use ids::WaiterId;
