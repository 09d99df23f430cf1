//! The cross-process ring, one suite per behaviour.

mod attach;
mod crash;
mod demo;
mod harness;
mod locks;
mod starve;
mod streams;

use std::path::Path;

use st_tests::{Namespace, Peer};

/// Starts a scripted peer.
fn peer(space: &Namespace) -> Peer {
    Peer::script(space, Path::new(env!("CARGO_BIN_EXE_st-peer")))
}
