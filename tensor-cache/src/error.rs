//! What can go wrong.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::{Device, FlightId, ObjectId, SessionId};

/// The error that builders return if no other type is named.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How a build ended without a value. Everybody who waited for it gets the same.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FlightError<E> {
    /// The builder said so.
    #[error("the build failed: {0}")]
    Failed(Arc<E>),
    /// The builder panicked.
    #[error("the build of `{key}` panicked: {message}")]
    Panicked {
        /// What was being built.
        key: Arc<str>,
        /// What the panic said.
        message: Arc<str>,
    },
    /// The builder went away: its token was dropped, its session closed, or somebody gave it up.
    #[error(
        "the build of `{key}` was abandoned, with neither a value nor an error; \
         ask again to start another one"
    )]
    Abandoned {
        /// What was being built.
        key: Arc<str>,
    },
    /// The value was built and there is no room for it.
    #[error(transparent)]
    OverBudget(Arc<OverBudget>),
}

impl<E> Clone for FlightError<E> {
    fn clone(&self) -> Self {
        match self {
            Self::Failed(error) => Self::Failed(Arc::clone(error)),
            Self::Panicked { key, message } => {
                Self::Panicked { key: Arc::clone(key), message: Arc::clone(message) }
            }
            Self::Abandoned { key } => Self::Abandoned { key: Arc::clone(key) },
            Self::OverBudget(error) => Self::OverBudget(Arc::clone(error)),
        }
    }
}

/// Why there is no lease.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum GetError<E> {
    /// The build ended without a value, just now or so recently that it is not tried again.
    #[error(transparent)]
    Flight(#[from] FlightError<E>),
    /// Each of these builds needs the next one, and the last is the first.
    #[error(
        "waiting would deadlock, each build needs the next: {}; \
         get one of them before the other begins",
        Chain(chain)
    )]
    WouldDeadlock {
        /// The names of the keys, first and last the same.
        chain: Vec<String>,
    },
    /// No room could be made before the build; it was not started.
    #[error(transparent)]
    OverBudget(Arc<OverBudget>),
    /// The session was closed, before or while waiting.
    #[error("{session} is closed; open another one")]
    SessionClosed {
        /// The session that asked.
        session: SessionId,
    },
    /// The deadline passed. The build goes on.
    #[error(
        "waited {waited:.1?} for the build of `{key}`, which goes on; wait longer, or ask later"
    )]
    Timeout {
        /// What is being built.
        key: String,
        /// How long the call waited.
        waited: Duration,
    },
}

/// Why an object was not taken in.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AdmitError {
    /// There is no room for it.
    #[error(transparent)]
    OverBudget(Arc<OverBudget>),
    /// The session was closed.
    #[error("{session} is closed; open another one")]
    SessionClosed {
        /// The session that was to hold the object.
        session: SessionId,
    },
}

/// A budget that has no room, although everything evictable were evicted. Nothing was.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
#[error("{}", self.told_of(device))]
pub struct OverBudget {
    /// Where room was wanted.
    pub device: Device,
    /// How much.
    pub needed: u64,
    /// The budget of the device.
    pub limit: u64,
    /// Bytes of objects that have leases.
    pub leased: u64,
    /// Bytes that builds have reserved.
    pub building: u64,
    /// Who has the most, largest first; at most [`HOLDERS_MAX`](Self::HOLDERS_MAX).
    pub holders: Vec<Holder>,
}

impl OverBudget {
    /// How many holders are listed.
    pub const HOLDERS_MAX: usize = 5;

    /// Its text with the place called as the program calls it, instead of by the number of the
    /// [`device`](Self::device).
    pub fn told_of(&self, place: impl fmt::Display) -> String {
        let Self { needed, limit, leased, building, holders, .. } = self;
        format!(
            "no room for {needed} bytes on {place}: its budget is {limit} bytes, {leased} are leased \
             and {building} reserved by builds; the largest: {}; release some, or raise the budget",
            Holders(holders)
        )
    }
}

/// Something that cannot be evicted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// The name of its key.
    pub key: String,
    /// Its bytes on the device in question.
    pub bytes: u64,
    /// What holds them.
    pub kind: HolderKind,
}

/// What holds bytes that cannot be evicted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HolderKind {
    /// An object with leases.
    Leased {
        /// The object.
        object: ObjectId,
        /// Its leases.
        leases: u64,
        /// Whose they are.
        sessions: Vec<SessionId>,
    },
    /// A build with a reservation.
    Building {
        /// The build.
        flight: FlightId,
    },
}

impl fmt::Display for Holder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "`{}` {} bytes ", self.key, self.bytes)?;
        match &self.kind {
            HolderKind::Leased { object, leases, sessions } => {
                let plural = if *leases == 1 { "" } else { "s" };
                write!(out, "({object}, {leases} lease{plural} of ")?;
                for (place, session) in sessions.iter().enumerate() {
                    let comma = if place == 0 { "" } else { ", " };
                    write!(out, "{comma}{session}")?;
                }
                write!(out, ")")
            }
            HolderKind::Building { flight } => write!(out, "({flight})"),
        }
    }
}

struct Holders<'a>(&'a [Holder]);

impl fmt::Display for Holders<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return write!(out, "none, it is too large by itself");
        }
        for (place, holder) in self.0.iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            write!(out, "{comma}{holder}")?;
        }
        Ok(())
    }
}

struct Chain<'a>(&'a [String]);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, key) in self.0.iter().enumerate() {
            let arrow = if place == 0 { "" } else { " -> " };
            write!(out, "{arrow}`{key}`")?;
        }
        Ok(())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    type Get = GetError<String>;

    #[test]
    fn errors_say_what_was_found_and_what_to_do() {
        let leased = Holder {
            key: "bert".to_owned(),
            bytes: 60,
            kind: HolderKind::Leased {
                object: ObjectId::from_raw(3),
                leases: 2,
                sessions: vec![SessionId::from_raw(1), SessionId::from_raw(4)],
            },
        };
        let building = Holder {
            key: "gpt".to_owned(),
            bytes: 30,
            kind: HolderKind::Building { flight: FlightId::from_raw(9) },
        };
        let over = OverBudget {
            device: Device(0),
            needed: 40,
            limit: 100,
            leased: 60,
            building: 30,
            holders: vec![leased, building],
        };
        let alone =
            OverBudget { needed: 200, leased: 0, building: 0, holders: vec![], ..over.clone() };
        let told: [(String, &str); 9] = [
            (
                over.to_string(),
                "no room for 40 bytes on device 0: its budget is 100 bytes, 60 are leased and 30 \
                 reserved by builds; the largest: `bert` 60 bytes (object 3, 2 leases of session 1, \
                 session 4), `gpt` 30 bytes (build 9); release some, or raise the budget",
            ),
            (
                AdmitError::OverBudget(Arc::new(alone)).to_string(),
                "no room for 200 bytes on device 0: its budget is 100 bytes, 0 are leased and 0 \
                 reserved by builds; the largest: none, it is too large by itself; release some, or \
                 raise the budget",
            ),
            (
                AdmitError::SessionClosed { session: SessionId::from_raw(7) }.to_string(),
                "session 7 is closed; open another one",
            ),
            (
                Get::SessionClosed { session: SessionId::from_raw(7) }.to_string(),
                "session 7 is closed; open another one",
            ),
            (
                Get::WouldDeadlock { chain: ["a", "b", "a"].map(str::to_owned).to_vec() }
                    .to_string(),
                "waiting would deadlock, each build needs the next: `a` -> `b` -> `a`; get one of \
                 them before the other begins",
            ),
            (
                Get::Timeout { key: "bert".to_owned(), waited: Duration::from_secs(5) }.to_string(),
                "waited 5.0s for the build of `bert`, which goes on; wait longer, or ask later",
            ),
            (
                Get::from(FlightError::Failed(Arc::new("disk full".to_owned()))).to_string(),
                "the build failed: disk full",
            ),
            (
                FlightError::<String>::Abandoned { key: "bert".into() }.to_string(),
                "the build of `bert` was abandoned, with neither a value nor an error; ask again to \
                 start another one",
            ),
            (
                FlightError::<String>::Panicked { key: "bert".into(), message: "no".into() }
                    .to_string(),
                "the build of `bert` panicked: no",
            ),
        ];
        for (found, expected) in told {
            assert_eq!(found, expected);
        }
    }
}
