//! Why a client has no answer.

use std::path::PathBuf;
use std::time::Duration;

use rpc_uds::{CallError, ConnectError, Forked, Lost, Refusal};
use thiserror::Error;

use crate::service::failure::{Code, Failure};
use crate::service::place::PlaceError;
use crate::service::region::RegionError;
use crate::service::wire::DecodeError;
use crate::service::wire::payload::PackError;

/// Why a client has no answer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The endpoint failed, or the server could not do what was asked.
    #[error("Remote error [{}]: {}", .0.code.number(), .0)]
    Failed(Failure),
    /// The server that this client was connected to is gone. Whether it has done what was asked is not
    /// known if it went meanwhile. [`Client::wait_for_server`](super::Client::wait_for_server) waits for
    /// the next one.
    #[error("the server at {} is gone ({what}): start it again, or wait for its successor", .path.display())]
    ServerLost {
        /// Where it was.
        path: PathBuf,
        /// How that showed.
        what: String,
    },
    /// No server is there, and none came in the time that it was waited for.
    #[error(
        "no server at {address} within {waited:.1?}: start one, or check the path{}",
        hint_of_others(others)
    )]
    Absent {
        /// Where it was looked for.
        address: String,
        /// How long.
        waited: Duration,
        /// The sockets of servers for other GPUs, under the same base path: those may be hidden from
        /// this process.
        others: Vec<PathBuf>,
    },
    /// No server is there, and one for another device is.
    #[error("no server at {address}, and one at {found}: {advice}")]
    Elsewhere {
        /// Where it was looked for.
        address: String,
        /// Where the other one is.
        found: String,
        /// What to do.
        advice: String,
    },
    /// What is there is a server of another age.
    #[error(
        "the server at {} is one of shared-tensor 0.2, which this release does not talk to: run \
         both sides with one release", .path.display()
    )]
    Legacy {
        /// Where it is.
        path: PathBuf,
    },
    /// There is no connection for another reason.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// There is no place to look for a server.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The client's messages would have no room for anything.
    #[error("messages of at most {found} bytes are too short: allow {least} at least")]
    MessageBytes {
        /// What was set.
        found: u32,
        /// The least that there has to be.
        least: u32,
    },
    /// The deadline passed. The server was told; what it has begun may go on.
    #[error("no answer within {waited:.1?}")]
    TimedOut {
        /// How long was waited.
        waited: Duration,
    },
    /// It was cancelled on this side.
    #[error("the call was cancelled")]
    Cancelled,
    /// The closure given for it said so.
    #[error("the call was interrupted")]
    Interrupted,
    /// The server did not take the request.
    #[error("the server refused the call: {0}")]
    Refused(Refusal),
    /// The arguments cannot be sent.
    #[error("the arguments cannot be sent: {0}")]
    Arguments(#[from] PackError),
    /// What the server sent cannot be read.
    #[error("the server's answer cannot be read: {0}")]
    Answer(#[from] DecodeError),
    /// A client was used in a forked child of the process that made it.
    #[error(transparent)]
    Forked(#[from] Forked),
    /// The layer below failed otherwise.
    #[error(transparent)]
    Call(CallError),
}

fn hint_of_others(others: &[PathBuf]) -> String {
    let Some((first, more)) = others.split_first() else { return String::new() };
    let sockets = more
        .iter()
        .fold(first.display().to_string(), |text, path| format!("{text}, {}", path.display()));
    format!(
        "; there is one for another GPU, which may be hidden from this process, at {sockets}: if \
         that is meant, name its socket instead of the device"
    )
}

impl Error {
    /// The endpoint's failure, if that is what it is.
    pub fn failure(&self) -> Option<&Failure> {
        if let Self::Failed(failure) = self { Some(failure) } else { None }
    }

    /// What kind of failure it is, if it is the endpoint's or the server's: what travels as
    /// [`Code::number`].
    pub fn code(&self) -> Option<Code> {
        self.failure().map(|failure| failure.code)
    }

    /// Whether a server that was there is gone.
    pub fn is_server_lost(&self) -> bool {
        matches!(self, Self::ServerLost { .. })
    }

    /// Whether a deadline passed.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::TimedOut { .. })
    }

    pub(super) fn of_call(error: CallError, path: &std::path::Path) -> Self {
        match error {
            CallError::TimedOut { waited } => Self::TimedOut { waited },
            CallError::Cancelled => Self::Cancelled,
            CallError::Interrupted => Self::Interrupted,
            CallError::Refused(refusal) => Self::Refused(refusal),
            CallError::Lost(lost) => Self::lost(&lost, path),
            CallError::Forked(forked) => Self::Forked(forked),
            error => Self::Call(error),
        }
    }

    pub(super) fn lost(lost: &Lost, path: &std::path::Path) -> Self {
        Self::ServerLost { path: path.to_owned(), what: lost.to_string() }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<RegionError> for Error {
    fn from(error: RegionError) -> Self {
        Self::Arguments(PackError::Region(error))
    }
}
