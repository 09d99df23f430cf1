//! A cache that builds each value once, lends it to many, and counts its bytes per device.
//!
//! For servers whose values are few, large and slow to make, such as models and tables, and whose
//! clients come, wait and vanish. Start from [`Cache::new`] and [`Cache::open_session`]; a
//! [`Session`] finds, joins or builds by [`Session::get_or_build`], or by [`Session::lookup`] where
//! no thread may wait; [`Session::find`] only finds.
//!
//! ```
//! use tensor_cache::{Built, Cache, Device, Options, Request};
//!
//! let gpu = Device(0);
//! let cache: Cache<&str, Vec<u8>> = Cache::new(&Options::new().budget(gpu, 1 << 30))?;
//! let client = cache.open_session();
//!
//! let weights = client.get_or_build(&Request::new("weights"), |_build| {
//!     Ok(Built::new(vec![7; 4096]).charge(gpu, 4096))
//! })?;
//! assert_eq!(weights[0], 7);
//! assert_eq!(cache.stats().devices[0].1.leased, 4096);
//!
//! drop(weights); // now it may be evicted
//! assert_eq!(cache.stats().devices[0].1.idle, 4096);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Guarantees
//!
//! | | |
//! |---|---|
//! | one step | finding and leasing a value, joining its build, or starting one is decided at one moment; so is ending a build and leasing its value to all who wait |
//! | builds | one at a time per key, unless the key was invalidated or the build cancelled meanwhile; each ends for those who wait, whatever happens to its builder |
//! | errors | reach everybody who waits, and answer for a while longer ([`Options::keep_failures`]) |
//! | leases | what is leased is neither evicted nor dropped; one gives back one's own, once; closing a session gives back all of it |
//! | budgets | bytes are counted exactly, in `u64`, while values are built (if reserved), leased and idle; the longest unused goes first; a refusal evicts nothing and says who holds what |
//! | invalidation | what is asked for later never gets a value whose build began earlier; leases and waits are not disturbed |
//! | expiry | a value is not found after its time, and goes by itself then, or with its last lease |
//! | deadlocks | a wait that closes a circle of builds is refused, with the keys, on one thread or across |
//! | numbers | those of objects, leases, builds and sessions are never used again |
//! | your code | builders, wakers, and the `Drop` of values and errors run without the lock; only keys are hashed, compared, cloned, grouped and dropped under it. A waker or a `Drop` that panics is reported by the panic hook and stops nothing else |
//!
//! # How a build ends
//!
//! | the builder | those who wait get | the next who asks |
//! |---|---|---|
//! | finishes | a lease | finds the value |
//! | finishes, after an invalidation | a lease | has found another build, or starts one |
//! | finishes, and there is no room | [`FlightError::OverBudget`] | starts a build |
//! | fails | [`FlightError::Failed`], all the same one | gets it too, for a while |
//! | panics | [`FlightError::Panicked`], with the message | gets it too, for a while |
//! | drops its token, or its thread ends | [`FlightError::Abandoned`] | starts a build |
//! | is given up ([`Cache::abandon`]), or its session was [bound](Request::bound_to_session) and is closed | [`FlightError::Abandoned`] | starts a build |
//!
//! A wait ends earlier by its deadline, by being dropped, or with its session; the build goes on, or
//! may stop ([`Unwanted`]). A thread that leaks its token, and lives, makes others wait until their
//! deadlines.
//!
//! # Where the bytes are counted
//!
//! A value counts from the end of its build, or from its beginning if it was reserved, until the
//! cache lets go of it. Its `Drop` runs right after that, on whichever thread made the cache let go:
//! the one that released, invalidated or made room, or, of what has lived its time, one of the cache's
//! own that does nothing else: however long it takes, other values end in time, but wait for their own
//! `Drop`. A thread that makes room by reserving has dropped what went when its lookup returns, but for
//! what had ended by its time before.
//!
//! # What this crate does not do
//!
//! - Wait for room. A refusal is immediate; whoever wants to wait knows better for what.
//! - Retry. Those who waited for a build that ended badly decide for themselves.
//! - Bound the number of entries, or the time of a build.
//! - Survive a fork: the child has the values and no thread that ends them. Make another cache.
//! - Serve millions of small values: making room looks at every object once.
//!
//! # Inside
//!
//! `machine` is the state and every transition as plain data, without clock or lock, and is tested
//! against a naive model by random steps. `shared` is one mutex round it, and does what must not be
//! done under the mutex. The loom models in `models` run over the shipped files.
//!
//! # Features
//!
//! None. `--cfg loom` builds the crate on loom's mutex and condition variable.

#![forbid(unsafe_code)]

/// Runs the README's example.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod actor;
mod build;
mod cache;
mod charges;
#[cfg(not(loom))]
mod dropper;
mod error;
mod ids;
mod key;
mod lease;
mod machine;
#[cfg(all(test, loom))]
mod models;
mod number_hash;
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
pub use key::{Key, Plain};
pub use lease::Lease;
pub use options::Options;
pub use pending::{News, Pending};
pub use progress::Progress;
pub use request::{Request, Retention, Unwanted};
pub use session::{Lookup, Session};
pub use stats::{DeviceUse, Entry, Finished, InFlight, Invalidated, Released, Stats};

pub(crate) use ids::WaiterId;
