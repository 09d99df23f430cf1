//! The cross-process test ring: real processes, spoken to over pipes, stopped and killed at will.
//!
//! Start from [`Namespace`]: it gives a test names of its own, watches that the test ends, and
//! asserts when it is dropped that nothing is left behind. A [`Peer`] is another process of that
//! test. What a peer can be told stands in [`script`].
//!
//! ```no_run
//! use st_tests::{Namespace, Peer, program};
//!
//! let space = Namespace::new("handoff");
//! let mut owner = Peer::script(&space, &program::beside("st-peer"));
//! owner.ask("hello");
//! owner.freeze(); // a stopped process is not a dead one
//! owner.thaw();
//! owner.kill();
//! ```
//!
//! # Rules
//! - No sleeping until something has probably happened: a peer answers when it has.
//! - No assertion on how long something took: [`Watchdog`] ends what hangs, and that is all.
//! - Random choices come from [`Seed`], which a failing test prints.
//! - A test that cannot run on this host says so through [`skip()`], and is counted as skipped.

pub mod crash;
pub mod demo;
pub mod frame;
mod namespace;
mod pages;
mod peer;
mod place;
pub mod program;
pub mod script;
mod seed;
mod skip;
pub mod soak;
pub mod starve;
#[expect(unsafe_code, reason = "forking and dying to order, in test programs only")]
mod sys;
mod watchdog;

pub use namespace::Namespace;
pub use peer::Peer;
pub use place::Place;
pub use seed::Seed;
pub use skip::skip;
pub use watchdog::Watchdog;
