//! What both sides agree on before the first request.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::control::{Refusal, with_room_for_control};
use crate::error::FrameError;
use crate::frame::FrameLimits;

/// The versions of the protocol that this crate speaks.
pub const VERSIONS: Versions = Versions { min: 1, max: 1 };

/// An inclusive range of protocol versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// The oldest.
    pub min: u16,
    /// The newest.
    pub max: u16,
}

impl fmt::Display for Versions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { min, max } = self;
        if min == max { write!(formatter, "{min}") } else { write!(formatter, "{min} to {max}") }
    }
}

/// What one side speaks, offers and takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Protocol versions.
    pub versions: Versions,
    /// One bit per feature, their meaning the user's; what both offer is agreed.
    pub features: u64,
    /// The longest body that this side takes.
    pub body_bytes_max: u32,
    /// The most descriptors with one frame that this side takes.
    pub descriptors_max: u8,
}

/// What both sides keep to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agreement {
    /// The newest version that both speak.
    pub version: u16,
    /// The features that both offer.
    pub features: u64,
    /// The longest body that both take.
    pub body_bytes_max: u32,
    /// The most descriptors that both take with one frame.
    pub descriptors_max: u8,
}

impl Default for Offer {
    fn default() -> Self {
        Self::new(0, FrameLimits::default())
    }
}

impl Offer {
    pub(crate) fn new(features: u64, limits: FrameLimits) -> Self {
        let FrameLimits { body_bytes_max, descriptors_max } = limits;
        Self { versions: VERSIONS, features, body_bytes_max, descriptors_max }
    }

    /// The server's part: what `self`, the server, and `client` agree on.
    ///
    /// # Errors
    ///
    /// [`Refusal::Version`] if there is no common version.
    pub fn answer(&self, client: &Self) -> Result<Agreement, Refusal> {
        let version = self.versions.max.min(client.versions.max);
        if version < self.versions.min.max(client.versions.min) {
            return Err(Refusal::Version { client: client.versions, server: self.versions });
        }
        Ok(Agreement {
            version,
            features: self.features & client.features,
            body_bytes_max: self.body_bytes_max.min(client.body_bytes_max),
            descriptors_max: self.descriptors_max.min(client.descriptors_max),
        })
    }

    /// The client's part: whether `agreement` lies within what was offered.
    ///
    /// # Errors
    ///
    /// [`FrameError::Agreement`] if it does not.
    pub fn check(&self, agreement: &Agreement) -> Result<(), FrameError> {
        let lies_within = (self.versions.min..=self.versions.max).contains(&agreement.version)
            && agreement.features & !self.features == 0
            && agreement.body_bytes_max <= self.body_bytes_max
            && agreement.descriptors_max <= self.descriptors_max;
        if lies_within { Ok(()) } else { Err(FrameError::Agreement) }
    }
}

impl Agreement {
    /// What may be sent.
    pub(crate) fn limits(&self) -> FrameLimits {
        let Self { body_bytes_max, descriptors_max, .. } = *self;
        FrameLimits { body_bytes_max, descriptors_max }
    }

    /// What is taken: control messages fit whatever was agreed.
    pub(crate) fn limits_of_receiver(&self) -> FrameLimits {
        with_room_for_control(self.limits())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn offer() -> impl Strategy<Value = Offer> {
        (0_u16..6, 0_u16..6, any::<u64>(), any::<u32>(), any::<u8>()).prop_map(
            |(min, max, features, body_bytes_max, descriptors_max)| Offer {
                versions: Versions { min, max },
                features,
                body_bytes_max,
                descriptors_max,
            },
        )
    }

    proptest! {
        #[test]
        fn an_agreement_lies_within_both_offers(server in offer(), client in offer()) {
            let common = (0_u16..6).rev().find(|version| {
                let speaks = |it: &Offer| (it.versions.min..=it.versions.max).contains(version);
                speaks(&server) && speaks(&client)
            });
            match server.answer(&client) {
                Ok(agreement) => {
                    prop_assert_eq!(Some(agreement.version), common);
                    prop_assert_eq!(client.check(&agreement), Ok(()));
                    prop_assert_eq!(server.check(&agreement), Ok(()));
                }
                Err(refusal) => {
                    prop_assert_eq!(common, None);
                    let (client, server) = (client.versions, server.versions);
                    prop_assert_eq!(refusal, Refusal::Version { client, server });
                }
            }
        }
    }

    #[test]
    fn a_server_that_grants_more_than_was_offered_is_not_believed() {
        let offer = Offer { features: 1, ..Offer::default() };
        let agreement = Offer::default().answer(&offer).expect("the same versions");
        assert_eq!(offer.check(&agreement), Ok(()));
        for wrong in [
            Agreement { version: 2, ..agreement },
            Agreement { features: 2, ..agreement },
            Agreement { body_bytes_max: u32::MAX, ..agreement },
            Agreement { descriptors_max: 253, ..agreement },
        ] {
            assert_eq!(offer.check(&wrong), Err(FrameError::Agreement));
        }
    }
}
