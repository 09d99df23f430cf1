//! What a server counts.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: AtomicU64,)*
        }

        /// Counts since the server began, and two of this moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct ServerStats {
            $($(#[$doc])* pub $name: u64,)*
            /// Connections at this moment.
            pub connections: u64,
            /// Requests begun and unanswered at this moment, without control requests.
            pub in_progress: u64,
        }

        impl Counters {
            pub(crate) fn snapshot(&self, connections: usize, in_progress: usize) -> ServerStats {
                ServerStats {
                    $($name: self.$name.load(Ordering::Relaxed),)*
                    connections: connections as u64,
                    in_progress: in_progress as u64,
                }
            }
        }
    };
}

counters! {
    /// Connections accepted by the kernel.
    accepted,
    /// Handshakes that led to a session.
    sessions,
    /// Connections refused because there were as many as may be.
    shed_connections,
    /// Connections refused because no thread could be started.
    shed_threads,
    /// How often accepting had to pause: out of descriptors or memory.
    accept_pauses,
    /// Connections refused because of their user.
    refused_users,
    /// Connections refused because there is no common version.
    refused_versions,
    /// Clients of the 0.2 protocol.
    refused_legacy,
    /// Connections refused by the handler.
    refused_by_handler,
    /// Connections that said no hello in time.
    silent,
    /// Connections ended because a frame did not come to its end in time.
    trickling,
    /// Connections ended because what came was not the protocol.
    protocol_errors,
    /// Connections ended because the client did not read what it was sent.
    slow_readers,
    /// Requests, control requests included.
    requests,
    /// Control requests and pings.
    control_requests,
    /// Requests answered on the thread of their connection.
    fast_requests,
    /// Requests refused because the queue was full.
    shed_queue,
    /// Requests refused because their connection had too many unanswered.
    shed_unanswered,
    /// Requests refused because too many descriptors waited with those of their connection.
    shed_descriptors,
    /// Requests refused because the server was stopping.
    refused_stopping,
    /// Requests cancelled by their client.
    cancelled,
    /// Requests whose handler panicked or gave no answer.
    unanswered,
    /// Replies sent or queued.
    replies,
    /// Pushes sent or queued.
    pushes,
    /// Bytes received.
    bytes_in,
    /// Bytes sent or queued.
    bytes_out,
}

pub(crate) fn count(counter: &AtomicU64) {
    add(counter, 1);
}

pub(crate) fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(count as u64, Ordering::Relaxed);
}
