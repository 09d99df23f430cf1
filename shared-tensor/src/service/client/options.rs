//! How a client finds its server.

use std::time::Duration;

use rpc_uds::PeerPolicy;

use super::Client;
use crate::service::place::Address;

/// The choices that hold for a whole client.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    pub(super) addresses: Vec<Address>,
    pub(super) policy: PeerPolicy,
    pub(super) patience: Duration,
    pub(super) message_bytes_max: u32,
    pub(super) is_driven: bool,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            policy: PeerPolicy::default(),
            patience: Duration::from_secs(60),
            message_bytes_max: crate::service::MESSAGE_BYTES_MAX,
            is_driven: false,
        }
    }
}

impl ClientOptions {
    /// Another place to look, after those named before.
    #[must_use]
    pub fn or_at(mut self, address: Address) -> Self {
        self.addresses.push(address);
        self
    }

    /// Which users may be the server. Default: the client's own.
    #[must_use]
    pub fn policy(self, policy: PeerPolicy) -> Self {
        Self { policy, ..self }
    }

    /// How long a server that was never there is waited for, within each call's deadline. One that is
    /// gone is not waited for at all. Default: 60 s.
    #[must_use]
    pub fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// How long a message may be, in bytes; tensors and long texts do not count. Default: 16 MiB.
    #[must_use]
    pub fn message_bytes_max(self, bytes: u32) -> Self {
        Self { message_bytes_max: bytes.max(2 * crate::service::HEAD_BYTES_MAX), ..self }
    }

    /// Whether the caller reads the replies of calls that are started, by [`Client::drive`] whenever
    /// [`Client::descriptor`] is readable, instead of a thread. Default: no.
    #[must_use]
    pub fn driven(self, is_driven: bool) -> Self {
        Self { is_driven, ..self }
    }

    /// A client that looks at `address` first. Connects when first used.
    pub fn at(mut self, address: Address) -> Client {
        self.addresses.insert(0, address);
        Client::with(self)
    }
}
