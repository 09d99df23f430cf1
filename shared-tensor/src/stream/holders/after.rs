//! Asking the holders of a stream after their contexts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rpc_uds::{Client, PendingCall, Request};

use super::office::LIMITS;
use super::roll::Roll;
use super::trusted;
use super::wire::CONTEXTS;
use crate::ring::Identity;
use crate::service::runtime_directory;
use crate::stream::layout::SEATS;
use crate::stream::memory::{Peers, StreamMemory};

/// How long one of them may take. Who is stopped does not keep the others from being asked.
const PATIENCE: Duration = Duration::from_millis(50);

/// Has every other process that holds a stream's chunk find out whether its contexts are lost. Who is stopped, or
/// of another release, is left out.
pub(crate) fn ask_after_contexts(memory: &Arc<StreamMemory>, peers: &Peers<'_>, me: Identity) {
    let Ok(directory) = runtime_directory() else { return };
    let roll = Roll { memory, peers };
    for listed in (0..SEATS).filter_map(|line| roll.read(line)) {
        if listed.id == me.id {
            continue;
        }
        if let Ok(Some(socket)) = &listed.socket {
            let by = Instant::now() + PATIENCE;
            let client = Client::options().policy(trusted()).limits(LIMITS).pushes_max(1);
            if let Ok(client) = client.connect(directory.socket(socket.as_str()), by) {
                let asked = client.start(Request::new(CONTEXTS, &[]), by);
                let _ = asked.map(PendingCall::wait);
            }
        }
    }
}
