//! What the crate itself says: the bodies of control frames.
//!
//! In postcard's encoding, which has no field names: enums only grow at their end, structures never
//! change, and bytes left over are an error. What is on the wire is held by golden files.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::error::FrameError;
use crate::frame::{FrameLimits, HEADER_BYTES, Header, Kind};
use crate::handshake::{Agreement, Offer, Versions};

/// Nothing that the crate says is longer.
pub(crate) const CONTROL_BYTES_MAX: u32 = 4096;
/// Where the texts in it are cut.
const TEXT_BYTES_MAX: usize = 1024;

/// A control message. The frame's id is that of the request it concerns, else 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Control {
    /// First thing, from the client.
    Hello(Offer),
    /// The server's answer.
    Welcome(Agreement),
    /// No. With id 0 the connection ends.
    Refusal(Refusal),
    /// Are you there?
    Ping,
    /// Yes.
    Pong,
    /// The client does not want the answer to the frame's id any more.
    Cancel,
    /// The server takes no more requests and is about to end.
    Goodbye,
}

impl Control {
    /// The body of its frame.
    pub fn encode(&self) -> Vec<u8> {
        // Encoding into memory fails only for types that refuse to be encoded.
        postcard::to_allocvec(self).unwrap_or_default()
    }

    /// Its frame, ready to be sent: a header and a body.
    pub(crate) fn frame(&self, id: u64) -> ([u8; HEADER_BYTES], Vec<u8>) {
        let body = self.encode();
        let body_bytes = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let header = Header { kind: Kind::Control, tag: 0, descriptors: 0, body_bytes, id };
        (header.encode(), body)
    }

    /// Reads the body of a control frame.
    ///
    /// # Errors
    ///
    /// [`FrameError::Control`] for anything but one message and nothing else.
    pub fn decode(body: &[u8]) -> Result<Self, FrameError> {
        if body.len() > CONTROL_BYTES_MAX as usize {
            let bytes = u32::try_from(body.len()).unwrap_or(u32::MAX);
            return Err(FrameError::TooLong { bytes, limit: CONTROL_BYTES_MAX });
        }
        match postcard::take_from_bytes(body) {
            Ok((control, [])) => Ok(control),
            Ok((_, rest)) => Err(FrameError::Control { surplus: Some(rest.len()) }),
            Err(_) => Err(FrameError::Control { surplus: None }),
        }
    }
}

/// Why the other side did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Refusal {
    /// No version is spoken by both.
    #[error(
        "the client speaks protocol versions {client}, the server {server}: \
         use releases that overlap on both sides"
    )]
    Version {
        /// What the client speaks.
        client: Versions,
        /// What the server speaks.
        server: Versions,
    },
    /// The server's policy does not admit the client's user.
    #[error(
        "the client runs as user {client}, the server as user {server} and does not admit it: \
         run both as one user, or widen the server's policy"
    )]
    User {
        /// The client's effective user id.
        client: u32,
        /// The server's.
        server: u32,
    },
    /// The server holds as many connections as it may.
    #[error("the server holds {limit} connections, its limit: close some, or raise the limit")]
    Connections {
        /// The limit.
        limit: u32,
    },
    /// The server could not start a thread for the connection.
    #[error("the server could not start a thread for the connection: try again later")]
    Threads,
    /// The server's queue of requests is full.
    #[error("the server has {limit} requests waiting, its limit: try again later")]
    Queue {
        /// The limit.
        limit: u32,
    },
    /// Too many requests of this connection are unanswered.
    #[error("{limit} requests of this connection are unanswered, its limit: wait for some")]
    Unanswered {
        /// The limit.
        limit: u32,
    },
    /// The server is about to end.
    #[error("the server is stopping and takes no new requests: connect to its successor")]
    Stopping,
    /// The request was cancelled by its client.
    #[error("the request was cancelled")]
    Cancelled,
    /// The handler let go of the request without answering.
    #[error(
        "the server's handler dropped the request without an answer: whether it was done is not known"
    )]
    Dropped,
    /// The handler panicked.
    #[error("the server's handler panicked: the server's standard error says where")]
    Panicked,
    /// The reply is more than the client takes.
    #[error("the reply is more than was agreed: {what}")]
    Reply {
        /// In which way.
        what: String,
    },
    /// What was sent is not the protocol.
    #[error("the server did not understand: {what}")]
    Protocol {
        /// What was wrong.
        what: String,
    },
    /// The server's handler did not want the connection.
    #[error("the server does not want the connection: {reason}")]
    Rejected {
        /// In the handler's words.
        reason: String,
    },
    /// Too many descriptors came with requests of this connection that are unanswered.
    #[error(
        "{limit} descriptors may wait with the requests of this connection: wait for some answers"
    )]
    Descriptors {
        /// The limit.
        limit: u32,
    },
}

impl Refusal {
    /// For [`Handler::connected`](crate::Handler::connected): no, because of `reason`.
    pub fn rejected(reason: impl Into<String>) -> Self {
        Self::Rejected { reason: cut(reason.into()) }
    }

    pub(crate) fn protocol(error: &FrameError) -> Self {
        Self::Protocol { what: cut(error.to_string()) }
    }
}

fn cut(mut text: String) -> String {
    let mut end = TEXT_BYTES_MAX.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

/// Both sides must be able to say what the crate says, whatever they agree on.
pub(crate) fn with_room_for_control(limits: FrameLimits) -> FrameLimits {
    FrameLimits { body_bytes_max: limits.body_bytes_max.max(CONTROL_BYTES_MAX), ..limits }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn hostile_bodies_are_an_error_or_a_message(
            body in proptest::collection::vec(any::<u8>(), 0..64),
            variant in 0_u8..9,
        ) {
            let mut body = body;
            if let Some(first) = body.first_mut() {
                *first = variant;
            }
            if let Ok(control) = Control::decode(&body) {
                // What was read is what is said, so nothing was left out.
                prop_assert_eq!(Control::decode(&control.encode()), Ok(control));
            }
        }

        #[test]
        fn a_mutation_of_a_hello_never_panics(at in 0_usize..12, to in any::<u8>()) {
            let mut body = Control::Hello(Offer::default()).encode();
            let at = at % body.len();
            body[at] = to;
            let _ = Control::decode(&body);
        }
    }

    #[test]
    fn leftovers_and_stumps_are_refused() {
        let mut body = Control::Hello(Offer::default()).encode();
        assert_eq!(Control::decode(&body), Ok(Control::Hello(Offer::default())));
        body.push(0);
        assert_eq!(Control::decode(&body), Err(FrameError::Control { surplus: Some(1) }));
        body.truncate(3);
        assert_eq!(Control::decode(&body), Err(FrameError::Control { surplus: None }));
        assert_eq!(Control::decode(&[]), Err(FrameError::Control { surplus: None }));
    }

    #[test]
    fn long_reasons_are_cut_between_characters() {
        let Refusal::Rejected { reason } = Refusal::rejected("é".repeat(2000)) else { panic!() };
        assert_eq!(reason.len(), 1024);
        assert!(Control::Refusal(Refusal::rejected(reason)).encode().len() < 4096);
    }
}
