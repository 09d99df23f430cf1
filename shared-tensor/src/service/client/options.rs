//! How a client finds its server.

use std::time::Duration;

use rpc_uds::PeerPolicy;

use super::Client;
use crate::service::place::Address;

/// How long a server is waited for, unless something else is said.
const PATIENCE: Duration = Duration::from_secs(60);

/// The choices that hold for a whole client.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    pub(super) addresses: Vec<Address>,
    pub(super) elsewhere: Vec<(Address, String)>,
    pub(super) policy: PeerPolicy,
    patience: Option<Duration>,
    pub(super) message_bytes_max: u32,
    pub(super) is_driven: bool,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            elsewhere: Vec::new(),
            policy: PeerPolicy::default(),
            patience: None,
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

    /// Where a server is that is the wrong one, and what to do then: as long as there is none at the
    /// places named, one found there is told at once ([`Error::Elsewhere`](super::Error::Elsewhere)).
    #[must_use]
    pub fn not_at(mut self, address: Address, advice: impl Into<String>) -> Self {
        self.elsewhere.push((address, advice.into()));
        self
    }

    /// Which users may be the server. Default: the client's own.
    #[must_use]
    pub fn policy(self, policy: PeerPolicy) -> Self {
        Self { policy, ..self }
    }

    /// How long a server that was never there is waited for, within each call's deadline. One that is
    /// gone is not waited for at all, but by [`Client::wait_for_server`]. Default: 60 s, but no time at all where calls are started on a
    /// [driven](Self::driven) client, which would keep its event loop waiting.
    #[must_use]
    pub fn patience(self, patience: Duration) -> Self {
        Self { patience: Some(patience), ..self }
    }

    pub(super) fn patience_of_waiting(&self) -> Duration {
        self.patience.unwrap_or(PATIENCE)
    }

    pub(super) fn patience_of_starting(&self) -> Duration {
        let usual = if self.is_driven { Duration::ZERO } else { PATIENCE };
        self.patience.unwrap_or(usual)
    }

    /// How long a message may be, in bytes; tensors and long texts do not count. At least
    /// [`MESSAGE_BYTES_LEAST`](crate::service::MESSAGE_BYTES_LEAST), 32 KiB, or connecting fails with
    /// [`Error::MessageBytes`](super::Error::MessageBytes). Default: 16 MiB.
    #[must_use]
    pub fn message_bytes_max(self, bytes: u32) -> Self {
        Self { message_bytes_max: bytes, ..self }
    }

    /// Whether the caller reads the replies of calls that are started, by [`Client::drive`] whenever
    /// [`Client::descriptor`] is readable, instead of a thread. Default: no.
    ///
    /// Connecting is done by whoever starts the first call, or the first one after the server was
    /// lost, and takes as long as a server that is there needs to say hello. Who does not want that
    /// in an event loop calls [`Client::connect`] on another thread before. Calls that are under way
    /// when the client is dropped or [closed](Client::close) are told [`Error::Cancelled`] there.
    ///
    /// [`Error::Cancelled`]: crate::service::Error::Cancelled
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
